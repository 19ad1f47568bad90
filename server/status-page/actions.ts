/** What somebody wants silenced: a check on a client, or a client. */
export interface Subject {
  client: string
  check?: string
}

/** What can be done on the page. Nothing rejects: failures are told there. */
export interface Actions {
  /** Asks what exactly, for how long and why. */
  silence(subject: Subject): void
  unsilence(id: string): Promise<void>
  resolve(subject: Required<Subject>): Promise<void>
}

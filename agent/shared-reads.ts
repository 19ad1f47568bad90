/** A read under way, and the one that follows it for those who asked meanwhile. */
interface Read {
  answer: Promise<unknown>
  next: Promise<unknown> | undefined
}

/**
 * Answers many who ask the same with few questions: who asks while the same read is under way waits for its end and then shares
 * one read with all who did, so that nobody gets an answer that is older than his question. What is shared must not be changed.
 */
export class SharedReads {
  readonly #reads = new Map<string, Read>()

  /** `key` names the question; `read` puts it. Rejects as `read` does. */
  ask(key: string, read: () => Promise<unknown>): Promise<unknown> {
    const current = this.#reads.get(key)
    if (current === undefined) return this.#start(key, read)
    const again = () => this.#start(key, read)
    current.next ??= current.answer.then(again, again)
    return current.next
  }

  #start(key: string, read: () => Promise<unknown>): Promise<unknown> {
    const current: Read = { answer: read(), next: undefined }
    this.#reads.set(key, current)
    const forget = () => {
      if (current.next === undefined) this.#reads.delete(key)
    }
    current.answer.then(forget, forget)
    return current.answer
  }
}

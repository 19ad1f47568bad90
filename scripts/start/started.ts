/** Something that was started and can be stopped. */
export interface Stoppable {
  stop(): unknown
}

/** Everything that was started, to be stopped in the opposite order. What comes after the stop is stopped at once. */
export class Started {
  readonly #services: Stoppable[] = []
  readonly #tell: (message: string) => void
  #stopped = false

  constructor(tell: (message: string) => void) {
    this.#tell = tell
  }

  async add(service: Stoppable): Promise<void> {
    if (this.#stopped) await service.stop()
    else this.#services.push(service)
  }

  async stop(): Promise<void> {
    this.#stopped = true
    for (const service of this.#services.reverse()) {
      try {
        await service.stop()
      } catch (error) {
        this.#tell(`while stopping: ${messageOf(error)}`)
      }
    }
  }
}

/** An error's message alone. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}

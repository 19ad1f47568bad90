/** Lets a limited number of executions run at once; the others wait in the order they came. */
export class Slots {
  readonly #limit: number
  readonly #waiting: (() => void)[] = []
  #running = 0

  constructor(limit: number) {
    this.#limit = limit
  }

  /** Runs `work` as soon as a slot is free. Settles as `work` does. */
  async run<T>(work: () => Promise<T>): Promise<T> {
    if (this.#running >= this.#limit) await new Promise<void>(resolve => this.#waiting.push(resolve))
    else this.#running++
    try {
      return await work()
    } finally {
      // the slot goes to the next in line without becoming free in between
      const next = this.#waiting.shift()
      if (next) next()
      else this.#running--
    }
  }
}

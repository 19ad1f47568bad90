/** Lets a limited number of executions run at once; the others wait in the order they came. */
export class Slots {
  readonly #limit: number
  /** Emptied from its front by counting: Array.shift would move ten thousand others each time. */
  #waiting: (() => Promise<unknown>)[] = []
  #next = 0
  #running = 0

  constructor(limit: number) {
    this.#limit = limit
  }

  get running(): number {
    return this.#running
  }

  /** What waits for a free slot. */
  get queued(): number {
    return this.#waiting.length - this.#next
  }

  /** Calls `work` as soon as a slot is free, which it is again when its promise settles. Until then only the function is kept. */
  start(work: () => Promise<unknown>): void {
    if (this.#running >= this.#limit) {
      this.#waiting.push(work)
    } else {
      this.#running++
      this.#occupy(work)
    }
  }

  /** Runs `work` as soon as a slot is free. Settles as `work` does. */
  run<T>(work: () => Promise<T>): Promise<T> {
    return new Promise((resolve, reject) => this.start(() => work().then(resolve, reject)))
  }

  #occupy(work: () => Promise<unknown>): void {
    const onEnd = () => this.#release()
    work().then(onEnd, onEnd)
  }

  /** The slot goes to the next in line without becoming free in between. */
  #release(): void {
    const work = this.#waiting[this.#next]
    if (!work) {
      this.#running--
      return
    }
    this.#next++
    if (this.#next > 100 && this.#next * 2 > this.#waiting.length) {
      this.#waiting = this.#waiting.slice(this.#next)
      this.#next = 0
    }
    this.#occupy(work)
  }
}

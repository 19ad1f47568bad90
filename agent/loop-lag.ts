const INTERVAL_MS = 1000
const KEPT = 60

/** Watches how late timers are: what blocks the event loop delays everything else, too. */
export class LoopLag {
  readonly #lagsMs: number[] = []
  #timer: NodeJS.Timeout | undefined
  #dueMs = 0

  start(): void {
    this.stop()
    this.#dueMs = performance.now() + INTERVAL_MS
    this.#timer = setInterval(() => this.#note(), INTERVAL_MS)
    this.#timer.unref()
  }

  stop(): void {
    clearInterval(this.#timer)
  }

  /** The longest delay in the last minute, that of the timer being due included. */
  get seconds(): number {
    const now = Math.max(0, performance.now() - this.#dueMs)
    return Math.max(0, this.#timer ? now : 0, ...this.#lagsMs) / 1000
  }

  /** The delay of the last timer. */
  get lastSeconds(): number {
    return (this.#lagsMs.at(-1) ?? 0) / 1000
  }

  #note(): void {
    this.#lagsMs.push(Math.max(0, performance.now() - this.#dueMs))
    if (this.#lagsMs.length > KEPT) this.#lagsMs.shift()
    this.#dueMs = performance.now() + INTERVAL_MS
  }
}

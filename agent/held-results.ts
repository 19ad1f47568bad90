/** A delivery that failed for good; everything else is tried again. */
export class UndeliverableError extends Error {
  override readonly name = 'UndeliverableError'
}

export interface HeldResultsOptions<T> {
  /** Delivers one result: resolves when it is safe at its destination. Rejects with UndeliverableError to give it up. */
  send(result: T): Promise<void>
  /** Whether it makes sense to send now. */
  ready(): boolean
  /** The oldest results are dropped, because too much is held. Called once until everything held was delivered. */
  onOverflow(): void
  /** Everything held is delivered again; so many results were dropped meanwhile. */
  onRecovered(droppedCount: number): void
  /** Deliveries that may be under way at once. */
  window: number
  /** What may be held, in bytes as told to `add`. */
  maxBytes: number
  /** Pause before trying again when a delivery failed although `ready` says yes. */
  retryDelayMs: number
}

interface Held<T> {
  result: T
  bytes: number
  delivered: boolean
}

/**
 * Results on their way to the destination, in order. What is not confirmed is sent again after a failure, so a result
 * can arrive twice when the confirmation was lost, but none disappears, and none overtakes an older one.
 * It all lives in memory and ends with the process: a spool on disk would take this class's place, behind the same methods.
 */
export class HeldResults<T> {
  readonly #options: HeldResultsOptions<T>
  /** Oldest first. The first `#sentCount` are under way or delivered. */
  #held: Held<T>[] = []
  #sentCount = 0
  #heldBytes = 0
  #droppedCount = 0
  #droppedTotal = 0
  /** Distinguishes answers to deliveries of an earlier attempt. */
  #attempt = 0
  #retryTimer: NodeJS.Timeout | undefined
  #onEmpty: (() => void)[] = []
  #closed = false

  constructor(options: HeldResultsOptions<T>) {
    this.#options = options
  }

  get count(): number {
    return this.#held.length
  }

  /** Results dropped since the start. */
  get droppedTotal(): number {
    return this.#droppedTotal
  }

  /** Takes a result over; never throws. `bytes` is its approximate size. */
  add(result: T, bytes: number): void {
    if (this.#closed) return
    this.#held.push({ result, bytes, delivered: false })
    this.#heldBytes += bytes
    this.#dropOverflow()
    this.resume()
  }

  /** Sends what waits; call it when the destination is reachable again. */
  resume(): void {
    while (!this.#closed && this.#options.ready() && this.#sentCount < this.#options.window) {
      const next = this.#held[this.#sentCount]
      if (!next) return
      this.#sentCount++
      this.#deliver(next)
    }
  }

  /** Resolves when nothing is held any more, at the latest after the given time. */
  async drained(milliseconds: number): Promise<void> {
    if (this.#held.length === 0) return
    let timer: NodeJS.Timeout | undefined
    await new Promise<void>(resolve => {
      this.#onEmpty.push(resolve)
      timer = setTimeout(resolve, milliseconds)
    })
    clearTimeout(timer)
  }

  /** Forgets what is held; returns how many results that were. */
  close(): number {
    this.#closed = true
    clearTimeout(this.#retryTimer)
    return this.#held.length
  }

  #deliver(held: Held<T>): void {
    const attempt = this.#attempt
    this.#options.send(held.result).then(
      () => this.#onDelivered(held),
      (error: unknown) => {
        if (error instanceof UndeliverableError) this.#onDelivered(held)
        else if (attempt === this.#attempt) this.#startOver()
      },
    )
  }

  #onDelivered(held: Held<T>): void {
    held.delivered = true
    let done = 0
    while (this.#held[done]?.delivered) done++
    if (done === 0) return
    for (const { bytes } of this.#held.splice(0, done)) this.#heldBytes -= bytes
    this.#sentCount = Math.max(0, this.#sentCount - done)
    if (this.#held.length === 0) this.#onAllDelivered()
    else this.resume()
  }

  #onAllDelivered(): void {
    for (const resolve of this.#onEmpty.splice(0)) resolve()
    if (this.#droppedCount === 0) return
    this.#options.onRecovered(this.#droppedCount)
    this.#droppedCount = 0
  }

  /** One failed: those behind it are sent again too, or they would overtake it. */
  #startOver(): void {
    this.#attempt++
    this.#held = this.#held.filter(held => !held.delivered)
    this.#heldBytes = this.#held.reduce((sum, held) => sum + held.bytes, 0)
    this.#sentCount = 0
    if (this.#closed || this.#retryTimer) return
    this.#retryTimer = setTimeout(() => {
      this.#retryTimer = undefined
      this.resume()
    }, this.#options.retryDelayMs)
  }

  #dropOverflow(): void {
    while (this.#heldBytes > this.#options.maxBytes && this.#held.length > this.#sentCount + 1) {
      const [oldest] = this.#held.splice(this.#sentCount, 1)
      this.#heldBytes -= oldest?.bytes ?? 0
      this.#droppedTotal++
      if (this.#droppedCount++ === 0) this.#options.onOverflow()
    }
  }
}

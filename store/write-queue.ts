/** A write that was given up because too many were waiting for Redis. The caller is told; nothing of it was stored. */
export class StoreOverflowError extends Error {
  override name = 'StoreOverflowError'
}

/** Limits of what waits in memory while Redis is away or slow. */
export interface WriteQueueLimits {
  /** Writes not yet answered, waiting or sent. */
  maximumWrites: number
  /** Their texts' sum, in UTF-16 units: an upper bound for ASCII, half of the bytes at worst. */
  maximumLength: number
  /** Of these, sent and not yet answered. */
  maximumInFlight: number
}

interface Write {
  /** Sends it. `repeated` is true when an earlier sending may have reached Redis without an answer coming back. */
  send: (repeated: boolean) => Promise<unknown>
  length: number
  state: 'waiting' | 'sent' | 'settled'
  repeated: boolean
  resolve: (reply: unknown) => void
  reject: (error: unknown) => void
}

/** What becomes of a failed sending: final, or to be sent again once the gate is opened. */
export type Verdict = 'final' | 'again' | 'repeat'

/**
 * Writes in order, each answered once. The gate is open while Redis is ready; what was sent when it shut is sent again after it opens, before
 * everything newer. Over its limits the queue gives up the oldest write that is not under way, so that after an outage the newest states are the
 * ones that are known.
 */
export class WriteQueue {
  readonly #limits: WriteQueueLimits
  readonly #judge: (error: unknown) => Verdict
  readonly #onOverflow: (droppedTotal: number) => void
  #writes: Write[] = []
  #head = 0
  #firstWaiting = 0
  #inFlight = 0
  #length = 0
  #count = 0
  #open = false
  #opening = false
  #dropped = 0
  #idle: (() => void)[] = []

  constructor(
    limits: WriteQueueLimits,
    judge: (error: unknown) => Verdict,
    onOverflow: (droppedTotal: number) => void,
  ) {
    this.#limits = limits
    this.#judge = judge
    this.#onOverflow = onOverflow
  }

  /** Writes not yet answered. */
  get count(): number {
    return this.#count
  }

  /** Writes given up since the start. */
  get dropped(): number {
    return this.#dropped
  }

  /** Resolves with Redis' answer; rejects with its error, or StoreOverflowError. */
  push(length: number, send: Write['send']): Promise<unknown> {
    return new Promise((resolve, reject) => {
      this.#writes.push({ send, length, state: 'waiting', repeated: false, resolve, reject })
      this.#count += 1
      this.#length += length
      while (this.#count > this.#limits.maximumWrites || this.#length > this.#limits.maximumLength) {
        if (!this.#dropOldestWaiting()) break
      }
      this.#sendWaiting()
    })
  }

  /** Redis answers again. Sending goes on as soon as everything under way has failed or succeeded, so that the order holds. */
  open(): void {
    if (this.#inFlight > 0 && !this.#open) this.#opening = true
    else {
      this.#open = true
      this.#sendWaiting()
    }
  }

  shut(): void {
    this.#open = false
    this.#opening = false
  }

  /** Resolves once nothing waits any more. */
  async drained(): Promise<void> {
    if (this.#count > 0) await new Promise<void>(resolve => this.#idle.push(resolve))
  }

  /** Gives up everything that is not answered yet, with this error. Returns how many writes that were. */
  destroy(error: Error): number {
    this.shut()
    const given = this.#writes.slice(this.#head).filter(write => write.state !== 'settled')
    for (const write of given) this.#settle(write, () => write.reject(error))
    return given.length
  }

  #sendWaiting(): void {
    while (this.#open && this.#inFlight < this.#limits.maximumInFlight && this.#firstWaiting < this.#writes.length) {
      const write = this.#writes[this.#firstWaiting]
      this.#firstWaiting += 1
      if (write?.state === 'waiting') this.#send(write)
    }
  }

  #send(write: Write): void {
    write.state = 'sent'
    this.#inFlight += 1
    write.send(write.repeated).then(
      reply => this.#answered(write, () => write.resolve(reply)),
      error => this.#failed(write, error),
    )
  }

  #answered(write: Write, settle: () => void): void {
    this.#inFlight -= 1
    if (write.state === 'sent') this.#settle(write, settle)
    this.#afterAnswer()
  }

  #failed(write: Write, error: unknown): void {
    const verdict = write.state === 'settled' ? 'final' : this.#judge(error)
    if (verdict === 'final') {
      this.#answered(write, () => write.reject(error))
      return
    }
    this.#inFlight -= 1
    write.state = 'waiting'
    write.repeated ||= verdict === 'repeat'
    this.#open = false
    this.#firstWaiting = this.#head
    this.#afterAnswer()
  }

  #afterAnswer(): void {
    if (this.#opening && this.#inFlight === 0) {
      this.#opening = false
      this.#open = true
    }
    this.#sendWaiting()
  }

  #dropOldestWaiting(): boolean {
    let index = this.#firstWaiting
    while (index < this.#writes.length && this.#writes[index]?.state !== 'waiting') index += 1
    const write = this.#writes[index]
    if (write === undefined) return false
    this.#dropped += 1
    this.#settle(write, () =>
      write.reject(
        new StoreOverflowError(
          `too many results wait for Redis (limit ${this.#limits.maximumWrites}); the oldest was given up`,
        ),
      ),
    )
    this.#onOverflow(this.#dropped)
    return true
  }

  #settle(write: Write, settle: () => void): void {
    write.state = 'settled'
    this.#count -= 1
    this.#length -= write.length
    while (this.#writes[this.#head]?.state === 'settled') this.#head += 1
    if (this.#head >= 1024 && this.#head * 2 >= this.#writes.length) {
      this.#writes = this.#writes.slice(this.#head)
      this.#firstWaiting = Math.max(0, this.#firstWaiting - this.#head)
      this.#head = 0
    }
    settle()
    if (this.#count === 0) for (const resolve of this.#idle.splice(0)) resolve()
  }
}

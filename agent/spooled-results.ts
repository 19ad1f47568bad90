import { HeldResults, UndeliverableError } from './held-results.js'
import type { Spool, SpooledRecord } from './spool.js'

export interface SpooledResultsOptions {
  spool: Spool
  /** Delivers one result: resolves when it is safe at its destination. Rejects with UndeliverableError to give it up. */
  send(result: Buffer): Promise<void>
  /** Whether it makes sense to send now. */
  ready(): boolean
  /** Everything is delivered. */
  onDelivered?(): void
  /** Deliveries that may be under way at once. */
  window: number
  /** Pause before trying again when a delivery failed although `ready` says yes. */
  retryDelayMs: number
}

/** So much is taken from the spool at once, at most; one record always. */
const windowBytes = 8 * 1024 * 1024

/**
 * Results on their way to the destination, in order, backed by a spool: whatever is not confirmed is in the spool, and HeldResults has the few
 * that are being delivered. The same methods as HeldResults, so that a sink can use either.
 */
export class SpooledResults {
  readonly #options: SpooledResultsOptions
  readonly #held: HeldResults<SpooledRecord>
  #heldBytes = 0
  #filling = false
  #onEmpty: (() => void)[] = []
  #retryTimer: NodeJS.Timeout | undefined
  #afterDelivery: NodeJS.Immediate | undefined
  #closed = false

  constructor(options: SpooledResultsOptions) {
    this.#options = options
    this.#held = new HeldResults<SpooledRecord>({
      send: record => this.#send(record),
      ready: options.ready,
      onOverflow: () => {},
      onRecovered: () => {},
      window: options.window,
      maxBytes: Number.POSITIVE_INFINITY,
      retryDelayMs: options.retryDelayMs,
    })
    this.resume()
  }

  /** Results not confirmed yet. */
  get count(): number {
    return this.#held.count + this.#options.spool.waiting
  }

  /** Takes a result over; never throws. */
  add(result: Buffer): void {
    const { ready, spool } = this.#options
    spool.append(result)
    // without a destination nothing will make this write superfluous
    if (!ready()) void spool.flush()
    void this.#fill()
  }

  /** Sends what waits; call it when the destination is reachable again. */
  resume(): void {
    this.#held.resume()
    void this.#fill()
  }

  /** Resolves when everything is delivered, at the latest after the given time. */
  async drained(milliseconds: number): Promise<void> {
    // while records move from the spool to those under way, neither counts them
    if (this.count === 0 && !this.#filling) return
    let timer: NodeJS.Timeout | undefined
    await new Promise<void>(resolve => {
      this.#onEmpty.push(resolve)
      timer = setTimeout(resolve, milliseconds)
    })
    clearTimeout(timer)
  }

  /** Delivers no more. The spool keeps what is left; closing that is its owner's. Returns how many results it keeps. */
  close(): number {
    this.#closed = true
    clearTimeout(this.#retryTimer)
    this.#held.close()
    return this.count
  }

  /** Moves records from the spool to those under way, as many as the window allows. */
  async #fill(): Promise<void> {
    if (this.#filling) return
    this.#filling = true
    const { spool, window } = this.#options
    while (this.#hasRoom()) {
      const records = await spool.take(window - this.#held.count, windowBytes - this.#heldBytes)
      if (records.length === 0) this.#retryLater()
      if (records.length === 0) break
      for (const record of records) {
        this.#heldBytes += record.payload.length
        this.#held.add(record, record.payload.length)
      }
    }
    this.#filling = false
  }

  #hasRoom(): boolean {
    const { ready, spool, window } = this.#options
    if (this.#closed || !ready() || spool.waiting === 0) return false
    return this.#held.count < window && this.#heldBytes < windowBytes
  }

  /** The disk does not let the spool read at the moment. */
  #retryLater(): void {
    clearTimeout(this.#retryTimer)
    if (this.#closed) return
    this.#retryTimer = setTimeout(() => void this.#fill(), this.#options.retryDelayMs)
  }

  async #send(record: SpooledRecord): Promise<void> {
    try {
      await this.#options.send(record.payload)
    } catch (error) {
      if (error instanceof UndeliverableError) this.#passed(record)
      throw error
    }
    this.#passed(record)
  }

  /** A record that was sent twice, because another one failed, passes once. */
  #passed(record: SpooledRecord): void {
    if (!this.#options.spool.acknowledge(record)) return
    this.#heldBytes -= record.payload.length
    // once for all that were confirmed together, and when HeldResults knows too
    this.#afterDelivery ??= setImmediate(() => {
      this.#afterDelivery = undefined
      void this.#fill()
      if (this.count > 0) return
      for (const resolve of this.#onEmpty.splice(0)) resolve()
      this.#options.onDelivered?.()
    })
  }
}

import { EventEmitter } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'
import { TransportError, type TransportEvents, type TransportLog } from './transport.js'

/** Everything one successful attempt to connect has opened. */
export interface Session {
  /** Ends it; bounded, never rejects. */
  close(): Promise<void>
}

export interface ReconnectingOptions {
  log: TransportLog
  /** Pause before the n-th attempt to reconnect (n from 1). */
  reconnectDelayMs: (attempt: number) => number
}

/** The life that all transports share: connect, wait for the loss, drop what is left, pause, again, until close(). */
export abstract class ReconnectingTransport<S extends Session> extends EventEmitter<TransportEvents> {
  protected readonly log: TransportLog
  readonly #reconnectDelayMs: (attempt: number) => number
  readonly #closing = new AbortController()
  #session: S | undefined
  #endSession: () => void = () => {}
  #running: Promise<void> | undefined

  constructor(options: ReconnectingOptions) {
    super()
    this.log = options.log
    this.#reconnectDelayMs = options.reconnectDelayMs
  }

  /** One attempt. Logs why it failed, and resolves to nothing then; never rejects. To be given up when `closing` aborts. */
  protected abstract openSession(closing: AbortSignal): Promise<S | undefined>

  get connected(): boolean {
    return this.#session !== undefined
  }

  connect(): Promise<void> {
    return new Promise((resolve, reject) => {
      const closed = () => reject(new TransportError('closed', 'the transport was closed before it was connected'))
      if (this.#closing.signal.aborted) return closed()
      this.#closing.signal.addEventListener('abort', closed, { once: true })
      this.#running ??= this.#keepConnected(resolve)
    })
  }

  /** Also how an implementation tells that a connection of the session is gone, or was lost while the session was being opened. */
  reconnect(): void {
    if (this.#session) this.log.debug('transport reconnecting...')
    this.#endSession()
  }

  async close(): Promise<void> {
    this.#closing.abort()
    this.#endSession()
    await this.#running
  }

  /** Undefined while there is no connection. */
  protected get session(): S | undefined {
    return this.#session
  }

  /** Throws a TransportError (`disconnected`) while there is no connection. */
  protected openedSession(): S {
    if (this.#session) return this.#session
    throw new TransportError('disconnected', 'Transport is not connected, triggering reconnect')
  }

  async #keepConnected(firstConnected: () => void): Promise<void> {
    let attempts = 0
    while (!this.#closing.signal.aborted) {
      const ended = new Promise<void>(resolve => {
        this.#endSession = resolve
      })
      const session = await this.openSession(this.#closing.signal)
      if (session) {
        this.#session = session
        firstConnected()
        if (attempts > 0) this.emit('restored')
        attempts = 0
        await ended
        await this.#dropSession(session)
      }
      attempts++
      await this.#pause(this.#reconnectDelayMs(attempts))
    }
  }

  async #dropSession(session: S): Promise<void> {
    this.#session = undefined
    if (!this.#closing.signal.aborted) this.emit('lost')
    await session.close()
  }

  async #pause(milliseconds: number): Promise<void> {
    try {
      await sleep(milliseconds, undefined, { signal: this.#closing.signal })
    } catch {
      // closed: the loop ends
    }
  }
}

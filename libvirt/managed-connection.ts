import { BlockedConnectionError, type Connection, type ConnectionCall } from './connection.js'
import { LibvirtConnectionError, LibvirtTimeoutError } from './errors.js'
import type { XdrReader } from './xdr.js'

const minimumBackOffMs = 100
const maximumBackOffMs = 2000
/** A connection that lived this long was a good one: the next loss starts again with the shortest wait. */
const provenAfterMs = 5000

/** How a call ended: answered, answered with an error, not answered in time, or without a connection. */
export type CallOutcome = 'ok' | 'error' | 'timeout' | 'disconnected'

/** Gets a procedure's name, how long the call took (waiting for the connection included), and how it ended. */
export type CallObserver = (procedure: string, milliseconds: number, outcome: CallOutcome) => void

export interface ManagedConnectionOptions {
  /** Who is at the other end, for messages. */
  label: string
  open: () => Promise<Connection>
  /** Connections kept only because calls still hang in them. */
  maximumRetired: number
  onCall?: CallObserver
  /** Whether pauses between attempts keep the process alive (calls waiting for them do so anyway). */
  holdsProcess?: boolean
}

/**
 * One connection that is opened when first needed and again after a loss, not more often than a growing, jittered
 * pause allows. A connection whose places are all taken by hanging calls is set aside for a fresh one; it is closed
 * when the daemon has finished them.
 */
export class ManagedConnection {
  readonly #options: ManagedConnectionOptions
  readonly #retired = new Set<Connection>()
  #current: Connection | undefined
  #openedMs = 0
  #opening: Promise<Connection> | undefined
  #failures = 0
  #notBeforeMs = 0
  #pause: { timer: NodeJS.Timeout; end: () => void } | undefined
  #closed = false

  constructor(options: ManagedConnectionOptions) {
    this.#options = options
  }

  /** Sends a call; waiting for the connection counts towards its deadline. */
  call(call: ConnectionCall): Promise<XdrReader> {
    const { onCall } = this.#options
    const sent = this.#send(call)
    if (onCall) observe(sent, call.procedure.name, onCall)
    return sent
  }

  async #send(call: ConnectionCall): Promise<XdrReader> {
    const endMs = performance.now() + call.timeoutMs
    const inTime = () => ({ ...call, timeoutMs: Math.max(1, endMs - performance.now()) })
    let current = call
    for (;;) {
      const usable = this.#usable()
      const connection = usable ?? (await this.#opened(current))
      if (usable === undefined) current = inTime()
      try {
        return await connection.call(current)
      } catch (error) {
        if (!(error instanceof BlockedConnectionError)) throw error
        current = inTime()
      }
    }
  }

  /** The open connection, opened if need be. */
  async acquire(): Promise<Connection> {
    return this.#usable() ?? this.#open()
  }

  /** Ends the open connection and everything set aside; later calls reject. */
  close(): void {
    this.#closed = true
    this.#pause?.end()
    this.#current?.close()
    for (const connection of this.#retired) connection.close()
    this.#retired.clear()
  }

  #usable(): Connection | undefined {
    const current = this.#current
    if (this.#closed) throw this.#closedError()
    if (current === undefined) return undefined
    if (current.closed) {
      this.#noteLoss()
      return undefined
    }
    if (!current.blocked) return current
    this.#retire(current)
    return undefined
  }

  #retire(connection: Connection): void {
    if (this.#retired.size >= this.#options.maximumRetired) {
      let hanging = connection.abandonedCalls
      for (const other of this.#retired) hanging += other.abandonedCalls
      throw new LibvirtConnectionError(
        'overloaded',
        `${hanging} calls hang in libvirt at ${this.#options.label}; no more are sent before some of them end`,
      )
    }
    this.#retired.add(connection)
    this.#current = undefined
  }

  #closeIfDone(connection: Connection): void {
    if (!this.#retired.has(connection)) return
    if (connection.closed || connection.idle) {
      this.#retired.delete(connection)
      connection.close()
    }
  }

  #noteLoss(): void {
    this.#current = undefined
    if (performance.now() - this.#openedMs >= provenAfterMs) this.#failures = 0
    else this.#postpone()
  }

  #postpone(): void {
    const pauseMs = Math.min(maximumBackOffMs, minimumBackOffMs * 2 ** Math.min(this.#failures, 10))
    this.#failures += 1
    this.#notBeforeMs = performance.now() + pauseMs * (0.5 + Math.random() / 2)
  }

  #open(): Promise<Connection> {
    this.#opening ??= this.#reopen().finally(() => {
      this.#opening = undefined
    })
    return this.#opening
  }

  async #reopen(): Promise<Connection> {
    await this.#waitBackOff()
    if (this.#closed) throw this.#closedError()
    try {
      const connection = await this.#options.open()
      if (this.#closed) {
        connection.close()
        throw this.#closedError()
      }
      connection.onLateEnd(() => this.#closeIfDone(connection))
      this.#current = connection
      this.#openedMs = performance.now()
      return connection
    } catch (error) {
      this.#postpone()
      throw error
    }
  }

  async #waitBackOff(): Promise<void> {
    const pauseMs = this.#notBeforeMs - performance.now()
    if (pauseMs <= 0) return
    await new Promise<void>(resolve => {
      const end = () => {
        clearTimeout(this.#pause?.timer)
        this.#pause = undefined
        resolve()
      }
      const timer = setTimeout(end, pauseMs)
      if (this.#options.holdsProcess !== true) timer.unref()
      this.#pause = { timer, end }
    })
  }

  /** Waits for the connection no longer than the call may take. */
  #opened(call: ConnectionCall): Promise<Connection> {
    const startedMs = performance.now()
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        const afterMs = performance.now() - startedMs
        reject(new LibvirtTimeoutError({ procedure: call.procedure.name, afterMs, uri: this.#options.label }))
      }, call.timeoutMs)
      this.#open()
        .then(resolve, reject)
        .finally(() => clearTimeout(timer))
    })
  }

  #closedError(): LibvirtConnectionError {
    return new LibvirtConnectionError('closed', `the connection to libvirt at ${this.#options.label} was closed`)
  }
}

function observe(sent: Promise<unknown>, procedure: string, onCall: CallObserver): void {
  const startedMs = performance.now()
  const end = (outcome: CallOutcome) => onCall(procedure, performance.now() - startedMs, outcome)
  sent.then(
    () => end('ok'),
    (error: unknown) => {
      if (error instanceof LibvirtTimeoutError) end('timeout')
      else end(error instanceof LibvirtConnectionError ? 'disconnected' : 'error')
    },
  )
}

import { readError } from './decode.js'
import { LibvirtConnectionError, LibvirtError, LibvirtTimeoutError } from './errors.js'
import { type Frame, FrameSplitter, FrameStatus, FrameType, headerBytes, sealFrame } from './frame.js'
import { type Procedure, Program, procedures } from './procedures.js'
import type { Wire } from './wire.js'
import { XdrReader, XdrWriter } from './xdr.js'

const keepaliveFeature = 10
const pingProcedure = 1
const pongProcedure = 2
const readOnlyFlag = 1
const maximumSerial = 0xffff_fffe
/** Calls that may wait for a place on one connection. */
const maximumWaiting = 20_000
/** Answers to pings that may wait to be written; a daemon that pings without reading is not served forever. */
const maximumUnsentBytes = 64 * 1024 * 1024

export interface ConnectionOptions {
  /** Who is at the other end, for messages: the URI. */
  label: string
  /** What the daemon is told to open, e.g. `qemu:///system`. */
  remoteUri: string
  readOnly: boolean
  /** Deadline of everything until the connection is open. */
  timeoutMs: number
  keepalive: { intervalMs: number; count: number } | false
  /** Calls the daemon may have unanswered at a time; it reads 5 at most. */
  maximumInFlight: number
  /** Receives messages the daemon sends of itself (events). Must not throw. */
  onMessage?: (procedure: number, payload: Buffer) => void
  /** Told once when the connection ends. */
  onClose?: (reason: LibvirtConnectionError) => void
}

export interface ConnectionCall {
  procedure: Procedure
  write?: ((writer: XdrWriter) => void) | undefined
  /** Deadline in milliseconds, waiting for a place included. */
  timeoutMs: number
  /** Once the call has its place, this is its deadline instead, counted from there. */
  answerTimeoutMs?: number | undefined
  signal?: AbortSignal | undefined
  subject?: string | undefined
  guest?: string | undefined
  /** Sent at once, beyond the bound of calls in flight. */
  urgent?: boolean
  /** Told when the daemon is done with a call whose caller has given up (or when the connection ends). */
  onLateEnd?: (() => void) | undefined
}

/** Why a call was not sent: every place of its connection is taken by a call that hangs. Another connection may have one. */
export class BlockedConnectionError extends Error {
  override readonly name = 'BlockedConnectionError'
}

/** A call from being asked for until the daemon is done with it. */
interface Pending {
  call: ConnectionCall
  resolve: (reader: XdrReader) => void
  reject: (error: unknown) => void
  timer: NodeJS.Timeout
  startedMs: number
  /** The caller has its answer (a time-out, an abort), but the daemon still works on the call. */
  abandoned: boolean
  onAbort?: () => void
}

/**
 * One open connection to a daemon. Calls beyond `maximumInFlight` wait their turn in order. A call that runs into its
 * deadline keeps its place until the daemon answers: libvirt cannot be told to stop working on it.
 */
export class Connection {
  readonly #wire: Wire
  readonly #options: ConnectionOptions
  readonly #splitter = new FrameSplitter()
  readonly #inFlight = new Map<number, Pending>()
  /** A set keeps its order and lets a call that times out leave the queue at once. */
  readonly #waiting = new Set<Pending>()
  #serial = 0
  #abandoned = 0
  #closeReason: LibvirtConnectionError | undefined
  #keepaliveTimer: NodeJS.Timeout | undefined
  #keepaliveAsked = false
  #unansweredPings = 0
  #heardFromDaemon = false
  #held = 0
  #lateEndListener: (() => void) | undefined

  private constructor(wire: Wire, options: ConnectionOptions) {
    this.#wire = wire
    this.#options = options
    wire.readable.on('data', (chunk: Buffer) => this.#receive(chunk))
    wire.readable.on('end', () => this.#end())
    wire.readable.on('close', () => this.#end())
    wire.readable.on('error', error => this.#end(error))
    // A child process that cannot be written to is ending: its reading side ends next and knows the reason.
    wire.writable.on('error', error => wire.explain === undefined && this.#end(error))
    wire.readable.resume()
    wire.unref()
  }

  /**
   * Introduces us to the daemon: authentication, then the driver to open. On failure the wire is destroyed. Rejects with
   * LibvirtConnectionError, LibvirtTimeoutError, or LibvirtError when the daemon cannot open the driver.
   */
  static async open(wire: Wire, options: ConnectionOptions): Promise<Connection> {
    const connection = new Connection(wire, options)
    try {
      const deadline = performance.now() + options.timeoutMs
      // Both at once: most daemons want no authentication, and one round trip less is felt where the machine is busy. One that wants it refuses the early
      // opening, and any other refusal is repeated.
      const authenticated = connection.#authenticate(deadline)
      const early = connection.#openDriver(deadline, true).then(
        () => true,
        (error: unknown) => {
          if (error instanceof LibvirtError) return false
          throw error
        },
      )
      const [opened] = await Promise.all([early, authenticated])
      if (!opened) await connection.#openDriver(deadline, false)
      if (options.keepalive !== false) connection.#startKeepalive(options.keepalive)
      return connection
    } catch (error) {
      connection.close()
      throw error
    }
  }

  get closed(): boolean {
    return this.#closeReason !== undefined
  }

  /** Calls the daemon has not finished although their callers have given up. */
  get abandonedCalls(): number {
    return this.#abandoned
  }

  /** True when every place is taken by a call whose caller has given up: nothing can be asked here for now. */
  get blocked(): boolean {
    return this.#abandoned >= this.#options.maximumInFlight
  }

  get idle(): boolean {
    return this.#inFlight.size === 0 && this.#waiting.size === 0
  }

  /** Tells a listener whenever the daemon is done with a call whose caller has given up, and when the connection ends with such calls. */
  onLateEnd(listener: () => void): void {
    this.#lateEndListener = listener
  }

  /** Keeps the process alive until the returned function is called (events are expected). */
  hold(): () => void {
    let held = true
    this.#retain()
    return () => {
      if (held) this.#release()
      held = false
    }
  }

  /** Sends a call and resolves with a reader of its reply. */
  call(call: ConnectionCall): Promise<XdrReader> {
    return new Promise((resolve, reject) => {
      const refusal = this.#refusal(call)
      if (refusal !== undefined) {
        reject(refusal)
        return
      }
      const pending: Pending = {
        call,
        resolve,
        reject,
        startedMs: performance.now(),
        timer: setTimeout(() => this.#timeOut(pending), call.timeoutMs),
        abandoned: false,
      }
      if (call.signal !== undefined) {
        pending.onAbort = () => this.#abandon(pending, call.signal?.reason)
        call.signal.addEventListener('abort', pending.onAbort, { once: true })
      }
      this.#retain()
      if (call.urgent === true) {
        this.#send(pending)
        return
      }
      this.#waiting.add(pending)
      this.#sendWaiting()
    })
  }

  /** Ends the connection at once; pending calls reject. */
  close(): void {
    this.#fail(new LibvirtConnectionError('closed', `the connection to libvirt at ${this.#options.label} was closed`))
  }

  #refusal(call: ConnectionCall): unknown {
    if (this.#closeReason !== undefined) return this.#closeReason
    if (call.signal?.aborted === true) return call.signal.reason
    if (this.#waiting.size < maximumWaiting) return undefined
    return new LibvirtConnectionError(
      'overloaded',
      `${maximumWaiting} calls are waiting for libvirt at ${this.#options.label}; ${call.procedure.name} was not sent`,
    )
  }

  #handshake(procedure: Procedure, deadline: number): Promise<XdrReader> {
    return this.call({ procedure, timeoutMs: Math.max(1, deadline - performance.now()) })
  }

  #openDriver(deadline: number, urgent: boolean): Promise<XdrReader> {
    const { remoteUri, readOnly } = this.#options
    const write = (writer: XdrWriter) => writer.optionalString(remoteUri).u32(readOnly ? readOnlyFlag : 0)
    const timeoutMs = Math.max(1, deadline - performance.now())
    return this.call({ procedure: procedures.connectOpen, write, timeoutMs, urgent })
  }

  async #authenticate(deadline: number): Promise<void> {
    const reader = await this.#handshake(procedures.authList, deadline)
    const types = reader.array(20, 4, item => item.i32())
    if (types.length === 0 || types.includes(0)) return
    if (!types.includes(2)) {
      const kind = types.includes(1) ? 'SASL' : `an unknown kind of (${types.join(', ')})`
      throw new LibvirtConnectionError(
        'auth',
        `libvirt at ${this.#options.label} wants ${kind} authentication, which is not supported; use the local socket, qemu+ssh or qemu+tls`,
      )
    }
    try {
      await this.#handshake(procedures.authPolkit, deadline)
    } catch (error) {
      if (!(error instanceof LibvirtError)) throw error
      throw new LibvirtConnectionError(
        'auth',
        `polkit did not let us open libvirt at ${this.#options.label}: ${error.text}; add the user to group libvirt, or use a read-only connection`,
        error,
      )
    }
  }

  #sendWaiting(): void {
    for (const pending of this.#waiting) {
      if (this.#inFlight.size >= this.#options.maximumInFlight) return
      this.#waiting.delete(pending)
      this.#send(pending)
    }
  }

  #send(pending: Pending): void {
    const { procedure, write } = pending.call
    const writer = new XdrWriter(headerBytes)
    try {
      write?.(writer)
    } catch (error) {
      this.#settle(pending)
      pending.reject(error)
      return
    }
    const serial = this.#nextSerial()
    this.#inFlight.set(serial, pending)
    this.#startAnswerTime(pending)
    const { program, number } = procedure
    this.#wire.writable.write(sealFrame(writer.finish(), { program, procedure: number, type: FrameType.call, serial }))
  }

  #startAnswerTime(pending: Pending): void {
    const { answerTimeoutMs } = pending.call
    if (answerTimeoutMs === undefined) return
    clearTimeout(pending.timer)
    pending.startedMs = performance.now()
    pending.timer = setTimeout(() => this.#timeOut(pending), answerTimeoutMs)
  }

  #nextSerial(): number {
    do this.#serial = this.#serial >= maximumSerial ? 1 : this.#serial + 1
    while (this.#inFlight.has(this.#serial))
    return this.#serial
  }

  #receive(chunk: Buffer): void {
    if (this.#closeReason !== undefined) return
    this.#heardFromDaemon = true
    try {
      this.#splitter.push(chunk, frame => this.#dispatch(frame))
    } catch (error) {
      this.#fail(
        error instanceof LibvirtConnectionError
          ? new LibvirtConnectionError(error.kind, `${this.#options.label}: ${error.message}`, error)
          : new LibvirtConnectionError('protocol', `${this.#options.label}: ${String(error)}`, error),
      )
    }
  }

  #dispatch(frame: Frame): void {
    if (this.#closeReason !== undefined) return
    if (frame.program === Program.keepalive) {
      if (frame.procedure === pingProcedure) this.#sendKeepalive(pongProcedure)
      return
    }
    if (frame.type === FrameType.message) {
      if (frame.program === Program.remote) this.#options.onMessage?.(frame.procedure, frame.payload)
      return
    }
    if (frame.type !== FrameType.reply) throw protocolError(`a frame of type ${frame.type} was not expected`)
    this.#reply(frame)
  }

  #reply(frame: Frame): void {
    const pending = this.#inFlight.get(frame.serial)
    if (pending === undefined) throw protocolError(`an answer (serial ${frame.serial}) to nothing that was asked`)
    const { procedure, subject } = pending.call
    if (frame.program !== procedure.program || frame.procedure !== procedure.number) {
      throw protocolError(`an answer of procedure ${frame.procedure} to ${procedure.name}`)
    }
    if (frame.status !== FrameStatus.ok && frame.status !== FrameStatus.error) {
      throw protocolError(`an answer to ${procedure.name} of status ${frame.status}`)
    }
    this.#inFlight.delete(frame.serial)
    this.#settle(pending)
    const reader = new XdrReader(frame.payload, procedure.name)
    if (pending.abandoned) this.#endLate(pending)
    else if (frame.status === FrameStatus.ok) pending.resolve(reader)
    else pending.reject(daemonError(procedure.name, reader, subject))
    this.#sendWaiting()
  }

  #endLate(pending: Pending): void {
    this.#abandoned -= 1
    this.#lateEndListener?.()
    pending.call.onLateEnd?.()
  }

  #timeOut(pending: Pending): void {
    const { procedure } = pending.call
    // A call that never left our queue says nothing about the guest.
    const guest = this.#waiting.has(pending) ? undefined : pending.call.guest
    const afterMs = performance.now() - pending.startedMs
    const detail = { procedure: procedure.name, afterMs, sinceMs: Date.now() - afterMs, uri: this.#options.label }
    this.#abandon(pending, new LibvirtTimeoutError(guest === undefined ? detail : { ...detail, guest }))
  }

  /** Answers the caller now. A call already sent keeps its place until the daemon is done with it. */
  #abandon(pending: Pending, reason: unknown): void {
    if (pending.abandoned) return
    this.#settle(pending)
    if (!this.#waiting.delete(pending)) {
      pending.abandoned = true
      this.#abandoned += 1
    }
    pending.reject(reason)
    if (this.blocked) this.#turnAwayWaiting()
  }

  /** Who waits here now would wait for calls that hang. */
  #turnAwayWaiting(): void {
    const waiting = [...this.#waiting]
    this.#waiting.clear()
    for (const pending of waiting) {
      this.#settle(pending)
      pending.reject(new BlockedConnectionError())
    }
  }

  /** Ends what a call holds: its timer, its abort listener, the process. */
  #settle(pending: Pending): void {
    if (pending.abandoned) return
    clearTimeout(pending.timer)
    if (pending.onAbort !== undefined) pending.call.signal?.removeEventListener('abort', pending.onAbort)
    this.#release()
  }

  #retain(): void {
    this.#held += 1
    if (this.#held === 1) this.#wire.ref()
  }

  #release(): void {
    this.#held -= 1
    if (this.#held === 0) this.#wire.unref()
  }

  /** Nothing is asked before the first interval has passed: a short-lived program never pays for keepalive. */
  #startKeepalive(keepalive: { intervalMs: number; count: number }): void {
    this.#keepaliveTimer = setInterval(() => this.#checkAlive(keepalive), keepalive.intervalMs)
    this.#keepaliveTimer.unref()
  }

  #checkAlive(keepalive: { intervalMs: number; count: number }): void {
    if (this.#heardFromDaemon) {
      this.#heardFromDaemon = false
      this.#unansweredPings = 0
    } else if (this.#unansweredPings >= keepalive.count) {
      const seconds = ((keepalive.count + 1) * keepalive.intervalMs) / 1000
      const why = `libvirt at ${this.#options.label} has not answered a ping for ${seconds} s; the connection was given up`
      this.#fail(new LibvirtConnectionError('closed', why))
      return
    } else {
      this.#unansweredPings += 1
    }
    if (!this.#keepaliveAsked) this.#askKeepalive()
    else if (this.#unansweredPings > 0) this.#sendKeepalive(pingProcedure)
  }

  /** The daemon answers pings only after this. It counts as the first ping itself, and does not wait its turn. */
  #askKeepalive(): void {
    this.#keepaliveAsked = true
    const write = (writer: XdrWriter) => writer.i32(keepaliveFeature)
    const { timeoutMs } = this.#options
    this.call({ procedure: procedures.supportsFeature, timeoutMs, write, urgent: true }).then(
      reader => {
        if (!reader.bool()) clearInterval(this.#keepaliveTimer)
      },
      // Without an answer the pings that follow are not answered either, and the connection is given up for that.
      () => undefined,
    )
  }

  #sendKeepalive(procedure: number): void {
    if (this.#wire.writable.writableLength > maximumUnsentBytes)
      throw protocolError('pings without reading the answers')
    const header = { program: Program.keepalive, procedure, type: FrameType.message, serial: 0 }
    this.#wire.writable.write(sealFrame(Buffer.allocUnsafe(headerBytes), header))
  }

  /** The other end is gone. */
  #end(cause?: Error): void {
    const explanation = this.#wire.explain?.() ?? cause?.message
    const because = explanation === undefined ? '' : `: ${explanation}`
    this.#fail(
      new LibvirtConnectionError('closed', `libvirt at ${this.#options.label} closed the connection${because}`, cause),
    )
  }

  #fail(reason: LibvirtConnectionError): void {
    if (this.#closeReason !== undefined) return
    this.#closeReason = reason
    clearInterval(this.#keepaliveTimer)
    const unfinished = [...this.#inFlight.values(), ...this.#waiting]
    this.#inFlight.clear()
    this.#waiting.clear()
    for (const pending of unfinished) {
      this.#settle(pending)
      if (pending.abandoned) this.#endLate(pending)
      else pending.reject(lostCall(reason, pending.call))
    }
    this.#wire.destroy()
    this.#options.onClose?.(reason)
  }
}

function lostCall(reason: LibvirtConnectionError, call: ConnectionCall): LibvirtConnectionError {
  const about = call.subject === undefined ? '' : ` of ${call.subject}`
  return new LibvirtConnectionError(
    reason.kind,
    `${reason.message} (while waiting for ${call.procedure.name}${about})`,
    reason,
  )
}

function protocolError(why: string): LibvirtConnectionError {
  return new LibvirtConnectionError('protocol', `not libvirt's protocol: ${why}`)
}

/** The error of an error reply; a malformed one is an error of its own, not of the whole connection. */
function daemonError(procedure: string, reader: XdrReader, subject: string | undefined): Error {
  try {
    return new LibvirtError(procedure, readError(reader), subject)
  } catch (error) {
    return error instanceof Error ? error : new Error(String(error))
  }
}

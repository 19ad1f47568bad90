import type { Duplex } from 'node:stream'
import { type CallOptions, Calls, type Request } from './calls.js'
import { Connection, type ConnectionCall } from './connection.js'
import { dial, systemPlaces } from './dial.js'
import { DomainStatsDecoder } from './domain-stats.js'
import { ErrorCode, LibvirtConnectionError, LibvirtError, LibvirtTimeoutError } from './errors.js'
import { EventHub } from './event-hub.js'
import { type Answerer, GuestBreaker } from './guest-breaker.js'
import { type CallObserver, ManagedConnection } from './managed-connection.js'
import { type Procedure, type Purpose, procedures } from './procedures.js'
import type { Domain, DomainStatsSample, HostEventName, HostEvents, StatsGroup } from './records.js'
import { sampleDomainStats } from './stats-sampler.js'
import { parseUri, type Target } from './uri.js'
import { wireOf } from './wire.js'
import type { XdrReader } from './xdr.js'

export interface HostOptions {
  /**
   * True: never open a read-write connection; calls that need one fail with LibvirtError.denied.
   * False (default): still read-only wherever that suffices, read-write opened when a call needs it.
   */
  readOnly?: boolean
  /** Deadline for reaching the daemon and opening the connection. Default 5000. */
  connectTimeoutMs?: number
  /** Deadline of calls that name none, instead of each procedure's own (changes keep theirs). */
  callTimeoutMs?: number
  /** Pings after this long without traffic, gives the connection up after `count` unanswered ones. Default 5000, 5. */
  keepalive?: { intervalMs: number; count: number } | false
  /** Told after every call. Must not throw. */
  onCall?: CallObserver
  /** The ssh command for qemu+ssh, instead of `ssh`. */
  sshCommand?: string
  /** Replaces the URI's own way to the daemon (tests). */
  connect?: (access: 'read' | 'write') => Promise<Duplex>
}

export interface DomainStatsOptions extends CallOptions {
  /** Groups to ask for. Default: state, cpu, balloon, vcpu, interface, block. */
  groups?: readonly StatsGroup[]
  /** Only these guests; default all. */
  domains?: readonly Domain[]
  /** Only running (and paused) guests, or only those that are shut off. */
  active?: boolean
  /** Include every image of a disk's backing chain. */
  backing?: boolean
  /** Keep every parameter by libvirt's own name as well (`raw`). */
  raw?: boolean
}

/** What a Host says about its events, besides the events themselves. */
export interface HostNotices {
  /** Events are lost from now on; the connection is being reopened. */
  down: Error
  /** Events flow again after a loss. Some were missed: read everything anew. */
  resync: undefined
  /** A listener threw. */
  listenerError: unknown
}

/** Unanswered calls a connection may have, and connections that may be kept for hanging calls, by purpose. */
const limits: Readonly<Record<Purpose, { inFlight: number; retired: number }>> = {
  state: { inFlight: 4, retired: 1 },
  events: { inFlight: 4, retired: 0 },
  bulk: { inFlight: 1, retired: 8 },
  monitor: { inFlight: 3, retired: 1 },
  storage: { inFlight: 3, retired: 1 },
  change: { inFlight: 3, retired: 1 },
}

const defaultConnectTimeoutMs = 5000
const defaultKeepalive = { intervalMs: 5000, count: 5 }
/** An agent that took this long to be found silent is left alone for a while. */
const slowRefusalMs = 1000

const agentProcedures: readonly Procedure[] = [
  procedures.qemuAgentCommand,
  procedures.domainGetGuestInfo,
  procedures.domainGetFsInfo,
  procedures.domainGetTime,
  procedures.domainGetGuestVcpus,
  procedures.domainInterfaceAddresses,
]

/**
 * A hypervisor: connections to its libvirt daemon, one per purpose, opened when first needed and reopened when lost.
 * Serves a one-shot program and a long-running one alike. `close` ends everything.
 */
export class Host extends Calls implements AsyncDisposable {
  readonly uri: string
  readonly #target: Target
  readonly #options: HostOptions
  readonly #connections = new Map<string, ManagedConnection>()
  readonly #breaker = new GuestBreaker()
  /** The ends of the last calls to agents under way, by the guest's UUID. */
  readonly #agentTurns = new Map<string, Promise<void>>()
  readonly #decoder = new DomainStatsDecoder()
  readonly #events: EventHub
  #closed = false

  private constructor(target: Target, options: HostOptions) {
    super()
    this.uri = target.uri
    this.#target = target
    this.#options = options
    this.#events = new EventHub((onMessage, onClose) => this.#openConnection('events', 'read', onMessage, onClose))
  }

  /**
   * Makes a Host. Nothing is opened yet: a URI that cannot be used throws LibvirtConnectionError `unsupported-uri` here,
   * an absent daemon is reported by the first call.
   */
  static open(uri: string, options: HostOptions = {}): Host {
    return new Host(parseUri(uri), options)
  }

  /** A Host for the same URI that shares nothing with this one: its own connections, no memory of what failed. */
  another(options: HostOptions = {}): Host {
    return new Host(this.#target, { ...this.#options, ...options })
  }

  /**
   * Statistics of all guests in one call, never waiting for a guest whose QEMU is busy or stuck: such guests are named
   * in `notAnswering` and carry `monitor`. Rejects only when the daemon as a whole does not answer. States alone, for which libvirt asks no QEMU,
   * do not wait for other statistics that are being read.
   */
  domainStats(options: DomainStatsOptions = {}): Promise<DomainStatsSample> {
    const onlyStates = options.groups?.length === 1 && options.groups[0] === 'state'
    return sampleDomainStats(
      {
        bulk: call => this.#connection(onlyStates ? 'state' : 'bulk', 'read').call(call),
        decode: reader => this.#decoder.decode(reader, options.raw),
        activeDomains: callOptions => this.domains({ active: true }, callOptions),
        controlInfo: (domain, callOptions) => this.domainControlInfo(domain, callOptions),
        isSuspect: domain => this.#breaker.isSuspect(domain, 'monitor'),
        noteStuck: (domain, sinceMs) => this.#breaker.observed(domain, procedures.getAllDomainStats.name, sinceMs),
        noteAnswering: domain => this.#breaker.answering(domain, 'monitor'),
      },
      { ...options, timeoutMs: this.#timeoutMs(procedures.getAllDomainStats, options) },
    )
  }

  /**
   * Listens to guests' events; the first listener of an event registers it with the daemon. Listeners survive
   * reconnecting. Returns the function that ends listening.
   */
  on<Name extends HostEventName>(name: Name, listener: (event: HostEvents[Name]) => void): () => void {
    this.#assertOpen()
    return this.#events.on(name, listener)
  }

  /** Listens to notices about the events. Returns the function that ends listening. */
  onNotice<Name extends keyof HostNotices>(name: Name, listener: (notice: HostNotices[Name]) => void): () => void {
    return this.#events.onNotice(name, listener)
  }

  /** Resolves when the daemon has confirmed every event listened to; rejects when the first attempt fails. */
  eventsReady(): Promise<void> {
    return this.#events.ready()
  }

  /** Ends all connections; pending calls reject. May be called twice. */
  async close(): Promise<void> {
    this.#closed = true
    this.#events.close()
    for (const connection of this.#connections.values()) connection.close()
    this.#connections.clear()
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  protected override async request(request: Request): Promise<XdrReader> {
    const { procedure, guest, options } = request
    this.#assertOpen()
    if (procedure.access === 'write' && this.#options.readOnly === true) throw deniedHere(request)
    const connection = this.#connection(procedure.purpose, procedure.access)
    const answerer = agentProcedures.includes(procedure) ? 'agent' : 'monitor'
    const call: ConnectionCall = {
      procedure,
      write: request.write,
      timeoutMs: this.#timeoutMs(procedure, options),
      answerTimeoutMs: options?.answerTimeoutMs,
      signal: options?.signal,
      subject: request.subject,
      guest: guest?.name,
      onLateEnd: guest && (() => this.#breaker.ended(guest, answerer)),
    }
    if (guest === undefined) return connection.call(call)
    if (answerer === 'monitor') return this.#guarded(connection, call, guest, answerer)
    return this.#inTurn(guest, call.timeoutMs, timeoutMs => {
      const inTime = timeoutMs === call.timeoutMs ? call : { ...call, timeoutMs }
      return this.#guarded(connection, inTime, guest, answerer)
    })
  }

  /**
   * libvirt asks an agent one thing at a time. Who waits for that here takes no place and no worker of the daemon, and learns from whoever was
   * before him that the agent does not answer.
   */
  #inTurn<T>(guest: Domain, timeoutMs: number, work: (timeoutMs: number) => Promise<T>): Promise<T> {
    const startedMs = performance.now()
    const startLater = () => work(Math.max(1, timeoutMs - (performance.now() - startedMs)))
    const earlier = this.#agentTurns.get(guest.uuid)
    const turn = earlier === undefined ? work(timeoutMs) : earlier.then(startLater)
    const forget = () => {
      if (this.#agentTurns.get(guest.uuid) === ended) this.#agentTurns.delete(guest.uuid)
    }
    const ended: Promise<void> = turn.then(forget, forget)
    this.#agentTurns.set(guest.uuid, ended)
    return turn
  }

  /** A call that may hang on one guest: not sent while the guest is known not to answer. */
  async #guarded(
    connection: ManagedConnection,
    call: ConnectionCall,
    guest: Domain,
    answerer: Answerer,
  ): Promise<XdrReader> {
    this.#breaker.check(guest, answerer)
    const startedMs = performance.now()
    try {
      const reader = await connection.call(call)
      this.#breaker.answering(guest, answerer)
      return reader
    } catch (error) {
      const tookMs = performance.now() - startedMs
      if (error instanceof LibvirtTimeoutError && error.guest !== undefined && !error.notAsked) {
        this.#breaker.timedOut(guest, answerer, error.procedure, error.sinceMs ?? Date.now())
      } else if (error instanceof LibvirtError && error.agentUnavailable && tookMs >= slowRefusalMs) {
        this.#breaker.refused(guest, error)
      }
      throw error
    }
  }

  #timeoutMs(procedure: Procedure, options: CallOptions | undefined): number {
    if (options?.timeoutMs !== undefined) return options.timeoutMs
    const own = procedure.timeoutMs
    return procedure.purpose === 'change' ? own : (this.#options.callTimeoutMs ?? own)
  }

  #connection(purpose: Purpose, access: 'read' | 'write'): ManagedConnection {
    this.#assertOpen()
    const key = `${purpose} ${access}`
    const present = this.#connections.get(key)
    if (present !== undefined) return present
    const made = new ManagedConnection({
      label: this.uri,
      open: () => this.#openConnection(purpose, access),
      maximumRetired: limits[purpose].retired,
      ...(this.#options.onCall && { onCall: this.#options.onCall }),
    })
    this.#connections.set(key, made)
    return made
  }

  async #openConnection(
    purpose: Purpose,
    access: 'read' | 'write',
    onMessage?: (procedure: number, payload: Buffer) => void,
    onClose?: (reason: LibvirtConnectionError) => void,
  ): Promise<Connection> {
    const timeoutMs = this.#options.connectTimeoutMs ?? defaultConnectTimeoutMs
    const { connect, sshCommand } = this.#options
    const wire =
      connect === undefined
        ? await dial(this.#target, { access, timeoutMs, sshCommand, places: systemPlaces() })
        : wireOf(await connect(access))
    return Connection.open(wire, {
      label: this.uri,
      remoteUri: this.#target.remoteUri,
      readOnly: access === 'read',
      timeoutMs,
      keepalive: this.#options.keepalive ?? defaultKeepalive,
      maximumInFlight: limits[purpose].inFlight,
      ...(onMessage === undefined ? {} : { onMessage }),
      ...(onClose === undefined ? {} : { onClose }),
    })
  }

  #assertOpen(): void {
    if (this.#closed) throw new LibvirtConnectionError('closed', `the Host of ${this.uri} was closed`)
  }
}

/** The same refusal the daemon gives on a read-only connection. */
function deniedHere(request: Request): LibvirtError {
  const text = 'only read-only connections were allowed here'
  const detail = { code: ErrorCode.operationDenied, domain: 0, level: 2, text, int1: 0, int2: 0 }
  return new LibvirtError(request.procedure.name, detail, request.subject)
}

import type { Duplex } from 'node:stream'
import { type CallOptions, Calls, type Request } from './calls.js'
import { LibvirtConnectionError } from './errors.js'
import type { DomainStatsSample, HostEventName, HostEvents, StatsGroup } from './records.js'
import type { XdrReader } from './xdr.js'

export interface HostOptions {
  /**
   * True: never open a read-write connection; calls that need one fail with LibvirtError.denied.
   * False (default): still read-only wherever that suffices, read-write opened when a call needs it.
   */
  readOnly?: boolean
  /** Deadline for reaching the daemon and opening the connection. Default 5000. */
  connectTimeoutMs?: number
  /** Deadline of calls that name none, instead of each procedure's own. */
  callTimeoutMs?: number
  /** Pings after this long without traffic, gives the connection up after `count` unanswered ones. Default 5000, 5. */
  keepalive?: { intervalMs: number; count: number } | false
  /** The ssh command for qemu+ssh, instead of `ssh`. */
  sshCommand?: string
  /** Replaces the URI's own way to the daemon (tests). */
  connect?: (access: 'read' | 'write') => Promise<Duplex>
}

export interface DomainStatsOptions extends CallOptions {
  /** Groups to ask for. Default: state, cpu, balloon, vcpu, interface, block. */
  groups?: readonly StatsGroup[]
  /** Only these guests; default all. */
  domains?: readonly { name: string; uuid: string; id?: number }[]
  /** Only running (and paused) guests. */
  active?: boolean
  /** Include every image of a disk's backing chain. */
  backing?: boolean
}

/** What a Host says about its connection, besides guests' events. */
export interface HostNotices {
  /** The event connection is lost; it is being reopened. */
  down: LibvirtConnectionError
  /** Events flow again after a loss. Some were missed: read everything anew. */
  resync: undefined
}

/**
 * A hypervisor: connections to its libvirt daemon, one per purpose, opened when first needed and reopened when lost.
 * Serves a one-shot program and a long-running one alike. `close` ends everything.
 */
export class Host extends Calls implements AsyncDisposable {
  readonly uri: string

  private constructor(uri: string, _options: HostOptions) {
    super()
    this.uri = uri
  }

  /** Makes a Host. Nothing is opened yet: a bad URI throws here, an absent daemon at the first call. */
  static open(uri: string, options: HostOptions = {}): Host {
    return new Host(uri, options)
  }

  protected override request(_request: Request): Promise<XdrReader> {
    throw new LibvirtConnectionError('closed', 'not implemented yet')
  }

  /**
   * Statistics of all guests in one call, never waiting for a guest whose QEMU is busy or stuck: such guests are named
   * in `notAnswering` and carry `monitor`.
   */
  domainStats(_options: DomainStatsOptions = {}): Promise<DomainStatsSample> {
    throw new LibvirtConnectionError('closed', 'not implemented yet')
  }

  /**
   * Listens to guests' events; the first listener of an event registers it with the daemon. Listeners survive
   * reconnecting. Returns the function that ends listening.
   */
  on<Name extends HostEventName>(_name: Name, _listener: (event: HostEvents[Name]) => void): () => void {
    return () => undefined
  }

  /** Listens to notices about the connection. Returns the function that ends listening. */
  onNotice<Name extends keyof HostNotices>(_name: Name, _listener: (notice: HostNotices[Name]) => void): () => void {
    return () => undefined
  }

  /** Ends all connections; pending calls reject. May be called twice. */
  async close(): Promise<void> {}

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }
}

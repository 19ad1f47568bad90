/** libvirt's error codes (virErrorNumber) that this client tells apart; every other code is passed through as a number. */
export const ErrorCode = {
  internalError: 1,
  noSupport: 3,
  noConnect: 5,
  invalidArgument: 8,
  operationFailed: 9,
  operationDenied: 29,
  systemError: 38,
  rpc: 39,
  noDomain: 42,
  noNetwork: 43,
  authFailed: 45,
  noStoragePool: 49,
  noStorageVolume: 50,
  operationInvalid: 55,
  configUnsupported: 67,
  operationTimeout: 68,
  noDomainSnapshot: 72,
  argumentUnsupported: 74,
  authCancelled: 79,
  noDomainMetadata: 80,
  operationUnsupported: 84,
  agentUnresponsive: 86,
  resourceBusy: 87,
  accessDenied: 88,
  authUnavailable: 94,
  agentUnsynced: 97,
  deviceMissing: 99,
} as const

const notFoundCodes: readonly number[] = [
  ErrorCode.noDomain,
  ErrorCode.noNetwork,
  ErrorCode.noStoragePool,
  ErrorCode.noStorageVolume,
  ErrorCode.noDomainSnapshot,
  ErrorCode.noDomainMetadata,
]
const deniedCodes: readonly number[] = [
  ErrorCode.operationDenied,
  ErrorCode.accessDenied,
  ErrorCode.authFailed,
  ErrorCode.authCancelled,
  ErrorCode.authUnavailable,
]
const unsupportedCodes: readonly number[] = [
  ErrorCode.noSupport,
  ErrorCode.configUnsupported,
  ErrorCode.argumentUnsupported,
  ErrorCode.operationUnsupported,
]

/** What the daemon sends with an error reply (remote_error on the wire). */
export interface ErrorDetail {
  code: number
  domain: number
  level: number
  text: string
  /** Name of the guest the daemon attached to the error, if any. */
  guest?: string
  str1?: string
  str2?: string
  str3?: string
  int1: number
  int2: number
}

/**
 * The daemon answered a call with an error. Decide by `code` or the getters below, never by the message: the daemon
 * translates its text to its own locale.
 */
export class LibvirtError extends Error {
  override readonly name = 'LibvirtError'
  /** virErrorNumber, see `ErrorCode`. */
  readonly code: number
  /** virErrorDomain: the part of libvirt that failed. */
  readonly domain: number
  readonly level: number
  /** Name of the procedure that was called, e.g. `DOMAIN_GET_STATE`. */
  readonly procedure: string
  /** Name of the guest (pool, network) the call was about, when it was about one. */
  readonly subject: string | undefined
  /** The daemon's own text, without our additions. */
  readonly text: string
  readonly str1: string | undefined
  readonly str2: string | undefined
  readonly str3: string | undefined
  readonly int1: number
  readonly int2: number

  constructor(procedure: string, detail: ErrorDetail, subject?: string) {
    const about = subject ?? detail.guest
    const hint = deniedCodes.includes(detail.code)
      ? ' (this call needs a read-write connection and the right to open one: run as root or as a member of group libvirt)'
      : ''
    super(
      `libvirt ${procedure}${about === undefined ? '' : ` of ${about}`}: ${detail.text}${hint} [code ${detail.code}]`,
    )
    this.code = detail.code
    this.domain = detail.domain
    this.level = detail.level
    this.procedure = procedure
    this.subject = about
    this.text = detail.text
    this.str1 = detail.str1
    this.str2 = detail.str2
    this.str3 = detail.str3
    this.int1 = detail.int1
    this.int2 = detail.int2
  }

  /** No such guest, network, pool, volume, snapshot or metadata. After a listing this means "gone meanwhile". */
  get notFound(): boolean {
    return notFoundCodes.includes(this.code)
  }

  /** Read-only connection, access control or authentication refused the call. */
  get denied(): boolean {
    return deniedCodes.includes(this.code)
  }

  /** The driver or the guest's configuration does not offer this (no such function, no agent channel, …). */
  get unsupported(): boolean {
    return unsupportedCodes.includes(this.code)
  }

  /** The guest has an agent channel, but the agent does not answer or is out of step. */
  get agentUnavailable(): boolean {
    return this.code === ErrorCode.agentUnresponsive || this.code === ErrorCode.agentUnsynced
  }

  /** Not possible in the guest's present state, e.g. it is not running. */
  get operationInvalid(): boolean {
    return this.code === ErrorCode.operationInvalid
  }

  /** libvirt itself gave up waiting (for the guest's state lock, held by another job). */
  get timedOutInDaemon(): boolean {
    return this.code === ErrorCode.operationTimeout
  }

  /** With `timedOutInDaemon`, the calls that hold the lock, by libvirt's own names (`remoteDispatchDomainSave`); empty when it names none. */
  get lockHolder(): string {
    // The words around the names are translated.
    return [...this.text.matchAll(/\b(?:monitor|agent)=(\w+)/g)].map(([, name]) => name).join(', ')
  }

  /** A device (disk, interface) of that name does not exist in the guest, or an argument is wrong. */
  get invalidArgument(): boolean {
    return this.code === ErrorCode.invalidArgument || this.code === ErrorCode.deviceMissing
  }

  /** The daemon does not know the procedure, or could not decode its arguments. */
  get protocolRefused(): boolean {
    return this.code === ErrorCode.rpc
  }
}

/** Why there is no usable connection. */
export type ConnectionErrorKind =
  /** Nobody listens on that address. */
  | 'refused'
  /** The socket file does not exist. */
  | 'missing-socket'
  /** The operating system does not let us open the socket. */
  | 'permission'
  /** The connection ended, by the daemon or by us. */
  | 'closed'
  /** What arrived is not libvirt's protocol. */
  | 'protocol'
  /** The daemon wants an authentication we cannot give, or the TLS certificates do not fit. */
  | 'auth'
  /** The URI names something this client does not speak. */
  | 'unsupported-uri'
  /** Too much hangs in the daemon already; nothing was sent. */
  | 'overloaded'

/** There is no usable connection to the daemon. `message` says what was tried, on what, and what to do. */
export class LibvirtConnectionError extends Error {
  override readonly name = 'LibvirtConnectionError'
  readonly kind: ConnectionErrorKind

  constructor(kind: ConnectionErrorKind, message: string, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause })
    this.kind = kind
  }
}

/** What a time-out was about. */
export interface TimeoutDetail {
  procedure: string
  /** How long the answer has been missing, in milliseconds. */
  afterMs: number
  /** Name of the guest that does not answer, when the call was about one. */
  guest?: string
  /** When the first unanswered question was asked (milliseconds since 1970). */
  sinceMs?: number
  /** True when nothing was sent because the guest has not answered an earlier call yet. */
  notAsked?: boolean
  /** Who was asked: the URI. */
  uri?: string
}

/** A call was not answered before its deadline. The daemon may still be working on it. */
export class LibvirtTimeoutError extends Error {
  override readonly name = 'LibvirtTimeoutError'
  readonly procedure: string
  readonly afterMs: number
  readonly guest: string | undefined
  readonly sinceMs: number | undefined
  readonly notAsked: boolean

  constructor(detail: TimeoutDetail) {
    const who =
      detail.guest === undefined ? `libvirt${detail.uri === undefined ? '' : ` at ${detail.uri}`}` : detail.guest
    const seconds = (detail.afterMs / 1000).toFixed(1)
    super(
      detail.notAsked === true
        ? `${who} is not answering for ${seconds} s (${detail.procedure} not asked again before it answers)`
        : `${who} did not answer ${detail.procedure} within ${seconds} s`,
    )
    this.procedure = detail.procedure
    this.afterMs = detail.afterMs
    this.guest = detail.guest
    this.sinceMs = detail.sinceMs
    this.notAsked = detail.notAsked ?? false
  }
}

/** QEMU answered a monitor command with an error object (libvirt reports that as a successful call). */
export class QemuMonitorError extends Error {
  override readonly name = 'QemuMonitorError'
  readonly guest: string
  /** QMP's error class, e.g. `CommandNotFound`. */
  readonly errorClass: string

  constructor(guest: string, command: string, errorClass: string, description: string) {
    super(`QEMU of ${guest} refused ${command}: ${description} [${errorClass}]`)
    this.guest = guest
    this.errorClass = errorClass
  }
}

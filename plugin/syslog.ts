import { createSocket } from 'node:dgram'
import { connect, isIP } from 'node:net'
import { PassingError } from './retry.js'
import { isHost } from './setting-rules.js'

/** Facilities of RFC 5424, by number. */
export const facilities = [
  'kern',
  'user',
  'mail',
  'daemon',
  'auth',
  'syslog',
  'lpr',
  'news',
  'uucp',
  'cron',
  'authpriv',
  'ftp',
  'ntp',
  'audit',
  'alert',
  'clock',
  'local0',
  'local1',
  'local2',
  'local3',
  'local4',
  'local5',
  'local6',
  'local7',
] as const

/** Severities of RFC 5424, by number. */
export const severities = ['emerg', 'alert', 'crit', 'err', 'warning', 'notice', 'info', 'debug'] as const

/** One message for syslog. */
export interface SyslogMessage {
  readonly facility: (typeof facilities)[number]
  readonly severity: (typeof severities)[number]
  readonly timeMs: number
  readonly hostname: string
  /** The program, which readers filter by. */
  readonly application: string
  /** What kind of message it is, one word. */
  readonly kind: string
  /** One line. */
  readonly text: string
}

/** Where syslog listens. */
export type SyslogAddress =
  | { readonly kind: 'udp'; readonly host: string; readonly port: number }
  | { readonly kind: 'tcp'; readonly host: string; readonly port: number }
  | { readonly kind: 'unix'; readonly path: string }

const defaultPort = 514
/** Linux has room for 108 bytes, a null byte at the end included. */
const longestSocketPath = 107

/** Reads `udp://HOST[:PORT]`, `tcp://HOST[:PORT]` or `unix:///dev/log`; undefined when it is none. */
export function parseSyslogAddress(text: string): SyslogAddress | undefined {
  const [, path] = /^unix:\/\/(\/[^\0]+)$/.exec(text) ?? []
  if (path !== undefined) return Buffer.byteLength(path) <= longestSocketPath ? { kind: 'unix', path } : undefined
  const [, kind, bracketed, plain, port] =
    /^(udp|tcp):\/\/(?:\[([\da-fA-F:.%]+)\]|([\w.-]+))(?::(\d{1,5}))?\/?$/.exec(text) ?? []
  const host = bracketed ?? plain
  const number = port === undefined ? defaultPort : Number(port)
  if (host === undefined || !isHost(host) || number === 0 || number > 65_535 || (kind !== 'udp' && kind !== 'tcp'))
    return undefined
  return { kind, host, port: number }
}

/** A message as RFC 5424 writes it (section 6), at most `maxBytes` long: the text loses its end. Without a line feed. */
export function formatSyslog(message: SyslogMessage, maxBytes: number): Buffer {
  const priority = facilities.indexOf(message.facility) * 8 + severities.indexOf(message.severity)
  const head = [
    `<${priority}>1`,
    new Date(message.timeMs).toISOString(),
    word(message.hostname, 255),
    word(message.application, 48),
    String(process.pid),
    word(message.kind, 32),
    '-',
  ]
  // Section 6.4: the text is UTF-8 when it begins with the mark; plain ASCII needs none, and old receivers would show it.
  const mark = /^[\x20-\x7e]*$/.test(message.text) ? '' : '\ufeff'
  return cutBytes(Buffer.from(`${head.join(' ')} ${mark}${message.text}`), maxBytes)
}

/** A field of the head: printable ASCII without blanks, `-` for nothing. */
function word(text: string, length: number): string {
  return text.replace(/[^\x21-\x7e]/g, '_').slice(0, length) || '-'
}

/** At most so many bytes, never the half of a character. */
export function cutBytes(bytes: Buffer, maxBytes: number): Buffer {
  if (bytes.length <= maxBytes) return bytes
  let end = maxBytes
  while (end > 0 && ((bytes[end] ?? 0) & 0xc0) === 0x80) end--
  return bytes.subarray(0, end)
}

/** Sends one datagram to an IP address. Throws a PassingError when the network says that it did not go out; nobody says whether it arrived. */
export async function sendDatagram(bytes: Buffer, { host, port }: { host: string; port: number }): Promise<void> {
  const socket = createSocket(isIP(host) === 6 ? 'udp6' : 'udp4')
  try {
    await new Promise<void>((done, fail) => {
      socket.once('error', fail)
      // Connected, so that a port where nobody listens is heard of if its answer is there in time.
      socket.connect(port, host, () => socket.send(bytes, error => (error ? fail(error) : setImmediate(done))))
    })
  } catch (error) {
    throw new PassingError(`cannot send to syslog at ${host}:${port} (UDP): ${reason(error)}`, { cause: error })
  } finally {
    socket.close()
  }
}

/** How long a syslog that has been sent everything may take to close the connection. */
const closingMs = 1000

/**
 * Writes one message to a stream, TCP (to an IP address) with its length in front (RFC 6587, octet counting), and ends the connection. Syslog confirms nothing; but one that closes
 * the connection without having read everything breaks it, which is heard of while we wait for the other end to be closed. Throws a PassingError; for a path whose socket
 * takes datagrams only, an Error with the code `EPROTOTYPE`.
 */
export function sendStream(
  bytes: Buffer,
  address: Exclude<SyslogAddress, { kind: 'udp' }>,
  { timeoutMs, signal }: { timeoutMs: number; signal: AbortSignal },
): Promise<void> {
  const isTcp = address.kind === 'tcp'
  const where = isTcp ? `${address.host}:${address.port} (TCP)` : address.path
  const framed = isTcp ? [Buffer.from(`${bytes.length} `), bytes] : [bytes, Buffer.from('\n')]
  return new Promise((done, fail) => {
    const socket = connect({ ...(isTcp ? { host: address.host, port: address.port } : { path: address.path }), signal })
    let timer: NodeJS.Timeout | undefined
    const limit = (ms: number, then: () => void) => {
      clearTimeout(timer)
      timer = setTimeout(then, ms)
    }
    const finish = (settle: () => void) => {
      clearTimeout(timer)
      socket.destroy()
      settle()
    }
    const failed = (error: unknown) => {
      const problem = new PassingError(`cannot write to syslog at ${where}: ${reason(error)}`, { cause: error })
      finish(() => fail(codeOf(error) === 'EPROTOTYPE' ? error : problem))
    }
    limit(timeoutMs, () => failed(new Error(`not taken within ${(timeoutMs / 1000).toFixed(1)} s`)))
    socket.on('error', failed)
    socket.once('connect', () => socket.end(Buffer.concat(framed)))
    socket.once('finish', () => limit(Math.min(closingMs, timeoutMs), () => finish(done)))
    socket.once('close', () => finish(done))
    // Whatever it says is not waited for, but must be read for its end to come.
    socket.resume()
  })
}

function codeOf(error: unknown): string {
  return error instanceof Error && 'code' in error ? String(error.code) : ''
}

function reason(error: unknown): string {
  return error instanceof Error ? error.message || codeOf(error) : String(error)
}

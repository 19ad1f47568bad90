import { createSocket } from 'node:dgram'
import { lookup } from 'node:dns'
import { connect, type Socket } from 'node:net'
import { PassingError } from './retry.js'

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

/** Reads `udp://HOST[:PORT]`, `tcp://HOST[:PORT]` or `unix:///dev/log`; undefined when it is none. */
export function parseSyslogAddress(text: string): SyslogAddress | undefined {
  const [, path] = /^unix:\/\/(\/.+)$/.exec(text) ?? []
  if (path !== undefined) return { kind: 'unix', path }
  const [, kind, bracketed, plain, port] =
    /^(udp|tcp):\/\/(?:\[([\da-fA-F:.%]+)\]|([\w.-]+))(?::(\d{1,5}))?\/?$/.exec(text) ?? []
  const host = bracketed ?? plain
  const number = port === undefined ? defaultPort : Number(port)
  if (host === undefined || number === 0 || number > 65_535 || (kind !== 'udp' && kind !== 'tcp')) return undefined
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

/** Sends one datagram. Throws a PassingError when the network says that it did not go out; nobody says whether it arrived. */
export async function sendDatagram(bytes: Buffer, { host, port }: { host: string; port: number }): Promise<void> {
  const { address, family } = await resolve(host)
  const socket = createSocket(family === 6 ? 'udp6' : 'udp4')
  try {
    await new Promise<void>((done, fail) => {
      socket.once('error', fail)
      // Connected, so that a port where nobody listens is heard of if its answer is there in time.
      socket.connect(port, address, () => socket.send(bytes, error => (error ? fail(error) : setImmediate(done))))
    })
  } catch (error) {
    throw new PassingError(`cannot send to syslog at ${host}:${port} (UDP): ${reason(error)}`, { cause: error })
  } finally {
    socket.close()
  }
}

function resolve(host: string): Promise<{ address: string; family: number }> {
  return new Promise((done, fail) => {
    lookup(host, (error, address, family) => {
      if (error) fail(new PassingError(`cannot find the address of ${host}: ${reason(error)}`, { cause: error }))
      else done({ address, family })
    })
  })
}

/**
 * Writes one message to a stream, TCP with its length in front (RFC 6587, octet counting), and waits until the other side has taken it and the connection is
 * closed in order. Throws a PassingError; for a path whose socket takes datagrams only, an Error with the code `EPROTOTYPE`.
 */
export function sendStream(
  bytes: Buffer,
  address: Exclude<SyslogAddress, { kind: 'udp' }>,
  { timeoutMs, signal }: { timeoutMs: number; signal: AbortSignal },
): Promise<void> {
  const where = address.kind === 'tcp' ? `${address.host}:${address.port} (TCP)` : address.path
  const framed =
    address.kind === 'tcp'
      ? Buffer.concat([Buffer.from(`${bytes.length} `), bytes])
      : Buffer.concat([bytes, Buffer.from('\n')])
  return new Promise((done, fail) => {
    const target = address.kind === 'tcp' ? { host: address.host, port: address.port } : { path: address.path }
    const socket: Socket = connect({ ...target, signal })
    const failed = (error: unknown) => {
      clearTimeout(timer)
      socket.destroy()
      if (codeOf(error) === 'EPROTOTYPE') fail(error)
      else fail(new PassingError(`cannot write to syslog at ${where}: ${reason(error)}`, { cause: error }))
    }
    const timer = setTimeout(() => failed(new Error(`no answer within ${Math.round(timeoutMs)} ms`)), timeoutMs)
    socket.once('error', failed)
    socket.once('connect', () => socket.end(framed))
    // Syslog answers nothing; that all was taken shows in that the connection ends without an error.
    socket.once('finish', () => {
      clearTimeout(timer)
      done()
    })
    socket.resume()
  })
}

function codeOf(error: unknown): string {
  return error instanceof Error && 'code' in error ? String(error.code) : ''
}

function reason(error: unknown): string {
  return error instanceof Error ? error.message || codeOf(error) : String(error)
}

import { createHash } from 'node:crypto'
import { type ClientRequest, type IncomingMessage, request as sendHttp } from 'node:http'
import { connect, type Socket } from 'node:net'
import { type ConnectionOptions, type DetailedPeerCertificate, connect as startTls, type TLSSocket } from 'node:tls'

/** One HTTP request, and how to get there. */
export interface HttpRequest {
  /** The host's name, for the server. */
  readonly host: string
  readonly port: number
  /** Its address, or that of the proxy. */
  readonly address: string
  readonly path: string
  readonly method: string
  readonly headers: Readonly<Record<string, string>>
  readonly body: string | undefined
  /** TLS, with its certificates; absent for plain HTTP. */
  readonly tls?: Pick<ConnectionOptions, 'ca' | 'cert' | 'key' | 'rejectUnauthorized'> | undefined
  readonly proxy?: { readonly port: number; readonly authorization: string | undefined } | undefined
  readonly openTimeoutMs: number
  readonly readTimeoutMs: number
  /** Ends everything. */
  readonly signal: AbortSignal
}

/** What came back. */
export interface HttpResponse {
  readonly code: string
  readonly location: string | undefined
  /** When to come back, as the server wrote it. */
  readonly retryAfter: string | undefined
  /** Bytes of the whole body. */
  readonly size: number
  readonly sha256: string
  /** The body's beginning, at most {@link longestKeptBytes}. */
  readonly body: Buffer
  /** When the server's certificates end, its own first; empty without TLS. */
  readonly certificatesEnd: readonly Date[]
}

/** Bytes of a body that are kept and looked through; the rest is counted and hashed only. */
export const longestKeptBytes = 16 * 1024 * 1024

/** A server that took too long. */
export class HttpTimeoutError extends Error {
  override readonly name = 'HttpTimeoutError'
  readonly phase: 'opening connection' | 'reading data'

  constructor(phase: 'opening connection' | 'reading data') {
    super(`timed out ${phase}`)
    this.phase = phase
  }
}

/** What an error of the connection means, in few words. */
function clear(error: unknown): unknown {
  if (!(error instanceof Error)) return error
  const code = 'code' in error ? String(error.code) : ''
  if (error.message === 'socket hang up') return new Error('end of file reached')
  if (/CERT|ISSUER|SIGNATURE|CRL/.test(code)) return new Error(`certificate verify failed (${error.message})`)
  const [, reason] = /error:\w*:[^:]*:[^:]*:([^:\n]+)/.exec(error.message) ?? []
  return reason === undefined ? error : new Error(`TLS failed (${reason})`)
}

/** Sends a request on a connection of its own and reads the whole answer. Redirects are not followed. Throws HttpTimeoutError, or what the network says. */
export async function exchangeHttp(request: HttpRequest): Promise<HttpResponse> {
  let socket: Socket | TLSSocket | undefined
  try {
    socket = await openSocket(request)
    const certificatesEnd = 'getPeerCertificate' in socket ? endsOf(socket.getPeerCertificate(true)) : []
    return { ...(await exchange(request, socket)), certificatesEnd }
  } catch (error) {
    throw clear(error)
  } finally {
    socket?.destroy()
  }
}

/** A connection to the server, through the proxy if there is one, with TLS if it is asked for. */
async function openSocket(request: HttpRequest): Promise<Socket | TLSSocket> {
  const { address, port, proxy, tls, host, signal } = request
  const socket = connect({ host: address, port: proxy?.port ?? port, signal })
  await opened(socket, 'connect', request)
  if (tls === undefined) return socket
  if (proxy !== undefined) await openTunnel(request, socket)
  const name = /^[\d.]+$|:/.test(host) ? {} : { servername: host }
  const secure = startTls({ socket, ...tls, ...name, host })
  await opened(secure, 'secureConnect', request)
  return secure
}

function opened(socket: Socket, event: string, { openTimeoutMs }: HttpRequest): Promise<void> {
  return new Promise((resolve, reject) => {
    const fail = (error: Error) => {
      socket.destroy()
      settle(() => reject(error))
    }
    const timer = setTimeout(() => fail(new HttpTimeoutError('opening connection')), openTimeoutMs)
    const onClose = () => fail(new Error('end of file reached'))
    const settle = (then: () => void) => {
      clearTimeout(timer)
      socket.off('error', fail).off('close', onClose)
      // Whatever goes wrong later is told by who uses the connection then.
      socket.on('error', () => undefined)
      then()
    }
    socket
      .once('error', fail)
      .once('close', onClose)
      .once(event, () => settle(resolve))
  })
}

async function openTunnel(request: HttpRequest, socket: Socket): Promise<void> {
  const { host, port, proxy, readTimeoutMs } = request
  const target = `${host.includes(':') ? `[${host}]` : host}:${port}`
  const authorization = proxy?.authorization === undefined ? {} : { 'Proxy-Authorization': proxy.authorization }
  await new Promise<void>((resolve, reject) => {
    const sent = sendHttp({
      createConnection: () => socket,
      method: 'CONNECT',
      path: target,
      headers: { Host: target, ...authorization },
    })
    limitSilence(sent, readTimeoutMs)
    sent.once('error', reject)
    sent.once('connect', ({ statusCode, statusMessage }) => {
      sent.setTimeout(0)
      if (statusCode === 200) resolve()
      else reject(new Error(`${statusCode} "${statusMessage}"`))
    })
    sent.end()
  })
}

function exchange(request: HttpRequest, socket: Socket): Promise<Omit<HttpResponse, 'certificatesEnd'>> {
  const { host, port, path, method, headers, body, proxy, tls, readTimeoutMs } = request
  const inProxy = proxy !== undefined && tls === undefined
  const name = host.includes(':') ? `[${host}]` : host
  return new Promise((resolve, reject) => {
    const sent = sendHttp({
      createConnection: () => socket,
      method,
      path: inProxy ? `http://${name}:${port}${path}` : path,
      headers: {
        Host: port === (tls ? 443 : 80) ? name : `${name}:${port}`,
        Accept: '*/*',
        Connection: 'close',
        ...(inProxy && proxy.authorization !== undefined ? { 'Proxy-Authorization': proxy.authorization } : {}),
        ...(body === undefined ? {} : { 'Content-Length': String(Buffer.byteLength(body)) }),
        ...headers,
      },
      // Servers that are not quite correct are to be judged, too.
      insecureHTTPParser: true,
      maxHeaderSize: 65_536,
    })
    limitSilence(sent, readTimeoutMs)
    sent.once('error', reject)
    sent.once('response', response => readBody(response).then(resolve, reject))
    sent.end(body)
  })
}

function limitSilence(request: ClientRequest, readTimeoutMs: number): void {
  request.setTimeout(readTimeoutMs, () => request.destroy(new HttpTimeoutError('reading data')))
}

async function readBody(response: IncomingMessage): Promise<Omit<HttpResponse, 'certificatesEnd'>> {
  const hash = createHash('sha256')
  const kept: Buffer[] = []
  let size = 0
  for await (const chunk of response as AsyncIterable<Buffer>) {
    if (size < longestKeptBytes) kept.push(chunk.subarray(0, longestKeptBytes - size))
    size += chunk.length
    hash.update(chunk)
  }
  const { statusCode, headers } = response
  return {
    code: String(statusCode),
    location: headers.location,
    retryAfter: headers['retry-after'],
    size,
    sha256: hash.digest('hex'),
    body: Buffer.concat(kept),
  }
}

/** A root is its own issuer. */
function endsOf(certificate: DetailedPeerCertificate): Date[] {
  const chain: DetailedPeerCertificate[] = []
  for (let next = certificate; next?.valid_to !== undefined && !chain.includes(next); next = next.issuerCertificate)
    chain.push(next)
  return chain.map(({ valid_to }) => new Date(valid_to))
}

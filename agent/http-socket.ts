import { createHash, timingSafeEqual } from 'node:crypto'
import { createServer, type Server, type Socket as StreamSocket } from 'node:net'
import { JsonSyntaxError, parseJson, stringifyJson } from '../sensu/json.js'
import type { Logger } from '../sensu/log.js'
import { redact } from '../sensu/redact.js'
import type { HttpSocketSettings, Json, JsonObject, Settings } from '../sensu/types.js'
import type { Transport } from '../transport/transport.js'
import type { LocalSocket } from './agent.js'
import { type HttpRequest, parseHttpRequest } from './http-message.js'
import type { Results } from './results.js'
import { endSoon } from './stream-end.js'
import { publishSubmitted } from './submitted-results.js'

const MAX_CONNECTIONS = 1000
const STATS_TIMEOUT_MS = 2000

export interface HttpSocketOptions {
  bind: string
  port: number
  version: string
  settings: Settings
  log: Logger
  results: Results
  transport: Transport
  status: StatusPages
}

/** What the agent tells of itself. */
export interface StatusPages {
  /** In Prometheus' text format. */
  metrics(): string
  /** Why the agent does not do its work; undefined when it does. */
  fault(): string | undefined
}

interface Response {
  status: number
  reason: string
  /** A text is sent as such. */
  content: JsonObject | string
}

interface Endpoint {
  /** For the list of endpoints, in which only Sensu's own are: it is the same as ever. */
  help: string | undefined
  methods: string[]
  /** Whether credentials are needed even without `protect_all_endpoints`; undefined: never. */
  protection: 'always' | 'configurable' | undefined
  respond(request: HttpRequest): Promise<Response> | Response
}

/** `client.http_socket`: information, settings and check results over plain HTTP. One request per connection. */
export class HttpSocket implements LocalSocket {
  readonly #options: HttpSocketOptions
  readonly #settings: HttpSocketSettings
  readonly #streams = new Set<StreamSocket>()
  #server: Server | undefined

  readonly #endpoints: ReadonlyMap<string, Endpoint> = new Map<string, Endpoint>([
    [
      '/info',
      {
        help: 'Sensu client information',
        methods: ['GET'],
        protection: 'configurable',
        respond: () => this.#info(),
      },
    ],
    [
      '/results',
      {
        help: 'Send check JSON results here',
        methods: ['POST'],
        protection: 'configurable',
        respond: request => this.#takeResults(request),
      },
    ],
    [
      '/settings',
      {
        help: 'Get redacted Sensu settings (requires basic auth). Use ?redacted=false if you want the setting unredacted.',
        methods: ['GET'],
        protection: 'always',
        respond: request => this.#showSettings(request),
      },
    ],
    [
      '/brew',
      {
        help: 'Ask Sensu to brew a cup of joe (try it!)',
        methods: ['GET'],
        protection: undefined,
        respond: (): Response => ({ status: 418, reason: "I'm a teapot", content: { response: "I'm a teapot!" } }),
      },
    ],
    [
      '/metrics',
      {
        help: undefined,
        methods: ['GET'],
        protection: 'configurable',
        respond: () => ({ status: 200, reason: 'OK', content: this.#options.status.metrics() }),
      },
    ],
    [
      '/healthz',
      {
        help: undefined,
        methods: ['GET'],
        protection: 'configurable',
        respond: () => this.#health(),
      },
    ],
  ])

  constructor(options: HttpSocketOptions) {
    this.#options = options
    this.#settings = options.settings.client.http_socket ?? {}
  }

  /** Rejects when the port is in use. */
  async open(): Promise<void> {
    const { bind, port, log } = this.#options
    log.debug('binding client http socket', { options: redact({ ...this.#settings, bind, port }) })
    const server = createServer({ allowHalfOpen: true, noDelay: true }, stream => this.#accept(stream))
    server.maxConnections = MAX_CONNECTIONS
    this.#server = server
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject)
      server.listen(port, bind, resolve)
    })
  }

  async close(): Promise<void> {
    for (const stream of this.#streams) stream.destroy()
    await new Promise<void>(resolve => (this.#server ? this.#server.close(() => resolve()) : resolve()))
  }

  #accept(stream: StreamSocket): void {
    const chunks: Buffer[] = []
    let done = false
    this.#streams.add(stream)
    stream.on('close', () => this.#streams.delete(stream))
    stream.on('error', () => stream.destroy())
    stream.on('end', () => {
      if (!done) stream.end()
    })
    stream.on('data', chunk => {
      if (done) return
      chunks.push(chunk)
      const received = Buffer.concat(chunks)
      chunks.splice(0, chunks.length, received)
      const request = parseHttpRequest(received)
      if (request === 'incomplete') return
      done = true
      if (request === 'malformed') {
        this.#logError('400 Bad request')
        endSoon(stream, malformedResponse)
      } else this.#answer(request, stream)
    })
  }

  #answer(request: HttpRequest, stream: StreamSocket): void {
    const { log } = this.#options
    this.#respond(request)
      .catch((error: unknown) => this.#failure(error))
      .then(response => {
        if (request.path !== '/settings' || response.status !== 200) {
          log.debug('http socket sending response', {
            status: response.status,
            status_string: response.reason,
            content: response.content,
          })
        }
        if (request.hasMore) this.#logError('400 Bad request')
        endSoon(stream, responseText(response))
      })
      .catch(() => stream.destroy())
  }

  async #respond(request: HttpRequest): Promise<Response> {
    const { log } = this.#options
    const uri = request.path
    log.debug('http socket processing', { http_request_method: request.methodAsSent, http_request_uri: uri })
    const endpoint = this.#endpoints.get(request.path)
    if (!endpoint) {
      log.warn('http socket unknown endpoint requested', { http_request_uri: uri })
      return { status: 404, reason: 'Not Found', content: { endpoints: this.#help() } }
    }
    log.debug('http socket endpoint found', { http_request_uri: uri, accepted_methods: endpoint.methods })
    if (!endpoint.methods.includes(request.method)) {
      log.debug('http socket method is not allowed for endpoint', {
        method_name: request.method,
        http_request_uri: uri,
      })
      const response = `Valid methods for this endpoint: ${stringifyJson(endpoint.methods)}`
      return { status: 405, reason: 'Method Not Allowed', content: { response } }
    }
    log.debug('http socket executing handler', { method_name: request.method, http_request_uri: uri })
    if (this.#isProtected(endpoint) && !this.#isAuthorized(request)) {
      log.warn('http socket refusing to serve unauthorized request')
      const response = 'You must be authenticated using your http_options user and password settings'
      return { status: 401, reason: 'Unauthorized', content: { response } }
    }
    return endpoint.respond(request)
  }

  #isProtected({ protection }: Endpoint): boolean {
    return protection === 'always' || (protection === 'configurable' && this.#settings.protect_all_endpoints === true)
  }

  /** Basic authentication, compared in constant time; without configured credentials nobody is authorized. */
  #isAuthorized({ headers }: HttpRequest): boolean {
    const { user, password } = this.#settings
    if (typeof user !== 'string' || typeof password !== 'string') return false
    const [, encoded = ''] = /^Basic +(\S+)$/i.exec(headers.get('authorization') ?? '') ?? []
    const digest = (text: string) => createHash('sha256').update(text).digest()
    const given = Buffer.from(encoded, 'base64').toString()
    return timingSafeEqual(digest(given), digest(`${user}:${password}`))
  }

  async #info(): Promise<Response> {
    const { version, transport, settings } = this.#options
    const [keepalives, results] = await Promise.all([this.#stats('keepalives'), this.#stats('results')])
    const content: JsonObject = {
      sensu: { version },
      transport: { name: settings.transport.name, keepalives, results, connected: transport.connected },
    }
    return { status: 200, reason: 'OK', content }
  }

  /** Nulls when the broker cannot be asked. */
  async #stats(queue: string): Promise<JsonObject> {
    let timer: NodeJS.Timeout | undefined
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(() => reject(new Error('no answer from the transport')), STATS_TIMEOUT_MS)
    })
    try {
      const { messages, consumers } = await Promise.race([this.#options.transport.stats(queue), late])
      return { messages, consumers }
    } catch {
      return { messages: null, consumers: null }
    } finally {
      clearTimeout(timer)
    }
  }

  #takeResults({ headers, body }: HttpRequest): Response {
    if (!headers.get('content-type')?.includes('application/json')) {
      const content = { response: 'Invalid content type' }
      return { status: 415, reason: 'Only application/json content type accepted', content }
    }
    let document: Json
    try {
      document = parseJson(body)
    } catch (error) {
      if (!(error instanceof JsonSyntaxError)) throw error
      return { status: 400, reason: 'Failed to parse JSON body', content: { response: 'Failed to parse JSON body' } }
    }
    publishSubmitted(document, this.#options.results)
    return { status: 202, reason: 'OK', content: { response: 'ok' } }
  }

  #showSettings({ query }: HttpRequest): Response {
    const { log, settings } = this.#options
    log.info('http socket responding to request for configuration settings')
    const content: JsonObject = query.toLowerCase().includes('redacted=false') ? settings : redact(settings)
    return { status: 200, reason: 'OK', content }
  }

  #health(): Response {
    const fault = this.#options.status.fault()
    if (fault === undefined) return { status: 200, reason: 'OK', content: 'ok\n' }
    return { status: 503, reason: 'Service Unavailable', content: `${fault}\n` }
  }

  #failure(error: unknown): Response {
    this.#logError(error instanceof Error ? error.message : String(error))
    const response = 'Internal Server Error: Check your Sensu logs for error details'
    return { status: 500, reason: 'Internal Server Error', content: { response } }
  }

  #logError(error: string): void {
    this.#options.log.error('http socket error while processing request', { error, backtrace: [] })
  }

  #help(): JsonObject {
    const entries = [...this.#endpoints].filter(([, { help }]) => help !== undefined)
    return Object.fromEntries(entries.map(([path, { help = '', methods }]) => [path, { help, methods }]))
  }
}

const malformedResponse =
  'HTTP/1.1 400 Bad request\r\nConnection: close\r\nContent-type: text/plain\r\n\r\nDetected error: HTTP code 400'

function responseText({ status, reason, content }: Response): Buffer {
  const body = Buffer.from(typeof content === 'string' ? content : stringifyJson(content))
  const head = [
    `HTTP/1.1 ${status} ${reason}`,
    `Content-length: ${body.length}`,
    `Content-type: ${typeof content === 'string' ? 'text/plain; version=0.0.4; charset=utf-8' : 'application/json'}`,
    ...(status === 401 ? ['WWW-Authenticate: Basic realm="Sensu Client Restricted Area"'] : []),
  ]
  return Buffer.concat([Buffer.from(`${head.join('\r\n')}\r\n\r\n`), body])
}

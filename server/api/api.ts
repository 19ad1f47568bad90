import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo, Socket } from 'node:net'
import type { JsonObject } from '../../sensu/types.js'
import type { Listener } from '../server.js'
import { logRequest, logResponse } from './access-log.js'
import { type Answer, notFound } from './answer.js'
import { authentication, unauthorized } from './authentication.js'
import { BackgroundWork } from './background-work.js'
import { malformedRequest, type UnreadableRequest, unreadableRequest } from './bad-request.js'
import { corsHeaders } from './cors.js'
import { isForeignForm } from './foreign-form.js'
import type { ApiParts } from './parts.js'
import { type ApiRequest, apiRequest, readBody } from './request.js'
import { ClientGone, respond, respondRaw } from './respond.js'
import { handlerOf, methodNotAllowed, Router } from './router.js'
import { routes } from './routes.js'
import { type StatusPage, statusPageRoutes } from './status-page.js'

/** Where Sensu 1.9 listens when nothing is configured. */
const DEFAULT_BIND = '0.0.0.0'
const DEFAULT_PORT = 4567

/** How long a client may take, milliseconds: for the headers, for the whole request, and between two signs of life. */
const HEADERS_TIMEOUT_MS = 10_000
const REQUEST_TIMEOUT_MS = 30_000
const IDLE_TIMEOUT_MS = 60_000
const MAXIMUM_HEADER_BYTES = 16 * 1024
/** How often the first two are looked at. */
const TIMEOUT_CHECK_MS = 1000
/** As long as an answer, and what goes on in the background, may take at the end of the server. */
const CLOSING_MS = 5000
const BACKGROUND_MS = 10_000

/** Bounds of what clients can make the API hold. */
export interface ApiLimits {
  /** More connections are closed at once. */
  maximumConnections: number
  /** More requests at the same time are answered by 503. */
  maximumRequests: number
  /** Longer bodies are answered by 413, unread. */
  maximumBodyBytes: number
}

/** What the API answers from, and its bounds. */
export interface ApiOptions extends Omit<ApiParts, 'background'> {
  limits: ApiLimits
  /** What is at `/`. */
  statusPage: StatusPage
}

/** Sensu's HTTP API: one request a connection, answered from Redis, the transport and the settings. */
export class Api implements Listener {
  readonly #parts: ApiParts
  readonly #limits: ApiLimits
  readonly #api: JsonObject
  readonly #router: Router
  readonly #isAuthorized: (header: string | undefined) => boolean
  readonly #cors: [string, string][]
  readonly #server: Server
  /** Connections whose request has been understood: whatever follows it is not read. */
  readonly #taken = new WeakSet<Socket>()
  readonly #inFlight = new Set<Promise<void>>()
  /** Of these, those whose request is there as a whole. */
  #working = 0

  constructor({ limits, statusPage, ...parts }: ApiOptions) {
    this.#parts = { ...parts, background: new BackgroundWork(parts.log) }
    this.#limits = limits
    this.#router = new Router([...statusPageRoutes(statusPage), ...routes])
    this.#api = parts.settings.api ?? {}
    this.#isAuthorized = authentication(this.#api)
    this.#cors = corsHeaders(this.#api)
    this.#server = this.#createServer()
  }

  async open(): Promise<void> {
    const { bind = DEFAULT_BIND, port = DEFAULT_PORT } = this.#api
    const address = { host: String(bind), port: Number(port) }
    await new Promise<void>((resolve, reject) => {
      this.#server.once('error', (error: NodeJS.ErrnoException) => reject(listenError(error, address)))
      this.#server.listen(address, resolve)
    })
    const { log } = this.#parts
    this.#server.on('error', error => log.error('the HTTP API cannot take connections', { error: error.message }))
    const { port: used } = this.#server.address() as AddressInfo
    log.info('api listening', { protocol: 'http', bind: address.host, port: used })
  }

  /** Answers what has been asked, and ends what goes on in the background. */
  async close(): Promise<void> {
    const late = setTimeout(() => this.#server.closeAllConnections(), CLOSING_MS)
    const closed = new Promise<void>(resolve => this.#server.close(() => resolve()))
    this.#server.closeIdleConnections()
    await Promise.all(this.#inFlight)
    this.#server.closeAllConnections()
    await closed
    clearTimeout(late)
    await this.#parts.background.idle(BACKGROUND_MS)
  }

  #createServer(): Server {
    const server = createServer(
      {
        maxHeaderSize: MAXIMUM_HEADER_BYTES,
        headersTimeout: HEADERS_TIMEOUT_MS,
        requestTimeout: REQUEST_TIMEOUT_MS,
        connectionsCheckingInterval: TIMEOUT_CHECK_MS,
        requireHostHeader: false,
      },
      (message, response) => this.#take(message, response),
    )
    server.maxConnections = this.#limits.maximumConnections
    server.maxRequestsPerSocket = 1
    server.timeout = IDLE_TIMEOUT_MS
    server.on('clientError', (error, socket) => this.#refuse(error, socket as Socket))
    return server
  }

  #take(message: IncomingMessage, response: ServerResponse): void {
    this.#taken.add(message.socket)
    const done = this.#serve(message, response).finally(() => this.#inFlight.delete(done))
    this.#inFlight.add(done)
  }

  /** Never rejects. */
  async #serve(message: IncomingMessage, response: ServerResponse): Promise<void> {
    const began = performance.now()
    const { method = '', url = '', headers } = message
    const head = { method, url, headers, remoteAddress: message.socket.remoteAddress ?? '' }
    let request = apiRequest(head, '')
    try {
      const body = await readBody(message, this.#limits.maximumBodyBytes)
      if (body !== undefined) request = { ...request, body }
      logRequest(this.#parts.log, request)
      await this.#work(request, response, began, body === undefined ? { status: 413 } : undefined)
    } catch (error) {
      this.#parts.log.debug('api client went away', { request_id: request.id, error: String(error) })
      response.destroy()
    }
  }

  /** Answers a request whose body has been read. Rejects when the client has gone away. */
  async #work(
    request: ApiRequest,
    response: ServerResponse,
    began: number,
    refusal: Answer | undefined,
  ): Promise<void> {
    this.#working += 1
    try {
      const answer = refusal ?? (await this.#answer(request))
      await this.#respond(request, response, began, answer)
    } catch (error) {
      if (error instanceof ClientGone) throw error
      const answer = this.#disconnected() ?? { status: 500 }
      if (answer.body === undefined || response.headersSent) this.#logFault(request, error)
      // a list of which a part is out has been cut off: it is not to be taken for a whole one
      if (!response.headersSent) await this.#respond(request, response, began, answer)
    } finally {
      this.#working -= 1
    }
  }

  async #respond(request: ApiRequest, response: ServerResponse, began: number, answer: Answer): Promise<void> {
    const bytes = await respond(response, request, answer, this.#cors)
    logResponse(this.#parts.log, request, answer.status, bytes, performance.now() - began)
  }

  #logFault({ id, method, path }: ApiRequest, error: unknown): void {
    const reason = error instanceof Error ? error.message : String(error)
    this.#parts.log.error('unexpected api error', { request_id: id, method, uri: path, error: reason })
  }

  /** The order of Sensu 1.9: who asks, whether there is anything to answer from, what is asked for. */
  async #answer(request: ApiRequest): Promise<Answer> {
    const { method, path, headers } = request
    if (method !== 'OPTIONS' && !this.#isAuthorized(headers.authorization)) return unauthorized
    if (isForeignForm(request)) return { status: 403 }
    const match = this.#router.find(path, headers.accept)
    const disconnected = match?.route.offline ? undefined : this.#disconnected()
    if (disconnected) return disconnected
    if (method === 'OPTIONS') return { status: 200 }
    if (match === undefined) return notFound
    const handler = handlerOf(match.route, method)
    if (handler === undefined) return methodNotAllowed(match.route)
    if (this.#isBusy(method)) return { status: 503 }
    return handler(this.#parts, { ...request, parameters: match.parameters })
  }

  #isBusy(method: string): boolean {
    const changes = method === 'POST' || method === 'DELETE'
    return this.#working > this.#limits.maximumRequests || (changes && this.#parts.background.full)
  }

  /** What everything that needs them is answered with while Redis or the transport is away. */
  #disconnected(): Answer | undefined {
    const { store, transport } = this.#parts
    if (store.connected && transport.connected) return undefined
    const what = transport.connected ? 'redis' : 'transport'
    return { status: 500, body: `{"error":"not connected to ${what}"}` }
  }

  /** What Node's parser does not understand, or is too late. Behind a request that is being answered it does not matter. */
  #refuse(error: UnreadableRequest, socket: Socket): void {
    const answered = this.#taken.has(socket)
    if (answered && error.code?.startsWith('HPE_')) return
    if (answered || !socket.writable || error.code === 'ECONNRESET') {
      socket.destroy()
      return
    }
    this.#taken.add(socket)
    const { remoteAddress = '' } = socket
    const head = unreadableRequest(error, remoteAddress)
    if (head) this.#answerRaw(apiRequest(head, ''), socket).catch(() => socket.destroy())
    else {
      this.#parts.log.error('unexpected api error', { error: error.message, remote_address: remoteAddress })
      socket.end(malformedRequest(error))
    }
  }

  /** A method that Node does not know is answered as any other: no route has it. */
  async #answerRaw(request: ApiRequest, socket: Socket): Promise<void> {
    const answer = await this.#answer(request)
    respondRaw(socket, request, answer, this.#cors)
    logResponse(this.#parts.log, request, answer.status, 0, 0)
  }
}

/** Says which address, and what can be done. */
function listenError(error: NodeJS.ErrnoException, { host, port }: { host: string; port: number }): Error {
  const advice =
    error.code === 'EADDRINUSE'
      ? 'something listens there already, perhaps sensu-api: stop it, give api.port another number, or start with --no-api'
      : `${error.message}: see api.bind and api.port, or start with --no-api`
  return new Error(`the HTTP API cannot listen on ${host}:${port}: ${advice}`, { cause: error })
}

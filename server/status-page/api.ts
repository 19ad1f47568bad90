import {
  type Client,
  type Result,
  readClients,
  readEvents,
  readResults,
  readSilences,
  readTotal,
  readTroubles,
  type SensuEvent,
  type Silence,
} from './shapes.js'

/** What a request may take. */
const TIMEOUT_MS = 30_000
const EVENTS_PER_PAGE = 1000
const CLIENTS_PER_PAGE = 500
/** More events and clients than these are counted, not shown. */
export const MAXIMUM_EVENTS = 5000
export const MAXIMUM_CLIENTS = 20_000
/** More results of one client are not shown. */
const MAXIMUM_RESULTS = 200

/** The API did not answer, or not as it should; the message can be shown. */
export class ApiError extends Error {}

/** What a silence is made of, see POST /silenced. */
export interface NewSilence {
  subscription?: string
  check?: string
  /** Seconds. */
  expire?: number
  expire_on_resolve?: true
  reason?: string
  creator: string
}

/** The server's API, from where the page came from. Everything rejects with an `ApiError`. */
export class Api {
  /** Whether clients' and events' names may be put into paths: the API serves only such. */
  static readonly #name = /^[\w.-]+$/

  async troubles(): Promise<string[]> {
    return readTroubles((await ask('info')).value)
  }

  /** The first MAXIMUM_EVENTS, and how many there are. */
  async events(): Promise<{ events: SensuEvent[]; total: number }> {
    const { items, total } = await askPages('events', EVENTS_PER_PAGE, MAXIMUM_EVENTS, readEvents)
    return { events: items, total }
  }

  async silences(): Promise<Silence[]> {
    return readSilences((await ask('silenced')).value)
  }

  /** The first MAXIMUM_CLIENTS, and how many there are. */
  async clients(): Promise<{ clients: Client[]; total: number }> {
    const { items, total } = await askPages('status/clients', CLIENTS_PER_PAGE, MAXIMUM_CLIENTS, readClients)
    return { clients: items, total }
  }

  async results(client: string): Promise<Result[]> {
    if (!Api.#name.test(client)) throw new ApiError('a client of this name cannot be asked for')
    return readResults((await ask(`results/${client}?limit=${MAXIMUM_RESULTS}`)).value)
  }

  silence(silence: NewSilence): Promise<void> {
    return tell('silenced', silence)
  }

  /** A silence that is gone already is none, too. */
  unsilence(id: string): Promise<void> {
    return tell('silenced/clear', { id })
  }

  resolve(client: string, check: string): Promise<void> {
    return tell('resolve', { client, check })
  }
}

/** Pages of a list until all of it or the maximum is there; `total` is what the API says of the whole. */
async function askPages<T>(
  path: string,
  limit: number,
  maximum: number,
  read: (value: unknown) => T[],
): Promise<{ items: T[]; total: number }> {
  const items: T[] = []
  for (let offset = 0; offset < maximum; offset += limit) {
    const { value, total = 0 } = await ask(`${path}?limit=${limit}&offset=${offset}`)
    items.push(...read(value))
    if (total <= offset + limit) break
    if (offset + limit >= maximum) return { items, total }
  }
  return { items, total: items.length }
}

async function ask(path: string): Promise<{ value: unknown; total?: number | undefined }> {
  const response = await request(path, { method: 'GET' })
  if (!response.ok) throw new ApiError(await failure(response))
  const value: unknown = await response.json().catch(() => {
    throw new ApiError(`the answer to ${path} was cut off`)
  })
  return { value, total: readTotal(response.headers.get('X-Pagination')) }
}

/** 404 is no failure: what was to be ended is not there any more. */
async function tell(path: string, body: object): Promise<void> {
  // the server refuses what forms of pages from elsewhere can send, see docs/status-page.md
  const headers = { 'Content-Type': 'application/json' }
  const response = await request(path, { method: 'POST', headers, body: JSON.stringify(body) })
  if (!response.ok && response.status !== 404) throw new ApiError(await failure(response))
}

function request(path: string, options: RequestInit): Promise<Response> {
  // by its parts: the address of the page may contain a password, which fetch refuses
  const { origin, pathname } = location
  const url = new URL(path, new URL(pathname, origin))
  return fetch(url, {
    ...options,
    cache: 'no-store',
    redirect: 'error',
    signal: AbortSignal.timeout(TIMEOUT_MS),
  }).catch((error: unknown) => {
    const timedOut = error instanceof DOMException && error.name === 'TimeoutError'
    throw new ApiError(timedOut ? `no answer within ${TIMEOUT_MS / 1000} s` : 'the server cannot be reached')
  })
}

async function failure(response: Response): Promise<string> {
  if (response.status === 401) return 'the API wants a password: reload the page'
  const text = await response.text().catch(() => '')
  const reason = /"error":"([^"]{1,200})"/.exec(text)?.[1]
  return reason === undefined ? `the server answered ${response.status}` : `the server is ${reason}`
}

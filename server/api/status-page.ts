import { stringifyJson } from '../../sensu/json.js'
import { isSet } from '../../sensu/json-value.js'
import type { JsonObject } from '../../sensu/types.js'
import type { Store } from '../../store/store.js'
import { parsedObject } from '../../store/stored-text.js'
import type { Answer } from './answer.js'
import { asset } from './asset.js'
import { listAnswer } from './lists.js'
import type { ApiParts } from './parts.js'
import type { ApiRequest } from './request.js'
import type { Route } from './router.js'

/** The status page, as the build makes it of `server/status-page/`. */
export interface StatusPage {
  html: string
  style: string
  script: string
}

/** The page loads from where it came from and from nowhere else, runs no script but its own, and makes no HTML of texts; nobody may frame it. */
const policy = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self'",
  "connect-src 'self'",
  'img-src data:',
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
  "require-trusted-types-for 'script'",
  "trusted-types 'none'",
].join('; ')

const headers = {
  'Cache-Control': 'no-cache',
  'Content-Security-Policy': policy,
  'Referrer-Policy': 'no-referrer',
  'X-Content-Type-Options': 'nosniff',
}

/** The page at `/`, what belongs to it, and what only it asks for. */
export function statusPageRoutes({ html, style, script }: StatusPage): Route[] {
  return [
    // programs get the answers of Sensu 1.9, which has nothing there
    { ...asset('/', 'text/html; charset=utf-8', html, { ...headers, Vary: 'Accept' }), accepts: 'text/html' },
    asset('/status.css', 'text/css; charset=utf-8', style, headers),
    asset('/status.js', 'text/javascript; charset=utf-8', script, headers),
    { paths: ['/status/clients'], GET: getClients },
  ]
}

/** All clients in a few words each, paged like `/clients`, and for guests the host. */
async function getClients({ store }: ApiParts, { query }: ApiRequest): Promise<Answer> {
  const { slices, ...listing } = await store.views.clients.list(query.page)
  return listAnswer(query, { ...listing, slices: inShort(slices, store) })
}

async function* inShort(slices: AsyncIterable<string[]>, store: Store): AsyncGenerator<string[]> {
  for await (const slice of slices) {
    const clients = slice.map(text => parsedObject(text) ?? {})
    const hosts = await store.views.results.senders(clients.map(({ name }) => String(name)))
    yield clients.map((client, index) => stringifyJson(shortClient(client, hosts[index])))
  }
}

function shortClient(client: JsonObject, host: string | undefined): JsonObject {
  const short: JsonObject = { host: host ?? null }
  for (const key of ['name', 'type', 'address', 'timestamp', 'keepalives']) {
    const value = client[key]
    if (isSet(value)) short[key] = value
  }
  return short
}

import { stringifyJson } from '../../sensu/json.js'
import { isInteger } from '../../sensu/json-value.js'
import { epochSeconds } from '../../sensu/results.js'
import type { Json, JsonObject } from '../../sensu/types.js'
import { pageOf } from '../../store/listing.js'
import { type Answer, badRequest, created, noContent, notFound, ok } from './answer.js'
import { listAnswer } from './lists.js'
import type { ApiParts } from './parts.js'
import { type ApiRequest, objectIn } from './request.js'
import type { Route } from './router.js'
import { isExpiry } from './stashes.js'

export const silenceRoutes: readonly Route[] = [
  { paths: ['/silenced'], GET: getSilenced, POST: postSilenced },
  { paths: ['/silenced/clear'], POST: postClear },
  { paths: ['/silenced/ids/:id'], GET: getById },
  { paths: ['/silenced/subscriptions/:subscription'], GET: getBySubscription },
  { paths: ['/silenced/checks/:check'], GET: getByCheck },
]

function getSilenced(parts: ApiParts, request: ApiRequest): Promise<Answer> {
  return list(parts, request, () => true)
}

async function getById({ store }: ApiParts, { parameters }: ApiRequest): Promise<Answer> {
  const [entry] = await store.views.silences.entries([parameters['id'] ?? ''])
  return entry ? ok(entry) : notFound
}

function getBySubscription(parts: ApiParts, request: ApiRequest): Promise<Answer> {
  return list(parts, request, id => id.slice(0, id.lastIndexOf(':')) === request.parameters['subscription'])
}

function getByCheck(parts: ApiParts, request: ApiRequest): Promise<Answer> {
  return list(parts, request, id => id.slice(id.lastIndexOf(':') + 1) === request.parameters['check'])
}

/** Entries are paged before those that have expired are left out (Sensu 1.9). */
async function list({ store }: ApiParts, { query }: ApiRequest, fits: (id: string) => boolean): Promise<Answer> {
  const { silences } = store.views
  const ids = (await silences.ids()).filter(fits)
  const entries = await silences.entries(pageOf(ids, query.page))
  return listAnswer(query, { total: ids.length, slices: slices(entries.map(stringifyJson)) })
}

async function* slices(texts: string[]): AsyncGenerator<string[]> {
  yield texts
}

async function postSilenced({ store }: ApiParts, request: ApiRequest): Promise<Answer> {
  const body = objectIn(request)
  const silenced = body && silencedBy(body)
  if (body === undefined || silenced === undefined) return badRequest
  const { reason = null, creator = null, begin = null, expire_on_resolve: once = null, expire = null } = body
  if (!isNullOr(reason, 'string') || !isNullOr(creator, 'string') || !isNullOr(once, 'boolean')) return badRequest
  if ((begin !== null && !isInteger(begin)) || (expire !== null && !isExpiry(expire))) return badRequest
  const now = epochSeconds(Date.now())
  // it begins later, and lasts as long from then on
  const seconds = expire === null ? undefined : expire + Math.max(0, Number(begin ?? now) - now)
  if (seconds !== undefined && !isExpiry(seconds)) return badRequest
  const id = idOf(silenced)
  const entry = { id, ...silenced, reason, creator, begin, expire_on_resolve: once ?? false, timestamp: now }
  await store.views.silences.put(id, entry, seconds)
  return created()
}

/** Ends silence by the entry's id, or by exactly what it silences. */
async function postClear({ store }: ApiParts, request: ApiRequest): Promise<Answer> {
  const body = objectIn(request) ?? {}
  const { id = null } = body
  if (id !== null && typeof id !== 'string') return badRequest
  const silenced = silencedBy(body)
  const wanted = id ?? (silenced && idOf(silenced))
  if (wanted === undefined) return badRequest
  return (await store.views.silences.remove(wanted)) ? noContent : notFound
}

/** What is silenced: a subscription, a check, or a check on a subscription. */
interface Silenced {
  subscription: string | null
  check: string | null
}

/** Undefined when neither is named, or one cannot be a name. */
function silencedBy({ subscription = null, check = null }: JsonObject): Silenced | undefined {
  if (subscription === null && check === null) return undefined
  if (!isNullOr(subscription, 'string') || !/^[\w.\-:]+$/.test(subscription ?? '_')) return undefined
  if (!isNullOr(check, 'string') || !/^[\w.-]+$/.test(check ?? '_')) return undefined
  return { subscription, check }
}

function idOf({ subscription, check }: Silenced): string {
  return `${subscription ?? '*'}:${check ?? '*'}`
}

function isNullOr(value: Json, type: 'string'): value is string | null
function isNullOr(value: Json, type: 'boolean'): value is boolean | null
function isNullOr(value: Json, type: 'string' | 'boolean'): boolean {
  return value === null || typeof value === type
}

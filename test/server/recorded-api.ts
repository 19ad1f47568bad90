import type { Redis } from 'ioredis'
import type { Test } from 'tap'
import { parseJson, stringifyJson } from '../../sensu/json.js'
import { entriesOf, fromEntries, isObject, toNumber } from '../../sensu/json-value.js'
import type { Json, JsonObject } from '../../sensu/types.js'
import { at, fixture, list, object } from '../support/recorded-cases.js'
import type { HttpAnswer } from './http.js'

/** The configuration of the recorded API, without its connections. */
export function recordedSettings(): JsonObject {
  const { client: _c, redis: _r, rabbitmq: _m, api: _a, ...settings } = recordedBody('api-settings-redacted-false')
  return settings
}

/** The state that the recorded API was asked in, as far as its answers tell; texts of what it does not show are in other recordings. */
export async function seedClients(redis: Redis, { resolved = false } = {}): Promise<void> {
  const clients = list(parseJson(String(at(fixture('api-clients'), 'observed', 'body')))).map(object)
  for (const client of clients) {
    const name = String(client['name'])
    await redis.sadd('clients', name)
    await redis.set(`client:${name}`, stringifyJson(name === 'a2' ? { ...client, environment: 'production' } : client))
    await redis.set(`client:${name}:signature`, String(client['signature'] ?? ''))
  }
  await redis.set('client:a1', String(at(fixture('api-check-delete-redis'), 'observed', 'client:a1', 'value')))
  for (const item of list(parseJson(String(at(fixture('api-client-history'), 'observed', 'body')))).map(object)) {
    if (resolved && item['check'] === 'r2')
      await seedKeys(redis, object(fixture('api-result-delete-redis')['observed']))
    else await seedResult(redis, 'a1', object(item['last_result']), list(item['history']))
  }
  const [event = null] = list(parseJson(String(at(fixture('api-events-client'), 'observed', 'body'))))
  const { contact: _, ...check } = object(at(event, 'check'))
  await seedResult(redis, 'a2', check, [2])
  await redis.hset(
    'events:a2',
    'r2',
    stringifyJson({ ...object(event), client: object(clients.find(({ name }) => name === 'a2')), check }),
  )
  if (!resolved) await redis.hset('events:a1', 'r2', stringifyJson(event))
}

export async function seedResult(redis: Redis, client: string, check: JsonObject, history: Json[]): Promise<void> {
  const name = String(check['name'])
  await redis.sadd(`result:${client}`, name)
  await redis.set(`result:${client}:${name}`, stringifyJson(check))
  await redis.del(`history:${client}:${name}`)
  await redis.rpush(`history:${client}:${name}`, ...history.map(String))
}

/** Writes keys as a recording dumps them. */
export async function seedKeys(redis: Redis, dump: JsonObject): Promise<void> {
  for (const [key, entry] of entriesOf(dump)) {
    const value = at(entry, 'value')
    await redis.del(key)
    if (at(entry, 'type') === 'string') await redis.set(key, String(value))
    else if (at(entry, 'type') === 'set') await redis.sadd(key, ...list(value).map(String))
    else await redis.rpush(key, ...list(value).map(String))
    const seconds = Number(at(entry, 'ttl'))
    if (seconds > 0) await redis.expire(key, seconds)
  }
}

/** The silence entries of the recording; the member whose entry had expired at once is there, too. */
export function recordedSilences(): JsonObject {
  return object(fixture('api-silenced-redis')['observed'])
}

export async function seedStashes(redis: Redis): Promise<void> {
  for (const stash of list(parseJson(String(at(fixture('api-stashes'), 'observed', 'body')))).map(object)) {
    const path = String(stash['path'])
    await redis.sadd('stashes', path)
    await redis.set(`stash:${path}`, stringifyJson(stash['content'] ?? null))
    if (stash['expire'] !== -1) await redis.expire(`stash:${path}`, Number(stash['expire']))
  }
}

/** Everything but what servers note about themselves, in the form of the recordings. */
export async function dumpKeys(redis: Redis, pattern: string): Promise<JsonObject> {
  const keys = (await redis.keys(pattern)).filter(key => !/^(lock|task|server)s?\b/.test(key)).sort()
  const entries: [string, Json][] = []
  for (const key of keys) {
    const type = await redis.type(key)
    const ttl = await redis.ttl(key)
    let value: Json = await redis.get(key).catch(() => null)
    if (type === 'set') value = (await redis.smembers(key)).sort()
    if (type === 'list') value = await redis.lrange(key, 0, -1)
    entries.push([key, { type, ttl, value }])
  }
  return fromEntries(entries)
}

/** Forgets everything but the servers. */
export async function forgetAll(redis: Redis): Promise<void> {
  const keys = (await redis.keys('*')).filter(key => !/^(lock|task|server)s?\b/.test(key))
  if (keys.length > 0) await redis.del(...keys)
}

/** Compares dumps of Redis: keys, types, values, and how long they live still, to a few seconds. */
export async function sameKeys(t: Test, redis: Redis, pattern: string, recorded: JsonObject): Promise<void> {
  const found = await dumpKeys(redis, pattern)
  t.strictSame(Object.keys(found), Object.keys(recorded).sort())
  for (const [key, entry] of entriesOf(recorded)) {
    const value = at(entry, 'type') === 'set' ? list(at(entry, 'value')).map(String).sort() : at(entry, 'value')
    const wanted = { type: at(entry, 'type'), value }
    const { ttl, ...rest } = object(found[key])
    t.equal(stringifyJson(withoutTimes(rest)), stringifyJson(withoutTimes(wanted)), key)
    t.ok(Math.abs((toNumber(ttl) ?? 0) - (toNumber(at(entry, 'ttl')) ?? 0)) < 10, `${key} lives as long`)
  }
}

function recordedBody(name: string): JsonObject {
  return object(parseJson(String(at(fixture(name), 'observed', 'body'))))
}

/** Which lists have no order of their own. */
export type Unordered = 'none' | 'body' | 'all'

/** Compares answers: everything but times, ids, hosts, ports and digests; the length of the body must be the one that is told. */
export function sameAnswer(
  t: Test,
  answer: HttpAnswer,
  recorded: Json,
  unordered: Unordered = 'body',
  name = 'the answer is the recorded one',
): void {
  t.equal(comparable(answer, unordered), comparable(object(recorded), unordered), name)
  const length = answer.headers.find(header => header.startsWith('Content-length: '))
  if (length !== undefined) t.equal(length, `Content-length: ${Buffer.byteLength(answer.body)}`)
}

function comparable(answer: HttpAnswer | JsonObject, unordered: Unordered): string {
  const headers = list([...list(answer.headers as Json)])
    .map(String)
    .map(header => header.replace(/^Content-length: .*/, 'Content-length: N').replace(uuid, 'UUID'))
  const body = String(answer.body)
  const parsed = /^[[{]/.test(body) ? inOrder(parseJson(body), unordered) : body
  return [answer.status_line, ...headers, '', typeof parsed === 'string' ? parsed : stringifyJson(parsed)].join('\n')
}

/** The same value with placeholders for what differs from run to run, so that texts can be compared, key by key in their order. */
export function withoutTimes(value: Json, key = ''): Json {
  if (Array.isArray(value)) return key === 'tasks' ? 'TASKS' : value.map(item => withoutTimes(item))
  if (isObject(value))
    return fromEntries(entriesOf(value).map(([name, item]) => [name, withoutTimes(item, name)] as const))
  if (['hexdigest', 'hostname', 'user', 'system', 'port', 'time', 'host'].includes(key)) return key.toUpperCase()
  if (key === 'address' && value !== 'unknown') return 'ADDRESS'
  if (key === 'expire' || key === 'ttl') return (toNumber(value) ?? 0) > 0 ? 'SECONDS' : value
  if (typeof value === 'number') return isTime(value) ? 'TIME' : value
  if (typeof value !== 'string') return value
  if (/^\d{10}$/.test(value)) return isTime(Number(value)) ? 'TIME' : value
  if (/^[[{]"/.test(value)) return stringifyJson(withoutTimes(parseJson(value)))
  return value.replace(uuid, 'UUID')
}

/** The same for the text of an object. */
export function withTimesHidden(text: Json | undefined): string {
  const value = parseJson(String(text))
  return isObject(value) ? stringifyJson(withoutTimes(value)) : ''
}

function inOrder(value: Json, unordered: Unordered): Json {
  const plain = withoutTimes(value)
  return unordered === 'none' ? plain : sorted(plain, unordered === 'all')
}

function sorted(value: Json, deep: boolean): Json {
  if (Array.isArray(value)) {
    const items = deep ? value.map(item => sorted(item, true)) : value
    return [...items].sort((left, right) => (stringifyJson(left) < stringifyJson(right) ? -1 : 1))
  }
  if (!deep || !isObject(value)) return value
  return fromEntries(entriesOf(value).map(([key, item]) => [key, sorted(item, true)] as const))
}

const uuid = /[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}/g

function isTime(seconds: number): boolean {
  return seconds > 1.5e9 && seconds < 2.6e9
}

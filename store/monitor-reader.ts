import type { Redis } from 'ioredis'
import type { JsonObject } from '../sensu/types.js'
import { type checkMember, clientSignatureKey, eventsKey, resultKey, ttlKey } from './keys.js'
import { readClients } from './registry-reader.js'
import { parsedObject } from './stored-text.js'

/** A registered client with the signature that stands in Redis; null when there is no such key. */
export interface RegisteredClient {
  client: JsonObject
  signature: string | null
}

/** A stored result whose check has, or had, a `ttl`. */
export interface TtlResult {
  client: string
  check: JsonObject
  signature: string | null
  /** Whether the client itself is known to be silent: it has an event of the check `keepalive`. */
  clientIsSilent: boolean
}

/** Names are read this many at a time. */
const sliceSize = 100

/** All registered clients with their signatures. */
export async function* readRegisteredClients(redis: Redis): AsyncGenerator<RegisteredClient> {
  for await (const slice of slices(readClients(redis))) {
    const signatures = await redis.mget(slice.map(client => clientSignatureKey(String(client['name']))))
    yield* slice.map((client, index) => ({ client, signature: signatures[index] ?? null }))
  }
}

/** All results of checks with a `ttl`; members of the set `ttl` whose result is gone are removed from it. */
export async function* readTtlResults(redis: Redis): AsyncGenerator<TtlResult> {
  for await (const members of slices(await redis.smembers(ttlKey))) {
    const named = members.map(splitMember)
    const texts = await redis.mget(named.map(([client, check]) => resultKey(client, check)))
    const gone = members.filter((_, index) => texts[index] === null)
    if (gone.length > 0) await redis.srem(ttlKey, ...gone)
    const signatures = await redis.mget(named.map(([client]) => clientSignatureKey(client)))
    const silent = await Promise.all(named.map(([client]) => redis.hexists(eventsKey(client), 'keepalive')))
    for (const [index, [client]] of named.entries()) {
      const check = parsedObject(texts[index] ?? null)
      if (check === undefined) continue
      yield { client, check, signature: signatures[index] ?? null, clientIsSilent: silent[index] === 1 }
    }
  }
}

/** Whether a client has a current event of a check. */
export async function hasEvent(redis: Redis, client: string, check: string): Promise<boolean> {
  return (await redis.hexists(eventsKey(client), check)) === 1
}

/** Whether any client of a subscription has a current event of a check. */
export async function subscriptionHasEvent(redis: Redis, subscription: string, check: string): Promise<boolean> {
  for await (const slice of slices(readClients(redis))) {
    const members = slice.filter(({ subscriptions }) => {
      return Array.isArray(subscriptions) && subscriptions.includes(subscription)
    })
    const found = await Promise.all(members.map(({ name }) => hasEvent(redis, String(name), check)))
    if (found.includes(true)) return true
  }
  return false
}

async function* slices<T>(items: Iterable<T> | AsyncIterable<T>): AsyncGenerator<T[]> {
  let slice: T[] = []
  for await (const item of items) {
    slice.push(item)
    if (slice.length < sliceSize) continue
    yield slice
    slice = []
  }
  if (slice.length > 0) yield slice
}

/** Client and check of a member; the client is what stands before the first colon (see checkMember). */
function splitMember(member: ReturnType<typeof checkMember>): [client: string, check: string] {
  const colon = member.indexOf(':')
  return colon < 0 ? [member, ''] : [member.slice(0, colon), member.slice(colon + 1)]
}

import type { Redis } from 'ioredis'
import type { JsonObject } from '../sensu/types.js'
import { clientKey, clientsKey, eventsKey, resultKey, resultsKey } from './keys.js'
import { parsedObject } from './stored-text.js'

/** One stored result with the client whose it is. */
export interface StoredCheckResult {
  client: string
  check: JsonObject
}

/** Clients are read so many at a time, so that neither Redis nor this process holds more than one slice's texts. */
const sliceSize = 100

/** All registered clients. Names without data, and data that is no JSON object, are left out. */
export async function* readClients(redis: Redis): AsyncGenerator<JsonObject> {
  for await (const names of clientSlices(redis)) {
    const texts = await redis.mget(names.map(clientKey))
    yield* objects(texts)
  }
}

/** The newest result of every check of every registered client. */
export async function* readResults(redis: Redis): AsyncGenerator<StoredCheckResult> {
  for await (const names of clientSlices(redis)) {
    const checkNames = await Promise.all(names.map(name => redis.smembers(resultsKey(name))))
    const checkTexts = await Promise.all(
      names.map((name, index) => readResultTexts(redis, name, checkNames[index] ?? [])),
    )
    for (const [index, client] of names.entries()) {
      yield* objects(checkTexts[index] ?? []).map(check => ({ client, check }))
    }
  }
}

async function readResultTexts(redis: Redis, client: string, checks: string[]): Promise<(string | null)[]> {
  return checks.length === 0 ? [] : redis.mget(checks.map(check => resultKey(client, check)))
}

/** All current events of registered clients. */
export async function* readEvents(redis: Redis): AsyncGenerator<JsonObject> {
  for await (const names of clientSlices(redis)) {
    const events = await Promise.all(names.map(name => redis.hvals(eventsKey(name))))
    yield* objects(events.flat())
  }
}

/** All current events of one client. */
export async function readClientEvents(redis: Redis, client: string): Promise<JsonObject[]> {
  return objects(await redis.hvals(eventsKey(client)))
}

/** In the order in which Sensu sees them, which is stable while nothing is added or removed. */
async function* clientSlices(redis: Redis): AsyncGenerator<string[]> {
  const names = await redis.smembers(clientsKey)
  for (let at = 0; at < names.length; at += sliceSize) yield names.slice(at, at + sliceSize)
}

function objects(texts: (string | null)[]): JsonObject[] {
  return texts.map(parsedObject).filter(object => object !== undefined)
}

import type { Redis } from 'ioredis'
import type { JsonObject } from '../sensu/types.js'
import { forgetMissing } from './forget-missing.js'
import { serverKey, serverPrefix, serversKey } from './keys.js'
import { parsedObject } from './stored-text.js'

/** What the servers at work say about themselves; those that are gone are forgotten. Rejects while Redis is away. */
export async function readServers(redis: Redis): Promise<JsonObject[]> {
  const ids = await redis.smembers(serversKey)
  if (ids.length === 0) return []
  const texts = await redis.mget(ids.map(serverKey))
  await forgetMissing(
    redis,
    serversKey,
    serverPrefix,
    ids.filter((_, index) => texts[index] === null),
  )
  return texts.map(parsedObject).filter(server => server !== undefined)
}

import type { Redis } from 'ioredis'
import {
  clientKey,
  clientSignatureKey,
  clientsKey,
  eventsKey,
  historyKey,
  lastOkKey,
  resultKey,
  resultsKey,
} from './keys.js'

/**
 * Removes a client from the registry, with its signature, events, results and histories (Sensu 1.9). Aggregates, `ttl` and silence entries stay. With
 * `keepSignatureSeconds` the signature stays so long, and keeps out what does not have it.
 */
export async function removeClient(redis: Redis, client: string, keepSignatureSeconds?: number): Promise<void> {
  const checks = await redis.smembers(resultsKey(client))
  const signature = clientSignatureKey(client)
  const transaction = redis
    .multi()
    .srem(clientsKey, client)
    .del(clientKey(client), eventsKey(client), resultsKey(client))
  if (keepSignatureSeconds === undefined) transaction.del(signature)
  else transaction.expire(signature, keepSignatureSeconds)
  for (const check of checks) {
    transaction.del(resultKey(client, check), historyKey(client, check), lastOkKey(client, check))
  }
  await transaction.exec()
}

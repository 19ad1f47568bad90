import type { Redis } from 'ioredis'
import { stringifyJson } from '../sensu/json.js'
import type { JsonObject } from '../sensu/types.js'
import { forgetMissing } from './forget-missing.js'
import { silencedKey, silenceKey, silencePrefix } from './keys.js'
import { parsedObject } from './stored-text.js'

/** Silence entries, by id: `<subscription|*>:<check|*>`. Everything rejects while Redis is away. */
export class Silences {
  readonly #redis: () => Redis

  constructor(redis: () => Redis) {
    this.#redis = redis
  }

  /** Ids of all entries, also of some that have expired. */
  async ids(): Promise<string[]> {
    const keys = await this.#redis().smembers(silencedKey)
    return keys.filter(key => key.startsWith(silencePrefix)).map(key => key.slice(silencePrefix.length))
  }

  /** The entries that are there, each with `expire` at its end: seconds left, -1 for ever. Others are forgotten. */
  async entries(ids: string[]): Promise<JsonObject[]> {
    if (ids.length === 0) return []
    const redis = this.#redis()
    const keys = ids.map(silenceKey)
    const [texts, seconds] = await Promise.all([redis.mget(keys), Promise.all(keys.map(key => redis.ttl(key)))])
    await forgetMissing(
      redis,
      silencedKey,
      '',
      keys.filter((_, index) => texts[index] === null),
    )
    return texts.flatMap((text, index) => {
      const entry = parsedObject(text)
      return entry ? [{ ...entry, expire: seconds[index] ?? -1 }] : []
    })
  }

  /** Writes an entry over one with the same id. It is gone at once when `expireSeconds` is not positive. */
  async put(id: string, entry: JsonObject, expireSeconds: number | undefined): Promise<void> {
    const key = silenceKey(id)
    const transaction = this.#redis().multi().set(key, stringifyJson(entry)).sadd(silencedKey, key)
    if (expireSeconds !== undefined) transaction.expire(key, expireSeconds)
    await transaction.exec()
  }

  /** False when there is no such entry. */
  async remove(id: string): Promise<boolean> {
    const redis = this.#redis()
    const key = silenceKey(id)
    const [removed] = await Promise.all([redis.del(key), redis.srem(silencedKey, key)])
    return removed > 0
  }
}

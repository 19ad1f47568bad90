import type { Redis } from 'ioredis'
import { stringifyJson } from '../sensu/json.js'
import type { JsonObject } from '../sensu/types.js'
import { forgetMissing } from './forget-missing.js'
import { stashesKey, stashKey, stashPrefix } from './keys.js'
import { type Listing, type Page, pageOf, readAhead, slicesOf } from './listing.js'
import { objectText } from './stored-text.js'

/** A stash whose content is JSON text; `expire` is seconds left, -1 for ever. */
export interface Stash {
  path: string
  content: string
  expire: number
}

/** JSON objects by path, for anybody's use. Everything rejects while Redis is away. */
export class Stashes {
  readonly #redis: () => Redis

  constructor(redis: () => Redis) {
    this.#redis = redis
  }

  /** Those that have expired are forgotten, and count in the total until then. */
  async list(page?: Page): Promise<Listing<Stash>> {
    const redis = this.#redis()
    const paths = await redis.smembers(stashesKey)
    const slices = readAhead(slicesOf(pageOf(paths, page)), async slice => {
      const keys = slice.map(stashKey)
      const [texts, seconds] = await Promise.all([redis.mget(keys), Promise.all(keys.map(key => redis.ttl(key)))])
      const missing = slice.filter((_, index) => texts[index] === null)
      await forgetMissing(redis, stashesKey, stashPrefix, missing)
      return slice.flatMap((path, index) => {
        const content = objectText(texts[index] ?? null)
        return content === undefined ? [] : [{ path, content, expire: seconds[index] ?? -1 }]
      })
    })
    return { ...(page && { total: paths.length }), slices }
  }

  /** JSON text; undefined when there is no such stash. */
  async content(path: string): Promise<string | undefined> {
    return objectText(await this.#redis().get(stashKey(path)))
  }

  /** Writes a stash over one of the same path. It is gone at once when `expireSeconds` is not positive. */
  async put(path: string, content: JsonObject, expireSeconds: number | undefined): Promise<void> {
    const key = stashKey(path)
    const transaction = this.#redis().multi().set(key, stringifyJson(content)).sadd(stashesKey, path)
    if (expireSeconds !== undefined) transaction.expire(key, expireSeconds)
    await transaction.exec()
  }

  /** False when there is no such stash. */
  async remove(path: string): Promise<boolean> {
    const redis = this.#redis()
    const [removed] = await Promise.all([redis.del(stashKey(path)), redis.srem(stashesKey, path)])
    return removed > 0
  }
}

import type { Redis } from 'ioredis'
import type { JsonObject } from '../sensu/types.js'
import { jsonText } from './check-template.js'
import { forgetMissing } from './forget-missing.js'
import { clientKey, clientPrefix, clientsKey, historyKey, lastOkKey, resultKey } from './keys.js'
import { type Listing, type Page, pageOf, readAhead, slicesOf } from './listing.js'
import { objectText } from './stored-text.js'

/** The clients that are registered, for those who look at them and add to them by hand. Everything rejects while Redis is away. */
export class ClientRegistry {
  readonly #redis: () => Redis

  constructor(redis: () => Redis) {
    this.#redis = redis
  }

  /** JSON texts. Names without data are forgotten, and count in the total until then. */
  async list(page?: Page): Promise<Listing<string>> {
    const redis = this.#redis()
    const names = await redis.smembers(clientsKey)
    const slices = readAhead(slicesOf(pageOf(names, page)), async slice => {
      const texts = await redis.mget(slice.map(clientKey))
      const missing = slice.filter((_, index) => texts[index] === null)
      await forgetMissing(redis, clientsKey, clientPrefix, missing)
      return texts.flatMap(text => objectText(text) ?? [])
    })
    return { ...(page && { total: names.length }), slices }
  }

  /** JSON text; undefined when there is no such client. */
  async one(client: string): Promise<string | undefined> {
    return objectText(await this.#redis().get(clientKey(client)))
  }

  /** Writes a client over whatever is there of that name; its signature is not looked at (Sensu 1.9: POST /clients). */
  async put(client: JsonObject): Promise<void> {
    const name = String(client['name'])
    await this.#redis().multi().set(clientKey(name), jsonText(client)).sadd(clientsKey, name).exec()
  }

  /** Removes the stored results and histories of a check, of all clients (Sensu 1.9: DELETE /checks). */
  async forgetCheck(check: string): Promise<void> {
    const redis = this.#redis()
    for (const slice of slicesOf(await redis.smembers(clientsKey))) {
      await redis.del(
        slice.flatMap(client => [resultKey(client, check), historyKey(client, check), lastOkKey(client, check)]),
      )
    }
  }
}

import type { Redis } from 'ioredis'
import { clientsKey, eventsKey } from './keys.js'
import { countEventsScript, readEventsScript } from './list-scripts-0.lua.js'
import { type Listing, listItems, type Page, rows } from './listing.js'
import { objectText } from './stored-text.js'

/** Current events as JSON texts, as they are stored. Everything rejects while Redis is away. */
export class EventReader {
  readonly #redis: () => Redis

  constructor(redis: () => Redis) {
    this.#redis = redis
  }

  /** Of all registered clients. */
  async list(page?: Page): Promise<Listing<string>> {
    return this.#of(await this.#redis().smembers(clientsKey), page)
  }

  /** Of one client, registered or not. */
  ofClient(client: string, page?: Page): Promise<Listing<string>> {
    return this.#of([client], page)
  }

  /** Undefined when the client has no event of the check. */
  async one(client: string, check: string): Promise<string | undefined> {
    return objectText(await this.#redis().hget(eventsKey(client), check))
  }

  #of(clients: string[], page: Page | undefined): Promise<Listing<string>> {
    const redis = this.#redis()
    return listItems(clients, page, {
      count: async names => (await rows(redis, countEventsScript, names)).map(Number),
      read: async names => (await rows(redis, readEventsScript, names)).map(eventTexts),
    })
  }
}

function eventTexts(row: unknown): string[] {
  return Array.isArray(row) ? row.flatMap(text => objectText(String(text)) ?? []) : []
}

import type { Redis } from 'ioredis'
import { clientsKey, historyKey, lastOkKey, resultKey, resultsKey } from './keys.js'
import { countResultsScript, readResultsScript, readSendersScript } from './list-scripts-0.lua.js'
import { type Listing, listItems, type Page, rows } from './listing.js'
import { objectText } from './stored-text.js'

/** One stored result. */
export interface StoredResultText {
  client: string
  check: string
  /** The check with its result, as JSON. */
  text: string
  /** The newest statuses, oldest first; empty when there is none. */
  history: number[]
}

/** Stored results as JSON texts. Everything rejects while Redis is away. */
export class ResultReader {
  readonly #redis: () => Redis

  constructor(redis: () => Redis) {
    this.#redis = redis
  }

  /** Of all registered clients. */
  async list(page?: Page): Promise<Listing<StoredResultText>> {
    return this.#of(await this.#redis().smembers(clientsKey), page)
  }

  /** Of one client, registered or not. */
  ofClient(client: string, page?: Page): Promise<Listing<StoredResultText>> {
    return this.#of([client], page)
  }

  /** Undefined when there is no such result. */
  async one(client: string, check: string): Promise<StoredResultText | undefined> {
    const redis = this.#redis()
    const [stored, history] = await Promise.all([
      redis.get(resultKey(client, check)),
      redis.lrange(historyKey(client, check), -21, -1),
    ])
    const text = objectText(stored)
    return text === undefined ? undefined : { client, check, text, history: history.map(toStatus) }
  }

  /** For each client who else sends results of it: for a guest its host. Undefined where nobody does. */
  async senders(clients: string[]): Promise<(string | undefined)[]> {
    if (clients.length === 0) return []
    const found = await rows(this.#redis(), readSendersScript, clients)
    return found.map(sender => String(sender) || undefined)
  }

  /** Removes a result with its history; false when there is none. */
  async remove(client: string, check: string): Promise<boolean> {
    const redis = this.#redis()
    if ((await redis.exists(resultKey(client, check))) === 0) return false
    await redis
      .multi()
      .srem(resultsKey(client), check)
      .del(resultKey(client, check), historyKey(client, check), lastOkKey(client, check))
      .exec()
    return true
  }

  #of(clients: string[], page: Page | undefined): Promise<Listing<StoredResultText>> {
    const redis = this.#redis()
    return listItems(clients, page, {
      count: async names => (await rows(redis, countResultsScript, names)).map(Number),
      read: async names =>
        (await rows(redis, readResultsScript, names)).map((row, at) => results(names[at] ?? '', row)),
    })
  }
}

function results(client: string, row: unknown): StoredResultText[] {
  if (!Array.isArray(row)) return []
  const found: StoredResultText[] = []
  for (let at = 0; at + 2 < row.length; at += 3) {
    const text = objectText(String(row[at + 1]))
    const history = String(row[at + 2])
    if (text === undefined) continue
    found.push({
      client,
      check: String(row[at]),
      text,
      history: history === '' ? [] : history.split(',').map(toStatus),
    })
  }
  return found
}

/** A status that is no number counts as 0, as Ruby reads it. */
function toStatus(text: string): number {
  return Number.parseInt(text, 10) || 0
}

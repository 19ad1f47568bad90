import type { Redis } from 'ioredis'
import type { JsonObject } from '../sensu/types.js'
import { Aggregates } from './aggregates.js'
import { ClientRegistry } from './client-registry.js'
import { EventReader } from './event-reader.js'
import { ResultReader } from './result-reader.js'
import { readServers } from './servers.js'
import { Silences } from './silences.js'
import { Stashes } from './stashes.js'

/** What people look at and change by the HTTP API, by subject. Everything rejects while Redis is away. */
export class Views {
  readonly clients: ClientRegistry
  readonly events: EventReader
  readonly results: ResultReader
  readonly aggregates: Aggregates
  readonly silences: Silences
  readonly stashes: Stashes
  readonly #redis: () => Redis

  /** `redis` throws while there is no connection. */
  constructor(redis: () => Redis) {
    this.#redis = redis
    this.clients = new ClientRegistry(redis)
    this.events = new EventReader(redis)
    this.results = new ResultReader(redis)
    this.aggregates = new Aggregates(redis)
    this.silences = new Silences(redis)
    this.stashes = new Stashes(redis)
  }

  /** The servers at work, as they describe themselves. */
  async servers(): Promise<JsonObject[]> {
    return readServers(this.#redis())
  }
}

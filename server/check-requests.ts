import { attributesMatch } from '../pipeline/attributes-match.js'
import { encodeJson } from '../sensu/json.js'
import { entriesOf, fromEntries, isObject, isTruthy, member } from '../sensu/json-value.js'
import type { Logger } from '../sensu/log.js'
import { epochSeconds } from '../sensu/results.js'
import { substituteTokens } from '../sensu/tokens.js'
import type { CheckDefinition, Json, JsonObject } from '../sensu/types.js'
import type { Store } from '../store/store.js'
import type { Transport } from '../transport/transport.js'

/** Of many requests, as many as wait for the broker's confirmation at the same time: it has a limit (see RabbitmqOptions). */
const PUBLISHED_AT_ONCE = 100

export interface CheckRequestsOptions {
  store: Store
  transport: Transport
  log: Pick<Logger, 'debug' | 'info' | 'warn' | 'error'>
}

/** Sends check requests to clients, for the scheduler and for whoever asks by the API. */
export class CheckRequests {
  readonly #options: CheckRequestsOptions

  constructor(options: CheckRequestsOptions) {
    this.#options = options
  }

  /**
   * Publishes one check to its subscribers: the definition (with `name`) without `subscribers` and `interval`, and `issued`. Never rejects:
   * what could not be published is logged.
   */
  async publish(check: CheckDefinition): Promise<void> {
    const { transport, log } = this.#options
    const { subscribers: given, interval: _, ...rest } = check
    const payload: JsonObject = { ...rest, issued: epochSeconds(Date.now()) }
    const subscribers = Array.isArray(given) ? given.map(String) : []
    log.info('publishing check request', { payload, subscribers })
    const message = encodeJson(payload)
    const publications = subscribers.map(subscriber => transport.publish(pipeTypeOf(subscriber), subscriber, message))
    for (const outcome of await Promise.allSettled(publications)) {
      if (outcome.status === 'fulfilled') continue
      log.error('failed to publish check request', { payload, subscribers, error: String(outcome.reason) })
      return
    }
  }

  /** Publishes many checks, some at a time. Never rejects. */
  async publishAll(checks: readonly CheckDefinition[]): Promise<void> {
    for (let at = 0; at < checks.length; at += PUBLISHED_AT_ONCE) {
      await Promise.all(checks.slice(at, at + PUBLISHED_AT_ONCE).map(check => this.publish(check)))
    }
  }

  /**
   * The requests of a check with `proxy_requests`: one for each registered client that has the wanted attributes, its tokens replaced by those of the
   * client, `source` the client's name unless the check has one. Clients without an attribute that a token names are left out, and logged.
   */
  async proxyRequests(check: CheckDefinition): Promise<CheckDefinition[]> {
    const { store, log } = this.#options
    const wanted = isObject(check.proxy_requests) ? member(check.proxy_requests, 'client_attributes') : undefined
    const requests: CheckDefinition[] = []
    if (!isObject(wanted) || entriesOf(wanted).length === 0) return requests
    for await (const client of store.clients()) {
      if (!attributesMatch(client, wanted, { now: new Date(), log })) continue
      log.debug('creating a proxy check request', { client, check })
      const { value, unmatched } = substituteTokens(check, client)
      if (unmatched.length === 0) {
        requests.push(isTruthy(check.source) ? value : fromEntries([...entriesOf(value), ['source', nameOf(client)]]))
        continue
      }
      log.warn('failed to publish a proxy check request', {
        reason: 'unmatched client tokens',
        unmatched_tokens: unmatched,
        client,
        check,
      })
    }
    return requests
  }
}

/** Requests for one of several clients (roundrobin), or for a client by a direct queue, go over a direct pipe; all others to everybody who listens. */
function pipeTypeOf(subscriber: string): 'direct' | 'fanout' {
  return /^(direct|roundrobin):/.test(subscriber) ? 'direct' : 'fanout'
}

function nameOf(client: JsonObject): Json {
  return client['name'] ?? null
}

import { deepMerge } from '../sensu/deep-merge.js'
import { parseJson, stringifyJson } from '../sensu/json.js'
import { fromEntries, isObject, isSet, newObject } from '../sensu/json-value.js'
import type { Logger } from '../sensu/log.js'
import { isPlainJson, parsePlainJson } from '../sensu/plain-json.js'
import type { Spawner } from '../sensu/spawn.js'
import type { Json, JsonObject } from '../sensu/types.js'
import { flapThresholds } from '../store/result-script.js'
import type { Store, StoredEvent } from '../store/store.js'
import { StoreOverflowError } from '../store/write-queue.js'
import { type BuiltInHandler, builtInHandlers } from './built-in-handlers.js'
import { composeResult, namePattern } from './compose.js'
import { filterFaults, refusalOf } from './filter.js'
import { callHandler, type PublishEvent } from './handle.js'
import { type EventInHand, mutate } from './mutate.js'
import { removeClient } from './remove-client.js'
import { handlerNames, type NamedHandler, resolveHandlers } from './resolve-handlers.js'

/** Definitions by name, the part of Sensu's settings that the pipeline reads. */
export interface PipelineSettings {
  checks: { [name: string]: JsonObject | undefined }
  handlers: { [name: string]: JsonObject | undefined }
  filters: { [name: string]: JsonObject | undefined }
  mutators: { [name: string]: JsonObject | undefined }
}

export interface PipelineOptions {
  store: Store
  settings: PipelineSettings
  spawner: Spawner
  logger: Logger
  /** The clock; a test's own. */
  now?: () => Date
  /** For handlers of type transport. */
  publish?: PublishEvent
  /** Handlers running or waiting for the spawner, at most; further calls are dropped and logged. Default 10,000. */
  maximumHandlers?: number
}

/** What is known about a result besides its content. */
export interface AboutMessage {
  /** It may have been stored before, by somebody who ended before he said so. */
  redelivered?: boolean
  /** It was read by parsePlainJson. */
  plain?: boolean
}

/** What is wrong with the settings for this pipeline: entries like those of Sensu's own validation. */
export function validatePipelineSettings(settings: PipelineSettings): { object: JsonObject; message: string }[] {
  return filterFaults(settings.filters)
}

/**
 * What happens to results and keepalives after they arrived: compose the check, store it, and for events call the handlers, each by itself
 * and in no order. Log lines are those of Sensu 1.9.
 */
export class Pipeline {
  readonly #store: Store
  readonly #settings: PipelineSettings
  readonly #spawner: Spawner
  readonly #logger: Logger
  readonly #now: () => Date
  readonly #publish: PublishEvent | undefined
  readonly #maximumHandlers: number
  readonly #builtIn: Readonly<Record<string, BuiltInHandler>>
  readonly #inProgress = new Set<Promise<void>>()
  #handlerCount = 0
  #plainChecks: { checks: PipelineSettings['checks']; plain: boolean } | undefined

  /** Throws when the settings hold something that validatePipelineSettings objects to. */
  constructor(options: PipelineOptions) {
    const problems = validatePipelineSettings(options.settings)
    if (problems.length > 0) throw new Error(problems.map(problem => problem.message).join('; '))
    this.#store = options.store
    this.#settings = options.settings
    this.#spawner = options.spawner
    this.#logger = options.logger
    this.#now = options.now ?? (() => new Date())
    this.#publish = options.publish
    this.#maximumHandlers = options.maximumHandlers ?? 10_000
    this.#builtIn = builtInHandlers(name => removeClient(name, this.#store, result => this.#processResult(result, {})))
  }

  /**
   * Processes one message of the pipe `results`. Resolves once the result is stored and its handlers are under way; while Redis is away that
   * takes as long. Never rejects: what cannot be used or stored is logged and dropped.
   */
  processResult(result: Json, about: AboutMessage = {}): Promise<void> {
    return this.#track(() => this.#processResult(result, about))
  }

  /** Processes one message of the pipe `keepalives`: registers the client. Like processResult it never rejects. */
  processKeepalive(client: Json): Promise<void> {
    return this.#track(() => this.#processKeepalive(client))
  }

  /** What is under way: results and keepalives being stored, and handlers being called for events. */
  get inProgress(): { check_results: number; events: number } {
    return { check_results: this.#inProgress.size - this.#handlerCount, events: this.#handlerCount }
  }

  /** Resolves when no result is being stored and no handler is running. While Redis is away with results waiting it does not. */
  async idle(): Promise<void> {
    while (this.#inProgress.size > 0) await Promise.allSettled(this.#inProgress)
  }

  async #processResult(result: Json, { redelivered = false, plain = false }: AboutMessage): Promise<void> {
    const { checks } = this.#settings
    const composed = composeResult(result, checks, plain && this.#arePlain(checks))
    if (typeof composed === 'string') {
      this.#logger.error('invalid check result', { result, error: composed })
      return
    }
    const stored = await this.#store.storeResult({ ...composed, repeated: redelivered, nowSeconds: this.#nowSeconds() })
    if (stored.outcome === 'refused') {
      const data = stored.reason === 'client' ? { client: parsedObject(stored.clientText) } : {}
      this.#logger.warn('invalid check result signature', { result, ...data })
      this.#logger.warn('not retrieving client from the registry', { result })
      this.#logger.warn('halting result processing', { result })
      return
    }
    if (stored.registered) this.#track(() => this.#registerClient(stored.clientText))
    if (stored.event) this.#processStoredEvent(stored.event, composed.check)
  }

  /** Whether all definitions are printed alike by JavaScript; looked at once for each set of them. */
  #arePlain(checks: PipelineSettings['checks']): boolean {
    if (this.#plainChecks?.checks !== checks) {
      this.#plainChecks = { checks, plain: isPlainJson(checks, stringifyJson(checks)) }
    }
    return this.#plainChecks.plain
  }

  #processStoredEvent(stored: StoredEvent, check: JsonObject): void {
    const event = parsedObject(stored.text)
    if (flapThresholds(check) === 'invalid') {
      this.#logger.error('invalid check flap thresholds', { check: event['check'], client: event['client'] })
    }
    if (stored.handle) this.#processEvent({ event, text: stored.text })
  }

  async #processKeepalive(client: Json): Promise<void> {
    const problem = clientProblem(client)
    if (problem !== undefined || !isObject(client)) {
      this.#logger.error('invalid keepalive', { client, error: problem })
      return
    }
    const registered = withOwnSubscription(client)
    const stored = await this.#store.storeClient(registered)
    if (stored.registered) this.#track(() => this.#registerClient(stringifyJson(registered)))
    if (!stored.accepted) {
      this.#logger.warn('invalid client signature', { client: registered, signature: stored.storedSignature })
      this.#logger.warn('not updating client in the registry', { client: registered })
    }
  }

  /** Sensu's registration event: built, handled and not stored, when somebody wants it. */
  async #registerClient(clientText: string): Promise<void> {
    const client = parsedObject(clientText)
    const wanted = client['registration']
    if (!isSet(this.#settings.handlers['registration']) && !isSet(wanted)) return
    const nowSeconds = this.#nowSeconds()
    const base: JsonObject = fromEntries([
      ['handler', 'registration'],
      ['status', 1],
    ])
    const check = isObject(wanted) ? deepMerge(base, wanted) : base
    check['name'] = 'registration'
    check['output'] = 'new client registration'
    check['issued'] = nowSeconds
    check['executed'] = nowSeconds
    const text = await this.#store.unstoredEvent({ client: String(client['name']), clientText, check, nowSeconds })
    this.#processEvent({ event: parsedObject(text), text })
  }

  #processEvent(inHand: EventInHand): void {
    const { event } = inHand
    const check = isObject(event['check']) ? event['check'] : {}
    if (check['type'] === 'metric') this.#logger.debug('processing event', { event })
    else this.#logger.info('processing event', { event })
    const builtIn = Object.keys(this.#builtIn)
    const begun = performance.now()
    const calls: Promise<void>[] = []
    for (const handler of resolveHandlers(handlerNames(check), this.#settings.handlers, builtIn, this.#logger)) {
      if (this.#handlerCount >= this.#maximumHandlers) {
        this.#logger.error('handler dropped, too many are running', {
          handler,
          event: { id: event['id'] },
          limit: this.#maximumHandlers,
        })
        continue
      }
      this.#handlerCount += 1
      const call = this.#track(() => this.#callHandler(handler, inHand))
      calls.push(
        call.finally(() => {
          this.#handlerCount -= 1
        }),
      )
    }
    if (!this.#logger.enabled('debug')) return
    void Promise.all(calls).then(() => {
      const duration = Math.round(performance.now() - begun) / 1000
      this.#logger.debug('handled event', { event: { id: event['id'] }, handlers: calls.length, duration })
    })
  }

  /** Filter, mutator, handler. */
  async #callHandler(handler: NamedHandler, inHand: EventInHand): Promise<void> {
    const { event } = inHand
    const { filters, mutators } = this.#settings
    const logger = this.#logger
    const refusal = await refusalOf(handler, event, { filters, events: this.#store, logger, now: this.#now() })
    if (refusal !== undefined) {
      const filter = refusal.filter === undefined ? {} : { filter: refusal.filter }
      logger.info(refusal.message, { handler, event, ...filter })
      return
    }
    const data = await mutate(handler, inHand, mutators, this.#spawner, logger)
    if (data === undefined) return
    const surroundings = { spawner: this.#spawner, logger, publish: this.#publish, builtIn: this.#builtIn }
    await callHandler(handler, data, event['id'] ?? null, surroundings)
  }

  /** Runs one piece of work that idle() waits for; its failure is logged here, once. Overflows are the store's to report. */
  #track(work: () => Promise<void>): Promise<void> {
    const promise = work().catch(error => {
      if (error instanceof StoreOverflowError) return
      const reason = error instanceof Error ? error.message : String(error)
      this.#logger.error('failed to process a check result or client', { error: reason })
    })
    this.#inProgress.add(promise)
    return promise.finally(() => this.#inProgress.delete(promise))
  }

  #nowSeconds(): number {
    return Math.floor(this.#now().getTime() / 1000)
  }
}

function clientProblem(client: Json): string | undefined {
  if (!isObject(client)) return 'a keepalive must be an object'
  if (typeof client['name'] !== 'string' || !namePattern.test(client['name'])) {
    return 'client name must be made of letters, digits, "_", "." and "-"'
  }
  if (!Array.isArray(client['subscriptions'])) return 'client subscriptions must be an array'
  return undefined
}

/** The client with its own subscription `client:NAME` added and duplicates removed, everything else as it came. */
function withOwnSubscription(client: JsonObject): JsonObject {
  const subscriptions = Array.isArray(client['subscriptions']) ? client['subscriptions'] : []
  return { ...client, subscriptions: [...new Set([...subscriptions, `client:${client['name']}`])] }
}

function parsedObject(text: string): JsonObject {
  const value = parsePlainJson(text) ?? parseJson(text, { maxLength: Number.POSITIVE_INFINITY })
  return isObject(value) ? value : newObject()
}

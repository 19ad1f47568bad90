import { createHash, randomUUID } from 'node:crypto'
import { Redis } from 'ioredis'
import type { Json, JsonObject } from '../sensu/types.js'
import { jsonText } from './check-template.js'
import { clientKey, clientSignatureKey, clientsKey, serverKey, serversKey } from './keys.js'
import {
  hasEvent,
  type RegisteredClient,
  readRegisteredClients,
  readTtlResults,
  subscriptionHasEvent,
  type TtlResult,
} from './monitor-reader.js'
import { redisOptions } from './redis-settings.js'
import { readClientEvents, readClients, readEvents, readResults, type StoredCheckResult } from './registry-reader.js'
import { removeClient } from './remove-client.js'
import {
  type ResultInput,
  repeatedArgument,
  resultCall,
  type UnstoredEventInput,
  unstoredEventCall,
  type Writer,
} from './result-script.js'
import { storeClientScript } from './store-client-3.lua.js'
import { keptAnswers, storeResultScript } from './store-result-0.lua.js'
import { TaskLocks } from './task-locks.js'
import { Views } from './views.js'
import { type Verdict, WriteQueue, type WriteQueueLimits } from './write-queue.js'

/** What the store tells its owner. All are optional; the store itself logs nothing. */
export interface StoreNotices {
  /** The connection is gone or could not be made; writes are kept and another attempt follows. */
  onLost?: (error: Error | undefined) => void
  onRestored?: () => void
  /** A write was given up because too many wait; its promise rejected with StoreOverflowError. */
  onOverflow?: (droppedTotal: number) => void
}

/** What became of a client that was to be registered. */
export interface StoredClient {
  /** False when its signature is not the stored one; nothing was changed then. */
  accepted: boolean
  /** True the first time this client is seen: the moment of Sensu's registration event. */
  registered: boolean
  storedSignature: string
}

/** What became of a check result. `event` is there unless the result was a plain OK. */
export type StoredResult =
  | { outcome: 'refused'; reason: 'client' | 'signature'; clientText: string }
  | { outcome: 'stored'; registered: boolean; clientText: string; event?: StoredEvent }

export interface StoredEvent {
  action: 'create' | 'resolve' | 'flapping'
  /** Whether handlers are to be called. */
  handle: boolean
  /** The event as JSON text, byte for byte what events:C holds when it is held there. */
  text: string
}

/** Bounds of a store. */
export interface StoreLimits extends WriteQueueLimits {
  /** A Redis that is connected and silent this long while an answer is due is disconnected and tried anew. */
  silenceTimeoutMs: number
}

/** Default bound of what is kept in memory while Redis is away: 10,000 writes or 64 Mi characters, whichever comes first. */
const defaultLimits: StoreLimits = {
  maximumWrites: 10_000,
  maximumLength: 64 * 1024 * 1024,
  maximumInFlight: 512,
  silenceTimeoutMs: 10_000,
}
const transientRetryMs = 1000
/** Answers that say "not now": Redis is starting, failing over, full, saving or busy. */
const transientReplies = /^(LOADING|READONLY|MASTERDOWN|CLUSTERDOWN|TRYAGAIN|OOM|BUSY|MISCONF|NOREPLICAS|UNBLOCKED)\b/

/** Sensu's data model in Redis: the client registry, results, histories and events. */
export class Store {
  readonly #redis: Redis
  readonly #queue: WriteQueue
  readonly #resultScript = script(storeResultScript, 0)
  readonly #clientScript = script(storeClientScript, 3)
  readonly #notices: StoreNotices
  /** What the HTTP API shows and changes. */
  readonly views = new Views(() => this.#readable())
  #retryTimer: NodeJS.Timeout | undefined
  readonly #writerId = randomUUID()
  #calls = 0
  #loading = false
  #closed = false
  #corked = false

  /**
   * Connects with Sensu's `redis` settings (see redisOptions). Resolves after the first attempt, whether it succeeded or not: a Redis that is
   * down is waited for, its state told through the notices. Rejects only for settings that cannot be understood.
   */
  static async connect(settings?: Json, notices: StoreNotices = {}, limits: Partial<StoreLimits> = {}): Promise<Store> {
    const store = new Store(settings, notices, { ...defaultLimits, ...limits })
    await store.#firstAttempt()
    return store
  }

  private constructor(settings: Json | undefined, notices: StoreNotices, limits: StoreLimits) {
    this.#notices = notices
    this.#queue = new WriteQueue(
      limits,
      error => this.#judge(error),
      dropped => notices.onOverflow?.(dropped),
    )
    // Nothing is queued or sent again inside ioredis: the write queue does both, in order and knowing what may have been stored already.
    this.#redis = new Redis({
      ...redisOptions(settings),
      lazyConnect: true,
      enableOfflineQueue: false,
      autoResendUnfulfilledCommands: false,
      maxRetriesPerRequest: 0,
      socketTimeout: limits.silenceTimeoutMs,
      disableClientInfo: true,
    })
    this.#watchConnection()
  }

  get connected(): boolean {
    return this.#redis.status === 'ready'
  }

  /** Writes that are not answered yet, and those given up so far. */
  get backlog(): { waiting: number; dropped: number } {
    return { waiting: this.#queue.count, dropped: this.#queue.dropped }
  }

  /** Writes a client into the registry, unless its signature says that it is somebody else. `client.name` must be a string. */
  async storeClient(client: JsonObject): Promise<StoredClient> {
    const name = String(client['name'])
    const signature = typeof client['signature'] === 'string' ? client['signature'] : ''
    const keys = [clientsKey, clientKey(name), clientSignatureKey(name)]
    const reply = await this.#write(this.#clientScript, keys, [name, jsonText(client), signature])
    const [accepted, registered, storedSignature] = reply
    return { accepted: accepted === 1, registered: registered === 1, storedSignature: String(storedSignature) }
  }

  /**
   * Stores one composed result: registry, aggregates, result, history, last_ok, flapping, silencing and event in one script. Waits while Redis is
   * away. Rejects with StoreOverflowError when given up, with Redis' error when that is final. What is not rejected is stored exactly
   * once, also when the connection is lost before the answer: the result is sent again, and Redis recognises it by the answers it keeps of
   * each writer's last results. So it does with a `repeated` one, that another process may have stored before it ended.
   */
  async storeResult(input: ResultInput): Promise<StoredResult> {
    return storedResult(
      await this.#write(this.#resultScript, [], resultCall(input, this.#nextCall()), repeatedArgument),
    )
  }

  /** Builds the event of a check without storing result, history or event: Sensu's registration event. */
  async unstoredEvent(input: UnstoredEventInput): Promise<string> {
    const result = storedResult(await this.#write(this.#resultScript, [], unstoredEventCall(input, this.#nextCall())))
    return result.outcome === 'stored' ? (result.event?.text ?? '') : ''
  }

  /** All registered clients. Order is Redis' own; reads in slices, never with KEYS. Throws when Redis is away. */
  clients(): AsyncGenerator<JsonObject> {
    return readClients(this.#readable())
  }

  /** The newest result of every check of every registered client. */
  results(): AsyncGenerator<StoredCheckResult> {
    return readResults(this.#readable())
  }

  /** All current events. */
  events(): AsyncGenerator<JsonObject> {
    return readEvents(this.#readable())
  }

  /** All registered clients, each with its stored signature: what the client monitor looks at. */
  registeredClients(): AsyncGenerator<RegisteredClient> {
    return readRegisteredClients(this.#readable())
  }

  /** Stored results of checks with a `ttl`; forgets those that are gone. */
  ttlResults(): AsyncGenerator<TtlResult> {
    return readTtlResults(this.#readable())
  }

  /** Whether a client has a current event of a check. */
  hasEvent(client: string, check: string): Promise<boolean> {
    return hasEvent(this.#readable(), client, check)
  }

  /** Whether any client of a subscription has a current event of a check. */
  subscriptionHasEvent(subscription: string, check: string): Promise<boolean> {
    return subscriptionHasEvent(this.#readable(), subscription, check)
  }

  async hasClient(client: string): Promise<boolean> {
    return (await this.#readable().exists(clientKey(client))) === 1
  }

  /** Null when there is no such key, empty for a client without signature. */
  clientSignature(client: string): Promise<string | null> {
    return this.#readable().get(clientSignatureKey(client))
  }

  /** Current events of one client. */
  clientEvents(client: string): Promise<JsonObject[]> {
    return readClientEvents(this.#readable(), client)
  }

  /** From now on nothing of this client is accepted. */
  async invalidateClient(client: string): Promise<void> {
    await this.#readable().set(clientSignatureKey(client), 'invalidated')
  }

  /** Removes a client and everything stored of it; the signature is kept for some seconds when that is given. */
  async removeClient(client: string, keepSignatureSeconds?: number): Promise<void> {
    await removeClient(this.#readable(), client, keepSignatureSeconds)
  }

  /** The locks of leader tasks, in the name of a server. */
  taskLocks(serverId: string): TaskLocks {
    return new TaskLocks(() => this.#readable(), serverId)
  }

  /** Tells all others that this server is at work; forgotten after `seconds` unless repeated. */
  async announceServer(id: string, description: JsonObject, seconds: number): Promise<void> {
    const text = jsonText(description)
    const redis = this.#readable()
    await redis.multi().sadd(serversKey, id).set(serverKey(id), text).expire(serverKey(id), seconds).exec()
  }

  /** Resolves once every write is answered. While Redis is away it does not. */
  drained(): Promise<void> {
    return this.#queue.drained()
  }

  /** Disconnects. Writes not answered yet are given up (their promises reject); returns their number. */
  close(): number {
    if (this.#closed) return 0
    this.#closed = true
    clearTimeout(this.#retryTimer)
    const given = this.#queue.destroy(new Error('the store was closed before Redis took this write'))
    this.#redis.disconnect()
    return given
  }

  #readable(): Redis {
    if (!this.connected) throw new Error('the registry cannot be read: Redis is not connected')
    return this.#redis
  }

  #nextCall(): Writer {
    this.#calls += 1
    return { id: this.#writerId, slot: this.#calls % keptAnswers }
  }

  /** `repeatedArgument`: place of the argument that is to be '1' when the call is sent once more. */
  async #write(
    { sha, keyCount }: Script,
    keys: string[],
    args: string[],
    repeatedArgument?: number,
  ): Promise<unknown[]> {
    if (this.#closed) throw new Error('the store is closed')
    let length = 0
    for (const arg of args) length += arg.length
    const reply = await this.#queue.push(length, repeated => {
      if (repeated && repeatedArgument !== undefined) args[repeatedArgument] = '1'
      this.#cork()
      return this.#redis.evalsha(sha, keyCount, ...keys, ...args)
    })
    if (!Array.isArray(reply)) throw new Error(`Redis answered a script with ${typeof reply} instead of an array`)
    return reply
  }

  /** Everything that is sent in this turn of the event loop goes out with one system call. */
  #cork(): void {
    if (this.#corked) return
    const { stream } = this.#redis
    stream.cork()
    this.#corked = true
    setImmediate(() => {
      this.#corked = false
      stream.uncork()
    })
  }

  #watchConnection(): void {
    let lastError: Error | undefined
    let lost = false
    this.#redis.on('error', (error: Error) => {
      lastError = error
    })
    this.#redis.on('ready', () => {
      if (lost) this.#notices.onRestored?.()
      lost = false
      lastError = undefined
      this.#loadScripts()
    })
    this.#redis.on('close', () => {
      this.#queue.shut()
      if (!lost && !this.#closed) this.#notices.onLost?.(lastError)
      lost = true
    })
    // Only with auto_reconnect false: nothing will ever be written again.
    this.#redis.on('end', () => this.close())
  }

  #loadScripts(): void {
    this.#queue.shut()
    if (this.#loading) return
    this.#loading = true
    clearTimeout(this.#retryTimer)
    Promise.all([
      this.#redis.script('LOAD', this.#resultScript.text),
      this.#redis.script('LOAD', this.#clientScript.text),
    ]).then(
      () => {
        this.#loading = false
        this.#queue.open()
      },
      () => {
        this.#loading = false
        this.#retryLater()
      },
    )
  }

  #retryLater(): void {
    clearTimeout(this.#retryTimer)
    if (this.#closed) return
    this.#retryTimer = setTimeout(() => {
      if (this.connected) this.#loadScripts()
    }, transientRetryMs).unref()
  }

  /** A reply that is an error is final, unless it says "not now"; without a reply the write may or may not have been done. */
  #judge(error: unknown): Verdict {
    if (this.#closed) return 'final'
    if (!(error instanceof Error) || error.name !== 'ReplyError') return 'repeat'
    if (error.message.startsWith('NOSCRIPT')) {
      this.#loadScripts()
      return 'again'
    }
    if (transientReplies.test(error.message)) {
      // A master that became a replica: only a new connection finds the new master.
      if (error.message.startsWith('READONLY')) this.#redis.disconnect(true)
      this.#retryLater()
      return 'again'
    }
    return 'final'
  }

  #firstAttempt(): Promise<void> {
    return new Promise(resolve => {
      this.#redis.once('ready', () => resolve())
      this.#redis.once('close', () => resolve())
      this.#redis.connect().catch(() => resolve())
    })
  }
}

interface Script {
  text: string
  sha: string
  keyCount: number
}

function script(text: string, keyCount: number): Script {
  return { text, keyCount, sha: createHash('sha1').update(text).digest('hex') }
}

function storedResult(reply: unknown[]): StoredResult {
  const [outcome, second, clientText, action, handle, text] = reply
  if (outcome === 'refused') {
    return { outcome, reason: second === 'client' ? 'client' : 'signature', clientText: String(clientText) }
  }
  const stored: StoredResult = { outcome: 'stored', registered: second === 1, clientText: String(clientText) }
  if (typeof text !== 'string' || text === '') return stored
  const known = action === 'resolve' || action === 'flapping' ? action : 'create'
  return { ...stored, event: { action: known, handle: handle === 1, text } }
}

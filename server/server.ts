import type { Pipeline } from '../pipeline/pipeline.js'
import type { Logger } from '../sensu/log.js'
import type { Settings } from '../sensu/types.js'
import type { Store } from '../store/store.js'
import { type Transport, TransportError } from '../transport/transport.js'
import type { LeaderTasks } from './leader-tasks.js'
import type { Messages } from './messages.js'
import type { ServerRegistry } from './server-registry.js'

/** What Sensu's server says about the call-home service that this one does not have. */
const tessenNote =
  'tessen collects anonymized data to help inform the sensu team about installations - this server has no such mechanism'

/** The work of a server; an API alone has none. */
export interface ServerWork {
  messages: Messages
  tasks: LeaderTasks
  registry: ServerRegistry
}

/** Something that answers while the server lives, also when it is paused: the HTTP API. */
export interface Listener {
  /** Rejects when it cannot listen. */
  open(): Promise<void>
  close(): Promise<void>
}

export interface ServerParts {
  settings: Settings
  store: Store
  transport: Transport
  pipeline: Pipeline
  log: Logger
  /** Undefined with `--api-only`. */
  work: ServerWork | undefined
  /** Undefined with `--no-api`. */
  api: Listener | undefined
  /** The server has to end although nobody asked for it. */
  onFatal(): void
  /** Works, or waits for Redis or the transport. */
  onConnected(connected: boolean): void
}

/**
 * The life of the server: it works while Redis and the transport are connected, pauses while one of them is not, and stops in order. While Redis
 * is away messages are still taken, as many as the broker hands over unacknowledged; they wait in memory, and the broker keeps the others, because its
 * queues would vanish with their last consumer.
 */
export class Server {
  readonly #parts: ServerParts
  #started = false
  #working = false
  #subscribed = false
  #stopping = false

  constructor(parts: ServerParts) {
    this.#parts = parts
    const { transport, log } = parts
    transport.on('lost', () => {
      log.warn('reconnecting to transport')
      this.#subscribed = false
      void this.#pause()
    })
    transport.on('restored', () => {
      if (this.#started) log.info('reconnected to transport')
      this.#resume()
    })
    transport.on('error', error => this.#onTransportError(error))
  }

  /** To be called when the store has lost Redis, or cannot reach it. */
  redisLost(error: Error | undefined): void {
    const { log } = this.#parts
    if (this.#stopping) return
    log.warn('reconnecting to redis', error && { error: error.message })
    void this.#pause()
  }

  redisRestored(): void {
    this.#parts.log.info('reconnected to redis')
    this.#resume()
  }

  /** Resolves when the server works for the first time, or was stopped before. Rejects when the API cannot listen. */
  async start(): Promise<void> {
    const { api, transport } = this.#parts
    await api?.open()
    try {
      await transport.connect()
    } catch (error) {
      if (error instanceof TransportError && error.code === 'closed') return
      throw error
    }
    this.#started = true
    this.#resume()
  }

  /** Sensu's sequence: announce the end, hand over, finish what runs, close. Resolves when nothing is left. */
  async stop(): Promise<void> {
    const { log, transport, store, pipeline, api } = this.#parts
    if (this.#stopping) return
    this.#stopping = true
    log.warn('stopping')
    await this.#pause()
    // results are still taken: what the API has begun may wait for some of them
    await api?.close()
    await transport.unsubscribeAll()
    log.info('completing work in progress', { in_progress: pipeline.inProgress })
    // what Redis cannot take now stays with the broker, unacknowledged
    if (store.connected) await pipeline.idle()
    await transport.close()
    store.close()
    await pipeline.idle()
    log.warn('stopping reactor')
  }

  /** Goes on with the settings, whose members have been replaced. */
  reconfigure(): void {
    this.#parts.work?.tasks.restartOwned()
  }

  #resume(): void {
    const { store, transport, work, onConnected } = this.#parts
    if (this.#stopping || this.#working || !store.connected || !transport.connected) return
    this.#working = true
    onConnected(true)
    if (work) void this.#work(work)
  }

  async #work({ messages, tasks, registry }: ServerWork): Promise<void> {
    this.#parts.log.info('the tessen call-home mechanism is not enabled', { note: tessenNote })
    tasks.start()
    await this.#subscribe(messages)
    // whoever sees this server in the registry may count on it
    if (this.#working) registry.start()
  }

  /** Never rejects. Subscriptions end with the connection only, also while the server is paused. */
  async #subscribe(messages: Messages): Promise<void> {
    if (this.#subscribed) return
    this.#subscribed = true
    try {
      await messages.subscribe()
    } catch (error) {
      this.#subscribed = false
      this.#parts.log.error('transport connection error', { error: String(error) })
    }
  }

  async #pause(): Promise<void> {
    const { work, log, onConnected } = this.#parts
    if (!this.#working) return
    this.#working = false
    onConnected(false)
    if (!work) return
    log.warn('unsubscribing from keepalive and result queues')
    work.registry.stop()
    await work.tasks.relinquish()
  }

  #onTransportError(error: TransportError): void {
    const { log, settings, transport, onFatal } = this.#parts
    if (this.#stopping) return
    const { message, cause } = error
    log.error('transport connection error', {
      error: message,
      ...(cause instanceof Error && { reason: cause.message }),
    })
    if (settings.transport.reconnect_on_error) transport.reconnect()
    else onFatal()
  }
}

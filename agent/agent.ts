import { isDeepStrictEqual } from 'node:util'
import type { Logger } from '../sensu/log.js'
import { deregistrationCheck } from '../sensu/results.js'
import type { ClientDefinition, Settings } from '../sensu/types.js'
import { type Transport, TransportError } from '../transport/transport.js'
import type { Executions } from './executions.js'
import type { GuestEvents } from './guest-events.js'
import type { Keepalives } from './keepalives.js'
import type { ResultSink, Results } from './results.js'
import type { StandaloneChecks } from './standalone.js'
import { subscribeAll, unsubscribe } from './subscriptions.js'

/** How long a stopping agent waits for the confirmation of its last results. */
const LAST_RESULTS_MS = 3000

/** A local socket that takes results from other programs. */
export interface LocalSocket {
  open(): Promise<void>
  close(): Promise<void>
}

export interface AgentParts {
  settings: Settings
  log: Logger
  transport: Transport
  /** Name of the queue of all fanout subscriptions. */
  funnel: string
  executions: Executions
  keepalives: Keepalives
  standalone: StandaloneChecks
  guestEvents: GuestEvents
  results: Results
  sink: ResultSink
  sockets: LocalSocket[]
  onMessage(message: Buffer): void
  /** Results do not go over the transport: keepalives and standalone checks go on without it. */
  worksOffline: boolean
  /** The agent has to end although nobody asked for it. */
  onFatal(): void
}

/**
 * The life of the agent: it works while the transport is connected, pauses while it is not, and stops in order.
 * It pauses by cancelling timers and subscriptions; what is running goes on, and its results wait.
 */
export class Agent {
  readonly #parts: AgentParts
  #started = false
  #working = false
  #wasConnected = false
  #stopping = false
  /** The last attempt to subscribe has ended. */
  #subscribed: Promise<void> = Promise.resolve()

  constructor(parts: AgentParts) {
    this.#parts = parts
    const { transport, log } = parts
    transport.on('lost', () => {
      log.warn('reconnecting to transport')
      if (!parts.worksOffline) this.#pause()
    })
    transport.on('restored', () => {
      log.info('reconnected to transport')
      // the first connection, when it comes late, is start()'s
      if (!this.#started || !this.#wasConnected) return
      if (parts.worksOffline) this.#subscribe()
      else this.#work()
    })
    transport.on('error', error => this.#onTransportError(error))
  }

  /** Resolves when the agent works for the first time, or was stopped before. Rejects when a socket cannot be opened. */
  async start(): Promise<void> {
    const { sockets, worksOffline } = this.#parts
    const connected = this.#connect()
    if (!worksOffline && !(await connected)) return
    for (const socket of sockets) await socket.open()
    this.#started = true
    this.#work()
    if (worksOffline && (await connected)) this.#subscribe()
  }

  /** Waits for the first connection, however long it takes. False when the agent was stopped meanwhile. */
  async #connect(): Promise<boolean> {
    try {
      await this.#parts.transport.connect()
      this.#wasConnected = true
      this.#parts.sink.resume()
      return true
    } catch (error) {
      if (error instanceof TransportError && error.code === 'closed') return false
      throw error
    }
  }

  /** Sensu's sequence: announce the end, finish what runs, close. Resolves when nothing is left. */
  async stop(): Promise<void> {
    const { log, executions, guestEvents, sink, sockets, transport, worksOffline } = this.#parts
    if (this.#stopping) return
    this.#stopping = true
    log.warn('stopping')
    this.#pause()
    guestEvents.close()
    if (this.#started) this.#deregister()
    log.info('completing checks in progress', { checks_in_progress: executions.inProgress })
    await executions.idle()
    if (transport.connected || worksOffline) await sink.drained(LAST_RESULTS_MS)
    log.info('closing client sockets')
    await Promise.all(sockets.map(socket => socket.close()))
    const lost = sink.close()
    if (lost > 0) log.error('check results were not delivered before the end', { results: lost })
    await transport.close()
    log.warn('stopping reactor')
  }

  #work(): void {
    if (this.#stopping) return
    this.#working = true
    const { keepalives, standalone, guestEvents, worksOffline } = this.#parts
    keepalives.start()
    if (!worksOffline) this.#subscribe()
    standalone.start()
    guestEvents.start()
  }

  /** Goes on with the settings, which have been replaced; what runs goes on undisturbed. `before`: the client as it was. */
  async reconfigure(before: ClientDefinition): Promise<void> {
    const { keepalives, standalone, guestEvents, settings, transport, funnel } = this.#parts
    if (!this.#working) return
    if (!isDeepStrictEqual(before, settings.client)) keepalives.start()
    standalone.start()
    guestEvents.start()
    if (!transport.connected) return
    const { subscriptions } = settings.client
    const removed = before.subscriptions.filter(entry => !subscriptions.includes(entry))
    await this.#subscribed
    await unsubscribe(removed, funnel, transport)
    const added = subscriptions.filter(entry => !before.subscriptions.includes(entry))
    if (added.length > 0) this.#subscribe(added)
  }

  #subscribe(subscriptions = this.#parts.settings.client.subscriptions): void {
    if (this.#stopping) return
    const { transport, settings, log, funnel, onMessage } = this.#parts
    const client = { ...settings.client, subscriptions }
    this.#subscribed = subscribeAll({ client, funnel, transport, log, onMessage }).catch((error: unknown) => {
      log.error('transport connection error', { error: String(error) })
    })
  }

  #pause(): void {
    const { keepalives, standalone, guestEvents, transport } = this.#parts
    this.#working = false
    keepalives.stop()
    standalone.stop()
    guestEvents.stop()
    void transport.unsubscribeAll()
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

  /** Only `true` counts. */
  #deregister(): void {
    const { client } = this.#parts.settings
    if (client.deregister === true) this.#parts.results.publish(deregistrationCheck(client, Date.now()))
  }
}

import { EventEmitter } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'
import { type AmqpEndpoint, amqpEndpoints } from './amqp-endpoints.js'
import { AmqpLink } from './amqp-link.js'
import {
  type PipeType,
  type QueueStats,
  type SubscribeOptions,
  type Transport,
  TransportError,
  type TransportEvents,
  type TransportLog,
} from './transport.js'

export interface RabbitmqOptions {
  log: TransportLog
  /** Pause before the n-th attempt to reconnect (n from 1). Default: Sensu's 2, 4, 6, … 20 seconds. */
  reconnectDelayMs?: (attempt: number) => number
  /** Publications that may wait for their confirmation at once, per connection. */
  maxUnconfirmed?: number
}

/** Both connections of one successful attempt. */
interface Session {
  primary: AmqpLink
  secondary: AmqpLink
  /** Resolves when either connection is lost, or a new attempt was asked for. */
  ended: Promise<void>
}

/**
 * Sensu's RabbitMQ transport (1.9): two connections, the primary for consumers, queues and keepalives, the secondary
 * for results. Losing either rebuilds both. amqplib's own recovery is not used: it knows one connection, restores
 * channels behind the caller's back and counts its delays otherwise.
 */
export class RabbitmqTransport extends EventEmitter<TransportEvents> implements Transport {
  readonly #endpoints: AmqpEndpoint[]
  readonly #log: TransportLog
  readonly #reconnectDelayMs: (attempt: number) => number
  readonly #maxUnconfirmed: number
  readonly #closing = new AbortController()
  #upcoming: AmqpEndpoint[] = []
  #session: Session | undefined
  #endSession: () => void = () => {}
  #running: Promise<void> | undefined

  /** Throws a TransportError (`configuration`) when the `rabbitmq` settings cannot be used. */
  constructor(settings: unknown, options: RabbitmqOptions) {
    super()
    this.#endpoints = amqpEndpoints(settings)
    this.#log = options.log
    this.#reconnectDelayMs = options.reconnectDelayMs ?? (attempt => Math.min(attempt * 2, 20) * 1000)
    this.#maxUnconfirmed = options.maxUnconfirmed ?? 1000
  }

  get connected(): boolean {
    return this.#session !== undefined
  }

  connect(): Promise<void> {
    return new Promise((resolve, reject) => {
      const closed = () => reject(new TransportError('closed', 'the transport was closed before it was connected'))
      if (this.#closing.signal.aborted) return closed()
      this.#closing.signal.addEventListener('abort', closed, { once: true })
      this.#running ??= this.#keepConnected(resolve)
    })
  }

  reconnect(): void {
    if (this.#session) this.#log.debug('transport reconnecting...')
    this.#endSession()
  }

  async close(): Promise<void> {
    this.#closing.abort()
    this.#endSession()
    await this.#running
  }

  async publish(type: PipeType, pipe: string, message: Buffer): Promise<void> {
    const { primary, secondary } = this.#open()
    await (pipe === 'keepalives' ? primary : secondary).publish(type, pipe, message)
  }

  async subscribe(
    type: PipeType,
    pipe: string,
    funnel: string,
    onMessage: (message: Buffer) => void | Promise<void>,
    options: SubscribeOptions = {},
  ): Promise<void> {
    await this.#open().primary.subscribe(type, pipe, funnel, onMessage, options)
  }

  async unsubscribeAll(): Promise<void> {
    try {
      await this.#session?.primary.unsubscribeAll()
    } catch {
      // the connection went away meanwhile, and the consumers with it
    }
  }

  async stats(funnel: string): Promise<QueueStats> {
    return this.#open().primary.stats(funnel)
  }

  #open(): Session {
    if (this.#session) return this.#session
    throw new TransportError('disconnected', 'Transport is not connected, triggering reconnect')
  }

  /** The life of the transport: connect, wait for the loss, pause, again. Ends by close() only. */
  async #keepConnected(firstConnected: () => void): Promise<void> {
    let attempts = 0
    while (!this.#closing.signal.aborted) {
      const session = await this.#tryOpen()
      if (session) {
        this.#session = session
        firstConnected()
        if (attempts > 0) this.emit('restored')
        attempts = 0
        await session.ended
        await this.#dropSession(session)
      }
      attempts++
      await this.#pause(this.#reconnectDelayMs(attempts))
    }
  }

  async #dropSession(session: Session): Promise<void> {
    this.#session = undefined
    if (!this.#closing.signal.aborted) this.emit('lost')
    await Promise.all([session.primary.close(), session.secondary.close()])
  }

  async #pause(milliseconds: number): Promise<void> {
    try {
      await sleep(milliseconds, undefined, { signal: this.#closing.signal })
    } catch {
      // closed: the loop ends
    }
  }

  /** One attempt with the next broker of the list. Failures are logged, not thrown. */
  async #tryOpen(): Promise<Session | undefined> {
    const endpoint = this.#nextEndpoint()
    const ended = new Promise<void>(resolve => {
      this.#endSession = resolve
    })
    const [primary, secondary] = await Promise.allSettled([this.#openLink(endpoint), this.#openLink(endpoint)])
    if (primary.status === 'fulfilled' && secondary.status === 'fulfilled') {
      return { primary: primary.value, secondary: secondary.value, ended }
    }
    for (const link of [primary, secondary]) {
      if (link.status === 'fulfilled') await link.value.close()
      else if (!this.#closing.signal.aborted) this.#logFailure(link.reason, endpoint)
    }
    return undefined
  }

  async #openLink(endpoint: AmqpEndpoint): Promise<AmqpLink> {
    const link = await AmqpLink.open(endpoint, {
      maxUnconfirmed: this.#maxUnconfirmed,
      onClose: cause => this.#onLinkClosed(cause),
      onChannelError: error => this.emit('error', error),
    })
    this.#log.debug('transport connection open')
    return link
  }

  #onLinkClosed(cause: Error | undefined): void {
    this.#log.debug('transport connection closed')
    const missedHeartbeats = cause?.message === 'Heartbeat timeout'
    if (missedHeartbeats) this.#log.error('[amqp] Detected missing amqp heartbeats')
    this.#log.warn('transport connection error', {
      reason: missedHeartbeats ? 'skipped heartbeats' : 'tcp connection lost',
    })
    this.reconnect()
  }

  #logFailure(cause: unknown, endpoint: AmqpEndpoint): void {
    const message = cause instanceof Error ? cause.message : String(cause)
    const code = errorCode(cause)
    // amqplib gives the broker's refusal as text only; a vhost that may not be opened is refused by closing
    if (/ACCESS[_-]REFUSED|Expected ConnectionOpenOk; got <ConnectionClose/.test(message)) {
      this.#log.warn('transport connection error', {
        reason: 'possible authentication failure. wrong credentials?',
        user: endpoint.user,
      })
    } else if (code === 'ENOTFOUND' || code === 'EAI_AGAIN') {
      this.#log.error('transport connection error', {
        reason: 'unable to resolve hostname',
        host: endpoint.host,
        error: message,
      })
    } else if (code?.startsWith('E') && !code.startsWith('ERR_')) {
      this.#log.error(`[amqp] Detected TCP connection failure: Errno::${code}`)
    } else {
      this.#log.error('transport connection error', {
        reason: 'connection failed',
        host: endpoint.host,
        error: message,
      })
    }
  }

  /** Sensu shuffles the list, uses it up, and shuffles again. */
  #nextEndpoint(): AmqpEndpoint {
    if (this.#upcoming.length === 0) this.#upcoming = shuffled(this.#endpoints)
    const endpoint = this.#upcoming.shift()
    if (!endpoint) throw new Error('the list of brokers is empty')
    return endpoint
  }
}

function shuffled<T>(list: readonly T[]): T[] {
  return list
    .map(item => ({ item, rank: Math.random() }))
    .sort((a, b) => a.rank - b.rank)
    .map(({ item }) => item)
}

function errorCode(error: unknown): string | undefined {
  if (!(error instanceof Error)) return undefined
  if (error.message === 'connect ETIMEDOUT') return 'ETIMEDOUT' // amqplib's own timer sets no code
  return 'code' in error && typeof error.code === 'string' ? error.code : undefined
}

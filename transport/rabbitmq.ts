import { tlsFailure, warnWhenUnverified } from '../sensu/tls-settings.js'
import { type AmqpEndpoint, amqpEndpoints } from './amqp-endpoints.js'
import { AmqpLink } from './amqp-link.js'
import { ReconnectingTransport, type Session } from './reconnecting.js'
import type {
  OnMessage,
  PipeOptions,
  PipeType,
  QueueStats,
  SubscribeOptions,
  Transport,
  TransportLog,
} from './transport.js'

export interface RabbitmqOptions {
  log: TransportLog
  /** Pause before the n-th attempt to reconnect (n from 1). Default: Sensu's 2, 4, 6, … 20 seconds. */
  reconnectDelayMs?: (attempt: number) => number
  /** Publications that may wait for their confirmation at once, per connection. */
  maxUnconfirmed?: number
  /** Unacknowledged messages per consumer where the settings say nothing. Default: Sensu's 1. */
  prefetch?: number
}

/** Both connections of one successful attempt. */
class RabbitmqSession implements Session {
  readonly primary: AmqpLink
  readonly secondary: AmqpLink

  constructor(primary: AmqpLink, secondary: AmqpLink) {
    this.primary = primary
    this.secondary = secondary
  }

  async close(): Promise<void> {
    await Promise.all([this.primary.close(), this.secondary.close()])
  }
}

/**
 * Sensu's RabbitMQ transport (1.9): two connections, the primary for consumers, queues and keepalives, the secondary
 * for results. Losing either rebuilds both. amqplib's own recovery is not used: it knows one connection, restores
 * channels behind the caller's back and counts its delays otherwise.
 */
export class RabbitmqTransport extends ReconnectingTransport<RabbitmqSession> implements Transport {
  readonly #endpoints: AmqpEndpoint[]
  readonly #maxUnconfirmed: number
  #upcoming: AmqpEndpoint[] = []

  /** Throws a TransportError (`configuration`) when the `rabbitmq` settings cannot be used. */
  constructor(settings: unknown, options: RabbitmqOptions) {
    const { log, reconnectDelayMs = attempt => Math.min(attempt * 2, 20) * 1000 } = options
    super({ log, reconnectDelayMs })
    this.#endpoints = amqpEndpoints(settings, options.prefetch)
    this.#maxUnconfirmed = options.maxUnconfirmed ?? 1000
    for (const { socket, host } of this.#endpoints) warnWhenUnverified(socket, host, 'rabbitmq ssl', log)
  }

  async publish(type: PipeType, pipe: string, message: Buffer, options?: PipeOptions): Promise<void> {
    const { primary, secondary } = this.openedSession()
    await (pipe === 'keepalives' ? primary : secondary).publish(type, pipe, message, options)
  }

  async subscribe(
    type: PipeType,
    pipe: string,
    funnel: string,
    onMessage: OnMessage,
    options: SubscribeOptions = {},
  ): Promise<void> {
    await this.openedSession().primary.subscribe(type, pipe, funnel, onMessage, options)
  }

  async unsubscribe(_type: PipeType, pipe: string, funnel: string): Promise<void> {
    try {
      await this.session?.primary.unsubscribe(pipe, funnel)
    } catch {
      // the connection went away meanwhile, and the consumers with it
    }
  }

  async unsubscribeAll(): Promise<void> {
    try {
      await this.session?.primary.unsubscribeAll()
    } catch {
      // as above
    }
  }

  async stats(funnel: string): Promise<QueueStats> {
    return this.openedSession().primary.stats(funnel)
  }

  /** One attempt with the next broker of the list. */
  protected async openSession(closing: AbortSignal): Promise<RabbitmqSession | undefined> {
    const endpoint = this.#nextEndpoint()
    const [primary, secondary] = await Promise.allSettled([this.#openLink(endpoint), this.#openLink(endpoint)])
    if (primary.status === 'fulfilled' && secondary.status === 'fulfilled') {
      return new RabbitmqSession(primary.value, secondary.value)
    }
    for (const link of [primary, secondary]) {
      if (link.status === 'fulfilled') await link.value.close()
      else if (!closing.aborted) this.#logFailure(link.reason, endpoint)
    }
    return undefined
  }

  async #openLink(endpoint: AmqpEndpoint): Promise<AmqpLink> {
    const link = await AmqpLink.open(endpoint, {
      maxUnconfirmed: this.#maxUnconfirmed,
      onClose: cause => this.#onLinkClosed(cause),
      onChannelError: error => this.emit('error', error),
    })
    this.log.debug('transport connection open')
    return link
  }

  #onLinkClosed(cause: Error | undefined): void {
    this.log.debug('transport connection closed')
    const missedHeartbeats = cause?.message === 'Heartbeat timeout'
    if (missedHeartbeats) this.log.error('[amqp] Detected missing amqp heartbeats')
    this.log.warn('transport connection error', {
      reason: missedHeartbeats ? 'skipped heartbeats' : 'tcp connection lost',
    })
    this.reconnect()
  }

  #logFailure(cause: unknown, endpoint: AmqpEndpoint): void {
    const message = cause instanceof Error ? cause.message : String(cause)
    const code = errorCode(cause)
    const tlsReason = tlsFailure(cause)
    // amqplib gives the broker's refusal as text only; a vhost that may not be opened is refused by closing
    if (/ACCESS[_-]REFUSED|Expected ConnectionOpenOk; got <ConnectionClose/.test(message)) {
      this.log.warn('transport connection error', {
        reason: 'possible authentication failure. wrong credentials?',
        user: endpoint.user,
      })
    } else if (code === 'ENOTFOUND' || code === 'EAI_AGAIN') {
      this.log.error('transport connection error', {
        reason: 'unable to resolve hostname',
        host: endpoint.host,
        error: message,
      })
    } else if (tlsReason === undefined && code?.startsWith('E') && !code.startsWith('ERR_')) {
      const { hostname: host, port } = endpoint.connect
      this.log.error(`[amqp] Detected TCP connection failure: Errno::${code}`, { host, port })
    } else {
      this.log.error('transport connection error', {
        reason: tlsReason ?? 'connection failed',
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

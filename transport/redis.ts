import { type RedisSettings, readRedisSettings } from '../sensu/redis-settings.js'
import { tlsFailure, warnWhenUnverified } from '../sensu/tls-settings.js'
import type { Json } from '../sensu/types.js'
import { ReconnectingTransport } from './reconnecting.js'
import { RedisConnectionError, type RedisLimits } from './redis-connection.js'
import { RedisLink } from './redis-link.js'
import {
  type OnMessage,
  type PipeType,
  type QueueStats,
  type SubscribeOptions,
  type Transport,
  TransportError,
  type TransportLog,
} from './transport.js'

export interface RedisTransportOptions extends Partial<RedisLimits> {
  log: TransportLog
  /** Pause before the n-th attempt to reconnect (n from 1). Default: 3 seconds, the rhythm of Sensu's monitor. */
  reconnectDelayMs?: (attempt: number) => number
  /** Publications that may wait for Redis' answer at once. */
  maxUnconfirmed?: number
}

/** What a failure says in the log. */
interface FailureLine {
  reason: string
  host: string
  user?: string
  error: string
}

/**
 * Sensu's Redis transport (1.9). Direct pipes are lists (RPUSH, BLPOP), fanout pipes channels (PUBLISH, SUBSCRIBE); topics do not exist, and
 * funnels are not used: each pipe's messages go to its own handler. Losing any connection rebuilds all, asking the sentinels anew.
 *
 * What Redis cannot give: a fanout message reaches only who listens at that moment; of a list's messages one per consumer is lost when
 * its connection dies while the message is on its way (see ListConsumer); a publication whose answer was lost may have happened.
 * `auto_reconnect` and `reconnect_on_error` of the `redis` settings have no effect here, as in Sensu, whose monitor reconnects in any case.
 */
export class RedisTransport extends ReconnectingTransport<RedisLink> implements Transport {
  readonly #address: RedisSettings['address']
  readonly #limits: RedisLimits
  readonly #maxUnconfirmed: number
  #lastFailure = ''

  /** Throws a TransportError (`configuration`) when the `redis` settings cannot be used. */
  constructor(settings: Json | undefined, options: RedisTransportOptions) {
    const { log, reconnectDelayMs = () => 3000 } = options
    super({ log, reconnectDelayMs })
    this.#address = readAddress(settings)
    this.#limits = {
      connectTimeoutMs: options.connectTimeoutMs ?? 3000,
      silenceTimeoutMs: options.silenceTimeoutMs ?? 10_000,
      openTimeoutMs: options.openTimeoutMs ?? 20_000,
    }
    this.#maxUnconfirmed = options.maxUnconfirmed ?? 1000
    warnWhenUnverified(this.#address.tls, serversOf(this.#address), 'redis tls', log)
  }

  async publish(type: PipeType, pipe: string, message: Buffer): Promise<void> {
    await this.openedSession().publish(type, pipe, message)
  }

  async subscribe(
    type: PipeType,
    pipe: string,
    _funnel: string,
    onMessage: OnMessage,
    options: SubscribeOptions = {},
  ): Promise<void> {
    await this.openedSession().subscribe(type, pipe, onMessage, options)
  }

  async unsubscribe(type: PipeType, pipe: string, _funnel: string): Promise<void> {
    await this.session?.unsubscribe(type, pipe)
  }

  async unsubscribeAll(): Promise<void> {
    await this.session?.unsubscribeAll()
  }

  async stats(funnel: string): Promise<QueueStats> {
    return this.openedSession().stats(funnel)
  }

  protected async openSession(closing: AbortSignal): Promise<RedisLink | undefined> {
    try {
      const link = await RedisLink.open({
        address: this.#address,
        limits: this.#limits,
        log: this.log,
        maxUnconfirmed: this.#maxUnconfirmed,
        closing,
        onLost: cause => this.#onLost(cause),
        onRefused: error => this.emit('error', error),
      })
      this.#lastFailure = ''
      return link
    } catch (error) {
      if (!closing.aborted) this.#logFailure(error)
      return undefined
    }
  }

  #onLost(cause: Error | undefined): void {
    this.log.warn('transport connection error', {
      reason: 'tcp connection lost',
      ...(cause && { error: cause.message }),
    })
    this.reconnect()
  }

  /** The reference is silent here. A failure that goes on is told once, not every three seconds. */
  #logFailure(error: unknown): void {
    const line = this.#failureLine(error)
    const text = `${line.reason} ${line.error}`
    const level = text === this.#lastFailure ? 'debug' : 'error'
    this.#lastFailure = text
    this.log[level]('redis connection error', { ...line })
  }

  #failureLine(error: unknown): FailureLine {
    const { username = 'default' } = this.#address
    const message = error instanceof Error ? error.message : String(error)
    const line = { host: serversOf(this.#address), error: message }
    if (error instanceof RedisConnectionError && error.withoutMaster) {
      return { reason: 'unable to determine redis master', ...line }
    }
    if (/^(WRONGPASS|NOAUTH|NOPERM)\b|invalid password/.test(message)) {
      return { reason: 'possible authentication failure. wrong credentials?', user: username, ...line }
    }
    if (/\b(ENOTFOUND|EAI_AGAIN)\b/.test(message)) return { reason: 'unable to resolve hostname', ...line }
    const cause = error instanceof RedisConnectionError ? error.cause : error
    return { reason: tlsFailure(cause) ?? 'unable to connect to redis', ...line }
  }
}

/** For log lines: where we ask, the sentinels if there are any. */
function serversOf({ host, port, sentinels }: RedisSettings['address']): string {
  return (sentinels ?? [{ host, port }]).map(address => `${address.host}:${address.port}`).join(',')
}

function readAddress(settings: Json | undefined): RedisSettings['address'] {
  try {
    return readRedisSettings(settings).address
  } catch (cause) {
    throw new TransportError('configuration', cause instanceof Error ? cause.message : String(cause), { cause })
  }
}

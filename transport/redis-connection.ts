import { Redis, type RedisOptions } from 'ioredis'
import type { RedisAddress } from '../sensu/redis-settings.js'

export interface RedisLimits {
  /** For the TCP connection, TLS included. */
  connectTimeoutMs: number
  /** A Redis that owes an answer and is silent this long is given up; also the limit for a sentinel's answer. */
  silenceTimeoutMs: number
  /** For everything until a connection can be used: sentinels one after the other, authentication, a Redis that loads its data. */
  openTimeoutMs: number
}

/** Why there is no connection. `cause` is what the system, Redis or the sentinels said last. */
export class RedisConnectionError extends Error {
  override readonly name = 'RedisConnectionError'
  /** No sentinel could tell where the master is. */
  readonly withoutMaster: boolean

  constructor(message: string, withoutMaster: boolean, cause: unknown) {
    super(message, { cause })
    this.withoutMaster = withoutMaster
  }
}

/**
 * Opens one connection that lives once: AUTH, SELECT, INFO, then ready. ioredis' own reconnecting, queueing and resending are off: it would
 * repeat a BLPOP or RPUSH whose fate is unknown. `onEnd` is called once when a ready connection is gone, whoever ended it.
 * Rejects with RedisConnectionError.
 */
export async function openRedis(
  address: RedisAddress,
  limits: RedisLimits,
  signal: AbortSignal,
  onEnd: (cause: Error | undefined) => void,
): Promise<Redis> {
  const redis = new Redis(connectionOptions(address, limits))
  refuseNeedlessPassword(redis)
  let cause: Error | undefined
  let sentinelCause: Error | undefined
  redis.on('error', (error: Error) => {
    cause = error
  })
  redis.on('sentinelError', (error: Error) => {
    sentinelCause = error
  })
  let giveUp: () => void = () => {}
  const deadline = setTimeout(() => {
    cause = new Error(`the connection could not be used within ${limits.openTimeoutMs / 1000} seconds`)
    giveUp()
  }, limits.openTimeoutMs)
  try {
    await new Promise<void>((resolve, reject) => {
      giveUp = () => reject(cause ?? new Error('the transport was closed'))
      signal.addEventListener('abort', giveUp)
      if (signal.aborted) giveUp()
      else redis.connect().then(resolve, reject)
    })
    redis.once('end', () => onEnd(cause))
    return redis
  } catch (error) {
    redis.disconnect()
    const withoutMaster = cause?.message.startsWith('All sentinels') ?? false
    const reason = (withoutMaster ? sentinelCause : undefined) ?? cause ?? error
    throw new RedisConnectionError(reason instanceof Error ? reason.message : String(reason), withoutMaster, reason)
  } finally {
    clearTimeout(deadline)
    signal.removeEventListener('abort', giveUp)
  }
}

/**
 * A password for a Redis that has none is a mistake: most likely it is another Redis than was meant. The reference does not connect then;
 * ioredis would print a warning and go on.
 */
function refuseNeedlessPassword(redis: Redis): void {
  const authenticate = redis.auth.bind(redis) as (...args: unknown[]) => Promise<'OK'>
  const auth = async (...args: unknown[]) => {
    try {
      return await authenticate(...args)
    } catch (cause) {
      if (!(cause instanceof Error) || !needlessPassword.test(cause.message)) throw cause
      throw new Error('a password is configured, but this Redis has none', { cause })
    }
  }
  Object.assign(redis, { auth })
}

/** The words of Redis 6 and later, and those before. */
const needlessPassword = /without any password configured|no password is set/

function connectionOptions(address: RedisAddress, limits: RedisLimits): RedisOptions {
  return {
    ...address,
    lazyConnect: true,
    // the older protocol: the reference's handshake, and every Redis and proxy speaks it
    protocol: 2,
    disableClientInfo: true,
    retryStrategy: () => null,
    sentinelRetryStrategy: () => null,
    enableOfflineQueue: false,
    autoResubscribe: false,
    autoResendUnfulfilledCommands: false,
    maxRetriesPerRequest: null,
    connectTimeout: limits.connectTimeoutMs,
    sentinelCommandTimeout: limits.silenceTimeoutMs,
    socketTimeout: limits.silenceTimeoutMs,
    disconnectTimeout: 500,
  }
}

import type { RedisOptions } from 'ioredis'
import { readRedisSettings } from '../sensu/redis-settings.js'
import type { Json } from '../sensu/types.js'

/** Attempts to reconnect are this far apart (Sensu 1.9). */
const reconnectDelayMs = 1000
const connectTimeoutMs = 10_000

/** Sensu's `redis` settings as ioredis options, with Sensu's way of reconnecting. Throws an Error that names the setting (see readRedisSettings). */
export function redisOptions(settings: Json | undefined): RedisOptions {
  const { address, autoReconnect } = readRedisSettings(settings)
  return {
    ...address,
    connectTimeout: connectTimeoutMs,
    retryStrategy: () => (autoReconnect ? reconnectDelayMs : null),
    sentinelRetryStrategy: () => reconnectDelayMs,
  }
}

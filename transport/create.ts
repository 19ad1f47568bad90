import type { Settings } from '../sensu/types.js'
import { type Transport, TransportError, type TransportLog } from './transport.js'

/**
 * The transport that the settings name; only its own client library is loaded, for the sake of the agent's memory. Rejects with a
 * TransportError (`configuration`) when there is none, or its own settings cannot be used. `prefetch`: see RabbitmqOptions.
 */
export async function createTransport(
  settings: Settings,
  log: TransportLog,
  options: { prefetch?: number } = {},
): Promise<Transport> {
  const { name } = settings.transport
  if (name === 'rabbitmq') {
    const { RabbitmqTransport } = await import('./rabbitmq.js')
    return new RabbitmqTransport(settings.rabbitmq, { log, ...options })
  }
  if (name === 'redis') {
    const { RedisTransport } = await import('./redis.js')
    return new RedisTransport(settings.redis, { log })
  }
  throw new TransportError('configuration', `there is no transport "${name}": transport name must be rabbitmq or redis`)
}

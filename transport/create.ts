import type { Settings } from '../sensu/types.js'
import { RabbitmqTransport } from './rabbitmq.js'
import { RedisTransport } from './redis.js'
import { type Transport, TransportError, type TransportLog } from './transport.js'

/** The transport that the settings name. Throws a TransportError (`configuration`) when there is none, or its own settings cannot be used. */
export function createTransport(settings: Settings, log: TransportLog): Transport {
  const { name } = settings.transport
  if (name === 'rabbitmq') return new RabbitmqTransport(settings.rabbitmq, { log })
  if (name === 'redis') return new RedisTransport(settings.redis, { log })
  throw new TransportError('configuration', `there is no transport "${name}": transport name must be rabbitmq or redis`)
}

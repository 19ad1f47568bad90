import type { PublishEvent } from '../pipeline/handle.js'
import { stringifyJson } from '../sensu/json.js'
import { isObject, isTruthy } from '../sensu/json-value.js'
import type { Json } from '../sensu/types.js'
import { type PipeOptions, type Transport, TransportError } from '../transport/transport.js'

/** Sends event data to the pipe of a handler of type transport, which may be somebody else's and of another kind than Sensu's own. */
export function eventPublisher(transport: Pick<Transport, 'publish'>): PublishEvent {
  return async ({ type, name, options = null }, data) => {
    if (type !== 'direct' && type !== 'fanout' && type !== 'topic')
      throw new TransportError('configuration', `there is no pipe type ${String(type)}`)
    await transport.publish(type, String(name), data, pipeOptions(options))
  }
}

/** Sensu hands `pipe.options` to the AMQP library of its time; these are those that change anything for who only publishes. */
function pipeOptions(options: Json): PipeOptions {
  if (!isObject(options)) return {}
  const { durable = null, auto_delete: autoDelete = null, passive = null, arguments: extra = null } = options
  return {
    durable: isTruthy(durable),
    autoDelete: isTruthy(autoDelete),
    passive: isTruthy(passive),
    ...(isObject(extra) && { arguments: JSON.parse(stringifyJson(extra)) }),
  }
}

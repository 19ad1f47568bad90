import { setTimeout as sleep } from 'node:timers/promises'
import type { Pipeline } from '../pipeline/pipeline.js'
import { encodeJson } from '../sensu/json.js'
import type { Logger } from '../sensu/log.js'
import type { Store } from '../store/store.js'
import type { Transport } from '../transport/transport.js'
import { HeldResults, UndeliverableError } from './held-results.js'
import type { ResultSink } from './results.js'

const RETRY_DELAY_MS = 1000
/** RabbitMQ closes the channel over a larger message, again at every attempt. */
const LARGEST_MESSAGE_BYTES = 128 * 1024 * 1024

/**
 * Results to the direct exchange `results`, for a Sensu server. They wait here, in order, until the broker has
 * confirmed them; after a loss of the connection they are sent (again) as soon as there is a new one.
 */
export function transportSink(transport: Transport, log: Logger, maxBytes: number): ResultSink {
  const held = new HeldResults<Buffer>({
    window: 500,
    maxBytes,
    retryDelayMs: RETRY_DELAY_MS,
    onOverflow: () => log.error('too many undelivered check results, dropping the oldest', { max_bytes: maxBytes }),
    onRecovered: dropped => log.warn('check results were dropped while they could not be delivered', { dropped }),
    ready: () => transport.connected,
    send: message => publishResult(transport, message, log),
  })
  transport.on('restored', () => held.resume())
  return {
    deliver(result) {
      const message = encodeJson(result)
      held.add(message, message.length)
    },
    resume: () => held.resume(),
    drained: milliseconds => held.drained(milliseconds),
    close: () => held.close(),
    backlog: () => ({ waiting: held.count, dropped: held.droppedTotal, spoolBytes: undefined }),
  }
}

async function publishResult(transport: Transport, message: Buffer, log: Logger): Promise<void> {
  if (message.length > LARGEST_MESSAGE_BYTES) {
    log.error('check result is too large for the broker', { bytes: message.length, max_bytes: LARGEST_MESSAGE_BYTES })
    throw new UndeliverableError('too large')
  }
  await transport.publish('direct', 'results', message)
}

/** Results into Redis, in Sensu's own layout. The store holds them, in order and bounded, while Redis is away. */
export function redisSink(pipeline: Pipeline, store: Store): ResultSink {
  return {
    deliver(result) {
      void pipeline.processResult(result)
    },
    resume() {},
    async drained(milliseconds) {
      await Promise.race([pipeline.idle(), sleep(milliseconds, undefined, { ref: false })])
    },
    close: () => store.close(),
    backlog: () => ({ ...store.backlog, spoolBytes: undefined }),
  }
}

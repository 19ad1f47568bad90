import type { Logger } from '../sensu/log.js'
import type { ClientDefinition } from '../sensu/types.js'
import { type PipeType, type Transport, TransportError } from '../transport/transport.js'

export interface SubscriptionsOptions {
  client: ClientDefinition
  /** The queue of all fanout subscriptions: `<client>-<version>-<start of the process in epoch seconds>`. */
  funnel: string
  transport: Transport
  log: Logger
  onMessage(message: Buffer): void
}

/**
 * Subscribes to everything in `client.subscriptions`, in order. `direct:x` and `roundrobin:x` share one queue of that
 * name with the other clients; everything else is fanned out to this client's own queue. Resolves when all are
 * subscribed, or the transport has told (by its own events) that they cannot be.
 */
export async function subscribeAll({ client, funnel, transport, log, onMessage }: SubscriptionsOptions): Promise<void> {
  log.debug('subscribing to client subscriptions')
  // told at once, before what does not wait for the broker's answers
  for (const subscription of client.subscriptions) log.debug('subscribing to a subscription', { subscription })
  for (const subscription of client.subscriptions) {
    try {
      await transport.subscribe(...pipeOf(subscription, funnel), onMessage)
    } catch (error) {
      // the transport's events 'error' and 'lost' report this and lead to a new attempt
      if (!(error instanceof TransportError)) throw error
      return
    }
  }
}

/** Gives up some of them; the others are not disturbed. Never rejects. */
export async function unsubscribe(subscriptions: string[], funnel: string, transport: Transport): Promise<void> {
  await Promise.all(subscriptions.map(subscription => transport.unsubscribe(...pipeOf(subscription, funnel))))
}

/** What the transport calls it: type, pipe, and the queue that it is delivered through. */
function pipeOf(subscription: string, funnel: string): [type: PipeType, pipe: string, funnel: string] {
  const shared = /^(direct|roundrobin):/.test(subscription)
  return shared ? ['direct', subscription, subscription] : ['fanout', subscription, funnel]
}

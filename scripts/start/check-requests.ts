import { setTimeout as delay } from 'node:timers/promises'
import { stringifyJson } from '../../sensu/json.js'
import type { CheckDefinition, Settings } from '../../sensu/types.js'
import type { Transport } from '../../transport/transport.js'

/** Until a first result is there the request is repeated this often: the agent may not have subscribed yet. */
const repeatMs = 1000

/** What is published for one check: Sensu 1.9's payload, and to whom. */
export interface CheckRequest {
  subscribers: readonly string[]
  payload: CheckDefinition
}

/**
 * The check requests a Sensu 1.9 server would publish now: the definition with its name, without `subscribers` and
 * `interval`, and when it was issued.
 */
export function checkRequest(name: string, definition: CheckDefinition, nowSeconds: number): CheckRequest {
  const { subscribers, interval: _, ...rest } = definition
  const names = Array.isArray(subscribers) ? subscribers.filter(item => typeof item === 'string') : []
  return { subscribers: names, payload: { ...rest, name, issued: nowSeconds } }
}

/** The checks that wait for a server's request: not standalone, not switched off. */
export function scheduledChecks(settings: Settings): string[] {
  return Object.entries(settings.checks)
    .filter(([, check]) => check.standalone !== true && check.publish !== false)
    .map(([name]) => name)
}

/**
 * Stands in for the server that schedules checks: publishes each scheduled check's request to the exchange of each of its
 * subscriptions, every interval, until `signal` ends it. `hasResult` tells whether a first result has come.
 */
export async function publishCheckRequests(
  settings: Settings,
  transport: Transport,
  hasResult: (check: string) => Promise<boolean>,
  signal: AbortSignal,
): Promise<void> {
  await Promise.all(
    scheduledChecks(settings).map(async name => {
      const definition = settings.checks[name] ?? {}
      const intervalMs = Number(definition.interval ?? 60) * 1000
      while (!signal.aborted) {
        const { subscribers, payload } = checkRequest(name, definition, Math.floor(Date.now() / 1000))
        const message = Buffer.from(stringifyJson(payload))
        // One that is lost while the broker is away is repeated at the next interval, as a server's would be.
        await Promise.allSettled(subscribers.map(subscriber => transport.publish('fanout', subscriber, message)))
        await delay((await hasResult(name)) ? intervalMs : repeatMs, undefined, { signal }).catch(() => {})
      }
    }),
  )
}

import { isTruthy, toNumber } from '../sensu/json-value.js'
import type { Logger } from '../sensu/log.js'
import { epochSeconds } from '../sensu/results.js'
import type { CheckWithResult, JsonObject } from '../sensu/types.js'
import type { Store } from '../store/store.js'
import { MONITOR_INTERVAL_SECONDS } from './periodic-task.js'
import type { ResultPublisher } from './result-publisher.js'

export interface TtlMonitorOptions {
  store: Store
  results: ResultPublisher
  log: Logger
}

/** One round of the leader task `check_result_monitor`: a result for every check whose last one is older than its `ttl`. */
export async function monitorTtl({ store, results, log }: TtlMonitorOptions): Promise<void> {
  log.info('determining stale check results (ttl)')
  for await (const { client, check, signature, clientIsSilent } of store.ttlResults()) {
    const stale = clientIsSilent ? undefined : staleCheck(check, epochSeconds(Date.now()))
    if (stale) await results.publish({ client, check: stale, ...(signature !== null && { signature }) })
  }
}

/**
 * The result that says that there is none, undefined for one that is young enough. `executed` stays, so that the age goes on to grow. A result that somebody resolved by
 * the API (`force_resolve`) waits for the next real one.
 */
export function staleCheck(check: JsonObject, nowSeconds: number): CheckWithResult | undefined {
  const ttl = toNumber(check['ttl'])
  const executed = toNumber(check['executed'])
  if (ttl === undefined || executed === undefined || isTruthy(check['force_resolve'])) return undefined
  const ageSeconds = nowSeconds - executed
  if (ageSeconds < ttl) return undefined
  return {
    ...check,
    output: `Last check execution was ${ageSeconds} seconds ago`,
    status: isTruthy(check['ttl_status']) ? check['ttl_status'] : 1,
    interval: MONITOR_INTERVAL_SECONDS,
  }
}

import { deepMerge } from '../sensu/deep-merge.js'
import { defaultKeepaliveThresholds } from '../sensu/defaults.js'
import { isObject, isSet, member, toNumber } from '../sensu/json-value.js'
import type { Logger } from '../sensu/log.js'
import { epochSeconds } from '../sensu/results.js'
import { substituteTokens } from '../sensu/tokens.js'
import type { CheckWithResult, JsonObject, Settings } from '../sensu/types.js'
import type { Store } from '../store/store.js'
import type { ResultPublisher } from './result-publisher.js'

export interface ClientMonitorOptions {
  settings: Settings
  store: Store
  results: ResultPublisher
  log: Logger
}

/** One round of the leader task `client_monitor`: a result of the check `keepalive` for every registered client that sends keepalives. */
export async function monitorClients({ settings, store, results, log }: ClientMonitorOptions): Promise<void> {
  log.info('determining stale clients')
  for await (const { client, signature } of store.registeredClients()) {
    if (client['keepalives'] === false) continue
    const check = keepaliveCheck(client, settings, Date.now())
    await results.publish({ client: client['name'] ?? null, check, ...(signature !== null && { signature }) })
  }
}

/**
 * What a client's last keepalive says about it (Sensu 1.9): the check's attributes come from the defaults, `sensu.keepalives` of the settings and
 * the client's own `keepalive`, with tokens replaced by the client's attributes.
 */
export function keepaliveCheck(client: JsonObject, settings: Settings, nowMs: number): CheckWithResult {
  const now = epochSeconds(nowMs)
  let definition: JsonObject = { thresholds: { ...defaultKeepaliveThresholds } }
  if (isSet(member(settings.handlers, 'keepalive'))) definition['handler'] = 'keepalive'
  definition = deepMerge(definition, settings.sensu.keepalives)
  if (isObject(client['keepalive'])) definition = deepMerge(definition, client['keepalive'])
  definition = { ...definition, name: 'keepalive', issued: now, executed: now }
  const { value: check, unmatched } = substituteTokens(definition, client)
  const { output, status } = judge(now - (toNumber(client['timestamp']) ?? 0), check['thresholds'])
  if (unmatched.length === 0) return { ...check, output, status }
  return {
    ...check,
    output: `${output} - Unmatched client token(s): ${unmatched.join(', ')}`,
    status: status === 0 ? 1 : status,
  }
}

function judge(ageSeconds: number, thresholds: JsonObject['thresholds']): { output: string; status: number } {
  const limits = isObject(thresholds) ? thresholds : {}
  const stale = (limit: number) => `No keepalive sent from client for ${ageSeconds} seconds (>=${limit})`
  const critical = toNumber(limits['critical'])
  if (critical !== undefined && ageSeconds >= critical) return { output: stale(critical), status: 2 }
  const warning = toNumber(limits['warning'])
  if (warning !== undefined && ageSeconds >= warning) return { output: stale(warning), status: 1 }
  return { output: `Keepalive sent from client ${ageSeconds} seconds ago`, status: 0 }
}

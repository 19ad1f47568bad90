import { isObject } from '../sensu/json-value.js'
import type { Json, JsonObject } from '../sensu/types.js'

/** Who knows which events there are. Its promises reject when it cannot be asked. */
export interface EventLookup {
  hasEvent(client: string, check: string): Promise<boolean>
  subscriptionHasEvent(subscription: string, check: string): Promise<boolean>
}

/**
 * Sensu's built-in filter `check_dependencies`: an event is refused while one of the checks in its `dependencies` has an event itself: `CHECK` of the same
 * client, `CLIENT/CHECK`, or `subscription:NAME/CHECK` of any client with that subscription. Sensu asks the HTTP API, here Redis
 * itself is asked. Rejects as the lookup does.
 */
export async function dependenciesRefuse(event: JsonObject, lookup: EventLookup): Promise<boolean> {
  const check = isObject(event['check']) ? event['check'] : {}
  const client = isObject(event['client']) ? event['client']['name'] : undefined
  const dependencies = Array.isArray(check['dependencies']) ? check['dependencies'] : []
  for (const dependency of dependencies) {
    if (await hasEvent(dependency, String(client), lookup)) return true
  }
  return false
}

async function hasEvent(dependency: Json, ownClient: string, lookup: EventLookup): Promise<boolean> {
  if (typeof dependency !== 'string') return false
  const slash = dependency.indexOf('/')
  if (slash < 0) return lookup.hasEvent(ownClient, dependency)
  const [owner, check] = [dependency.slice(0, slash), dependency.slice(slash + 1)]
  const subscription = /^subscription:(.*)$/s.exec(owner)?.[1]
  return subscription === undefined ? lookup.hasEvent(owner, check) : lookup.subscriptionHasEvent(subscription, check)
}

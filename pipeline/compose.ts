import { entriesOf, fromEntries, isObject, isTruthy } from '../sensu/json-value.js'
import type { Json, JsonObject } from '../sensu/types.js'

/** A result that can be stored: who it is of, and the check with everything the site's configuration adds. */
export interface ComposedResult {
  /** The client it counts for: the check's `source`, else the sender. */
  client: string
  check: JsonObject
  signature?: string
  /** Whether JSON.stringify writes the check as Sensu does (see parsePlainJson). */
  plain?: boolean
  /** The command of the site's own definition, for the store to put back when the client turns out to be a proxy. */
  proxyCommand?: Json
}

/** Sensu's alphabet of client and check names; a colon in one would make two checks share their keys in Redis. */
export const namePattern = /^[\w.-]+$/

/**
 * Makes the check that is stored and put into events out of a received result (Sensu 1.9): the site's definition of that check below the
 * result's attributes unless the check is standalone, `type` "standard" unless given, `origin` = the sender when there is a `source`.
 * `plain` says that result and definitions hold nothing that JavaScript's own printer would change. Returns a text saying what is wrong with a result that cannot be used.
 */
export function composeResult(
  result: Json,
  checks: { [name: string]: JsonObject | undefined },
  plain = false,
): ComposedResult | string {
  if (!isObject(result)) return 'a check result must be an object'
  const { client: sender, check: received, signature } = result
  if (typeof sender !== 'string' || !namePattern.test(sender))
    return 'client must be a name of letters, digits, "_", "." and "-"'
  if (!isObject(received)) return 'check must be an object'
  const { name, source } = received
  if (typeof name !== 'string' || !namePattern.test(name))
    return 'check name must be made of letters, digits, "_", "." and "-"'
  const definition = Object.hasOwn(checks, name) ? checks[name] : undefined
  const below = definition !== undefined && !isTruthy(received['standalone']) ? definition : {}
  const check = plain ? { ...below, ...received } : fromEntries([...entriesOf(below), ...entriesOf(received)])
  const status = integerStatus(check['status'])
  if (status === undefined) return 'check status must be an integer'
  check['status'] = status
  if (!isTruthy(check['type'])) check['type'] = 'standard'
  let client = sender
  if (isTruthy(source)) {
    if (typeof source !== 'string' || !namePattern.test(source))
      return 'check source must be made of letters, digits, "_", "." and "-"'
    client = source
    check['origin'] = sender
  }
  const composed: ComposedResult = { client, check, plain }
  if (typeof signature === 'string') composed.signature = signature
  const command = definition?.['command']
  if (command !== undefined && command !== check['command']) composed.proxyCommand = command
  return composed
}

/** A decimal text is accepted too: stored as text, Uchiwa would show a failing check as fine. */
function integerStatus(status: Json | undefined): number | undefined {
  if (typeof status === 'string' && /^-?\d{1,9}$/.test(status)) return Number(status)
  return typeof status === 'number' && Number.isSafeInteger(status) ? status : undefined
}

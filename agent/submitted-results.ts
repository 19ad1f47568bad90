import { isObject } from '../sensu/json-value.js'
import { issuedNow, withResultDefaults } from '../sensu/results.js'
import type { CheckWithResult, Json } from '../sensu/types.js'
import { validateResult } from '../sensu/validate.js'
import type { Results } from './results.js'

/** A result handed in by another program breaks a rule; the message is Sensu's. */
export class InvalidResultError extends Error {
  override readonly name = 'InvalidResultError'
}

/**
 * Publishes what other programs hand in through the local sockets: one result, or an array of results in order.
 * Throws an InvalidResultError at the first bad one; those before it are published by then (Sensu 1.9).
 */
export function publishSubmitted(document: Json, results: Results): void {
  for (const item of Array.isArray(document) ? document : [document]) results.publish(completed(item))
}

function completed(item: Json): CheckWithResult {
  if (!isObject(item)) throw new InvalidResultError('check result must be a hash')
  const nowMs = Date.now()
  const check = withResultDefaults(item, nowMs)
  const message = validateResult(check)
  if (message !== undefined) throw new InvalidResultError(message)
  return issuedNow(check, nowMs)
}

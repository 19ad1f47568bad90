import { isInTimeWindows } from './time-windows.js'
import type { Json } from './types.js'

/**
 * Whether a check with this `subdue` is not to run now (Sensu 1.9: standalone executions of the client, and requests at
 * the server).
 */
export function isSubdued(subdue: Json | undefined, now: Date): boolean {
  return isInTimeWindows(subdue, now)
}

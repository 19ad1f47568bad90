import { createHash } from 'node:crypto'
import { canonicalText } from '../sensu/json-value.js'
import type { Settings } from '../sensu/types.js'

/** A digest by which servers see whether they have the same settings (SHA-256, hex); a client's own part does not count. */
export function settingsDigest({ client: _, ...settings }: Settings): string {
  return createHash('sha256').update(canonicalText(settings)).digest('hex')
}

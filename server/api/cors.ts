import { validateHeaderName, validateHeaderValue } from 'node:http'
import { entriesOf, isObject } from '../../sensu/json-value.js'
import { plainText } from '../../sensu/text-forms.js'
import type { JsonObject } from '../../sensu/types.js'

/** What a browser may do from other places, when `api.cors` says nothing (Sensu 1.9). */
export const defaultCors: JsonObject = {
  Origin: '*',
  Methods: 'GET, POST, PUT, DELETE, OPTIONS',
  Credentials: 'true',
  Headers: 'Origin, X-Requested-With, Content-Type, Accept, Authorization',
}

/**
 * Headers that every answer has: one for each member of `api.cors`, which replaces the default as a whole; anything that is no hash, also `false`,
 * switches them off. Throws an Error that names a member that cannot be a header.
 */
export function corsHeaders(api: JsonObject | undefined): [name: string, value: string][] {
  const cors = api?.['cors'] ?? defaultCors
  if (!isObject(cors)) return []
  return entriesOf(cors).map(([key, item]) => {
    const name = `Access-Control-Allow-${key}`
    const value = plainText(item)
    try {
      validateHeaderName(name)
      validateHeaderValue(name, value)
    } catch (error) {
      throw new Error(`api cors ${key} cannot be an HTTP header: ${error instanceof Error ? error.message : error}`)
    }
    return [name, value]
  })
}

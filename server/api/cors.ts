import { validateHeaderName, validateHeaderValue } from 'node:http'
import { entriesOf, isObject } from '../../sensu/json-value.js'
import { plainText } from '../../sensu/text-forms.js'
import type { ConfigurationError, JsonObject } from '../../sensu/types.js'

/** What a browser may do from other places, when `api.cors` says nothing (Sensu 1.9). */
export const defaultCors: JsonObject = {
  Origin: '*',
  Methods: 'GET, POST, PUT, DELETE, OPTIONS',
  Credentials: 'true',
  Headers: 'Origin, X-Requested-With, Content-Type, Accept, Authorization',
}

/** Headers that every answer has: one for each member of `api.cors`, which replaces the default as a whole; anything that is no hash switches them off. */
export function corsHeaders(api: JsonObject | undefined): [name: string, value: string][] {
  const cors = api?.['cors'] ?? defaultCors
  return isObject(cors) ? entriesOf(cors).map(([key, value]) => [headerName(key), plainText(value)]) : []
}

/** Members of `api.cors` that cannot be sent as a header. */
export function corsFaults(api: JsonObject): ConfigurationError[] {
  const cors = api['cors'] ?? {}
  if (!isObject(cors)) return []
  return entriesOf(cors).flatMap(([key, value]) => {
    try {
      validateHeaderName(headerName(key))
      validateHeaderValue(headerName(key), plainText(value))
      return []
    } catch {
      return [{ object: api, message: `api cors ${key} cannot be an HTTP header` }]
    }
  })
}

function headerName(key: string): string {
  return `Access-Control-Allow-${key}`
}

import { entriesOf, fromEntries, isObject } from './json-value.js'
import type { Json, JsonObject } from './types.js'

/** Names of attributes that hold secrets, when the client's `redact` does not replace them. */
export const defaultRedactedNames: readonly string[] = [
  'password',
  'passwd',
  'pass',
  'api_key',
  'api_token',
  'access_key',
  'secret_key',
  'private_key',
  'secret',
  'routing_key',
  'access_token_read',
  'access_token_write',
  'access_token_path',
  'webhook_url',
  'nickserv_password',
  'channel_password',
  'community',
  'keystore_password',
  'truststore_password',
  'proxy_password',
  'access_key_id',
  'secret_access_key',
]

/**
 * A copy in which every member with a listed name (whole name, case-sensitive, at any depth, also inside arrays) has the
 * value `REDACTED`, whatever it was. An empty list redacts nothing.
 */
export function redact(value: JsonObject, names?: readonly string[]): JsonObject
export function redact(value: Json, names?: readonly string[]): Json
export function redact(value: Json, names: readonly string[] = defaultRedactedNames): Json {
  return names.length === 0 ? value : redactNames(value, new Set(names))
}

function redactNames(value: Json, names: ReadonlySet<string>): Json {
  if (Array.isArray(value)) return value.map(item => redactNames(item, names))
  if (!isObject(value)) return value
  return fromEntries(
    entriesOf(value).map(([key, item]) => [key, names.has(key) ? 'REDACTED' : redactNames(item, names)] as const),
  )
}

/** A URL, or several separated by commas, without the passwords in it. */
export function redactUrl(text: string): string {
  const urls = text.split(/,(?=[a-z]+:\/\/)/)
  // To the last @: a password may contain any character.
  return urls.map(url => url.replace(/(:\/\/[^:@/]*:).*(?=@)/s, '$1REDACTED')).join(',')
}

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

/** Hides secrets in what is written to a log: more than `redact` does, as nobody parses them back. */
export class LogRedaction {
  readonly #names: ReadonlySet<string>
  readonly #members: RegExp

  /** `names` besides the default ones: a client's own `redact` replaces those for keepalives, but a log is read by others. */
  constructor(names: readonly string[] = []) {
    this.#names = new Set([...defaultRedactedNames, ...names])
    const anyName = [...this.#names].map(name => name.replace(/[^\w]/g, '\\$&')).join('|')
    // a member of a JSON text, whole or cut off, perhaps inside of another text
    const quoted = '"(?:[^"\\\\]|\\\\.)*"?'
    const quotedInText = '\\\\{1,8}"(?:[^"\\\\]|\\\\{1,8}[^"\\\\])*(?:\\\\{1,8}")?'
    const value = `(?:${quotedInText}|${quoted}|[^\\s,}\\]"\\\\]+)`
    this.#members = new RegExp(`("(?:${anyName})\\\\{0,8}"\\s{0,8}:\\s{0,8})${value}`, 'g')
  }

  /** Members with such names, the same inside of texts, and passwords in URLs. */
  apply(value: JsonObject): JsonObject {
    return fromEntries(
      entriesOf(value).map(([key, item]) => [key, this.#names.has(key) ? 'REDACTED' : this.#hide(item)] as const),
    )
  }

  #hide(value: Json): Json {
    if (typeof value === 'string') return this.#hideInText(value)
    if (Buffer.isBuffer(value)) {
      const text = value.toString('latin1')
      const hidden = this.#hideInText(text)
      return hidden === text ? value : Buffer.from(hidden, 'latin1')
    }
    if (Array.isArray(value)) return value.map(item => this.#hide(item))
    return isObject(value) ? this.apply(value) : value
  }

  #hideInText(text: string): string {
    const named = text.includes('"') ? text.replace(this.#members, '$1REDACTED') : text
    // to the last @ of the word: a password may contain any character; bounded, as anything may be logged
    return named.includes('://') ? named.replace(/(:\/\/[^\s:@/"']{0,256}:)[^\s"']{0,256}(?=@)/g, '$1REDACTED') : named
  }
}

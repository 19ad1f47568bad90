import { parseJson, stringifyJson } from '../sensu/json.js'
import { isObject } from '../sensu/json-value.js'
import { parsePlainJson } from '../sensu/plain-json.js'
import type { JsonObject } from '../sensu/types.js'

/**
 * A stored JSON object as text that may be put into an answer. What begins and ends as servers write objects is taken as it is, without
 * parsing; anything else is undefined unless it is an object written in another way.
 */
export function objectText(text: string | null): string | undefined {
  if (text === null || (text.startsWith('{') && text.endsWith('}'))) return text ?? undefined
  const value = parsedObject(text)
  return value && stringifyJson(value)
}

/** A stored JSON object; undefined when it is none. */
export function parsedObject(text: string | null): JsonObject | undefined {
  if (text === null) return undefined
  try {
    const value = parsePlainJson(text) ?? parseJson(text)
    return isObject(value) ? value : undefined
  } catch {
    return undefined
  }
}

/** The text of an object with one more member at its end, for a key that it does not have. `value` is JSON. */
export function withMember(text: string, key: string, value: string): string {
  return `${text.slice(0, -1)}${text.length > 2 ? ',' : ''}"${key}":${value}}`
}

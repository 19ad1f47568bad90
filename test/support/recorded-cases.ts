import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { parseJson } from '../../sensu/json.js'
import { isObject, newObject } from '../../sensu/json-value.js'
import type { Json, JsonObject } from '../../sensu/types.js'

/** A recorded case of the server: `{case, input, observed}`. */
export function fixture(name: string): JsonObject {
  const path = new URL(`../../../test/fixtures/server/${name}.json`, import.meta.url)
  return object(parseJson(readFileSync(fileURLToPath(path), 'utf8')))
}

/** The value behind a path of keys and indexes. */
export function at(value: Json | undefined, ...path: (string | number)[]): Json {
  let found: Json | undefined = value
  for (const step of path) {
    if (Array.isArray(found) && typeof step === 'number') found = found[step]
    else found = isObject(found) ? found[String(step)] : undefined
  }
  return found ?? null
}

export function object(value: Json | undefined): JsonObject {
  return isObject(value) ? value : newObject()
}

export function list(value: Json | undefined): Json[] {
  return Array.isArray(value) ? value : []
}

/** Event texts with the id made comparable: everything else must be the same, byte for byte. */
export function withoutId(text: string): string {
  return text.replace(/^\{"id":"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"/, '{"id":"ID"')
}

/** The server's clock when a recorded event was made. */
export function timeOf(text: Json): number {
  return Number(at(parseJson(String(text)), 'timestamp'))
}

/** The result that led to an event, read back from the event: without what the server added. */
export function resultOf(text: Json): JsonObject {
  const event = object(parseJson(String(text)))
  const { history: _h, total_state_change: _t, origin, ...check } = object(event['check'])
  return { client: origin ?? at(event, 'client', 'name'), check }
}

import { canonicalText, entriesOf, fromEntries, isObject, keysOf } from './json-value.js'
import type { Json, JsonObject } from './types.js'

/**
 * Lays one value over another as Sensu 1.9 merges settings: hashes member by member, of two arrays the items of both
 * without duplicates (by value), else the second wins, also null. Keys of the first keep their place. Neither value
 * is changed; unchanged parts are shared.
 */
export function deepMerge(first: JsonObject, second: JsonObject): JsonObject
export function deepMerge(first: Json, second: Json): Json
export function deepMerge(first: Json, second: Json): Json {
  if (Array.isArray(first) && Array.isArray(second)) return uniqueItems([...first, ...second])
  if (!isObject(first) || !isObject(second)) return second
  const merged = new Map<string, Json>(entriesOf(first))
  for (const [key, value] of entriesOf(second)) {
    const before = merged.get(key)
    merged.set(key, before === undefined ? value : deepMerge(before, value))
  }
  return fromEntries(merged)
}

/**
 * What changed between two hashes, for the log: nested hashes by member, a changed value as `[before, after]`, null for
 * a missing one; unchanged members are left out.
 */
export function deepDiff(before: JsonObject, after: JsonObject): JsonObject {
  const old = new Map<string, Json>(entriesOf(before))
  const recent = new Map<string, Json>(entriesOf(after))
  const changes: [string, Json][] = []
  for (const key of new Set([...keysOf(before), ...keysOf(after)])) {
    const was = old.get(key) ?? null
    const is = recent.get(key) ?? null
    if (canonicalText(was) === canonicalText(is)) continue
    changes.push([key, isObject(was) && isObject(is) ? deepDiff(was, is) : [was, is]])
  }
  return fromEntries(changes)
}

/** The items without later duplicates of the same value. */
export function uniqueItems(items: Json[]): Json[] {
  const seen = new Map<string, Json>()
  for (const item of items) {
    const text = canonicalText(item)
    if (!seen.has(text)) seen.set(text, item)
  }
  return [...seen.values()]
}

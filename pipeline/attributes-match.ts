import { entriesOf, isNumeric, isObject, keysOf, member } from '../sensu/json-value.js'
import type { Logger } from '../sensu/log.js'
import type { Json, JsonObject } from '../sensu/types.js'

/** What a string attribute begins with when it is a Ruby expression. */
const expressionPrefix = 'eval:'

/**
 * Whether every attribute of the pattern is found in the object: equal values (5 equals 5.0), equal text forms ("5" and 5, "true" and true, "" and
 * nothing), objects attribute by attribute, arrays as a whole. An empty pattern matches. `eval:` expressions never match; they are refused
 * where a pattern comes from configuration, see expressionPaths.
 */
export function attributesMatch(object: JsonObject, pattern: JsonObject, _log?: Logger): boolean {
  return entriesOf(pattern).every(([key, wanted]) => valueMatches(member(object, key) ?? null, wanted))
}

/** Paths (`check.status`) of all `eval:` expressions in a pattern. */
export function expressionPaths(pattern: JsonObject, prefix = ''): string[] {
  return entriesOf(pattern).flatMap(([key, value]) => {
    const path = prefix === '' ? key : `${prefix}.${key}`
    if (isExpression(value)) return [path]
    return isObject(value) ? expressionPaths(value, path) : []
  })
}

function isExpression(value: Json | undefined): boolean {
  return typeof value === 'string' && value.startsWith(expressionPrefix)
}

function valueMatches(value: Json, wanted: Json): boolean {
  if (isExpression(wanted)) return false
  if (isObject(wanted)) return isObject(value) && attributesMatch(value, wanted)
  if (equal(value, wanted)) return true
  const text = textForm(wanted)
  return text !== undefined && text === textForm(value)
}

function equal(left: Json, right: Json): boolean {
  if (Array.isArray(left) && Array.isArray(right)) {
    return left.length === right.length && left.every((item, index) => equal(item, right[index] ?? null))
  }
  if (isObject(left) && isObject(right)) {
    const keys = keysOf(left)
    return (
      keys.length === keysOf(right).length &&
      keys.every(key => Object.hasOwn(right, key) && equal(left[key] ?? null, right[key] ?? null))
    )
  }
  if (Buffer.isBuffer(left) && Buffer.isBuffer(right)) return left.equals(right)
  // Neither is smaller: the comparison operators compare numbers, bigints and Floats by value.
  if (isNumeric(left) && isNumeric(right)) return !(left < right) && !(left > right)
  return left === right
}

/** Ruby's `to_s` of a scalar; undefined for arrays and objects, whose text forms nobody writes into a filter. */
function textForm(value: Json): string | undefined {
  if (value === null) return ''
  if (typeof value === 'string') return value
  if (typeof value === 'boolean' || isNumeric(value)) return String(value)
  return Buffer.isBuffer(value) ? value.toString('latin1') : undefined
}

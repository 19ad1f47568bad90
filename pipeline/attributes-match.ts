import { entriesOf, isNumeric, isObject, keysOf, member } from '../sensu/json-value.js'
import { separateTokens } from '../sensu/tokens.js'
import type { Json, JsonObject } from '../sensu/types.js'
import { compileExpression } from './expression.js'

/** What a string attribute begins with when it is an expression. */
const expressionPrefix = 'eval:'

/** What `eval:` expressions are evaluated with. */
export interface MatchSurroundings {
  now: Date
  /** Where an expression goes that cannot be evaluated; it does not match then. */
  log: { error(message: string, data?: JsonObject): void }
}

/**
 * Whether every attribute of the pattern is found in the object: equal values (5 equals 5.0), equal text forms ("5" and 5, "true" and true, "" and
 * nothing), objects attribute by attribute, arrays as a whole, or an expression (`eval: value > 3`) that is true for the value; its tokens
 * are replaced by the object's attributes first. An empty pattern matches.
 */
export function attributesMatch(object: JsonObject, pattern: JsonObject, surroundings: MatchSurroundings): boolean {
  return membersMatch(object, pattern, { ...surroundings, whole: object })
}

/** Expressions of a pattern that are not understood: where (`check.status`) and why. Tokens are taken for their default, else for 1. */
export function expressionFaults(pattern: JsonObject, prefix = ''): { path: string; fault: string }[] {
  return entriesOf(pattern).flatMap(([key, value]) => {
    const path = prefix === '' ? key : `${prefix}.${key}`
    if (isObject(value)) return expressionFaults(value, path)
    const fault = isExpression(value) ? faultOf(value) : undefined
    return fault === undefined ? [] : [{ path, fault }]
  })
}

type Context = MatchSurroundings & {
  /** The object that the pattern is of: its attributes replace the tokens. */
  whole: JsonObject
}

function membersMatch(object: JsonObject, pattern: JsonObject, context: Context): boolean {
  return entriesOf(pattern).every(([key, wanted]) => valueMatches(member(object, key) ?? null, wanted, context))
}

function valueMatches(value: Json, wanted: Json, context: Context): boolean {
  if (isObject(wanted)) return isObject(value) && membersMatch(value, wanted, context)
  if (equal(value, wanted)) return true
  const text = textForm(wanted)
  if (text !== undefined && text === textForm(value)) return true
  return isExpression(wanted) && expressionHolds(value, wanted, context)
}

function isExpression(value: Json | undefined): value is string {
  return typeof value === 'string' && value.startsWith(expressionPrefix)
}

function expressionHolds(value: Json, wanted: string, { whole, now, log }: Context): boolean {
  const written = wanted.slice(expressionPrefix.length)
  const { text, values, unmatched } = separateTokens(written, whole)
  if (unmatched.length > 0) {
    log.error('attribute value eval unmatched tokens', { value: written, unmatched_tokens: unmatched })
    return false
  }
  try {
    return compileExpression(text, values)(value, now)
  } catch (error) {
    log.error('attribute value eval error', {
      value: written,
      error: error instanceof Error ? error.message : String(error),
    })
    return false
  }
}

function faultOf(expression: string): string | undefined {
  try {
    const written = expression.slice(expressionPrefix.length)
    const { text, values } = separateTokens(written.replace(/:::([^:\n|]+?)\|?:::/g, ':::$1|1:::'), {})
    compileExpression(text, values)
    return undefined
  } catch (error) {
    return error instanceof Error ? error.message : String(error)
  }
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

import type { Json, JsonObject } from './types.js'

/**
 * A JSON float without a fraction: `1.0`, `1e3`. JavaScript's numbers cannot tell it from the integer, Sensu does:
 * it is refused where an integer is demanded and is written as a float again (`1000.0`).
 */
export class Float {
  readonly value: number
  constructor(value: number) {
    this.value = value
  }
  valueOf(): number {
    return this.value
  }
  toString(): string {
    return formatFloat(this.value)
  }
  toJSON(): number {
    return this.value
  }
}

/** A float for the wire: `float(1)` is written `1.0`, `float(0.25)` is written `0.25`. */
export function float(value: number): number | Float {
  return Number.isInteger(value) ? new Float(value) : value
}

/**
 * A float as Sensu 1.9 prints it: whole values below 2^63 in full with `.0`, values below 0.0001 and from 1e16 on with
 * an exponent of at least two digits (`1.0e-09`), zero without a sign. Throws a RangeError for NaN and infinities.
 */
export function formatFloat(value: number): string {
  if (!Number.isFinite(value)) throw new RangeError(`JSON has no number for ${value}`)
  if (value === 0) return '0.0'
  const size = Math.abs(value)
  if (Number.isInteger(value) && size < 2 ** 63) return `${BigInt(value)}.0`
  if (size >= 1e-4 && size < 1e16) return String(value)
  const [mantissa = '', exponent = ''] = value.toExponential().split('e')
  const digits = exponent.slice(1).padStart(2, '0')
  return `${mantissa.includes('.') ? mantissa : `${mantissa}.0`}e${exponent[0]}${digits}`
}

/** True for a JSON object (a "hash"), false for arrays, floats and byte strings. */
export function isObject(value: unknown): value is JsonObject {
  return (
    typeof value === 'object' &&
    value !== null &&
    !Array.isArray(value) &&
    !(value instanceof Float) &&
    !Buffer.isBuffer(value)
  )
}

/** True for an integer; `1.0` and `1e0` are floats and do not pass. */
export function isInteger(value: unknown): value is number | bigint {
  return typeof value === 'bigint' || (typeof value === 'number' && Number.isInteger(value))
}

/** True for an integer or a float. */
export function isNumeric(value: unknown): value is number | bigint | Float {
  return typeof value === 'number' || typeof value === 'bigint' || value instanceof Float
}

/** The value of an integer or a float as a plain number; undefined for anything else. */
export function toNumber(value: unknown): number | undefined {
  return isNumeric(value) ? Number(value) : undefined
}

/** Truth as the reference has it: everything but false and null (0 and the empty string are true). */
export function isTruthy(value: unknown): boolean {
  return value !== undefined && value !== null && value !== false
}

/** True when the attribute is there and not null. */
export function isSet(value: unknown): boolean {
  return value !== undefined && value !== null
}

/** An empty object without a prototype: any key, also `__proto__`, is a plain member. */
export function newObject(): JsonObject {
  return Object.create(null)
}

/** The member's value when the object itself has it; never something inherited. */
export function member(object: JsonObject, key: string): Json | undefined {
  return Object.hasOwn(object, key) ? object[key] : undefined
}

// JavaScript lists integer-like keys first. An object that has any carries the order of its keys under this symbol,
// enumerable, so that `{ ...object }` takes it along.
const keyOrder = Symbol('order of keys')
const integerLike = /^(?:0|[1-9]\d{0,9})$/

/** The object's keys in the order they were written, integer-like keys included; undefined members are left out. */
export function keysOf(object: JsonObject): string[] {
  const keys = Object.keys(object).filter(key => object[key] !== undefined)
  const remembered: unknown = Reflect.get(object, keyOrder)
  if (!Array.isArray(remembered)) return keys
  const present = new Set(keys)
  const ordered = remembered.filter(key => present.delete(key))
  return [...ordered, ...present]
}

/** Builds an object (without prototype) whose keys keep the order of the entries; a later duplicate key wins. */
export function fromEntries(entries: Iterable<readonly [string, Json | undefined]>): JsonObject {
  const object = newObject()
  let keys: Set<string> | undefined
  for (const [key, value] of entries) {
    if (keys === undefined && integerLike.test(key)) keys = new Set(Object.keys(object))
    keys?.add(key)
    object[key] = value
  }
  if (keys !== undefined) Reflect.set(object, keyOrder, Object.freeze([...keys]))
  return object
}

/** The object's members as `[key, value]`, in the order they were written. */
export function entriesOf(object: JsonObject): [string, Json][] {
  const entries: [string, Json][] = []
  for (const key of keysOf(object)) {
    const value = object[key]
    if (value !== undefined) entries.push([key, value])
  }
  return entries
}

/** A copy that shares no object or array with the original. */
export function cloneJson<T extends Json>(value: T): T
export function cloneJson(value: Json): Json {
  if (Array.isArray(value)) return value.map(item => cloneJson(item))
  if (!isObject(value)) return value
  return fromEntries(entriesOf(value).map(([key, item]) => [key, cloneJson(item)] as const))
}

/**
 * A text that is equal for two values exactly when they are equal: the order of keys does not matter, the kind of
 * number does (1 and 1.0 differ).
 */
export function canonicalText(value: Json): string {
  if (Array.isArray(value)) return `[${value.map(canonicalText).join(',')}]`
  if (isObject(value)) {
    const members = entriesOf(value).map(([key, item]) => `${JSON.stringify(key)}:${canonicalText(item)}`)
    return `{${members.sort().join(',')}}`
  }
  if (Buffer.isBuffer(value)) return `b${JSON.stringify(value.toString('latin1'))}`
  return typeof value === 'string' ? JSON.stringify(value) : String(value)
}

import { Float, float, isNumeric, isObject, keysOf, member } from '../sensu/json-value.js'
import { plainText } from '../sensu/text-forms.js'
import type { Json, JsonObject } from '../sensu/types.js'
import { ExpressionError, Moment, Range, Sym, type Value } from './expression-values.js'

type Block = (item: Value) => Value
type Method<T> = (receiver: T, args: Value[], block: Block | undefined) => Value
type Methods<T> = Readonly<Record<string, Method<T>>>

/** Truth in Ruby: everything but false and nil. */
export function truthy(value: Value): boolean {
  return value !== null && value !== false
}

/** Equality in Ruby: numbers by value, collections item by item. */
export function equals(left: Value, right: Value): boolean {
  if (left instanceof RegExp && typeof right === 'string') return left.test(right)
  if (left instanceof Range && !(right instanceof Range)) return covers(left, right)
  if (isNumeric(left) && isNumeric(right)) return Number(left) === Number(right)
  if (left instanceof Sym && right instanceof Sym) return left.name === right.name
  if (left instanceof Moment && right instanceof Moment) return left.seconds === right.seconds
  if (Array.isArray(left) && Array.isArray(right)) {
    return left.length === right.length && left.every((item, index) => equals(item, right[index] ?? null))
  }
  if (isObject(left) && isObject(right)) {
    const keys = keysOf(left)
    return (
      keys.length === keysOf(right).length &&
      keys.every(key => Object.hasOwn(right, key) && equals(left[key] ?? null, right[key] ?? null))
    )
  }
  return left === right
}

/** `<=>`: negative, 0, positive; undefined for what has no order. */
export function compare(left: Value, right: Value): number | undefined {
  if (isNumeric(left) && isNumeric(right)) return Math.sign(Number(left) - Number(right))
  if (left instanceof Moment && right instanceof Moment) return Math.sign(left.seconds - right.seconds)
  if (typeof left === 'string' && typeof right === 'string') return left < right ? -1 : left > right ? 1 : 0
  return undefined
}

/** `+ - * / %`. Of integers the quotient is rounded down, and the remainder has the divisor's sign. */
export function arithmetic(operator: string, left: Value, right: Value): Value {
  if (isNumeric(left) && isNumeric(right)) return calculate(operator, left, right)
  if (left instanceof Moment) return shift(operator, left, right)
  if (operator === '+' && typeof left === 'string' && typeof right === 'string') return left + right
  if (Array.isArray(left) && Array.isArray(right)) {
    if (operator === '+') return [...left, ...right]
    if (operator === '-') return left.filter(item => !right.some(other => equals(item, other)))
  }
  throw undefinedMethod(operator, left)
}

function calculate(operator: string, left: number | bigint | Float, right: number | bigint | Float): Value {
  const [a, b] = [Number(left), Number(right)]
  const isFloat = isFloating(left) || isFloating(right)
  if ((operator === '/' || operator === '%') && b === 0 && !isFloat) throw new ExpressionError('divided by 0')
  const results: Record<string, number> = {
    '+': a + b,
    '-': a - b,
    '*': a * b,
    '/': isFloat ? a / b : Math.floor(a / b),
    '%': a - b * Math.floor(a / b),
  }
  const result = results[operator] ?? Number.NaN
  if (!Number.isFinite(result)) throw new ExpressionError(`${operator} has no finite result`)
  return isFloat ? float(result) : result
}

function shift(operator: string, moment: Moment, by: Value): Value {
  if (operator === '-' && by instanceof Moment) return float(moment.seconds - by.seconds)
  if (isNumeric(by) && operator === '+') return new Moment(moment.seconds + Number(by), moment.utc)
  if (isNumeric(by) && operator === '-') return new Moment(moment.seconds - Number(by), moment.utc)
  throw undefinedMethod(operator, moment)
}

/** `=~`: position of the first match, nil without one. */
export function matchText(left: Value, right: Value): Value {
  if (left === null || right === null) return null
  if (left instanceof RegExp) return matchText(right, left)
  if (!(right instanceof RegExp) || typeof left !== 'string')
    throw new ExpressionError('=~ needs a text and a regular expression')
  const position = left.search(right)
  return position < 0 ? null : position
}

/** Whether any kind of value has a method of this name. */
export function isMethod(name: string): boolean {
  return methodTables.some(table => Object.hasOwn(table, name))
}

/** Calls a method. Throws an ExpressionError when this kind of value does not have it. */
export function callMethod(receiver: Value, name: string, args: Value[], block: Block | undefined): Value {
  if (['<', '>', '<=', '>='].includes(name)) return order(receiver, name, args[0] ?? null)
  const method = bound(receiver, name)
  if (method === undefined) throw undefinedMethod(name, receiver)
  return method(args, block)
}

type Bound = (args: Value[], block: Block | undefined) => Value

/** The method of this kind of value, or of any. */
function bound(receiver: Value, name: string): Bound | undefined {
  const of = <T extends Value>(table: Methods<T>, value: T): Bound | undefined => {
    const method = Object.hasOwn(table, name) ? table[name] : undefined
    return method && ((args, block) => method(value, args, block))
  }
  return bindOwn(receiver, of) ?? of(commonMethods, receiver)
}

function bindOwn(receiver: Value, of: <T extends Value>(table: Methods<T>, value: T) => Bound | undefined) {
  if (receiver === null) return of(nilMethods, receiver)
  if (typeof receiver === 'string') return of(textMethods, receiver)
  if (isNumeric(receiver)) return of(numberMethods, receiver)
  if (Array.isArray(receiver)) return of(listMethods, receiver)
  if (receiver instanceof Moment) return of(momentMethods, receiver)
  if (receiver instanceof Range) return of(rangeMethods, receiver)
  if (receiver instanceof RegExp) return of(patternMethods, receiver)
  return isObject(receiver) ? of(objectMethods, receiver) : undefined
}

function order(left: Value, operator: string, right: Value): boolean {
  if (!isNumeric(left) && typeof left !== 'string' && !(left instanceof Moment)) throw undefinedMethod(operator, left)
  const sign = compare(left, right)
  if (sign === undefined) throw new ExpressionError(`comparison of ${kindOf(left)} with ${kindOf(right)} failed`)
  return operator.startsWith('<')
    ? sign < 0 || (operator === '<=' && sign === 0)
    : sign > 0 || (operator === '>=' && sign === 0)
}

function isFloating(value: number | bigint | Float): boolean {
  return value instanceof Float || (typeof value === 'number' && !Number.isInteger(value))
}

function covers({ first, last, exclusive }: Range, value: Value): boolean {
  const [low, high] = [compare(first, value), compare(value, last)]
  return low !== undefined && high !== undefined && low <= 0 && (exclusive ? high < 0 : high <= 0)
}

function undefinedMethod(name: string, receiver: Value): ExpressionError {
  return new ExpressionError(`undefined method \`${name}' for ${kindOf(receiver)}`)
}

function kindOf(value: Value): string {
  if (value === null) return 'nil'
  if (typeof value === 'boolean') return String(value)
  if (typeof value === 'string') return 'a text'
  if (isNumeric(value)) return 'a number'
  if (Array.isArray(value)) return 'an array'
  if (value instanceof Moment) return 'a time'
  return isObject(value) ? 'a hash' : 'this value'
}

function textOf(value: Value | undefined): string {
  if (typeof value === 'string') return value
  throw new ExpressionError(`a text is needed instead of ${kindOf(value ?? null)}`)
}

function integerOf(value: Value | undefined): number {
  if (isNumeric(value)) return Math.trunc(Number(value))
  throw new ExpressionError(`a number is needed instead of ${kindOf(value ?? null)}`)
}

/** The text `to_s` gives; only of what can be in JSON. */
function asText(value: Value): string {
  if (value instanceof Sym) return value.name
  if (value instanceof RegExp || value instanceof Moment || value instanceof Range) throw undefinedMethod('to_s', value)
  return plainText(value as Json)
}

function asTime(value: Moment): string {
  return value.date.toISOString()
}

const nilMethods: Methods<null> = { to_i: () => 0, to_f: () => float(0), to_a: () => [] }

const commonMethods: Methods<Value> = {
  'nil?': receiver => receiver === null,
  to_s: receiver => (receiver instanceof Moment ? asTime(receiver) : asText(receiver)),
  'eql?': (receiver, [other = null]) => equals(receiver, other),
  'equal?': (receiver, [other = null]) => equals(receiver, other),
  'between?': (receiver, [low = null, high = null]) => order(receiver, '>=', low) && order(receiver, '<=', high),
}

function pick<T extends Value>(items: readonly T[], args: Value[]): Value {
  const [first, length] = args
  if (first instanceof Range) {
    const start = fromEnd(integerOf(first.first), items.length)
    const end = fromEnd(integerOf(first.last), items.length)
    return items.slice(start, first.exclusive ? end : end + 1)
  }
  const start = fromEnd(integerOf(first), items.length)
  if (length !== undefined) return items.slice(start, start + integerOf(length))
  return items[start] ?? null
}

function fromEnd(index: number, length: number): number {
  return index < 0 ? length + index : index
}

function pickText(text: string, args: Value[]): Value {
  const [first] = args
  if (typeof first === 'string') return text.includes(first) ? first : null
  if (first instanceof RegExp) return first.exec(text)?.[args[1] === undefined ? 0 : integerOf(args[1])] ?? null
  const picked = pick(Array.from(text), args)
  return Array.isArray(picked) ? picked.join('') : picked
}

function replacing(text: string, args: Value[], all: boolean): string {
  const [pattern, replacement] = args
  const by = textOf(replacement)
  if (!(pattern instanceof RegExp)) {
    const plain = textOf(pattern)
    return all ? text.replaceAll(plain, () => by) : text.replace(plain, () => by)
  }
  const flags = all ? `${pattern.flags}g` : pattern.flags
  return text.replace(new RegExp(pattern.source, flags), () => by)
}

const textMethods: Methods<string> = {
  'include?': (text, [part]) => text.includes(textOf(part)),
  'start_with?': (text, parts) => parts.some(part => text.startsWith(textOf(part))),
  'end_with?': (text, parts) => parts.some(part => text.endsWith(textOf(part))),
  match: (text, [pattern = null]) => (matchText(text, asPattern(pattern)) === null ? null : true),
  'match?': (text, [pattern = null]) => matchText(text, asPattern(pattern)) !== null,
  '[]': pickText,
  length: text => Array.from(text).length,
  size: text => Array.from(text).length,
  'empty?': text => text === '',
  downcase: text => text.toLowerCase(),
  upcase: text => text.toUpperCase(),
  capitalize: text => text.slice(0, 1).toUpperCase() + text.slice(1).toLowerCase(),
  strip: text => text.trim(),
  lstrip: text => text.trimStart(),
  rstrip: text => text.trimEnd(),
  chomp: text => text.replace(/\r?\n$/, ''),
  lines: text => text.match(/[^\n]*\n|[^\n]+$/g) ?? [],
  split: (text, [by = null]) =>
    by === null ? text.split(/\s+/).filter(word => word !== '') : text.split(by instanceof RegExp ? by : textOf(by)),
  sub: (text, args) => replacing(text, args, false),
  gsub: (text, args) => replacing(text, args, true),
  index: (text, [part]) => {
    const position = text.indexOf(textOf(part))
    return position < 0 ? null : position
  },
  'casecmp?': (text, [other]) => text.toLowerCase() === textOf(other).toLowerCase(),
  to_i: text => Number(/^\s*[-+]?\d+/.exec(text)?.[0] ?? 0),
  to_f: text => float(Number(/^\s*[-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?/.exec(text)?.[0] ?? 0)),
  to_sym: text => new Sym(text),
}

function asPattern(value: Value): Value {
  return typeof value === 'string' ? new RegExp(value.replace(/[^\w\s]/g, '\\$&'), 'm') : value
}

type Numeric = number | bigint | Float

const numberMethods: Methods<Numeric> = {
  'zero?': value => Number(value) === 0,
  'positive?': value => Number(value) > 0,
  'negative?': value => Number(value) < 0,
  'even?': value => Number(value) % 2 === 0,
  'odd?': value => Number(value) % 2 !== 0,
  abs: value => like(value, Math.abs(Number(value))),
  floor: value => Math.floor(Number(value)),
  ceil: value => Math.ceil(Number(value)),
  round: (value, [digits]) =>
    digits === undefined ? Math.round(Number(value)) : like(value, Number(Number(value).toFixed(integerOf(digits)))),
  to_i: value => Math.trunc(Number(value)),
  to_f: value => float(Number(value)),
  modulo: (value, [by = null]) => arithmetic('%', value, by),
  div: (value, [by = null]) => Math.floor(Number(value) / integerOf(by)),
}

function like(value: Numeric, result: number): Value {
  return isFloating(value) ? float(result) : result
}

const listMethods: Methods<Value[]> = {
  'include?': (items, [wanted = null]) => items.some(item => equals(item, wanted)),
  'member?': (items, [wanted = null]) => items.some(item => equals(item, wanted)),
  '[]': pick,
  length: items => items.length,
  size: items => items.length,
  count: (items, args, block) => items.filter(matching(args, block)).length,
  'empty?': items => items.length === 0,
  first: (items, [count]) => (count === undefined ? (items[0] ?? null) : items.slice(0, integerOf(count))),
  last: (items, [count]) =>
    count === undefined ? (items.at(-1) ?? null) : items.slice(Math.max(0, items.length - integerOf(count))),
  'any?': (items, args, block) => items.some(matching(args, block, truthy)),
  'all?': (items, args, block) => items.every(matching(args, block, truthy)),
  'none?': (items, args, block) => !items.some(matching(args, block, truthy)),
  select: (items, args, block) => items.filter(matching(args, block)),
  reject: (items, args, block) => items.filter(item => !matching(args, block)(item)),
  find: (items, args, block) => items.find(matching(args, block)) ?? null,
  map: (items, _args, block) => items.map(item => (block ? block(item) : item)),
  join: (items, [by = '']) => items.map(asText).join(textOf(by)),
  index: (items, [wanted = null]) => {
    const position = items.findIndex(item => equals(item, wanted))
    return position < 0 ? null : position
  },
  min: items => items.reduce<Value>((least, item) => (least === null || order(item, '<', least) ? item : least), null),
  max: items => items.reduce<Value>((most, item) => (most === null || order(item, '>', most) ? item : most), null),
  sum: items => items.reduce<Value>((sum, item) => arithmetic('+', sum, item), 0),
  uniq: items => items.filter((item, at) => items.findIndex(other => equals(item, other)) === at),
  compact: items => items.filter(item => item !== null),
  reverse: items => [...items].reverse(),
  to_a: items => items,
}

function matching(
  args: Value[],
  block: Block | undefined,
  otherwise = (_item: Value) => true,
): (item: Value) => boolean {
  if (block) return item => truthy(block(item))
  const [wanted] = args
  return wanted === undefined ? otherwise : item => equals(wanted, item)
}

const objectMethods: Methods<JsonObject> = {
  '[]': (object, [key = null]) => (key instanceof Sym ? (member(object, key.name) ?? null) : null),
  'key?': (object, [key = null]) => key instanceof Sym && member(object, key.name) !== undefined,
  'has_key?': (object, [key = null]) => key instanceof Sym && member(object, key.name) !== undefined,
  'include?': (object, [key = null]) => key instanceof Sym && member(object, key.name) !== undefined,
  dig: (object, keys) =>
    keys.reduce<Value>((found, key) => (found === null ? null : callMethod(found, '[]', [key], undefined)), object),
  keys: object => keysOf(object).map(key => new Sym(key)),
  values: object => keysOf(object).map(key => object[key] ?? null),
  length: object => keysOf(object).length,
  size: object => keysOf(object).length,
  'empty?': object => keysOf(object).length === 0,
}

const rangeMethods: Methods<Range> = {
  'include?': (range, [value = null]) => covers(range, value),
  'cover?': (range, [value = null]) => covers(range, value),
  'member?': (range, [value = null]) => covers(range, value),
}

const patternMethods: Methods<RegExp> = {
  match: (pattern, [text = null]) => (matchText(text, pattern) === null ? null : true),
  'match?': (pattern, [text = null]) => matchText(text, pattern) !== null,
}

function inUtc({ seconds }: Moment): Moment {
  return new Moment(seconds, true)
}

const momentMethods: Methods<Moment> = {
  hour: time => time.part('Hours'),
  min: time => time.part('Minutes'),
  sec: time => time.part('Seconds'),
  day: time => time.part('Date'),
  mday: time => time.part('Date'),
  month: time => time.part('Month') + 1,
  mon: time => time.part('Month') + 1,
  year: time => time.part('FullYear'),
  wday: time => time.part('Day'),
  to_i: ({ seconds }) => Math.floor(seconds),
  to_f: ({ seconds }) => float(seconds),
  'sunday?': time => time.part('Day') === 0,
  'monday?': time => time.part('Day') === 1,
  'tuesday?': time => time.part('Day') === 2,
  'wednesday?': time => time.part('Day') === 3,
  'thursday?': time => time.part('Day') === 4,
  'friday?': time => time.part('Day') === 5,
  'saturday?': time => time.part('Day') === 6,
  utc: inUtc,
  getutc: inUtc,
  gmtime: inUtc,
  getgm: inUtc,
  strftime: (time, [form]) => formatTime(time, textOf(form)),
}

function formatTime(time: Moment, form: string): string {
  const two = (value: number) => String(value).padStart(2, '0')
  const weekday = (style: 'long' | 'short') =>
    time.date.toLocaleDateString('en', { weekday: style, ...(time.utc && { timeZone: 'UTC' }) })
  const parts: Record<string, string> = {
    H: two(time.part('Hours')),
    M: two(time.part('Minutes')),
    S: two(time.part('Seconds')),
    d: two(time.part('Date')),
    m: two(time.part('Month') + 1),
    Y: String(time.part('FullYear')),
    u: String(time.part('Day') || 7),
    w: String(time.part('Day')),
    A: weekday('long'),
    a: weekday('short'),
    '%': '%',
  }
  return form.replace(/%([A-Za-z%])/g, (_, letter: string) => {
    const part = parts[letter]
    if (part === undefined) throw new ExpressionError(`%${letter} of strftime is not supported`)
    return part
  })
}

const methodTables: readonly object[] = [
  nilMethods,
  commonMethods,
  textMethods,
  numberMethods,
  listMethods,
  objectMethods,
  rangeMethods,
  patternMethods,
  momentMethods,
]

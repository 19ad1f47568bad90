import { formatNumber, formatQuantity } from './text.js'

/**
 * A limit as the Monitoring Plugins write it, `[@][start:][end]`: a value outside start..end (both belong to the range) violates it;
 * with `@` a value inside does.
 */
export interface Range {
  readonly start: number
  readonly end: number
  readonly inverted: boolean
  /** The canonical text, as performance data carries it. */
  readonly text: string
}

/** A text that is no range; the message says why and what to write. */
export class RangeSyntaxError extends Error {
  override readonly name = 'RangeSyntaxError'
}

const decimal = String.raw`[+-]?(?:\d+(?:\.\d*)?|\.\d+)`
/** What a range looks like, as a regular expression's source: also the JSON schema's pattern. `:10` is `0:10`; a lone `:` or `@` is refused. */
export const rangePattern = `^@?(?:(?:~|${decimal})?:${decimal}|(?:~|${decimal}):|${decimal})$`

/**
 * Reads a range. Where implementations differ: an empty text, a lone `:`, `start > end`, exponents and infinities are errors;
 * `:10` is `0:10`; negative numbers are numbers. Throws RangeSyntaxError.
 */
export function parseRange(text: string): Range {
  const trimmed = text.trim()
  if (!new RegExp(rangePattern).test(trimmed)) {
    throw new RangeSyntaxError(`not a range: write [@][start:][end], for example 80, 10:, ~:5 or @10:20`)
  }
  const inverted = trimmed.startsWith('@')
  const [first = '', second] = trimmed.replace('@', '').split(':')
  const start = second === undefined || first === '' ? 0 : first === '~' ? Number.NEGATIVE_INFINITY : Number(first)
  const end = second === undefined ? Number(first) : second === '' ? Number.POSITIVE_INFINITY : Number(second)
  if (start > end) throw new RangeSyntaxError(`start is above end: a range runs from its lower to its upper bound`)
  return { start, end, inverted, text: rangeText(start, end, inverted) }
}

function rangeText(start: number, end: number, inverted: boolean): string {
  const from = start === 0 && end !== Number.POSITIVE_INFINITY ? '' : `${formatNumber(start) ?? '~'}:`
  return `${inverted ? '@' : ''}${from}${formatNumber(end) ?? ''}`
}

/** The limit that a value from here on violates. */
export function atLeast(limit: number): Range {
  return {
    start: limit,
    end: Number.POSITIVE_INFINITY,
    inverted: true,
    text: rangeText(limit, Number.POSITIVE_INFINITY, true),
  }
}

/** The limit that a value up to here violates. */
export function atMost(limit: number): Range {
  return {
    start: Number.NEGATIVE_INFINITY,
    end: limit,
    inverted: true,
    text: rangeText(Number.NEGATIVE_INFINITY, limit, true),
  }
}

/** The same limit in a larger unit: of 20 milliseconds and a divisor of 1000, 0.02 seconds. */
export function rangeIn(divisor: number, range: Range): Range
export function rangeIn(divisor: number, range: Range | undefined): Range | undefined
export function rangeIn(divisor: number, range: Range | undefined): Range | undefined {
  if (range === undefined) return undefined
  const [start, end] = [range.start / divisor, range.end / divisor]
  return { ...range, start, end, text: rangeText(start, end, range.inverted) }
}

/** Whether the value calls for an alert. What is not a number violates every range. */
export function violates(range: Range, value: number): boolean {
  const inside = value >= range.start && value <= range.end
  return range.inverted ? inside || Number.isNaN(value) : !inside
}

/** The part of a limit that a violating value crossed, in words: `above 90 %`, `below 10 %`, `within 10 % to 20 %`. */
export function crossedLimit(range: Range, value: number, unit = ''): string {
  const [start, end] = [formatQuantity(range.start, unit), formatQuantity(range.end, unit)]
  if (!range.inverted) return value < range.start ? `below ${start}` : `above ${end}`
  if (range.start === Number.NEGATIVE_INFINITY) return `at most ${end}`
  return range.end === Number.POSITIVE_INFINITY ? `at least ${start}` : `within ${start} to ${end}`
}

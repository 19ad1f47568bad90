import type { Json } from '../sensu/types.js'

/** What an expression works with: JSON, and what Ruby has besides. */
export type Value = Json | Pattern | Moment | Range | Sym | Value[]

/** A regular expression. */
export type Pattern = RegExp

/** An expression that is not understood, or cannot be evaluated for this value. */
export class ExpressionError extends Error {
  override readonly name = 'ExpressionError'

  /** `at`: position in the expression, from 0. */
  constructor(problem: string, at?: number) {
    super(at === undefined ? problem : `${problem} at character ${at + 1}`)
  }
}

type TimePart = 'FullYear' | 'Month' | 'Date' | 'Day' | 'Hours' | 'Minutes' | 'Seconds'

/** A point in time, seconds since the epoch, in the process's time zone or in UTC. */
export class Moment {
  readonly seconds: number
  readonly utc: boolean
  constructor(seconds: number, utc = false) {
    this.seconds = seconds
    this.utc = utc
  }

  get date(): Date {
    return new Date(this.seconds * 1000)
  }

  /** What a clock or calendar shows, as JavaScript counts: months and weekdays from 0. */
  part(name: TimePart): number {
    return this.utc ? this.date[`getUTC${name}`]() : this.date[`get${name}`]()
  }
}

/** `first..last`, or `first...last`. */
export class Range {
  readonly first: Value
  readonly last: Value
  readonly exclusive: boolean
  constructor(first: Value, last: Value, exclusive: boolean) {
    this.first = first
    this.last = last
    this.exclusive = exclusive
  }
}

/** `:name`; the keys of objects are symbols to Ruby's Sensu. */
export class Sym {
  readonly name: string
  constructor(name: string) {
    this.name = name
  }
}

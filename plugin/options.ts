import { parseRange, type Range, rangePattern } from './range.js'
import { formatNumber } from './text.js'

interface Described {
  /** One sentence for `--help` and the documentation. */
  readonly summary: string
  /** One letter for the short form. */
  readonly alias?: string
  /** Whether a command line without it is refused. */
  readonly required?: boolean
}
interface Bounded {
  readonly default?: number
  readonly minimum?: number
  readonly maximum?: number
}

/** A limit in the Monitoring Plugins' range syntax; its value is a {@link Range}. */
export type RangeOption = Described & { readonly type: 'range'; readonly default?: string }
/** A decimal number. */
export type NumberOption = Described & Bounded & { readonly type: 'number' }
/** A whole number. */
export type IntegerOption = Described & Bounded & { readonly type: 'integer' }
/** Any text but the empty one. */
export type StringOption = Described & { readonly type: 'string'; readonly default?: string }
/** A text that may be given several times; without it the value is an empty list. */
export type StringsOption = Described & { readonly type: 'strings' }
/** A regular expression; its value is a RegExp. */
export type RegexOption = Described & { readonly type: 'regex'; readonly default?: string }
/** A switch, off unless given. */
export type FlagOption = Described & { readonly type: 'flag' }
/** A time such as `250ms`, `30`, `30s`, `5m`, `2h` or `1d`; its value is a number of seconds. */
export type DurationOption = Described & { readonly type: 'duration'; readonly default?: string }
/** One of several words. */
export type ChoiceOption = Described & {
  readonly type: 'choice'
  readonly choices: readonly string[]
  readonly default?: string
}

export type Option =
  | RangeOption
  | NumberOption
  | IntegerOption
  | StringOption
  | StringsOption
  | RegexOption
  | FlagOption
  | DurationOption
  | ChoiceOption

/** A check's options by name; the name in camel case is the property, in kebab case the option on the command line. */
export type OptionTable = { readonly [name: string]: Option }

interface ScalarValues {
  range: Range
  number: number
  integer: number
  string: string
  regex: RegExp
  duration: number
}

/** What `collect` and `evaluate` see of one option: undefined only when it has neither a default nor `required`. */
export type OptionValue<O extends Option> = O extends { type: 'flag' }
  ? boolean
  : O extends { type: 'strings' }
    ? readonly string[]
    :
        | (O extends { type: 'choice'; choices: readonly (infer C)[] }
            ? C
            : O['type'] extends keyof ScalarValues
              ? ScalarValues[O['type']]
              : never)
        | (O extends { default: string | number } | { required: true } ? never : undefined)

export type OptionValues<T extends OptionTable> = { readonly [Name in keyof T]: OptionValue<T[Name]> }

/** A value as the command line gives it, before it is read. */
export type RawValue = string | number | boolean | readonly string[]
export type RawValues = { readonly [name: string]: RawValue | undefined }

/** A JSON schema, as far as option tables need one. */
export type Schema = { readonly [keyword: string]: unknown }

interface Kind<O extends Option> {
  /** The stand-in for the value in `--help`. */
  readonly placeholder: string
  /** The schema of the raw value. */
  schema(option: O): Schema
  /** What to write, to finish the sentence "is not …". */
  expects(option: O): string
  /** The typed value of a raw value that the schema accepts; throws an Error whose message finishes "…: ". */
  read(raw: RawValue): unknown
}

/** A time with its unit, seconds without one. */
export const durationPattern = String.raw`^(\d+(?:\.\d+)?)(ms|s|m|h|d)?$`
const secondsPer: Readonly<Record<string, number>> = { ms: 0.001, s: 1, m: 60, h: 3600, d: 86_400 }

/** Reads a duration into seconds; undefined when it is none. */
export function parseDuration(text: string): number | undefined {
  const [, amount, unit = 's'] = new RegExp(durationPattern).exec(text) ?? []
  return amount === undefined ? undefined : Number(amount) * (secondsPer[unit] ?? 1)
}

function boundsText({ minimum, maximum }: Bounded): string {
  if (minimum !== undefined && maximum !== undefined) {
    return ` from ${formatNumber(minimum)} to ${formatNumber(maximum)}`
  }
  return minimum !== undefined
    ? ` of at least ${formatNumber(minimum)}`
    : maximum !== undefined
      ? ` of at most ${formatNumber(maximum)}`
      : ''
}

function boundsSchema({ minimum, maximum }: Bounded): Schema {
  return { ...(minimum === undefined ? {} : { minimum }), ...(maximum === undefined ? {} : { maximum }) }
}

type KindOf<T extends Option['type']> = Kind<Extract<Option, { type: T }>>

const kinds: { readonly [T in Option['type']]: KindOf<T> } = {
  range: {
    placeholder: 'RANGE',
    schema: () => ({ type: 'string', pattern: rangePattern }),
    expects: () => 'a range: write [@][start:][end], for example 80, 10:, ~:5 or @10:20',
    read: raw => parseRange(String(raw)),
  },
  number: {
    placeholder: 'NUMBER',
    schema: option => ({ type: 'number', ...boundsSchema(option) }),
    expects: option => `a number${boundsText(option)}`,
    read: Number,
  },
  integer: {
    placeholder: 'N',
    schema: option => ({ type: 'integer', ...boundsSchema(option) }),
    expects: option => `a whole number${boundsText(option)}`,
    read: Number,
  },
  string: {
    placeholder: 'TEXT',
    schema: () => ({ type: 'string', pattern: '.' }),
    expects: () => 'a text',
    read: String,
  },
  strings: {
    placeholder: 'TEXT',
    schema: () => ({ type: 'array', minItems: 1, items: { type: 'string', pattern: '.' } }),
    expects: () => 'one or more texts',
    read: raw => (Array.isArray(raw) ? raw.map(String) : [String(raw)]),
  },
  regex: {
    placeholder: 'REGEX',
    schema: () => ({ type: 'string', pattern: '.' }),
    expects: () => 'a regular expression',
    read: readRegex,
  },
  flag: {
    placeholder: '',
    schema: () => ({ type: 'boolean' }),
    expects: () => 'a switch: give it without a value',
    read: Boolean,
  },
  duration: {
    placeholder: 'TIME',
    schema: () => ({ type: 'string', pattern: durationPattern }),
    expects: () => 'a time: write 250ms, 30s, 5m, 2h or 1d (seconds without a unit)',
    read: raw => parseDuration(String(raw)),
  },
  choice: {
    placeholder: 'WORD',
    schema: option => ({ type: 'string', enum: option.choices }),
    expects: option => `one of ${option.choices.join(', ')}`,
    read: String,
  },
}

function readRegex(raw: RawValue): RegExp {
  try {
    return new RegExp(String(raw), 'u')
  } catch (error) {
    throw new Error(`not a regular expression: ${error instanceof Error ? error.message : String(error)}`)
  }
}

/** The kind of an option, typed for it: the table above holds the same type under the same key. */
export function kindOf(option: Option): Kind<Option> {
  return kinds[option.type] as Kind<Option>
}

/** `minimumOps` as it is written on the command line: `minimum-ops`. */
export function kebabCase(name: string): string {
  return name.replace(/[A-Z]/g, letter => `-${letter.toLowerCase()}`)
}

/** The JSON schema of a table's raw values, from which the validator is compiled at build time. */
export function optionsSchema(options: OptionTable): Schema {
  const entries = Object.entries(options)
  return {
    type: 'object',
    properties: Object.fromEntries(
      entries.map(([name, option]) => [
        kebabCase(name),
        {
          ...kindOf(option).schema(option),
          description: option.summary,
          ...('default' in option ? { default: option.default } : {}),
        },
      ]),
    ),
    required: entries.filter(([, option]) => option.required).map(([name]) => kebabCase(name)),
    additionalProperties: false,
  }
}

/** Numbers of the command line as numbers, so that the schema can judge them; anything else stays as it is. */
export function coerce(option: Option, raw: RawValue): RawValue {
  const numeric = option.type === 'number' || option.type === 'integer'
  return numeric && typeof raw === 'string' && /^[+-]?\d+(?:\.\d+)?$/.test(raw) ? Number(raw) : raw
}

const tableKey = Symbol('option table')

/** The names of the options that are ranges: by the table the values were read with, or else by the values themselves. */
export function rangeNames(values: object): string[] {
  const table: OptionTable | undefined = tableKey in values ? (values[tableKey] as OptionTable) : undefined
  const isRangeOption = ([name, value]: [string, unknown]) =>
    table === undefined ? isRange(value) : table[name]?.type === 'range'
  return Object.entries(values)
    .filter(isRangeOption)
    .map(([name]) => name)
}

function isRange(value: unknown): value is Range {
  return typeof value === 'object' && value !== null && 'inverted' in value && 'start' in value && 'end' in value
}

/**
 * The typed values of raw ones which the schema accepts, defaults filled in. What only reading finds out (a range that starts above its end,
 * a broken regular expression) goes to `problems`, one line each.
 */
export function readOptions<T extends OptionTable>(options: T, raw: RawValues, problems: string[]): OptionValues<T> {
  const values = Object.entries(options).map(([name, option]) => {
    const given = raw[kebabCase(name)] ?? ('default' in option ? option.default : undefined)
    try {
      return [name, given === undefined ? emptyValue(option) : kindOf(option).read(coerce(option, given))]
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error)
      problems.push(`--${kebabCase(name)} ${String(given)}: ${reason}`)
      return [name, undefined]
    }
  })
  // The kinds table gives each option the value its type promises. The table goes along unseen, for a limit that has no value yet.
  return Object.defineProperty(Object.fromEntries(values), tableKey, { value: options }) as OptionValues<T>
}

function emptyValue(option: Option): boolean | readonly string[] | undefined {
  return option.type === 'flag' ? false : option.type === 'strings' ? [] : undefined
}

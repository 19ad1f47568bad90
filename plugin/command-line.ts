import parse from 'yargs-parser'
import type { Check } from './check.js'
import { nearestName } from './nearest.js'
import {
  coerce,
  kebabCase,
  kindOf,
  type Option,
  type OptionTable,
  type OptionValues,
  optionsSchema,
  type RawValue,
  type RawValues,
  readOptions,
  type Schema,
} from './options.js'
import { readRubyArguments } from './ruby-arguments.js'

/** The option of every check that asks libvirt. */
const libvirtOptions = {
  uri: {
    type: 'string',
    alias: 'u',
    summary: 'libvirt to connect to (default: $LIBVIRT_DEFAULT_URI, or qemu:///system).',
  },
} as const satisfies OptionTable

/** The options that every check has; `uri` only if it asks libvirt. */
export const commonOptions = {
  ...libvirtOptions,
  timeout: { type: 'duration', alias: 't', default: '30', summary: 'Give up after this time, UNKNOWN.' },
  format: {
    type: 'choice',
    choices: ['nagios', 'graphite', 'influxdb', 'opentsdb', 'prometheus', 'json'],
    default: 'nagios',
    summary: 'What to print.',
  },
  scheme: { type: 'string', summary: 'First part of metric paths, and the host label (default: the host name).' },
  stateDir: {
    type: 'string',
    summary: 'Where to keep numbers between runs (default: $SENSU_KVM_STATE_DIR, or a directory of this user).',
  },
  verbose: { type: 'flag', alias: 'v', summary: 'Print a line for objects that are OK, too.' },
  version: { type: 'flag', alias: 'V', summary: 'Print the version and exit 3.' },
  help: { type: 'flag', alias: 'h', summary: 'Print this help and exit 3.' },
} as const satisfies OptionTable

/** Added to checks of guests, for `--per-guest` of an executable. */
export const deliveryOptions = {
  agentSocket: {
    type: 'string',
    default: '127.0.0.1:3030',
    summary: "The agent's client socket, to which --per-guest hands its results.",
  },
  checkName: { type: 'string', summary: "Name of the results of --per-guest (default: the program's name)." },
} as const satisfies OptionTable

export type CommonValues = OptionValues<typeof commonOptions> & OptionValues<typeof deliveryOptions>

/** A validator that ajv compiled at build time from {@link commandLineSchema}. */
export interface Validate {
  (data: unknown): boolean
  errors?: readonly ValidationError[] | null
}

/** One thing that a validator found wrong, as ajv tells it. */
export interface ValidationError {
  readonly keyword: string
  readonly instancePath: string
  readonly params: Readonly<Record<string, unknown>>
}

/** What a command line asks for. */
export type Request =
  | { readonly kind: 'help' }
  | { readonly kind: 'version' }
  | { readonly kind: 'problems'; readonly problems: readonly string[] }
  | {
      readonly kind: 'run'
      readonly common: CommonValues
      readonly options: OptionValues<OptionTable>
      /** The check's own options as given: what tells one use of the check from another. */
      readonly own: RawValues
    }

/** What a command line needs to know of a check. */
export type AnyCheck = Pick<Check<never>, 'name' | 'summary' | 'options' | 'guests' | 'local' | 'format' | 'rubyLine'>

/** Every option of a check's command line, its own first. */
export function commandLineOptions(check: AnyCheck): OptionTable {
  return { ...check.options, ...(check.guests ? deliveryOptions : {}), ...commonOptionsOf(check) }
}

/** The common options, as far as libvirt is asked and the check has none of the same name; a letter that the check uses itself is its own. */
function commonOptionsOf({ local, options, format }: AnyCheck): OptionTable {
  const letters = new Set(Object.values(options).flatMap(({ alias }) => alias ?? []))
  return Object.fromEntries(
    Object.entries<Option>({ ...commonOptions, format: { ...commonOptions.format, default: format } })
      .filter(([name]) => !(name in options) && !(local && name in libvirtOptions))
      .map(([name, { alias, ...option }]) => [
        name,
        alias === undefined || letters.has(alias) ? option : { alias, ...option },
      ]),
  )
}

/** The JSON schema of a check's command line: raw values by option name. */
export function commandLineSchema(check: AnyCheck): Schema {
  return { title: check.name, description: check.summary, ...optionsSchema(commandLineOptions(check)) }
}

/** Reads a command line. Never throws: whatever is wrong with it comes back as one line per problem. */
export function parseCommandLine(check: AnyCheck, validate: Validate, argv: readonly string[]): Request {
  const table = commandLineOptions(check)
  const { raw, problems } = readArguments(table, validate, argv, check.rubyLine ? readRubyArguments : rawValues)
  if (raw['help'] === true) return { kind: 'help' }
  if (raw['version'] === true) return { kind: 'version' }
  if (raw['all'] === true && (raw['guest'] !== undefined || raw['match'] !== undefined)) {
    problems.push('--all contradicts --guest and --match: leave one of them out')
  }
  if (problems.length > 0) return { kind: 'problems', problems: [...new Set(problems)] }
  const ownNames = new Set(Object.keys(check.options).map(kebabCase))
  const others = Object.fromEntries(Object.entries(raw).filter(([name]) => !ownNames.has(name)))
  const format = { ...commonOptions.format, default: check.format }
  const common = readOptions({ ...commonOptions, format, ...deliveryOptions }, others, problems)
  const options = readOptions(check.options, raw, problems)
  if (common.timeout === 0) problems.push('--timeout 0: leaves no time at all: write a time such as 30s')
  if (problems.length > 0) return { kind: 'problems', problems }
  const own = Object.fromEntries([...ownNames].map(name => [name, raw[name]]))
  return { kind: 'run', common, options, own }
}

/** A command line's raw values by option name in kebab case, and what is wrong with them. */
export function readArguments(
  table: OptionTable,
  validate: Validate,
  argv: readonly string[],
  read: typeof rawValues = rawValues,
): { raw: RawValues; problems: string[] } {
  const { raw, positional } = read(table, argv)
  const problems = switchValues(table, argv)
  if (!validate(raw)) problems.push(...(validate.errors ?? []).map(error => problemText(error, table, raw)))
  // It may be the value of an option that is none.
  if (problems.length === 0)
    problems.push(...positional.map(text => `unexpected argument "${text}": options start with --`))
  return { raw, problems: [...new Set(problems)] }
}

function rawValues(table: OptionTable, argv: readonly string[]): { raw: RawValues; positional: string[] } {
  const entries = Object.entries(table).map(([name, option]) => ({ name: kebabCase(name), option }))
  const named = (test: (option: Option) => boolean) =>
    entries.filter(({ option }) => test(option)).map(({ name }) => name)
  const { _: positional, ...parsed } = parse(joinNegativeValues(argv), {
    alias: Object.fromEntries(entries.flatMap(({ name, option }) => (option.alias ? [[name, [option.alias]]] : []))),
    boolean: named(option => option.type === 'flag'),
    array: named(option => option.type === 'strings'),
    string: named(option => option.type !== 'flag'),
    configuration: {
      'boolean-negation': false,
      'camel-case-expansion': false,
      'dot-notation': false,
      'parse-numbers': false,
      'parse-positional-numbers': false,
      'strip-aliased': true,
    },
  })
  const values = Object.entries(parsed).map(([name, value]) => {
    const option = entries.find(entry => entry.name === name)?.option
    return [name, option === undefined ? value : single(option, value)]
  })
  return { raw: Object.fromEntries(values), positional: positional.map(String) }
}

/** yargs-parser takes any value of a switch for yes. */
function switchValues(table: OptionTable, argv: readonly string[]): string[] {
  const switches = new Set(
    Object.entries(table).flatMap(([name, { type }]) => (type === 'flag' ? [kebabCase(name)] : [])),
  )
  return argv
    .map(argument => /^--([^=]+)=/.exec(argument)?.[1])
    .filter(name => name !== undefined && switches.has(name))
    .map(name => `--${name} is a switch: give it without a value`)
}

/** A switch may be repeated, and a number is a number. */
function single(option: Option, value: RawValue): RawValue {
  if (option.type === 'flag' && Array.isArray(value)) return true
  return coerce(option, value)
}

/** `-w -5:10` as `-w=-5:10`: a range may start with a minus sign, an option never continues with a digit, dot or tilde. */
function joinNegativeValues(argv: readonly string[]): string[] {
  const joined: string[] = []
  for (const argument of argv) {
    const previous = joined.at(-1)
    const isValue = /^-[\d.~]/.test(argument) && previous !== undefined && /^-[^=]+$/.test(previous)
    if (isValue) joined[joined.length - 1] = `${previous}=${argument}`
    else joined.push(argument)
  }
  return joined
}

function problemText({ keyword, instancePath, params }: ValidationError, table: OptionTable, raw: RawValues): string {
  if (keyword === 'additionalProperties') return unknownOption(String(params['additionalProperty']), table)
  const name = keyword === 'required' ? String(params['missingProperty']) : (instancePath.split('/')[1] ?? '')
  const option = Object.entries(table).find(([key]) => kebabCase(key) === name)?.[1]
  const expects = option === undefined ? 'valid' : kindOf(option).expects(option)
  if (keyword === 'required') return `--${name} is missing: it takes ${expects}`
  const value = raw[name]
  if (Array.isArray(value) && option?.type !== 'strings')
    return `--${name} is given ${value.length} times: give it once`
  const missing = value === '' || (Array.isArray(value) && (value.length === 0 || value.includes('')))
  return missing ? `--${name} needs a value: it takes ${expects}` : `--${name} ${String(value)}: not ${expects}`
}

function unknownOption(name: string, table: OptionTable): string {
  const meant = nearestName(name, Object.keys(table).map(kebabCase))
  const dashes = name.length === 1 ? '-' : '--'
  return `unknown option ${dashes}${name}: ${meant === undefined ? 'see --help' : `did you mean --${meant}?`}`
}

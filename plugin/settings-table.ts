import { parseDuration, type Schema } from './options.js'
import { Secret } from './secret.js'

interface Described {
  /** One sentence for `--help` and the documentation. */
  readonly summary: string
  /** Whether a section without it is refused. */
  readonly required?: boolean
}

/** Any text but the empty one; with `protocols` (`['http', 'https']`) it is the URL of one of these. */
export type TextSetting = Described & {
  readonly type: 'text'
  readonly default?: string
  readonly protocols?: readonly string[]
}
/** A list of texts; a single one may stand without the brackets. Without it the value is an empty list. */
export type TextsSetting = Described & { readonly type: 'texts'; readonly choices?: readonly string[] }
/** A whole number. */
export type IntegerSetting = Described & {
  readonly type: 'integer'
  readonly default?: number
  readonly minimum: number
  readonly maximum: number
}
/** True or false. */
export type BooleanSetting = Described & { readonly type: 'boolean'; readonly default: boolean }
/** One of several words. */
export type ChoiceSetting = Described & {
  readonly type: 'choice'
  readonly choices: readonly string[]
  readonly default?: string
}
/** A time: a number of seconds, or a text such as `500ms`, `8s`, `5m`; the value is in seconds. */
export type SecondsSetting = Described & {
  readonly type: 'seconds'
  readonly default?: number
  readonly minimum?: number
}
/**
 * A password, token or secret URL: from the attribute itself, from the file that `NAME_file` names, or from the environment variable that
 * `NAME_env` names.
 */
export type SecretSetting = Described & { readonly type: 'secret'; readonly protocols?: readonly string[] }
/** Texts by name, such as the headers of a request. Without it the value is empty. */
export type TextsByNameSetting = Described & { readonly type: 'texts by name' }
/** Any JSON value. */
export type JsonSetting = Described & { readonly type: 'json' }
/** Hashes by name that all have the same settings. Without it the value is empty. */
export type HashesSetting = Described & { readonly type: 'hashes'; readonly settings: SettingTable }

export type Setting =
  | TextSetting
  | TextsSetting
  | IntegerSetting
  | BooleanSetting
  | ChoiceSetting
  | SecondsSetting
  | SecretSetting
  | TextsByNameSetting
  | JsonSetting
  | HashesSetting

/** The settings of a section by attribute, in snake case. */
export type SettingTable = { readonly [attribute: string]: Setting }

interface Values<S extends Setting> {
  text: string
  texts: readonly string[]
  integer: number
  boolean: boolean
  choice: S extends { choices: readonly (infer C)[] } ? C : never
  seconds: number
  secret: Secret
  'texts by name': Readonly<Record<string, string>>
  json: unknown
  hashes: S extends { settings: infer T extends SettingTable } ? Readonly<Record<string, SettingValues<T>>> : never
}

/** What a handler sees of one setting: undefined only when it has neither a default nor `required`, and is no list. */
export type SettingValue<S extends Setting> =
  | Values<S>[S['type']]
  | (S extends { default: unknown } | { required: true } | { type: 'texts' | 'texts by name' | 'hashes' }
      ? never
      : undefined)

export type SettingValues<T extends SettingTable> = { readonly [Name in keyof T]: SettingValue<T[Name]> }

/** Where secrets come from besides the settings. */
export interface SecretSources {
  readonly variables: Readonly<Record<string, string | undefined>>
  /** The text of a file; throws when it cannot be read. */
  readFile(path: string): string
}

/** One thing that is wrong with a section: where in it, and what must be. */
export interface SettingProblem {
  /** The attribute, and within it the keys and positions. */
  readonly path: readonly string[]
  /** Finishes the sentence that begins with the attribute's name. */
  readonly rule: string
}

interface Kind<S extends Setting> {
  /** The JSON schema of the value as it stands in the configuration. */
  schema(setting: S): Schema
  /** What the value must be, to finish "must be …". */
  expects(setting: S): string
  /** The value of what the schema accepts; throws an Error whose message finishes the sentence that begins with the attribute. */
  read(value: unknown, setting: S): unknown
}

const someText = { type: 'string', pattern: '.' }
const durationPattern = String.raw`^\d+(?:\.\d+)?(?:ms|s|m|h|d)?$`

type KindOf<T extends Setting['type']> = Kind<Extract<Setting, { type: T }>>

const kinds: { readonly [T in Exclude<Setting['type'], 'secret' | 'hashes'>]: KindOf<T> } = {
  text: {
    schema: () => someText,
    expects: ({ protocols }) => (protocols === undefined ? 'a text' : urlText(protocols)),
    read: (value, { protocols }) => checkedUrl(String(value), protocols),
  },
  texts: {
    schema: ({ choices }) => {
      const item = choices === undefined ? someText : { type: 'string', enum: choices }
      return { anyOf: [item, { type: 'array', minItems: 1, maxItems: 1000, items: item }] }
    },
    expects: ({ choices }) =>
      choices === undefined ? 'a text, or a list of texts' : `one or a list of: ${choices.join(', ')}`,
    read: value => (Array.isArray(value) ? value.map(String) : [String(value)]),
  },
  integer: {
    schema: ({ minimum, maximum }) => ({ type: 'integer', minimum, maximum }),
    expects: ({ minimum, maximum }) => `a whole number from ${minimum} to ${maximum}`,
    read: Number,
  },
  boolean: { schema: () => ({ type: 'boolean' }), expects: () => 'true or false', read: Boolean },
  choice: {
    schema: ({ choices }) => ({ type: 'string', enum: choices }),
    expects: ({ choices }) => `one of: ${choices.join(', ')}`,
    read: String,
  },
  seconds: {
    schema: ({ minimum = 0 }) => ({
      anyOf: [
        { type: 'number', minimum },
        { type: 'string', pattern: durationPattern },
      ],
    }),
    expects: ({ minimum = 0 }) =>
      `a number of seconds, or a time such as 500ms, 8s or 5m${minimum === 0 ? '' : `; at least ${minimum} s`}`,
    read(value, setting) {
      const seconds = typeof value === 'number' ? value : (parseDuration(String(value)) ?? Number.NaN)
      if (seconds >= (setting.minimum ?? 0)) return seconds
      throw new Error(`must be ${this.expects(setting)}`)
    },
  },
  'texts by name': {
    schema: () => ({ type: 'object', additionalProperties: { type: 'string' } }),
    expects: () => 'a hash of texts',
    read: value => ({ ...Object(value) }),
  },
  json: { schema: () => ({}), expects: () => 'any JSON value', read: value => value },
}

function urlText(protocols: readonly string[]): string {
  return `a URL that starts with ${protocols.map(protocol => `${protocol}://`).join(' or ')}`
}

/** The text, when it is a URL of one of the protocols or none is asked for; never repeated in the error, as it may be secret. */
function checkedUrl(text: string, protocols: readonly string[] | undefined): string {
  if (protocols === undefined) return text
  const protocol = URL.canParse(text) ? new URL(text).protocol.slice(0, -1) : ''
  if (!protocols.includes(protocol)) throw new Error(`must be ${urlText(protocols)}`)
  return text
}

/** What a setting's value must be, for people: finishes "must be …". */
export function expectsText(setting: Setting): string {
  if (setting.type === 'secret') return setting.protocols === undefined ? 'a text' : urlText(setting.protocols)
  if (setting.type === 'hashes') return 'a hash of hashes'
  return kindOf(setting).expects(setting)
}

function kindOf(setting: Exclude<Setting, SecretSetting | HashesSetting>): Kind<Setting> {
  return kinds[setting.type] as Kind<Setting>
}

/** The attributes that a setting has in the configuration. */
export function attributesOf(name: string, setting: Setting): string[] {
  return setting.type === 'secret' ? [name, `${name}_file`, `${name}_env`] : [name]
}

/** The JSON schema of a section. */
export function settingsSchema(table: SettingTable): Schema {
  const entries = Object.entries(table)
  const properties = entries.flatMap(([name, setting]) => {
    const defaults = 'default' in setting && setting.default !== undefined ? { default: setting.default } : {}
    return attributesOf(name, setting).map((attribute, index) => {
      const description = index === 0 ? setting.summary : secretSummaries[index - 1]
      return [attribute, { ...valueSchema(setting), description, ...defaults }] as const
    })
  })
  return {
    type: 'object',
    properties: Object.fromEntries(properties),
    // A required secret has three places, which only reading looks through.
    required: entries.filter(([, { type, required }]) => required && type !== 'secret').map(([name]) => name),
    additionalProperties: false,
  }
}

const secretSummaries = ['The file it stands in.', 'The environment variable it stands in.']

function valueSchema(setting: Setting): Schema {
  if (setting.type === 'secret') return someText
  if (setting.type === 'hashes') return { type: 'object', additionalProperties: settingsSchema(setting.settings) }
  return kindOf(setting).schema(setting)
}

/** The typed values of a section that its schema accepts, defaults filled in. What only reading finds out goes to `problems`. */
export function readSettings<T extends SettingTable>(
  table: T,
  section: Readonly<Record<string, unknown>>,
  sources: SecretSources,
  problems: SettingProblem[],
  path: readonly string[] = [],
): SettingValues<T> {
  const values = Object.entries(table).map(([name, setting]) => {
    const here = [...path, name]
    try {
      if (setting.type === 'secret') return [name, readSecret(name, setting, section, sources)]
      const given = Object.hasOwn(section, name) ? (section[name] ?? undefined) : undefined
      if (setting.type === 'hashes') return [name, readHashes(setting.settings, given, sources, problems, here)]
      return [name, given === undefined ? emptyValue(setting) : kindOf(setting).read(given, setting)]
    } catch (error) {
      problems.push({ path: here, rule: error instanceof Error ? error.message : String(error) })
      return [name, undefined]
    }
  })
  // The kinds table gives each setting the value its type promises; with problems the values are not used.
  return Object.fromEntries(values) as SettingValues<T>
}

function emptyValue(setting: Setting): unknown {
  if (setting.type === 'texts') return []
  if (setting.type === 'texts by name') return {}
  return 'default' in setting ? setting.default : undefined
}

function readHashes(
  table: SettingTable,
  given: unknown,
  sources: SecretSources,
  problems: SettingProblem[],
  path: readonly string[],
): Readonly<Record<string, unknown>> {
  const entries = Object.entries<Readonly<Record<string, unknown>>>(Object(given ?? {}))
  return Object.fromEntries(
    entries.map(([name, hash]) => [name, readSettings(table, hash, sources, problems, [...path, name])]),
  )
}

function readSecret(
  name: string,
  { required, protocols }: SecretSetting,
  section: Readonly<Record<string, unknown>>,
  { variables, readFile }: SecretSources,
): Secret | undefined {
  const given = (attribute: string) =>
    Object.hasOwn(section, attribute) && section[attribute] !== null ? String(section[attribute]) : undefined
  const [value, file, variable] = [given(name), given(`${name}_file`), given(`${name}_env`)]
  const places = [value, file, variable].filter(place => place !== undefined).length
  if (places > 1) throw new Error(`must be given once: as ${name}, ${name}_file or ${name}_env`)
  if (places === 0) {
    if (required) throw new Error(`is missing: give ${name}, ${name}_file or ${name}_env`)
    return undefined
  }
  const text = value ?? (file === undefined ? variables[variable ?? ''] : fileText(file, readFile))?.trim()
  if (text === undefined || text === '') {
    throw new Error(file === undefined ? `must be in the environment variable ${variable}` : `must be in ${file}`)
  }
  return new Secret(checkedUrl(text, protocols))
}

function fileText(path: string, readFile: SecretSources['readFile']): string {
  try {
    return readFile(path)
  } catch (error) {
    throw new Error(`cannot be read from ${path}: ${error instanceof Error ? error.message : String(error)}`)
  }
}

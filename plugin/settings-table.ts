import { durationPattern, type Schema } from './options.js'
import type { Secret } from './secret.js'
import { urlText } from './setting-rules.js'

/** Longest list of texts. */
export const mostTexts = 1000

interface Described {
  /** One sentence for `--help` and the documentation. */
  readonly summary: string
  /** Whether a section without it is refused. */
  readonly required?: boolean
}

/** What is wrong with a value that has the right type, to finish the sentence that begins with the attribute: `must be an absolute path`. Undefined when nothing is. */
export type Rule = (text: string) => string | undefined

/** Any text but the empty one; with `protocols` (`['http', 'https']`) it is the URL of one of these. */
export type TextSetting = Described & {
  readonly type: 'text'
  readonly default?: string
  readonly protocols?: readonly string[]
  readonly rule?: Rule
}
/** A list of texts; a single one may stand without the brackets. Without it the value is an empty list. The rule is for each. */
export type TextsSetting = Described & {
  readonly type: 'texts'
  readonly choices?: readonly string[]
  readonly rule?: Rule
}
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
  readonly minimum: number
  readonly maximum: number
}
/**
 * A password, token or secret URL: from the attribute itself, from the file that `NAME_file` names, or from the environment variable that
 * `NAME_env` names.
 */
export type SecretSetting = Described & {
  readonly type: 'secret'
  readonly protocols?: readonly string[]
  readonly rule?: Rule
}
/** A file that is read along with the configuration; the value is what is in it, and the rule is for that. */
export type FileSetting = Described & { readonly type: 'file'; readonly rule?: Rule }
/** Texts by name, such as the headers of a request. Without it the value is empty. */
export type TextsByNameSetting = Described & {
  readonly type: 'texts by name'
  readonly nameRule?: Rule
  readonly rule?: Rule
}
/** The same with values that are secret. */
export type SecretsByNameSetting = Described & {
  readonly type: 'secrets by name'
  readonly nameRule?: Rule
  readonly rule?: Rule
}
/** Any JSON value. */
export type JsonSetting = Described & { readonly type: 'json'; readonly rule?: (value: unknown) => string | undefined }
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
  | FileSetting
  | TextsByNameSetting
  | SecretsByNameSetting
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
  file: string
  'texts by name': Readonly<Record<string, string>>
  'secrets by name': Readonly<Record<string, Secret>>
  json: unknown
  hashes: S extends { settings: infer T extends SettingTable } ? Readonly<Record<string, SettingValues<T>>> : never
}

/** What a handler sees of one setting: undefined only when it has neither a default nor `required`, and is no list. */
export type SettingValue<S extends Setting> =
  | Values<S>[S['type']]
  | (S extends
      | { default: unknown }
      | { required: true }
      | { type: 'texts' | 'texts by name' | 'secrets by name' | 'hashes' }
      ? never
      : undefined)

export type SettingValues<T extends SettingTable> = { readonly [Name in keyof T]: SettingValue<T[Name]> }

/** One thing that is wrong with a section: where in it, and what must be. */
export interface SettingProblem {
  /** The attribute, and within it names and items. */
  readonly path: readonly string[]
  /** Finishes the sentence that begins with the attribute's name. */
  readonly rule: string
}

/** How a type of settings stands in the configuration. */
interface Form<S extends Setting> {
  /** The JSON schema of the value. */
  schema(setting: S): Schema
  /** What the value must be, for people: finishes "must be …". */
  expects(setting: S): string
}

const someText = { type: 'string', pattern: '.' }
const hashOfTexts = {
  schema: () => ({ type: 'object', additionalProperties: { type: 'string' } }),
  expects: () => 'a hash of texts',
}

const forms: { readonly [T in Setting['type']]: Form<Extract<Setting, { type: T }>> } = {
  text: { schema: () => someText, expects: textOrUrl },
  texts: {
    schema: ({ choices }) => {
      const item = choices === undefined ? someText : { type: 'string', enum: choices }
      return { anyOf: [item, { type: 'array', minItems: 1, maxItems: mostTexts, items: item }] }
    },
    expects: ({ choices }) =>
      choices === undefined ? 'a text, or a list of texts' : `one or a list of: ${choices.join(', ')}`,
  },
  integer: {
    schema: ({ minimum, maximum }) => ({ type: 'integer', minimum, maximum }),
    expects: ({ minimum, maximum }) => `a whole number from ${minimum} to ${maximum}`,
  },
  boolean: { schema: () => ({ type: 'boolean' }), expects: () => 'true or false' },
  choice: {
    schema: ({ choices }) => ({ type: 'string', enum: choices }),
    expects: ({ choices }) => `one of: ${choices.join(', ')}`,
  },
  seconds: {
    schema: ({ minimum, maximum }) => ({
      anyOf: [
        { type: 'number', minimum, maximum },
        { type: 'string', pattern: durationPattern },
      ],
    }),
    expects: ({ minimum, maximum }) =>
      `a number of seconds, or a time such as 500ms, 8s or 5m; from ${minimum} s to ${maximum} s`,
  },
  secret: { schema: () => someText, expects: textOrUrl },
  file: { schema: () => someText, expects: () => 'the path of a file' },
  'texts by name': hashOfTexts,
  'secrets by name': hashOfTexts,
  json: { schema: () => ({}), expects: () => 'any JSON value' },
  hashes: {
    schema: ({ settings }) => ({ type: 'object', additionalProperties: settingsSchema(settings) }),
    expects: () => 'a hash of hashes',
  },
}

function textOrUrl({ protocols }: { readonly protocols?: readonly string[] }): string {
  return protocols === undefined ? 'a text' : urlText(protocols)
}

/** What a setting's value must be, for people: finishes "must be …". */
export function expectsText(setting: Setting): string {
  return formOf(setting).expects(setting)
}

function formOf(setting: Setting): Form<Setting> {
  return forms[setting.type] as Form<Setting>
}

/** The attributes that a setting has in the configuration. */
export function attributesOf(name: string, setting: Setting): string[] {
  return setting.type === 'secret' ? [name, `${name}_file`, `${name}_env`] : [name]
}

/** The JSON schema of a section, for editors; what a handler accepts is decided by reading it (`settings-reader.ts`), which refuses all that the schema does. */
export function settingsSchema(table: SettingTable): Schema {
  const entries = Object.entries(table)
  const properties = entries.flatMap(([name, setting]) => {
    const defaults = 'default' in setting && setting.default !== undefined ? { default: setting.default } : {}
    return attributesOf(name, setting).map((attribute, index) => {
      const description = index === 0 ? setting.summary : secretSummaries[index - 1]
      return [attribute, { ...formOf(setting).schema(setting), description, ...defaults }] as const
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

import { nearestName } from './nearest.js'
import { parseDuration } from './options.js'
import { Secret } from './secret.js'
import { urlRule } from './setting-rules.js'
import {
  attributesOf,
  expectsText,
  mostTexts,
  type Rule,
  type SecretSetting,
  type SecretsByNameSetting,
  type Setting,
  type SettingTable,
  type SettingValues,
  type TextSetting,
  type TextsByNameSetting,
} from './settings-table.js'

/** What a section is read with. */
export interface SettingSources {
  readonly variables: Readonly<Record<string, string | undefined>>
  /** The text of a file; throws when it cannot be read. */
  readFile(path: string): string
  /** Whether all of the configuration could be read: only then a setting can be missing. */
  readonly isComplete: boolean
}

/** Told what is wrong: `rule` finishes the sentence that begins with the attribute, `path` is the attribute, and within it names and items. */
export type Fail = (rule: string, ...path: readonly string[]) => void

type Hash = Readonly<Record<string, unknown>>

/**
 * The values of a section, defaults filled in. All that is wrong with it is told to `fail`, in the order of the table with what the table does not know in front; a
 * setting that is wrong has some value, which must not be used.
 */
export function readSettings<T extends SettingTable>(
  table: T,
  section: Hash,
  sources: SettingSources,
  fail: Fail,
): SettingValues<T> {
  const settings = Object.entries(table)
  const known = settings.flatMap(([name, setting]) => attributesOf(name, setting))
  for (const attribute of Object.keys(section).filter(attribute => !known.includes(attribute))) {
    const meant = nearestName(attribute, known)
    fail(`is not a known setting${meant === undefined ? '' : `: did you mean ${meant}?`}`, attribute)
  }
  const values = settings.map(([name, setting]) => [name, readSetting(name, setting, section, sources, fail)])
  // The readers give each setting the value its type promises, unless they failed.
  return Object.fromEntries(values) as SettingValues<T>
}

function readSetting(name: string, setting: Setting, section: Hash, sources: SettingSources, fail: Fail): unknown {
  if (setting.type === 'secret') return readSecret(name, setting, section, sources, fail)
  if (Object.hasOwn(section, name)) {
    const read = readers[setting.type] as Reader<Setting>
    return read(section[name], setting, (rule, ...path) => fail(rule, name, ...path), sources)
  }
  if (setting.required && sources.isComplete) fail(`is missing: it ${mustBe(setting)}`, name)
  if (setting.type === 'texts') return []
  if (/by name$|^hashes$/.test(setting.type)) return {}
  return 'default' in setting ? setting.default : undefined
}

/** The typed value of one that stands in the section. */
type Reader<S extends Setting> = (given: unknown, setting: S, fail: Fail, sources: SettingSources) => unknown

const readers: { readonly [T in Exclude<Setting['type'], 'secret'>]: Reader<Extract<Setting, { type: T }>> } = {
  text: readText,
  texts(given, setting, fail) {
    const { choices, rule } = setting
    const items: readonly unknown[] = Array.isArray(given) ? given : [given]
    const texts = items.filter(item => isText(item)).filter(item => choices?.includes(item) ?? true)
    if (texts.length < Math.max(1, items.length) || items.length > mostTexts) fail(mustBe(setting))
    for (const text of texts) apply(rule, text, broken => fail(broken, text))
    return texts
  },
  integer: (given, setting, fail) => {
    const isRight = typeof given === 'number' && Number.isInteger(given) && isWithin(given, setting)
    return isRight ? given : fail(mustBe(setting))
  },
  boolean: (given, setting, fail) => (typeof given === 'boolean' ? given : fail(mustBe(setting))),
  choice: (given, setting, fail) => setting.choices.find(choice => choice === given) ?? fail(mustBe(setting)),
  seconds(given, setting, fail) {
    const seconds = typeof given === 'string' ? parseDuration(given) : given
    return typeof seconds === 'number' && isWithin(seconds, setting) ? seconds : fail(mustBe(setting))
  },
  file(given, setting, fail, { readFile }) {
    if (!isText(given)) return fail(mustBe(setting))
    const text = readTextFile(given, readFile, fail)
    if (text !== undefined) apply(setting.rule, text, fail)
    return text
  },
  'texts by name': readByName,
  'secrets by name': (given, setting, fail) => {
    const texts = Object.entries(readByName(given, setting, fail))
    return Object.fromEntries(texts.map(([name, text]) => [name, new Secret(String(text))]))
  },
  json(given, { rule }, fail) {
    const broken = rule?.(given)
    if (broken !== undefined) fail(broken)
    return given ?? undefined
  },
  hashes(given, setting, fail, sources) {
    if (!isHash(given)) return fail(mustBe(setting))
    const hashes = Object.entries(given).map(([name, hash]) => {
      if (!isHash(hash)) return [name, fail('must be a hash', name)] as const
      return [
        name,
        readSettings(setting.settings, hash, sources, (rule, ...path) => fail(rule, name, ...path)),
      ] as const
    })
    return Object.fromEntries(hashes)
  },
}

function readText(given: unknown, setting: TextSetting | SecretSetting, fail: Fail): string | undefined {
  if (!isText(given)) {
    fail(mustBe(setting))
    return undefined
  }
  const { protocols, rule } = setting
  // Blanks around a URL mean nothing.
  const text = protocols === undefined ? given : given.trim()
  const broken = protocols === undefined ? undefined : urlRule(text, protocols)
  if (broken === undefined) apply(rule, text, fail)
  else fail(broken)
  return text
}

function readByName(given: unknown, setting: TextsByNameSetting | SecretsByNameSetting, fail: Fail): Hash {
  if (!isHash(given)) {
    fail(mustBe(setting))
    return {}
  }
  for (const [name, text] of Object.entries(given)) {
    const failHere = (rule: string) => fail(rule, name)
    apply(setting.nameRule, name, failHere)
    if (typeof text === 'string') apply(setting.rule, text, failHere)
    else failHere('must be a text')
  }
  return given
}

/** From its one place; every place that is given is looked at. */
function readSecret(
  name: string,
  setting: SecretSetting,
  section: Hash,
  { variables, readFile, isComplete }: SettingSources,
  fail: Fail,
): Secret | undefined {
  const [, inFile, inVariable] = attributesOf(name, setting)
  const places = attributesOf(name, setting).filter(attribute => Object.hasOwn(section, attribute))
  const alternatives = `${name}, ${inFile} or ${inVariable}`
  if (places.length > 1) fail(`must be given once: as ${alternatives}`, name)
  if (places.length === 0 && setting.required && isComplete) fail(`is missing: give ${alternatives}`, name)
  const texts = places.map(attribute => {
    const given = section[attribute]
    const failHere = (rule: string) => fail(rule, attribute)
    if (attribute === name) return readText(given, setting, failHere)
    const text = attribute === inFile ? secretFile(given, readFile, failHere) : variable(given, variables, failHere)
    return text === undefined ? undefined : readText(text, setting, rule => failHere(`leads to a value that ${rule}`))
  })
  const [text] = texts
  return text === undefined ? undefined : new Secret(text)
}

function secretFile(given: unknown, readFile: SettingSources['readFile'], fail: Fail): string | undefined {
  if (!isText(given)) {
    fail('must be the path of a file')
    return undefined
  }
  const text = readTextFile(given, readFile, fail)?.trim()
  if (text === '') fail('must be the path of a file that is not empty')
  return text || undefined
}

function variable(given: unknown, variables: SettingSources['variables'], fail: Fail): string | undefined {
  const text = isText(given) && Object.hasOwn(variables, given) ? variables[given]?.trim() : undefined
  // The name is not repeated: who mistakes the setting writes the secret itself there.
  if (!text) fail('must be the name of an environment variable that is set, and not empty')
  return text || undefined
}

/** The text of a file; undefined when it cannot be read. The path is repeated only when it is one beyond doubt, and no secret that was put there by mistake. */
function readTextFile(path: string, readFile: SettingSources['readFile'], fail: Fail): string | undefined {
  try {
    return readFile(path)
  } catch (error) {
    const reason = error instanceof Error && !path.includes('\0') ? error.message : 'that is no path'
    fail(`cannot be read${path.startsWith('/') ? ` from ${path}` : ''}: ${reason.replace(/, open '.*'$/s, '')}`)
    return undefined
  }
}

function apply(rule: Rule | undefined, text: string, fail: Fail): void {
  const broken = rule?.(text)
  if (broken !== undefined) fail(broken)
}

function mustBe(setting: Setting): string {
  return `must be ${expectsText(setting)}`
}

function isWithin(number: number, { minimum, maximum }: { minimum: number; maximum: number }): boolean {
  return number >= minimum && number <= maximum
}

/** A text that is more than line breaks. */
function isText(value: unknown): value is string {
  return typeof value === 'string' && /./.test(value)
}

/** A JSON object. */
export function isHash(value: unknown): value is Hash {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

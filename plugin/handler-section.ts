import type { Validate, ValidationError } from './command-line.js'
import type { Handler } from './handler.js'
import { nearestName } from './nearest.js'
import {
  attributesOf,
  expectsText,
  readSettings,
  type SecretSources,
  type Setting,
  type SettingProblem,
  type SettingTable,
  type SettingValues,
} from './settings-table.js'

/** Which part of which configuration is wanted. */
export interface SectionRequest {
  readonly section: string
  /** As the command line names them; without either it is where Sensu's own plugins look. */
  readonly file: string | undefined
  readonly directories: readonly string[]
  readonly variables: Readonly<Record<string, string | undefined>>
}

/** What was found of it. */
export interface LoadedSection {
  /** The section, merged as Sensu merges files; undefined when no file has it. */
  readonly value: unknown
  /** The last file that has this attribute of the section. */
  fileOf(attribute: string): string | undefined
  /** The files that were read, and where others were looked for. */
  readonly looked: string
  /** What could not be read: file and reason. */
  readonly errors: readonly { readonly file: string; readonly error: string }[]
}

/** A handler's settings from its section, and everything that is wrong with it, in lines of file, attribute and rule. With any, the settings must not be used. */
export function readSection(
  handler: Handler,
  validate: Validate,
  section: string,
  loaded: LoadedSection,
  sources: SecretSources,
): { settings: SettingValues<SettingTable>; problems: string[] } {
  const problems: string[] = loaded.errors.map(({ file, error }) => `${file}: ${error}`)
  const found: SettingProblem[] = []
  const value = loaded.value ?? {}
  if (loaded.value === undefined) {
    problems.push(
      `${section}: there is no such section in ${loaded.looked}: add one, see docs/handlers/${handler.name}.md`,
    )
  } else if (typeof value !== 'object' || Array.isArray(value)) {
    problems.push(`${section} must be a hash`)
  } else if (!validate(value)) {
    found.push(...(validate.errors ?? []).flatMap(error => schemaProblem(error, handler.settings)))
  }
  if (problems.length > 0) return { settings: {}, problems }
  const wrong = new Set(found.map(({ path }) => path[0]))
  // Values that the schema refuses are not read; all others are, so that every error is told at once.
  const readable = Object.fromEntries(Object.entries(value).filter(([attribute]) => !wrong.has(attribute)))
  const reading: SettingProblem[] = []
  const settings = readSettings(handler.settings, readable, sources, reading)
  found.push(...reading.filter(({ path: [attribute = ''] }) => !wrong.has(attribute)))
  if (found.length === 0) {
    const rules = handler.rules(settings).map(rule => {
      const [, attribute = '', text = ''] = /^(\S+) (.*)$/s.exec(rule) ?? []
      return { path: [attribute], rule: text }
    })
    found.push(...rules)
  }
  const lines = found.map(({ path, rule }) => {
    const where = loaded.fileOf(path[0] ?? '')
    return `${where === undefined ? '' : `${where}: `}${[section, ...path].join(' ')} ${rule}`
  })
  return { settings, problems: [...new Set(lines)] }
}

/** One error of the validator in words; undefined for one that only says that others were found. */
function schemaProblem({ keyword, instancePath, params }: ValidationError, table: SettingTable): SettingProblem[] {
  const path = instancePath
    .split('/')
    .slice(1)
    .map(part => part.replaceAll('~1', '/').replaceAll('~0', '~'))
  if (keyword === 'additionalProperties') {
    const name = String(params['additionalProperty'])
    const known = Object.entries(tableAt(table, path)).flatMap(([attribute, setting]) =>
      attributesOf(attribute, setting),
    )
    const meant = nearestName(name, known)
    return [
      { path: [...path, name], rule: `is not a known setting${meant === undefined ? '' : `: did you mean ${meant}?`}` },
    ]
  }
  if (keyword === 'required') {
    const name = String(params['missingProperty'])
    const setting = tableAt(table, path)[name]
    return [{ path: [...path, name], rule: `is missing: it must be ${setting ? expectsText(setting) : 'given'}` }]
  }
  const { setting, depth } = settingAt(table, path)
  return [{ path: path.slice(0, depth), rule: `must be ${setting === undefined ? 'a hash' : expectsText(setting)}` }]
}

/** The settings that the hash at a path has: below the name of a hash among hashes, theirs. */
function tableAt(table: SettingTable, [attribute, , ...rest]: readonly string[]): SettingTable {
  if (attribute === undefined) return table
  const setting = table[attribute]
  return setting?.type === 'hashes' ? tableAt(setting.settings, rest) : {}
}

/** The setting whose value, or part of a value, is at a path, and how many steps lead to it. */
function settingAt(
  table: SettingTable,
  [attribute = '', name, ...rest]: readonly string[],
): { setting: Setting | undefined; depth: number } {
  const setting = Object.entries(table).find(([key, entry]) => attributesOf(key, entry).includes(attribute))?.[1]
  if (setting?.type === 'hashes' && name !== undefined) {
    if (rest.length === 0) return { setting: undefined, depth: 2 }
    const inner = settingAt(setting.settings, rest)
    return { ...inner, depth: inner.depth + 2 }
  }
  // The other places of a secret are texts, whatever the secret is.
  const isPlace = setting?.type === 'secret' && !(attribute in table)
  return { setting: isPlace ? { type: 'text', summary: '' } : setting, depth: 1 }
}

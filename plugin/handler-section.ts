import type { Handler } from './handler.js'
import { isHash, readSettings, type SettingSources } from './settings-reader.js'
import { attributesOf, type SettingProblem, type SettingTable, type SettingValues } from './settings-table.js'
import { cut } from './text.js'

/** Longest name or item that is repeated in a message. */
const longestStep = 80

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
  /** The last file that has what is at this path of the section, or as much of the way there as any file has. */
  fileOf(path: readonly string[]): string | undefined
  /** The files that were read, and where others were looked for. */
  readonly looked: string
  /** What could not be read: file and reason. */
  readonly errors: readonly { readonly file: string; readonly error: string }[]
}

/**
 * A handler's settings from its section, and everything that is wrong with it, in lines of file, section, attribute and rule: files that cannot be read, attributes that are not known, then setting by
 * setting in the order of the documentation, the relations of each behind its own rules. What depends on something that is wrong itself is not judged: a relation of a wrong value, and what is missing when
 * there is a file that could not be read. With any problem, the settings must not be used.
 */
export function readSection(
  handler: Handler,
  section: string,
  loaded: LoadedSection,
  sources: Omit<SettingSources, 'isComplete'>,
): { settings: SettingValues<SettingTable>; problems: string[] } {
  const unreadable = loaded.errors.map(({ file, error }) => `${file}: ${error}`)
  const isComplete = unreadable.length === 0
  const problems: SettingProblem[] = []
  let settings: SettingValues<SettingTable> = {}
  if (isHash(loaded.value)) {
    const { value } = loaded
    settings = readSettings(handler.settings, value, { ...sources, isComplete }, (rule, ...path) => {
      problems.push({ path, rule })
    })
    if (isComplete) problems.push(...brokenRelations(handler, settings, value, problems))
  } else if (loaded.value !== undefined) {
    problems.push({ path: [], rule: 'must be a hash' })
  } else if (isComplete) {
    const lacking = `there is no such section in ${loaded.looked}: add one, see docs/handlers/${handler.name}.md`
    return { settings, problems: [`${section}: ${lacking}`] }
  }
  const order = Object.keys(handler.settings)
  const place = ({ path: [attribute = ''] }: SettingProblem) =>
    order.indexOf(settingOf(handler.settings, attribute) ?? '')
  const lines = problems
    .toSorted((one, other) => place(one) - place(other))
    .map(({ path, rule }) => {
      const file = loaded.fileOf(path)
      return `${file === undefined ? '' : `${file}: `}${[section, ...path.map(stepText)].join(' ')} ${rule}`
    })
  return { settings, problems: [...new Set([...unreadable, ...lines])] }
}

/** Thrown when a relation reads a setting that is wrong itself. */
class Unjudged extends Error {}

function brokenRelations(
  { settings: table, relations }: Handler,
  settings: SettingValues<SettingTable>,
  section: object,
  problems: readonly SettingProblem[],
): SettingProblem[] {
  const wrong = new Set(problems.map(({ path: [attribute = ''] }) => settingOf(table, attribute)))
  const judged = new Proxy(settings, {
    get(values, name) {
      if (typeof name !== 'string') return undefined
      if (wrong.has(name)) throw new Unjudged()
      return values[name]
    },
  })
  const isGiven = (name: string) => {
    const setting = table[name]
    return setting !== undefined && attributesOf(name, setting).some(attribute => Object.hasOwn(section, attribute))
  }
  return relations.flatMap(relation => {
    try {
      return relation(judged, isGiven).map(sentence => {
        const [, attribute = '', rule = ''] = /^(\S+) (.*)$/s.exec(sentence) ?? []
        return { path: [attribute], rule }
      })
    } catch (error) {
      if (error instanceof Unjudged) return []
      throw error
    }
  })
}

/** The setting that an attribute belongs to. */
function settingOf(table: SettingTable, attribute: string): string | undefined {
  return Object.entries(table).find(([name, setting]) => attributesOf(name, setting).includes(attribute))?.[0]
}

/** A name or an item as it can be told from the words around it; in the wrong place it may be a URL with a password. */
function stepText(step: string): string {
  const text = cut(step.replace(/:\/\/.*@/s, '://REDACTED@'), longestStep)
  return /^[\w-]+$/.test(text) ? text : JSON.stringify(text)
}

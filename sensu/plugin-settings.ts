import { existsSync, readFileSync } from 'node:fs'
import { deepMerge } from './deep-merge.js'
import { defaultConfigDirectory, defaultConfigFile } from './defaults.js'
import { isObject, member, newObject } from './json-value.js'
import { type Environment, findFiles, readConfigFile } from './settings.js'
import type { Json, JsonObject } from './types.js'

/** Which section of which configuration is wanted; without a file and directories it is the one that Sensu's own plugins read. */
export type PluginSettingsRequest = {
  section: string
  file: string | undefined
  directories: readonly string[]
  variables: Environment
}

/** A section of the configuration, and where it comes from. */
export type PluginSettings = {
  /** undefined when no file has it */
  value: Json | undefined
  /** the last file that has this attribute of the section */
  fileOf(attribute: string): string | undefined
  /** where it was looked for, for people */
  looked: string
  errors: { file: string; error: string }[]
}

const maxFiles = 10_000
const longestError = 500

/**
 * Reads one section of the configuration as Sensu's plugins and handlers do: from the files that the service which runs them has loaded (listed, separated by
 * colons, in the file that `SENSU_LOADED_TEMPFILE` names), or those in `SENSU_CONFIG_FILES`, or the default places; merged in this order.
 * A listed file that is gone counts as empty. Never throws: what cannot be read is in `errors`.
 */
export function loadPluginSettings(request: PluginSettingsRequest): PluginSettings {
  const errors: PluginSettings['errors'] = []
  const found = new Map<string, JsonObject>()
  const { files, looked } = filesOf(request, errors)
  let value: Json | undefined
  for (const file of files.slice(0, maxFiles)) {
    try {
      const section = member(readConfigFile(file), request.section)
      if (section === undefined) continue
      value = value === undefined ? section : deepMerge(value, section)
      found.set(file, isObject(section) ? section : newObject())
    } catch (error) {
      errors.push({ file, error: reason(error) })
    }
  }
  const fileOf = (attribute: string) =>
    [...found].findLast(([, section]) => member(section, attribute) !== undefined)?.[0] ?? [...found.keys()].at(-1)
  return { value, fileOf, looked, errors }
}

type Files = { files: string[]; looked: string }

function filesOf({ file, directories, variables }: PluginSettingsRequest, errors: PluginSettings['errors']): Files {
  if (file !== undefined || directories.length > 0) {
    const given = file === undefined ? [] : [file]
    for (const directory of directories) {
      if (!existsSync(directory)) errors.push({ file: directory, error: 'there is no such directory' })
    }
    return { files: [...given, ...directories.flatMap(findFiles)], looked: [...given, ...directories].join(', ') }
  }
  const { SENSU_LOADED_TEMPFILE: list, SENSU_CONFIG_FILES: names } = variables
  if (list !== undefined && existsSync(list)) {
    try {
      return listed(readFileSync(list, 'utf8'), `the files that ${list} lists`)
    } catch (error) {
      errors.push({ file: list, error: reason(error) })
      return { files: [], looked: list }
    }
  }
  if (names !== undefined) return listed(names, 'the files of $SENSU_CONFIG_FILES')
  const main = existsSync(defaultConfigFile) ? [defaultConfigFile] : []
  const files = [...main, ...findFiles(defaultConfigDirectory)]
  return { files, looked: `${defaultConfigFile} and ${defaultConfigDirectory}` }
}

function listed(list: string, looked: string): Files {
  const files = list.split(':').map(name => name.trim())
  return { files: files.filter(name => name !== '' && existsSync(name)), looked }
}

function reason(error: unknown): string {
  if (!(error instanceof Error)) return String(error)
  // The error of a file that cannot be loaded says why in a member of its own.
  const where: unknown = Reflect.get(error, 'where')
  const detail = isObject(where) ? where['error'] : undefined
  return `${error.message}${typeof detail === 'string' ? `: ${detail}` : ''}`.slice(0, longestError)
}

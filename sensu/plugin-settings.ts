import { existsSync, readFileSync } from 'node:fs'
import { findFiles, isReadableDirectory, LoadError, readConfigFile } from './config-files.js'
import { deepMerge } from './deep-merge.js'
import { defaultConfigDirectory, defaultConfigFile } from './defaults.js'
import { stringifyJson } from './json.js'
import { isObject, member } from './json-value.js'
import type { Json } from './types.js'

/** Which section of which configuration is wanted; without a file and directories it is the one that Sensu's own plugins read. */
export type PluginSettingsRequest = {
  section: string
  file: string | undefined
  directories: readonly string[]
  variables: Readonly<Record<string, string | undefined>>
}

/** A section of the configuration, and where it comes from. */
export type PluginSettings = {
  /** as plain JavaScript values; undefined when no file has it */
  value: unknown
  /** the last file that has what is at this path of the section (members of hashes, texts in lists), or as much of the way there as any file has */
  fileOf(path: readonly string[]): string | undefined
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
  const found = new Map<string, Json>()
  const { files, looked } = filesOf(request, errors)
  let value: Json | undefined
  for (const file of files.slice(0, maxFiles)) {
    try {
      const section = member(readConfigFile(file), request.section)
      if (section === undefined) continue
      value = value === undefined ? section : deepMerge(value, section)
      found.set(file, section)
    } catch (error) {
      errors.push({ file, error: reason(error) })
    }
  }
  const fileOf = (path: readonly string[]): string | undefined => {
    const file = [...found].findLast(([, section]) => leadsSomewhere(section, path))?.[0]
    return file ?? (path.length === 0 ? undefined : fileOf(path.slice(0, -1)))
  }
  // Plugins need not tell 8 from 8.0, or a text from bytes.
  return { value: value === undefined ? undefined : JSON.parse(stringifyJson(value)), fileOf, looked, errors }
}

function leadsSomewhere(value: Json, [step, ...rest]: readonly string[]): boolean {
  if (step === undefined) return true
  if (Array.isArray(value)) return value.includes(step)
  const next = isObject(value) ? member(value, step) : undefined
  return next !== undefined && leadsSomewhere(next, rest)
}

type Files = { files: string[]; looked: string }

function filesOf({ file, directories, variables }: PluginSettingsRequest, errors: PluginSettings['errors']): Files {
  if (file !== undefined || directories.length > 0) {
    const given = file === undefined ? [] : [file]
    const present = given.filter(path => existsSync(path))
    for (const path of given) if (!present.includes(path)) errors.push({ file: path, error: 'there is no such file' })
    return { files: [...present, ...filesBelow(directories, errors)], looked: [...given, ...directories].join(', ') }
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
  const directory = existsSync(defaultConfigDirectory) ? [defaultConfigDirectory] : []
  const files = [...main, ...filesBelow(directory, errors)]
  return { files, looked: `${defaultConfigFile} and ${defaultConfigDirectory}` }
}

function filesBelow(directories: readonly string[], errors: PluginSettings['errors']): string[] {
  for (const directory of directories) {
    if (!existsSync(directory)) errors.push({ file: directory, error: 'there is no such directory' })
    else if (!isReadableDirectory(directory)) errors.push({ file: directory, error: 'this user may not read it' })
  }
  return directories.flatMap(findFiles)
}

function listed(list: string, looked: string): Files {
  const files = list.split(':').map(name => name.trim())
  return { files: files.filter(name => name !== '' && existsSync(name)), looked }
}

function reason(error: unknown): string {
  if (!(error instanceof Error)) return String(error)
  const detail = error instanceof LoadError ? error.where.error : undefined
  return `${error.message}${detail === undefined ? '' : `: ${detail}`}`.slice(0, longestError)
}

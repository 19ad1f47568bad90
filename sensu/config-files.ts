import { accessSync, constants, type Dirent, readdirSync, readFileSync, statSync } from 'node:fs'
import { parseJson } from './json.js'
import { isObject } from './json-value.js'
import type { ConfigurationError, Json, JsonObject } from './types.js'

/** Something could not be loaded; `where` names it in the report. */
export class LoadError extends Error {
  readonly where: Omit<ConfigurationError, 'message'>
  constructor(message: string, where: Omit<ConfigurationError, 'message'>) {
    super(message)
    this.where = where
  }
}

/** Reads one configuration file. Throws a LoadError. */
export function readConfigFile(file: string): JsonObject {
  const invalid = (error: string) => new LoadError('config file must be valid json', { file, error })
  let content: Json
  try {
    const text = withoutByteOrderMark(readFileSync(file))
    content = isBlank(text) ? {} : parseJson(text)
  } catch (error) {
    throw invalid(error instanceof Error ? error.message : String(error))
  }
  if (!isObject(content)) throw invalid('the document must be a hash')
  return content
}

function withoutByteOrderMark(bytes: Buffer): Buffer {
  return bytes.subarray(0, 3).equals(Buffer.from([0xef, 0xbb, 0xbf])) ? bytes.subarray(3) : bytes
}

function isBlank(text: Buffer): boolean {
  return text.toString('latin1').trim() === ''
}

/** Whether it is a file that this process may read. */
export function isReadableFile(file: string): boolean {
  return isAccessible(file, constants.R_OK) && statSync(file).isFile()
}

/** Whether it is a directory that this process may list and enter. */
export function isReadableDirectory(directory: string): boolean {
  return isAccessible(directory, constants.R_OK | constants.X_OK) && statSync(directory).isDirectory()
}

function isAccessible(path: string, mode: number): boolean {
  try {
    accessSync(path, mode)
    return true
  } catch {
    return false
  }
}

/**
 * The paths of all `*.json` below the directory, byte-wise by name with directories expanded in place; first those
 * without a symbolic link to a directory on their way, then those with exactly one. Names with a leading dot are skipped.
 */
export function findFiles(directory: string): string[] {
  return [...walk(directory, 0), ...walk(directory, 1)]
}

/** `links`: how many symbolic links to directories the way down must still contain. */
function* walk(directory: string, links: number): Generator<string> {
  for (const entry of entriesByName(directory)) {
    const path = directory.endsWith('/') ? directory + entry.name : `${directory}/${entry.name}`
    if (links === 0 && entry.name.endsWith('.json')) yield path
    if (entry.isDirectory()) yield* walk(path, links)
    else if (links > 0 && entry.isSymbolicLink() && isReadableDirectory(path)) yield* walk(path, links - 1)
  }
}

function entriesByName(directory: string): Dirent[] {
  if (!isReadableDirectory(directory)) return []
  const entries = readdirSync(directory, { withFileTypes: true }).filter(({ name }) => !name.startsWith('.'))
  return entries.sort((a, b) => Buffer.compare(Buffer.from(a.name), Buffer.from(b.name)))
}

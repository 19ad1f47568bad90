import { readdirSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { pathToFileURL } from 'node:url'
import { isObject, isSet } from '../sensu/json-value.js'
import type { Logger } from '../sensu/log.js'
import { isStandalone } from '../sensu/results.js'
import type { JsonObject, Settings } from '../sensu/types.js'
import { validateSettings } from '../sensu/validate.js'
import { importModule } from './import-module.js'

/** What an extension makes of a check. */
export interface ExtensionOutcome {
  output: string
  status: number
}

/** A check that runs inside this process, loaded from a file. */
export interface CheckExtension {
  name: string
  description: string
  /** As a check's: `standalone` and an interval or cron line make it schedule itself. */
  definition: JsonObject
  /** Gets a copy of the check. What it returns is not to be trusted. */
  run(check: JsonObject): unknown
}

export type CheckExtensions = ReadonlyMap<string, CheckExtension>

/** What cannot be loaded is told. */
const extensionFile = /(?<!\.d)\.([mc]?[jt]s|rb)$/

/**
 * Loads the check extensions of a directory: JavaScript (or TypeScript) modules that export `name`, `run` and, if they like, `definition` and
 * `description`, each by itself or all as the default export. Everything is told in the log as Sensu's client does;
 * what cannot be loaded, Ruby extensions for one, is told and ignored. Never rejects.
 */
export async function loadExtensions(
  directory: string | undefined,
  settings: Settings,
  log: Logger,
): Promise<CheckExtensions> {
  const extensions = new Map<string, CheckExtension>()
  if (directory !== undefined) {
    log.warn('loading extension files from directory', { directory })
    for (const file of extensionFiles(directory)) await loadFile(file, extensions, log)
  }
  for (const [name, definition] of Object.entries(settings.extensions)) logGem(name, definition, log)
  for (const { name, description } of extensions.values()) {
    log.warn('loaded extension', { type: 'check', name, description })
  }
  return extensions
}

/** Runs an extension. Never rejects: what it raises, or returns in a wrong shape, is CRITICAL and tells where. */
export async function runExtension(extension: CheckExtension, check: JsonObject): Promise<ExtensionOutcome> {
  try {
    return outcomeOf(await extension.run(JSON.parse(JSON.stringify(check, plainNumbers))), extension.name)
  } catch (error) {
    return { output: errorText(error), status: 2 }
  }
}

async function loadFile(file: string, extensions: Map<string, CheckExtension>, log: Logger): Promise<void> {
  log.warn('loading extension file', { file })
  try {
    if (file.endsWith('.rb')) throw new Error('Ruby extensions cannot be loaded')
    const extension = readExtension(await loadModule(resolve(file)))
    if (extensions.has(extension.name)) throw new Error(`there is an extension ${extension.name} already`)
    extensions.set(extension.name, extension)
  } catch (error) {
    log.warn('failed to require extension', { file, error: error instanceof Error ? error.message : String(error) })
    log.warn('ignoring extension', { file })
  }
}

/** Node takes the types away from TypeScript by itself from 22.18 on; the compiler for older ones is loaded only when it is needed. */
async function loadModule(file: string): Promise<Record<string, unknown>> {
  const native = 'typescript' in process.features && Boolean(process.features['typescript'])
  if (native || !/\.[mc]?ts$/.test(file)) return await importModule(pathToFileURL(file).href)
  const { loadTypeScript } = await import('./load-typescript.js')
  return loadTypeScript(file)
}

/** Files of the directory itself: what is below it may be the extensions' own modules. */
function extensionFiles(directory: string): string[] {
  try {
    const names = readdirSync(directory).filter(name => extensionFile.test(name))
    return names.sort().map(name => join(directory, name))
  } catch {
    return []
  }
}

/** Throws what is wrong with a module. */
function readExtension(module: Record<string, unknown>): CheckExtension {
  const exported = isRecord(module['default']) && 'run' in module['default'] ? module['default'] : module
  const { name, run, description = '' } = exported
  if (typeof name !== 'string' || !/^[\w.-]+$/.test(name)) {
    throw new Error('it must export "name", letters, digits, ".", "_" and "-" only')
  }
  if (typeof run !== 'function') throw new Error('it must export a function "run"')
  const call = (check: JsonObject) => run.call(exported, check)
  return { name, description: String(description), definition: readDefinition(name, exported['definition']), run: call }
}

function readDefinition(name: string, value: unknown = {}): JsonObject {
  const definition: unknown = JSON.parse(JSON.stringify(value))
  if (!isObject(definition)) throw new Error('its "definition" must be an object')
  const full: JsonObject = { type: 'check', name, ...definition }
  full['name'] = name
  if (isStandalone(full)) {
    const faults = validateSettings({ checks: { [name]: { ...definition, extension: name } } }, 'client')
    const own = faults.find(({ message }) => /^check /.test(message))
    if (own) throw new Error(`its "definition" is not valid: ${own.message}`)
  }
  return full
}

function outcomeOf(returned: unknown, name: string): ExtensionOutcome {
  const { output, status } = isRecord(returned) ? returned : {}
  if (typeof output !== 'string' || !Number.isInteger(status)) {
    throw new TypeError(`${name} must return {output: string, status: integer}`)
  }
  return { output, status: Number(status) }
}

/** Numbers that JavaScript has no literal for, as plain ones. */
function plainNumbers(_key: string, value: unknown): unknown {
  return typeof value === 'bigint' ? Number(value) : value
}

/** `RuntimeError: boom`, then a line for each place, as Sensu writes it. */
function errorText(error: unknown): string {
  if (!(error instanceof Error)) return `Error: ${String(error)}`
  const places = (error.stack ?? '').split('\n').filter(line => /^\s+at /.test(line))
  return [`${error.constructor.name}: ${error.message}`, ...places.map(line => `  ${line.trim()}`)].join('\n')
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null
}

function logGem(name: string, definition: JsonObject, log: Logger): void {
  if (!isObject(definition)) return
  const own = definition['gem']
  const gem = isSet(own) ? own : `sensu-extensions-${name}`
  const version = definition['version'] ?? null
  log.warn('loading extension gem', { gem, version })
  const library = isSet(own) ? own : `sensu/extensions/${name}`
  log.warn('requiring extension gem', { require: library })
  log.warn('failed to require extension', { gem, version, error: `cannot load such file -- ${String(library)}` })
  log.warn('ignoring extension', { gem })
}

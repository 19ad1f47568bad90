// What follows from the handlers, as generate.ts makes it from the checks.
import { existsSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { commonSettings, type Handler } from '../plugin/handler.js'
import { handlerArgumentsSchema, handlerOptions } from '../plugin/handler-arguments.js'
import type { Schema } from '../plugin/options.js'
import { attributesOf, settingsSchema } from '../plugin/settings-table.js'
import { bashCompletion, zshCompletion } from './completion.js'
import { handlerHelpText } from './help.js'
import { validatorModule, validatorTypes } from './validators.js'

/** A handler and the file that declares it, without its ending. */
export interface FoundHandler {
  readonly file: string
  readonly handler: Handler
}

/** Loads every handler below `handlers/` from its transpiled form; what cannot be loaded is reported and left out. */
export async function loadHandlers(root: string): Promise<{ handlers: FoundHandler[]; problems: string[] }> {
  const folder = join(root, 'handlers')
  const files = existsSync(folder) ? readdirSync(folder).filter(file => file.endsWith('.ts')) : []
  const handlers: FoundHandler[] = []
  const problems: string[] = []
  for (const name of files.sort()) {
    const file = name.slice(0, -'.ts'.length)
    try {
      handlers.push({ file, handler: await loadHandler(root, file) })
    } catch (error) {
      problems.push(`handlers/${name}: ${error instanceof Error ? error.message : String(error)}`)
    }
  }
  return { handlers, problems }
}

async function loadHandler(root: string, file: string): Promise<Handler> {
  const path = join(root, 'build/handlers', `${file}.js`)
  const module: { default?: Handler } = await import(pathToFileURL(path).href)
  const handler = module.default
  if (typeof handler?.handle !== 'function') throw new Error('its default export is not made by defineHandler')
  if (handler.name !== file) throw new Error(`declares "${handler.name}": name the file ${handler.name}.ts`)
  assertSettings(handler)
  return handler
}

/** No two settings may share an attribute, the other places of secrets included, and a common one keeps its meaning. */
function assertSettings({ settings }: Handler): void {
  const attributes = Object.entries(settings).flatMap(([name, setting]) => attributesOf(name, setting))
  const twice = attributes.find((attribute, index) => attributes.indexOf(attribute) !== index)
  if (twice !== undefined) throw new Error(`two settings have the attribute ${twice}`)
  for (const [name, setting] of Object.entries(commonSettings)) {
    if (settings[name]?.summary !== setting.summary) throw new Error(`setting ${name} is a common one`)
  }
}

/** The files of `generated/` that the handlers need, by path. */
export async function handlerFiles(handlers: readonly FoundHandler[], version: string): Promise<Map<string, string>> {
  const files = new Map<string, string>()
  if (handlers.length === 0) return files
  files.set('validators/handler-arguments.js', validatorModule({ validate: handlerArgumentsSchema() }))
  files.set('validators/handler-arguments.d.ts', validatorTypes)
  for (const { file, handler } of handlers) {
    files.set(`samples/${handler.name}.json`, `${JSON.stringify({ [handler.name]: handler.sample })}\n`)
    files.set(`bin/${handler.name}.ts`, entryText(file, version, await handlerHelpText(handler)))
  }
  return files
}

function entryText(file: string, version: string, help: string): string {
  return `import handler from '../../handlers/${file}.js'
import { main } from '../../plugin/handler-main.js'
import { loadPluginSettings } from '../../sensu/plugin-settings.js'
import { validate as validateArguments } from '../validators/handler-arguments.js'

const help = ${JSON.stringify(help)}
void main({ handler, validateArguments, version: '${version}', help }, loadPluginSettings)
`
}

function sectionSchema({ name, summary, settings }: Handler): Schema {
  return { title: name, description: summary, ...settingsSchema(settings) }
}

/** The JSON schema of a handler's section as a document of its own. */
export function handlerSchema(handler: Handler): string {
  const schema = { $schema: 'http://json-schema.org/draft-07/schema#', ...sectionSchema(handler) }
  return `${JSON.stringify(schema, undefined, 2)}\n`
}

/** Shell completion of the handlers' command lines, by path. */
export function handlerCompletions(handlers: readonly FoundHandler[]): Map<string, string> {
  return new Map(
    handlers.flatMap(({ handler: { name } }) => {
      const program = { name, options: handlerOptions }
      return [[`bash/${name}`, bashCompletion(program)] as const, [`zsh/_${name}`, zshCompletion(program)] as const]
    }),
  )
}

// Makes what follows from the checks and handlers: validators, program table, entry files, schemas and shell completion. Called by build.mjs,
// which has transpiled them to build/ before.
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { dirname, join, relative } from 'node:path'
import { pathToFileURL } from 'node:url'
import type { Check } from '../plugin/check.js'
import { type AnyCheck, commandLineOptions, commandLineSchema } from '../plugin/command-line.js'
import type { Handler } from '../plugin/handler.js'
import { bashCompletion, zshCompletion } from './completion.js'
import {
  type FoundHandler,
  handlerCompletions,
  handlerFiles,
  handlerSchema,
  loadHandlers,
} from './generate-handlers.js'
import { helpText } from './help.js'
import { statusPageText } from './status-page.js'
import { validatorModule, validatorTypes } from './validators.js'

/** A check and the file that declares it, without its ending. */
export interface FoundCheck {
  readonly file: string
  readonly check: Check<never>
}

/** Loads every check below `checks/` from its transpiled form; what cannot be loaded is reported and left out. */
export async function loadChecks(root: string): Promise<{ checks: FoundCheck[]; problems: string[] }> {
  const folder = join(root, 'checks')
  const files = existsSync(folder) ? readdirSync(folder).filter(file => file.endsWith('.ts')) : []
  const checks: FoundCheck[] = []
  const problems: string[] = []
  for (const name of files.sort()) {
    const file = name.slice(0, -'.ts'.length)
    try {
      checks.push({ file, check: await loadCheck(root, file) })
    } catch (error) {
      problems.push(`checks/${name}: ${error instanceof Error ? error.message : String(error)}`)
    }
  }
  return { checks, problems }
}

async function loadCheck(root: string, file: string): Promise<Check<never>> {
  const module: { default?: Check<never> } = await import(pathToFileURL(join(root, 'build/checks', `${file}.js`)).href)
  const check = module.default
  if (typeof check?.run !== 'function') throw new Error('its default export is not made by defineCheck')
  if (check.name !== file && check.name !== `check-${file}`) {
    throw new Error(`declares "${check.name}": name the file ${check.name}.ts`)
  }
  assertOptions(check)
  return check
}

/** An option must not take the name or the letter of another one, common ones included unless an older plugin decides. */
function assertOptions(check: Check<never>): void {
  const common = check.rubyLine ? {} : commandLineOptions({ ...check, options: {} })
  const taken = new Set(Object.keys(common))
  const letters = new Set(Object.values(common).flatMap(option => option.alias ?? []))
  for (const [name, { alias }] of Object.entries(check.options)) {
    if (taken.has(name)) throw new Error(`option ${name} is a common option`)
    if (alias !== undefined && letters.has(alias)) throw new Error(`option ${name}: -${alias} is taken`)
    if (alias !== undefined) letters.add(alias)
  }
}

/**
 * Writes `generated/` and the schemas and completions of `dist/`; files whose content stays are not touched, stale ones are removed.
 * Returns what kept a check or a handler from being loaded, and those that could be.
 */
export async function generate(
  root: string,
): Promise<{ problems: string[]; checks: Check<never>[]; handlers: Handler[] }> {
  const { checks, problems } = await loadChecks(root)
  const found = await loadHandlers(root)
  const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'))
  const host = existsSync(join(root, 'libvirt/host.ts'))
  const agent = existsSync(join(root, 'agent/main.ts'))
  const server = existsSync(join(root, 'server/main.ts'))
  const files = await generatedFiles(host ? checks : [], found.handlers, String(version), { host, agent, server })
  if (server) files.set('status-page.ts', await statusPageText(root))
  writeFolder(join(root, 'generated'), files)
  writeFolder(
    join(root, 'dist/schemas'),
    new Map([
      ...checks.map(({ check }) => [`${check.name}.json`, schemaText(check)] as const),
      ...found.handlers.map(({ handler }) => [`${handler.name}.json`, handlerSchema(handler)] as const),
    ]),
  )
  writeFolder(join(root, 'dist/completions'), new Map([...completions(checks), ...handlerCompletions(found.handlers)]))
  return {
    problems: [...problems, ...found.problems],
    checks: checks.map(({ check }) => check),
    handlers: found.handlers.map(({ handler }) => handler),
  }
}

/** `parts`: what of the project is there, so that the build makes the rest while one of them is missing. */
async function generatedFiles(
  checks: readonly FoundCheck[],
  handlers: readonly FoundHandler[],
  version: string,
  { host, agent, server }: { host: boolean; agent: boolean; server: boolean },
) {
  const files = new Map<string, string>()
  if (host) {
    files.set('open-host.ts', openHostText)
    files.set('programs.ts', programTable(checks))
  }
  for (const { file, check } of checks) {
    files.set(`validators/${check.name}.js`, validatorText(check))
    files.set(`validators/${check.name}.d.ts`, validatorTypes)
    files.set(`programs/${check.name}.ts`, programText(file, check, version, await helpText(check)))
    files.set(`bin/${check.name}.ts`, entryText(check))
  }
  for (const [path, text] of await handlerFiles(handlers, version)) files.set(path, text)
  if (agent) files.set('bin/sensu-kvm-agent.ts', agentText(checks))
  if (server) files.set('bin/sensu-kvm-server.ts', serverText)
  return files
}

const openHostText = `import { Host } from '../libvirt/host.js'
import type { OpenHostOptions } from '../plugin/program.js'

/** Opens libvirt for one run of an executable; connections are made when calls need them. */
export async function openHost({ uri, readOnly, timeoutSeconds }: OpenHostOptions): Promise<Host> {
  return Host.open(uri, { readOnly, connectTimeoutMs: Math.min(5000, timeoutSeconds * 1000) })
}
`

/** The checks are in the agent's bundle, but each is evaluated only when it is asked for: most agents use few of them, and memory counts. */
function agentText(checks: readonly FoundCheck[]): string {
  const entries = checks.map(({ check: { name } }) => `  ['${name}', () => require('../programs/${name}.js')],\n`)
  return `import '../../agent/heap.js'
import { main } from '../../agent/main.js'
import type { Host } from '../../libvirt/host.js'
import type { CheckProgram } from '../../plugin/program.js'

const load = new Map<string, () => { program: CheckProgram<Host> }>([
${entries.join('')}])

void main(process.argv.slice(2), { get: name => load.get(name)?.().program })
`
}

const serverText = `import { main } from '../../server/main.js'
import { statusPage } from '../status-page.js'

void main(process.argv.slice(2), statusPage)
`

function programTable(checks: readonly FoundCheck[]): string {
  const imports = checks.map(
    ({ check }, index) => `import { program as program${index} } from './programs/${check.name}.js'\n`,
  )
  return `import type { Host } from '../libvirt/host.js'
import type { CheckProgram } from '../plugin/program.js'
${imports.join('')}
/** Every check there is. */
export const programs: readonly CheckProgram<Host>[] = [${checks.map((_, index) => `program${index}`).join(', ')}]
`
}

function programText(file: string, { name, local }: Check<never>, version: string, help: string): string {
  const host = local ? 'unknown' : 'Host'
  return `import check from '../../checks/${file}.js'
${local ? '' : "import type { Host } from '../../libvirt/host.js'\n"}import type { CheckProgram } from '../../plugin/program.js'
import { validate } from '../validators/${name}.js'

const help = ${JSON.stringify(help)}
export const program: CheckProgram<${host}> = { check, validate, version: '${version}', help }
`
}

function entryText({ name, local }: Check<never>): string {
  return `import { main } from '../../plugin/main.js'
${local ? '' : "import { openHost } from '../open-host.js'\n"}import { program } from '../programs/${name}.js'

void main(program${local ? '' : ', openHost'})
`
}

/** The validator of a check's command line as an ES module without imports. */
export function validatorText(check: AnyCheck): string {
  return validatorModule({ validate: commandLineSchema(check) })
}

/** The JSON schema of a check's command line as a document of its own. */
export function schemaText(check: Check<never>): string {
  const schema = { $schema: 'http://json-schema.org/draft-07/schema#', ...commandLineSchema(check) }
  return `${JSON.stringify(schema, undefined, 2)}\n`
}

function completions(checks: readonly FoundCheck[]): Map<string, string> {
  return new Map(
    checks.flatMap(({ check }) => {
      const program = { name: check.name, options: commandLineOptions(check) }
      return [
        [`bash/${check.name}`, bashCompletion(program)] as const,
        [`zsh/_${check.name}`, zshCompletion(program)] as const,
      ]
    }),
  )
}

/** Makes a folder hold exactly these files, by path relative to it. */
export function writeFolder(folder: string, files: ReadonlyMap<string, string>): void {
  for (const [path, text] of files) writeChanged(join(folder, path), text)
  if (!existsSync(folder)) return
  for (const entry of readdirSync(folder, { recursive: true, withFileTypes: true })) {
    const path = join(entry.parentPath, entry.name)
    if (entry.isFile() && !files.has(relative(folder, path))) rmSync(path)
  }
}

function writeChanged(path: string, text: string): void {
  if (existsSync(path) && readFileSync(path, 'utf8') === text) return
  mkdirSync(dirname(path), { recursive: true })
  writeFileSync(path, text)
}

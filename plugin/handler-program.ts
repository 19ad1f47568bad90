import type { Validate, ValidationError } from './command-line.js'
import { readEvent } from './event.js'
import type { Action, commonSettings, Handler, HandlerContext } from './handler.js'
import { type HandlerOptions, parseHandlerArguments } from './handler-arguments.js'
import { nearestName } from './nearest.js'
import { hideSecrets, secretsIn } from './secret.js'
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
import { printable, printableLines } from './text.js'

/** A handler and what the build made of it: all that is needed to run it. */
export interface HandlerProgram {
  readonly handler: Handler
  readonly validateSettings: Validate
  readonly validateArguments: Validate
  /** What `--version` prints besides the name. */
  readonly version: string
  /** What `--help` prints. */
  readonly help: string
}

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

/** Everything outside that a run depends on. */
export interface HandlerEnvironment extends Pick<HandlerContext, 'now' | 'random' | 'variables' | 'hostname'> {
  loadSection(request: SectionRequest): LoadedSection
  readonly readFile: SecretSources['readFile']
  /** All of standard input; rejects when it is too large. */
  readInput(signal: AbortSignal): Promise<string>
}

/** What a run prints, and exits with: 0 done or nothing to do, 1 failed, 2 the configuration or the command line cannot be used. */
export interface HandlerResult {
  readonly stdout: string
  readonly stderr: string
  readonly status: 0 | 1 | 2
}

/** Runs a handler with a command line (without the program's name). Never throws. */
export async function runHandler(
  program: HandlerProgram,
  argv: readonly string[],
  environment: HandlerEnvironment,
): Promise<HandlerResult> {
  const { handler, version, help } = program
  try {
    const request = parseHandlerArguments(program.validateArguments, argv)
    switch (request.kind) {
      case 'help':
        return success(help)
      case 'version':
        return success(`${handler.name} ${version} (sensu-kvm)\n`)
      case 'problems':
        return unusable(handler.name, request.problems)
      case 'run':
        return await runRequest(program, request.options, environment)
    }
  } catch (error) {
    return handlerFailure(handler.name, error)
  }
}

/** The result of a run that failed: one line on standard error. */
export function handlerFailure(name: string, error: unknown): HandlerResult {
  const message = error instanceof Error ? error.message || error.name : String(error)
  const internal = error instanceof TypeError || error instanceof ReferenceError || error instanceof RangeError
  const text = printable(internal ? `internal error: ${message}` : message, 2000)
  return { stdout: '', stderr: `${name}: ${text}\n`, status: 1 }
}

function success(stdout: string): HandlerResult {
  return { stdout, stderr: '', status: 0 }
}

function unusable(name: string, [first = '', ...others]: readonly string[]): HandlerResult {
  const lines = [`${name}: ${first}`, ...others].map(line => printable(line))
  return { stdout: '', stderr: `${lines.join('\n')}\n`, status: 2 }
}

async function runRequest(
  program: HandlerProgram,
  options: HandlerOptions,
  environment: HandlerEnvironment,
): Promise<HandlerResult> {
  const { name } = program.handler
  const section = options.configSection ?? name
  const { settings, problems } = loadSettings(program, section, options, environment)
  if (problems.length > 0) {
    const count = `${problems.length} error${problems.length === 1 ? '' : 's'}`
    return unusable(name, [`the configuration cannot be used, nothing was sent: ${count}`, ...problems])
  }
  if (options.validate) return success(`${name}: the section ${section} is valid\n`)
  const hide = hideSecrets(secretsIn(settings))
  // Every handler has the common settings.
  const { timeout } = settings as SettingValues<typeof commonSettings>
  try {
    const line = await new HandlerRun(program.handler, settings, timeout, environment).result(options.dryRun)
    return success(hide(line))
  } catch (error) {
    const { stderr, ...result } = handlerFailure(name, error)
    return { ...result, stderr: hide(stderr) }
  }
}

/** The settings of the section, and everything that is wrong with it: file, attribute and rule. */
function loadSettings(
  { handler, validateSettings }: HandlerProgram,
  section: string,
  { config: file, configDir: directories }: HandlerOptions,
  { loadSection, readFile, variables }: HandlerEnvironment,
): { settings: SettingValues<SettingTable>; problems: string[] } {
  const loaded = loadSection({ section, file, directories, variables })
  const problems: string[] = loaded.errors.map(({ file, error }) => `${file}: ${error}`)
  const found: SettingProblem[] = []
  const value = loaded.value ?? {}
  if (loaded.value === undefined) {
    problems.push(
      `${section}: there is no such section in ${loaded.looked}: add one, see docs/handlers/${handler.name}.md`,
    )
  } else if (typeof value !== 'object' || Array.isArray(value)) {
    problems.push(`${section} must be a hash`)
  } else if (!validateSettings(value)) {
    found.push(...(validateSettings.errors ?? []).flatMap(error => schemaProblem(error, handler.settings)))
  }
  if (problems.length > 0) return { settings: {}, problems }
  const wrong = new Set(found.map(({ path }) => path[0]))
  // Values that the schema refuses are not read; all others are, so that every error is told at once.
  const readable = Object.fromEntries(Object.entries(value).filter(([attribute]) => !wrong.has(attribute)))
  const reading: SettingProblem[] = []
  const settings = readSettings(handler.settings, readable, { variables, readFile }, reading)
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

/** One run: its stage and its deadline. */
class HandlerRun {
  readonly #handler: Handler
  readonly #settings: SettingValues<SettingTable>
  readonly #timeoutSeconds: number
  readonly #environment: HandlerEnvironment
  readonly #abort = new AbortController()
  readonly #startedMs = performance.now()
  #stage = 'reading the event from standard input'

  constructor(
    handler: Handler,
    settings: SettingValues<SettingTable>,
    timeoutSeconds: number,
    environment: HandlerEnvironment,
  ) {
    this.#handler = handler
    this.#settings = settings
    this.#timeoutSeconds = timeoutSeconds
    this.#environment = environment
  }

  /** Runs until the work is done or the time is over. */
  async result(dryRun: boolean): Promise<string> {
    const work = this.#work(dryRun)
    work.catch(() => undefined) // What is still going on after the deadline may fail unheard.
    let timer: NodeJS.Timeout | undefined
    const deadline = new Promise<never>((_, reject) => {
      const end = () => {
        const error = new Error(
          `gave up after ${this.#timeoutSeconds} s while ${this.#stage}: look at what hangs there, or allow more with the setting timeout`,
        )
        reject(error)
        this.#abort.abort(error)
      }
      timer = setTimeout(end, Math.min(this.#timeLeftMs(), 2 ** 31 - 1))
    })
    try {
      return await Promise.race([work, deadline])
    } finally {
      clearTimeout(timer)
    }
  }

  #timeLeftMs(): number {
    return this.#timeoutSeconds * 1000 - (performance.now() - this.#startedMs)
  }

  async #work(dryRun: boolean): Promise<string> {
    const { name } = this.#handler
    const event = readEvent(await this.#environment.readInput(this.#abort.signal))
    const about = `${event.client}/${event.check} ${event.action}`
    this.#stage = `working on ${about}`
    const action: Action = await this.#handler.handle(event, this.#settings, this.#context())
    if ('nothing' in action) return line(name, `${about}: nothing to do: ${action.nothing}`)
    if (dryRun) return `${printableLines(action.preview)}\n`
    return line(name, `${about}: ${await action.run()}`)
  }

  #context(): HandlerContext {
    const { now, random, variables, hostname } = this.#environment
    return {
      signal: this.#abort.signal,
      stage: name => {
        this.#stage = name
      },
      timeLeftMs: () => this.#timeLeftMs(),
      now,
      random,
      variables,
      hostname,
    }
  }
}

function line(name: string, text: string): string {
  return `${name}: ${printable(text, 2000)}\n`
}

import { join } from 'node:path'
import type { Validate } from './command-line.js'
import { readEvent } from './event.js'
import type { Action, commonSettings, Handler, HandlerContext } from './handler.js'
import { type HandlerOptions, parseHandlerArguments } from './handler-arguments.js'
import { type LoadedSection, readSection, type SectionRequest } from './handler-section.js'
import { hideSecrets, secretsIn } from './secret.js'
import type { SettingSources } from './settings-reader.js'
import type { SettingTable, SettingValues } from './settings-table.js'
import { printable, printableLines } from './text.js'

/** A handler and what the build made of it: all that is needed to run it. */
export interface HandlerProgram {
  readonly handler: Handler
  readonly validateArguments: Validate
  /** What `--version` prints besides the name. */
  readonly version: string
  /** What `--help` prints. */
  readonly help: string
}

/** Everything outside that a run depends on. */
export interface HandlerEnvironment extends Pick<HandlerContext, 'now' | 'random' | 'variables' | 'hostname'> {
  loadSection(request: SectionRequest): LoadedSection
  readonly readFile: SettingSources['readFile']
  /** Milliseconds since the process was started: Sensu's timeout counts from there. */
  elapsedMs(): number
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
  const { config: file, configDir: directories } = options
  const { loadSection, readFile, variables } = environment
  const loaded = loadSection({ section, file, directories, variables })
  const { settings, problems } = readSection(program.handler, section, loaded, { variables, readFile })
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

/** One run: its stage and its deadline. */
class HandlerRun {
  readonly #handler: Handler
  readonly #settings: SettingValues<SettingTable>
  readonly #timeoutSeconds: number
  readonly #environment: HandlerEnvironment
  readonly #abort = new AbortController()
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
    return this.#timeoutSeconds * 1000 - this.#environment.elapsedMs()
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
      path: absolute => join(variables['SENSU_KVM_ROOT'] || '/', absolute),
    }
  }
}

function line(name: string, text: string): string {
  return `${name}: ${printable(text, 2000)}\n`
}

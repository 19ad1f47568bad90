import { existsSync, realpathSync } from 'node:fs'
import { hostname } from 'node:os'
import { basename, join } from 'node:path'
import type { Host } from '../libvirt/host.js'
import { FileState } from '../plugin/file-state.js'
import { PendingReads } from '../plugin/pending-reads.js'
import { type CheckProgram, type Environment, prepareCheck, type RunResult } from '../plugin/program.js'
import { MemoryState } from '../plugin/state.js'
import type { CheckOutcome } from './commands.js'
import { optimizeHotCode } from './heap.js'
import { plainWords } from './plain-command.js'
import type { SharedHosts } from './shared-hosts.js'

/** The check programs this process has, by the name of their executable; each is loaded when it is first asked for. */
export interface Programs {
  get(name: string): CheckProgram<Host> | undefined
}

/** A command that needs no process: one of our programs with its arguments. */
export interface InProcessCall {
  program: CheckProgram<Host>
  argv: readonly string[]
  start(environment: Environment<Host>): Promise<RunResult>
}

/** Commands whose reading is remembered. */
const MAX_KNOWN_COMMANDS = 1000

/** setTimeout counts in 31 bits of milliseconds. */
const LONGEST_TIMER_MS = 2 ** 31 - 1

export interface InProcessOptions {
  programs: Programs
  /** Where the executables of these programs are: the agent's own directory. */
  directory: string
  hosts: SharedHosts
  /** Environment variables, the same that executables get. */
  variables: Readonly<Record<string, string | undefined>>
}

/** Runs our own checks inside this process, on shared connections, with the output and status of their executables. */
export class InProcessChecks {
  readonly #options: InProcessOptions
  readonly #state = new MemoryState()
  readonly #pending = new PendingReads()
  /** On disk: a guest that goes while the agent is restarted is gone all the same. */
  readonly #known: FileState
  readonly #hostname = hostname()
  readonly #calls = new Map<string, InProcessCall>()
  #used = false

  constructor(options: InProcessOptions) {
    this.#options = options
    this.#known = new FileState(options.variables)
  }

  /**
   * What to run when the command is plainly one of our executables: a bare name of one, or a path that leads to the
   * one beside the agent's own. Undefined: ask the shell.
   */
  resolve(command: string): InProcessCall | undefined {
    const known = this.#calls.get(command)
    if (known) return known
    const call = this.#read(command)
    if (!call) return undefined
    if (this.#calls.size >= MAX_KNOWN_COMMANDS) this.#calls.clear()
    this.#calls.set(command, call)
    return call
  }

  #read(command: string): InProcessCall | undefined {
    const [word, ...argv] = plainWords(command) ?? []
    if (word === undefined) return undefined
    const program = this.#programNamed(basename(word))
    if (!program || !this.#isOurs(word)) return undefined
    return { program, argv, start: prepareCheck(program, argv) }
  }

  /** `NAME.rb` is a link beside the executable of a check that takes a Ruby plugin's place. */
  #programNamed(name: string): CheckProgram<Host> | undefined {
    const { programs } = this.#options
    const program = programs.get(name) ?? programs.get(name.replace(/\.rb$/, ''))
    return program?.check.name === name || program?.check.rubyLine ? program : undefined
  }

  /**
   * A file of that name elsewhere may be another version, or something else altogether; without a directory, `NAME.rb` is the file that the
   * shell would find, which may be the Ruby plugin itself.
   */
  #isOurs(word: string): boolean {
    const own = join(this.#options.directory, basename(word))
    if (word === own || !/\/|\.rb$/.test(word)) return true
    const path = word.includes('/') ? word : onSearchPath(word, this.#options.variables['PATH'])
    try {
      return path !== undefined && realpathSync(path) === realpathSync(own)
    } catch {
      return false
    }
  }

  /** Never rejects. A check that hangs ends at its deadline, like a command that is killed (0: no deadline but its own). */
  async run(
    { start }: Pick<InProcessCall, 'start'>,
    timeoutSeconds: number,
    checkName?: string,
  ): Promise<CheckOutcome> {
    if (!this.#used) optimizeHotCode()
    this.#used = true
    const { hosts, variables } = this.#options
    const abort = new AbortController()
    let timer: NodeJS.Timeout | undefined
    const timeout = new Promise<CheckOutcome>(resolve => {
      if (timeoutSeconds <= 0) return
      const onTimeout = () => {
        resolve({ output: 'Execution timed out', status: 2, guests: [] })
        abort.abort()
      }
      timer = setTimeout(onTimeout, Math.min(timeoutSeconds * 1000, LONGEST_TIMER_MS))
    })
    const run = start({
      openHost: options => hosts.open(options),
      state: this.#state,
      pending: this.#pending,
      known: this.#known,
      checkName,
      now: Date.now,
      signal: abort.signal,
      hostname: this.#hostname,
      variables,
    }).then(({ output, status, guests }) => ({ output, status, guests: [...(guests ?? [])] }))
    try {
      return await Promise.race([run, timeout])
    } finally {
      clearTimeout(timer)
    }
  }
}

/** The first file of that name in the directories of a PATH. */
function onSearchPath(name: string, directories = ''): string | undefined {
  return directories
    .split(':')
    .map(directory => join(directory, name))
    .find(path => existsSync(path))
}

import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, existsSync, mkdtempSync, openSync, readFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'

/** What a command that was run to its end printed. */
export interface CommandOutput {
  stdout: string
  stderr: string
}

/** How `run` runs a command. */
export interface RunOptions {
  cwd?: string
  env?: NodeJS.ProcessEnv
  input?: string | Buffer
  /** After this time the command is killed and the call fails. */
  timeoutMs?: number
}

/** A command that could not be started, failed, or took too long. The message holds its last lines. */
export class CommandError extends Error {
  readonly status: number | undefined
  readonly stdout: string
  readonly stderr: string

  constructor(message: string, status: number | undefined, { stdout, stderr }: CommandOutput) {
    super(message)
    this.name = 'CommandError'
    this.status = status
    this.stdout = stdout
    this.stderr = stderr
  }
}

/** Runs a program (no shell) to its end; throws `CommandError` unless it exits with status 0 in time. */
export function run(command: string, args: readonly string[], options: RunOptions = {}): Promise<CommandOutput> {
  const { input, timeoutMs = 60_000, ...rest } = options
  return new Promise((resolve, reject) => {
    const child = execFile(
      command,
      args,
      { ...rest, timeout: timeoutMs, killSignal: 'SIGKILL', maxBuffer: 64 * 1024 * 1024 },
      (error, stdout, stderr) => {
        if (error === null) return resolve({ stdout, stderr })
        const status = typeof error.code === 'number' ? error.code : undefined
        const why =
          status !== undefined
            ? `failed with status ${status}`
            : error.killed
              ? `was stopped after ${timeoutMs} ms`
              : error.message
        const text = lastLines(stderr.trim() === '' ? stdout : stderr)
        reject(
          new CommandError(`${[command, ...args].join(' ')} ${why}${text && `:\n${text}`}`, status, { stdout, stderr }),
        )
      },
    )
    child.stdin?.on('error', () => {}) // a command that does not read its input
    child.stdin?.end(input ?? '')
  })
}

/** The last few lines of a longer text, for error messages. */
export function lastLines(text: string, count = 15): string {
  return text.trimEnd().split('\n').slice(-count).join('\n')
}

/** How a process ended. */
export interface ExitStatus {
  code: number | null
  signal: NodeJS.Signals | null
}

/** What `startProcess` needs. */
export interface ProcessOptions {
  /** What it is called in messages. */
  name: string
  command: string
  args: readonly string[]
  env?: NodeJS.ProcessEnv
  cwd?: string
  /** Standard output and error are appended to this file; without it they are lost. */
  logFile?: string
}

/** A daemon of ours, leader of a process group of its own (a terminal's Ctrl-C does not reach it). */
export class ManagedProcess {
  readonly name: string
  readonly pid: number
  readonly logFile: string
  /** Settles when the process has ended. */
  readonly exited: Promise<ExitStatus>
  readonly #child: ChildProcess
  #status: ExitStatus | undefined

  constructor(name: string, pid: number, logFile: string, child: ChildProcess) {
    this.name = name
    this.pid = pid
    this.logFile = logFile
    this.#child = child
    this.exited = new Promise(resolve => {
      child.once('exit', (code, signal) => {
        this.#status = { code, signal }
        this.signalGroup('SIGKILL') // helpers it left behind
        resolve(this.#status)
      })
    })
  }

  /** How it ended, or undefined while it runs. */
  get status(): ExitStatus | undefined {
    return this.#status
  }

  /** Sends a signal to the process alone. */
  signal(signal: NodeJS.Signals): void {
    if (this.#status === undefined) process.kill(this.pid, signal)
  }

  /** Sends a signal to the process and its helpers. */
  signalGroup(signal: NodeJS.Signals): void {
    try {
      process.kill(-this.pid, signal)
    } catch {
      // the group is gone already
    }
  }

  /** Kills the whole group with SIGKILL and waits for its end. */
  async kill(): Promise<void> {
    if (this.#status !== undefined) return
    this.#child.ref()
    this.signalGroup('SIGKILL')
    await this.exited
  }

  /** Asks the process to end (SIGTERM), kills its group when it has not ended in time; waits for the end. */
  async stop(timeoutMs = 10_000): Promise<void> {
    if (this.#status !== undefined) return
    this.#child.ref()
    this.signal('SIGTERM')
    this.signal('SIGCONT') // a test may have stopped it
    const ended = await withTimeout(this.exited, timeoutMs)
    if (ended === undefined) await this.kill()
  }

  /** The last lines it wrote, for error messages. */
  lastLines(count?: number): string {
    try {
      return lastLines(readFileSync(this.logFile, 'utf8'), count)
    } catch {
      return ''
    }
  }
}

/** Starts a daemon in its own session and process group; it does not keep this process alive. */
export async function startProcess(options: ProcessOptions): Promise<ManagedProcess> {
  const logFile = options.logFile ?? '/dev/null'
  const log = openSync(logFile, 'a')
  try {
    const child = spawn(options.command, options.args, {
      detached: true,
      cwd: options.cwd ?? '/',
      env: options.env ?? process.env,
      stdio: ['ignore', log, log],
    })
    try {
      await once(child, 'spawn')
    } catch (error) {
      throw new Error(`cannot start ${options.name} (${options.command}): ${String(error)}`)
    }
    if (child.pid === undefined) throw new Error(`${options.name} has no process id`)
    child.unref()
    return new ManagedProcess(options.name, child.pid, logFile, child)
  } finally {
    closeSync(log)
  }
}

/** Limits of a wait. */
export interface WaitOptions {
  timeoutMs: number
  /** Time between two tries. */
  intervalMs?: number
  /** The wait fails at once when this process ends. */
  process?: ManagedProcess
}

/**
 * Tries `probe` until it gives something else than undefined; that is the result. A probe that throws counts as "not yet".
 * Fails with the last complaint when the time is over or the process it depends on has ended.
 */
export async function waitUntil<T>(
  what: string,
  probe: () => Promise<T | undefined> | T | undefined,
  options: WaitOptions,
): Promise<T> {
  const deadline = performance.now() + options.timeoutMs
  for (;;) {
    let complaint = ''
    try {
      const result = await probe()
      if (result !== undefined) return result
    } catch (error) {
      complaint = error instanceof Error ? `: ${error.message}` : `: ${String(error)}`
    }
    const ended = options.process
    if (ended?.status !== undefined)
      throw new Error(
        `${ended.name} ended (${ended.status.signal ?? `status ${ended.status.code}`}) before ${what}; its last lines:\n${ended.lastLines()}`,
      )
    if (performance.now() >= deadline)
      throw new Error(`gave up waiting for ${what} after ${options.timeoutMs} ms${complaint}`)
    await delay(options.intervalMs ?? 25)
  }
}

/** The promise's value, or undefined when it has not settled in time. */
export async function withTimeout<T>(promise: Promise<T>, timeoutMs: number): Promise<T | undefined> {
  const stopped = new AbortController()
  try {
    return await Promise.race([promise, delay(timeoutMs, undefined, { signal: stopped.signal })])
  } finally {
    stopped.abort()
  }
}

/** A TCP port of 127.0.0.1 that was free a moment ago. Another process may take it first: be ready to ask again. */
export async function findFreePort(): Promise<number> {
  const server = createServer()
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  server.close()
  await once(server, 'close')
  if (address === null || typeof address === 'string') throw new Error('the system named no port')
  return address.port
}

/**
 * Makes a temporary directory with a short path: a Unix socket's path may have 107 characters, and libvirt adds about 80.
 * Not below /run, which the private libvirtd hides from itself.
 */
export function makeTemporaryDirectory(): string {
  const base = tmpdir()
  const usable = base.length <= 20 && !base.startsWith('/run') && !base.startsWith('/var/run') && !/\s/.test(base)
  return mkdtempSync(join(usable ? base : '/tmp', 'sk-'))
}

/** Where expensive things are kept from one run to the next: `$XDG_CACHE_HOME/sensu-kvm`, else `.cache` in the project. */
export function cacheDirectory(): string {
  const base = process.env['XDG_CACHE_HOME']
  return base ? join(base, 'sensu-kvm') : join(projectDirectory(), '.cache')
}

/** The project's folder: the nearest one above this module that holds package.json. */
export function projectDirectory(): string {
  let folder = dirname(fileURLToPath(import.meta.url))
  while (!existsSync(join(folder, 'package.json'))) {
    if (folder === dirname(folder)) throw new Error(`no project folder above ${fileURLToPath(import.meta.url)}`)
    folder = dirname(folder)
  }
  return folder
}

import { DirectStarter } from './direct-start.js'
import { isNumeric, isTruthy } from './json-value.js'
import { type CommandStarter, type RunningCommand, signalGroup } from './running-command.js'
import { inspectText } from './text-forms.js'
import type { Json } from './types.js'

/** What is to be run. `command` and `timeoutSeconds` may be anything a request contained. */
export type SpawnRequest = {
  /** text for `sh -c`; anything but a string gives the result of a failed start */
  command: Json | undefined
  /** what the command finds on its standard input; without it the input is inherited */
  stdin?: string | Buffer
  /** seconds from the start of the process, fractions allowed; 0, null, false and absence mean no limit */
  timeoutSeconds?: Json | undefined
  /** working directory, default that of this process */
  cwd?: string
  /** the whole environment, default that of the Spawner */
  env?: NodeJS.ProcessEnv
  /** ends the command like a timeout does; the promise is then rejected with the signal's reason */
  signal?: AbortSignal
}

export type SpawnResult = {
  /** standard output and error together, in the order they were written, bytes unchanged */
  output: Buffer
  /** exit status; the signal's number when a signal ended the process; 2 after a timeout; 3 when it did not start */
  status: number
  timedOut: boolean
  /** the output was longer than the Spawner's limit and has lost its end */
  truncated: boolean
}

export type SpawnerOptions = {
  /** commands that run at the same time */
  limit: number
  /** commands that may wait, default 10,000; further ones end at once with status 3 */
  maxQueued?: number
  /** bytes of output that are kept per command, default 64 MiB */
  maxOutputBytes?: number
  /** environment of the commands, default a copy of this process's own at this moment */
  env?: NodeJS.ProcessEnv
  /** loads a quicker way to start commands, if there is one: once several are wanted at the same time */
  loadStarter?: () => Promise<CommandStarter | undefined>
}

/** Between TERM and KILL, and again as long as a killed process may take to vanish. */
const graceMs = 3000
const groupPollMs = 100
const longestTimerMs = 2 ** 31 - 1

/**
 * Runs commands as Sensu 1.9 does: `sh -c`, an own process group, output and error on one pipe, at most `limit` at a
 * time, the others waiting in order. Rejects only when its signal is aborted: a command that cannot be started has the
 * output `Unexpected error: …` and status 3.
 */
export class Spawner {
  readonly #limit: number
  readonly #maxQueued: number
  readonly #maxOutputBytes: number
  readonly #env: NodeJS.ProcessEnv
  #starter: CommandStarter = new DirectStarter()
  #loadStarter: SpawnerOptions['loadStarter']
  readonly #waiting: (() => void)[] = []
  #running = 0

  constructor(options: SpawnerOptions) {
    this.#limit = options.limit
    this.#maxQueued = options.maxQueued ?? 10_000
    this.#maxOutputBytes = options.maxOutputBytes ?? 64 * 1024 * 1024
    // A plain object: reading process.env anew for every command is slow.
    this.#env = options.env ?? { ...process.env }
    this.#loadStarter = options.loadStarter
  }

  /** Commands that run now. */
  get running(): number {
    return this.#running
  }

  /** Commands that wait for a free place. */
  get queued(): number {
    return this.#waiting.length
  }

  /** Waits for a free place, runs the command, and resolves when it has ended and its output is complete. */
  async run(request: SpawnRequest): Promise<SpawnResult> {
    request.signal?.throwIfAborted()
    if (this.#running < this.#limit) {
      this.#running++
    } else if (this.#waiting.length < this.#maxQueued) {
      await this.#place(request.signal)
    } else {
      return failure(`${this.#waiting.length} commands are waiting already, this one was not started`)
    }
    try {
      return await this.#start(request)
    } finally {
      const next = this.#waiting.shift()
      if (next) next()
      else this.#running--
    }
  }

  /** Releases what is kept for further commands: to be called when none runs. Those that still run are not touched. */
  close(): void {
    this.#loadStarter = undefined
    this.#starter.close()
  }

  /** Resolves when another command hands over its place. */
  #place(signal: AbortSignal | undefined): Promise<void> {
    return new Promise((resolve, reject) => {
      const proceed = () => {
        signal?.removeEventListener('abort', leave)
        resolve()
      }
      const leave = () => {
        this.#waiting.splice(this.#waiting.indexOf(proceed), 1)
        reject(signal?.reason)
      }
      signal?.addEventListener('abort', leave, { once: true })
      this.#waiting.push(proceed)
    })
  }

  async #start(request: SpawnRequest): Promise<SpawnResult> {
    request.signal?.throwIfAborted()
    const command = Buffer.isBuffer(request.command) ? request.command.toString() : (request.command ?? null)
    const timeout = isTruthy(request.timeoutSeconds) ? request.timeoutSeconds : 0
    if (typeof command !== 'string') {
      return failure(`all arguments must be String: ${inspectText(['sh', '-c', command])}`)
    }
    if (command.includes('\0')) return failure(`argument cannot contain null bytes: ${inspectText(command)}`)
    if (!isNumeric(timeout)) {
      return failure(`the timeout must be a number of seconds, not ${inspectText(timeout ?? null)}`)
    }
    if (Number(timeout) < 0) return failure('time interval must not be negative')
    let running: RunningCommand | undefined
    let complete = false
    try {
      running = this.#begin(command, request)
      const result = await outcome(running, Number(timeout) * 1000, request.signal)
      complete = !result.timedOut
      return result
    } catch (error) {
      if (request.signal?.aborted) throw request.signal.reason
      return failure(error instanceof Error ? error.message : String(error))
    } finally {
      running?.release(complete)
    }
  }

  #begin(command: string, { stdin, cwd, env }: SpawnRequest): RunningCommand {
    // A command now and then is not worth the memory.
    if (this.#running > 1) void this.#load()
    return this.#starter.start({
      ...{ command, env: env ?? this.#env, maxOutputBytes: this.#maxOutputBytes },
      ...(stdin !== undefined && { stdin }),
      ...(cwd !== undefined && { cwd }),
    })
  }

  /** Once; further commands are started by what was loaded, those that run meanwhile are left to what started them. */
  async #load(): Promise<void> {
    const load = this.#loadStarter
    this.#loadStarter = undefined
    const loaded = await load?.()
    if (loaded === undefined) return
    this.#starter.close()
    this.#starter = loaded
  }
}

function failure(reason: string): SpawnResult {
  return { output: Buffer.from(`Unexpected error: ${reason}`), status: 3, timedOut: false, truncated: false }
}

/** Rejects when the process could not be started, or with the signal's reason after the group was stopped. */
async function outcome(
  running: RunningCommand,
  timeoutMs: number,
  signal: AbortSignal | undefined,
): Promise<SpawnResult> {
  const expiry = new Expiry(timeoutMs, signal)
  try {
    // Nothing ends before its output does: a grandchild in the background may still hold the pipe.
    const ended = Promise.all([running.exit, running.output.complete])
    const first = await Promise.race([ended, expiry.reached])
    if (first !== undefined) return { ...running.output.result(), status: first[0], timedOut: false }
  } finally {
    expiry.cancel()
  }
  const problem = await stop(running)
  signal?.throwIfAborted()
  return { output: Buffer.from(`Execution timed out${problem}`), status: 2, timedOut: true, truncated: false }
}

/** TERM to the group, KILL after 3 s. Returns what went wrong, or nothing. */
async function stop(running: RunningCommand): Promise<string> {
  const pid = await running.pid
  if (pid === undefined) return ''
  try {
    signalGroup(pid, 'SIGTERM')
    if (await endsWithin(running.exit, graceMs)) {
      killStragglers(pid)
      return ''
    }
    signalGroup(pid, 'SIGKILL')
    if (await endsWithin(running.exit, graceMs)) return ''
    throw new Error('still there 3 seconds after KILL')
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error)
    return ` - Unable to TERM/KILL the process: #${pid}, ${reason}`
  }
}

/** The leader has ended, others of its group may ignore TERM: they are killed after the same 3 s. */
function killStragglers(pid: number): void {
  const deadline = performance.now() + graceMs
  const timer = setInterval(() => {
    try {
      const expired = performance.now() > deadline
      if (!signalGroup(pid, expired ? 'SIGKILL' : 0) || expired) clearInterval(timer)
    } catch {
      // Not ours any more.
      clearInterval(timer)
    }
  }, groupPollMs)
}

async function endsWithin(promise: Promise<unknown>, milliseconds: number): Promise<boolean> {
  const expiry = new Expiry(milliseconds, undefined)
  const first = await Promise.race([promise, expiry.reached])
  expiry.cancel()
  return first !== undefined
}

/** Resolves to undefined after the time (0: never) or when the signal is aborted. */
class Expiry {
  readonly reached: Promise<undefined>
  readonly #signal: AbortSignal | undefined
  #timer: NodeJS.Timeout | undefined
  #reach: () => void = () => {}

  constructor(milliseconds: number, signal: AbortSignal | undefined) {
    this.#signal = signal
    this.reached = new Promise(resolve => {
      this.#reach = () => resolve(undefined)
    })
    if (milliseconds !== 0) this.#timer = setTimeout(this.#reach, Math.min(milliseconds, longestTimerMs))
    if (signal?.aborted) this.#reach()
    else signal?.addEventListener('abort', this.#reach)
  }

  cancel(): void {
    clearTimeout(this.#timer)
    this.#signal?.removeEventListener('abort', this.#reach)
  }
}

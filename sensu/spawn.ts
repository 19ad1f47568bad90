import { type ChildProcess, execFileSync, type StdioOptions, spawn } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { closeSync, constants, mkdtempSync, openSync, rmSync, unlinkSync, writeSync } from 'node:fs'
import { Socket } from 'node:net'
import { constants as osConstants, tmpdir } from 'node:os'
import { join } from 'node:path'
import { isNumeric } from './json-value.js'
import { inspectText } from './text-forms.js'
import type { Json } from './types.js'

/** What is to be run. `command` and `timeoutSeconds` may be anything a request contained. */
export type SpawnRequest = {
  /** text for `sh -c`; anything but a string gives the result of a failed start */
  command: Json | undefined
  /** what the command finds on its standard input; without it the input is inherited */
  stdin?: string | Buffer
  /** seconds from the start of the process, fractions allowed; 0, null and absence mean no limit */
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
  readonly #pipes = new PipePool()
  readonly #waiting: (() => void)[] = []
  #running = 0

  constructor(options: SpawnerOptions) {
    this.#limit = options.limit
    this.#maxQueued = options.maxQueued ?? 10_000
    this.#maxOutputBytes = options.maxOutputBytes ?? 64 * 1024 * 1024
    // A plain object: reading process.env anew for every command is slow.
    this.#env = options.env ?? { ...process.env }
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

  /** Releases what is kept for further commands. Commands that still run are not touched. */
  close(): void {
    this.#pipes.close()
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
    const timeout = request.timeoutSeconds ?? null
    if (typeof command !== 'string') {
      return failure(`all arguments must be String: ${inspectText(['sh', '-c', command])}`)
    }
    if (command.includes('\0')) return failure(`argument cannot contain null bytes: ${inspectText(command)}`)
    if (timeout !== null && !isNumeric(timeout)) {
      return failure(`the timeout must be a number of seconds, not ${inspectText(timeout)}`)
    }
    const pipe = this.#pipes.take()
    if (pipe instanceof Error) return failure(pipe.message)
    let clean = false
    try {
      const run = this.#launch(command, request, pipe)
      try {
        const result = await run.outcome(Number(timeout ?? 0) * 1000, request.signal)
        clean = !result.timedOut
        return result
      } finally {
        run.release()
      }
    } catch (error) {
      if (request.signal?.aborted) throw request.signal.reason
      const place = request.cwd === undefined ? '' : ` in ${request.cwd}`
      return failure(`cannot start sh${place}: ${error instanceof Error ? error.message : error}`)
    } finally {
      // Something may still write to a pipe that did not come to its end: the next command gets another one.
      if (clean) this.#pipes.give(pipe)
      else pipe.close()
    }
  }

  #launch(command: string, request: SpawnRequest, pipe: Pipe): Run {
    const output = pipe.openEnds()
    let input: number | undefined
    try {
      if (request.stdin !== undefined) input = openInput(Buffer.from(request.stdin))
      const stdio: StdioOptions = [input ?? 'inherit', output.childFd, output.childFd]
      const env = request.env ?? this.#env
      const child = spawn('sh', ['-c', command], { stdio, detached: true, env, cwd: request.cwd })
      return new Run(child, new Output(output.reader, this.#maxOutputBytes))
    } catch (error) {
      output.reader.destroy()
      throw error
    } finally {
      closeSync(output.childFd)
      if (input !== undefined) closeSync(input)
    }
  }
}

function failure(reason: string): SpawnResult {
  return { output: Buffer.from(`Unexpected error: ${reason}`), status: 3, timedOut: false, truncated: false }
}

/** One running command. */
class Run {
  readonly #child: ChildProcess
  readonly #output: Output
  readonly #exit: Promise<number>

  constructor(child: ChildProcess, output: Output) {
    this.#child = child
    this.#output = output
    this.#exit = new Promise((resolve, reject) => {
      child.once('error', reject)
      child.once('exit', (code, signal) => resolve(code ?? (signal === null ? 0 : osConstants.signals[signal])))
    })
  }

  /** Rejects when the process could not be started, or with the signal's reason after the group was stopped. */
  async outcome(timeoutMs: number, signal: AbortSignal | undefined): Promise<SpawnResult> {
    const expiry = new Expiry(timeoutMs, signal)
    try {
      // Nothing ends before its output does: a grandchild in the background may still hold the pipe.
      const ended = Promise.all([this.#exit, this.#output.complete])
      const first = await Promise.race([ended, expiry.reached])
      if (first !== undefined) return { ...this.#output.result(), status: first[0], timedOut: false }
    } finally {
      expiry.cancel()
    }
    const problem = await this.#stop()
    signal?.throwIfAborted()
    return { output: Buffer.from(`Execution timed out${problem}`), status: 2, timedOut: true, truncated: false }
  }

  release(): void {
    this.#output.destroy()
  }

  /** TERM to the group, KILL after 3 s. Returns what went wrong, or nothing. */
  async #stop(): Promise<string> {
    const pid = this.#child.pid
    if (pid === undefined) return ''
    try {
      signalGroup(pid, 'SIGTERM')
      if (await endsWithin(this.#exit, graceMs)) {
        killStragglers(pid)
        return ''
      }
      signalGroup(pid, 'SIGKILL')
      if (await endsWithin(this.#exit, graceMs)) return ''
      throw new Error('still there 3 seconds after KILL')
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error)
      return ` - Unable to TERM/KILL the process: #${pid}, ${reason}`
    }
  }
}

/** Sends the signal to all processes of the group; false when there is none left. */
function signalGroup(pid: number, signal: NodeJS.Signals | 0): boolean {
  try {
    return process.kill(-pid, signal)
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ESRCH') return false
    throw error
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

/** Collects what the command writes, up to a limit; the rest is read and thrown away. */
class Output {
  /** Resolves at the end of the output, when nobody holds the pipe any more. */
  readonly complete: Promise<true>
  readonly #reader: Socket
  readonly #chunks: Buffer[] = []
  #bytesLeft: number
  #truncated = false

  constructor(reader: Socket, maxBytes: number) {
    this.#reader = reader
    this.#bytesLeft = maxBytes
    this.complete = new Promise(resolve => reader.once('close', () => resolve(true)))
    // Reading a pipe cannot fail in a way that its end would not tell.
    reader.on('error', () => {})
    reader.on('data', chunk => this.#add(chunk))
  }

  result(): { output: Buffer; truncated: boolean } {
    return { output: Buffer.concat(this.#chunks), truncated: this.#truncated }
  }

  destroy(): void {
    this.#reader.destroy()
  }

  #add(chunk: Buffer): void {
    if (chunk.length > this.#bytesLeft) this.#truncated = true
    const kept = chunk.subarray(0, this.#bytesLeft)
    if (kept.length > 0) this.#chunks.push(kept)
    this.#bytesLeft -= kept.length
  }
}

/**
 * A pipe, held by a descriptor that is neither reader nor writer, and opened through it as often as needed.
 * Node gives a child socket pairs only: one per stream, so that the order of output and error is lost, and `/dev/stderr`
 * cannot be opened on a socket. And it cannot call pipe(2).
 */
class Pipe {
  readonly #anchor: number

  constructor(fifo: string) {
    const oPath = 0o10000000 // O_PATH of Linux, not among Node's constants
    this.#anchor = openSync(fifo, oPath)
  }

  openEnds(): { reader: Socket; childFd: number } {
    const path = `/proc/self/fd/${this.#anchor}`
    const fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK)
    const reader = new Socket({ fd, readable: true, writable: false })
    try {
      return { reader, childFd: openSync(path, constants.O_WRONLY) }
    } catch (error) {
      reader.destroy()
      throw error
    }
  }

  close(): void {
    closeSync(this.#anchor)
  }
}

/**
 * A nameless file with the data, read from its start. A command that does not read it breaks nothing, and it can open
 * `/dev/stdin`, which it could not with a socket.
 */
function openInput(data: Buffer): number {
  const path = join(tmpdir(), `sensu-input-${randomUUID()}`)
  const fd = openSync(path, 'wx+', 0o600)
  try {
    unlinkSync(path)
    for (let at = 0; at < data.length; ) at += writeSync(fd, data, at, data.length - at, at)
    return fd
  } catch (error) {
    closeSync(fd)
    throw error
  }
}

const pipesAtOnce = 16

/** Pipes between two uses, and the making of new ones. */
class PipePool {
  readonly #idle: Pipe[] = []

  /** An idle pipe or a new one; an Error that says why there is none. */
  take(): Pipe | Error {
    try {
      return this.#idle.pop() ?? this.#make()
    } catch (error) {
      return new Error(`cannot make a pipe in ${tmpdir()}: ${error instanceof Error ? error.message : error}`)
    }
  }

  give(pipe: Pipe): void {
    if (this.#idle.length < 4 * pipesAtOnce) this.#idle.push(pipe)
    else pipe.close()
  }

  close(): void {
    for (const pipe of this.#idle.splice(0)) pipe.close()
  }

  /** Some at once, as it takes a process. Their names are gone before anything else can happen. */
  #make(): Pipe {
    const directory = mkdtempSync(join(tmpdir(), 'sensu-pipes-'))
    try {
      const paths = Array.from({ length: pipesAtOnce }, (_, index) => join(directory, String(index)))
      const env = { ...process.env, PATH: `${process.env['PATH'] ?? ''}:/usr/bin:/bin` }
      execFileSync('mkfifo', ['-m', '600', ...paths], { env, stdio: ['ignore', 'ignore', 'pipe'], timeout: 10_000 })
      const [first = '', ...others] = paths
      const pipe = new Pipe(first)
      for (const path of others) this.#idle.push(new Pipe(path))
      return pipe
    } finally {
      rmSync(directory, { recursive: true, force: true })
    }
  }
}

import { type ChildProcess, spawn } from 'node:child_process'
import type { Socket } from 'node:net'
import { constants } from 'node:os'
import { bindNow, launcherProgram } from './launcher.perl.js'
import type { Logger } from './log.js'
import { CommandOutput, type RunningCommand, signalGroup } from './running-command.js'

export interface LauncherOptions {
  /** the environment of the commands */
  env: NodeJS.ProcessEnv
  log: Pick<Logger, 'warn'>
  /** the Perl that runs it, default Debian's */
  perl?: string
  /** how long it may take to start a command, ms; default 30 s: then it is taken for stuck, and ended */
  patienceMs?: number
}

const headerBytes = 9
const version = 1

/**
 * A small process that starts commands for this one, and passes on what they write. Forking it is cheap, while forking this process copies
 * the page tables of some 50 MiB, and stands still until the command's shell is loaded. Without it commands run as well: it is used
 * when it is there, and when it is lost, that is logged once, and it does not come back.
 */
export class Launcher {
  readonly #options: LauncherOptions
  readonly #commands = new Map<number, LaunchedCommand>()
  #state: 'new' | 'starting' | 'ready' | 'ended' = 'new'
  #process: ChildProcess | undefined
  #socket: Socket | undefined
  #received: Buffer = Buffer.alloc(0)
  #lastNumber = 0

  constructor(options: LauncherOptions) {
    this.#options = options
  }

  /** Whether it can run commands now. */
  get ready(): boolean {
    return this.#state === 'ready'
  }

  /** Its process, while there is one. */
  get pid(): number | undefined {
    return this.#process?.pid
  }

  /** Starts it, unless that was done before. */
  start(): void {
    if (this.#state !== 'new') return
    this.#state = 'starting'
    const { env, perl = '/usr/bin/perl' } = this.#options
    try {
      // What it says about itself (a locale that is missing, say) is nobody's business; commands inherit the input alone.
      const stdio: ('inherit' | 'ignore' | 'pipe')[] = ['inherit', 'ignore', 'ignore', 'pipe']
      // Not detached: Linux gives each session its share of a busy machine, and a command is worked on by both in turn.
      const child = spawn(perl, ['-e', launcherProgram], { stdio, env: { LD_BIND_NOW: bindNow, ...env } })
      child.once('error', error => this.#lose(error.message))
      child.once('exit', (code, signal) => this.#lose(`it ended with ${signal ?? code}`))
      this.#process = child
      this.#listen(child.stdio[3] as Socket)
      this.#hold(false)
    } catch (error) {
      this.#lose(String(error))
    }
  }

  /** Runs a command with `sh -c`, in the working directory and with the standard input of this process. Only while it is `ready`. */
  run(command: string, maxOutputBytes: number): RunningCommand {
    const number = this.#nextNumber()
    const text = Buffer.from(command)
    const { patienceMs = 30_000 } = this.#options
    const launched = new LaunchedCommand(maxOutputBytes, patienceMs, {
      onStuck: () => this.#process?.kill('SIGKILL'),
      onRelease: complete => {
        this.#commands.delete(number)
        if (!complete) this.#send('C', number, 0)
        if (this.#commands.size === 0) this.#hold(false)
      },
    })
    if (this.#commands.size === 0) this.#hold(true)
    this.#commands.set(number, launched)
    this.#send('R', number, text.length, text)
    return launched
  }

  /** Ends it. Commands that it still runs are not touched, and what they come to is never known. */
  close(): void {
    this.#state = 'ended'
    this.#socket?.destroy()
  }

  #listen(socket: Socket): void {
    this.#socket = socket
    // The end of the process tells it, too.
    socket.on('error', () => {})
    socket.on('data', chunk => this.#receive(chunk))
  }

  /** Whether this process stays for it. */
  #hold(wanted: boolean): void {
    for (const handle of [this.#process, this.#socket]) {
      if (wanted) handle?.ref()
      else handle?.unref()
    }
  }

  #nextNumber(): number {
    do this.#lastNumber = (this.#lastNumber + 1) % 2 ** 32
    while (this.#commands.has(this.#lastNumber))
    return this.#lastNumber
  }

  #send(kind: 'R' | 'C', number: number, value: number, bytes?: Buffer): void {
    const frame = Buffer.allocUnsafe(headerBytes + (bytes?.length ?? 0))
    frame.write(kind, 0, 'latin1')
    frame.writeUInt32BE(number, 1)
    frame.writeUInt32BE(value, 5)
    bytes?.copy(frame, headerBytes)
    this.#socket?.write(frame)
  }

  #receive(chunk: Buffer): void {
    const data = this.#received.length === 0 ? chunk : Buffer.concat([this.#received, chunk])
    let at = 0
    while (data.length - at >= headerBytes) {
      const kind = data.toString('latin1', at, at + 1)
      const value = data.readUInt32BE(at + 5)
      const end = at + headerBytes + (kind === 'O' ? value : 0)
      if (end > data.length) break
      if (kind === 'H') this.#greet(value)
      else this.#commands.get(data.readUInt32BE(at + 1))?.receive(kind, value, data.subarray(at + headerBytes, end))
      at = end
    }
    this.#received = data.subarray(at)
  }

  #greet(itsVersion: number): void {
    // Whatever else may have been started under that name is not used.
    if (this.#state === 'starting' && itsVersion === version) this.#state = 'ready'
  }

  /** It has ended by itself, or could not be started. */
  #lose(reason: string): void {
    if (this.#state === 'ended') return
    this.close()
    this.#options.log.warn('command launcher is gone, starting commands without it', { reason })
    for (const command of this.#commands.values()) command.fail(`the command launcher is gone: ${reason}`)
  }
}

interface Owner {
  onStuck(): void
  onRelease(complete: boolean): void
}

/** A command that the launcher was asked to run. */
class LaunchedCommand implements RunningCommand {
  readonly pid: Promise<number | undefined>
  readonly exit: Promise<number>
  readonly output: CommandOutput
  readonly #owner: Owner
  readonly #patience: NodeJS.Timeout
  #knownPid: number | undefined
  #started: (pid: number | undefined) => void = () => {}
  #ended: (status: number) => void = () => {}
  #failed: (error: Error) => void = () => {}

  constructor(maxOutputBytes: number, patienceMs: number, owner: Owner) {
    this.#owner = owner
    this.output = new CommandOutput(maxOutputBytes)
    this.pid = new Promise(resolve => {
      this.#started = resolve
    })
    this.exit = new Promise((resolve, reject) => {
      this.#ended = resolve
      this.#failed = reject
    })
    this.#patience = setTimeout(owner.onStuck, patienceMs)
  }

  release(complete: boolean): void {
    clearTimeout(this.#patience)
    this.#owner.onRelease(complete)
  }

  /** Takes what the launcher tells: see `launcher.perl.ts`. */
  receive(kind: string, value: number, bytes: Buffer): void {
    clearTimeout(this.#patience)
    if (kind === 'O') this.output.add(bytes)
    else if (kind === 'E') this.output.end()
    else if (kind === 'P') this.#setPid(value)
    else if (kind === 'X') this.#ended(exitStatus(value))
    else if (kind === 'F') this.#fail(`cannot start sh: spawn sh ${errorName(value)}`)
  }

  /** The launcher is gone, and with it what the command comes to: it is ended. */
  fail(reason: string): void {
    if (this.#knownPid !== undefined) signalGroup(this.#knownPid, 'SIGTERM')
    this.#fail(reason)
  }

  #setPid(pid: number): void {
    this.#knownPid = pid
    this.#started(pid)
  }

  #fail(reason: string): void {
    this.#started(this.#knownPid)
    this.#failed(new Error(reason))
  }
}

/** Of the status word of wait(2): the exit status, or the signal's number. */
function exitStatus(word: number): number {
  const signal = word & 0x7f
  return signal === 0 ? (word >> 8) & 0xff : signal
}

function errorName(errno: number): string {
  return Object.entries(constants.errno).find(([, value]) => value === errno)?.[0] ?? `error ${errno}`
}

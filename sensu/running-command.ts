/** What is to be started, and how. */
export interface StartRequest {
  /** text for `sh -c`, without null bytes */
  command: string
  /** what the command finds on its standard input; without it the input is inherited */
  stdin?: string | Buffer
  /** working directory, default that of this process */
  cwd?: string
  env: NodeJS.ProcessEnv
  /** bytes of output that are kept */
  maxOutputBytes: number
}

/** A way to start commands: `sensu/native-start.ts`, or `sensu/direct-start.ts` with nothing but Node. */
export interface CommandStarter {
  /** Throws, or has the command's `exit` reject, when it cannot be started. */
  start(request: StartRequest): RunningCommand
  /** Releases what is kept for further commands. Commands that still run are not touched. */
  close(): void
}

/** A command that was started. */
export interface RunningCommand {
  /** Its process and its process group; undefined when there is none. */
  readonly pid: Promise<number | undefined>
  /** Its exit status, or the number of the signal that ended it. Rejects when it could not be started. */
  readonly exit: Promise<number>
  readonly output: CommandOutput
  /** To be called once, when nothing more is wanted of it. `complete`: it has ended, and so has its output. */
  release(complete: boolean): void
}

/** Collects what a command writes, up to a limit; the rest is thrown away. */
export class CommandOutput {
  /** Resolves at the end of the output, when nobody can write any more. */
  readonly complete: Promise<true>
  readonly #chunks: Buffer[] = []
  #bytesLeft: number
  #truncated = false
  #finish: () => void = () => {}

  constructor(maxBytes: number) {
    this.#bytesLeft = maxBytes
    this.complete = new Promise(resolve => {
      this.#finish = () => resolve(true)
    })
  }

  add(chunk: Buffer): void {
    if (chunk.length > this.#bytesLeft) this.#truncated = true
    const kept = chunk.subarray(0, this.#bytesLeft)
    if (kept.length > 0) this.#chunks.push(kept)
    this.#bytesLeft -= kept.length
  }

  end(): void {
    this.#finish()
  }

  result(): { output: Buffer; truncated: boolean } {
    return { output: Buffer.concat(this.#chunks), truncated: this.#truncated }
  }
}

/** Sends the signal to all processes of the group; false when there is none left. */
export function signalGroup(pid: number, signal: NodeJS.Signals | 0): boolean {
  try {
    return process.kill(-pid, signal)
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ESRCH') return false
    throw error
  }
}

import { type ChildProcess, execFileSync, type StdioOptions, spawn } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { closeSync, constants, mkdtempSync, openSync, rmSync, unlinkSync, writeSync } from 'node:fs'
import { Socket } from 'node:net'
import { constants as osConstants, tmpdir } from 'node:os'
import { join } from 'node:path'
import { CommandOutput, type CommandStarter, type RunningCommand, type StartRequest } from './running-command.js'

/** Starts commands as Node does, by fork and exec. */
export class DirectStarter implements CommandStarter {
  readonly #pipes = new PipePool()

  start(request: StartRequest): RunningCommand {
    const pipe = this.#pipes.take()
    try {
      return this.#launch(request, pipe)
    } catch (error) {
      pipe.close()
      throw startError(error, request.cwd)
    }
  }

  close(): void {
    this.#pipes.close()
  }

  #launch({ command, stdin, cwd, env, maxOutputBytes }: StartRequest, pipe: Pipe): RunningCommand {
    const ends = pipe.openEnds()
    let input: number | undefined
    try {
      if (stdin !== undefined) input = openInput(Buffer.from(stdin))
      const stdio: StdioOptions = [input ?? 'inherit', ends.childFd, ends.childFd]
      const child = spawn('sh', ['-c', command], { stdio, detached: true, env, cwd })
      return {
        pid: Promise.resolve(child.pid),
        exit: exitOf(child, cwd),
        output: outputOf(ends.reader, maxOutputBytes),
        release: complete => {
          ends.reader.destroy()
          // Something may still write to a pipe that did not come to its end: the next command gets another one.
          if (complete) this.#pipes.give(pipe)
          else pipe.close()
        },
      }
    } catch (error) {
      ends.reader.destroy()
      throw error
    } finally {
      closeSync(ends.childFd)
      if (input !== undefined) closeSync(input)
    }
  }
}

function startError(error: unknown, cwd: string | undefined): Error {
  const place = cwd === undefined ? '' : ` in ${cwd}`
  return new Error(`cannot start sh${place}: ${error instanceof Error ? error.message : error}`)
}

function exitOf(child: ChildProcess, cwd: string | undefined): Promise<number> {
  return new Promise((resolve, reject) => {
    child.once('error', error => reject(startError(error, cwd)))
    child.once('exit', (code, signal) => resolve(code ?? (signal === null ? 0 : osConstants.signals[signal])))
  })
}

/** Collects what comes through a pipe. */
export function outputOf(reader: Socket, maxBytes: number): CommandOutput {
  const output = new CommandOutput(maxBytes)
  reader.once('close', () => output.end())
  // Reading a pipe cannot fail in a way that its end would not tell.
  reader.on('error', () => {})
  reader.on('data', chunk => output.add(chunk))
  return output
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
export function openInput(data: Buffer): number {
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
  #closed = false

  /** An idle pipe or a new one. Throws an Error that says why there is none. */
  take(): Pipe {
    try {
      return this.#idle.pop() ?? this.#make()
    } catch (error) {
      throw new Error(`cannot make a pipe in ${tmpdir()}: ${error instanceof Error ? error.message : error}`)
    }
  }

  give(pipe: Pipe): void {
    if (this.#idle.length < 4 * pipesAtOnce && !this.#closed) this.#idle.push(pipe)
    else pipe.close()
  }

  close(): void {
    this.#closed = true
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

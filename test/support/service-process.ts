import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import type { Test } from 'tap'

/** A built executable. */
export function executable(name: string): string {
  return fileURLToPath(new URL(`../../../dist/bin/${name}`, import.meta.url))
}

/** One line of a service's log. */
export type LogLine = { level: string; message: string; [key: string]: unknown }

export interface ServiceProcessOptions {
  /** Files below conf.d, by name; objects are written as JSON. */
  files: Record<string, object | string>
  args?: string[]
  env?: Record<string, string>
}

/** As long as anything takes that is to come at all. */
const PATIENCE_MS = 20_000

/** How a service ended. */
export interface ServiceExit {
  status: number | null
  signal: NodeJS.Signals | null
}

/** A running service of Sensu's kind; it is killed when the test ends before it. */
export class ServiceProcess {
  readonly directory: string
  readonly lines: LogLine[] = []
  /** What it printed that is not a log line. */
  readonly text: string[] = []
  readonly exit: Promise<ServiceExit>
  readonly #child: ChildProcess
  #waiting: (() => void)[] = []
  #ended = false

  constructor(t: Test, file: string, { files, args = ['-v'], env = {} }: ServiceProcessOptions) {
    this.directory = t.testdir()
    const conf = join(this.directory, 'conf.d')
    mkdirSync(conf)
    for (const [name, content] of Object.entries(files)) {
      mkdirSync(dirname(join(conf, name)), { recursive: true })
      writeFileSync(join(conf, name), typeof content === 'string' ? content : JSON.stringify(content))
    }
    this.#child = spawn(process.execPath, [file, '-d', conf, ...args], {
      cwd: this.directory,
      env: { ...cleanEnvironment(), ...directories(this.directory), ...env },
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    this.exit = this.#exit()
    for (const stream of [this.#child.stdout, this.#child.stderr]) {
      if (stream) createInterface(stream).on('line', line => this.#take(line))
    }
    const kill = () => this.#child.kill('SIGKILL')
    killAtExit(kill, this.exit)
    t.teardown(async () => {
      kill()
      await this.exit
    })
  }

  get pid(): number {
    const { pid } = this.#child
    if (pid === undefined) throw new Error('the service did not start')
    return pid
  }

  get running(): boolean {
    return !this.#ended
  }

  kill(signal: NodeJS.Signals): void {
    this.#child.kill(signal)
  }

  /** Makes an empty file in the service's working directory, which commands may wait for. */
  touch(name: string): void {
    writeFileSync(join(this.directory, name), '')
  }

  /** Waits for a file in the service's working directory; returns its text. */
  async file(name: string): Promise<string> {
    const path = join(this.directory, name)
    while (!existsSync(path)) await sleep(10)
    return readFileSync(path, 'utf8')
  }

  /** Waits for a PID file and its content, which comes later: an empty one would be read as 0, which means every process of ours. */
  async pidFile(name: string): Promise<number> {
    while ((await this.file(name)) === '') await sleep(10)
    return Number(await this.file(name))
  }

  /** Ends the service as an init system does. */
  async stop(): Promise<ServiceExit> {
    this.kill('SIGTERM')
    return this.exit
  }

  /** Waits for the n-th log line with this message; rejects when the service ends before. */
  async log(message: string, count = 1): Promise<LogLine> {
    let found = 0
    for (let next = 0; ; ) {
      for (; next < this.lines.length; next++) {
        const line = this.lines[next]
        if (line?.message === message && ++found === count) return line
      }
      if (this.#ended) throw new Error(`the service ended without logging "${message}": ${this.text.join('\n')}`)
      await new Promise<void>(resolve => this.#waiting.push(resolve))
    }
  }

  /** Waits for a condition on what was logged; a comparison tells more than a test that waits for ever, so the wait is bounded. */
  async until(condition: () => boolean): Promise<void> {
    const late = AbortSignal.timeout(PATIENCE_MS)
    late.addEventListener('abort', () => this.#wake())
    while (!condition() && !late.aborted) {
      if (this.#ended) throw new Error(`the agent ended: ${this.text.join('\n')}`)
      await new Promise<void>(resolve => this.#waiting.push(resolve))
    }
  }

  async #exit(): Promise<ServiceExit> {
    const [status, signal] = await once(this.#child, 'close')
    this.#ended = true
    this.#wake()
    return { status, signal }
  }

  #take(line: string): void {
    const parsed = logLine(line)
    if (parsed) this.lines.push(parsed)
    else this.text.push(line)
    this.#wake()
  }

  #wake(): void {
    for (const resolve of this.#waiting.splice(0)) resolve()
  }
}

/** Undefined when it is something else, or the end of an agent cut it off. */
function logLine(text: string): LogLine | undefined {
  try {
    return text.startsWith('{"timestamp"') ? JSON.parse(text) : undefined
  } catch {
    return undefined
  }
}

/** Also when the test file ends before its teardown, by a time limit for instance. However many agents there are, each may listen. */
function killAtExit(kill: () => void, ended: Promise<unknown>): void {
  process.setMaxListeners(process.getMaxListeners() + 1)
  process.once('exit', kill)
  void ended.then(() => {
    process.off('exit', kill)
    process.setMaxListeners(process.getMaxListeners() - 1)
  })
}

/** Everything a service writes stays in the test's own directory. */
function directories(directory: string): NodeJS.ProcessEnv {
  return { SENSU_LOADED_TEMPFILE_DIR: directory, SENSU_KVM_STATE_DIR: join(directory, 'state') }
}

/** The environment without what configures an agent. */
export function cleanEnvironment(): NodeJS.ProcessEnv {
  const entries = Object.entries(process.env).filter(([name]) => !/^(SENSU_|RABBITMQ_URL|REDIS_|LIBVIRT_)/.test(name))
  return Object.fromEntries(entries)
}

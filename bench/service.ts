import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { type ManagedProcess, makeTemporaryDirectory, startProcess, waitUntil } from '../scripts/services/process.js'
import type { Rabbitmq } from '../scripts/services/rabbitmq.js'

const clockTicksPerSecond = 100
const logName = 'service.log'
const logTimeoutMs = 60_000

/** A program that is measured: ours, or a real one of Sensu's. */
export interface Program {
  name: string
  command: string
  args: readonly string[]
}

/** One of ours, from dist/bin. */
export function ownProgram(root: string, name: string, ...args: string[]): Program {
  return { name, command: process.execPath, args: [join(root, 'dist/bin', name), ...args] }
}

/** What a command for the shell starts: it takes Sensu's options, must become the program (`exec`), and ends on TERM. */
export function peerProgram(name: string, command: string): Program {
  return { name, command: 'sh', args: ['-c', `exec ${command} "$@"`, 'sh'] }
}

/** Settings that lead to a virtual host of a private broker. */
export function rabbitmqSettings({ host, port, user, password, vhosts }: Rabbitmq, vhost = vhosts[0]): object {
  return { host, port, user, password, vhost }
}

/** A service of Sensu's kind that runs with a configuration of its own, and what it needs of the machine. */
export class Service {
  readonly #process: ManagedProcess
  readonly #directory: string

  private constructor(process: ManagedProcess, directory: string) {
    this.#process = process
    this.#directory = directory
  }

  /** `level`: of its log; what is measured should not write much. */
  static async start({ name, command, args }: Program, settings: object, level = 'warn'): Promise<Service> {
    const directory = makeTemporaryDirectory()
    const configuration = join(directory, 'conf.d')
    mkdirSync(configuration)
    writeFileSync(join(configuration, 'bench.json'), JSON.stringify(settings))
    const process_ = await startProcess({
      ...{ name, command },
      args: [...args, '-d', configuration, '-l', join(directory, logName), '-L', level],
      env: { ...process.env, SENSU_KVM_STATE_DIR: join(directory, 'state') },
    })
    return new Service(process_, directory)
  }

  signal(signal: NodeJS.Signals): void {
    process.kill(this.#process.pid, signal)
  }

  /** Resolves when the text is in its log. Rejects when that takes too long. */
  async untilLogged(text: string): Promise<void> {
    const logged = () => readFileSync(join(this.#directory, logName), 'utf8').includes(text) || undefined
    const what = `${this.#process.name} has logged "${text}"`
    await waitUntil(what, logged, { timeoutMs: logTimeoutMs, intervalMs: 20, process: this.#process })
  }

  /** CPU time so far, that of its commands not included; ms. */
  cpuMs(): number {
    return cpuMs(this.#process.pid)
  }

  residentMiB(): number {
    return this.#memoryMiB('VmRSS')
  }

  /** The most it has had resident so far. */
  peakMiB(): number {
    return this.#memoryMiB('VmHWM')
  }

  async stop(): Promise<void> {
    await this.#process.stop()
    rmSync(this.#directory, { recursive: true, force: true })
  }

  #memoryMiB(name: 'VmRSS' | 'VmHWM'): number {
    const status = readFileSync(`/proc/${this.#process.pid}/status`, 'utf8')
    return Number(new RegExp(`${name}:\\s+(\\d+)`).exec(status)?.[1]) / 1024
  }
}

/** CPU time of one process, ms (proc(5): utime and stime in clock ticks). */
export function cpuMs(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ').at(-1)?.split(' ') ?? []
  return ((Number(fields[11]) + Number(fields[12])) * 1000) / clockTicksPerSecond
}

/** What one of those compared did, over all of its turns. */
export class Turns {
  #count = 0
  #seconds = 0
  #cpuMs = 0

  /** Counts one turn of `count` operations: `cpuMs` reads the CPU time so far, `run` tells how many operations a second there were. */
  async take(count: number, cpuMs: () => number, run: () => Promise<number>): Promise<void> {
    const before = cpuMs()
    const perSecond = await run()
    this.#cpuMs += cpuMs() - before
    this.#seconds += count / perSecond
    this.#count += count
  }

  get perSecond(): number {
    return this.#count / this.#seconds
  }

  /** Of one operation. */
  get cpuMs(): number {
    return this.#cpuMs / this.#count
  }
}

/** The sum of all numbers. */
export function sum(numbers: readonly number[]): number {
  return numbers.reduce((total, number) => total + number, 0)
}

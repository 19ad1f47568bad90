import { closeSync } from 'node:fs'
import { Socket } from 'node:net'
import { getSystemErrorName } from 'node:util'
import { openInput, outputOf } from './direct-start.js'
import type { Logger } from './log.js'
import { ProgramFinder, plainWords, shellEnvironment } from './plain-command.js'
import type { CommandStarter, RunningCommand, StartRequest } from './running-command.js'

const closeOnExec = 0o2000000 // O_CLOEXEC of Linux, not among Node's constants
const withoutWaiting = 1 // WNOHANG
const groupDefaultsAndMask = 0x02 | 0x04 | 0x08 // POSIX_SPAWN_SETPGROUP, _SETSIGDEF, _SETSIGMASK
/** More than glibc needs on any machine for a `posix_spawnattr_t`, `posix_spawn_file_actions_t` or `sigset_t`. */
const structBytes = 1024
/** How often ended commands are looked for, should a signal get lost. */
const pollMs = 1000

/** How a program is started. */
interface Program {
  file: string
  words: readonly string[]
  env: CEnvironment
}

/** As C has it: `NAME=value` each, and null. */
type CEnvironment = readonly (string | null)[]

/**
 * Starts commands with posix_spawn(3). Node forks: it copies the page tables of some 50 MiB for each command, and takes its page faults later. glibc's
 * posix_spawn shares the memory until the shell is there (`CLONE_VFORK`), which takes a tenth of the CPU time. A command
 * that a shell would do nothing to is started without one: loading the shell is more work than all else.
 */
export class NativeStarter implements CommandStarter {
  readonly #libc: Libc
  readonly #attributes = Buffer.alloc(structBytes)
  readonly #actions = Buffer.alloc(structBytes)
  readonly #children: Children
  readonly #programs = new ProgramFinder()
  readonly #environments = new WeakMap<NodeJS.ProcessEnv, { ours: CEnvironment; shells: CEnvironment }>()

  /** With the library koffi, which calls C. Undefined, and logged, where there is none for this machine: commands are then started as ever. */
  static async load(log: Pick<Logger, 'warn'>): Promise<NativeStarter | undefined> {
    try {
      return new NativeStarter(await bindLibc())
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error)
      log.warn('cannot call posix_spawn, starting commands by fork', { reason })
      return undefined
    }
  }

  private constructor(libc: Libc) {
    this.#libc = libc
    this.#children = new Children(libc)
    const [all, none] = [Buffer.alloc(structBytes), Buffer.alloc(structBytes)]
    libc.sigfillset(all)
    libc.sigemptyset(none)
    libc.posix_spawnattr_init(this.#attributes)
    libc.posix_spawnattr_setflags(this.#attributes, groupDefaultsAndMask)
    libc.posix_spawnattr_setpgroup(this.#attributes, 0)
    libc.posix_spawnattr_setsigdefault(this.#attributes, all)
    libc.posix_spawnattr_setsigmask(this.#attributes, none)
  }

  /** Throws when it cannot be started. */
  start({ command, stdin, cwd, env, maxOutputBytes }: StartRequest): RunningCommand {
    const { reader, writeEnd } = this.#openPipe()
    let input: number | undefined
    try {
      if (stdin !== undefined) input = openInput(Buffer.from(stdin))
      const pid = this.#spawn(command, { input, output: writeEnd, cwd, env })
      return {
        pid: Promise.resolve(pid),
        exit: this.#children.exitOf(pid),
        output: outputOf(reader, maxOutputBytes),
        release: () => reader.destroy(),
      }
    } catch (error) {
      reader.destroy()
      throw error
    } finally {
      closeSync(writeEnd)
      if (input !== undefined) closeSync(input)
    }
  }

  close(): void {
    this.#children.close()
  }

  #openPipe(): { reader: Socket; writeEnd: number } {
    const ends = new Int32Array(2)
    if (this.#libc.pipe2(ends, closeOnExec) !== 0) throw new Error('cannot make a pipe')
    const [fd = -1, writeEnd = -1] = ends
    return { reader: new Socket({ fd, readable: true, writable: false }), writeEnd }
  }

  #spawn(command: string, { input, output, cwd, env }: Surroundings): number {
    const libc = this.#libc
    const actions = this.#actions
    libc.posix_spawn_file_actions_init(actions)
    try {
      if (cwd !== undefined) libc.posix_spawn_file_actions_addchdir_np(actions, cwd)
      // Our own, too, as it would be closed otherwise.
      libc.posix_spawn_file_actions_adddup2(actions, input ?? 0, 0)
      for (const standard of [1, 2]) libc.posix_spawn_file_actions_adddup2(actions, output, standard)
      const pid = new Int32Array(1)
      const run = ({ file, words, env }: Program) =>
        libc.posix_spawnp(pid, file, actions, this.#attributes, [...words, null], env)
      const program = cwd === undefined ? this.#plainProgram(command, env) : undefined
      if (program && run(program) === 0) return pid[0] ?? 0
      // Also for what could not be started: the shell says why, in its own words.
      const errno = run({ file: 'sh', words: ['sh', '-c', command], env: this.#environment(env).ours })
      if (errno === 0) return pid[0] ?? 0
      const place = cwd === undefined ? '' : ` in ${cwd}`
      throw new Error(`cannot start sh${place}: spawn sh ${getSystemErrorName(-errno)}`)
    } finally {
      libc.posix_spawn_file_actions_destroy(actions)
    }
  }

  #plainProgram(command: string, env: NodeJS.ProcessEnv): Program | undefined {
    const words = plainWords(command)
    const file = words?.[0] === undefined ? undefined : this.#programs.find(words[0], env['PATH'])
    return words && file !== undefined ? { file, words, env: this.#environment(env).shells } : undefined
  }

  #environment(env: NodeJS.ProcessEnv): { ours: CEnvironment; shells: CEnvironment } {
    const known = this.#environments.get(env)
    if (known) return known
    const inC = (env: NodeJS.ProcessEnv) => [
      ...Object.entries(env).map(([name, value]) => `${name}=${value ?? ''}`),
      null,
    ]
    const made = { ours: inC(env), shells: inC(shellEnvironment(env)) }
    this.#environments.set(env, made)
    return made
  }
}

interface Surroundings {
  /** Descriptors. */
  input: number | undefined
  output: number
  cwd: string | undefined
  env: NodeJS.ProcessEnv
}

/** Commands that run, until they are waited for. */
class Children {
  readonly #libc: Libc
  readonly #running = new Map<number, (status: number | undefined) => void>()
  readonly #status = new Int32Array(1)
  #timer: NodeJS.Timeout | undefined
  readonly #reap = () => {
    for (const [pid, end] of this.#running) {
      const found = this.#libc.waitpid(pid, this.#status, withoutWaiting)
      if (found === 0) continue
      this.#running.delete(pid)
      end(found === pid ? statusOf(this.#status[0] ?? 0) : undefined)
    }
    if (this.#running.size === 0) this.#timer?.unref()
  }

  constructor(libc: Libc) {
    this.#libc = libc
  }

  /** Exit status, or the number of the signal; this process stays for it. */
  exitOf(pid: number): Promise<number> {
    if (this.#timer === undefined) {
      process.on('SIGCHLD', this.#reap)
      this.#timer = setInterval(this.#reap, pollMs)
    }
    this.#timer.ref()
    return new Promise((resolve, reject) => {
      this.#running.set(pid, status => {
        if (status === undefined) reject(new Error(`somebody else has waited for process ${pid}`))
        else resolve(status)
      })
    })
  }

  close(): void {
    process.off('SIGCHLD', this.#reap)
    clearInterval(this.#timer)
    this.#timer = undefined
  }
}

/** Of a status of wait(2). */
function statusOf(status: number): number {
  const signal = status & 0x7f
  return signal === 0 ? (status >> 8) & 0xff : signal
}

type Libc = Awaited<ReturnType<typeof bindLibc>>

type Texts = readonly (string | null)[]

/** The functions of the C library that are used here; those of posix_spawn return an errno, others -1 for a failure. */
async function bindLibc() {
  const { default: koffi } = await import('koffi')
  const libc = koffi.load('libc.so.6')
  const pipe2: (ends: Int32Array, flags: number) => number = libc.func('int pipe2(int *ends, int flags)')
  const waitpid: (pid: number, status: Int32Array, options: number) => number = libc.func(
    'int waitpid(int pid, int *status, int options)',
  )
  const posix_spawnp: (
    pid: Int32Array,
    file: string,
    actions: Buffer,
    attributes: Buffer,
    words: Texts,
    env: Texts,
  ) => number = libc.func(
    'int posix_spawnp(int *pid, const char *file, void *actions, void *attributes, const char **words, const char **env)',
  )
  const ofStruct = (name: string): ((struct: Buffer) => number) => libc.func(`int ${name}(void *struct)`)
  const ofAttributes = (name: string, type: string): ((attributes: Buffer, value: number | Buffer) => number) =>
    libc.func(`int ${name}(void *attributes, ${type} value)`)
  const posix_spawn_file_actions_adddup2: (actions: Buffer, from: number, to: number) => number = libc.func(
    'int posix_spawn_file_actions_adddup2(void *actions, int from, int to)',
  )
  const posix_spawn_file_actions_addchdir_np: (actions: Buffer, path: string) => number = libc.func(
    'int posix_spawn_file_actions_addchdir_np(void *actions, const char *path)',
  )
  return {
    pipe2,
    waitpid,
    posix_spawnp,
    sigfillset: ofStruct('sigfillset'),
    sigemptyset: ofStruct('sigemptyset'),
    posix_spawnattr_init: ofStruct('posix_spawnattr_init'),
    posix_spawnattr_setflags: ofAttributes('posix_spawnattr_setflags', 'short'),
    posix_spawnattr_setpgroup: ofAttributes('posix_spawnattr_setpgroup', 'int'),
    posix_spawnattr_setsigdefault: ofAttributes('posix_spawnattr_setsigdefault', 'void *'),
    posix_spawnattr_setsigmask: ofAttributes('posix_spawnattr_setsigmask', 'void *'),
    posix_spawn_file_actions_init: ofStruct('posix_spawn_file_actions_init'),
    posix_spawn_file_actions_destroy: ofStruct('posix_spawn_file_actions_destroy'),
    posix_spawn_file_actions_adddup2,
    posix_spawn_file_actions_addchdir_np,
  }
}

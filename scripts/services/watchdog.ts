import { type ChildProcessByStdio, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import type { Readable, Writable } from 'node:stream'

/**
 * The watchdog's program. It waits on a pipe whose other end only this Node process holds, so it also notices a Node that
 * was killed with SIGKILL. A process is told apart from a later one with the same id by its start time (field 22 of
 * /proc/PID/stat, counted behind the command name, which may hold blanks and brackets itself).
 */
const program = `
trap '' INT HUP
start_time() { stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 1; set -- \${stat##*) }; shift 19; echo "$1"; }
namespace_members() { find -L /proc/[0-9]*/ns/mnt -maxdepth 0 -inum "$own_namespace" 2>/dev/null | cut -d/ -f3; }
watched='' sweep='' directories=''
echo ready
while read -r word argument; do
  case $word in
    watch) watched="$watched $argument" ;;
    sweep) sweep=yes; own_namespace=$(stat -Lc %i /proc/self/ns/mnt) ;;
    remove) directories="$directories $argument" ;;
  esac
done
for entry in $watched; do
  [ "$(start_time "\${entry%:*}")" = "\${entry#*:}" ] && kill -s KILL -- "-\${entry%:*}" 2>/dev/null
done
if [ -n "$sweep" ]; then
  for round in 1 2 3 4 5; do
    found=''
    for pid in $(namespace_members); do
      [ "$pid" != $$ ] && kill -KILL "$pid" 2>/dev/null && found=yes
    done
    [ -n "$found" ] || break
  done
fi
for round in 1 2 3 4 5; do
  rm -rf -- $directories 2>/dev/null && break
  sleep 0.2
done
exit 0
`

/** What a watchdog is started with. */
export interface WatchdogOptions {
  /** A command that runs the watchdog's shell, e.g. `unshare --mount`, so that it holds a namespace of its own. */
  wrapper?: readonly string[]
  /** Shell commands run once before watching; a failing one fails the start with its message. */
  preparation?: string
  environment?: NodeJS.ProcessEnv
}

/**
 * A small shell that outlives this process just long enough to clean up after it: when this process ends in any way
 * (exit, signal, SIGKILL) it kills what it was told to watch and removes the
 * directories it was told to remove. One watchdog serves one service.
 */
export class Watchdog {
  readonly pid: number
  readonly #child: ChildProcessByStdio<Writable, Readable, Readable>

  private constructor(child: ChildProcessByStdio<Writable, Readable, Readable>, pid: number) {
    this.#child = child
    this.pid = pid
  }

  /** Starts a watchdog and waits until it watches. */
  static async start(options: WatchdogOptions = {}): Promise<Watchdog> {
    const script = `set -e\n${options.preparation ?? ''}\nset +e\n${program}`
    const [command = 'sh', ...args] = [...(options.wrapper ?? []), 'sh', '-c', script, 'sensu-kvm-watchdog']
    const child = spawn(command, args, {
      detached: true,
      cwd: '/',
      env: options.environment ?? process.env,
      stdio: ['pipe', 'pipe', 'pipe'],
    })
    child.stdin.on('error', () => {}) // a watchdog that is gone has nothing left to be told
    let complaint = ''
    child.stderr.on('data', (data: Buffer) => {
      complaint = (complaint + data.toString()).slice(-2000)
    })
    const ready = new Promise<void>((resolve, reject) => {
      child.stdout.once('data', () => resolve())
      child.once('error', error => reject(new Error(`cannot start ${command}: ${error.message}`)))
      child.once('close', code => reject(new Error(`${command} ended with status ${code}: ${complaint.trim()}`)))
    })
    await ready
    const pid = child.pid
    if (pid === undefined) throw new Error(`${command} has no process id`)
    child.unref()
    for (const stream of [child.stdin, child.stdout, child.stderr]) unreference(stream)
    return new Watchdog(child, pid)
  }

  /** Has the process group led by `pid` killed when this process ends. */
  watch(pid: number): void {
    const startTime = processStartTime(pid)
    if (startTime !== undefined) this.#tell(`watch ${pid}:${startTime}`)
  }

  /** Has every other process in the watchdog's own mount namespace killed when this process ends. */
  watchNamespace(): void {
    this.#tell('sweep')
  }

  /** Has a directory removed when this process ends. */
  removeAtEnd(directory: string): void {
    if (/\s/.test(directory)) throw new Error(`a temporary directory may not have blanks in its path: ${directory}`)
    this.#tell(`remove ${directory}`)
  }

  /**
   * Ends the watchdog after the service was stopped in good order: it does now what it would do at this process's end
   * (kill what is still alive, remove directories), and is waited for.
   */
  async end(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return
    const ended = once(this.#child, 'exit')
    this.#child.ref()
    this.#child.stdin.end()
    await ended
  }

  #tell(line: string): void {
    this.#child.stdin.write(`${line}\n`)
  }
}

/** Lets this process end although a child's pipe is still open. */
function unreference(stream: unknown): void {
  if (typeof stream === 'object' && stream !== null && 'unref' in stream && typeof stream.unref === 'function')
    stream.unref()
}

/** When a process was started, in clock ticks since boot (proc(5), field 22); undefined when it is gone. */
export function processStartTime(pid: number): string | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1')
    return stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19]
  } catch {
    return undefined
  }
}

/** Whether a process runs (one that has ended and waits for its parent to notice does not). */
export function isAlive(pid: number): boolean {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1')
    return !/^ [ZX]/.test(stat.slice(stat.lastIndexOf(')') + 1))
  } catch {
    return false
  }
}

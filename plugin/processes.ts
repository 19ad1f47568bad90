import { readdir, readFile } from 'node:fs/promises'

/** A process as /proc shows it. */
export interface Process {
  readonly pid: number
  /** `R`, `S`, `D`, `Z` and so on. */
  readonly state: string
  /** The command line; in brackets the name of one that has none, a kernel's own or a zombie. */
  readonly command: string
  readonly threads: number
  /** Whole seconds since it was started. */
  readonly ageSeconds: number
  /** CPU time it has had, in seconds. */
  readonly cpuSeconds: number
  readonly virtualKibibytes: number
}

/** What only /proc/PID/status tells. */
export interface ProcessStatus {
  /** The effective user. */
  readonly uid: number
  readonly residentKibibytes: number
}

/** Linux counts CPU and start times for programs in hundredths of a second, whatever its own clock. */
const ticksPerSecond = 100
/** Files of /proc that are read at the same time. */
const mostAtOnce = 32

/** All processes below a /proc. Those that end meanwhile are left out. */
export async function readProcesses(proc: string): Promise<Process[]> {
  const uptimeSeconds = Math.floor(Number.parseFloat(await readFile(`${proc}/uptime`, 'latin1')))
  const pids = (await readdir(proc)).filter(name => /^\d+$/.test(name))
  return await inPortions(pids, async pid => {
    const [stat, commandLine] = await Promise.all([
      readFile(`${proc}/${pid}/stat`, 'utf8'),
      readFile(`${proc}/${pid}/cmdline`, 'utf8'),
    ])
    return processOf(stat, commandLine, uptimeSeconds)
  })
}

/** Adds what only their status tells; those that have ended are left out. */
export async function withStatus<T extends Process>(
  proc: string,
  processes: readonly T[],
): Promise<(T & ProcessStatus)[]> {
  return await inPortions(processes, async one => {
    const text = await readFile(`${proc}/${one.pid}/status`, 'utf8')
    const uid = /^Uid:\s+\d+\s+(\d+)/m.exec(text)?.[1]
    const resident = /^VmRSS:\s+(\d+) kB/m.exec(text)?.[1] ?? 0
    return uid === undefined ? undefined : { ...one, uid: Number(uid), residentKibibytes: Number(resident) }
  })
}

/** The results of a reading for each; what is undefined, or gone while it was read, is left out. */
async function inPortions<In, Out>(items: readonly In[], read: (item: In) => Promise<Out | undefined>): Promise<Out[]> {
  const results: Out[] = []
  for (let at = 0; at < items.length; at += mostAtOnce) {
    const portion = await Promise.all(items.slice(at, at + mostAtOnce).map(item => read(item).catch(undefinedWhenGone)))
    results.push(...portion.filter(result => result !== undefined))
  }
  return results
}

function undefinedWhenGone(error: unknown): undefined {
  if (error instanceof Error && 'code' in error && (error.code === 'ENOENT' || error.code === 'ESRCH')) return undefined
  throw error
}

/** Fields as proc(5) numbers them; the name, the second, may hold blanks and brackets. */
function processOf(stat: string, commandLine: string, uptimeSeconds: number): Process | undefined {
  const [, pid, name, rest] = /^(\d+) \((.*)\) (.+)$/s.exec(stat) ?? []
  if (rest === undefined) return undefined
  const fields = rest.split(' ')
  const field = (number: number) => Number(fields[number - 3])
  const state = fields[0] ?? ''
  const ofItsOwn = commandLine
    .replaceAll('\0', ' ')
    .replaceAll(/\p{Cc}/gu, '?')
    .trim()
  return {
    pid: Number(pid),
    state,
    command: ofItsOwn || `[${name}]${state === 'Z' ? ' <defunct>' : ''}`,
    threads: field(20),
    ageSeconds: Math.max(0, uptimeSeconds - Math.floor(field(22) / ticksPerSecond)),
    cpuSeconds: (field(14) + field(15)) / ticksPerSecond,
    virtualKibibytes: Math.floor(field(23) / 1024),
  }
}

import { readFile } from 'node:fs/promises'
import { type Context, defineLocalCheck } from '../plugin/check.js'
import { Verdict } from '../plugin/outcome.js'
import { type Process, type ProcessStatus, readProcesses, withStatus } from '../plugin/processes.js'
import { parseRange } from '../plugin/range.js'
import { pluginLine, rubyFloat, rubyPattern } from '../plugin/ruby.js'
import type { Status } from '../plugin/status.js'
import { formatNumber } from '../plugin/text.js'

/** The processes that the options ask for, or that their PID file could not be read. */
export type ProcessSample =
  | { readonly processes: readonly (Process & Partial<ProcessStatus>)[] }
  | { readonly missingFile: string }

export default defineLocalCheck({
  name: 'check-process',
  summary: 'How many processes of this machine match, by command line, user, state, age, size and more (/proc).',
  description: `The check itself and its parent do not count unless asked for: the pattern is in their command lines, too. Inside the agent the check has no process of its own; there the agent does
not count, and \`--match-self\` lets it.

Users are those of \`/etc/passwd\`, or numbers; the form \`longnam+\`, in which \`ps\` cuts longer names, is understood. One that is neither is UNKNOWN. With \`--metric\`, no process at all is
0, where the Ruby plugin failed.`,
  sample: '--pattern cron',
  options: {
    warnOver: { type: 'integer', alias: 'w', summary: 'Warn above this number.' },
    criticalOver: { type: 'integer', alias: 'c', summary: 'Critical above this number.' },
    warnUnder: { type: 'integer', alias: 'W', default: 1, summary: 'Warn below this number.' },
    criticalUnder: { type: 'integer', alias: 'C', default: 1, summary: 'Critical below this number.' },
    metric: {
      type: 'choice',
      alias: 't',
      choices: ['vsz', 'rss', 'cpu', 'thcount'],
      summary: 'Judge the sum of this instead of the number: KiB of virtual or resident size, % of a CPU, threads.',
    },
    matchSelf: { type: 'flag', alias: 'm', summary: 'The check itself counts.' },
    matchParent: { type: 'flag', alias: 'M', summary: 'The process that started the check counts.' },
    pattern: { type: 'string', alias: 'p', summary: 'Only command lines that match this regular expression.' },
    excludePattern: { type: 'string', alias: 'x', summary: 'No command lines that match this regular expression.' },
    filePid: { type: 'string', alias: 'f', summary: 'Only the process whose number is in this file.' },
    filePidCrit: { type: 'flag', alias: 'F', summary: 'Without that file it is CRITICAL, not UNKNOWN.' },
    virtualMemorySize: { type: 'integer', alias: 'z', summary: 'Only those with more virtual memory (KiB).' },
    residentSetSize: { type: 'integer', alias: 'r', summary: 'Only those with more resident memory (KiB).' },
    cpuUtilization: {
      type: 'number',
      alias: 'P',
      summary: 'Only those that have used more of a CPU since they were started (%).',
    },
    threadCount: { type: 'integer', alias: 'T', summary: 'Only those with more threads.' },
    state: { type: 'string', alias: 's', summary: 'Only those in these states, joined by commas: Z for zombies.' },
    user: { type: 'string', alias: 'u', summary: 'Only those of these users, joined by commas.' },
    esecOver: { type: 'integer', alias: 'e', summary: 'Only those older than this (s).' },
    esecUnder: { type: 'integer', alias: 'E', summary: 'Only those younger than this (s).' },
    cpuOver: { type: 'integer', alias: 'i', summary: 'Only those that had more CPU time (s).' },
    cpuUnder: { type: 'integer', alias: 'I', summary: 'Only those that had less CPU time (s).' },
    encoding: { type: 'string', summary: 'Without effect; the Ruby plugin needs it for names beyond ASCII.' },
  },
  rubyLine: pluginLine('CheckProcess'),
  async collect(options, context): Promise<ProcessSample> {
    const matches = filter(options)
    const wantedPid = options.filePid === undefined ? undefined : await pidIn(options.filePid)
    if (options.filePid !== undefined && wantedPid === undefined) {
      if (options.filePidCrit) return { missingFile: options.filePid }
      throw new Error(missingFileText(options.filePid))
    }
    context.stage('reading /proc')
    const proc = context.path('/proc')
    const found = (await readProcesses(proc)).filter(
      one => (wantedPid === undefined || one.pid === wantedPid) && !isOwn(one.pid, options) && matches(one),
    )
    const needsStatus = options.user !== undefined || options.residentSetSize !== undefined || options.metric === 'rss'
    if (!needsStatus) return { processes: found }
    const isOfUser = await userFilter(options.user, context)
    const { residentSetSize: resident = -1 } = options
    const processes = await withStatus(proc, found)
    return { processes: processes.filter(one => one.residentKibibytes > resident && isOfUser(one.uid)) }
  },
  evaluate(sample, options) {
    const verdict = new Verdict()
    if ('missingFile' in sample) {
      verdict.summary = missingFileText(sample.missingFile)
      return verdict.add({ status: 'CRITICAL', message: verdict.summary })
    }
    const { processes } = sample
    const { metric } = options
    const values = processes.map(one => (metric === undefined ? 1 : Math.trunc(metrics[metric](one))))
    const value = values.reduce((sum, each) => sum + each, 0)
    verdict.summary = `Found ${processes.length} matching processes${conditions(options)}`
    if (metric !== undefined) verdict.summary += `; ${metric} == ${value}`
    const status = statusOf(value, options)
    const { warnUnder, warnOver, criticalUnder, criticalOver } = options
    const [warning, critical] = [limits(warnUnder, warnOver), limits(criticalUnder, criticalOver)]
    verdict.measure({ name: metric ?? 'found', value, warning, critical, min: 0 })
    return verdict.add({ status, message: verdict.summary })
  },
})

type Metric = 'vsz' | 'rss' | 'cpu' | 'thcount'

const metrics: Readonly<Record<Metric, (one: Process & Partial<ProcessStatus>) => number>> = {
  vsz: one => one.virtualKibibytes,
  rss: one => one.residentKibibytes ?? 0,
  cpu: cpuPercent,
  thcount: one => one.threads,
}

/** Of one CPU, since it was started, in tenths rounded down, as ps shows it. */
function cpuPercent({ cpuSeconds, ageSeconds }: Process): number {
  return ageSeconds === 0 ? 0 : Math.floor((cpuSeconds * 1000) / ageSeconds) / 10
}

interface Limits {
  readonly warnOver: number | undefined
  readonly criticalOver: number | undefined
  readonly warnUnder: number
  readonly criticalUnder: number
}

function statusOf(value: number, { warnOver, criticalOver, warnUnder, criticalUnder }: Limits): Status {
  if (value < criticalUnder || (criticalOver !== undefined && value > criticalOver)) return 'CRITICAL'
  return value < warnUnder || (warnOver !== undefined && value > warnOver) ? 'WARNING' : 'OK'
}

/** What is not below the one nor above the other; undefined when nothing is. */
function limits(under: number, over: number | undefined) {
  return over !== undefined && over < under ? undefined : parseRange(`${under}:${formatNumber(over) ?? ''}`)
}

function missingFileText(file: string): string {
  return `Could not read pid file ${file}`
}

/** The number at the start of the file, 0 when there is none; undefined when it cannot be read. */
async function pidIn(file: string): Promise<number | undefined> {
  const text = await readFile(file, 'latin1').catch(() => undefined)
  return text === undefined ? undefined : Number.parseInt(text, 10) || 0
}

/** Process 1 starts the agent, but no check. */
function isOwn(pid: number, { matchSelf, matchParent }: { matchSelf: boolean; matchParent: boolean }): boolean {
  return (pid === process.pid && !matchSelf) || (pid === process.ppid && pid !== 1 && !matchParent)
}

interface Conditions {
  readonly pattern: string | undefined
  readonly excludePattern: string | undefined
  readonly virtualMemorySize: number | undefined
  readonly residentSetSize: number | undefined
  readonly cpuUtilization: number | undefined
  readonly threadCount: number | undefined
  readonly state: string | undefined
  readonly user: string | undefined
  readonly esecOver: number | undefined
  readonly esecUnder: number | undefined
  readonly cpuOver: number | undefined
  readonly cpuUnder: number | undefined
  readonly filePid: string | undefined
}

/** Whether a process meets all conditions that need no status. Throws when a regular expression is none. */
function filter(options: Conditions): (one: Process) => boolean {
  const pattern = options.pattern === undefined ? undefined : rubyPattern(options.pattern, '--pattern')
  const exclude =
    options.excludePattern === undefined ? undefined : rubyPattern(options.excludePattern, '--exclude-pattern')
  const states = options.state?.split(',')
  const { POSITIVE_INFINITY: infinity } = Number
  return one =>
    exclude?.test(one.command) !== true &&
    pattern?.test(one.command) !== false &&
    one.virtualKibibytes > (options.virtualMemorySize ?? -1) &&
    cpuPercent(one) > (options.cpuUtilization ?? -1) &&
    one.threads > (options.threadCount ?? -1) &&
    one.ageSeconds < (options.esecUnder ?? infinity) &&
    one.ageSeconds > (options.esecOver ?? -1) &&
    Math.floor(one.cpuSeconds) < (options.cpuUnder ?? infinity) &&
    Math.floor(one.cpuSeconds) > (options.cpuOver ?? -1) &&
    states?.includes(one.state) !== false
}

/** Whether a process of that user counts. Throws when a name is not known. */
async function userFilter(users: string | undefined, { path }: Context): Promise<(uid: number) => boolean> {
  if (users === undefined) return () => true
  const entries = (await readFile(path('/etc/passwd'), 'utf8')).split('\n').map(line => line.split(':'))
  const uids = users.split(',').flatMap(user => {
    const named = entries.filter(([name = '']) => name === user || (name.length > 8 && `${name.slice(0, 7)}+` === user))
    if (named.length > 0) return named.map(([, , uid]) => Number(uid))
    if (/^\d+$/.test(user)) return [Number(user)]
    throw new Error(`--user ${user}: not in /etc/passwd: give the user's number`)
  })
  return uid => uids.includes(uid)
}

/** What was asked for, in the order and words of the Ruby plugin. */
function conditions(options: Conditions): string {
  const cpu = options.cpuUtilization
  const parts: [text: string, value: string | number | undefined][] = [
    ['cmd ', options.pattern && `/${options.pattern}/`],
    ['state ', options.state],
    ['user ', options.user],
    ['vsz > ', options.virtualMemorySize],
    ['rss > ', options.residentSetSize],
    ['cpu > ', cpu === undefined ? undefined : rubyFloat(cpu)],
    ['thcount > ', options.threadCount],
    ['esec < ', options.esecUnder],
    ['esec > ', options.esecOver],
    ['csec < ', options.cpuUnder],
    ['csec > ', options.cpuOver],
    ['pid ', options.filePid],
  ]
  return parts.map(([text, value]) => (value === undefined ? '' : `; ${text}${value}`)).join('')
}

import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { type Context, defineLocalCheck } from '../plugin/check.js'
import { replaceFile } from '../plugin/file-state.js'
import { Verdict } from '../plugin/outcome.js'
import { cpuTicksIn } from '../plugin/proc-stat.js'
import { atLeast, atMost } from '../plugin/range.js'
import { pluginLine, rubyFloat, rubyRound } from '../plugin/ruby.js'
import { formatQuantity } from '../plugin/text.js'

/** The kinds of CPU time in the order of /proc/stat; kernels before 2.6.33 lack some of the last. */
const kinds = ['user', 'nice', 'system', 'idle', 'iowait', 'irq', 'softirq', 'steal', 'guest', 'guest_nice'] as const
type Kind = (typeof kinds)[number]

const onlyThis = (kind: Kind) =>
  ({ type: 'flag', summary: `Judge the share of ${kind} time instead of all that is in use.` }) as const

/** Clock ticks that passed between two readings, by kind. */
export type CpuTime = ReadonlyMap<Kind, number>

export default defineLocalCheck({
  name: 'check-cpu',
  summary: 'CPU time in use on this machine, over a few seconds or since the last run (/proc/stat).',
  description: `The check measures for \`--sleep\`, or, with \`--cache-file\`, since its last run with that file. A file that cannot be read as one counts as none.

The kernel counts what guests get as user time, too, and the shares are of the sum of all kinds. So on a hypervisor they come out too low; use
[check-kvm-host-cpu](check-kvm-host-cpu.md) there.`,
  options: {
    lessThan: { type: 'flag', alias: 'l', summary: 'The limits are lower ones.' },
    warning: { type: 'number', alias: 'w', default: 80, summary: 'Warn from this share on (%).' },
    critical: { type: 'number', alias: 'c', default: 100, summary: 'Critical from this share on (%).' },
    sleep: { type: 'number', default: 5, minimum: 0, maximum: 86_400, summary: 'How long to measure (s).' },
    cacheFile: { type: 'string', summary: 'Keep the reading in this file, and compare with the one that is there.' },
    procPath: { type: 'string', default: '/proc', summary: 'Where /proc is.' },
    idleMetrics: {
      type: 'string',
      default: 'idle,iowait,steal,guest,guest_nice',
      summary: 'The kinds of time that are not use, joined by commas.',
    },
    user: onlyThis('user'),
    nice: onlyThis('nice'),
    system: onlyThis('system'),
    idle: onlyThis('idle'),
    iowait: onlyThis('iowait'),
    irq: onlyThis('irq'),
    softirq: onlyThis('softirq'),
    steal: onlyThis('steal'),
    guest: onlyThis('guest'),
    guestNice: onlyThis('guest_nice'),
  },
  rubyLine: (status, text, options) =>
    pluginLine(`CheckCPU ${(options && judgedKind(options))?.toUpperCase() ?? 'TOTAL'}`)(status, text),
  takesSeconds: ({ sleep }) => sleep,
  async collect({ sleep, cacheFile, procPath, idleMetrics }, context) {
    const idleKinds = idleMetrics.split(',').map(kind => kind.trim())
    const read = () => readTicks(context.path(join(procPath, 'stat')))
    const kept = cacheFile === undefined ? undefined : await keptTicks(cacheFile)
    const before = kept ?? (await readAndPause(read, sleep, context))
    const now = await read()
    if (cacheFile !== undefined) replaceFile(cacheFile, `[${now.map(rubyFloat).join(', ')}]`)
    return { time: timeBetween(before, now), idleKinds }
  },
  evaluate({ time, idleKinds }, options) {
    const verdict = new Verdict()
    const total = sumOf(time, () => true)
    const percent = (ticks: number) => (100 * ticks) / total
    const used = percent(total - sumOf(time, kind => idleKinds.includes(kind)))
    const shares = [...time].map(([kind, ticks]) => [kind, percent(ticks)] as const)
    const judged = judgedKind(options)
    const limit = options.lessThan ? atMost : atLeast
    const limits = { warning: limit(options.warning), critical: limit(options.critical) }
    for (const [kind, value] of [['total', used] as const, ...shares]) {
      const metric = { name: `${kind}_percent`, value, unit: '%', min: 0, max: 100 } as const
      if (kind === (judged ?? 'total')) verdict.judge({ what: `CPU ${kind}`, ...metric, ...limits })
      else verdict.measure(metric)
    }
    const parts = shares.map(([kind, value]) => ` ${kind}=${rubyFloat(rubyRound(value, 2))}`)
    verdict.summary = `total=${rubyFloat(rubyRound(used, 2))}${parts.join('')}`
    return verdict
  },
})

/** The kind whose share is judged; of several, the last in the order of /proc/stat. Undefined: the total. */
function judgedKind(options: Readonly<Record<string, unknown>>): Kind | undefined {
  return kinds.findLast(kind => options[kind === 'guest_nice' ? 'guestNice' : kind] === true)
}

async function readTicks(path: string): Promise<number[]> {
  const ticks = cpuTicksIn(await readFile(path, 'latin1'))
  if (ticks === undefined) throw new Error(`${path} has no line of all CPUs: it is not /proc/stat of Linux`)
  return ticks.slice(0, kinds.length)
}

async function readAndPause(read: () => Promise<number[]>, seconds: number, context: Context): Promise<number[]> {
  const ticks = await read()
  context.stage(`measuring CPU time for ${formatQuantity(seconds, 's')}`)
  await pause(seconds * 1000, undefined, { signal: context.signal })
  return ticks
}

/** A reading as the Ruby plugin keeps it, too: a JSON array of numbers. */
async function keptTicks(path: string): Promise<number[] | undefined> {
  try {
    const kept: unknown = JSON.parse(await readFile(path, 'utf8'))
    return Array.isArray(kept) && kept.every(value => typeof value === 'number') ? kept : undefined
  } catch {
    return undefined
  }
}

function timeBetween(before: readonly number[], now: readonly number[]): CpuTime {
  const time = new Map(
    now.flatMap((ticks, index) => {
      const kind = kinds[index]
      return kind === undefined ? [] : [[kind, ticks - (before[index] ?? 0)]]
    }),
  )
  if (sumOf(time, () => true) <= 0) {
    throw new Error(
      'no CPU time passed between the two readings: measure longer with --sleep, or remove the file of --cache-file',
    )
  }
  return time
}

function sumOf(time: CpuTime, wanted: (kind: Kind) => boolean): number {
  return [...time].reduce((sum, [kind, ticks]) => sum + (wanted(kind) ? ticks : 0), 0)
}

import { setTimeout as pause } from 'node:timers/promises'
import type { Host } from '../libvirt/host.js'
import { parseUri } from '../libvirt/uri.js'
import { defineCheck } from '../plugin/check.js'
import { type Counters, type Growth, growthSince } from '../plugin/counters.js'
import { Verdict } from '../plugin/outcome.js'
import { readCpuTicks } from '../plugin/proc-stat.js'
import { formatQuantity } from '../plugin/text.js'

/** An older reading is not compared with: a mean of hours would hide the present. */
const oldestSeconds = 900
/** What a timer can hold; the run's own timeout comes long before. */
const longestPauseMs = 2 ** 31 - 1
/** CPU numbers may have gaps where CPUs are offline; no host has more than this. */
const mostCpus = 8192

/** CPU time that passed between two readings, in nanoseconds; a field is absent where the host does not report it. */
type CpuTime = Readonly<Record<string, number>>

/** What the host's CPUs did between two readings. */
export interface CpuSample {
  readonly seconds: number
  readonly host: CpuTime
  /** CPUs by number; empty unless asked for. */
  readonly cores: readonly { readonly cpu: number; readonly time: CpuTime }[]
  /** Clock ticks of this machine; absent when the host is another one. */
  readonly steal?: { readonly stealTicks: number; readonly totalTicks: number } | undefined
}

export default defineCheck({
  name: 'check-kvm-host-cpu',
  summary: 'CPU time in use on the hypervisor, as libvirt reports it (nodecpustats).',
  description: `In use is all time that CPUs spent neither idle nor waiting for I/O; running guests count as user time. It is compared with the last run's reading, so the
numbers are means over the time between two runs. When there is none (first run, host restarted) or it is older than 15 minutes, the check measures for \`--sample\`.

Steal is what the host, being a guest itself, did not get. libvirt does not report it: it is read from this machine's \`/proc/stat\`, so it is known only when the check runs on
the hypervisor. It is not part of the time that the other percentages are shares of.`,
  options: {
    warning: { type: 'range', alias: 'w', default: '80', summary: 'Warn outside this range (% in use).' },
    critical: { type: 'range', alias: 'c', default: '90', summary: 'Critical outside this range (% in use).' },
    iowaitWarning: { type: 'range', summary: 'Warn outside this range (% waiting for I/O).' },
    iowaitCritical: { type: 'range', summary: 'Critical outside this range (% waiting for I/O).' },
    stealWarning: { type: 'range', summary: 'Warn outside this range (% stolen by what this host runs on).' },
    stealCritical: { type: 'range', summary: 'Critical outside this range (% stolen by what this host runs on).' },
    coreWarning: { type: 'range', summary: 'Warn when a single CPU is outside this range (% in use).' },
    coreCritical: { type: 'range', summary: 'Critical when a single CPU is outside this range (% in use).' },
    sample: { type: 'duration', default: '1s', summary: 'How long to measure when the last run gives no comparison.' },
  },
  async collect(host: Host, options, { signal, state, stage, now }): Promise<CpuSample> {
    const perCore = options.coreWarning !== undefined || options.coreCritical !== undefined
    const grow = async () => growthSince(state, now(), await readCounters(host, perCore, signal))
    stage('reading CPU statistics')
    let growth = await grow()
    const seconds = growth.get('host')?.seconds ?? 0
    if (seconds < options.sample || seconds > oldestSeconds) {
      stage(`measuring CPU time for ${formatQuantity(options.sample, 's')}`)
      await pause(Math.min(options.sample * 1000, longestPauseMs), undefined, { signal })
      growth = await grow()
    }
    return sampleOf(growth, host.uri)
  },
  evaluate({ seconds, host, cores, steal }, options) {
    const verdict = new Verdict()
    const limited = { unit: '%', min: 0, max: 100, note: `over ${formatQuantity(seconds, 's')}` } as const
    const { warning, critical } = options
    const used = usedPercent(host)
    verdict.judge({ what: 'CPU in use', name: 'used_percent', value: used, ...limited, warning, critical })
    for (const [name, part] of [['user', 'userNs'] as const, ['system', 'kernelNs'] as const]) {
      verdict.measure({ name: `${name}_percent`, value: share(host, part), unit: '%', min: 0, max: 100 })
    }
    const iowait = { warning: options.iowaitWarning, critical: options.iowaitCritical, value: share(host, 'iowaitNs') }
    const stolen = {
      warning: options.stealWarning,
      critical: options.stealCritical,
      value: steal && percentOf(steal.stealTicks, steal.totalTicks),
    }
    const optional = [
      { what: 'CPU waiting for I/O', name: 'iowait_percent', ...iowait, remedy: 'leave out --iowait-…' },
      { what: 'CPU stolen', name: 'steal_percent', ...stolen, remedy: 'run the check on the hypervisor itself' },
    ]
    for (const { remedy, ...judgement } of optional) {
      const asked = judgement.warning !== undefined || judgement.critical !== undefined
      if (judgement.value !== undefined) verdict.judge({ ...limited, ...judgement })
      else if (asked) verdict.add({ status: 'UNKNOWN', message: `${judgement.what} is not known here: ${remedy}` })
    }
    for (const { cpu, time } of cores) {
      const limits = { warning: options.coreWarning, critical: options.coreCritical }
      const core = { device: `cpu${cpu}`, deviceLabel: 'cpu', what: 'in use', name: 'core_used_percent' }
      verdict.judge({ ...core, value: usedPercent(time), ...limited, ...limits })
    }
    verdict.summary = summaryOf(host, seconds)
    return verdict
  },
})

function summaryOf(host: CpuTime, seconds: number): string {
  const percent = (value: number | undefined) => formatQuantity(value, '%')
  const parts = `user ${percent(share(host, 'userNs'))}, system ${percent(share(host, 'kernelNs'))}`
  const iowait = share(host, 'iowaitNs')
  const waiting = iowait === undefined ? '' : `, ${percent(iowait)} waiting for I/O`
  return `CPU ${percent(usedPercent(host))} in use (${parts})${waiting}, over ${formatQuantity(seconds, 's')}`
}

/** Counters of the host, of its CPUs by number, and of this machine's steal. */
async function readCounters(host: Host, perCore: boolean, signal: AbortSignal): Promise<Map<string, Counters>> {
  const counters = new Map<string, Counters>([['host', { ...(await host.nodeCpuStats(undefined, { signal })) }]])
  if (parseUri(host.uri).carrier === 'unix') {
    const ticks = await readCpuTicks()
    if (ticks !== undefined) counters.set('steal', { ...ticks })
  }
  if (!perCore) return counters
  const { cpus, numaNodes, socketsPerNode, coresPerSocket, threadsPerCore } = await host.nodeInfo({ signal })
  const numbers = Math.min(mostCpus, Math.max(cpus, numaNodes * socketsPerNode * coresPerSocket * threadsPerCore))
  const readings = await Promise.all(
    Array.from({ length: numbers }, (_, cpu) => host.nodeCpuStats(cpu, { signal }).catch(absentWhenOffline)),
  )
  for (const [cpu, reading] of readings.entries()) if (reading !== undefined) counters.set(`cpu${cpu}`, { ...reading })
  return counters
}

function absentWhenOffline(error: unknown): undefined {
  if (error instanceof Error && 'invalidArgument' in error && error.invalidArgument === true) return undefined
  throw error
}

function sampleOf(growth: ReadonlyMap<string, Growth>, uri: string): CpuSample {
  const host = growth.get('host')
  if (host === undefined || totalOf(host.grown) === 0) {
    throw new Error(`the CPU counters of ${uri} do not move forward: its driver may not have real ones`)
  }
  if (host.grown['idleNs'] === undefined)
    throw new Error(`libvirt at ${uri} does not tell how long the host's CPUs were idle`)
  const cores = [...growth]
    .map(([object, { grown }]) => ({ cpu: Number(/^cpu(\d+)$/.exec(object)?.[1] ?? -1), time: grown }))
    .filter(({ cpu, time }) => cpu >= 0 && totalOf(time) > 0)
  const { stealTicks, totalTicks } = growth.get('steal')?.grown ?? {}
  const steal = stealTicks === undefined || totalTicks === undefined ? undefined : { stealTicks, totalTicks }
  return { seconds: host.seconds, host: host.grown, cores, steal }
}

function totalOf(time: CpuTime): number {
  return Object.values(time).reduce((sum, value) => sum + value, 0)
}

function share(time: CpuTime, part: string): number | undefined {
  const value = time[part]
  return value === undefined ? undefined : percentOf(value, totalOf(time))
}

function usedPercent(time: CpuTime): number | undefined {
  const unused = (time['idleNs'] ?? 0) + (time['iowaitNs'] ?? 0)
  return time['idleNs'] === undefined ? undefined : percentOf(totalOf(time) - unused, totalOf(time))
}

function percentOf(part: number, whole: number): number | undefined {
  return whole > 0 ? (part / whole) * 100 : undefined
}

import { readGuestLimits } from '../libvirt/guest-configs.js'
import { isRunning, runOf } from '../libvirt/guest-run.js'
import type { Host } from '../libvirt/host.js'
import type { Domain, DomainStats, VcpuStats } from '../libvirt/records.js'
import { isOnThisMachine } from '../libvirt/uri.js'
import { defineCheck } from '../plugin/check.js'
import { type Counters, type Growth, growthSince } from '../plugin/counters.js'
import { guestLimitsOption } from '../plugin/limits.js'
import type { OptionTable, OptionValues } from '../plugin/options.js'
import { Verdict } from '../plugin/outcome.js'
import { readSchedstats, type Schedstats } from '../plugin/schedstats.js'
import { formatQuantity } from '../plugin/text.js'

/** Whoever has run this long has waited for a CPU, if only for nanoseconds: a delay of 0 is one that nobody counts. */
const delayExpectedAfterNs = 1e9

/** What is known of one guest's vCPUs. */
export interface GuestVcpus extends Domain {
  readonly running: boolean
  readonly vcpus: readonly VcpuStats[]
  /** vCPUs it has been given, and may be given at most. */
  readonly current?: number | undefined
  readonly maximum?: number | undefined
  /** CPU time of its QEMU since it was started, in nanoseconds; absent when libvirt does not tell. */
  readonly cpuTimeNs?: number | undefined
  /** What was counted since the last run. */
  readonly growth?: Growth | undefined
  readonly limits?: Readonly<Record<string, string>> | undefined
}

export interface VcpuSample {
  readonly guests: readonly GuestVcpus[]
  /** Whether the hypervisor's kernel counts waiting; undefined when it is another machine. */
  readonly schedstats?: Schedstats | undefined
}

const options = {
  warning: { type: 'range', alias: 'w', default: '90', summary: 'Warn outside this range (CPU use, % of its vCPUs).' },
  critical: { type: 'range', alias: 'c', default: '98', summary: 'Critical outside this range (CPU use, %).' },
  stealWarning: {
    type: 'range',
    default: '10',
    summary: 'Warn outside this range (% of the time that its vCPUs were ready to run but had no host CPU).',
  },
  stealCritical: { type: 'range', default: '20', summary: 'Critical outside this range (steal, %).' },
  expectVcpus: {
    type: 'choice',
    choices: ['current', 'maximum'],
    default: 'current',
    summary: 'How many vCPUs are to be online: those the guest has been given, or all it may have.',
  },
  offlineWarning: { type: 'range', default: '0', summary: 'Warn outside this range (vCPUs that are not online).' },
  offlineCritical: { type: 'range', summary: 'Critical outside this range (vCPUs that are not online).' },
  waitWarning: { type: 'range', summary: 'Warn outside this range (wait, % of the time of its vCPUs).' },
  waitCritical: { type: 'range', summary: 'Critical outside this range (wait, %).' },
  ...guestLimitsOption,
} as const satisfies OptionTable
type Options = OptionValues<typeof options>

export default defineCheck({
  name: 'check-kvm-vcpu',
  summary: "CPU use and steal of the guests' vCPUs, and vCPUs that are offline (cpu-stats, vcpucount).",
  description: `CPU use is the CPU time of the guest's QEMU since the last run in percent of what its online vCPUs can use. QEMU's own threads (disk I/O, emulation) count too, so it can exceed
100 %.

Steal is the share of that time in which vCPUs were ready to run but waited for a CPU of the host (\`vcpu.N.delay\`): the mean of the guest's vCPUs, the worst one is named. The guest itself sees it as steal.

Both are means between two runs, so the first run of a guest only collects, as does one after its counters began anew (guest restarted or migrated) or it got another vCPU.

A vCPU is offline when QEMU runs no thread for it. With \`--expect-vcpus maximum\` those that the guest has not been given count as well. How many the guest itself has switched on is for
check-kvm-guest-vcpus.

\`vcpu.N.wait\` is counted only where the hypervisor's \`kernel.sched_schedstats\` is 1 (it is 0 by default). Where it is not, that is said, and \`--wait-…\` is UNKNOWN. On
another machine than this one it is taken for counted once it is above 0.

One libvirt call for any number of guests; with \`--guest-limits\` the XML of every running guest besides.`,
  guests: true,
  options,
  async collect(host: Host, { guestLimits }, context): Promise<VcpuSample> {
    const { signal, stage } = context
    stage('reading CPU statistics of guests')
    const { takenAtMs, guests: all } = await host.domainStats({ groups: ['state', 'cpu', 'vcpu'], signal })
    const selected = context.selectGuests(all.map(vcpusOf))
    const running = selected.filter(guest => guest.running)
    const growth = await growthSince(context.state, takenAtMs, countersOf(running))
    stage("reading guests' XML")
    const limits = guestLimits ? await readGuestLimits(host, running, 'check-kvm-vcpu', signal) : undefined
    return {
      schedstats: isOnThisMachine(host.uri)
        ? await readSchedstats(context.path('/proc/sys/kernel/sched_schedstats'))
        : undefined,
      guests: selected.map(guest => ({
        ...guest,
        growth: growth.get(runOf(guest)),
        limits: limits?.get(guest.uuid),
      })),
    }
  },
  evaluate({ guests, schedstats }, asked) {
    const verdict = new Verdict()
    const running = guests.filter(guest => guest.running)
    const waitUncounted = waitNotCounted(running, schedstats)
    const uses: Use[] = []
    for (const guest of running) {
      const limits = verdict.limitsOf(asked, guest)
      judgeOffline(verdict, guest, limits)
      if (guest.cpuTimeNs === undefined) {
        const message = 'libvirt does not tell its CPU time (cpu.time): is the cpuacct controller missing on its host?'
        verdict.add({ status: 'UNKNOWN', guest: guest.name, message })
      }
      const use = useOf(guest, waitUncounted === undefined)
      if (use === undefined) continue
      judgeUse(verdict, use, limits)
      uses.push(use)
    }
    if (waitUncounted !== undefined && (asked.waitWarning ?? asked.waitCritical) !== undefined) {
      const message = `wait is not counted (${waitUncounted}): sysctl kernel.sched_schedstats=1 on the hypervisor, or leave out --wait-…`
      verdict.add({ status: 'UNKNOWN', message })
    }
    verdict.summary = summaryOf(guests, uses, waitUncounted)
    return verdict
  },
})

function vcpusOf(stats: DomainStats): GuestVcpus {
  const { domain, cpu, vcpus, currentVcpus, maximumVcpus } = stats
  const numbers = { current: currentVcpus, maximum: maximumVcpus, cpuTimeNs: cpu?.timeNs }
  return { ...domain, running: isRunning(stats), vcpus, ...numbers }
}

function isOnline({ state }: VcpuStats): boolean {
  return state === 'running' || state === 'blocked'
}

/** The guest's CPU time, and by vCPU what it waited. */
function countersOf(guests: readonly GuestVcpus[]): Map<string, Counters> {
  return new Map(
    guests.flatMap((guest): [string, Counters][] => {
      if (guest.cpuTimeNs === undefined) return []
      const counters: Record<string, number> = { cpu: guest.cpuTimeNs }
      for (const { number, delayNs, waitNs } of guest.vcpus.filter(isOnline)) {
        if (delayNs !== undefined) counters[`delay.${number}`] = delayNs
        if (waitNs !== undefined) counters[`wait.${number}`] = waitNs
      }
      return [[runOf(guest), counters]]
    }),
  )
}

/** A kind of waiting since the last run: the mean of a guest's vCPUs, and the vCPU with the most. */
interface Waiting {
  readonly percent: number
  readonly worst: { readonly number: number; readonly percent: number }
}

/** What a guest's vCPUs did since the last run. */
interface Use {
  readonly guest: GuestVcpus
  readonly seconds: number
  readonly online: number
  readonly usedPercent: number
  /** Absent when it is not counted. */
  readonly steal?: Waiting | undefined
  readonly wait?: Waiting | undefined
}

/** Undefined when nothing is known: the first sample of its counters, or no vCPU is online. */
function useOf(guest: GuestVcpus, waitCounted: boolean): Use | undefined {
  const { growth, vcpus, cpuTimeNs = 0 } = guest
  const online = vcpus.filter(isOnline)
  if (growth === undefined || online.length === 0) return undefined
  const { seconds, grown } = growth
  const usedPercent = percentOf(grown['cpu'] ?? 0, seconds * online.length)
  const delayCounted = cpuTimeNs < delayExpectedAfterNs || online.some(({ delayNs = 0 }) => delayNs > 0)
  const steal = delayCounted ? waitingOf('delay', online, growth) : undefined
  const wait = waitCounted ? waitingOf('wait', online, growth) : undefined
  return { guest, seconds, online: online.length, usedPercent, steal, wait }
}

function waitingOf(kind: string, online: readonly VcpuStats[], { seconds, grown }: Growth): Waiting | undefined {
  const known = online.flatMap(({ number }) => {
    const grownNs = grown[`${kind}.${number}`]
    return grownNs === undefined ? [] : [{ number, percent: percentOf(grownNs, seconds) }]
  })
  const [worst] = known.toSorted((one, other) => other.percent - one.percent)
  if (worst === undefined) return undefined
  return { percent: known.reduce((sum, { percent }) => sum + percent, 0) / known.length, worst }
}

function percentOf(nanoseconds: number, seconds: number): number {
  return (nanoseconds / 1e9 / seconds) * 100
}

/** Why nobody counts how long vCPUs wait, in words; undefined when it is counted. */
function waitNotCounted(running: readonly GuestVcpus[], schedstats: Schedstats | undefined): string | undefined {
  if (schedstats === 'on') return undefined
  if (schedstats === 'off') return 'kernel.sched_schedstats=0'
  if (schedstats === 'absent') return 'its kernel has no kernel.sched_schedstats'
  const counted = running.some(({ vcpus }) => vcpus.some(({ waitNs = 0 }) => waitNs > 0))
  return counted ? undefined : 'it is 0 for all guests'
}

function judgeOffline(verdict: Verdict, guest: GuestVcpus, limits: Options): void {
  const { name, vcpus, current, maximum } = guest
  const expected = limits.expectVcpus === 'maximum' ? maximum : current
  if (expected === undefined) return
  const online = vcpus.filter(isOnline).length
  const { offlineWarning: warning, offlineCritical: critical } = limits
  const offline = {
    guest: name,
    what: 'vCPUs offline:',
    name: 'offline',
    note: `of ${expected}`,
    min: 0,
    max: expected,
  }
  verdict.judge({ ...offline, value: Math.max(0, expected - online), warning, critical })
  const halted = vcpus.filter(vcpu => vcpu.halted === true).length
  if (vcpus.some(vcpu => vcpu.halted !== undefined))
    verdict.measure({ name: 'halted', labels: { guest: name }, value: halted, min: 0, max: expected })
}

function judgeUse(verdict: Verdict, use: Use, limits: Options): void {
  const { seconds, online, usedPercent, steal, wait } = use
  const over = `over ${formatQuantity(seconds, 's')}`
  const subject = { guest: use.guest.name, unit: '%' } as const
  const ofVcpus = online === 1 ? 'of its vCPU' : `of its ${online} vCPUs`
  const { warning, critical, stealWarning, stealCritical, waitWarning, waitCritical } = limits
  const used = { what: 'CPU use', name: 'used_percent', value: usedPercent, note: `${ofVcpus} ${over}`, min: 0 }
  verdict.judge({ ...subject, ...used, warning, critical })
  const worst = (waiting: Waiting | undefined) =>
    online > 1 && waiting !== undefined
      ? `${over}, most ${formatQuantity(waiting.worst.percent, '%')} of vCPU ${waiting.worst.number}`
      : over
  const stolen = { what: 'steal', name: 'steal_percent', value: steal?.percent, note: worst(steal), min: 0, max: 100 }
  verdict.judge({ ...subject, ...stolen, warning: stealWarning, critical: stealCritical })
  if (wait === undefined) return
  const waited = { what: 'wait', name: 'wait_percent', value: wait.percent, note: worst(wait), min: 0, max: 100 }
  verdict.judge({ ...subject, ...waited, warning: waitWarning, critical: waitCritical })
}

function summaryOf(guests: readonly GuestVcpus[], uses: readonly Use[], waitUncounted: string | undefined): string {
  const running = guests.filter(guest => guest.running)
  if (running.length === 0)
    return `no running guest to judge${guests.length > 0 ? `; ${guests.length} not running` : ''}`
  const [busiest] = uses.toSorted((one, other) => other.usedPercent - one.usedPercent)
  const [stolen] = uses.toSorted((one, other) => (other.steal?.percent ?? -1) - (one.steal?.percent ?? -1))
  const uncounted = uses.filter(({ steal }) => steal === undefined).length
  const collecting = running.filter(guest => guest.cpuTimeNs !== undefined && guest.growth === undefined).length
  return [
    ...(busiest === undefined
      ? [`${running.length} running`]
      : [
          `highest CPU use ${formatQuantity(busiest.usedPercent, '%')} (${busiest.guest.name}, of ${running.length} running)`,
        ]),
    ...(stolen?.steal === undefined
      ? []
      : [`highest steal ${formatQuantity(stolen.steal.percent, '%')} (${stolen.guest.name})`]),
    ...(running.length < guests.length ? [`${guests.length - running.length} not running`] : []),
    ...(uncounted > 0 ? [`steal is not counted for ${uncounted}`] : []),
    ...(waitUncounted === undefined ? [] : [`wait is not counted (${waitUncounted})`]),
    ...(collecting > 0
      ? [collecting < running.length ? `collecting ${collecting} new` : 'collecting: known from the next run on']
      : []),
  ].join('; ')
}

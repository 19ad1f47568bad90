import { readGuestConfigs, readGuestLimits } from '../libvirt/guest-configs.js'
import { isRunning, runOf } from '../libvirt/guest-run.js'
import type { Host } from '../libvirt/host.js'
import { missingBecause } from '../libvirt/monitor-trouble.js'
import type { Domain, DomainStats } from '../libvirt/records.js'
import { defineCheck } from '../plugin/check.js'
import { type Counters, type Growth, growthSince } from '../plugin/counters.js'
import { guestLimitsOption } from '../plugin/limits.js'
import type { OptionTable, OptionValues } from '../plugin/options.js'
import { Verdict } from '../plugin/outcome.js'
import { formatQuantity } from '../plugin/text.js'

/** Statistics of this age are fresh whatever the period; older ones for so many periods. */
const freshSeconds = 60
const freshPeriods = 3
/** Having reported between two runs proves a guest's statistics fresh when the runs are no further apart. */
const longestRunGapSeconds = 900
/** Guests with old statistics whose XML is read for their period. */
const mostPeriodsRead = 200
/** virtio writes 2^64 - 1 for a number it does not have; no real size or count comes near. */
const notSupplied = 2 ** 60
const remedy = "set <stats period='10'/> in its <memballoon>, or install the balloon service in it"

type Balloon = NonNullable<DomainStats['balloon']>

/** What is known of one guest's memory. */
export interface GuestMemory extends Domain {
  readonly running: boolean
  /** Why QEMU said nothing. */
  readonly missing?: string | undefined
  /** What the guest and the host reported, without numbers that were not supplied. */
  readonly balloon: Balloon
  /** How long ago the guest reported last, by this machine's clock; absent when it never did. */
  readonly ageSeconds?: number | undefined
  /** How often libvirt asks the guest to report, 0 for never; only looked up for old statistics. */
  readonly periodSeconds?: number | undefined
  /** What the guest counted since the last run. */
  readonly growth?: Growth | undefined
  readonly limits?: Readonly<Record<string, string>> | undefined
}

/** Memory as the guest sees it. */
interface Usage {
  readonly availableBytes: number
  readonly usedBytes: number
  readonly usedPercent: number
}

const options = {
  warning: { type: 'range', alias: 'w', default: '90', summary: 'Warn outside this range (% of its memory in use).' },
  critical: { type: 'range', alias: 'c', default: '95', summary: 'Critical outside this range (% in use).' },
  lowFree: {
    type: 'number',
    default: 5,
    minimum: 0,
    maximum: 100,
    summary: 'Judge swapping and major faults while less than this is free (%).',
  },
  swapWarning: { type: 'range', default: '0', summary: 'Warn outside this range (bytes swapped per second).' },
  swapCritical: { type: 'range', summary: 'Critical outside this range (bytes swapped per second).' },
  faultsWarning: { type: 'range', default: '10', summary: 'Warn outside this range (major faults per second).' },
  faultsCritical: { type: 'range', summary: 'Critical outside this range (major faults per second).' },
  rssWarning: { type: 'range', summary: 'Warn outside this range (resident size of its QEMU, % of its allotment).' },
  rssCritical: { type: 'range', summary: 'Critical outside this range (resident size, % of its allotment).' },
  maxAge: { type: 'duration', summary: 'Judge statistics up to this age (default: 1m or three periods).' },
  ...guestLimitsOption,
} as const satisfies OptionTable
type Options = OptionValues<typeof options>

export default defineCheck({
  name: 'check-kvm-memory',
  summary: 'Memory in use inside the guests, as their balloon drivers report it (dommemstat).',
  description: `In use is what a guest sees as its memory (\`available\`) without what it can use without swapping (\`usable\`, or \`unused\` where its driver does not
report that). The balloon's size is what the guest was given and says nothing about use: it is not judged.

Only fresh statistics are judged: reported within the last minute, or within three of the periods set by \`<memballoon><stats period='10'/>\` if that is longer, by the clock of the
machine that the check runs on; or since the last run. A guest without is UNKNOWN, with what to do about it. Guests that do not run or are paused are not judged.

Swapping and major page faults are means between a guest's last reports before two runs, so they are known from the second run on. They are judged only while
less than \`--low-free\` is free.

One libvirt call for any number of guests. Besides, the XML of guests with old statistics is read for their period (not with \`--max-age\`), and with \`--guest-limits\` that of
every guest.`,
  guests: true,
  options,
  async collect(host: Host, { guestLimits, maxAge }, context): Promise<readonly GuestMemory[]> {
    const { signal, stage } = context
    stage('reading memory statistics')
    const { takenAtMs, guests: all } = await host.domainStats({ groups: ['state', 'balloon'], signal })
    const selected = context.selectGuests(all.map(stats => memoryOf(stats, takenAtMs)))
    const growth = await growthSince(context.state, takenAtMs, countersOf(selected))
    const guests = selected.map(guest => ({ ...guest, growth: growth.get(runOf(guest)) }))
    stage("reading guests' XML")
    const limits = guestLimits ? await readGuestLimits(host, guests, 'check-kvm-memory', signal) : undefined
    const old = maxAge === undefined ? guests.filter(guest => guest.running && isOld(guest, undefined)) : []
    const configs = await readGuestConfigs(host, old.slice(0, mostPeriodsRead), { signal })
    return guests.map(guest => {
      const config = configs.get(guest.uuid)
      const periodSeconds = config && (config.balloon?.statsPeriodSeconds ?? 0)
      return { ...guest, periodSeconds, limits: limits?.get(guest.uuid) }
    })
  },
  evaluate(guests, asked) {
    const verdict = new Verdict()
    const running = guests.filter(guest => guest.running)
    const used: { name: string; percent: number }[] = []
    for (const guest of running) {
      const limits = verdict.limitsOf(asked, guest)
      const usage = usageOf(guest, asked.maxAge)
      if (typeof usage === 'string') verdict.add({ status: 'UNKNOWN', guest: guest.name, message: usage })
      else {
        judgeUsage(verdict, guest, usage, limits)
        used.push({ name: guest.name, percent: usage.usedPercent })
      }
      judgeResident(verdict, guest, limits)
    }
    const [most] = used.sort((one, other) => other.percent - one.percent)
    const collecting = running.some(({ ageSeconds, growth }) => ageSeconds !== undefined && growth === undefined)
    verdict.summary = [
      most === undefined
        ? 'no running guest to judge'
        : `highest memory in use ${formatQuantity(most.percent, '%')} (${most.name}, of ${used.length} running)`,
      ...(running.length < guests.length ? [`${guests.length - running.length} not running`] : []),
      ...(collecting ? ['swapping and faults: collecting, known from the next run on'] : []),
    ].join('; ')
    return verdict
  },
})

function memoryOf(stats: DomainStats, takenAtMs: number): GuestMemory {
  const { domain } = stats
  const supplied = Object.entries(stats.balloon ?? {}).filter(([, value]) => value < notSupplied)
  const balloon: Balloon = Object.fromEntries(supplied)
  // 0 until the guest has reported for the first time.
  const ageSeconds = balloon.lastUpdateSeconds ? takenAtMs / 1000 - balloon.lastUpdateSeconds : undefined
  const missing = missingBecause(stats, balloon.rssBytes !== undefined)
  return { ...domain, running: isRunning(stats), missing, balloon, ageSeconds }
}

const counted = ['lastUpdateSeconds', 'swapInBytes', 'swapOutBytes', 'majorFaults']

function countersOf(guests: readonly GuestMemory[]): Map<string, Counters> {
  const reporting = guests.filter(({ ageSeconds }) => ageSeconds !== undefined)
  return new Map(
    reporting.map(guest => {
      const counters = Object.entries(guest.balloon).filter(([name]) => counted.includes(name))
      return [runOf(guest), Object.fromEntries(counters)]
    }),
  )
}

/** Whether a guest's statistics say nothing about now. Without a limit the age that is always fresh, or the guest's periods, is one. */
function isOld({ ageSeconds = 0, growth, periodSeconds = 0 }: GuestMemory, maxAgeSeconds: number | undefined): boolean {
  if (growth !== undefined && reportedSeconds(growth) > 0 && growth.seconds <= (maxAgeSeconds ?? longestRunGapSeconds))
    return false
  return Math.abs(ageSeconds) > (maxAgeSeconds ?? Math.max(freshSeconds, freshPeriods * periodSeconds))
}

/** Time between the guest's own last reports before two runs: what its counters grew in. */
function reportedSeconds({ grown }: Growth): number {
  return grown['lastUpdateSeconds'] ?? 0
}

/** Memory in use inside the guest, or in words why it is not known. */
function usageOf(guest: GuestMemory, maxAgeSeconds: number | undefined): Usage | string {
  const { missing, ageSeconds, periodSeconds, balloon } = guest
  const { availableBytes, usableBytes, unusedBytes } = balloon
  if (missing !== undefined) return missing
  if (!availableBytes || ageSeconds === undefined) return `no balloon statistics: ${remedy}`
  if (isOld(guest, maxAgeSeconds)) {
    const reported = `last balloon statistics ${formatQuantity(Math.abs(ageSeconds), 's')}`
    if (ageSeconds < 0)
      return `${reported} ahead of this machine's clock: set the clocks, or look at it from its own host`
    if (periodSeconds === 0) return `${reported} ago: set <stats period='10'/> in its <memballoon>`
    return `${reported} ago: look after the balloon service in it, or ${remedy}`
  }
  const freeBytes = usableBytes ?? unusedBytes
  if (freeBytes === undefined || freeBytes > availableBytes)
    return 'its balloon driver does not report free memory: install a newer one'
  const usedBytes = availableBytes - freeBytes
  return { availableBytes, usedBytes, usedPercent: (usedBytes / availableBytes) * 100 }
}

function judgeUsage(verdict: Verdict, { name, growth }: GuestMemory, usage: Usage, limits: Options): void {
  const { availableBytes, usedBytes, usedPercent } = usage
  const note = `of ${formatQuantity(availableBytes, 'B')}`
  const { warning, critical, swapWarning, swapCritical, faultsWarning, faultsCritical } = limits
  const memory = { guest: name, what: 'memory in use', name: 'used_percent', unit: '%', note } as const
  verdict.judge({ ...memory, value: usedPercent, warning, critical })
  verdict.measure({ name: 'used', labels: { guest: name }, value: usedBytes, unit: 'B', min: 0, max: availableBytes })
  const low = 100 - usedPercent < limits.lowFree
  const rate = { guest: name, note: `per second with ${formatQuantity(100 - usedPercent, '%')} free` }
  const swapping = { ...rate, what: 'swapping', name: 'swap_rate', unit: 'B' } as const
  const swapLimits = low ? { warning: swapWarning, critical: swapCritical } : {}
  verdict.judge({ ...swapping, value: rateOf(growth, 'swapInBytes', 'swapOutBytes'), ...swapLimits })
  const faulting = { ...rate, what: 'major page faults', name: 'major_fault_rate' }
  const faultLimits = low ? { warning: faultsWarning, critical: faultsCritical } : {}
  verdict.judge({ ...faulting, value: rateOf(growth, 'majorFaults'), ...faultLimits })
}

/** The size of QEMU's process on the host: known whatever the guest says, and usually a little more than the guest was given. */
function judgeResident(verdict: Verdict, { name, balloon }: GuestMemory, limits: Options): void {
  const { rssBytes, balloonBytes } = balloon
  verdict.measure({ name: 'resident', labels: { guest: name }, value: rssBytes, unit: 'B' })
  if (rssBytes === undefined || !balloonBytes) return
  const note = `of its allotment of ${formatQuantity(balloonBytes, 'B')}`
  const resident = { guest: name, what: 'resident size of QEMU', name: 'resident_percent', unit: '%', note } as const
  const { rssWarning: warning, rssCritical: critical } = limits
  verdict.judge({ ...resident, value: (rssBytes / balloonBytes) * 100, warning, critical })
}

/** How much some counters grew together per second; undefined when nothing is known. */
function rateOf(growth: Growth | undefined, ...names: readonly string[]): number | undefined {
  if (growth === undefined || reportedSeconds(growth) === 0) return undefined
  const grown = names.flatMap(name => growth.grown[name] ?? [])
  return grown.length === 0 ? undefined : grown.reduce((sum, value) => sum + value, 0) / reportedSeconds(growth)
}

import { readGuestConfigs, readGuestLimits } from '../libvirt/guest-configs.js'
import { isRunning, runOf } from '../libvirt/guest-run.js'
import type { Host } from '../libvirt/host.js'
import { missingBecause } from '../libvirt/monitor-trouble.js'
import type { BlockStatsView, Domain, DomainStats } from '../libvirt/records.js'
import { defineCheck } from '../plugin/check.js'
import { type Counters, type Growth, growthSince } from '../plugin/counters.js'
import { guestLimitsOption, overrideLimits } from '../plugin/limits.js'
import type { OptionTable, OptionValues } from '../plugin/options.js'
import { Verdict } from '../plugin/outcome.js'
import { type Range, rangeIn, violates } from '../plugin/range.js'
import { formatQuantity } from '../plugin/text.js'

/** Guests with a slow disk whose XML is read for the limits set on it. */
const mostConfigsRead = 200

/** One disk of a guest. */
export interface Disk {
  readonly name: string
  /** What was done since the last run; absent when the disk is new or its counters began anew. */
  readonly growth?: Growth | undefined
  /** The limits libvirt sets on it, by libvirt's names; only looked up for slow disks. */
  readonly ioTune?: Readonly<Record<string, number>> | undefined
}

/** One running guest and its disks. */
export interface GuestDisks extends Domain {
  /** Why there are no numbers. */
  readonly missing?: string | undefined
  readonly disks: readonly Disk[]
  readonly limits?: Readonly<Record<string, string>> | undefined
}

const milliseconds = 'milliseconds per operation'
const options = {
  warning: { type: 'range', alias: 'w', default: '20', summary: `Warn outside this latency (${milliseconds}).` },
  critical: { type: 'range', alias: 'c', default: '100', summary: `Critical outside this latency (${milliseconds}).` },
  flushWarning: { type: 'range', summary: 'Warn outside this latency of flushes (default: as --warning).' },
  flushCritical: { type: 'range', summary: 'Critical outside this latency of flushes (default: as --critical).' },
  minimumOps: {
    type: 'integer',
    default: 10,
    minimum: 1,
    summary: 'Judge a latency that is the mean of at least so many operations.',
  },
  throttled: {
    type: 'number',
    default: 90,
    minimum: 0,
    maximum: 100,
    summary: 'Blame our own limit for a latency when this much of it is used (%).',
  },
  iopsWarning: { type: 'range', summary: 'Warn outside this range (reads and writes per second).' },
  iopsCritical: { type: 'range', summary: 'Critical outside this range (reads and writes per second).' },
  bytesWarning: { type: 'range', summary: 'Warn outside this range (bytes read and written per second).' },
  bytesCritical: { type: 'range', summary: 'Critical outside this range (bytes read and written per second).' },
  ...guestLimitsOption,
} as const satisfies OptionTable
type Options = OptionValues<typeof options>

const collectingAll = 'collecting: latencies are known from the next run on'
const throttles = [
  { limit: 'iops_sec', kind: 'Ops', unit: '' },
  { limit: 'bytes_sec', kind: 'Bytes', unit: 'B' },
]
const operations = ['read', 'write', 'flush'] as const

/** The mean time of one kind of operation, with limits when it is to be judged. */
interface Latency {
  readonly operation: (typeof operations)[number]
  readonly seconds: number
  readonly warning?: Range | undefined
  readonly critical?: Range | undefined
}

/** A latency that was judged, for the summary. */
interface Judged extends Latency {
  readonly disk: string
  /** The limit of ours that explains it. */
  readonly throttle?: string | undefined
}

export default defineCheck({
  name: 'check-kvm-disk-io',
  summary: "Latency of the guests' disks for reads, writes and flushes, as QEMU measures it (domblkstat).",
  description: `A latency is the time that operations took since the last run divided by their number: a mean. The first run of a guest's disk only collects, as does one
after its counters began anew (guest restarted or migrated). A mean of fewer operations than \`--minimum-ops\` is printed but not judged.

When a latency crosses its limit, the limits that libvirt itself sets on the disk (\`<iotune>\`) are looked up. If the disk used \`--throttled\` percent or more of one of
them, waiting is what the limit is for: the latency is reported as throttled and is no alert. Flushes are not subject to such limits.

Disks that appear are collected from then on, disks and guests that vanish are forgotten; guests that do not run are not looked at.

One libvirt call for any number of guests. Besides, the XML of guests with a slow disk is read for its limits, and with \`--guest-limits\` that of every guest.`,
  guests: true,
  options,
  async collect(host: Host, asked, context): Promise<readonly GuestDisks[]> {
    const { signal, stage } = context
    stage('reading block statistics')
    const { takenAtMs, guests: all } = await host.domainStats({ groups: ['state', 'block'], signal })
    const selected = context.selectGuests(all.map(stats => ({ ...stats.domain, stats })))
    const running = selected.filter(({ stats }) => isRunning(stats))
    const growth = await growthSince(context.state, takenAtMs, countersOf(running.map(({ stats }) => stats)))
    stage("reading guests' XML")
    const limits = asked.guestLimits ? await readGuestLimits(host, running, 'check-kvm-disk-io', signal) : undefined
    const guests = running.map(({ stats }) => disksOf(stats, growth, limits?.get(stats.domain.uuid)))
    const slow = guests.filter(guest => isSlow(guest, asked)).slice(0, mostConfigsRead)
    const configs = await readGuestConfigs(host, slow, { containing: '<iotune', signal })
    return guests.map(guest => {
      const ioTune = new Map(configs.get(guest.uuid)?.disks.map(disk => [disk.target, disk.ioTune]))
      return { ...guest, disks: guest.disks.map(disk => ({ ...disk, ioTune: ioTune.get(disk.name) })) }
    })
  },
  evaluate(guests, asked) {
    const verdict = new Verdict()
    const judged: Judged[] = []
    for (const guest of guests) {
      const limits = verdict.limitsOf(asked, guest)
      if (guest.missing !== undefined) verdict.add({ status: 'UNKNOWN', guest: guest.name, message: guest.missing })
      for (const disk of guest.disks) judged.push(...judgeDisk(verdict, guest.name, disk, limits))
    }
    verdict.summary = summaryOf(guests, judged)
    return verdict
  },
})

function disksOf(stats: DomainStats, growth: ReadonlyMap<string, Growth>, limits: GuestDisks['limits']): GuestDisks {
  const { domain, blocks } = stats
  const disks = blocks.filter(isCounted).map(({ name }) => ({ name, growth: growth.get(diskKey(domain, name)) }))
  return { ...domain, disks, limits, missing: missingBecause(stats, blocks.length === 0 || disks.length > 0) }
}

function isCounted({ readOps }: BlockStatsView): boolean {
  return readOps !== undefined
}

/** A disk in one run of a guest: after a restart its counters begin anew. */
function diskKey(domain: Domain, disk: string): string {
  return `${runOf(domain)} ${disk}`
}

const counted = ['Ops', 'TimeNs', 'Bytes'].flatMap(kind => ['read', 'write', 'flush'].map(name => name + kind))

function countersOf(guests: readonly DomainStats[]): Map<string, Counters> {
  const disks = guests.flatMap(({ domain, blocks }) => blocks.filter(isCounted).map(block => ({ domain, block })))
  return new Map(
    disks.map(({ domain, block }) => {
      const counters = Object.entries(block).filter(
        ([name, value]) => counted.includes(name) && typeof value === 'number',
      )
      return [diskKey(domain, block.name), Object.fromEntries(counters)]
    }),
  )
}

/** Mean times of a disk's operations since the last run; those that did not happen are left out. */
function latenciesOf({ growth }: Disk, limits: Options): Latency[] {
  const { warning, critical, minimumOps, flushWarning = warning, flushCritical = critical } = limits
  return operations.flatMap(operation => {
    const ops = growth?.grown[`${operation}Ops`]
    const timeNs = growth?.grown[`${operation}TimeNs`]
    if (!ops || timeNs === undefined) return []
    const own = operation === 'flush' ? { warning: flushWarning, critical: flushCritical } : { warning, critical }
    const judged =
      ops < minimumOps ? {} : { warning: rangeIn(1000, own.warning), critical: rangeIn(1000, own.critical) }
    return [{ operation, seconds: timeNs / ops / 1e9, ...judged }]
  })
}

function isSlow({ disks, limits = {} }: GuestDisks, asked: Options): boolean {
  const own = overrideLimits(asked, limits).options
  return disks.some(disk => latenciesOf(disk, own).some(isAlert))
}

function isAlert({ seconds, warning, critical }: Latency): boolean {
  return [warning, critical].some(range => range !== undefined && violates(range, seconds))
}

/** Judges one disk; returns its latencies. */
function judgeDisk(verdict: Verdict, guest: string, disk: Disk, limits: Options): Judged[] {
  const { name: device, growth } = disk
  if (growth === undefined) return []
  const { grown, seconds } = growth
  const subject = { guest, device, deviceLabel: 'disk', note: `over ${formatQuantity(seconds, 's')}` }
  const { iopsWarning, iopsCritical, bytesWarning, bytesCritical } = limits
  const judged = latenciesOf(disk, limits).map(latency => {
    const { operation, seconds: value, ...ranges } = latency
    const throttle = isAlert(latency) ? throttleOf(disk, operation, limits.throttled) : undefined
    const metric = { name: `${operation}_latency`, value, unit: 's', ...ranges } as const
    if (throttle === undefined) verdict.judge({ ...subject, what: `${operation} latency`, ...metric })
    else {
      const message = `${operation} latency ${formatQuantity(value, 's')}, throttled by ${throttle}`
      verdict.add({ status: 'OK', guest, device, message }).measure({ ...metric, labels: { guest, disk: device } })
    }
    return { ...latency, disk: `${guest} ${device}`, throttle }
  })
  const perSecond = (kind: string) => ((grown[`read${kind}`] ?? 0) + (grown[`write${kind}`] ?? 0)) / seconds
  const rate = { ...subject, note: `per second ${subject.note}` }
  const iops = { what: 'reads and writes', name: 'iops', value: perSecond('Ops') }
  verdict.judge({ ...rate, ...iops, warning: iopsWarning, critical: iopsCritical })
  const bytes = { what: 'throughput', name: 'throughput', value: perSecond('Bytes'), unit: 'B' } as const
  verdict.judge({ ...rate, ...bytes, warning: bytesWarning, critical: bytesCritical })
  return judged
}

/** The first limit of ours that the operation has used up to so many percent, in words. Flushes have none. */
function throttleOf({ growth, ioTune = {} }: Disk, operation: string, percent: number): string | undefined {
  if (growth === undefined || operation === 'flush') return undefined
  for (const direction of ['total', operation]) {
    for (const { limit, kind, unit } of throttles) {
      const name = `${direction}_${limit}`
      const directions = direction === 'total' ? ['read', 'write'] : [operation]
      const used = directions.reduce((sum, each) => sum + (growth.grown[each + kind] ?? 0), 0) / growth.seconds
      const allowed = ioTune[name] ?? 0
      if (allowed > 0 && used >= (allowed * percent) / 100)
        return `its own limit ${name}: ${formatQuantity(used, unit)} of ${formatQuantity(allowed, unit)}`
    }
  }
  return undefined
}

function summaryOf(guests: readonly GuestDisks[], judged: readonly Judged[]): string {
  const disks = guests.flatMap(guest => guest.disks)
  const collecting = disks.filter(({ growth }) => growth === undefined).length
  const throttled = judged.filter(({ throttle }) => throttle !== undefined)
  const [slowest] = judged.filter(({ throttle }) => throttle === undefined).sort((a, b) => b.seconds - a.seconds)
  const number = `${disks.length} ${disks.length === 1 ? 'disk' : 'disks'} of running guests`
  return [
    ...throttled.slice(0, 1).map(({ disk, operation, throttle }) => `${disk}: ${operation}s throttled by ${throttle}`),
    ...(throttled.length > 1 ? [`${throttled.length - 1} more throttled`] : []),
    slowest === undefined
      ? number
      : `highest latency ${formatQuantity(slowest.seconds, 's')} (${slowest.disk} ${slowest.operation}), ${number}`,
    ...(collecting === 0 ? [] : [collecting < disks.length ? `collecting ${collecting} new` : collectingAll]),
  ].join('; ')
}

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
const operations = [
  { operation: 'read', what: 'read latency', name: 'read_latency', ops: 'readOps', timeNs: 'readTimeNs' },
  { operation: 'write', what: 'write latency', name: 'write_latency', ops: 'writeOps', timeNs: 'writeTimeNs' },
  { operation: 'flush', what: 'flush latency', name: 'flush_latency', ops: 'flushOps', timeNs: 'flushTimeNs' },
] as const
type Operation = (typeof operations)[number]

/** Limits in seconds. */
interface LatencyLimits {
  readonly warning?: Range | undefined
  readonly critical?: Range | undefined
}

/** The mean time of one kind of operation, with limits when it is to be judged. */
interface Latency extends LatencyLimits {
  readonly kind: Operation
  readonly seconds: number
}

/** A latency that was judged, for the summary. */
interface Judged {
  readonly operation: Operation['operation']
  readonly seconds: number
  readonly guest: string
  readonly device: string
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
    const common = limitsInSeconds(asked)
    const slow = guests.filter(guest => isSlow(guest, asked, common)).slice(0, mostConfigsRead)
    const configs = await readGuestConfigs(host, slow, { containing: '<iotune', signal })
    if (configs.size === 0) return guests
    return guests.map(guest => {
      const ioTune = new Map(configs.get(guest.uuid)?.disks.map(disk => [disk.target, disk.ioTune]))
      return { ...guest, disks: guest.disks.map(disk => ({ ...disk, ioTune: ioTune.get(disk.name) })) }
    })
  },
  evaluate(guests, asked) {
    const verdict = new Verdict()
    const judged: Judged[] = []
    const common = limitsInSeconds(asked)
    for (const guest of guests) {
      const options = verdict.limitsOf(asked, guest)
      const limits = options === asked ? common : limitsInSeconds(options)
      if (guest.missing !== undefined) verdict.add({ status: 'UNKNOWN', guest: guest.name, message: guest.missing })
      for (const disk of guest.disks) judged.push(...judgeDisk(verdict, guest.name, disk, options, limits))
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

const counted = [
  ...(['readOps', 'readTimeNs', 'readBytes'] as const),
  ...(['writeOps', 'writeTimeNs', 'writeBytes'] as const),
  ...(['flushOps', 'flushTimeNs'] as const),
]

function countersOf(guests: readonly DomainStats[]): Map<string, Counters> {
  const disks = new Map<string, Counters>()
  for (const { domain, blocks } of guests) {
    for (const block of blocks) if (isCounted(block)) disks.set(diskKey(domain, block.name), numbersOf(block))
  }
  return disks
}

function numbersOf(block: BlockStatsView): Counters {
  const numbers: Record<string, number> = {}
  for (const name of counted) {
    const value = block[name]
    if (value !== undefined) numbers[name] = value
  }
  return numbers
}

/** The limits of each operation. */
function limitsInSeconds(options: Options): Readonly<Record<Operation['operation'], LatencyLimits>> {
  const { warning, critical, flushWarning = warning, flushCritical = critical } = options
  const transfer = { warning: rangeIn(1000, warning), critical: rangeIn(1000, critical) }
  const flush = { warning: rangeIn(1000, flushWarning), critical: rangeIn(1000, flushCritical) }
  return { read: transfer, write: transfer, flush }
}
type Limits = ReturnType<typeof limitsInSeconds>

/** Mean times of a disk's operations since the last run; those that did not happen are left out. */
function latenciesOf({ growth }: Disk, minimumOps: number, limits: Limits): Latency[] {
  const latencies: Latency[] = []
  if (growth === undefined) return latencies
  for (const kind of operations) {
    const ops = growth.grown[kind.ops]
    const timeNs = growth.grown[kind.timeNs]
    if (!ops || timeNs === undefined) continue
    const { warning, critical } = ops < minimumOps ? noLimits : limits[kind.operation]
    latencies.push({ kind, seconds: timeNs / ops / 1e9, warning, critical })
  }
  return latencies
}

const noLimits: LatencyLimits = {}

function isSlow({ disks, limits }: GuestDisks, asked: Options, common: Limits): boolean {
  const own = limits === undefined ? undefined : overrideLimits(asked, limits).options
  const ranges = own === undefined ? common : limitsInSeconds(own)
  return disks.some(disk => latenciesOf(disk, asked.minimumOps, ranges).some(isAlert))
}

function isAlert({ seconds, warning, critical }: Latency): boolean {
  return (
    (warning !== undefined && violates(warning, seconds)) || (critical !== undefined && violates(critical, seconds))
  )
}

/** Judges one disk; returns its latencies. */
function judgeDisk(verdict: Verdict, guest: string, disk: Disk, options: Options, limits: Limits): Judged[] {
  const { name: device, growth } = disk
  if (growth === undefined) return []
  const over = `over ${formatQuantity(growth.seconds, 's')}`
  const judged = latenciesOf(disk, options.minimumOps, limits).map((latency): Judged => {
    const { kind, seconds, warning, critical } = latency
    const { operation, what, name } = kind
    const throttle = isAlert(latency) ? throttleOf(disk, operation, options.throttled) : undefined
    const metric = { name, value: seconds, unit: 's', warning, critical } as const
    if (throttle === undefined) verdict.judge({ ...metric, guest, device, deviceLabel: 'disk', what, note: over })
    else {
      const message = `${what} ${formatQuantity(seconds, 's')}, throttled by ${throttle}`
      verdict.add({ status: 'OK', guest, device, message }).measure({ ...metric, labels: { guest, disk: device } })
    }
    return { operation, seconds, guest, device, throttle }
  })
  judgeRates(verdict, { guest, device, note: `per second ${over}` }, growth, options)
  return judged
}

function judgeRates(
  verdict: Verdict,
  subject: { readonly guest: string; readonly device: string; readonly note: string },
  { grown, seconds }: Growth,
  { iopsWarning, iopsCritical, bytesWarning, bytesCritical }: Options,
): void {
  const perSecond = (reads: number | undefined, writes: number | undefined) => ((reads ?? 0) + (writes ?? 0)) / seconds
  const disk = { ...subject, deviceLabel: 'disk' }
  const ops = perSecond(grown['readOps'], grown['writeOps'])
  const iops = { what: 'reads and writes', name: 'iops', value: ops, warning: iopsWarning, critical: iopsCritical }
  verdict.judge({ ...disk, ...iops })
  const value = perSecond(grown['readBytes'], grown['writeBytes'])
  const ranges = { warning: bytesWarning, critical: bytesCritical }
  verdict.judge({ ...disk, what: 'throughput', name: 'throughput', unit: 'B', value, ...ranges })
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
  let slowest: Judged | undefined
  for (const each of judged) {
    if (each.throttle === undefined && (slowest === undefined || each.seconds > slowest.seconds)) slowest = each
  }
  const number = `${disks.length} ${disks.length === 1 ? 'disk' : 'disks'} of running guests`
  return [
    ...throttled
      .slice(0, 1)
      .map(({ guest, device, operation, throttle }) => `${guest} ${device}: ${operation}s throttled by ${throttle}`),
    ...(throttled.length > 1 ? [`${throttled.length - 1} more throttled`] : []),
    slowest === undefined
      ? number
      : `highest latency ${formatQuantity(slowest.seconds, 's')} (${slowest.guest} ${slowest.device} ${slowest.operation}), ${number}`,
    ...(collecting === 0 ? [] : [collecting < disks.length ? `collecting ${collecting} new` : collectingAll]),
  ].join('; ')
}

import { LibvirtError } from '../libvirt/errors.js'
import type { Host } from '../libvirt/host.js'
import type {
  Domain,
  DomainStats,
  NodeCpuStats,
  NodeInfo,
  NodeMemoryStats,
  ParamValue,
  StatsGroup,
} from '../libvirt/records.js'
import { defineCheck } from '../plugin/check.js'
import type { Metric, Outcome, Unit } from '../plugin/outcome.js'

/** One guest with every parameter of the bulk call, by libvirt's own names. */
export interface GuestNumbers extends Domain {
  readonly params: ReadonlyMap<string, ParamValue>
  /** How long its QEMU has not answered; 0 when it does, undefined when it does not run. */
  readonly silentSeconds: number | undefined
}

export interface KvmSample {
  readonly guests: readonly GuestNumbers[]
  /** Undefined where the driver does not tell. */
  readonly cpu: NodeCpuStats | undefined
  readonly memory: NodeMemoryStats | undefined
  readonly node: NodeInfo | undefined
}

/** What becomes of one of libvirt's parameters: another name, a unit, and what to multiply it with. */
interface Field {
  readonly name: string
  readonly unit?: Unit
  readonly factor?: number
  readonly help: string
}

const kib = 1024
const nanosecond = 1e-9
/** virtio writes 2^64 - 1 for a number it does not have; no real size or count comes near. */
const notSupplied = 2 ** 60

const groups: readonly StatsGroup[] = [
  'state',
  'cpu',
  'balloon',
  'vcpu',
  'interface',
  'block',
  'perf',
  'iothread',
  'memory',
  'dirtyrate',
  'vm',
]

function gauge(name: string, help: string, unit: Unit = '', factor = 1): Field {
  return { name, help, unit, factor }
}
function counter(name: string, help: string, factor = 1): Field {
  return { name, help, unit: 'c', factor }
}
const sized = (name: string, help: string) => gauge(name, help, 'B', kib)
const timed = (name: string, help: string) => counter(`${name}_seconds`, help, nanosecond)

/** libvirt's parameters by name, `N` for a position in a list. What is not here keeps its own name and unit. */
export const fields: Readonly<Record<string, Field>> = {
  'state.state': gauge(
    'state',
    'virDomainState: 1 running, 3 paused, 4 shutting down, 5 shut off, 6 crashed, 7 asleep.',
  ),
  'state.reason': gauge('state_reason', "Why it is in that state, by libvirt's numbers."),
  'cpu.time': timed('cpu', 'CPU time of the guest, its emulator included.'),
  'cpu.user': timed('cpu_user', 'CPU time of the guest in user space of the host.'),
  'cpu.system': timed('cpu_system', "CPU time of the guest in the host's kernel."),
  'cpu.haltpoll.success.time': timed('cpu_haltpoll_success', 'Time polled for an interrupt that came.'),
  'cpu.haltpoll.fail.time': timed('cpu_haltpoll_fail', 'Time polled for an interrupt in vain.'),
  'balloon.current': sized('memory_current', 'Memory given to the guest now.'),
  'balloon.maximum': sized('memory_maximum', 'Memory the guest may have.'),
  'balloon.available': sized('memory_available', 'What the guest sees as its memory.'),
  'balloon.usable': sized('memory_usable', 'What the guest can use without swapping.'),
  'balloon.unused': sized('memory_unused', 'What the guest leaves wholly unused.'),
  'balloon.disk_caches': sized('memory_disk_caches', 'Page cache inside the guest.'),
  'balloon.rss': sized('memory_resident', "Resident size of the guest's QEMU on the host."),
  'balloon.swap_in': counter('memory_swap_in_bytes', 'Read from swap inside the guest.', kib),
  'balloon.swap_out': counter('memory_swap_out_bytes', 'Written to swap inside the guest.', kib),
  'balloon.major_fault': counter('memory_major_faults', 'Page faults inside the guest that needed its disk.'),
  'balloon.minor_fault': counter('memory_minor_faults', 'Page faults inside the guest that did not.'),
  'balloon.hugetlb_pgalloc': counter('memory_hugepage_allocations', 'Huge pages allocated inside the guest.'),
  'balloon.hugetlb_pgfail': counter('memory_hugepage_failures', 'Huge pages not to be had inside the guest.'),
  'balloon.last-update': gauge('memory_last_update', 'When the guest reported its memory, since 1970.', 's'),
  'vcpu.current': gauge('vcpus', 'vCPUs the guest has.'),
  'vcpu.maximum': gauge('vcpus_maximum', 'vCPUs the guest may have.'),
  'vcpu.N.state': gauge('vcpu_state', 'virVcpuState: 0 offline, 1 running, 2 blocked.'),
  'vcpu.N.time': timed('vcpu', 'CPU time of one vCPU.'),
  'vcpu.N.wait': timed('vcpu_wait', 'Time one vCPU waited for I/O, where the kernel counts it.'),
  'vcpu.N.delay': timed('vcpu_delay', 'Time one vCPU was ready to run and had no CPU: steal, as the guest sees it.'),
  'vcpu.N.halted': gauge('vcpu_halted', 'Whether one vCPU is halted.'),
  'net.count': gauge('interfaces', 'Network interfaces.'),
  ...Object.fromEntries(
    (['rx', 'tx'] as const).flatMap(direction => {
      const done = direction === 'rx' ? 'received' : 'sent'
      return [
        [`net.N.${direction}.bytes`, counter(`interface_${done}_bytes`, `Bytes ${done}, seen from the guest.`)],
        [`net.N.${direction}.pkts`, counter(`interface_${done}_packets`, `Packets ${done}.`)],
        [`net.N.${direction}.errs`, counter(`interface_${done}_errors`, `Packets ${done} with an error.`)],
        [`net.N.${direction}.drop`, counter(`interface_${done}_drops`, `Packets dropped instead of being ${done}.`)],
      ]
    }),
  ),
  'block.count': gauge('disks', 'Disks.'),
  ...Object.fromEntries(
    (['rd', 'wr', 'fl'] as const).flatMap(operation => {
      const done = { rd: 'read', wr: 'write', fl: 'flush' }[operation]
      return [
        [`block.N.${operation}.reqs`, counter(`disk_${done}_requests`, `Requests to ${done}.`)],
        [`block.N.${operation}.bytes`, counter(`disk_${done}_bytes`, `Bytes of requests to ${done}.`)],
        [`block.N.${operation}.times`, timed(`disk_${done}`, `Time spent with requests to ${done}.`)],
      ]
    }),
  ),
  'block.N.errors': counter('disk_errors', 'I/O errors.'),
  'block.N.allocation': gauge('disk_allocation', 'Highest offset used, or space used, on the host.', 'B'),
  'block.N.capacity': gauge('disk_capacity', 'Size the guest sees.', 'B'),
  'block.N.physical': gauge('disk_physical', 'Size of the file or device on the host.', 'B'),
  'block.N.threshold': gauge('disk_threshold', 'Offset whose first use makes an event.', 'B'),
}

/** Numbers that tell nothing by themselves. */
const leftOut: ReadonlySet<string> = new Set(['block.N.backingIndex'])

export default defineCheck({
  name: 'metrics-kvm',
  summary: 'Every number that libvirt has of the guests, and the CPU time and memory of the host; judges nothing.',
  description: `One libvirt call with all groups of statistics for any number of guests (virsh domstats), and three for the host. Its exit status is 0 unless the numbers cannot be had at
all. A guest whose QEMU does not answer has fewer numbers, and \`silent_time\` above 0; it holds up nothing.

Prints Graphite's format unless \`--format\` says otherwise: \`HOST.metrics_kvm.GUEST.NAME\`, and for devices \`HOST.metrics_kvm.GUEST.DEVICE.NAME\`, where the device is a disk's target (\`vda\`), \`net0\` for the first
interface (its name on the host changes with each start), \`vcpu0\` for the first vCPU. In guests' and devices' names every character but letters, digits, \`-\` and \`_\` becomes \`_x\` and its code: a
guest is the same series in every run. In InfluxDB's, OpenTSDB's and Prometheus's formats guest and device are tags or labels: \`guest\`, \`disk\`, \`interface\`, \`vcpu\`.

Sizes are bytes and times seconds; names end in \`_seconds\` and \`_bytes\` for what only grows. Prometheus's have \`metrics_kvm_\` in front and their unit, or \`_total\` for what only grows, behind.

| name | libvirt's | what it is |
| --- | --- | --- |
${Object.entries(fields)
  .map(([own, { name, help }]) => `| \`${name}\` | \`${own}\` | ${help} |`)
  .join('\n')}
| \`silent_time\` |  | How long QEMU has not answered, 0 when it does (s). |

Statistics that libvirt has besides (\`perf\`, \`iothread\`, \`memory\` bandwidth, \`dirtyrate\`, \`vm\`) keep libvirt's names, with \`_\` for every dot. Of the host:
\`host_cpu_user_seconds\`, \`host_cpu_system_seconds\`, \`host_cpu_idle_seconds\`, \`host_cpu_iowait_seconds\`, \`host_cpus\`, \`host_memory\`, \`host_memory_free\`, \`host_memory_buffers\`,
\`host_memory_cached\`, \`host_guests\`.

The output of a metric check is sent by a handler, for Graphite one of type \`tcp\` to port 2003 with the mutator \`only_check_output\`. Sensu keeps of such an output no more than
\`truncate_output_length\`, 255 characters, after handlers have seen it whole.`,
  guests: true,
  format: 'graphite',
  options: {},
  async collect(host: Host, _, context): Promise<KvmSample> {
    const { signal } = context
    context.stage('reading statistics')
    const [{ guests }, cpu, memory, node] = await Promise.all([
      host.domainStats({ groups, raw: true, signal }),
      unlessUnsupported(host.nodeCpuStats(undefined, { signal })),
      unlessUnsupported(host.nodeMemoryStats(undefined, { signal })),
      unlessUnsupported(host.nodeInfo({ signal })),
    ])
    return { guests: context.selectGuests(guests.map(numbersOf)), cpu, memory, node }
  },
  evaluate(sample): Outcome {
    const metrics = hostMetrics(sample).concat(guestMetrics(sample.guests))
    const number = `${sample.guests.length} ${sample.guests.length === 1 ? 'guest' : 'guests'}`
    return { summary: `${metrics.length} numbers of the host and ${number}`, findings: [], metrics }
  },
})

async function unlessUnsupported<T>(read: Promise<T>): Promise<T | undefined> {
  try {
    return await read
  } catch (error) {
    if (error instanceof LibvirtError && error.unsupported) return undefined
    throw error
  }
}

function numbersOf({ domain, raw, monitor }: DomainStats): GuestNumbers {
  const silent = monitor?.kind === 'not answering' ? monitor.forMs / 1000 : 0
  return { ...domain, params: raw ?? new Map(), silentSeconds: domain.id === undefined ? undefined : silent }
}

function hostMetrics({ guests, cpu, memory, node }: KvmSample): Metric[] {
  const seconds = (name: string, ns: number | undefined) => metric(counter(name, ''), ns && ns * nanosecond)
  const bytes = (name: string, value: number | undefined) => metric(gauge(name, '', 'B'), value)
  const all = [
    seconds('host_cpu_user_seconds', cpu?.userNs),
    seconds('host_cpu_system_seconds', cpu?.kernelNs),
    seconds('host_cpu_idle_seconds', cpu?.idleNs),
    seconds('host_cpu_iowait_seconds', cpu?.iowaitNs),
    metric(gauge('host_cpus', ''), node?.cpus),
    bytes('host_memory', memory?.totalBytes ?? node?.memoryBytes),
    bytes('host_memory_free', memory?.freeBytes),
    bytes('host_memory_buffers', memory?.buffersBytes),
    bytes('host_memory_cached', memory?.cachedBytes),
    metric(gauge('host_guests', ''), guests.length),
  ]
  return all.filter(({ value }) => value !== undefined)
}

function metric({ name, unit, help }: Field, value: number | bigint | undefined, labels?: Metric['labels']): Metric {
  return { name, value, unit, labels, help: help || undefined }
}

/** What one of libvirt's names stands for: the same for every guest. */
interface Meaning {
  readonly field: Field
  /** Which device of the guest it belongs to: `block.0`; undefined for the guest itself. */
  readonly device?: string | undefined
  /** Whether the guest's own driver tells it, which may say that it does not know. */
  readonly isBalloon: boolean
}

function guestMetrics(guests: readonly GuestNumbers[]): Metric[] {
  // What tells nothing is remembered, too.
  const meanings = new Map<string, Meaning | 'none'>()
  const meaningOf = (own: string) => {
    const known = meanings.get(own)
    if (known !== undefined) return known
    const meaning = readName(own) ?? 'none'
    meanings.set(own, meaning)
    return meaning
  }
  const metrics: Metric[] = []
  for (const guest of guests) addNumbers(metrics, guest, meaningOf)
  return metrics
}

function addNumbers(metrics: Metric[], guest: GuestNumbers, meaningOf: (own: string) => Meaning | 'none'): void {
  const labels = new Map<string | undefined, Metric['labels']>()
  for (const [own, value] of guest.params) {
    const meaning = meaningOf(own)
    const number = numberOf(value)
    if (meaning === 'none' || number === undefined || (meaning.isBalloon && number >= notSupplied)) continue
    const { field, device } = meaning
    let devices = labels.get(device)
    if (devices === undefined) {
      devices = labelsOf(guest, device)
      labels.set(device, devices)
    }
    metrics.push(metric(field, scaled(number, field.factor ?? 1), devices))
  }
  const silent = gauge('silent_time', 'How long QEMU has not answered.', 's')
  if (guest.silentSeconds !== undefined) metrics.push(metric(silent, guest.silentSeconds, { guest: guest.name }))
}

/** `block.0.rd.bytes` is a disk's `disk_read_bytes`; undefined for what is no number worth having. */
function readName(own: string): Meaning | undefined {
  const [, list, position, rest] = /^(vcpu|net|block)\.(\d+)\.(.+)$/.exec(own) ?? []
  const general = list === undefined ? own : `${list}.N.${rest}`
  if (leftOut.has(general)) return undefined
  const known = Object.hasOwn(fields, general) ? fields[general] : undefined
  const field = known ?? otherField(list === undefined ? own : `${list}.${rest}`)
  const device = list === undefined ? undefined : `${list}.${position}`
  return { field, device, isBalloon: own.startsWith('balloon.') }
}

/** What is in no table, under libvirt's name but in seconds and bytes; Prometheus keeps `_count` for itself. */
function otherField(own: string): Field {
  const name = own.replace(/\.count$/, 's').replaceAll(/[^A-Za-z0-9]+/g, '_')
  if (/_ns(?=_|$)/.test(name)) return gauge(name.replace(/_ns(?=_|$)/, '_seconds'), '', '', nanosecond)
  return gauge(name.replace('megabytes', 'bytes'), '', '', name.includes('megabytes') ? kib * kib : 1)
}

/** A name that stays the same when a guest is started anew: that of an interface on the host does not. */
function labelsOf({ name, params }: GuestNumbers, device: string | undefined): Metric['labels'] {
  if (device === undefined) return { guest: name }
  const [list, position] = device.split('.')
  if (list === 'block') return { guest: name, disk: String(params.get(`${device}.name`) ?? position) }
  return list === 'net' ? { guest: name, interface: `net${position}` } : { guest: name, vcpu: `vcpu${position}` }
}

function numberOf(value: ParamValue): number | bigint | undefined {
  if (typeof value === 'boolean') return value ? 1 : 0
  return typeof value === 'string' ? undefined : value
}

/** Exact as long as there is nothing to convert. */
function scaled(value: number | bigint, factor: number): number | bigint {
  return factor === 1 ? value : Number(value) * factor
}

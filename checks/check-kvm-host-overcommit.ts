import { LibvirtError } from '../libvirt/errors.js'
import { readGuestConfigs } from '../libvirt/guest-configs.js'
import type { Host } from '../libvirt/host.js'
import { parseHostCells } from '../libvirt/host-topology.js'
import type { Domain, DomainStats } from '../libvirt/records.js'
import { defineCheck } from '../plugin/check.js'
import type { OptionTable } from '../plugin/options.js'
import { Verdict } from '../plugin/outcome.js'
import type { Range } from '../plugin/range.js'
import { formatQuantity } from '../plugin/text.js'

/** What one guest was promised; undefined where libvirt does not tell. */
export interface GuestShare {
  readonly name: string
  /** Active: running or paused, so it holds its memory. */
  readonly running: boolean
  readonly vcpus?: number | undefined
  readonly maximumBytes?: number | undefined
  readonly currentBytes?: number | undefined
  /** Its memory comes from the huge pages that are set aside. */
  readonly hugepages: boolean
}

export interface OvercommitSample {
  /** Logical CPUs that are online. */
  readonly cpus: number
  readonly memoryBytes: number
  /** Set aside for huge pages: a part of the host's memory. */
  readonly hugepagesBytes: number
  /** Guests that run or start with the host. */
  readonly guests: readonly GuestShare[]
}

const options = {
  warning: { type: 'range', alias: 'w', default: '4', summary: 'Warn outside this range (vCPUs per CPU).' },
  critical: { type: 'range', alias: 'c', default: '8', summary: 'Critical outside this range (vCPUs per CPU).' },
  memoryWarning: {
    type: 'range',
    default: '90',
    summary: "Warn outside this range (memory of running guests, % of the host's).",
  },
  memoryCritical: {
    type: 'range',
    default: '100',
    summary: "Critical outside this range (memory of running guests, % of the host's).",
  },
  autostartWarning: {
    type: 'range',
    default: '90',
    summary: "Warn outside this range (memory of running and autostart guests, % of the host's).",
  },
  autostartCritical: {
    type: 'range',
    default: '100',
    summary: "Critical outside this range (memory of running and autostart guests, % of the host's).",
  },
  hugepagesWarning: {
    type: 'range',
    summary: 'Warn outside this range (memory of running and autostart guests on huge pages, % of those set aside).',
  },
  hugepagesCritical: {
    type: 'range',
    default: '100',
    summary: 'Critical outside this range (running and autostart guests on huge pages, % of those set aside).',
  },
  memory: {
    type: 'choice',
    choices: ['maximum', 'current'],
    default: 'maximum',
    summary: "What counts as a guest's memory: the most it may have, or what its balloon leaves it now.",
  },
} as const satisfies OptionTable

export default defineCheck({
  name: 'check-kvm-host-overcommit',
  summary: 'vCPUs and memory promised to guests, against what the hypervisor has.',
  description: `vCPUs are those that running (and paused) guests have now; CPUs are the host's online logical ones, so hyper-threads count.

Memory is what guests are promised, not what they use (check-kvm-host-memory judges that): of the running and paused ones, and of these together with those that start with the
host (autostart), which is what the host needs after its next start. By default each guest counts with its maximum memory, since it may get all of it back from its balloon at any
time; \`--memory current\` counts what it is allowed now. What QEMU needs for itself is not included.

Guests on huge pages (\`<memoryBacking><hugepages/>\`) are compared with the huge pages that are set aside, all others with the rest of the host's memory. On a host that
has set none aside, every guest counts with the others.

One bulk call, one for each list and for the host's CPUs and memory; on a host with huge pages also the XML of the guests that run or start with it.`,
  options,
  async collect(host: Host, _, { signal, stage }): Promise<OvercommitSample> {
    stage('reading what the host has and guests were promised')
    const [{ cpus, memoryBytes }, capabilities, { guests }, autostart] = await Promise.all([
      host.nodeInfo({ signal }),
      host.capabilities({ signal }),
      host.domainStats({ groups: ['state', 'vcpu', 'balloon'], signal }),
      host.domains({ autostart: true }, { signal }),
    ])
    if (cpus <= 0 || memoryBytes <= 0)
      throw new Error(`libvirt at ${host.uri} does not tell its host's CPUs and memory`)
    const hugepagesBytes = await hugepagesOf(capabilities)
    const starting = new Set(autostart.map(({ uuid }) => uuid))
    const counted = guests.filter(({ domain }) => domain.id !== undefined || starting.has(domain.uuid))
    stage("reading guests' XML")
    const domains = counted.map(({ domain }) => domain)
    const onHugepages = hugepagesBytes === 0 ? new Set() : await readOnHugepages(host, domains, signal)
    stage("reading guests' vCPUs and memory")
    const shares: GuestShare[] = []
    for (const stats of counted) {
      const { name, id, uuid } = stats.domain
      const promised = promisedIn(stats) ?? (await readPromised(host, stats.domain, signal))
      if (promised === 'gone') continue
      shares.push({ name, running: id !== undefined, hugepages: onHugepages.has(uuid), ...promised })
    }
    return { cpus, memoryBytes, hugepagesBytes, guests: shares }
  },
  evaluate({ cpus, memoryBytes, hugepagesBytes, guests }, asked) {
    const verdict = new Verdict()
    const sizeOf = (guest: GuestShare) => (asked.memory === 'maximum' ? guest.maximumBytes : guest.currentBytes)
    for (const guest of guests) {
      if (guest.vcpus !== undefined && sizeOf(guest) !== undefined) continue
      const message = 'libvirt does not tell its vCPUs and memory: it is not counted'
      verdict.add({ status: 'UNKNOWN', guest: guest.name, message })
    }
    const running = guests.filter(guest => guest.running)
    const vcpus = sum(running.map(guest => guest.vcpus))
    const [perCpu, note] = [vcpus / cpus, `with ${vcpus} of running guests on ${cpus} CPUs`]
    const { warning, critical } = asked
    verdict.judge({ what: 'vCPUs per CPU', name: 'vcpus_per_cpu', value: perCpu, note, min: 0, warning, critical })
    verdict.measure({ name: 'vcpus', value: vcpus, min: 0 }).measure({ name: 'cpus', value: cpus, min: 0 })

    const rest = {
      of: hugepagesBytes > 0 ? ' beside huge pages' : '',
      totalBytes: Math.max(0, memoryBytes - hugepagesBytes),
    }
    const bytesOf = (some: readonly GuestShare[], hugepages: boolean) =>
      sum(some.filter(guest => guest.hugepages === hugepages).map(sizeOf))
    const promised: Promised[] = [
      {
        whose: 'running guests',
        name: 'running_memory',
        bytes: bytesOf(running, false),
        ...rest,
        warning: asked.memoryWarning,
        critical: asked.memoryCritical,
      },
      {
        whose: 'running and autostart guests',
        name: 'autostart_memory',
        bytes: bytesOf(guests, false),
        ...rest,
        warning: asked.autostartWarning,
        critical: asked.autostartCritical,
      },
      {
        whose: 'running and autostart guests on huge pages',
        name: 'hugepages_memory',
        bytes: bytesOf(guests, true),
        of: ' set aside',
        totalBytes: hugepagesBytes,
        warning: asked.hugepagesWarning,
        critical: asked.hugepagesCritical,
      },
    ]
    for (const each of promised) if (each.totalBytes > 0) judgePromised(verdict, asked.memory, each)
    const [ofRunning, ofAll] = promised.map(({ bytes }) => formatQuantity(bytes, 'B'))
    const available = `${formatQuantity(rest.totalBytes, 'B')}${rest.of}`
    verdict.summary = `${formatQuantity(perCpu)} vCPUs per CPU ${note}; ${asked.memory} memory of running guests ${ofRunning}, with autostart guests ${ofAll}, of ${available}`
    return verdict
  },
})

/** Memory promised to some guests, and what there is for them. */
interface Promised {
  readonly whose: string
  readonly name: string
  readonly bytes: number
  readonly totalBytes: number
  /** What the total is, after its size. */
  readonly of: string
  readonly warning: Range | undefined
  readonly critical: Range | undefined
}

function judgePromised(verdict: Verdict, kind: string, promised: Promised): void {
  const { whose, name, bytes, totalBytes, of, warning, critical } = promised
  const percent = { name: `${name}_percent`, value: (bytes / totalBytes) * 100, unit: '%', min: 0 } as const
  const note = `of ${formatQuantity(totalBytes, 'B')}${of}`
  verdict.judge({ what: `${kind} memory of ${whose}`, ...percent, note, warning, critical })
  verdict.measure({ name, value: bytes, unit: 'B', min: 0 })
}

function sum(values: readonly (number | undefined)[]): number {
  return values.reduce<number>((total, value = 0) => total + value, 0)
}

/** What is set aside for pages larger than the ordinary ones, in all NUMA nodes. */
async function hugepagesOf(capabilities: string): Promise<number> {
  const cells = await parseHostCells(capabilities)
  const pages = cells.flatMap(({ pages: sizes }) => {
    const ordinaryBytes = Math.min(...sizes.map(({ sizeBytes }) => sizeBytes))
    return sizes.filter(({ sizeBytes }) => sizeBytes > ordinaryBytes)
  })
  return sum(pages.map(({ sizeBytes, count }) => sizeBytes * count))
}

async function readOnHugepages(host: Host, domains: readonly Domain[], signal: AbortSignal): Promise<Set<string>> {
  const configs = await readGuestConfigs(host, domains, { containing: '<hugepages', signal })
  return new Set([...configs].flatMap(([uuid, { hugepages }]) => (hugepages ? [uuid] : [])))
}

type Numbers = Pick<GuestShare, 'vcpus' | 'maximumBytes' | 'currentBytes'>

/** What the bulk call told; undefined for a driver that does not tell it there. */
function promisedIn({ currentVcpus: vcpus, balloon }: DomainStats): Numbers | undefined {
  if (vcpus === undefined || balloon?.maximumBytes === undefined) return undefined
  return { vcpus, maximumBytes: balloon.maximumBytes, currentBytes: balloon.balloonBytes }
}

/** The same from a call of its own; `gone` when the guest has vanished meanwhile. */
async function readPromised(host: Host, domain: Domain, signal: AbortSignal): Promise<Numbers | 'gone'> {
  try {
    const { vcpus, maxMemoryBytes, memoryBytes } = await host.domainInfo(domain, { signal })
    return { vcpus, maximumBytes: maxMemoryBytes, currentBytes: memoryBytes }
  } catch (error) {
    if (!(error instanceof LibvirtError)) throw error
    return error.notFound ? 'gone' : {}
  }
}

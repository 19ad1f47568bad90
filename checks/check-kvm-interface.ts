import type { InterfaceConfig } from '../libvirt/domain-xml.js'
import { readGuestConfigs, readGuestLimits } from '../libvirt/guest-configs.js'
import { isRunning, runOf } from '../libvirt/guest-run.js'
import type { Host } from '../libvirt/host.js'
import type { Domain, DomainStats, InterfaceStatsView } from '../libvirt/records.js'
import { isOnThisMachine } from '../libvirt/uri.js'
import { defineCheck } from '../plugin/check.js'
import { type Counters, type Growth, growthSince } from '../plugin/counters.js'
import { guestLimitsOption } from '../plugin/limits.js'
import { type NetworkPort, readNetworkPorts } from '../plugin/network-ports.js'
import type { OptionTable, OptionValues } from '../plugin/options.js'
import { Verdict } from '../plugin/outcome.js'
import type { Status } from '../plugin/status.js'
import { formatQuantity } from '../plugin/text.js'

/** One interface of a guest with a device on the host. */
export interface Interface {
  /** Its name on the host. */
  readonly name: string
  /** What was counted since the last run; absent when it is new or its counters began anew. */
  readonly growth?: Growth | undefined
}

/** One running guest and its interfaces. */
export interface GuestInterfaces extends Domain {
  readonly interfaces: readonly Interface[]
  /** As its XML describes them; only looked up when there may be something wrong. */
  readonly configured: readonly InterfaceConfig[]
  readonly limits?: Readonly<Record<string, string>> | undefined
}

export interface InterfaceSample {
  readonly guests: readonly GuestInterfaces[]
  /** The network devices of the hypervisor by name; undefined when it is another machine. */
  readonly ports?: ReadonlyMap<string, NetworkPort> | undefined
}

const statuses = { ok: 'OK', warning: 'WARNING', critical: 'CRITICAL' } as const satisfies Record<string, Status>
const choices = ['ok', 'warning', 'critical'] as const
const options = {
  warning: {
    type: 'range',
    alias: 'w',
    default: '0',
    summary: 'Warn outside this range (errors or drops per second).',
  },
  critical: { type: 'range', alias: 'c', default: '10', summary: 'Critical outside this range (errors or drops).' },
  linkDown: {
    type: 'choice',
    choices,
    default: 'warning',
    summary: 'What it is when the link of an interface is down.',
  },
  offBridge: {
    type: 'choice',
    choices,
    default: 'critical',
    summary: 'What it is when an interface is not on the bridge that its XML names.',
  },
  ...guestLimitsOption,
} as const satisfies OptionTable
type Options = OptionValues<typeof options>

export default defineCheck({
  name: 'check-kvm-interface',
  summary: "Errors and drops of the guests' network interfaces, links that are down, interfaces off their bridge.",
  description: `Errors and drops are counted by the host for the guest's device there (\`vnet0\`), received and sent as the guest sees it; each of the two is judged per second since the last run. The first run
of an interface only collects, as does one after its counters began anew (guest restarted or migrated). Packets dropped on the way to a guest mean that it does not take them as fast as they come.

A link is down when it was set so (\`virsh domif-setlink\`, \`<link state='down'/>\`), or when its device on the host is down.

An interface has lost its bridge when its device is a port of none, or of another one than its XML names: that happens when the bridge or the virtual network has been restarted under running guests.
The hypervisor's \`/sys/class/net\` tells, so it is known only when the check runs there, and in a container only with the host's network. Interfaces on virtual switches (Open vSwitch) are not compared.

Interfaces without a device on the host (user, hostdev, vhostuser) have no counters and no bridge, macvtap has counters but no bridge: only their link is looked at. Guests that do not run are not looked at.

One libvirt call for any number of guests, and the XML of each running one.`,
  guests: true,
  options,
  async collect(host: Host, { guestLimits }, context): Promise<InterfaceSample> {
    const { signal, stage } = context
    stage('reading interface statistics')
    const { takenAtMs, guests: all } = await host.domainStats({ groups: ['state', 'interface'], signal })
    const selected = context.selectGuests(all.map(stats => ({ ...stats.domain, stats })))
    const running = selected.filter(({ stats }) => isRunning(stats)).map(({ stats }) => stats)
    const growth = await growthSince(context.state, takenAtMs, countersOf(running))
    const local = isOnThisMachine(host.uri)
    stage('reading network devices of the host')
    const ports = local ? await readNetworkPorts(running.flatMap(namesOf), context.path('/sys')) : undefined
    stage("reading guests' XML")
    const domains = running.map(({ domain }) => domain)
    const names = new Map(running.map(stats => [stats.domain.uuid, namesOf(stats)]))
    const wanted = (xml: string, { uuid }: Domain) => isSuspicious(xml, names.get(uuid) ?? [], ports)
    const configs = await readGuestConfigs(host, domains, { wanted, signal })
    const limits = guestLimits ? await readGuestLimits(host, domains, 'check-kvm-interface', signal) : undefined
    return {
      ports,
      guests: domains.map(domain => ({
        ...domain,
        interfaces: (names.get(domain.uuid) ?? []).map(name => ({ name, growth: growth.get(keyOf(domain, name)) })),
        configured: configs.get(domain.uuid)?.interfaces ?? [],
        limits: limits?.get(domain.uuid),
      })),
    }
  },
  evaluate({ guests, ports }, asked) {
    const verdict = new Verdict()
    const rates: Rate[] = []
    for (const guest of guests) {
      const limits = verdict.limitsOf(asked, guest)
      for (const own of guest.interfaces) rates.push(...judgeRates(verdict, guest.name, own, limits))
      for (const own of guest.configured) judgePlace(verdict, guest.name, own, ports, asked)
      const down = guest.interfaces.filter(({ name }) => ports?.get(name)?.up === false && !isDown(guest, name))
      for (const { name } of down) {
        const message = `link down: ${name} is down on the host, ip link set ${name} up`
        verdict.add({ status: statuses[asked.linkDown], guest: guest.name, device: name, message })
      }
    }
    verdict.summary = summaryOf(guests, rates, ports)
    return verdict
  },
})

/** Names of the guest's devices on the host; interfaces that have none are left out. */
function namesOf({ interfaces }: DomainStats): string[] {
  return interfaces.flatMap(({ name }) => (name === '' ? [] : [name]))
}

/** An interface in one run of a guest: after a restart its counters begin anew. */
function keyOf(domain: Domain, name: string): string {
  return `${runOf(domain)} ${name}`
}

const counted = ['receivedErrors', 'sentErrors', 'receivedDrops', 'sentDrops'] as const

function countersOf(guests: readonly DomainStats[]): Map<string, Counters> {
  const all = guests.flatMap(({ domain, interfaces }) => interfaces.map(own => ({ domain, own })))
  return new Map(
    all.filter(({ own }) => own.name !== '').map(({ domain, own }) => [keyOf(domain, own.name), numbersOf(own)]),
  )
}

function numbersOf(own: InterfaceStatsView): Counters {
  return Object.fromEntries(counted.flatMap(name => (own[name] === undefined ? [] : [[name, own[name]]])))
}

/**
 * Whether a guest's XML is worth parsing, which takes longer than everything else here: it sets a link's state, or a device of the guest is not on a
 * bridge that the XML names.
 */
function isSuspicious(
  xml: string,
  names: readonly string[],
  ports: ReadonlyMap<string, NetworkPort> | undefined,
): boolean {
  if (xml.includes('<link state=')) return true
  return names.some(name => {
    const port = ports?.get(name)
    if (port?.master === 'ovs-system' && xml.includes("<virtualport type='openvswitch'")) return false
    return port !== undefined && (port.master === undefined || !xml.includes(`bridge='${port.master}'`))
  })
}

/** Errors or drops of an interface per second. */
interface Rate {
  readonly what: 'errors' | 'drops'
  readonly perSecond: number
  /** Guest and device. */
  readonly place: string
}

function judgeRates(verdict: Verdict, guest: string, { name: device, growth }: Interface, limits: Options): Rate[] {
  if (growth === undefined) return []
  const { grown, seconds } = growth
  const { warning, critical } = limits
  const kinds = [
    { what: 'errors', name: 'error_rate', received: grown['receivedErrors'], sent: grown['sentErrors'] },
    { what: 'drops', name: 'drop_rate', received: grown['receivedDrops'], sent: grown['sentDrops'] },
  ] as const
  return kinds.flatMap(({ what, name, received, sent }) => {
    const known = received !== undefined || sent !== undefined
    const perSecond = ((received ?? 0) + (sent ?? 0)) / seconds
    const note = `per second over ${formatQuantity(seconds, 's')}: ${received ?? 0} received, ${sent ?? 0} sent`
    const subject = { guest, device, deviceLabel: 'interface', what, name, note, min: 0 }
    verdict.judge({ ...subject, value: known ? perSecond : undefined, warning, critical })
    return known ? [{ what, perSecond, place: `${guest} ${device}` }] : []
  })
}

/** The link and the bridge of an interface, as its XML wants them. */
function judgePlace(
  verdict: Verdict,
  guest: string,
  { device, macAddress, linkUp, bridge }: InterfaceConfig,
  ports: InterfaceSample['ports'],
  asked: Options,
): void {
  const subject = { guest, device: device ?? macAddress ?? 'interface' }
  if (!linkUp) {
    const message = `link down: set so in its XML, virsh domif-setlink ${device ?? macAddress ?? ''} up changes that`
    verdict.add({ ...subject, status: statuses[asked.linkDown], message })
  }
  const port = device === undefined ? undefined : ports?.get(device)
  if (port === undefined || bridge === undefined || port.master === bridge) return
  const where = port.master === undefined ? 'on no bridge' : `on ${port.master}`
  const message = `${where} instead of ${bridge}: ip link set ${device} master ${bridge}`
  verdict.add({ ...subject, status: statuses[asked.offBridge], message })
}

/** Whether the XML itself says that the link is down: then that is what is told. */
function isDown({ configured }: GuestInterfaces, name: string): boolean {
  return configured.some(({ device, linkUp }) => device === name && !linkUp)
}

function summaryOf(
  guests: readonly GuestInterfaces[],
  rates: readonly Rate[],
  ports: InterfaceSample['ports'],
): string {
  const interfaces = guests.flatMap(guest => guest.interfaces)
  const [most] = rates.toSorted((one, other) => other.perSecond - one.perSecond)
  const number = `${interfaces.length} ${interfaces.length === 1 ? 'interface' : 'interfaces'} of running guests`
  const unseen = interfaces.filter(({ name }) => ports?.has(name) === false).length
  const collecting = interfaces.filter(({ growth }) => growth === undefined).length
  return [
    most === undefined
      ? number
      : most.perSecond === 0
        ? `no errors or drops on ${number}`
        : `most ${most.what} ${formatQuantity(most.perSecond)} per second (${most.place}), ${number}`,
    ...(ports === undefined && interfaces.length > 0 ? ['bridges are known on the hypervisor itself only'] : []),
    ...(unseen > 0 ? [`${unseen} not among the network devices here, so their bridges are not known`] : []),
    ...(collecting === 0
      ? []
      : [collecting < interfaces.length ? `collecting ${collecting} new` : 'collecting: known from the next run on']),
  ].join('; ')
}

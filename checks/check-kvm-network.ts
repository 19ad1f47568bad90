import { readdir, readFile } from 'node:fs/promises'
import { isIPv4 } from 'node:net'
import { join } from 'node:path'
import { LibvirtError } from '../libvirt/errors.js'
import type { Host } from '../libvirt/host.js'
import { type NetworkConfig, parseNetworkXml } from '../libvirt/network-xml.js'
import type { Network } from '../libvirt/records.js'
import { isOnThisMachine } from '../libvirt/uri.js'
import { defineCheck } from '../plugin/check.js'
import { absenceFindings, autostartOption, inactiveFinding, selectObjects } from '../plugin/objects.js'
import type { OptionTable, OptionValues } from '../plugin/options.js'
import { Verdict } from '../plugin/outcome.js'

/** IFF_UP in a device's flags: somebody has set it up, whether it has a carrier or not. */
const upFlag = 1
/** Networks whose bridge libvirt makes itself when it starts them. */
const withOwnBridge: readonly (string | undefined)[] = [undefined, 'nat', 'route', 'open']

/** A network device of the host that a network needs. */
export interface DeviceSample {
  readonly name: string
  /** What it is for the network. */
  readonly role: 'bridge' | 'device'
  readonly present: boolean
  /** Undefined when it is not known, or does not matter. */
  readonly up?: boolean | undefined
}

/** What is known of one network. */
export interface NetworkSample {
  readonly name: string
  /** Named by `--network`: somebody counts on it. */
  readonly named: boolean
  readonly autostart: boolean
  readonly active: boolean
  readonly forwardMode?: string | undefined
  /** Empty when devices are not looked at. */
  readonly devices: readonly DeviceSample[]
  /** Addresses given away by DHCP, and how many there are to give; undefined unless asked for. */
  readonly leases?: { readonly used: number; readonly addresses: number } | undefined
}

export interface NetworksSample {
  readonly uri: string
  readonly networks: readonly NetworkSample[]
  /** Named by `--network` and not there. */
  readonly missing: readonly string[]
}

const options = {
  network: { type: 'strings', summary: 'Look only at these networks, which must be there and active (repeatable).' },
  match: { type: 'regex', summary: 'Look only at networks whose name matches, besides those of --network.' },
  exclude: { type: 'regex', summary: 'Leave out networks whose name matches; wins over --network and --match.' },
  ...autostartOption,
  leasesWarning: { type: 'range', summary: 'Warn outside this range (DHCP leases, % of the addresses in its ranges).' },
  leasesCritical: { type: 'range', summary: 'Critical outside this range (DHCP leases, % of the addresses).' },
  netRoot: {
    type: 'string',
    default: '/sys/class/net',
    summary: "Where the host's network devices are, as a container may see them elsewhere.",
  },
  libvirtOnly: { type: 'flag', summary: 'Do not look at the network devices of this machine.' },
} as const satisfies OptionTable
type Options = OptionValues<typeof options>

export default defineCheck({
  name: 'check-kvm-network',
  summary: 'Virtual networks: inactive, their bridge missing or down, their DHCP addresses used up.',
  description: `CRITICAL: not active though it starts with the host (\`--autostart\`) or is named by \`--network\`; active, and its bridge, or the device that it leads out by, is not there or is down.

Devices are looked at in \`--net-root\` when libvirt is on this machine. Down means switched off (\`ip link set … down\`): a bridge without guests has no carrier, which is well. Bridges of
Open vSwitch are often down as devices, and work: only their absence counts.

DHCP leases, of IPv4 addresses that libvirt's own server gives away, are looked at only with \`--leases-…\`; a network without a range has none.

Three calls, one for each active network, and with \`--leases-…\` one more for each.`,
  options,
  async collect(host: Host, asked, { signal, stage, uri }): Promise<NetworksSample> {
    stage('listing networks')
    const [all, inactive, autostart] = await Promise.all([
      host.networks({}, { signal }),
      host.networks({ active: false }, { signal }),
      host.networks({ autostart: true }, { signal }),
    ])
    const [isInactive, isAutostart] = [inactive, autostart].map(some => new Set(some.map(({ uuid }) => uuid)))
    const { selected, missing } = selectObjects(all, { ...asked, names: asked.network })
    stage(`reading network devices in ${asked.netRoot}`)
    const present = asked.libvirtOnly || !isOnThisMachine(host.uri) ? undefined : await readDeviceNames(asked.netRoot)
    stage('reading networks')
    const networks: NetworkSample[] = []
    for (const network of selected) {
      const { name, uuid } = network
      const known = {
        name,
        named: asked.network.includes(name) || asked.network.includes(uuid),
        autostart: isAutostart?.has(uuid) === true,
        active: isInactive?.has(uuid) !== true,
      }
      if (!known.active) {
        networks.push({ ...known, devices: [] })
        continue
      }
      const config = await readConfig(host, network, signal)
      if (config === 'gone') continue
      networks.push({
        ...known,
        forwardMode: config.forwardMode,
        devices: present === undefined ? [] : await readDevices(config, present, asked.netRoot),
        leases: await readLeases(host, network, config, asked, signal),
      })
    }
    return { uri, missing, networks: networks.sort((one, other) => (one.name < other.name ? -1 : 1)) }
  },
  evaluate({ uri, networks, missing }, asked) {
    const verdict = new Verdict()
    for (const network of networks) judgeNetwork(verdict, network, asked)
    const { network: names, match } = asked
    for (const finding of absenceFindings('network', { selected: networks, missing }, { names, match }, uri)) {
      verdict.add(finding)
    }
    const active = networks.filter(network => network.active)
    const bridges = active.map(({ name, devices }) => [name, ...devices.map(device => device.name)].join(' on '))
    const inactive = networks.length - active.length
    verdict.summary = [
      networks.length === 0 ? `no networks on ${uri}` : `${active.length} active`,
      ...(inactive === 0 ? [] : [`${inactive} inactive`]),
      ...bridges,
    ].join('; ')
    return verdict
  },
})

async function readConfig(host: Host, network: Network, signal: AbortSignal): Promise<NetworkConfig | 'gone'> {
  try {
    return await parseNetworkXml(await host.networkXml(network, { signal }))
  } catch (error) {
    if (error instanceof LibvirtError && error.notFound) return 'gone'
    throw error
  }
}

/** Names of the host's network devices. */
async function readDeviceNames(root: string): Promise<ReadonlySet<string>> {
  try {
    return new Set(await readdir(root))
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error)
    throw new Error(`cannot see this machine's network devices: ${reason}: correct --net-root, or give --libvirt-only`)
  }
}

async function readDevices(config: NetworkConfig, present: ReadonlySet<string>, root: string): Promise<DeviceSample[]> {
  const { bridge, forwardDevices, openVswitch } = config
  const needed = [
    ...(bridge === undefined ? [] : [{ name: bridge, role: 'bridge' as const }]),
    ...forwardDevices.map(name => ({ name, role: 'device' as const })),
  ]
  return Promise.all(
    needed.map(async device => {
      if (!present.has(device.name)) return { ...device, present: false }
      const flags = openVswitch ? '' : await readFile(join(root, device.name, 'flags'), 'utf8').catch(() => '')
      const known = /^0x[0-9a-f]+\s*$/.test(flags)
      return { ...device, present: true, up: known ? (Number(flags) & upFlag) !== 0 : undefined }
    }),
  )
}

async function readLeases(
  host: Host,
  network: Network,
  { dhcpRanges }: NetworkConfig,
  { leasesWarning, leasesCritical }: Options,
  signal: AbortSignal,
): Promise<NetworkSample['leases']> {
  if (leasesWarning === undefined && leasesCritical === undefined) return undefined
  const ranges = dhcpRanges.flatMap(({ start, end }) => {
    return isIPv4(start) && isIPv4(end) ? [{ first: ipv4Number(start), last: ipv4Number(end) }] : []
  })
  if (ranges.length === 0) return undefined
  const leases = await host.networkDhcpLeases(network, { signal })
  const addresses = new Set(leases.map(({ address }) => address).filter(address => isIPv4(address)))
  const inRange = [...addresses].map(ipv4Number).filter(number => {
    return ranges.some(({ first, last }) => number >= first && number <= last)
  })
  return { used: inRange.length, addresses: ranges.reduce((total, { first, last }) => total + last - first + 1, 0) }
}

function ipv4Number(address: string): number {
  return address.split('.').reduce((number, part) => number * 256 + Number(part), 0)
}

function judgeNetwork(verdict: Verdict, network: NetworkSample, options: Options): void {
  const { name, active, devices, leases } = network
  verdict.measure({ name: 'active', labels: { network: name }, value: active ? 1 : 0, min: 0, max: 1 })
  if (!active) {
    verdict.add(inactiveFinding(network, options.autostart, 'virsh net-start'))
    return
  }
  const troubles = devices.flatMap(device => troubleOf(device, network))
  for (const message of troubles) verdict.add({ status: 'CRITICAL', device: name, message })
  if (troubles.length === 0) verdict.add({ status: 'OK', device: name, message: 'active' })
  if (leases === undefined) return
  const { leasesWarning: warning, leasesCritical: critical } = options
  const value = (leases.used / leases.addresses) * 100
  const percent = { name: 'leases_percent', value, unit: '%', min: 0, max: 100 } as const
  const note = `of ${leases.addresses} addresses`
  verdict.judge({ device: name, deviceLabel: 'network', what: 'DHCP leases', ...percent, note, warning, critical })
  verdict.measure({ name: 'leases', labels: { network: name }, value: leases.used, min: 0, max: leases.addresses })
}

function troubleOf({ name, role, present, up }: DeviceSample, { forwardMode }: NetworkSample): string[] {
  const own = role === 'bridge' && withOwnBridge.includes(forwardMode)
  if (!present) {
    const remedy = own ? 'virsh net-destroy and net-start make it anew' : 'set it up on this host'
    return [`active, but its ${role} ${name} is missing: ${remedy}`]
  }
  return up === false ? [`active, but its ${role} ${name} is down: ip link set ${name} up`] : []
}

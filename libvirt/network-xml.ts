import { attribute, child, children, parseXml } from './xml.js'

/** What checks need of a virtual network's XML. */
export interface NetworkConfig {
  /** How it leads out: `nat`, `route`, `open`, `bridge`, `private`, `vepa`, `passthrough`, `hostdev`; absent for an isolated network. */
  readonly forwardMode?: string | undefined
  /** Its bridge on the host; absent for networks without one. */
  readonly bridge?: string | undefined
  /** Devices of the host that it leads out by. */
  readonly forwardDevices: readonly string[]
  /** Open vSwitch, whose bridges are no bridges to the kernel. */
  readonly openVswitch: boolean
  /** IPv4 addresses that its DHCP server gives away. */
  readonly dhcpRanges: readonly { readonly start: string; readonly end: string }[]
}

/** Reads a virtual network's XML. Malformed XML: see `parseXml`. */
export async function parseNetworkXml(xml: string): Promise<NetworkConfig> {
  const network = await parseXml(xml, "a network's XML", 'network')
  const forward = child(network, 'forward')
  const interfaces = [...children(forward, 'interface'), ...children(forward, 'pf')].map(item => attribute(item, 'dev'))
  const devices = [attribute(forward, 'dev'), ...interfaces].filter(device => device !== undefined)
  const ranges = children(network, 'ip').flatMap(ip => children(child(ip, 'dhcp'), 'range'))
  return {
    // A <forward> without a mode is NAT.
    forwardMode: forward === undefined ? undefined : (attribute(forward, 'mode') ?? 'nat'),
    bridge: attribute(child(network, 'bridge'), 'name'),
    forwardDevices: [...new Set(devices)],
    openVswitch: attribute(child(network, 'virtualport'), 'type') === 'openvswitch',
    dhcpRanges: ranges.flatMap(range => {
      const [start, end] = [attribute(range, 'start'), attribute(range, 'end')]
      return start === undefined || end === undefined ? [] : [{ start, end }]
    }),
  }
}

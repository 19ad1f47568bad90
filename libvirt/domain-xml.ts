import { attribute, child, children, decodeEntities, type Element, maximumItems, parseXml, text } from './xml.js'

/** Images of a backing chain that are followed. */
const maximumChain = 200

export interface DiskConfig {
  /** Target name, e.g. `vda`. */
  target: string
  bus?: string
  device: 'disk' | 'cdrom' | 'floppy' | 'lun' | 'unknown'
  /** Kind of source: `file`, `block`, `volume`, `network`, … */
  sourceType: string
  /** Path, device, `pool/volume` or network name; absent for an empty drive. */
  source?: string
  /** Image format, e.g. `qcow2`. */
  format?: string
  cache?: string
  /** What QEMU does on a write error: `stop`, `report`, `ignore`, `enospace`. */
  errorPolicy?: string
  readErrorPolicy?: string
  readOnly: boolean
  /** Limits libvirt sets on the disk, by libvirt's names (`total_iops_sec`, …); empty when unlimited. */
  ioTune: Record<string, number>
  /** Sources of the images below, nearest first. */
  backingChain: string[]
}

export interface InterfaceConfig {
  /** `bridge`, `network`, `user`, `direct`, … */
  type: string
  macAddress?: string
  /** Bridge, virtual network or device it is attached to. */
  source?: string
  /** The Linux bridge it is to be on; only while running for one of a virtual network. Absent when it is on a virtual switch. */
  bridge?: string
  /** Name on the host, e.g. `vnet0`; only while running. */
  device?: string
  model?: string
  /** As configured; up unless set otherwise. */
  linkUp: boolean
}

/** What checks need of a guest's XML. */
export interface DomainConfig {
  name: string
  uuid?: string
  title?: string
  /** Vendor-specific limits from `<metadata><sensu-kvm:limits>`, see `readLimits`. */
  limits: Record<string, string>
  /** What happens when the guest crashes: `destroy`, `restart`, `preserve`, … */
  onCrash?: string
  disks: DiskConfig[]
  interfaces: InterfaceConfig[]
  /** The guest agent's channel; absent when the guest has none. `state` only while running. */
  agentChannel?: { state?: 'connected' | 'disconnected' }
  /** Memory balloon; absent when the guest has none. Without a period its statistics are not refreshed. */
  balloon?: { model: string; statsPeriodSeconds?: number }
  /** True when its memory, or a part of it, comes from the huge pages that the host has set aside. */
  hugepages: boolean
  /** True when the guest has a device that tells libvirt of a panic. */
  panicDevice: boolean
}

/**
 * Reads a guest's XML. Oversized or malformed XML is a LibvirtConnectionError `protocol`, see `parseXml`.
 */
export async function parseDomainXml(xml: string): Promise<DomainConfig> {
  return readDomain(await parseXml(xml, "a guest's XML", 'domain'))
}

function readDomain(domain: Element): DomainConfig {
  const devices = child(domain, 'devices') ?? {}
  const limits = child(child(domain, 'metadata'), 'sensu-kvm:limits')
  const agentChannel = readAgentChannel(devices)
  const balloon = readBalloon(child(devices, 'memballoon'))
  return {
    name: text(domain, 'name') ?? '',
    limits: limits === undefined ? {} : readLimits(limits),
    disks: children(devices, 'disk').map(readDisk),
    interfaces: children(devices, 'interface').map(readInterface),
    hugepages: child(child(domain, 'memoryBacking'), 'hugepages') !== undefined,
    panicDevice: children(devices, 'panic').length > 0,
    ...present({ uuid: text(domain, 'uuid'), title: text(domain, 'title'), onCrash: text(domain, 'on_crash') }),
    ...present({ agentChannel, balloon }),
  }
}

/**
 * The limits an administrator wrote into a guest: attributes of the element by their name, and those of elements inside
 * as `element.attribute`, e.g. `{ "check-kvm-memory.warning": "85" }`.
 */
function readLimits(limits: Element): Record<string, string> {
  const entries: [string, string][] = [...attributes(limits)]
  for (const key of Object.keys(limits)) {
    if (key.startsWith('@') || key.startsWith('#')) continue
    const name = key.replace(/^.*:/, '')
    for (const item of children(limits, key)) {
      for (const [attribute, value] of attributes(item)) entries.push([`${name}.${attribute}`, value])
    }
  }
  return Object.fromEntries(entries.slice(0, maximumItems))
}

function attributes(element: Element): [string, string][] {
  return Object.entries(element).flatMap(([key, value]): [string, string][] =>
    key.startsWith('@') && !key.startsWith('@xmlns') && typeof value === 'string'
      ? [[key.slice(1), decodeEntities(value)]]
      : [],
  )
}

const diskDevices: readonly string[] = ['disk', 'cdrom', 'floppy', 'lun'] satisfies DiskConfig['device'][]

function readDisk(disk: Element): DiskConfig {
  const driver = child(disk, 'driver')
  const target = child(disk, 'target')
  const device = attribute(disk, 'device') ?? 'disk'
  return {
    target: attribute(target, 'dev') ?? '',
    device: diskDevices.includes(device) ? (device as DiskConfig['device']) : 'unknown',
    sourceType: attribute(disk, 'type') ?? 'unknown',
    readOnly: 'readonly' in disk,
    ioTune: readIoTune(child(disk, 'iotune')),
    backingChain: readBackingChain(disk),
    ...present({
      bus: attribute(target, 'bus'),
      source: readSource(child(disk, 'source')),
      format: attribute(driver, 'type'),
      cache: attribute(driver, 'cache'),
      errorPolicy: attribute(driver, 'error_policy'),
      readErrorPolicy: attribute(driver, 'rerror_policy'),
    }),
  }
}

/** A source names its path in an attribute that depends on its type. */
function readSource(source: Element | undefined): string | undefined {
  const volume = attribute(source, 'volume')
  if (volume !== undefined) return `${attribute(source, 'pool') ?? '?'}/${volume}`
  for (const name of ['file', 'dev', 'name', 'dir', 'path']) {
    const value = attribute(source, name)
    if (value !== undefined) return value
  }
  return undefined
}

function readBackingChain(disk: Element): string[] {
  const chain: string[] = []
  let image = child(disk, 'backingStore')
  while (image !== undefined && chain.length < maximumChain) {
    const source = readSource(child(image, 'source'))
    if (source !== undefined) chain.push(source)
    image = child(image, 'backingStore')
  }
  return chain
}

function readIoTune(ioTune: Element | undefined): Record<string, number> {
  const limits: [string, number][] = []
  for (const name of Object.keys(ioTune ?? {})) {
    const value = Number(text(ioTune, name))
    if (Number.isFinite(value) && value > 0) limits.push([name, value])
  }
  return Object.fromEntries(limits)
}

function readInterface(device: Element): InterfaceConfig {
  const source = child(device, 'source')
  const bridge = attribute(source, 'bridge')
  return {
    type: attribute(device, 'type') ?? 'unknown',
    linkUp: attribute(child(device, 'link'), 'state') !== 'down',
    ...present({
      macAddress: attribute(child(device, 'mac'), 'address'),
      source: bridge ?? attribute(source, 'network') ?? attribute(source, 'dev'),
      bridge: child(device, 'virtualport') === undefined ? bridge : undefined,
      device: attribute(child(device, 'target'), 'dev'),
      model: attribute(child(device, 'model'), 'type'),
    }),
  }
}

function readAgentChannel(devices: Element): DomainConfig['agentChannel'] {
  for (const channel of children(devices, 'channel')) {
    const target = child(channel, 'target')
    if (attribute(target, 'name') !== 'org.qemu.guest_agent.0') continue
    const state = attribute(target, 'state')
    return state === 'connected' || state === 'disconnected' ? { state } : {}
  }
  return undefined
}

function readBalloon(balloon: Element | undefined): DomainConfig['balloon'] {
  const model = attribute(balloon, 'model')
  if (model === undefined || model === 'none') return undefined
  const period = Number(attribute(child(balloon, 'stats'), 'period') ?? 0)
  return Number.isFinite(period) && period > 0 ? { model, statsPeriodSeconds: period } : { model }
}

/** The fields that have a value. */
function present<T extends object>(fields: T): { [K in keyof T]?: NonNullable<T[K]> } {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined)) as {
    [K in keyof T]?: NonNullable<T[K]>
  }
}

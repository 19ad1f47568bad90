import * as decode from './decode.js'
import type {
  BlockStatsView,
  CpuStatsView,
  Domain,
  DomainStats,
  InterfaceStatsView,
  Params,
  ParamValue,
  StatsGroup,
  VcpuStats,
} from './records.js'
import { NameCache, type XdrReader } from './xdr.js'

/** Bits of virDomainStatsTypes. */
export const statsGroupBits: Readonly<Record<StatsGroup, number>> = {
  state: 1,
  cpu: 2,
  balloon: 4,
  vcpu: 8,
  interface: 16,
  block: 32,
  perf: 64,
  iothread: 128,
  memory: 256,
  dirtyrate: 512,
  vm: 1024,
}

/** Parameters one guest may have (protocol limit). */
const maximumParams = 262_144
/** Interfaces, disks or vCPUs of one guest that are put into the typed view; the rest stays in `names` and `values`. */
const maximumIndex = 4096
/** How long decoding may hold the event loop at a stretch. */
const sliceMs = 1
/** Guests decoded between two looks at the clock. */
const guestsPerLook = 4

type Assign = (stats: Building, value: ParamValue) => void

/** A parameter's name with what is to be done with its value: found out once per distinct name. */
interface Field {
  name: string
  assign: Assign | undefined
}

/** A DomainStats in the making. All fields from the start: objects of one shape are small and quick to fill. */
interface Building {
  domain: Domain
  stateCode: number | undefined
  reasonCode: number | undefined
  cpu: CpuStatsView | undefined
  balloon: DomainStats['balloon']
  currentVcpus: number | undefined
  maximumVcpus: number | undefined
  vcpus: VcpuStats[]
  interfaces: InterfaceStatsView[]
  blocks: BlockStatsView[]
  raw: Params | undefined
}

/**
 * Decodes replies of the bulk statistics call. Keep one for a connection's life: it remembers the parameters' names.
 */
export class DomainStatsDecoder {
  readonly #fields = new NameCache<Field>(name => ({ name, assign: assignment(name) }), 16_384)

  /**
   * Decodes a whole reply, letting the event loop run in between (at most about 1 ms at a stretch, garbage collection aside). `raw` keeps every
   * parameter by its own name too.
   */
  async decode(reader: XdrReader, raw = false): Promise<DomainStats[]> {
    const guests: DomainStats[] = []
    const count = reader.count(decode.maximumListItems, decode.minimumDomainBytes + 4)
    let sliceEnd = performance.now() + sliceMs
    for (let index = 0; index < count; index += 1) {
      guests.push(this.#readGuest(reader, raw))
      if (index % guestsPerLook === guestsPerLook - 1 && performance.now() >= sliceEnd) {
        await new Promise(resolve => setImmediate(resolve))
        sliceEnd = performance.now() + sliceMs
      }
    }
    reader.finish()
    return guests
  }

  #readGuest(reader: XdrReader, raw: boolean): DomainStats {
    const building: Building = {
      domain: decode.readDomain(reader),
      stateCode: undefined,
      reasonCode: undefined,
      cpu: undefined,
      balloon: undefined,
      currentVcpus: undefined,
      maximumVcpus: undefined,
      vcpus: [],
      interfaces: [],
      blocks: [],
      raw: raw ? new Map() : undefined,
    }
    const count = reader.count(maximumParams, decode.minimumParamBytes)
    for (let index = 0; index < count; index += 1) {
      const field = reader.cached(this.#fields)
      const value = decode.readParamValue(reader)
      building.raw?.set(field.name, value)
      field.assign?.(building, value)
    }
    return finishGuest(building)
  }
}

function finishGuest(building: Building): DomainStats {
  const { stateCode, cpu, balloon, currentVcpus, maximumVcpus, raw } = building
  const stats: DomainStats = {
    domain: building.domain,
    vcpus: compact(building.vcpus),
    interfaces: compact(building.interfaces),
    blocks: compact(building.blocks),
  }
  if (stateCode !== undefined) stats.state = decode.domainState(stateCode, building.reasonCode ?? 0)
  if (cpu !== undefined) stats.cpu = cpu
  if (balloon !== undefined) stats.balloon = balloon
  if (currentVcpus !== undefined) stats.currentVcpus = currentVcpus
  if (maximumVcpus !== undefined) stats.maximumVcpus = maximumVcpus
  if (raw !== undefined) stats.raw = raw
  return stats
}

/** Leaves out places that were never filled (offline vCPUs are sent with gaps). */
function compact<T>(items: (T | undefined)[]): T[] {
  return items.includes(undefined) ? items.filter(item => item !== undefined) : (items as T[])
}

/** A numeric value as a number (rounded beyond 2^53). */
function numeric(value: ParamValue): number | undefined {
  if (typeof value === 'number') return value
  return typeof value === 'bigint' ? Number(value) : undefined
}

const kib = 1024

const cpuFields: Readonly<Record<string, keyof CpuStatsView>> = {
  'cpu.time': 'timeNs',
  'cpu.user': 'userNs',
  'cpu.system': 'systemNs',
  'cpu.haltpoll.success.time': 'haltpollSuccessNs',
  'cpu.haltpoll.fail.time': 'haltpollFailNs',
}

type BalloonField = keyof NonNullable<DomainStats['balloon']>

/** Sizes are sent in KiB. */
const balloonFields: Readonly<Record<string, readonly [BalloonField, number]>> = {
  'balloon.current': ['balloonBytes', kib],
  'balloon.maximum': ['maximumBytes', kib],
  'balloon.swap_in': ['swapInBytes', kib],
  'balloon.swap_out': ['swapOutBytes', kib],
  'balloon.major_fault': ['majorFaults', 1],
  'balloon.minor_fault': ['minorFaults', 1],
  'balloon.unused': ['unusedBytes', kib],
  'balloon.available': ['availableBytes', kib],
  'balloon.usable': ['usableBytes', kib],
  'balloon.last-update': ['lastUpdateSeconds', 1],
  'balloon.disk_caches': ['diskCachesBytes', kib],
  'balloon.hugetlb_pgalloc': ['hugepageAllocations', 1],
  'balloon.hugetlb_pgfail': ['hugepageFailures', 1],
  'balloon.rss': ['rssBytes', kib],
}

const vcpuFields: Readonly<Record<string, 'timeNs' | 'waitNs' | 'delayNs'>> = {
  time: 'timeNs',
  wait: 'waitNs',
  delay: 'delayNs',
}

type NumericKeys<T> = { [K in keyof T]-?: NonNullable<T[K]> extends number ? K : never }[keyof T]

const interfaceFields: Readonly<Record<string, NumericKeys<InterfaceStatsView>>> = {
  'rx.bytes': 'receivedBytes',
  'rx.pkts': 'receivedPackets',
  'rx.errs': 'receivedErrors',
  'rx.drop': 'receivedDrops',
  'tx.bytes': 'sentBytes',
  'tx.pkts': 'sentPackets',
  'tx.errs': 'sentErrors',
  'tx.drop': 'sentDrops',
}

const blockFields: Readonly<Record<string, NumericKeys<BlockStatsView>>> = {
  backingIndex: 'backingIndex',
  'rd.reqs': 'readOps',
  'rd.bytes': 'readBytes',
  'rd.times': 'readTimeNs',
  'wr.reqs': 'writeOps',
  'wr.bytes': 'writeBytes',
  'wr.times': 'writeTimeNs',
  'fl.reqs': 'flushOps',
  'fl.times': 'flushTimeNs',
  errors: 'errors',
  allocation: 'allocationBytes',
  capacity: 'capacityBytes',
  physical: 'physicalBytes',
  threshold: 'thresholdBytes',
}

/** A table's own entry: a name like `constructor` has none. */
function own<T>(table: Readonly<Record<string, T>>, name: string): T | undefined {
  return Object.hasOwn(table, name) ? table[name] : undefined
}

/** What a parameter of that name does to the typed view; undefined when the view has no place for it. */
function assignment(name: string): Assign | undefined {
  if (name === 'state.state')
    return (stats, value) => {
      stats.stateCode = numeric(value)
    }
  if (name === 'state.reason')
    return (stats, value) => {
      stats.reasonCode = numeric(value)
    }
  if (name === 'vcpu.current') return (stats, value) => setNumber(stats, 'currentVcpus', numeric(value))
  if (name === 'vcpu.maximum') return (stats, value) => setNumber(stats, 'maximumVcpus', numeric(value))
  const cpu = own(cpuFields, name)
  if (cpu !== undefined) return cpuAssignment(cpu)
  const balloon = own(balloonFields, name)
  if (balloon !== undefined) return balloonAssignment(...balloon)
  return indexedAssignment(name)
}

function cpuAssignment(field: keyof CpuStatsView): Assign {
  return (stats, value) => {
    stats.cpu ??= newCpu()
    const number = numeric(value)
    if (number !== undefined) stats.cpu[field] = number
  }
}

function balloonAssignment(field: BalloonField, factor: number): Assign {
  return (stats, value) => {
    stats.balloon ??= newBalloon()
    const number = numeric(value)
    if (number !== undefined) stats.balloon[field] = number * factor
  }
}

/** `vcpu.3.time`, `net.0.rx.bytes`, `block.1.wr.reqs`: a group, a place in it, a field. */
function indexedAssignment(name: string): Assign | undefined {
  const match = /^(vcpu|net|block)\.(\d{1,4})\.(.+)$/.exec(name)
  if (match === null) return undefined
  const [, group, digits, field = ''] = match
  const index = Number(digits)
  if (index >= maximumIndex) return undefined
  if (group === 'vcpu') return vcpuAssignment(index, field)
  return group === 'net' ? interfaceAssignment(index, field) : blockAssignment(index, field)
}

function vcpuAssignment(index: number, field: string): Assign | undefined {
  if (field === 'state') {
    return (stats, value) => {
      place(stats.vcpus, index, newVcpu).state = decode.vcpuState(numeric(value) ?? -1)
    }
  }
  if (field === 'halted') {
    return (stats, value) => {
      place(stats.vcpus, index, newVcpu).halted = value === true
    }
  }
  const key = own(vcpuFields, field)
  return key === undefined
    ? undefined
    : (stats, value) => setNumber(place(stats.vcpus, index, newVcpu), key, numeric(value))
}

function interfaceAssignment(index: number, field: string): Assign | undefined {
  if (field === 'name') {
    return (stats, value) => {
      place(stats.interfaces, index, newInterface).name = String(value)
    }
  }
  const key = own(interfaceFields, field)
  return key === undefined
    ? undefined
    : (stats, value) => setNumber(place(stats.interfaces, index, newInterface), key, numeric(value))
}

function blockAssignment(index: number, field: string): Assign | undefined {
  if (field === 'name')
    return (stats, value) => {
      place(stats.blocks, index, newBlock).name = String(value)
    }
  if (field === 'path')
    return (stats, value) => {
      place(stats.blocks, index, newBlock).path = String(value)
    }
  const key = own(blockFields, field)
  return key === undefined
    ? undefined
    : (stats, value) => setNumber(place(stats.blocks, index, newBlock), key, numeric(value))
}

function setNumber<Key extends string>(
  target: { [K in Key]?: number | undefined },
  key: Key,
  value: number | undefined,
): void {
  if (value !== undefined) target[key] = value
}

function newCpu(): CpuStatsView {
  return {
    timeNs: undefined,
    userNs: undefined,
    systemNs: undefined,
    haltpollSuccessNs: undefined,
    haltpollFailNs: undefined,
  }
}

function newBalloon(): NonNullable<DomainStats['balloon']> {
  return {
    balloonBytes: undefined,
    maximumBytes: undefined,
    swapInBytes: undefined,
    swapOutBytes: undefined,
    majorFaults: undefined,
    minorFaults: undefined,
    unusedBytes: undefined,
    availableBytes: undefined,
    usableBytes: undefined,
    lastUpdateSeconds: undefined,
    diskCachesBytes: undefined,
    hugepageAllocations: undefined,
    hugepageFailures: undefined,
    rssBytes: undefined,
  }
}

function newVcpu(number: number): VcpuStats {
  return { number, state: 'unknown', timeNs: undefined, waitNs: undefined, delayNs: undefined, halted: undefined }
}

function newInterface(): InterfaceStatsView {
  return {
    name: '',
    receivedBytes: undefined,
    receivedPackets: undefined,
    receivedErrors: undefined,
    receivedDrops: undefined,
    sentBytes: undefined,
    sentPackets: undefined,
    sentErrors: undefined,
    sentDrops: undefined,
  }
}

function newBlock(): BlockStatsView {
  return {
    name: '',
    path: undefined,
    backingIndex: undefined,
    readOps: undefined,
    readBytes: undefined,
    readTimeNs: undefined,
    writeOps: undefined,
    writeBytes: undefined,
    writeTimeNs: undefined,
    flushOps: undefined,
    flushTimeNs: undefined,
    errors: undefined,
    allocationBytes: undefined,
    capacityBytes: undefined,
    physicalBytes: undefined,
    thresholdBytes: undefined,
  }
}

/** The item at a place, made when missing; skipped places hold undefined. */
function place<T>(items: (T | undefined)[], index: number, make: (index: number) => T): T {
  const present = items[index]
  if (present !== undefined) return present
  while (items.length < index) items.push(undefined)
  const made = make(index)
  items[index] = made
  return made
}

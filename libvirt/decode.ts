import type { ErrorDetail } from './errors.js'
import type {
  Domain,
  DomainReason,
  DomainState,
  DomainStateName,
  JobInfo,
  JobOperation,
  JobType,
  MemoryStats,
  Network,
  Params,
  ParamValue,
  Snapshot,
  StoragePool,
  Vcpu,
  Volume,
} from './records.js'
import type { XdrReader, XdrWriter } from './xdr.js'

/** Elements a list of guests, snapshots, pools, volumes or networks may hold (protocol limit). */
export const maximumListItems = 16_384

/** Smallest encoded size of a domain: empty name, UUID, id. */
export const minimumDomainBytes = 24

export function readDomain(reader: XdrReader): Domain {
  const name = reader.string()
  const uuid = reader.uuid()
  const id = reader.i32()
  return id < 0 ? { name, uuid } : { name, uuid, id }
}

export function writeDomain(writer: XdrWriter, domain: Domain): void {
  writer
    .string(domain.name)
    .uuid(domain.uuid)
    .i32(domain.id ?? -1)
}

/** A pool or a network: name and UUID. */
export function readNamed(reader: XdrReader): StoragePool & Network {
  return { name: reader.string(), uuid: reader.uuid() }
}

export function writeNamed(writer: XdrWriter, item: { name: string; uuid: string }): void {
  writer.string(item.name).uuid(item.uuid)
}

export function readVolume(reader: XdrReader): Volume {
  return { pool: reader.string(), name: reader.string(), key: reader.string() }
}

export function writeVolume(writer: XdrWriter, volume: Volume): void {
  writer.string(volume.pool).string(volume.name).string(volume.key)
}

export function readSnapshot(reader: XdrReader): Snapshot {
  return { name: reader.string(), domain: readDomain(reader) }
}

export function writeSnapshot(writer: XdrWriter, snapshot: Snapshot): void {
  writer.string(snapshot.name)
  writeDomain(writer, snapshot.domain)
}

/** A typed parameter's type tag and value. */
export function readParamValue(reader: XdrReader): ParamValue {
  const type = reader.i32()
  switch (type) {
    case 1:
      return reader.i32()
    case 2:
      return reader.u32()
    case 3:
      return reader.i64Exact()
    case 4:
      return reader.u64Exact()
    case 5:
      return reader.f64()
    case 6:
      return reader.bool()
    case 7:
      return reader.string()
    default:
      throw reader.malformed(`typed parameter of unknown type ${type}`)
  }
}

/** Smallest encoded typed parameter: empty name, type, 4 bytes of value. */
export const minimumParamBytes = 12

export function readParams(reader: XdrReader, maximum: number): Params {
  const params: Params = new Map()
  const count = reader.count(maximum, minimumParamBytes)
  for (let index = 0; index < count; index += 1) {
    const name = reader.string()
    params.set(name, readParamValue(reader))
  }
  return params
}

/** Fields with an unsigned 64-bit value each (node statistics). */
export function readCounters(reader: XdrReader): Map<string, number> {
  const counters = new Map<string, number>()
  const count = reader.count(1024, minimumParamBytes)
  for (let index = 0; index < count; index += 1) {
    const name = reader.string()
    counters.set(name, reader.u64())
  }
  return counters
}

/** A number parameter as a number (rounded beyond 2^53), or undefined when absent or not numeric. */
export function paramNumber(params: ReadonlyMap<string, ParamValue>, name: string): number | undefined {
  const value = params.get(name)
  if (typeof value === 'number') return value
  return typeof value === 'bigint' ? Number(value) : undefined
}

/** The payload of an error reply. */
export function readError(reader: XdrReader): ErrorDetail {
  const code = reader.i32()
  const domain = reader.i32()
  const text = reader.optionalString() ?? '(no message)'
  const level = reader.i32()
  const guest = reader.bool() ? readDomain(reader).name : undefined
  const str1 = reader.optionalString()
  const str2 = reader.optionalString()
  const str3 = reader.optionalString()
  const int1 = reader.i32()
  const int2 = reader.i32()
  if (reader.bool()) readNamed(reader)
  return {
    code,
    domain,
    level,
    text,
    int1,
    int2,
    ...(guest === undefined ? {} : { guest }),
    ...(str1 === undefined ? {} : { str1 }),
    ...(str2 === undefined ? {} : { str2 }),
    ...(str3 === undefined ? {} : { str3 }),
  }
}

const stateNames: readonly DomainStateName[] = [
  'no state',
  'running',
  'blocked',
  'paused',
  'shutting down',
  'shut off',
  'crashed',
  'suspended',
]

const reasonNames: readonly (readonly DomainReason[])[] = [
  ['unknown'],
  [
    'unknown',
    'booted',
    'migrated',
    'restored',
    'from snapshot',
    'unpaused',
    'migration canceled',
    'save canceled',
    'event wakeup',
    'crashed',
    'post-copy',
    'post-copy failed',
  ],
  ['unknown'],
  [
    'unknown',
    'user',
    'migrating',
    'saving',
    'dumping',
    'I/O error',
    'watchdog',
    'from snapshot',
    'shutting down',
    'creating snapshot',
    'crashed',
    'starting up',
    'post-copy',
    'post-copy failed',
  ],
  ['unknown', 'user'],
  ['unknown', 'shutdown', 'destroyed', 'crashed', 'migrated', 'saved', 'failed', 'from snapshot', 'daemon'],
  ['unknown', 'panicked'],
  ['unknown'],
]

/** virDomainState by name; a state newer than this client is `unknown`. */
export function stateName(stateCode: number): DomainStateName {
  return stateNames[stateCode] ?? 'unknown'
}

/** State and reason by name, as `virsh domstate --reason` words them. */
export function domainState(stateCode: number, reasonCode: number): DomainState {
  const reason = reasonNames[stateCode]?.[reasonCode] ?? 'unknown'
  return { state: stateName(stateCode), reason, stateCode, reasonCode }
}

const vcpuStates: readonly Vcpu['state'][] = ['offline', 'running', 'blocked']

export function vcpuState(code: number): Vcpu['state'] {
  return vcpuStates[code] ?? 'unknown'
}

/** How a memory statistic is named in the reply to DOMAIN_MEMORY_STATS, by tag; sizes are sent in KiB. */
const memoryTags: readonly { field: keyof MemoryStats; bytesPerUnit: number }[] = [
  { field: 'swapInBytes', bytesPerUnit: 1024 },
  { field: 'swapOutBytes', bytesPerUnit: 1024 },
  { field: 'majorFaults', bytesPerUnit: 1 },
  { field: 'minorFaults', bytesPerUnit: 1 },
  { field: 'unusedBytes', bytesPerUnit: 1024 },
  { field: 'availableBytes', bytesPerUnit: 1024 },
  { field: 'balloonBytes', bytesPerUnit: 1024 },
  { field: 'rssBytes', bytesPerUnit: 1024 },
  { field: 'usableBytes', bytesPerUnit: 1024 },
  { field: 'lastUpdateSeconds', bytesPerUnit: 1 },
  { field: 'diskCachesBytes', bytesPerUnit: 1024 },
  { field: 'hugepageAllocations', bytesPerUnit: 1 },
  { field: 'hugepageFailures', bytesPerUnit: 1 },
]

export function readMemoryStats(reader: XdrReader): MemoryStats {
  const stats: MemoryStats = {}
  const count = reader.count(1024, 12)
  for (let index = 0; index < count; index += 1) {
    const tag = memoryTags[reader.i32()]
    const value = reader.u64()
    if (tag !== undefined) stats[tag.field] = value * tag.bytesPerUnit
  }
  return stats
}

const jobTypes: readonly JobType[] = ['none', 'bounded', 'unbounded', 'completed', 'failed', 'cancelled']
const jobOperations: readonly JobOperation[] = [
  'unknown',
  'start',
  'save',
  'restore',
  'incoming migration',
  'outgoing migration',
  'snapshot',
  'snapshot revert',
  'dump',
  'backup',
  'snapshot delete',
]

export function jobType(code: number): JobType {
  return jobTypes[code] ?? 'unknown'
}

const jobFields: readonly (readonly [keyof JobInfo, string])[] = [
  ['elapsedMs', 'time_elapsed'],
  ['remainingMs', 'time_remaining'],
  ['dataTotalBytes', 'data_total'],
  ['dataProcessedBytes', 'data_processed'],
  ['dataRemainingBytes', 'data_remaining'],
  ['memoryTotalBytes', 'memory_total'],
  ['memoryProcessedBytes', 'memory_processed'],
  ['memoryRemainingBytes', 'memory_remaining'],
  ['diskTotalBytes', 'disk_total'],
  ['diskProcessedBytes', 'disk_processed'],
  ['diskRemainingBytes', 'disk_remaining'],
]

/** A job from its typed parameters (DOMAIN_GET_JOB_STATS and the job-completed event). */
export function jobFromParams(type: JobType, params: Params): JobInfo {
  const job: JobInfo = { type, params }
  const operation = paramNumber(params, 'operation')
  if (operation !== undefined) job.operation = jobOperations[operation] ?? 'unknown'
  for (const [field, name] of jobFields) {
    const value = paramNumber(params, name)
    if (value !== undefined) Object.assign(job, { [field]: value })
  }
  return job
}

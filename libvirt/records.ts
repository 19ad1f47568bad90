/**
 * Results of libvirt calls as plain values. Memory is in bytes and time in nanoseconds unless a name says otherwise.
 *
 * Counters are JavaScript numbers: exact up to 2^53 (104 days of CPU nanoseconds, 9 PB), beyond that rounded to the
 * nearest double, an error below 1 in 10^15. `ParamValue` alone keeps larger integers exact, as bigint.
 */

/** A typed parameter's value: a number when it is a safe integer or a double, a bigint otherwise. */
export type ParamValue = number | bigint | string | boolean
export type Params = Map<string, ParamValue>

/** A guest. A plain value without a handle: `uuid` identifies it, `id` (only while running) may be stale. */
export interface Domain {
  name: string
  /** Lower case with dashes. */
  uuid: string
  id?: number
}

export interface NodeInfo {
  /** CPU model, e.g. `x86_64`. */
  model: string
  memoryBytes: number
  cpus: number
  mhz: number
  numaNodes: number
  socketsPerNode: number
  coresPerSocket: number
  threadsPerCore: number
}

/** CPU time of the host since boot, in nanoseconds; a field is absent where the host does not report it. */
export interface NodeCpuStats {
  kernelNs?: number
  userNs?: number
  idleNs?: number
  iowaitNs?: number
  interruptNs?: number
  /** Some drivers report only this, in percent. */
  utilizationPercent?: number
}

export interface NodeMemoryStats {
  totalBytes?: number
  freeBytes?: number
  /** Absent for a single NUMA cell. */
  buffersBytes?: number
  /** Absent for a single NUMA cell. */
  cachedBytes?: number
}

/** Free pages of one size in one NUMA cell. */
export interface FreePages {
  cell: number
  pageSizeBytes: number
  freePages: number
}

export type DomainStateName =
  | 'no state'
  | 'running'
  | 'blocked'
  | 'paused'
  | 'shutting down'
  | 'shut off'
  | 'crashed'
  | 'suspended'
  | 'unknown'

/** Why a guest is in its state. The sets overlap between states, as libvirt's do. */
export type DomainReason =
  | 'unknown'
  | 'booted'
  | 'migrated'
  | 'restored'
  | 'from snapshot'
  | 'unpaused'
  | 'migration canceled'
  | 'save canceled'
  | 'event wakeup'
  | 'crashed'
  | 'post-copy'
  | 'post-copy failed'
  | 'user'
  | 'migrating'
  | 'saving'
  | 'dumping'
  | 'I/O error'
  | 'watchdog'
  | 'shutting down'
  | 'creating snapshot'
  | 'starting up'
  | 'shutdown'
  | 'destroyed'
  | 'saved'
  | 'failed'
  | 'daemon'
  | 'panicked'

export interface DomainState {
  state: DomainStateName
  reason: DomainReason
  /** virDomainState, for states newer than this client. */
  stateCode: number
  reasonCode: number
}

export interface DomainInfo {
  state: DomainStateName
  maxMemoryBytes: number
  memoryBytes: number
  vcpus: number
  cpuTimeNs: number
}

export interface Vcpu {
  number: number
  state: 'offline' | 'running' | 'blocked' | 'unknown'
  cpuTimeNs: number
  /** Host CPU it runs on; absent when unknown. */
  hostCpu?: number
}

export interface DomainCpuStats {
  /** -1 is the guest's total. */
  cpu: number
  cpuTimeNs?: number
  userTimeNs?: number
  systemTimeNs?: number
  /** Time of the vCPUs alone, without emulator threads (per-CPU only). */
  vcpuTimeNs?: number
}

/** What the balloon driver inside and the host know of a guest's memory. Every field is absent when not reported. */
export interface MemoryStats {
  swapInBytes?: number
  swapOutBytes?: number
  majorFaults?: number
  minorFaults?: number
  /** Left wholly unused by the guest. */
  unusedBytes?: number
  /** What the guest sees as its memory. */
  availableBytes?: number
  /** The balloon's present size: what the guest has been given. */
  balloonBytes?: number
  /** Resident memory of the QEMU process on the host. */
  rssBytes?: number
  /** Free without swapping: like MemAvailable inside the guest. */
  usableBytes?: number
  /** When the guest last reported (seconds since 1970). */
  lastUpdateSeconds?: number
  diskCachesBytes?: number
  hugepageAllocations?: number
  hugepageFailures?: number
}

export interface BlockStats {
  readOps?: number
  readBytes?: number
  readTimeNs?: number
  writeOps?: number
  writeBytes?: number
  writeTimeNs?: number
  flushOps?: number
  flushTimeNs?: number
  errors?: number
}

export interface BlockInfo {
  /** Size the guest sees. */
  capacityBytes: number
  /** Highest used offset or space used on the host. */
  allocationBytes: number
  /** Size of the container (file or device). */
  physicalBytes: number
}

export interface DiskError {
  /** Target name, e.g. `vda`. */
  disk: string
  error: 'none' | 'unspecified' | 'no space' | 'unknown'
  errorCode: number
}

/** Counters of a guest's interface, seen from the guest; absent where the host cannot count them. */
export interface InterfaceStats {
  receivedBytes?: number
  receivedPackets?: number
  receivedErrors?: number
  receivedDrops?: number
  sentBytes?: number
  sentPackets?: number
  sentErrors?: number
  sentDrops?: number
}

/** State of libvirt's channel to the QEMU process (virsh domcontrol). Answered without asking QEMU. */
export interface ControlInfo {
  state: 'ok' | 'job' | 'occupied' | 'error' | 'unknown'
  /** Why, when the state is `error`. */
  errorReason: 'none' | 'unknown' | 'monitor' | 'internal'
  /** How long libvirt has been waiting for QEMU (state `occupied`). */
  stateTimeMs: number
}

export interface Snapshot {
  name: string
  domain: Domain
}

export interface StoragePool {
  name: string
  uuid: string
}

export interface StoragePoolInfo {
  state: 'inactive' | 'building' | 'running' | 'degraded' | 'inaccessible' | 'unknown'
  capacityBytes: number
  allocationBytes: number
  availableBytes: number
}

export interface Volume {
  pool: string
  name: string
  /** Unique key; for files the path. */
  key: string
}

export interface VolumeInfo {
  type: 'file' | 'block' | 'directory' | 'network' | 'network directory' | 'ploop' | 'unknown'
  capacityBytes: number
  allocationBytes: number
}

export interface Network {
  name: string
  uuid: string
}

/** An address a virtual network's DHCP server has given away. */
export interface DhcpLease {
  interface: string
  expirySeconds: number
  mac?: string
  address: string
  prefix: number
  hostname?: string
}

export type JobType = 'none' | 'bounded' | 'unbounded' | 'completed' | 'failed' | 'cancelled' | 'unknown'

export type JobOperation =
  | 'unknown'
  | 'start'
  | 'save'
  | 'restore'
  | 'incoming migration'
  | 'outgoing migration'
  | 'snapshot'
  | 'snapshot revert'
  | 'dump'
  | 'backup'
  | 'snapshot delete'

/** A running (or the last completed) job of a guest. */
export interface JobInfo {
  type: JobType
  /** Only from `domainJobStats`. */
  operation?: JobOperation
  elapsedMs?: number
  remainingMs?: number
  dataTotalBytes?: number
  dataProcessedBytes?: number
  dataRemainingBytes?: number
  memoryTotalBytes?: number
  memoryProcessedBytes?: number
  memoryRemainingBytes?: number
  diskTotalBytes?: number
  diskProcessedBytes?: number
  diskRemainingBytes?: number
  /** Everything the daemon sent, by libvirt's names (`memory_dirty_rate`, …); empty from `domainJob`. */
  params: Params
}

export interface BlockJob {
  type: 'unknown' | 'pull' | 'copy' | 'commit' | 'active commit' | 'backup'
  bandwidthMibPerSecond: number
  current: number
  end: number
}

/** A filesystem inside a guest, as its agent reports it. */
export interface GuestFilesystem {
  mountPoint: string
  name: string
  type: string
  disks: string[]
}

/** The vCPUs that a guest's own system knows, by its numbers for them. */
export interface GuestVcpus {
  present: number[]
  /** In use there. */
  online: number[]
}

/** An address that a guest's own system has given to one of its interfaces. */
export interface GuestAddress {
  type: 'ipv4' | 'ipv6' | 'unknown'
  address: string
  prefix: number
}

/** A network interface inside a guest, as its agent reports it. */
export interface GuestInterface {
  name: string
  mac?: string
  addresses: GuestAddress[]
}

/** Groups of the bulk statistics (virDomainStatsTypes). Ask only for what is needed. */
export type StatsGroup =
  | 'state'
  | 'cpu'
  | 'balloon'
  | 'vcpu'
  | 'interface'
  | 'block'
  | 'perf'
  | 'iothread'
  | 'memory'
  | 'dirtyrate'
  | 'vm'

export interface VcpuStats {
  number: number
  state: Vcpu['state']
  timeNs?: number
  /** Waiting as the host's scheduler counts it (wait_sum); 0 unless its kernel.sched_schedstats is on. */
  waitNs?: number
  /** Ready to run but without a host CPU: what the guest sees as steal. */
  delayNs?: number
  halted?: boolean
}

export interface InterfaceStatsView extends InterfaceStats {
  /** Name on the host, e.g. `vnet0`. */
  name: string
}

export interface BlockStatsView extends BlockStats, Partial<BlockInfo> {
  /** Target name, e.g. `vda`. */
  name: string
  path?: string
  /** Position in the backing chain; only when asked for with `backing`. */
  backingIndex?: number
  /** Highest offset written, when a threshold event is set. */
  thresholdBytes?: number
}

export interface CpuStatsView {
  timeNs?: number
  userNs?: number
  systemNs?: number
  haltpollSuccessNs?: number
  haltpollFailNs?: number
}

/** Statistics of one guest out of a bulk call, as a typed view; what was not sent is absent or undefined. */
export interface DomainStats {
  domain: Domain
  state?: DomainState
  cpu?: CpuStatsView
  /** Same as `domainMemoryStats`, plus what the guest may have at most. */
  balloon?: MemoryStats & { maximumBytes?: number }
  vcpus: VcpuStats[]
  /** vCPUs the guest has, or will have when it starts; `vcpus` is empty while it does not run. */
  currentVcpus?: number
  /** vCPUs the guest may have at most. */
  maximumVcpus?: number
  interfaces: InterfaceStatsView[]
  blocks: BlockStatsView[]
  /** Everything that was sent, by libvirt's own names and exact; only when asked for with `raw`. */
  raw?: Params
  /** Set when QEMU's monitor did not take part, so that groups are missing. */
  monitor?: MonitorTrouble
}

/** Why a guest's monitor did not take part in a bulk call. */
export interface MonitorTrouble {
  /** `busy`: another job holds it (backup, snapshot, migration). `not answering`: QEMU does not reply. */
  kind: 'busy' | 'not answering'
  /** How long it has been so, as far as known. */
  forMs: number
}

/** Result of a bulk call. */
export interface DomainStatsSample {
  /** Taken before the question was sent (milliseconds since 1970): counters are never older than this. */
  takenAtMs: number
  /** The same moment on the monotonic clock (`performance.now()`), for rates. */
  takenAtMonotonicMs: number
  guests: DomainStats[]
  /** Guests whose QEMU does not answer: also in `guests`, with what libvirt knows without QEMU. */
  notAnswering: { domain: Domain; forMs: number }[]
}

export type LifecycleEventName =
  | 'defined'
  | 'undefined'
  | 'started'
  | 'suspended'
  | 'resumed'
  | 'stopped'
  | 'shutdown'
  | 'pmsuspended'
  | 'crashed'
  | 'unknown'

export interface LifecycleEvent {
  domain: Domain
  event: LifecycleEventName
  /** What caused it, e.g. `I/O error`, `panicked`, `destroyed`. */
  detail: string
  eventCode: number
  detailCode: number
}

/** Every event a `Host` can deliver, by name. */
export interface HostEvents {
  lifecycle: LifecycleEvent
  reboot: { domain: Domain }
  watchdog: { domain: Domain; action: string }
  ioError: { domain: Domain; path: string; device: string; action: string; reason: string }
  controlError: { domain: Domain }
  blockJob: { domain: Domain; disk: string; type: string; status: string }
  balloonChange: { domain: Domain; balloonBytes: number }
  agentLifecycle: { domain: Domain; state: 'connected' | 'disconnected' | 'unknown'; reason: string }
  deviceAdded: { domain: Domain; device: string }
  deviceRemoved: { domain: Domain; device: string }
  diskChange: { domain: Domain; device: string; oldPath?: string; newPath?: string }
  jobCompleted: { domain: Domain; job: JobInfo }
  metadataChange: { domain: Domain; type: string; namespace?: string }
  memoryFailure: { domain: Domain; recipient: string; action: string }
  blockThreshold: { domain: Domain; device: string; path?: string; thresholdBytes: number; excessBytes: number }
}
export type HostEventName = keyof HostEvents

/** Which guests a listing returns; a property left out does not filter. */
export interface DomainFilter {
  active?: boolean
  persistent?: boolean
  autostart?: boolean
  hasSnapshot?: boolean
  managedSave?: boolean
}

/** Which pools or networks a listing returns; a property left out does not filter. */
export interface ResourceFilter {
  active?: boolean
  persistent?: boolean
  autostart?: boolean
}

/** What guest information to ask the agent for (virDomainGuestInfoTypes). */
export type GuestInfoType =
  | 'users'
  | 'os'
  | 'timezone'
  | 'hostname'
  | 'filesystem'
  | 'disks'
  | 'interfaces'
  /** libvirt 11.2. */
  | 'load'

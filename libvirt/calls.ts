import * as decode from './decode.js'
import { LibvirtError, QemuMonitorError } from './errors.js'
import { type Procedure, procedures } from './procedures.js'
import type {
  BlockInfo,
  BlockJob,
  BlockStats,
  ControlInfo,
  DhcpLease,
  DiskError,
  Domain,
  DomainCpuStats,
  DomainFilter,
  DomainInfo,
  DomainState,
  FreePages,
  GuestAddress,
  GuestFilesystem,
  GuestInfoType,
  GuestInterface,
  GuestVcpus,
  InterfaceStats,
  JobInfo,
  MemoryStats,
  Network,
  NodeCpuStats,
  NodeInfo,
  NodeMemoryStats,
  Params,
  ResourceFilter,
  Snapshot,
  StoragePool,
  StoragePoolInfo,
  Vcpu,
  Volume,
  VolumeInfo,
} from './records.js'
import type { XdrReader, XdrWriter } from './xdr.js'

export interface CallOptions {
  /** Deadline in milliseconds, waiting in our own queue included. Default: the procedure's, see procedures.ts. */
  timeoutMs?: number
  /** Deadline from when libvirt is asked, instead of `timeoutMs`, which then is only the longest wait until then. */
  answerTimeoutMs?: number
  /** Gives the call up early; the daemon still finishes it. */
  signal?: AbortSignal
}

/** One call to send: what is asked, of whom, and how its arguments are written. */
export interface Request {
  procedure: Procedure
  write?: (writer: XdrWriter) => void
  options?: CallOptions | undefined
  /** What the call is about, for messages: a guest's, pool's or network's name. */
  subject?: string
  /** The guest whose QEMU or agent must answer; only for calls that may hang on it. */
  guest?: Domain
}

const kib = 1024

/** What DOMAIN_GET_CPU_STATS is asked for at most in one call (protocol limit, CPUs). */
const maximumCpusPerCall = 128
/** Parameters in one reply to it (protocol limit). */
const maximumCpuParams = 2048
const maximumHostCpus = 65_536

/** Interfaces of a guest in one reply, and addresses of one interface (protocol limits). */
const maximumGuestInterfaces = 2048
const maximumGuestAddresses = 2048
/** vCPUs a guest may be said to have (libvirt's own limit for what agents tell). */
const maximumGuestVcpus = 4096

/**
 * Every libvirt call this client makes, typed. Each rejects with LibvirtError (the daemon said no),
 * LibvirtTimeoutError (no answer before the deadline) or LibvirtConnectionError (no usable connection).
 */
export abstract class Calls {
  /** Sends a request and resolves with a reader positioned at the reply's payload. */
  protected abstract request(request: Request): Promise<XdrReader>

  async #call<T>(request: Request, read: (reader: XdrReader) => T): Promise<T> {
    const reader = await this.request(request)
    const result = read(reader)
    reader.finish()
    return result
  }

  #plain<T>(procedure: Procedure, options: CallOptions | undefined, read: (reader: XdrReader) => T): Promise<T> {
    return this.#call({ procedure, options }, read)
  }

  /** A call whose first argument is a guest; `monitor` and `change` calls are guarded per guest. */
  #ofDomain<T>(
    procedure: Procedure,
    domain: Domain,
    options: CallOptions | undefined,
    read: (reader: XdrReader) => T,
    writeRest?: (writer: XdrWriter) => void,
  ): Promise<T> {
    const write = (writer: XdrWriter) => {
      decode.writeDomain(writer, domain)
      writeRest?.(writer)
    }
    const request: Request = { procedure, options, subject: domain.name, write }
    if (procedure.purpose === 'monitor') request.guest = domain
    return this.#call(request, read)
  }

  #ofPool<T>(
    procedure: Procedure,
    pool: StoragePool,
    options: CallOptions | undefined,
    read: (reader: XdrReader) => T,
    writeRest?: (writer: XdrWriter) => void,
  ): Promise<T> {
    const write = (writer: XdrWriter) => {
      decode.writeNamed(writer, pool)
      writeRest?.(writer)
    }
    return this.#call({ procedure, options, subject: `pool ${pool.name}`, write }, read)
  }

  #ofVolume<T>(
    procedure: Procedure,
    volume: Volume,
    options: CallOptions | undefined,
    read: (reader: XdrReader) => T,
    writeRest?: (writer: XdrWriter) => void,
  ): Promise<T> {
    const write = (writer: XdrWriter) => {
      decode.writeVolume(writer, volume)
      writeRest?.(writer)
    }
    return this.#call({ procedure, options, subject: `volume ${volume.name}`, write }, read)
  }

  #ofNetwork<T>(
    procedure: Procedure,
    network: Network,
    options: CallOptions | undefined,
    read: (reader: XdrReader) => T,
    writeRest?: (writer: XdrWriter) => void,
  ): Promise<T> {
    const write = (writer: XdrWriter) => {
      decode.writeNamed(writer, network)
      writeRest?.(writer)
    }
    return this.#call({ procedure, options, subject: `network ${network.name}`, write }, read)
  }

  #ofSnapshot<T>(
    procedure: Procedure,
    snapshot: Snapshot,
    options: CallOptions | undefined,
    read: (reader: XdrReader) => T,
    flags: number,
  ): Promise<T> {
    const write = (writer: XdrWriter) => {
      decode.writeSnapshot(writer, snapshot)
      writer.u32(flags)
    }
    return this.#call(
      { procedure, options, subject: `${snapshot.domain.name} (snapshot ${snapshot.name})`, write },
      read,
    )
  }

  #lookup<T>(
    procedure: Procedure,
    what: string,
    name: string,
    options: CallOptions | undefined,
    read: (reader: XdrReader) => T,
  ): Promise<T> {
    return this.#call({ procedure, options, subject: `${what}${name}`, write: writer => writer.string(name) }, read)
  }

  #list<T>(
    procedure: Procedure,
    flags: number,
    minimumBytes: number,
    options: CallOptions | undefined,
    read: (reader: XdrReader) => T,
  ): Promise<T[]> {
    return this.#call({ procedure, options, write: writer => writer.i32(1).u32(flags) }, reader => {
      const items = reader.array(decode.maximumListItems, minimumBytes, read)
      reader.u32()
      return items
    })
  }

  // The daemon and its host

  /** Hypervisor driver: `QEMU`, `TEST`, … */
  driverType(options?: CallOptions): Promise<string> {
    return this.#plain(procedures.getType, options, readString)
  }

  /** Version of the hypervisor, e.g. `7.2.22`. */
  hypervisorVersion(options?: CallOptions): Promise<string> {
    return this.#plain(procedures.getVersion, options, readVersion)
  }

  /** Version of libvirt in the daemon, e.g. `9.0.0`. */
  libVersion(options?: CallOptions): Promise<string> {
    return this.#plain(procedures.getLibVersion, options, readVersion)
  }

  hostname(options?: CallOptions): Promise<string> {
    return this.#plain(procedures.getHostname, options, readString)
  }

  /** The URI as the daemon sees it. */
  canonicalUri(options?: CallOptions): Promise<string> {
    return this.#plain(procedures.getUri, options, readString)
  }

  /** Capabilities of host and hypervisor, as XML. */
  capabilities(options?: CallOptions): Promise<string> {
    return this.#plain(procedures.getCapabilities, options, readString)
  }

  nodeInfo(options?: CallOptions): Promise<NodeInfo> {
    return this.#plain(procedures.nodeGetInfo, options, reader => {
      const characters: number[] = []
      for (let index = 0; index < 32; index += 1) characters.push(reader.i32() & 0xff)
      const end = characters.indexOf(0)
      const model = String.fromCharCode(...characters.slice(0, end < 0 ? 32 : end))
      return {
        model,
        memoryBytes: reader.u64() * kib,
        cpus: reader.i32(),
        mhz: reader.i32(),
        numaNodes: reader.i32(),
        socketsPerNode: reader.i32(),
        coresPerSocket: reader.i32(),
        threadsPerCore: reader.i32(),
      }
    })
  }

  /** CPU time of the whole host, or of one CPU. */
  async nodeCpuStats(cpu?: number, options?: CallOptions): Promise<NodeCpuStats> {
    const ask = (count: number) =>
      this.#call(
        {
          procedure: procedures.nodeGetCpuStats,
          options,
          write: writer =>
            writer
              .i32(cpu ?? -1)
              .i32(count)
              .u32(0),
        },
        reader => ({ counters: decode.readCounters(reader), count: reader.i32() }),
      )
    const { counters } = await ask((await ask(0)).count)
    return pick<NodeCpuStats>([
      ['kernelNs', counters.get('kernel')],
      ['userNs', counters.get('user')],
      ['idleNs', counters.get('idle')],
      ['iowaitNs', counters.get('iowait')],
      ['interruptNs', counters.get('intr')],
      ['utilizationPercent', counters.get('utilization')],
    ])
  }

  /** Memory of the whole host, or of one NUMA cell. */
  async nodeMemoryStats(cell?: number, options?: CallOptions): Promise<NodeMemoryStats> {
    const ask = (count: number) =>
      this.#call(
        {
          procedure: procedures.nodeGetMemoryStats,
          options,
          write: writer =>
            writer
              .i32(count)
              .i32(cell ?? -1)
              .u32(0),
        },
        reader => ({ counters: decode.readCounters(reader), count: reader.i32() }),
      )
    const { counters } = await ask((await ask(0)).count)
    const bytes = (name: string) => scale(counters.get(name), kib)
    return pick<NodeMemoryStats>([
      ['totalBytes', bytes('total')],
      ['freeBytes', bytes('free')],
      ['buffersBytes', bytes('buffers')],
      ['cachedBytes', bytes('cached')],
    ])
  }

  nodeFreeMemoryBytes(options?: CallOptions): Promise<number> {
    return this.#plain(procedures.nodeGetFreeMemory, options, reader => reader.u64())
  }

  /** Free memory of NUMA cells in bytes, beginning with cell `first`. */
  nodeCellsFreeMemoryBytes(first = 0, count = 1024, options?: CallOptions): Promise<number[]> {
    return this.#call(
      { procedure: procedures.nodeGetCellsFreeMemory, options, write: writer => writer.i32(first).i32(count) },
      reader => reader.array(1024, 8, item => item.u64()),
    )
  }

  /** Free pages of each given size (e.g. 2 MiB hugepages) in NUMA cells `first` to `first + cells - 1`. */
  nodeFreePages(pageSizesBytes: readonly number[], first = 0, cells = 1, options?: CallOptions): Promise<FreePages[]> {
    const write = (writer: XdrWriter) =>
      writer
        .array(pageSizesBytes, (to, size) => to.u32(size / kib))
        .i32(first)
        .u32(cells)
        .u32(0)
    return this.#call({ procedure: procedures.nodeGetFreePages, options, write }, reader =>
      reader
        .array(1024, 8, item => item.u64())
        .map((freePages, index) => ({
          cell: first + Math.floor(index / pageSizesBytes.length),
          pageSizeBytes: pageSizesBytes[index % pageSizesBytes.length] ?? 0,
          freePages,
        })),
    )
  }

  // Guests: answered from libvirt's memory

  /** Guests that pass the filter, in libvirt's order. At most 16,384 (protocol limit). */
  domains(filter: DomainFilter = {}, options?: CallOptions): Promise<Domain[]> {
    const flags =
      either(filter.active, 1, 2) |
      either(filter.persistent, 4, 8) |
      either(filter.managedSave, 0x100, 0x200) |
      either(filter.autostart, 0x400, 0x800) |
      either(filter.hasSnapshot, 0x1000, 0x2000)
    return this.#list(procedures.listAllDomains, flags, decode.minimumDomainBytes, options, decode.readDomain)
  }

  /** Finds a guest by name, or by UUID when no guest has that name. LibvirtError.notFound when there is none. */
  async domain(nameOrUuid: string, options?: CallOptions): Promise<Domain> {
    const uuid = /^[0-9a-f]{8}-?([0-9a-f]{4}-?){3}[0-9a-f]{12}$/i.test(nameOrUuid)
    if (!uuid) return this.#lookup(procedures.domainLookupByName, '', nameOrUuid, options, decode.readDomain)
    const subject = nameOrUuid
    const write = (writer: XdrWriter) => writer.uuid(nameOrUuid)
    return this.#call({ procedure: procedures.domainLookupByUuid, options, subject, write }, decode.readDomain)
  }

  domainState(domain: Domain, options?: CallOptions): Promise<DomainState> {
    return this.#ofDomain(
      procedures.domainGetState,
      domain,
      options,
      reader => decode.domainState(reader.i32(), reader.i32()),
      writeNoFlags,
    )
  }

  domainInfo(domain: Domain, options?: CallOptions): Promise<DomainInfo> {
    return this.#ofDomain(procedures.domainGetInfo, domain, options, reader => ({
      state: decode.stateName(reader.u32()),
      maxMemoryBytes: reader.u64() * kib,
      memoryBytes: reader.u64() * kib,
      vcpus: reader.u32(),
      cpuTimeNs: reader.u64(),
    }))
  }

  /** The vCPUs of a running guest; LibvirtError.operationInvalid when it is not running. */
  domainVcpus(domain: Domain, options?: CallOptions): Promise<Vcpu[]> {
    return this.#ofDomain(
      procedures.domainGetVcpus,
      domain,
      options,
      reader => {
        const vcpus = reader.array(16_384, 20, readVcpu)
        reader.opaque(8_388_608)
        return vcpus
      },
      writer => writer.i32(16_384).i32(0),
    )
  }

  /** How many vCPUs a guest has now, or may have at most. */
  domainVcpuCount(domain: Domain, which: 'current' | 'maximum', options?: CallOptions): Promise<number> {
    const flags = which === 'maximum' ? 4 : 0
    return this.#ofDomain(procedures.domainGetVcpusFlags, domain, options, readI32, writer => writer.u32(flags))
  }

  /**
   * CPU time of a guest from the host's cgroups: one entry with cpu -1 for the total, or one per host CPU
   * (not available with cgroup v2: LibvirtError.unsupported).
   */
  async domainCpuStats(domain: Domain, which: 'total' | 'per cpu', options?: CallOptions): Promise<DomainCpuStats[]> {
    const ask = <T>(count: number, first: number, cpus: number, read: (reader: XdrReader, params: Params) => T) =>
      this.#ofDomain(
        procedures.domainGetCpuStats,
        domain,
        options,
        reader => read(reader, decode.readParams(reader, maximumCpuParams)),
        writer => writer.u32(count).i32(first).u32(cpus).u32(0),
      )
    const size = (reader: XdrReader) => sizeUpTo(reader, maximumCpuParams)
    if (which === 'total') {
      const count = await ask(0, -1, 1, size)
      return [
        await ask(count, -1, 1, (reader, params) => {
          reader.i32()
          return cpuStats(-1, params)
        }),
      ]
    }
    const cpus = await ask(0, 0, 0, reader => sizeUpTo(reader, maximumHostCpus))
    const fields = await ask(0, 0, 1, size)
    const stats: DomainCpuStats[] = []
    for (let first = 0; first < cpus; first += maximumCpusPerCall) {
      stats.push(
        ...(await this.#perCpuStats(domain, fields, first, Math.min(maximumCpusPerCall, cpus - first), options)),
      )
    }
    return stats
  }

  /** Per-CPU parameters arrive as one flat list, `fields` for each CPU, names repeating. */
  #perCpuStats(domain: Domain, fields: number, first: number, cpus: number, options: CallOptions | undefined) {
    return this.#ofDomain(
      procedures.domainGetCpuStats,
      domain,
      options,
      reader => {
        const total = reader.count(maximumCpuParams, decode.minimumParamBytes)
        const stats: DomainCpuStats[] = []
        for (let index = 0; index < total; index += fields) {
          const params: Params = new Map()
          for (let field = 0; field < fields && index + field < total; field += 1) {
            const name = reader.string()
            params.set(name, decode.readParamValue(reader))
          }
          stats.push(cpuStats(first + index / fields, params))
        }
        reader.i32()
        return stats
      },
      writer => writer.u32(fields).i32(first).u32(cpus).u32(0),
    )
  }

  /** The guest's XML; `inactive` asks for what the next start will use. Secrets are never included. */
  domainXml(domain: Domain, which: 'current' | 'inactive' = 'current', options?: CallOptions): Promise<string> {
    const flags = which === 'inactive' ? 2 : 0
    return this.#ofDomain(procedures.domainGetXml, domain, options, readString, writer => writer.u32(flags))
  }

  domainAutostart(domain: Domain, options?: CallOptions): Promise<boolean> {
    return this.#ofDomain(procedures.domainGetAutostart, domain, options, readBool)
  }

  domainPersistent(domain: Domain, options?: CallOptions): Promise<boolean> {
    return this.#ofDomain(procedures.domainIsPersistent, domain, options, readBool)
  }

  domainActive(domain: Domain, options?: CallOptions): Promise<boolean> {
    return this.#ofDomain(procedures.domainIsActive, domain, options, readBool)
  }

  domainHasManagedSave(domain: Domain, options?: CallOptions): Promise<boolean> {
    return this.#ofDomain(procedures.domainHasManagedSave, domain, options, readBool, writeNoFlags)
  }

  /** Title, description, or the XML element of a namespace; undefined when the guest has none. */
  async domainMetadata(
    domain: Domain,
    what: 'title' | 'description' | { namespace: string },
    options?: CallOptions,
  ): Promise<string | undefined> {
    const type = what === 'description' ? 0 : what === 'title' ? 1 : 2
    const namespace = typeof what === 'string' ? undefined : what.namespace
    try {
      return await this.#ofDomain(procedures.domainGetMetadata, domain, options, readString, writer =>
        writer.i32(type).optionalString(namespace).u32(0),
      )
    } catch (error) {
      if (isNoMetadata(error)) return undefined
      throw error
    }
  }

  /** State of libvirt's line to the guest's QEMU, told without asking QEMU. */
  domainControlInfo(domain: Domain, options?: CallOptions): Promise<ControlInfo> {
    return this.#ofDomain(
      procedures.domainGetControlInfo,
      domain,
      options,
      reader => ({
        state: controlStates[reader.u32()] ?? 'unknown',
        errorReason: controlErrors[reader.u32()] ?? 'unknown',
        stateTimeMs: reader.u64(),
      }),
      writeNoFlags,
    )
  }

  /** libvirt's own remarks about a guest: `tainting` (e.g. custom-monitor) and `deprecation`. */
  domainMessages(domain: Domain, options?: CallOptions): Promise<string[]> {
    return this.#ofDomain(
      procedures.domainGetMessages,
      domain,
      options,
      reader => reader.array(2048, 4, readString),
      writeNoFlags,
    )
  }

  // Guests: asks QEMU or the agent

  domainMemoryStats(domain: Domain, options?: CallOptions): Promise<MemoryStats> {
    return this.#ofDomain(procedures.domainMemoryStats, domain, options, decode.readMemoryStats, writer =>
      writer.u32(1024).u32(0),
    )
  }

  /**
   * Who holds the lock of a guest that does not answer: makes libvirt wait for it, which it does for 30 s (give a longer deadline) before it names
   * the calls that hold it, such as `remoteDispatchDomainSave`; empty when it names none, undefined when the lock was free. Nothing is changed
   * and nobody spared: for guests that are known not to answer.
   */
  async domainLockHolder(domain: Domain, options?: CallOptions): Promise<string | undefined> {
    const write = (writer: XdrWriter) => {
      decode.writeDomain(writer, domain)
      writer.u32(1024).u32(0)
    }
    try {
      await this.#call(
        { procedure: procedures.domainMemoryStats, options, subject: domain.name, write },
        decode.readMemoryStats,
      )
      return undefined
    } catch (error) {
      if (!(error instanceof LibvirtError) || !error.timedOutInDaemon) throw error
      return error.lockHolder
    }
  }

  /** Counters of a disk by target name (`vda`) or source path; an empty name sums all disks. */
  domainBlockStats(domain: Domain, disk: string, options?: CallOptions): Promise<BlockStats> {
    return this.#ofDomain(
      procedures.domainBlockStatsFlags,
      domain,
      options,
      reader => {
        const params = decode.readParams(reader, 16)
        reader.i32()
        return pick<BlockStats>([
          ['readOps', decode.paramNumber(params, 'rd_operations')],
          ['readBytes', decode.paramNumber(params, 'rd_bytes')],
          ['readTimeNs', decode.paramNumber(params, 'rd_total_times')],
          ['writeOps', decode.paramNumber(params, 'wr_operations')],
          ['writeBytes', decode.paramNumber(params, 'wr_bytes')],
          ['writeTimeNs', decode.paramNumber(params, 'wr_total_times')],
          ['flushOps', decode.paramNumber(params, 'flush_operations')],
          ['flushTimeNs', decode.paramNumber(params, 'flush_total_times')],
          ['errors', decode.paramNumber(params, 'errs')],
        ])
      },
      writer => writer.string(disk).i32(16).u32(0),
    )
  }

  /** The older, smaller form of `domainBlockStats`: no times, but every driver has it. */
  domainBlockCounters(domain: Domain, disk: string, options?: CallOptions): Promise<BlockStats> {
    return this.#ofDomain(
      procedures.domainBlockStats,
      domain,
      options,
      reader =>
        pick<BlockStats>([
          ['readOps', counted(reader.i64())],
          ['readBytes', counted(reader.i64())],
          ['writeOps', counted(reader.i64())],
          ['writeBytes', counted(reader.i64())],
          ['errors', counted(reader.i64())],
        ]),
      writer => writer.string(disk),
    )
  }

  domainBlockInfo(domain: Domain, disk: string, options?: CallOptions): Promise<BlockInfo> {
    return this.#ofDomain(
      procedures.domainGetBlockInfo,
      domain,
      options,
      reader => ({ allocationBytes: reader.u64(), capacityBytes: reader.u64(), physicalBytes: reader.u64() }),
      writer => writer.string(disk).u32(0),
    )
  }

  /** Limits set on a disk (`total_iops_sec`, `read_bytes_sec`, …; 0 is unlimited), by libvirt's names. */
  domainBlockIoTune(domain: Domain, disk: string, options?: CallOptions): Promise<Params> {
    return this.#ofDomain(
      procedures.domainGetBlockIoTune,
      domain,
      options,
      reader => {
        const params = decode.readParams(reader, 32)
        reader.i32()
        return params
      },
      writer => writer.optionalString(disk).i32(32).u32(0),
    )
  }

  /** The block job on a disk, or undefined when there is none. */
  domainBlockJob(domain: Domain, disk: string, options?: CallOptions): Promise<BlockJob | undefined> {
    return this.#ofDomain(
      procedures.domainGetBlockJobInfo,
      domain,
      options,
      reader => {
        const found = reader.bool()
        const type = blockJobTypes[reader.i32()] ?? 'unknown'
        const job = { type, bandwidthMibPerSecond: reader.u64(), current: reader.u64(), end: reader.u64() }
        return found ? job : undefined
      },
      writer => writer.string(disk).u32(0),
    )
  }

  /** Disks with an I/O error now; empty when there are none. */
  domainDiskErrors(domain: Domain, options?: CallOptions): Promise<DiskError[]> {
    return this.#ofDomain(
      procedures.domainGetDiskErrors,
      domain,
      options,
      reader => {
        const errors = reader.array(256, 8, readDiskError)
        reader.i32()
        return errors
      },
      writer => writer.u32(256).u32(0),
    )
  }

  /** Counters of a guest's interface by its name on the host (`vnet0`) or its MAC address. */
  domainInterfaceStats(domain: Domain, device: string, options?: CallOptions): Promise<InterfaceStats> {
    return this.#ofDomain(
      procedures.domainInterfaceStats,
      domain,
      options,
      reader =>
        pick<InterfaceStats>([
          ['receivedBytes', counted(reader.i64())],
          ['receivedPackets', counted(reader.i64())],
          ['receivedErrors', counted(reader.i64())],
          ['receivedDrops', counted(reader.i64())],
          ['sentBytes', counted(reader.i64())],
          ['sentPackets', counted(reader.i64())],
          ['sentErrors', counted(reader.i64())],
          ['sentDrops', counted(reader.i64())],
        ]),
      writer => writer.string(device),
    )
  }

  /** The guest's running job (migration, save, backup, …); type `none` when idle. */
  domainJob(domain: Domain, options?: CallOptions): Promise<JobInfo> {
    return this.#ofDomain(procedures.domainGetJobInfo, domain, options, reader => ({
      type: decode.jobType(reader.i32()),
      elapsedMs: reader.u64(),
      remainingMs: reader.u64(),
      dataTotalBytes: reader.u64(),
      dataProcessedBytes: reader.u64(),
      dataRemainingBytes: reader.u64(),
      memoryTotalBytes: reader.u64(),
      memoryProcessedBytes: reader.u64(),
      memoryRemainingBytes: reader.u64(),
      diskTotalBytes: reader.u64(),
      diskProcessedBytes: reader.u64(),
      diskRemainingBytes: reader.u64(),
      params: new Map(),
    }))
  }

  /** The running job in full, or the last completed one (kept for the next reader). */
  domainJobStats(domain: Domain, which: 'running' | 'completed' = 'running', options?: CallOptions): Promise<JobInfo> {
    const flags = which === 'completed' ? 3 : 0
    return this.#ofDomain(
      procedures.domainGetJobStats,
      domain,
      options,
      reader => decode.jobFromParams(decode.jobType(reader.i32()), decode.readParams(reader, 64)),
      writer => writer.u32(flags),
    )
  }

  /** What the agent tells about the guest, by libvirt's names (`os.name`, `fs.0.mountpoint`, …). All types by default. */
  domainGuestInfo(domain: Domain, types: readonly GuestInfoType[] = [], options?: CallOptions): Promise<Params> {
    const flags = types.reduce((bits, type) => bits | guestInfoTypes[type], 0)
    return this.#ofDomain(
      procedures.domainGetGuestInfo,
      domain,
      options,
      reader => decode.readParams(reader, 2048),
      writer => writer.u32(flags).u32(0),
    )
  }

  /** Filesystems mounted in the guest, from its agent. */
  domainFilesystems(domain: Domain, options?: CallOptions): Promise<GuestFilesystem[]> {
    return this.#ofDomain(
      procedures.domainGetFsInfo,
      domain,
      options,
      reader => {
        const filesystems = reader.array(256, 16, readFilesystem)
        reader.u32()
        return filesystems
      },
      writeNoFlags,
    )
  }

  /** The guest's clock, from its agent: milliseconds since 1970. */
  domainTimeMs(domain: Domain, options?: CallOptions): Promise<number> {
    return this.#ofDomain(
      procedures.domainGetTime,
      domain,
      options,
      reader => reader.i64() * 1000 + reader.u32() / 1e6,
      writeNoFlags,
    )
  }

  /** The vCPUs that the guest's system knows, from its agent. */
  domainGuestVcpus(domain: Domain, options?: CallOptions): Promise<GuestVcpus> {
    return this.#ofDomain(
      procedures.domainGetGuestVcpus,
      domain,
      options,
      reader => {
        const params = decode.readParams(reader, 64)
        return { present: numbersOf(params.get('vcpus')), online: numbersOf(params.get('online')) }
      },
      writeNoFlags,
    )
  }

  /** Interfaces and addresses inside the guest, from its agent. */
  domainGuestAddresses(domain: Domain, options?: CallOptions): Promise<GuestInterface[]> {
    const fromAgent = 1
    return this.#ofDomain(
      procedures.domainInterfaceAddresses,
      domain,
      options,
      reader => reader.array(maximumGuestInterfaces, 12, readGuestInterface),
      writer => writer.u32(fromAgent).u32(0),
    )
  }

  /**
   * Sends a QMP command to the guest's QEMU and resolves with its `return` value; QEMU's refusal is a
   * QemuMonitorError. Taints the guest (`custom-monitor`): use only when asked to. Needs read-write.
   */
  async qemuMonitor(
    domain: Domain,
    command: { execute: string; arguments?: unknown },
    options?: CallOptions,
  ): Promise<unknown> {
    const text = await this.#monitorCommand(domain, JSON.stringify(command), 0, options)
    const reply = parseReply(text)
    if (typeof reply !== 'object' || reply === null) {
      throw new QemuMonitorError(domain.name, command.execute, 'Malformed', `not a JSON object: ${text.slice(0, 100)}`)
    }
    if ('error' in reply) {
      const { class: errorClass, desc } = { class: '?', desc: '?', ...(reply.error as object) }
      throw new QemuMonitorError(domain.name, command.execute, String(errorClass), String(desc))
    }
    return 'return' in reply ? reply.return : undefined
  }

  /** Sends a human monitor command and resolves with its text. Errors are text too. Taints the guest. Needs read-write. */
  async qemuHumanMonitor(domain: Domain, command: string, options?: CallOptions): Promise<string> {
    return (await this.#monitorCommand(domain, command, 1, options)).replaceAll('\r\n', '\n')
  }

  #monitorCommand(domain: Domain, command: string, flags: number, options: CallOptions | undefined): Promise<string> {
    return this.#ofDomain(procedures.qemuMonitorCommand, domain, options, readString, writer =>
      writer.string(command).u32(flags),
    )
  }

  /**
   * Sends a command to the guest's agent and resolves with its `return` value. `agentTimeoutSeconds` is how long
   * libvirt waits for the agent (default: a second less than the call's deadline, at least 1). Needs read-write.
   */
  async qemuAgent(
    domain: Domain,
    command: { execute: string; arguments?: unknown },
    options?: CallOptions & { agentTimeoutSeconds?: number },
  ): Promise<unknown> {
    const deadlineMs = options?.timeoutMs ?? procedures.qemuAgentCommand.timeoutMs
    const seconds = options?.agentTimeoutSeconds ?? Math.max(1, Math.floor(deadlineMs / 1000) - 1)
    const text = await this.#ofDomain(
      procedures.qemuAgentCommand,
      domain,
      options,
      reader => reader.optionalString(),
      writer => writer.string(JSON.stringify(command)).i32(seconds).u32(0),
    )
    if (text === undefined) return undefined
    const reply = parseReply(text)
    return typeof reply === 'object' && reply !== null && 'return' in reply ? reply.return : reply
  }

  // Snapshots

  domainSnapshots(domain: Domain, options?: CallOptions): Promise<Snapshot[]> {
    return this.#ofDomain(
      procedures.listAllSnapshots,
      domain,
      options,
      reader => {
        const snapshots = reader.array(decode.maximumListItems, 28, decode.readSnapshot)
        reader.i32()
        return snapshots
      },
      writer => writer.i32(1).u32(0),
    )
  }

  domainSnapshot(domain: Domain, name: string, options?: CallOptions): Promise<Snapshot> {
    return this.#ofDomain(procedures.snapshotLookup, domain, options, decode.readSnapshot, writer =>
      writer.string(name).u32(0),
    )
  }

  /** The snapshot the guest's state is based on, or undefined. */
  async domainCurrentSnapshot(domain: Domain, options?: CallOptions): Promise<Snapshot | undefined> {
    const present = await this.#ofDomain(procedures.snapshotHasCurrent, domain, options, readBool, writeNoFlags)
    if (!present) return undefined
    return this.#ofDomain(procedures.snapshotCurrent, domain, options, decode.readSnapshot, writeNoFlags)
  }

  snapshotXml(snapshot: Snapshot, options?: CallOptions): Promise<string> {
    return this.#ofSnapshot(procedures.snapshotGetXml, snapshot, options, readString, 0)
  }

  /** Rejects with LibvirtError.notFound when the snapshot is a root. */
  snapshotParent(snapshot: Snapshot, options?: CallOptions): Promise<Snapshot> {
    return this.#ofSnapshot(procedures.snapshotGetParent, snapshot, options, decode.readSnapshot, 0)
  }

  /** Makes a snapshot from `<domainsnapshot>` XML; `flags` are virDomainSnapshotCreateFlags. Needs read-write. */
  createSnapshot(domain: Domain, xml: string, flags = 0, options?: CallOptions): Promise<Snapshot> {
    return this.#ofDomain(procedures.snapshotCreate, domain, options, decode.readSnapshot, writer =>
      writer.string(xml).u32(flags),
    )
  }

  /** Needs read-write. */
  revertToSnapshot(snapshot: Snapshot, flags = 0, options?: CallOptions): Promise<void> {
    return this.#ofSnapshot(procedures.snapshotRevert, snapshot, options, readNothing, flags)
  }

  /** Needs read-write. */
  deleteSnapshot(snapshot: Snapshot, flags = 0, options?: CallOptions): Promise<void> {
    return this.#ofSnapshot(procedures.snapshotDelete, snapshot, options, readNothing, flags)
  }

  /** Starts a guest that is defined and not active, from its managed save image if it has one. Needs read-write. */
  startDomain(domain: Domain, options?: CallOptions): Promise<void> {
    return this.#ofDomain(procedures.domainCreate, domain, options, readNothing)
  }

  /** Pauses a guest. Needs read-write. */
  suspendDomain(domain: Domain, options?: CallOptions): Promise<void> {
    return this.#ofDomain(procedures.domainSuspend, domain, options, readNothing)
  }

  /** Lets a paused guest go on. Needs read-write. */
  resumeDomain(domain: Domain, options?: CallOptions): Promise<void> {
    return this.#ofDomain(procedures.domainResume, domain, options, readNothing)
  }

  // Storage

  storagePools(filter: ResourceFilter = {}, options?: CallOptions): Promise<StoragePool[]> {
    const flags = either(filter.active, 2, 1) | either(filter.persistent, 4, 8) | either(filter.autostart, 16, 32)
    return this.#list(procedures.listAllStoragePools, flags, 20, options, decode.readNamed)
  }

  storagePool(name: string, options?: CallOptions): Promise<StoragePool> {
    return this.#lookup(procedures.storagePoolLookupByName, 'pool ', name, options, decode.readNamed)
  }

  /** Numbers as of the pool's last refresh. */
  storagePoolInfo(pool: StoragePool, options?: CallOptions): Promise<StoragePoolInfo> {
    return this.#ofPool(procedures.storagePoolGetInfo, pool, options, reader => ({
      state: poolStates[reader.u32()] ?? 'unknown',
      capacityBytes: reader.u64(),
      allocationBytes: reader.u64(),
      availableBytes: reader.u64(),
    }))
  }

  storagePoolXml(pool: StoragePool, options?: CallOptions): Promise<string> {
    return this.#ofPool(procedures.storagePoolGetXml, pool, options, readString, writeNoFlags)
  }

  storagePoolAutostart(pool: StoragePool, options?: CallOptions): Promise<boolean> {
    return this.#ofPool(procedures.storagePoolGetAutostart, pool, options, readBool)
  }

  storagePoolActive(pool: StoragePool, options?: CallOptions): Promise<boolean> {
    return this.#ofPool(procedures.storagePoolIsActive, pool, options, readBool)
  }

  storagePoolPersistent(pool: StoragePool, options?: CallOptions): Promise<boolean> {
    return this.#ofPool(procedures.storagePoolIsPersistent, pool, options, readBool)
  }

  /** Makes libvirt look at the pool's storage again. Needs read-write. */
  refreshStoragePool(pool: StoragePool, options?: CallOptions): Promise<void> {
    return this.#ofPool(procedures.storagePoolRefresh, pool, options, readNothing, writeNoFlags)
  }

  volumes(pool: StoragePool, options?: CallOptions): Promise<Volume[]> {
    return this.#ofPool(
      procedures.listAllVolumes,
      pool,
      options,
      reader => {
        const volumes = reader.array(decode.maximumListItems, 12, decode.readVolume)
        reader.u32()
        return volumes
      },
      writer => writer.i32(1).u32(0),
    )
  }

  volume(pool: StoragePool, name: string, options?: CallOptions): Promise<Volume> {
    return this.#ofPool(procedures.volumeLookupByName, pool, options, decode.readVolume, writer => writer.string(name))
  }

  /** The volume a path belongs to. */
  volumeByPath(path: string, options?: CallOptions): Promise<Volume> {
    return this.#lookup(procedures.volumeLookupByPath, 'volume ', path, options, decode.readVolume)
  }

  volumeInfo(volume: Volume, options?: CallOptions): Promise<VolumeInfo> {
    return this.#ofVolume(procedures.volumeGetInfo, volume, options, reader => ({
      type: volumeTypes[reader.i32()] ?? 'unknown',
      capacityBytes: reader.u64(),
      allocationBytes: reader.u64(),
    }))
  }

  volumeXml(volume: Volume, options?: CallOptions): Promise<string> {
    return this.#ofVolume(procedures.volumeGetXml, volume, options, readString, writeNoFlags)
  }

  volumePath(volume: Volume, options?: CallOptions): Promise<string> {
    return this.#ofVolume(procedures.volumeGetPath, volume, options, readString)
  }

  // Virtual networks

  networks(filter: ResourceFilter = {}, options?: CallOptions): Promise<Network[]> {
    const flags = either(filter.active, 2, 1) | either(filter.persistent, 4, 8) | either(filter.autostart, 16, 32)
    return this.#list(procedures.listAllNetworks, flags, 20, options, decode.readNamed)
  }

  network(name: string, options?: CallOptions): Promise<Network> {
    return this.#lookup(procedures.networkLookupByName, 'network ', name, options, decode.readNamed)
  }

  networkActive(network: Network, options?: CallOptions): Promise<boolean> {
    return this.#ofNetwork(procedures.networkIsActive, network, options, readBool)
  }

  networkPersistent(network: Network, options?: CallOptions): Promise<boolean> {
    return this.#ofNetwork(procedures.networkIsPersistent, network, options, readBool)
  }

  networkAutostart(network: Network, options?: CallOptions): Promise<boolean> {
    return this.#ofNetwork(procedures.networkGetAutostart, network, options, readBool)
  }

  /** Name of the network's bridge on the host; LibvirtError when the network's kind has none. */
  networkBridge(network: Network, options?: CallOptions): Promise<string> {
    return this.#ofNetwork(procedures.networkGetBridge, network, options, readString)
  }

  networkXml(network: Network, options?: CallOptions): Promise<string> {
    return this.#ofNetwork(procedures.networkGetXml, network, options, readString, writeNoFlags)
  }

  networkDhcpLeases(network: Network, options?: CallOptions): Promise<DhcpLease[]> {
    return this.#ofNetwork(
      procedures.networkGetDhcpLeases,
      network,
      options,
      reader => {
        const leases = reader.array(65_536, 40, readLease)
        reader.u32()
        return leases
      },
      writer => writer.optionalString(undefined).i32(1).u32(0),
    )
  }
}

const controlStates: readonly ControlInfo['state'][] = ['ok', 'job', 'occupied', 'error']
const controlErrors: readonly ControlInfo['errorReason'][] = ['none', 'unknown', 'monitor', 'internal']
const blockJobTypes: readonly BlockJob['type'][] = ['unknown', 'pull', 'copy', 'commit', 'active commit', 'backup']
const poolStates: readonly StoragePoolInfo['state'][] = ['inactive', 'building', 'running', 'degraded', 'inaccessible']
const volumeTypes: readonly VolumeInfo['type'][] = [
  'file',
  'block',
  'directory',
  'network',
  'network directory',
  'ploop',
]
const diskErrors: readonly DiskError['error'][] = ['none', 'unspecified', 'no space']
const guestInfoTypes: Record<GuestInfoType, number> = {
  users: 1,
  os: 2,
  timezone: 4,
  hostname: 8,
  filesystem: 16,
  disks: 32,
  interfaces: 64,
  load: 128,
}
const addressTypes: readonly GuestAddress['type'][] = ['ipv4', 'ipv6']

const readNothing = () => undefined
const readString = (reader: XdrReader) => reader.string()
const readBool = (reader: XdrReader) => reader.bool()
const readI32 = (reader: XdrReader) => reader.i32()
const writeNoFlags = (writer: XdrWriter) => writer.u32(0)

/** libvirt encodes versions as major * 1,000,000 + minor * 1,000 + release. */
function readVersion(reader: XdrReader): string {
  const version = reader.u64()
  return `${Math.floor(version / 1_000_000)}.${Math.floor(version / 1000) % 1000}.${version % 1000}`
}

function readVcpu(reader: XdrReader): Vcpu {
  const vcpu: Vcpu = { number: reader.u32(), state: decode.vcpuState(reader.i32()), cpuTimeNs: reader.u64() }
  const hostCpu = reader.i32()
  return hostCpu < 0 ? vcpu : { ...vcpu, hostCpu }
}

function readDiskError(reader: XdrReader): DiskError {
  const disk = reader.string()
  const errorCode = reader.i32()
  return { disk, error: diskErrors[errorCode] ?? 'unknown', errorCode }
}

function readFilesystem(reader: XdrReader): GuestFilesystem {
  return {
    mountPoint: reader.string(),
    name: reader.string(),
    type: reader.string(),
    disks: reader.array(256, 4, readString),
  }
}

function readGuestInterface(reader: XdrReader): GuestInterface {
  const name = reader.string()
  const mac = reader.optionalString()
  const addresses = reader.array(maximumGuestAddresses, 12, (item): GuestAddress => {
    const type = addressTypes[item.i32()] ?? 'unknown'
    return { type, address: item.string(), prefix: item.u32() }
  })
  return { name, addresses, ...(mac === undefined ? {} : { mac }) }
}

/** The numbers of a list such as `0-3,8`; what is none is left out. */
function numbersOf(list: unknown): number[] {
  const numbers: number[] = []
  for (const part of typeof list === 'string' ? list.split(',') : []) {
    const [, first, last = first] = /^(\d{1,5})(?:-(\d{1,5}))?$/.exec(part.trim()) ?? []
    if (first === undefined) continue
    for (let number = Number(first); number <= Number(last) && numbers.length < maximumGuestVcpus; number += 1)
      numbers.push(number)
  }
  return numbers
}

function readLease(reader: XdrReader): DhcpLease {
  const device = reader.string()
  const expirySeconds = reader.i64()
  reader.i32()
  const mac = reader.optionalString()
  reader.optionalString()
  const address = reader.string()
  const prefix = reader.u32()
  const hostname = reader.optionalString()
  reader.optionalString()
  return {
    interface: device,
    expirySeconds,
    address,
    prefix,
    ...(mac === undefined ? {} : { mac }),
    ...(hostname === undefined ? {} : { hostname }),
  }
}

/** A size the daemon tells, refused unless it is 1 to `maximum`. */
function sizeUpTo(reader: XdrReader, maximum: number): number {
  const size = reader.i32()
  if (size < 1 || size > maximum) throw reader.malformed(`a size of ${size}, 1 to ${maximum} are possible`)
  return size
}

function cpuStats(cpu: number, params: Params): DomainCpuStats {
  return {
    cpu,
    ...pick<Omit<DomainCpuStats, 'cpu'>>([
      ['cpuTimeNs', decode.paramNumber(params, 'cpu_time')],
      ['userTimeNs', decode.paramNumber(params, 'user_time')],
      ['systemTimeNs', decode.paramNumber(params, 'system_time')],
      ['vcpuTimeNs', decode.paramNumber(params, 'vcpu_time')],
    ]),
  }
}

/** An object of those fields that have a value. */
function pick<T extends object>(fields: readonly (readonly [keyof T & string, number | undefined])[]): Partial<T> {
  const result: Partial<Record<string, number>> = {}
  for (const [name, value] of fields) if (value !== undefined) result[name] = value
  return result as Partial<T>
}

/** libvirt sends -1 for a counter it does not have. */
function counted(value: number): number | undefined {
  return value < 0 ? undefined : value
}

function scale(value: number | undefined, factor: number): number | undefined {
  return value === undefined ? undefined : value * factor
}

/** A filter's pair of flags: none when the filter is not set. */
function either(wanted: boolean | undefined, yes: number, no: number): number {
  return wanted === undefined ? 0 : wanted ? yes : no
}

function isNoMetadata(error: unknown): boolean {
  return error instanceof Error && 'code' in error && error.code === 80
}

function parseReply(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

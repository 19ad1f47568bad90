import { realpath } from 'node:fs/promises'
import { LibvirtError, LibvirtTimeoutError } from '../libvirt/errors.js'
import type { Host } from '../libvirt/host.js'
import { parsePoolXml } from '../libvirt/pool-xml.js'
import type { StoragePool, StoragePoolInfo } from '../libvirt/records.js'
import { isOnThisMachine } from '../libvirt/uri.js'
import { type Context, defineCheck } from '../plugin/check.js'
import { type Filesystem, FilesystemError, readFilesystem } from '../plugin/filesystem.js'
import { type Mount, readExpectedMountPoints, readMounts } from '../plugin/mounts.js'
import { absenceFindings, autostartOption, inactiveFinding, selectObjects } from '../plugin/objects.js'
import type { OptionTable, OptionValues } from '../plugin/options.js'
import { Verdict } from '../plugin/outcome.js'
import { Silence } from '../plugin/silence.js'
import { partOf } from '../plugin/state.js'
import type { Status } from '../plugin/status.js'
import { formatQuantity } from '../plugin/text.js'
import { fullIn, trendsOf } from '../plugin/trend.js'

/** Pools asked at a time. */
const poolsAtATime = 4
const mostRemembered = 1000
/** A pool's own deadlines, of libvirt and of its directory, must fit into the time that is left. */
const reserve = 2.5
/** The listing as an object that may be silent; no UUID looks like this. */
const listing = 'listing'

/** Pools that libvirt mounts itself, on their own directory. */
const mountedByLibvirt = ['fs', 'netfs']
/** Pools whose directory is an ordinary one of the host. */
const inDirectory = ['dir', ...mountedByLibvirt]
/** Pools of devices that are given away whole: used up from the start. */
const ofWholeDevices = ['iscsi', 'iscsi-direct', 'scsi', 'mpath']
/** File systems whose size changes only when somebody changes it. */
const ofFixedSize = ['ext2', 'ext3', 'ext4', 'xfs', 'f2fs', 'jfs', 'vfat', 'tmpfs', 'overlay']
/** Part of the size by which a file system must differ from what libvirt knew to be another one. */
const anotherSize = 0.01
/** Points by which libvirt's numbers must be off to be mentioned. */
const staleByPercent = 1

/** A pool's directory, seen from this machine. */
export interface PoolDirectory extends Filesystem {
  readonly path: string
  /** Type of the file system it is on. */
  readonly type?: string | undefined
  /** Where /etc/fstab wants a file system at or above the directory, and there is none. */
  readonly unmounted?: string | undefined
}

/** What is known of one pool. */
export interface PoolSample {
  readonly name: string
  readonly uuid: string
  /** Named by `--pool`: somebody counts on it. */
  readonly named: boolean
  /** Undefined when libvirt did not list its pools. */
  readonly autostart?: boolean | undefined
  readonly info?: StoragePoolInfo | undefined
  readonly type?: string | undefined
  readonly directory?: PoolDirectory | FilesystemError | undefined
  /** Growth of what is used, in bytes per second; only when asked for, and with enough history. */
  readonly perSecond?: number | undefined
  /** Why the rest is missing, and for how long it has been so; without that it was not asked. */
  readonly silent?: { readonly why: string; readonly seconds?: number } | undefined
}

export interface PoolsSample {
  readonly uri: string
  readonly pools: readonly PoolSample[]
  /** Named by `--pool` and not there. */
  readonly missing: readonly string[]
  /** How long libvirt has not listed its pools, when it does not. */
  readonly unlistedSeconds?: number | undefined
}

const options = {
  warning: { type: 'range', alias: 'w', default: '85', summary: 'Warn outside this range (% used).' },
  critical: { type: 'range', alias: 'c', default: '95', summary: 'Critical outside this range (% used).' },
  pool: { type: 'strings', summary: 'Look only at these pools, which must be there and active (repeatable).' },
  match: { type: 'regex', summary: 'Look only at pools whose name matches, besides those of --pool.' },
  exclude: { type: 'regex', summary: 'Leave out pools whose name matches; wins over --pool and --match.' },
  ...autostartOption,
  fullWarning: { type: 'range', summary: 'Warn outside this range (hours until it is full), as in 24:.' },
  fullCritical: { type: 'range', summary: 'Critical outside this range (hours until it is full), as in 4:.' },
  history: { type: 'duration', default: '1h', summary: 'Foretell that from growth over at least this time.' },
  poolTimeout: { type: 'duration', default: '5s', summary: 'Take a pool for hung that does not answer for this long.' },
  libvirtOnly: { type: 'flag', summary: "Do not look at the pools' directories on this machine." },
} as const satisfies OptionTable
type Options = OptionValues<typeof options>

export default defineCheck({
  name: 'check-kvm-pool',
  summary: 'Storage pools: inactive, full, not mounted, hung.',
  description: `CRITICAL: not active though it starts with the host (\`--autostart\`) or is named by \`--pool\`; does not answer; its directory is gone; libvirt should have mounted it, or /etc/fstab
has a file system at or above its directory, and nothing is mounted there.

libvirt's numbers are as old as the pool's last refresh, and it does not tell how old that is. So pools in directories (dir, fs, netfs) are judged by what df says now, when libvirt is on this machine;
a difference is mentioned (\`virsh pool-refresh\` ends it). When the file system there has another size than libvirt knew, it is probably another one: CRITICAL when it is that of the root
directory, WARNING otherwise; not told of file systems such as ZFS and Btrfs, whose size varies by itself. A directory that may not be looked at is judged by libvirt's numbers.

Used is counted as df does: a pool is full when nothing is available to QEMU any more, even if some space is kept for the superuser. Pools of whole devices (iscsi, scsi, mpath), and those whose capacity libvirt does not know, are not judged by it.

Each pool is asked on a connection of its own, and its directory by a process of its own, for no longer than \`--pool-timeout\`: one that hangs, as on a dead NFS server, is named, and the others are complete.
While libvirt refreshes a pool that hangs it cannot list its pools either: those that the last run knew are asked then. What does not answer is asked again after ten minutes, since each such question
blocks one of libvirt's worker threads.

With \`--full-…\` the check foretells when a pool will be full, from its growth over the last one to two \`--history\`, and of the two halves of that time from the one in which it grew slower. Run it at least four
times in that time. Pools that are not in directories seem to grow only when libvirt refreshes them.

Three calls, and two for each pool.`,
  options,
  async collect(host: Host, asked, context): Promise<PoolsSample> {
    const memory = partOf(context.state, 'known')
    const kept = readKept(await memory.read().catch(() => undefined))
    const silence = new Silence(kept.silent, context.now())
    const timeoutMs = Math.min(asked.poolTimeout * 1000, context.timeLeftMs() / (2 * reserve))
    context.stage('asking libvirt')
    // When the daemon itself hangs, that is no pool's fault.
    await host.libVersion({ signal: context.signal })
    context.stage('listing storage pools')
    const listed = await askWithin(host, silence, listing, own => listPools(own, timeoutMs, context.signal))
    const known = listed ?? { pools: kept.pools, autostart: undefined }
    const { selected, missing } = selectObjects(known.pools, { ...asked, names: asked.pool })
    context.stage('reading storage pools')
    const look = await prepareLook(host.uri, asked, context)
    const pools: PoolSample[] = []
    const queue = selected.values()
    const work = async () => {
      for (const pool of queue) {
        const sample = await readPool(host, pool, { silence, look, timeoutMs, context })
        const named = asked.pool.includes(pool.name) || asked.pool.includes(pool.uuid)
        if (sample !== 'gone') pools.push({ named, autostart: known.autostart?.has(pool.uuid), ...sample })
      }
    }
    await Promise.all(Array.from({ length: poolsAtATime }, work))
    const keep = { pools: known.pools.slice(0, mostRemembered), silent: silence.keep() }
    // Where nothing can be kept, a run knows only what it sees itself.
    await memory.write(keep).catch(() => undefined)
    return {
      uri: context.uri,
      pools: await withTrends(pools.sort(byName), asked, context),
      missing: listed === undefined ? [] : missing,
      unlistedSeconds: listed === undefined ? silence.secondsOf(listing) : undefined,
    }
  },
  evaluate({ uri, pools, missing, unlistedSeconds }, asked) {
    const verdict = new Verdict()
    for (const pool of pools) judgePool(verdict, pool, asked)
    if (unlistedSeconds !== undefined) {
      const hung = pools.some(({ silent }) => silent !== undefined)
      const known = hung ? 'one of them hangs' : 'one of them hangs; which, no earlier run knew'
      const message = `libvirt does not list its storage pools${sinceText(unlistedSeconds)}: ${known}: look at its storage, then restart libvirtd`
      verdict.add({ status: 'CRITICAL', message })
    } else {
      const { pool: names, match } = asked
      for (const finding of absenceFindings('pool', { selected: pools, missing }, { names, match }, uri))
        verdict.add(finding)
    }
    verdict.summary = summaryOf(pools, uri)
    return verdict
  },
})

function byName(one: PoolSample, other: PoolSample): number {
  return one.name < other.name ? -1 : 1
}

/** The pools with their growth, when that is asked for. */
async function withTrends(
  pools: readonly PoolSample[],
  asked: Options,
  { state, now }: Context,
): Promise<PoolSample[]> {
  if (asked.fullWarning === undefined && asked.fullCritical === undefined) return [...pools]
  const used = pools.flatMap(pool => {
    const usage = pool.info === undefined ? '' : usageOf(pool, pool.info)
    return typeof usage === 'string' ? [] : [[pool.uuid, usage.usedBytes] as const]
  })
  const trends = await trendsOf(partOf(state, 'trends'), now(), new Map(used), asked.history)
  return pools.map(pool => ({ ...pool, perSecond: trends.get(pool.uuid) }))
}

interface Kept {
  readonly pools: readonly StoragePool[]
  readonly silent: unknown
}

/** What the last run kept; files may hold anything. */
function readKept(value: unknown): Kept {
  if (typeof value !== 'object' || value === null) return { pools: [], silent: undefined }
  const { pools, silent }: Partial<Record<string, unknown>> = { ...value }
  return { pools: Array.isArray(pools) ? pools.filter(isPool) : [], silent }
}

function isPool(value: unknown): value is StoragePool {
  if (typeof value !== 'object' || value === null || !('name' in value) || !('uuid' in value)) return false
  return typeof value.name === 'string' && typeof value.uuid === 'string' && /^[0-9a-f-]{36}$/.test(value.uuid)
}

async function listPools(host: Host, timeoutMs: number, signal: AbortSignal) {
  const pools = await host.storagePools({}, { timeoutMs, signal })
  const autostart = await host.storagePools({ autostart: true }, { timeoutMs, signal })
  return { pools, autostart: new Set(autostart.map(({ uuid }) => uuid)) }
}

/** Asks on a connection of its own, which a question that hangs cannot block for others. Undefined when there is no answer. */
async function askWithin<T>(
  host: Host,
  silence: Silence,
  object: string,
  ask: (own: Host) => Promise<T>,
): Promise<T | undefined> {
  if (!silence.mayAsk(object)) return undefined
  const own = host.another()
  try {
    return await ask(own)
  } catch (error) {
    if (!(error instanceof LibvirtTimeoutError)) throw error
    silence.note(object)
    return undefined
  } finally {
    await own.close()
  }
}

interface Reading {
  readonly silence: Silence
  readonly look: Look | undefined
  readonly timeoutMs: number
  readonly context: Context
}

async function readPool(
  host: Host,
  pool: StoragePool,
  { silence, look, timeoutMs, context }: Reading,
): Promise<Omit<PoolSample, 'named' | 'autostart'> | 'gone'> {
  const { name, uuid } = pool
  const { signal } = context
  if (context.timeLeftMs() < timeoutMs * reserve)
    return { name, uuid, silent: { why: 'not asked in the time of this run' } }
  try {
    const answer = await askWithin(host, silence, uuid, async own => ({
      info: await own.storagePoolInfo(pool, { timeoutMs, signal }),
      ...(await parsePoolXml(await own.storagePoolXml(pool, { timeoutMs, signal }))),
    }))
    if (answer === undefined)
      return { name, uuid, silent: { why: 'does not answer libvirt', seconds: silence.secondsOf(uuid) } }
    const { info, type, path } = answer
    const lookable = look !== undefined && path !== undefined && info.state !== 'inactive' && inDirectory.includes(type)
    const directory = lookable ? await readDirectory(path, type, look, timeoutMs) : undefined
    return { name, uuid, info, type, directory }
  } catch (error) {
    if (error instanceof LibvirtError && error.notFound) return 'gone'
    throw error
  }
}

/** What a look at the pools' directories needs to know of this machine. */
interface Look {
  readonly mounts: readonly Mount[]
  /** Mount points that /etc/fstab wants. */
  readonly expected: readonly string[]
}

/** Undefined when the pools' directories are not to be looked at, or not on this machine. */
async function prepareLook(uri: string, { libvirtOnly }: Options, { path }: Context): Promise<Look | undefined> {
  if (libvirtOnly || !isOnThisMachine(uri)) return undefined
  const expected = await readExpectedMountPoints(path('/etc/fstab'))
  return { mounts: await readMounts(path('/proc/self/mounts')), expected }
}

async function readDirectory(
  path: string,
  type: string,
  { mounts, expected }: Look,
  timeoutMs: number,
): Promise<PoolDirectory | FilesystemError> {
  try {
    const filesystem = await readFilesystem(path, timeoutMs)
    // It has just answered, so this does not hang.
    const real = await realpath(path).catch(() => path)
    const isMounted = (point: string) => mounts.some(({ mountPoint }) => mountPoint === point)
    const wanted = mountedByLibvirt.includes(type)
      ? [real]
      : expected.filter(point => [path, real].some(own => own === point || own.startsWith(`${point}/`)))
    return {
      path,
      ...filesystem,
      type: mounts.findLast(({ mountPoint }) => mountPoint === filesystem.mountPoint)?.type,
      unmounted: wanted.find(point => !isMounted(point)),
    }
  } catch (error) {
    if (error instanceof FilesystemError) return error
    throw error
  }
}

function judgePool(verdict: Verdict, pool: PoolSample, options: Options): void {
  const { name, info, silent, directory } = pool
  const add = (status: Status, message: string) => verdict.add({ status, device: name, message })
  if (silent !== undefined) {
    if (silent.seconds === undefined) add('UNKNOWN', silent.why)
    else add('CRITICAL', `${silent.why}${sinceText(silent.seconds)}: it hangs: look at its storage`)
    return
  }
  if (info === undefined) return
  verdict.measure({ name: 'active', labels: { pool: name }, value: info.state === 'inactive' ? 0 : 1, min: 0, max: 1 })
  if (info.state === 'inactive') {
    verdict.add(inactiveFinding(pool, options.autostart, 'virsh pool-start'))
    return
  }
  if (info.state === 'degraded') add('WARNING', 'degraded: look at its storage')
  if (info.state === 'inaccessible') add('CRITICAL', 'inaccessible: look at its storage')
  if (directory instanceof FilesystemError) {
    if (directory.kind === 'hung') add('CRITICAL', `${directory.message}: look at its storage`)
    if (directory.kind === 'missing') add('CRITICAL', `active, but its directory is gone: ${directory.message}`)
  } else if (directory !== undefined) judgeMount(verdict, name, directory, info)
  judgeUsage(verdict, pool, info, options)
}

function judgeMount(verdict: Verdict, device: string, directory: PoolDirectory, info: StoragePoolInfo): void {
  const { path, unmounted, mountPoint, totalBytes, type = 'unknown' } = directory
  if (unmounted !== undefined) {
    const message = `active, but nothing is mounted on ${unmounted}: what guests write to ${path} goes to ${mountPoint}`
    verdict.add({ status: 'CRITICAL', device, message })
    return
  }
  const known = info.capacityBytes
  if (!ofFixedSize.includes(type) || known === 0 || Math.abs(totalBytes / known - 1) <= anotherSize) return
  const [then, now] = [formatQuantity(known, 'B'), formatQuantity(totalBytes, 'B')]
  verdict.add({
    status: mountPoint === '/' ? 'CRITICAL' : 'WARNING',
    device,
    message: `active, but ${path} is on a file system of ${now} (mounted on ${mountPoint}), not on the one of ${then} that libvirt knew: mount that, or virsh pool-refresh if it was resized`,
  })
}

interface Usage {
  readonly totalBytes: number
  readonly usedBytes: number
  readonly availableBytes: number
  readonly note: string
}

function judgeUsage(verdict: Verdict, pool: PoolSample, info: StoragePoolInfo, options: Options): void {
  const { name } = pool
  const { warning, critical } = options
  const usage = usageOf(pool, info)
  if (typeof usage === 'string') {
    verdict.add({ status: 'OK', device: name, message: usage })
    return
  }
  const { totalBytes, usedBytes, availableBytes, note } = usage
  const used = { name: 'used_percent', value: usedPercent(usage), unit: '%', min: 0, max: 100 } as const
  verdict.judge({ device: name, deviceLabel: 'pool', what: 'used', ...used, note, warning, critical })
  const bytes = { labels: { pool: name }, unit: 'B', min: 0, max: totalBytes } as const
  verdict.measure({ ...bytes, name: 'used', value: usedBytes })
  verdict.measure({ ...bytes, name: 'available', value: availableBytes })
  const growth = fullIn(availableBytes, pool.perSecond ?? 0, options)
  if (growth !== undefined) verdict.judge({ device: name, deviceLabel: 'pool', ...growth })
}

/** As df counts: full when nothing is available any more, whatever is kept for the superuser. */
function usedPercent({ usedBytes, availableBytes }: Pick<Usage, 'usedBytes' | 'availableBytes'>): number {
  const bothBytes = usedBytes + availableBytes
  return bothBytes === 0 ? 100 : (usedBytes / bothBytes) * 100
}

/** How full a pool is, or in words why that is not judged. */
function usageOf({ type = '', directory }: PoolSample, info: StoragePoolInfo): Usage | string {
  if (ofWholeDevices.includes(type))
    return `active; not judged, since a pool of type ${type} gives its devices away whole`
  const knownBytes = info.capacityBytes
  if (directory === undefined || directory instanceof FilesystemError) {
    if (knownBytes === 0) return 'active; not judged, since its capacity is not known'
    const availableBytes = Math.min(knownBytes, info.availableBytes)
    const note = `of ${formatQuantity(knownBytes, 'B')} at its last refresh`
    return { totalBytes: knownBytes, usedBytes: knownBytes - availableBytes, availableBytes, note }
  }
  const { totalBytes, usedBytes, availableBytes } = directory
  if (totalBytes === 0) return 'active; not judged, since its capacity is not known'
  const shareOf = (used: number, total: number) => (total === 0 ? 0 : (used / total) * 100)
  const known = shareOf(info.allocationBytes, knownBytes)
  const stale = Math.abs(known - shareOf(usedBytes, totalBytes)) > staleByPercent
  const difference = stale ? ` (libvirt knows of ${formatQuantity(info.allocationBytes, 'B')}: virsh pool-refresh)` : ''
  const note = `of ${formatQuantity(totalBytes, 'B')}${difference}`
  return { totalBytes, usedBytes, availableBytes, note }
}

/** ` for 2 h`, nothing when it has just begun. */
function sinceText(seconds: number): string {
  return seconds < 1 ? '' : ` for ${formatQuantity(seconds, 's')}`
}

function summaryOf(pools: readonly PoolSample[], uri: string): string {
  const active = pools.filter(({ info }) => info !== undefined && info.state !== 'inactive')
  const usages = active.flatMap(pool => {
    const usage = pool.info === undefined ? '' : usageOf(pool, pool.info)
    return typeof usage === 'string' ? [] : [{ name: pool.name, percent: usedPercent(usage), note: usage.note }]
  })
  const [fullest] = usages.sort((one, other) => other.percent - one.percent)
  const inactive = pools.length - active.length
  return [
    pools.length === 0 ? `no storage pools on ${uri}` : `${active.length} active`,
    ...(inactive === 0 ? [] : [`${inactive} inactive`]),
    ...(usages.length === active.length ? [] : [`${active.length - usages.length} not judged`]),
    ...(fullest === undefined
      ? []
      : [`fullest ${fullest.name}, ${formatQuantity(fullest.percent, '%')} used ${fullest.note}`]),
  ].join('; ')
}

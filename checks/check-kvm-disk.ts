import { type DiskImage, diskImagesOf } from '../libvirt/disk-images.js'
import { readGuestLimits } from '../libvirt/guest-configs.js'
import type { Host } from '../libvirt/host.js'
import { missingBecause } from '../libvirt/monitor-trouble.js'
import { poolOf, readPoolSpaces } from '../libvirt/pool-space.js'
import type { Domain, DomainStats } from '../libvirt/records.js'
import { isOnThisMachine } from '../libvirt/uri.js'
import { type Context, defineCheck } from '../plugin/check.js'
import { guestLimitsOption } from '../plugin/limits.js'
import { type LocalFile, lookAtFiles } from '../plugin/local-files.js'
import type { OptionTable, OptionValues } from '../plugin/options.js'
import { Verdict } from '../plugin/outcome.js'
import { partOf } from '../plugin/state.js'
import { formatQuantity } from '../plugin/text.js'
import { fullIn, trendsOf } from '../plugin/trend.js'

/** One image of a disk. */
export interface Image {
  /** Absent for what is neither a local file nor a device. */
  readonly path?: string | undefined
  readonly kind: 'file' | 'device' | 'network' | 'missing' | 'unknown'
  /** Space it takes where it is stored. */
  readonly takenBytes?: number | undefined
  /** What it takes that space from: the name of a {@link Space}. */
  readonly space?: string | undefined
  /** Why it is not known, in words. */
  readonly why?: string | undefined
}

/** One disk of a guest. */
export interface Disk {
  readonly name: string
  readonly capacityBytes?: number | undefined
  /** The image that is written to. */
  readonly top: Image
  /** Those below it, nearest first. */
  readonly below: readonly Image[]
}

/** One guest and its disks. */
export interface GuestDisks extends Domain {
  readonly disks: readonly Disk[]
  /** Why there are no numbers. */
  readonly missing?: string | undefined
  readonly limits?: Readonly<Record<string, string>> | undefined
}

/** What images take their space from. */
export interface Space {
  readonly name: string
  readonly totalBytes: number
  readonly availableBytes: number
  /** Growth of what is taken, in bytes per second; absent until there is enough history. */
  readonly perSecond?: number | undefined
}

export interface DiskSample {
  /** The guests that were asked for. */
  readonly guests: readonly GuestDisks[]
  /** The others: their disks take of the same space. */
  readonly others: readonly GuestDisks[]
  readonly spaces: readonly Space[]
}

const options = {
  warning: {
    type: 'range',
    alias: 'w',
    default: '100',
    summary:
      'Warn outside this range (what the disks on a file system or pool may still grow by, % of what is free there).',
  },
  critical: { type: 'range', alias: 'c', summary: 'Critical outside this range (what disks may grow by, % of free).' },
  usedWarning: { type: 'range', default: '95', summary: 'Warn outside this range (% in use where disks may grow).' },
  usedCritical: {
    type: 'range',
    default: '98',
    summary: 'Critical outside this range (% in use where disks may grow).',
  },
  fullWarning: { type: 'range', default: '24:', summary: 'Warn outside this range (hours until it is full).' },
  fullCritical: {
    type: 'range',
    default: '4:',
    summary: 'Critical outside this range (hours until it is full).',
  },
  history: {
    type: 'duration',
    default: '1h',
    summary: 'Foretell when it is full from growth over at least this time.',
  },
  allocationWarning: { type: 'range', summary: "Warn outside this range (space taken, % of the disk's capacity)." },
  allocationCritical: {
    type: 'range',
    summary: "Critical outside this range (space taken, % of the disk's capacity).",
  },
  pools: {
    type: 'flag',
    summary: "Take free space from libvirt's storage pools, not from this machine's file systems.",
  },
  ...guestLimitsOption,
} as const satisfies OptionTable
type Options = OptionValues<typeof options>

export default defineCheck({
  name: 'check-kvm-disk',
  summary:
    "Space that the guests' disks take and may still take, when it will be gone, and images that are missing (domblkinfo).",
  description: `A disk in a file may grow until it takes as much as the guest sees (its capacity); space that it takes already is its allocation and says nothing about what is in use inside the guest. When
the disks on a file system may together grow by more than is free there, they can outgrow it: a guest whose disk finds no space is paused. That is a WARNING (\`--warning 100\`); whoever promises more than there is on
purpose raises the limit. Disks of all guests count, also of those that are not asked for.

Where disks may grow, the file system itself is judged too (\`--used-…\`, later than check-kvm-pool does it), and when it will be full. That is foretold from the growth over the last one to two \`--history\`, whatever grows there, as check-kvm-guest-filesystem does.

An image that is missing is CRITICAL: of a running guest QEMU still has it open, and it is lost when the guest ends; a guest that is off does not start. With external snapshots the image that is written to is an
overlay, and what it takes is not what the disk takes: the message names how many images are below it. What is below the disk of a guest that is off is not known.

Block devices and network disks (RBD, iSCSI) have their space elsewhere: they are counted, not judged. Drives without a medium are left out.

On the hypervisor itself files are looked at where they are, each file system with two seconds; one that hangs (a dead NFS server) is UNKNOWN and named, and its files are not touched. On another machine, or with \`--pools\` (in a container that does not see the images), the space comes from the storage pools in which the images are, as of their last
refresh, and missing images are not noticed.

One libvirt call for any number of guests; for pools one more and two for each pool; with \`--guest-limits\` the XML of every guest.`,
  guests: true,
  options,
  async collect(host: Host, asked, context): Promise<DiskSample> {
    const { signal, stage } = context
    stage('reading disks')
    const groups = ['state', 'block'] as const
    const { takenAtMs, guests: all } = await host.domainStats({ groups, backing: true, signal })
    const local = isOnThisMachine(host.uri) && !asked.pools
    const { imageOf, spaces } = local ? await lookHere(all, context) : await lookAtPools(host, context)
    const trends = await trendsOf(
      partOf(context.state, 'trends'),
      takenAtMs,
      new Map(spaces.map(({ name, totalBytes, availableBytes }) => [name, totalBytes - availableBytes])),
      asked.history,
    )
    const guests = all.map(stats => disksOf(stats, imageOf))
    const selected = context.selectGuests(guests)
    const chosen = new Set(selected)
    stage("reading guests' XML")
    const limits = asked.guestLimits ? await readGuestLimits(host, selected, 'check-kvm-disk', signal) : undefined
    return {
      guests: selected.map(guest => ({ ...guest, limits: limits?.get(guest.uuid) })),
      others: guests.filter(guest => !chosen.has(guest)),
      spaces: spaces.map(space => ({ ...space, perSecond: trends.get(space.name) })),
    }
  },
  evaluate({ guests, others, spaces }, asked) {
    const verdict = new Verdict()
    for (const guest of guests) {
      if (guest.missing !== undefined) verdict.add({ status: 'UNKNOWN', guest: guest.name, message: guest.missing })
      const limits = verdict.limitsOf(asked, guest)
      for (const disk of guest.disks) judgeDisk(verdict, guest, disk, limits)
    }
    judgeUnknown(verdict, guests)
    const concerned = new Set(guests.flatMap(({ disks }) => disks.map(({ top }) => top.space)))
    const promises = promisesOf([...guests, ...others], spaces).filter(({ space }) => concerned.has(space.name))
    for (const promise of promises) judgeSpace(verdict, promise, asked)
    verdict.summary = summaryOf(guests, promises, asked.history)
    return verdict
  },
})

/** What is known of an image that is a local file or device. */
type ImageOf = (path: string, image: DiskImage) => Image

async function lookHere(all: readonly DomainStats[], context: Context): Promise<{ imageOf: ImageOf; spaces: Space[] }> {
  const { pending, timeLeftMs, stage, path: here } = context
  stage('looking at image files')
  const paths = all.flatMap(stats => diskImagesOf(stats).flatMap(disk => disk.images.flatMap(({ path }) => path ?? [])))
  const reserveMs = timeLeftMs() / 4
  const { files, spaces } = await lookAtFiles(
    paths.map(path => here(path)),
    { pending, mounts: here('/proc/self/mounts'), timeLeftMs: () => timeLeftMs() - reserveMs },
  )
  const imageOf: ImageOf = path => localImage(path, files.get(here(path)))
  return { imageOf, spaces: spaces.map(({ mountPoint, ...space }) => ({ name: mountPoint, ...space })) }
}

function localImage(path: string, file: LocalFile | undefined): Image {
  if (file?.kind === 'file') return { path, kind: 'file', takenBytes: file.usedBytes, space: file.mountPoint }
  if (file?.kind === 'device' || file?.kind === 'missing') return { path, kind: file.kind }
  return { path, kind: 'unknown', why: file?.text }
}

async function lookAtPools(host: Host, { signal, stage }: Context): Promise<{ imageOf: ImageOf; spaces: Space[] }> {
  stage('reading storage pools')
  const pools = await readPoolSpaces(host, { signal })
  const nameOf = (name: string) => `pool ${name}`
  const imageOf: ImageOf = (path, { takenBytes }) => {
    if (path.startsWith('/dev/')) return { path, kind: 'device' }
    const pool = poolOf(path, pools)
    return { path, kind: 'file', takenBytes, space: pool && nameOf(pool.name) }
  }
  return { imageOf, spaces: pools.map(({ name, path: _, ...space }) => ({ name: nameOf(name), ...space })) }
}

function disksOf(stats: DomainStats, imageOf: ImageOf): GuestDisks {
  const { domain, blocks } = stats
  const answered = domain.id === undefined || blocks.length === 0 || blocks.some(({ readOps }) => readOps !== undefined)
  const disks = diskImagesOf(stats).map(({ name, capacityBytes, images }): Disk => {
    const [top = networkImage, ...below] = images.map(image =>
      image.path === undefined ? networkImage : imageOf(image.path, image),
    )
    return { name, capacityBytes, top, below }
  })
  return { ...domain, disks, missing: missingBecause(stats, answered) }
}

const networkImage: Image = { kind: 'network' }

/** By how much a disk may still grow; only images in files do. */
function growthOf({ top, capacityBytes }: Disk): number {
  if (top.kind !== 'file' || top.takenBytes === undefined || capacityBytes === undefined) return 0
  return Math.max(0, capacityBytes - top.takenBytes)
}

function judgeDisk(verdict: Verdict, { name: guest, id }: GuestDisks, disk: Disk, limits: Options): void {
  const { name: device, top, below, capacityBytes } = disk
  for (const image of [top, ...below]) {
    if (image.kind !== 'missing') continue
    const what = image === top ? 'its image' : 'the backing file'
    const remedy =
      id === undefined
        ? 'the guest does not start without it'
        : 'QEMU still has it open, the guest will not start again: virsh blockcopy saves it'
    verdict.add({ status: 'CRITICAL', guest, device, message: `${what} ${image.path} is missing: ${remedy}` })
  }
  if (top.takenBytes === undefined || !capacityBytes) return
  const overlay = below.length === 0 ? '' : ` in an overlay, ${belowText(below)}`
  const taken = {
    guest,
    device,
    deviceLabel: 'disk',
    what: 'space taken',
    name: 'allocated_percent',
    unit: '%',
  } as const
  const note = `of its capacity of ${formatQuantity(capacityBytes, 'B')}${overlay}`
  const { allocationWarning: warning, allocationCritical: critical } = limits
  verdict.judge({ ...taken, value: (top.takenBytes / capacityBytes) * 100, note, warning, critical, min: 0 })
  const labels = { guest, disk: device }
  const chain = [top, ...below].flatMap(({ takenBytes }) => takenBytes ?? [])
  const chainBytes = chain.length === 1 + below.length ? chain.reduce((sum, bytes) => sum + bytes, 0) : undefined
  verdict.measure({ name: 'allocated', labels, value: chainBytes, unit: 'B', min: 0 })
  verdict.measure({ name: 'images', labels, value: 1 + below.length, min: 1 })
}

/** `with 2 images below it (e2.qcow2, base.qcow2)`. */
function belowText(below: readonly Image[]): string {
  const names = below.map(({ path }) => path?.replace(/^.*\//, '') ?? 'a network disk')
  const shown = names.length > 3 ? [...names.slice(0, 2), '…', ...names.slice(-1)] : names
  return `with ${below.length} ${below.length === 1 ? 'image' : 'images'} below it (${shown.join(', ')})`
}

/** Images that could not be looked at: one finding for each reason, not for each image. */
function judgeUnknown(verdict: Verdict, guests: readonly GuestDisks[]): void {
  const reasons = new Map<string, string[]>()
  for (const { name, disks } of guests) {
    for (const disk of disks) {
      const image = [disk.top, ...disk.below].find(({ kind }) => kind === 'unknown')
      if (image === undefined) continue
      const why = image.why ?? 'not known'
      const place = `${name} ${disk.name}`
      const places = reasons.get(why)
      if (places === undefined) reasons.set(why, [place])
      else places.push(place)
    }
  }
  for (const [why, disks] of reasons) {
    const some = `${disks.slice(0, 3).join(', ')}${disks.length > 3 ? ` and ${disks.length - 3} more` : ''}`
    verdict.add({ status: 'UNKNOWN', message: `images of ${some}: ${why}` })
  }
}

/** What disks may still take of one space. */
interface Promised {
  readonly space: Space
  readonly bytes: number
  /** Disks that may grow there, the one that may grow most first. */
  readonly disks: readonly { readonly place: string; readonly bytes: number }[]
}

function promisesOf(guests: readonly GuestDisks[], spaces: readonly Space[]): Promised[] {
  const growing = new Map<string, { place: string; bytes: number; space: string | undefined }>()
  for (const { name, disks } of guests) {
    for (const disk of disks) {
      const bytes = growthOf(disk)
      // An image that several guests use grows once.
      if (bytes > 0 && disk.top.path !== undefined)
        growing.set(disk.top.path, { place: `${name} ${disk.name}`, bytes, space: disk.top.space })
    }
  }
  return spaces.map(space => {
    const own = [...growing.values()].filter(disk => disk.space === space.name)
    const disks = own.toSorted((one, other) => other.bytes - one.bytes)
    return { space, bytes: disks.reduce((sum, disk) => sum + disk.bytes, 0), disks }
  })
}

function judgeSpace(verdict: Verdict, { space, bytes, disks }: Promised, limits: Options): void {
  const { name: device, availableBytes, totalBytes, perSecond = 0 } = space
  const labels = { space: device }
  verdict.measure({ name: 'free', labels, value: availableBytes, unit: 'B', min: 0, max: totalBytes })
  verdict.measure({ name: 'growth', labels, value: bytes, unit: 'B', min: 0 })
  const [most] = disks
  if (most === undefined) return
  const subject = { device, deviceLabel: 'space' }
  const which =
    disks.length === 1 ? most.place : `${disks.length} disks, most ${formatQuantity(most.bytes, 'B')} of ${most.place}`
  const note = `of the ${formatQuantity(availableBytes, 'B')} free there (${formatQuantity(bytes, 'B')}: ${which})`
  const promised = { ...subject, what: 'disks may grow by', name: 'growth_percent', unit: '%', note, min: 0 } as const
  const value = availableBytes > 0 ? (bytes / availableBytes) * 100 : undefined
  verdict.judge({ ...promised, value, warning: limits.warning, critical: limits.critical })
  const used = { ...subject, what: 'in use', name: 'used_percent', unit: '%', min: 0, max: 100 } as const
  const usedOf = `of ${formatQuantity(totalBytes, 'B')}, and ${which} may grow`
  const { usedWarning, usedCritical } = limits
  const usedPercent = totalBytes > 0 ? ((totalBytes - availableBytes) / totalBytes) * 100 : undefined
  verdict.judge({ ...used, value: usedPercent, note: usedOf, warning: usedWarning, critical: usedCritical })
  const full = fullIn(availableBytes, perSecond, limits)
  if (full !== undefined) verdict.judge({ ...subject, ...full })
}

function summaryOf(guests: readonly GuestDisks[], promises: readonly Promised[], historySeconds: number): string {
  const disks = guests.flatMap(guest => guest.disks)
  const number = `${disks.length} ${disks.length === 1 ? 'disk' : 'disks'} of ${guests.length} ${guests.length === 1 ? 'guest' : 'guests'}`
  const share = ({ bytes, space }: Promised) => (bytes / Math.max(1, space.availableBytes)) * 100
  const [tightest] = promises.filter(promise => promise.bytes > 0).toSorted((one, other) => share(other) - share(one))
  const count = (kind: Image['kind']) => disks.filter(({ top }) => top.kind === kind).length
  const homeless = disks.filter(({ top }) => top.kind === 'file' && top.space === undefined).length
  const collecting = promises.filter(({ bytes, space }) => bytes > 0 && space.perSecond === undefined).length
  return [
    tightest === undefined
      ? `${number}, none may grow in a file system or pool that is known`
      : `${number} may grow by at most ${formatQuantity(share(tightest), '%')} of what is free (${tightest.space.name}: ${formatQuantity(tightest.bytes, 'B')} of ${formatQuantity(tightest.space.availableBytes, 'B')})`,
    ...(count('device') > 0 ? [`${count('device')} on block devices`] : []),
    ...(count('network') > 0 ? [`${count('network')} on the network`] : []),
    ...(homeless > 0 ? [`${homeless} in no storage pool, so their free space is not known`] : []),
    ...(collecting > 0 ? [`growth: collecting for ${formatQuantity(historySeconds, 's')}`] : []),
  ].join('; ')
}

import type { DomainState } from '../../libvirt/records.js'
import { formatQuantity } from '../../plugin/text.js'

/** What may be done to a guest, or why nothing is. */
export type Decision =
  | { readonly act: 'start' | 'resume'; readonly why: string }
  | { readonly act: 'nothing'; readonly why: string }

/** What a state permits: a start of a guest that should run, a resumption once there is room on its disks, or nothing. */
type Permission = readonly [permits: 'start' | 'resume when there is room' | 'nothing', why: string]

/**
 * What each state permits, by `state (reason)` as virsh domstate --reason prints it, else by the state alone. libvirt keeps the reason for which a guest
 * ended until the guest starts again or libvirt does; what an administrator, a migration or the guest itself has ended is never started.
 */
export const permissions: Readonly<Record<string, Permission>> = {
  'shut off (crashed)': ['start', 'its QEMU ended by itself: killed, crashed, or out of memory'],
  'shut off (failed)': ['start', 'it failed to start'],
  'shut off (daemon)': ['start', 'libvirt ended it when it could not reach its QEMU'],
  'paused (I/O error)': ['resume when there is room', 'QEMU paused it because a disk had no space'],
  'shut off (shutdown)': ['nothing', 'it was shut down, from inside or by virsh shutdown'],
  'shut off (destroyed)': ['nothing', 'an administrator switched it off (virsh destroy)'],
  'shut off (saved)': ['nothing', 'an administrator saved it (virsh save, managedsave)'],
  'shut off (migrated)': [
    'nothing',
    'it was migrated: it runs on another host, and a second one would destroy its disks',
  ],
  'shut off (from snapshot)': ['nothing', 'an administrator went back to a snapshot of it that is shut off'],
  'shut off (unknown)': ['nothing', 'libvirt does not know why it is off: it was so before libvirt started'],
  'shut off': ['nothing', 'this reason is not known here'],
  'paused (user)': ['nothing', 'an administrator paused it (virsh suspend)'],
  'paused (watchdog)': ['nothing', 'its watchdog ran out: somebody has to look at it'],
  'paused (unknown)': [
    'nothing',
    'QEMU stopped it for a reason that libvirt does not know, such as an internal error of KVM',
  ],
  'paused (starting up)': ['nothing', 'it is being started'],
  paused: ['nothing', 'a migration, save, dump or snapshot is under way, or somebody has to look at it'],
  crashed: [
    'nothing',
    'its system panicked and its definition keeps it for a look (on_crash): restart it by on_crash, or by hand',
  ],
  'shutting down': ['nothing', 'it is shutting down'],
  suspended: ['nothing', 'it went to sleep by itself'],
  running: ['nothing', 'it runs'],
  blocked: ['nothing', 'it runs'],
}

/** Whether a guest should run: it starts with the host, or the settings say so. */
export interface Wish {
  readonly autostart: boolean
  readonly expected: boolean
}

/** A disk that has an error, and what is free where it is. */
export interface FaultyDisk {
  readonly disk: string
  readonly error: 'none' | 'unspecified' | 'no space' | 'unknown'
  /** Undefined when it is not known, then `unknownBecause` says why. */
  readonly availableBytes?: number | undefined
  /** Where it is: `/var/lib/libvirt/images`, `pool images`. */
  readonly place?: string | undefined
  readonly unknownBecause?: string | undefined
}

/** Whether the disks have to be looked at before it is decided. */
export function needsDisks(state: DomainState): boolean {
  return permissionOf(state)[0] === 'resume when there is room'
}

/** Decides by what libvirt says of the guest now; `disks` are those with an error, undefined when they could not be read. */
export function decide(
  state: DomainState,
  wish: Wish,
  disks: readonly FaultyDisk[] | undefined,
  minimumFreeBytes: number,
): Decision {
  const [permits, because] = permissionOf(state)
  const words = `${stateText(state)}: ${because}`
  if (permits === 'nothing') return { act: 'nothing', why: words }
  if (permits === 'start') {
    if (wish.autostart || wish.expected) return { act: 'start', why: words }
    return { act: 'nothing', why: `${words}; but it is neither marked to start with the host nor named by should_run` }
  }
  const obstacle = obstacleOf(disks, minimumFreeBytes)
  if (obstacle !== undefined) return { act: 'nothing', why: `${stateText(state)}: ${obstacle}` }
  const room = disks?.map(
    ({ disk, place, availableBytes }) => `${disk} has ${formatQuantity(availableBytes, 'B')} on ${place}`,
  )
  return { act: 'resume', why: `${words}, and there is room again: ${room?.join(', ')}` }
}

function permissionOf({ state, reason, reasonCode }: DomainState): Permission {
  const isNew = reason === 'unknown' && reasonCode !== 0
  return (
    (isNew ? undefined : permissions[`${state} (${reason})`]) ??
    permissions[state] ?? ['nothing', 'this state is not known here']
  )
}

/** `shut off (crashed)`. */
export function stateText({ state, reason, stateCode, reasonCode }: DomainState): string {
  const why = reason === 'unknown' && reasonCode !== 0 ? `reason ${reasonCode}` : reason
  return `${state === 'unknown' ? `state ${stateCode}` : state} (${why})`
}

/** What keeps a guest from being resumed: QEMU would only pause it again. */
function obstacleOf(disks: readonly FaultyDisk[] | undefined, minimumFreeBytes: number): string | undefined {
  if (disks === undefined) return 'its disks could not be read'
  if (disks.length === 0) return 'QEMU names no disk with an error, so that its cause is gone cannot be known'
  for (const { disk, error, availableBytes, place, unknownBecause } of disks) {
    if (error !== 'no space')
      return `disk ${disk} had an error other than a lack of space, and nothing tells when that is over`
    if (availableBytes === undefined)
      return `disk ${disk} had no space, and what is free now is not known: ${unknownBecause}`
    if (availableBytes < minimumFreeBytes) {
      const [free, wanted] = [availableBytes, minimumFreeBytes].map(bytes => formatQuantity(bytes, 'B'))
      return `disk ${disk} had no space, and ${place} has ${free} free: waiting for ${wanted}`
    }
  }
  return undefined
}

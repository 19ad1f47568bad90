import type { CallOptions } from './calls.js'
import { askGuests } from './guest-calls.js'
import type { DomainStatsOptions } from './host.js'
import type { BlockStatsView, DiskError, Domain, DomainStatsSample } from './records.js'

/** A disk with an I/O error now. */
export interface DiskFault {
  /** Target name, e.g. `vda`. */
  readonly disk: string
  readonly error: DiskError['error']
  /** Where the disk is on the host; absent when it is no file or could not be read. */
  readonly path?: string | undefined
}

/** What a disk suffers from, in words. */
export const faultWords: Readonly<Record<DiskError['error'], string>> = {
  none: 'no error any more',
  unspecified: 'I/O error',
  'no space': 'no space',
  unknown: 'unknown error',
}

/** The calls made here, as a Host makes them. */
export interface DiskSource {
  domainStats(options: DomainStatsOptions): Promise<DomainStatsSample>
  domainDiskErrors(domain: Domain, options?: CallOptions): Promise<DiskError[]>
}

/** A guest's disk errors with the paths of its disks, as a bulk sample has them. */
export function diskFaultsOf(errors: readonly DiskError[], blocks: readonly BlockStatsView[]): DiskFault[] {
  const paths = new Map(blocks.toReversed().map(({ name, path }) => [name, path]))
  return errors.map(({ disk, error }) => ({ disk, error, path: paths.get(disk) }))
}

/**
 * The disks of guests that have an I/O error now, by UUID: one bulk call for the paths, and DOMAIN_GET_DISK_ERRORS for each guest. A guest whose disks
 * could not be read before the signal (it vanished, its QEMU does not answer) is left out; this never rejects.
 */
export async function readDiskFaults(
  host: DiskSource,
  domains: readonly Domain[],
  signal: AbortSignal,
): Promise<Map<string, DiskFault[]>> {
  const faults = new Map<string, DiskFault[]>()
  if (domains.length === 0) return faults
  const sample = host.domainStats({ groups: ['block'], domains, signal }).catch(() => undefined)
  const readErrors = (domain: Domain, options: CallOptions) =>
    host.domainDiskErrors(domain, options).catch(() => undefined)
  const timeLeftMs = () => (signal.aborted ? 0 : Number.POSITIVE_INFINITY)
  const asked = domains.map(domain => ({ domain }))
  const answers = await askGuests(asked, readErrors, { signal, timeLeftMs })
  const blocks = new Map((await sample)?.guests.map(guest => [guest.domain.uuid, guest.blocks]))
  for (const [uuid, answer] of answers) {
    const errors = answer.kind === 'answered' ? answer.value : undefined
    if (errors !== undefined) faults.set(uuid, diskFaultsOf(errors, blocks.get(uuid) ?? []))
  }
  return faults
}

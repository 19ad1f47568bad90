import type { CallOptions } from './calls.js'
import type { DomainStatsOptions } from './host.js'
import type { DiskError, Domain, DomainStatsSample } from './records.js'

/** Guests asked at a time; the connection for QEMU's monitors has as many places. */
const guestsAtATime = 3

/** A disk with an I/O error now. */
export interface DiskFault {
  /** Target name, e.g. `vda`. */
  readonly disk: string
  readonly error: DiskError['error']
  /** Where the disk is on the host; absent when it is no file or could not be read. */
  readonly path?: string | undefined
}

/** The calls made here, as a Host makes them. */
export interface DiskSource {
  domainStats(options: DomainStatsOptions): Promise<DomainStatsSample>
  domainDiskErrors(domain: Domain, options?: CallOptions): Promise<DiskError[]>
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
  const paths = readPaths(host, domains, signal)
  const queue = domains.values()
  const work = async () => {
    for (const domain of queue) {
      const errors = signal.aborted ? undefined : await host.domainDiskErrors(domain, { signal }).catch(() => undefined)
      const own = (await paths).get(domain.uuid)
      if (errors !== undefined) {
        faults.set(
          domain.uuid,
          errors.map(({ disk, error }) => ({ disk, error, path: own?.get(disk) })),
        )
      }
    }
  }
  await Promise.all(Array.from({ length: Math.min(guestsAtATime, domains.length) }, work))
  return faults
}

/** Paths by guest and disk; none when they cannot be read. */
async function readPaths(host: DiskSource, domains: readonly Domain[], signal: AbortSignal) {
  const sample = await host.domainStats({ groups: ['block'], domains, signal }).catch(() => undefined)
  return new Map(
    sample?.guests.map(({ domain, blocks }) => [domain.uuid, new Map(blocks.map(({ name, path }) => [name, path]))]),
  )
}

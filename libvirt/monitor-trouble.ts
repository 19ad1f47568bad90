import type { DomainStats } from './records.js'

/**
 * Why a running guest's numbers are missing from a bulk sample, in words; undefined when they are there. Asking for `balloon` brings the
 * resident size, asking for `block` the disks' counters, only with the help of QEMU's monitor.
 */
export function missingBecause(stats: DomainStats, present: boolean): string | undefined {
  if (present) return undefined
  const { monitor } = stats
  if (monitor === undefined) return 'libvirt was busy with this guest, so there are no numbers this time'
  const seconds = (monitor.forMs / 1000).toFixed(1)
  return monitor.kind === 'busy'
    ? `another job has held its QEMU for ${seconds} s, so there are no numbers this time`
    : `its QEMU has not answered for ${seconds} s`
}

import { type DiskFault, diskFaultsOf, faultWords } from '../libvirt/disk-faults.js'
import { askGuests, unansweredBecause } from '../libvirt/guest-calls.js'
import type { Host } from '../libvirt/host.js'
import type { Domain, DomainState } from '../libvirt/records.js'
import { defineCheck } from '../plugin/check.js'
import { Verdict } from '../plugin/outcome.js'

/** One active guest and its disks with an error. */
export interface GuestDiskErrors extends Domain {
  readonly state?: DomainState | undefined
  readonly disks: number
  readonly faults: readonly DiskFault[]
  /** Why its errors are not known. */
  readonly unknown?: string | undefined
}

export default defineCheck({
  name: 'check-kvm-disk-error',
  summary: "I/O errors of the guests' disks, as QEMU remembers them (domblkerror).",
  description: `Every disk with an error is CRITICAL, with its cause: no space where it is stored, or another I/O error. QEMU remembers an error until the guest has been continued
(\`virsh resume\`) and the operation has succeeded.

QEMU remembers only errors for which it stops the guest (\`<driver error_policy='stop'>\` or \`enospace\`, the default for writes that find no space). With \`report\` the guest gets the error, and
its own log has it.

A guest whose QEMU does not answer is UNKNOWN and named; the others have their results. Inactive guests are not looked at.

One libvirt call for any number of guests, and one more for each active one, three at a time with two seconds each.`,
  guests: true,
  options: {},
  async collect(host: Host, _, context): Promise<readonly GuestDiskErrors[]> {
    const { signal, stage } = context
    stage('listing guests and their disks')
    const { guests: all } = await host.domainStats({ groups: ['state', 'block'], signal })
    const selected = context.selectGuests(all.map(stats => ({ ...stats.domain, stats })))
    const active = selected.filter(({ id }) => id !== undefined).map(({ stats }) => stats)
    stage('reading disk errors')
    const readErrors = host.domainDiskErrors.bind(host)
    const answers = await askGuests(active, readErrors, context)
    return active.flatMap(({ domain, state, blocks }) => {
      const answer = answers.get(domain.uuid) ?? ({ kind: 'not running' } as const)
      if (answer.kind === 'not running') return []
      const errors = answer.kind === 'answered' ? answer.value.filter(({ error }) => error !== 'none') : []
      const faults = diskFaultsOf(errors, blocks)
      return [{ ...domain, state, disks: blocks.length, faults, unknown: unansweredBecause(answer) }]
    })
  },
  evaluate(guests) {
    const verdict = new Verdict()
    for (const guest of guests) {
      const { name, faults, unknown } = guest
      if (unknown !== undefined) verdict.add({ status: 'UNKNOWN', guest: name, message: unknown })
      for (const fault of faults)
        verdict.add({ status: 'CRITICAL', guest: name, device: fault.disk, message: messageOf(fault, guest) })
      const value = unknown === undefined ? faults.length : undefined
      verdict.measure({ name: 'disks_with_errors', labels: { guest: name }, value, min: 0 })
    }
    const known = guests.filter(({ unknown }) => unknown === undefined)
    const disks = known.reduce((sum, guest) => sum + guest.disks, 0)
    verdict.summary =
      guests.length === 0
        ? 'no active guest'
        : `no I/O errors on ${plural(disks, 'disk')} of ${plural(known.length, 'active guest')}`
    return verdict
  },
})

/** `no space (/data/web1.qcow2), and the guest is paused: make room, then virsh resume`. */
function messageOf({ error, path }: DiskFault, { state }: GuestDiskErrors): string {
  const paused = state?.state === 'paused'
  const where = path === undefined ? '' : ` (${path})`
  const remedy = error === 'no space' ? 'make room' : "see the host's log and repair the storage"
  return `${faultWords[error]}${where}${paused ? `, and the guest is paused: ${remedy}, then virsh resume` : `: ${remedy}`}`
}

function plural(number: number, what: string): string {
  return `${number} ${what}${number === 1 ? '' : 's'}`
}

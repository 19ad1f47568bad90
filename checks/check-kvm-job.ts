import { askGuests, unansweredBecause } from '../libvirt/guest-calls.js'
import { readGuestLimits } from '../libvirt/guest-configs.js'
import type { Host } from '../libvirt/host.js'
import type { Domain, DomainState, JobInfo, JobOperation } from '../libvirt/records.js'
import { defineCheck } from '../plugin/check.js'
import { guestLimitsOption } from '../plugin/limits.js'
import type { OptionTable, OptionValues } from '../plugin/options.js'
import { Verdict } from '../plugin/outcome.js'
import { rangeIn } from '../plugin/range.js'
import { formatQuantity } from '../plugin/text.js'

/** Operations by libvirt's own words (virsh domjobinfo). */
const operations = [
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
] as const satisfies JobOperation[]

const hoursPerSecond = 1 / 3600

/** One active guest and its job. */
export interface GuestJob extends Domain {
  readonly state?: DomainState | undefined
  /** Of type `none` when it has no job; absent when that is not known. */
  readonly job?: JobInfo | undefined
  /** Why its job is not known. */
  readonly unknown?: string | undefined
  readonly limits?: Readonly<Record<string, string>> | undefined
}

const options = {
  warning: { type: 'range', alias: 'w', default: '1', summary: 'Warn outside this range (hours that a job has run).' },
  critical: { type: 'range', alias: 'c', default: '6', summary: 'Critical outside this range (hours).' },
  dirtyWarning: {
    type: 'range',
    default: '100',
    summary: 'Warn outside this range (memory that the guest changes, % of what its migration transfers).',
  },
  dirtyCritical: { type: 'range', summary: 'Critical outside this range (memory changed, % of what is transferred).' },
  iterations: {
    type: 'integer',
    default: 3,
    minimum: 1,
    summary: "Judge a migration's convergence from this pass over the guest's memory on.",
  },
  operation: {
    type: 'strings',
    summary: `Look only at jobs of this operation (repeatable): ${operations.join(', ')}.`,
  },
  ...guestLimitsOption,
} as const satisfies OptionTable
type Options = OptionValues<typeof options>

export default defineCheck({
  name: 'check-kvm-job',
  summary: "How long the guests' jobs have run, and migrations that do not converge (domjobinfo).",
  description: `A job is what libvirt does with a whole guest: migration, save, dump, backup, snapshot. Its age is judged whatever it does; for backups that may take longer run the check
twice, with \`--operation\`.

A migration copies the guest's memory in passes, each what changed during the last one. It does not converge when the guest changes as much as the migration transfers: that is judged from
pass \`--iterations\` on, not after the switch to post-copy. Both numbers are QEMU's (dirty rate and bandwidth of the running pass) and come from the host that the guest leaves.

Jobs on a single disk (blockcopy, blockcommit, blockpull) are none of these; libvirt counts no time for them.

A guest whose QEMU does not answer is UNKNOWN and named; the others have their results. Inactive guests have no jobs.

One libvirt call for any number of guests, and one more for each active one, three at a time with two seconds each; with \`--guest-limits\` the XML of those that have a job.`,
  guests: true,
  options,
  async collect(host: Host, asked, context): Promise<readonly GuestJob[]> {
    const wanted = wantedOperations(asked.operation)
    const { signal, stage } = context
    stage('listing guests')
    // The balloon makes libvirt ask each QEMU, so that those that do not answer are known before they are asked for their jobs.
    const { guests: all } = await host.domainStats({ groups: ['state', 'balloon'], signal })
    const selected = context.selectGuests(all.map(stats => ({ ...stats.domain, stats })))
    const active = selected.filter(({ id }) => id !== undefined).map(({ stats }) => stats)
    stage('reading jobs')
    const readJob = (domain: Domain, limits: { signal?: AbortSignal; timeoutMs?: number }) =>
      host.domainJobStats(domain, 'running', limits)
    const answers = await askGuests(active, readJob, context)
    const guests = active.flatMap(({ domain, state }): GuestJob[] => {
      const answer = answers.get(domain.uuid) ?? ({ kind: 'not running' } as const)
      if (answer.kind === 'not running') return []
      const job = answer.kind === 'answered' ? onlyWanted(answer.value, wanted) : undefined
      return [{ ...domain, state, job, unknown: unansweredBecause(answer) }]
    })
    stage("reading guests' XML")
    const withJob = asked.guestLimits ? guests.filter(isBusy) : []
    const limits = await readGuestLimits(host, withJob, 'check-kvm-job', signal)
    return guests.map(guest => ({ ...guest, limits: limits.get(guest.uuid) }))
  },
  evaluate(guests, asked) {
    const verdict = new Verdict()
    for (const guest of guests) {
      if (guest.unknown !== undefined) verdict.add({ status: 'UNKNOWN', guest: guest.name, message: guest.unknown })
      if (isBusy(guest)) judgeJob(verdict, guest, guest.job, verdict.limitsOf(asked, guest))
    }
    verdict.summary = summaryOf(guests)
    return verdict
  },
})

/** Throws on what is no operation, with what to write. */
function wantedOperations(texts: readonly string[]): ReadonlySet<string> {
  const plain = (text: string) => text.toLowerCase().replaceAll(/[ _-]/g, ' ').trim()
  return new Set(
    texts.map(text => {
      const known = operations.find(operation => operation === plain(text))
      if (known === undefined) throw new Error(`--operation ${text}: not one of ${operations.join(', ')}`)
      return known
    }),
  )
}

const noJob: JobInfo = { type: 'none', params: new Map() }

function onlyWanted(job: JobInfo, wanted: ReadonlySet<string>): JobInfo {
  return wanted.size === 0 || wanted.has(job.operation ?? 'unknown') ? job : noJob
}

type BusyGuest = GuestJob & { readonly job: JobInfo }

/** Whether a job runs; `completed` and its like are what was. */
function isBusy(guest: GuestJob): guest is BusyGuest {
  const type = guest.job?.type
  return type === 'bounded' || type === 'unbounded'
}

function judgeJob(verdict: Verdict, { name: guest, state }: GuestJob, job: JobInfo, limits: Options): void {
  const value = job.elapsedMs === undefined ? undefined : job.elapsedMs / 1000
  const [warning, critical] = [limits.warning, limits.critical].map(range => rangeIn(hoursPerSecond, range))
  const age = { guest, what: `${operationOf(job)} has run`, name: 'job_time', unit: 's', min: 0 } as const
  verdict.judge({ ...age, value, note: progressOf(job), warning, critical })
  if (value === undefined) {
    verdict.add({ status: 'UNKNOWN', guest, message: `${operationOf(job)}: libvirt does not tell how long it has run` })
  }
  const { dataRemainingBytes: remaining, dataTotalBytes: max } = job
  verdict.measure({ name: 'job_remaining', labels: { guest }, value: remaining, unit: 'B', min: 0, max })
  if (job.operation === 'outgoing migration') judgeConvergence(verdict, guest, job, limits, state)
}

function judgeConvergence(
  verdict: Verdict,
  guest: string,
  job: JobInfo,
  limits: Options,
  state: DomainState | undefined,
): void {
  const number = (name: string) => Number(job.params.get(name) ?? 0)
  const changedPerSecond = number('memory_dirty_rate') * number('memory_page_size')
  const transferredPerSecond = number('memory_bps')
  const iteration = number('memory_iteration')
  const throttle = number('auto_converge_throttle')
  const switched = number('memory_postcopy_requests') > 0 || state?.reason === 'post-copy'
  const judged = iteration >= limits.iterations && !switched
  const speeds = [changedPerSecond, transferredPerSecond].map(speed => `${formatQuantity(speed, 'B')}/s`)
  const note = [
    `of what its migration transfers (${speeds.join(' of ')}), pass ${iteration}`,
    ...(throttle > 0 ? [`its CPUs throttled by ${throttle} %`] : []),
  ].join(', ')
  const dirty = { guest, what: 'memory changes', name: 'dirty_percent', unit: '%', note, min: 0 } as const
  const ranges = judged ? { warning: limits.dirtyWarning, critical: limits.dirtyCritical } : {}
  const value = transferredPerSecond > 0 ? (changedPerSecond / transferredPerSecond) * 100 : undefined
  verdict.judge({ ...dirty, value, ...ranges })
  verdict.measure({ name: 'iteration', labels: { guest }, value: iteration, min: 0 })
}

function operationOf({ operation }: JobInfo): string {
  return operation === undefined || operation === 'unknown' ? 'a job' : operation
}

/** `with 1 GiB of 4 GiB left`; undefined when nothing is known. */
function progressOf({ dataTotalBytes, dataRemainingBytes }: JobInfo): string | undefined {
  if (!dataTotalBytes || dataRemainingBytes === undefined) return undefined
  return `with ${formatQuantity(dataRemainingBytes, 'B')} of ${formatQuantity(dataTotalBytes, 'B')} left`
}

function summaryOf(guests: readonly GuestJob[]): string {
  if (guests.length === 0) return 'no active guest'
  const busy = guests.filter(isBusy).toSorted((one, other) => (other.job.elapsedMs ?? 0) - (one.job.elapsedMs ?? 0))
  const [longest] = busy
  const known = guests.filter(({ unknown }) => unknown === undefined).length
  const of = `on ${known} active ${known === 1 ? 'guest' : 'guests'}`
  if (longest === undefined) return `no job ${of}`
  const seconds = longest.job.elapsedMs === undefined ? undefined : longest.job.elapsedMs / 1000
  const oldest = `${longest.name} ${operationOf(longest.job)} ${formatQuantity(seconds, 's')}`
  return `${busy.length} ${busy.length === 1 ? 'job' : 'jobs'} ${of}, oldest ${oldest}`
}

import { type Ask, askAgents } from '../libvirt/guest-agents.js'
import { readGuestLimits } from '../libvirt/guest-configs.js'
import { runOf } from '../libvirt/guest-run.js'
import type { Host } from '../libvirt/host.js'
import type { Domain, JobOperation } from '../libvirt/records.js'
import { type AskedGuest, agentOptions, judgeAnswers, surveyAgents, unansweredText } from '../plugin/agent-answers.js'
import { type Context, defineCheck } from '../plugin/check.js'
import { guestLimitsOption } from '../plugin/limits.js'
import type { OptionTable, OptionValues } from '../plugin/options.js'
import { Verdict } from '../plugin/outcome.js'
import { seenSince } from '../plugin/since.js'
import { partOf } from '../plugin/state.js'
import { formatQuantity } from '../plugin/text.js'

const name = 'check-kvm-guest-frozen'
/** What may be spent on the job of one frozen guest. */
const jobTimeoutMs = 1000

/** What a guest's agent says of its file systems: `frozen` or `thawed`. */
type FreezeStatus = string

/** One guest and how long it has been frozen. */
export interface FreezableGuest extends AskedGuest<FreezeStatus> {
  /** How long its file systems have been seen frozen, run after run; absent when they are not. */
  readonly frozenSeconds?: number | undefined
  /** libvirt's job on it while it is frozen; `unknown` when that could not be determined. */
  readonly job?: JobOperation | 'none' | undefined
}

/** Jobs that freeze a guest for a good reason. */
const goodReasons: readonly FreezableGuest['job'][] = ['backup', 'snapshot']

const options = {
  warning: { type: 'range', alias: 'w', default: '60', summary: 'Warn outside this range (seconds seen frozen).' },
  critical: {
    type: 'range',
    alias: 'c',
    default: '300',
    summary: 'Critical outside this range (seconds seen frozen).',
  },
  ...agentOptions,
  ...guestLimitsOption,
} as const satisfies OptionTable

export default defineCheck({
  name,
  summary: 'Guests whose file systems were left frozen, as after a backup that failed (guest-fsfreeze-status).',
  description: `Nothing can be written in a guest whose file systems are frozen, and its agent answers little else. Backups freeze them for a moment; some leave them so. As long as libvirt runs a backup or a snapshot
of the guest (domjobinfo) that is no alert, but it is mentioned.

Nobody tells since when a guest is frozen: "seen so for" counts from the run that saw it first. What was between two runs is not known, and after an hour without a run it starts anew.

libvirt has no call of its own for this: the command is passed through to the agent, and libvirt marks the guest as tainted (\`custom-ga-command\`), which changes nothing else.

${unansweredText}

One libvirt call for any number of guests, one for each running one (its agent's), one more for each that is frozen, and one more for each whose agent does not answer.`,
  guests: true,
  readWrite: true,
  options,
  async collect(host: Host, { grace, guestLimits }, context): Promise<readonly FreezableGuest[]> {
    const { signal, stage, state } = context
    stage('listing guests')
    const listing = await host.domainStats({ groups: ['state'], signal })
    const guests = await surveyAgents(listing, grace, context, {
      ask: running => askAgents(host, running, freezeStatus, context),
      limits: guestLimits ? running => readGuestLimits(host, running, name, signal) : undefined,
    })
    const frozen = guests.filter(isFrozen)
    const unknown = guests.filter(({ answer }) => answer.kind !== 'answered').map(runOf)
    const conditions = new Map(frozen.map(guest => [runOf(guest), 'frozen']))
    const since = await seenSince(partOf(state, 'frozen'), listing.takenAtMs, conditions, unknown)
    stage("reading frozen guests' jobs")
    const jobs = new Map(
      await Promise.all(frozen.map(async guest => [guest.uuid, await jobOf(host, guest, context)] as const)),
    )
    return guests.map(guest => {
      const sinceMs = since.get(runOf(guest))
      const frozenSeconds = sinceMs === undefined ? undefined : (listing.takenAtMs - sinceMs) / 1000
      return { ...guest, frozenSeconds, job: jobs.get(guest.uuid) }
    })
  },
  evaluate(guests, asked) {
    const verdict = new Verdict()
    const thawed: string[] = []
    const frozen: string[] = []
    const others = judgeAnswers(verdict, guests, asked, (guest, status, limits) => {
      const { name, frozenSeconds } = guest
      if (frozenSeconds !== undefined) {
        judgeFrozen(verdict, guest, frozenSeconds, limits)
        frozen.push(`${name}: ${wordsOf(frozenSeconds, guest)}`)
      } else if (status === 'thawed') {
        verdict.measure({ name: 'frozen', labels: { guest: name }, value: 0, unit: 's' })
        thawed.push(name)
      } else {
        const message = `its agent says neither that its file systems are frozen nor that they are not: ${status}`
        verdict.add({ status: 'UNKNOWN', guest: name, message })
      }
    })
    verdict.summary = [
      ...frozen,
      `no file systems frozen in ${thawed.length} ${thawed.length === 1 ? 'guest' : 'guests'}`,
      ...others,
    ].join('; ')
    return verdict
  },
})

async function freezeStatus(ask: Ask): Promise<FreezeStatus> {
  return String(await ask('guest-fsfreeze-status'))
}

function isFrozen({ answer }: AskedGuest<FreezeStatus>): boolean {
  return answer.kind === 'answered' && answer.value === 'frozen'
}

async function jobOf(host: Host, guest: Domain, { signal }: Context): Promise<FreezableGuest['job']> {
  try {
    const { type, operation } = await host.domainJobStats(guest, 'running', { timeoutMs: jobTimeoutMs, signal })
    return type === 'bounded' || type === 'unbounded' ? (operation ?? 'unknown') : 'none'
  } catch {
    return 'unknown' // that it is frozen is known all the same
  }
}

function judgeFrozen(
  verdict: Verdict,
  guest: FreezableGuest,
  frozenSeconds: number,
  { warning, critical }: Limits,
): void {
  const metric = { name: 'frozen', value: frozenSeconds, unit: 's' } as const
  if (isExcused(guest)) {
    verdict.add({ status: 'OK', guest: guest.name, message: wordsOf(frozenSeconds, guest) })
    verdict.measure({ ...metric, labels: { guest: guest.name } })
    return
  }
  const note = `(${jobWords(guest)}): thaw them with virsh domfsthaw`
  verdict.judge({ ...metric, guest: guest.name, what: 'file systems seen frozen for', note, warning, critical })
}

type Limits = Pick<OptionValues<typeof options>, 'warning' | 'critical'>

function isExcused({ job }: Pick<FreezableGuest, 'job'>): boolean {
  return goodReasons.includes(job)
}

function wordsOf(frozenSeconds: number, guest: FreezableGuest): string {
  return `file systems seen frozen for ${formatQuantity(frozenSeconds, 's')} (${jobWords(guest)})`
}

function jobWords({ job }: FreezableGuest): string {
  if (isExcused({ job })) return `a ${job} is running`
  return job === 'unknown' ? 'whether a backup is running is not known' : 'no backup is running'
}

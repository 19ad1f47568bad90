import { askAgents } from '../libvirt/guest-agents.js'
import { readGuestLimits } from '../libvirt/guest-configs.js'
import type { Host } from '../libvirt/host.js'
import { type AskedGuest, agentOptions, judgeAnswers, surveyAgents, unansweredText } from '../plugin/agent-answers.js'
import { defineCheck } from '../plugin/check.js'
import { guestLimitsOption } from '../plugin/limits.js'
import type { OptionTable } from '../plugin/options.js'
import { Verdict } from '../plugin/outcome.js'
import { violates } from '../plugin/range.js'
import { formatQuantity } from '../plugin/text.js'

const name = 'check-kvm-guest-time'
/** A guest that took longer to answer is asked once more. */
const longRoundTripSeconds = 0.25

/** What a guest's clock showed. */
export interface ClockReading {
  /** How far it was ahead of this machine's in the middle of the round trip; negative when behind. */
  readonly offsetSeconds: number
  /** How long the question took: the offset is uncertain by half of it, both ways. */
  readonly roundTripSeconds: number
}

/** One guest and its clock. */
export type GuestClock = AskedGuest<ClockReading>

const options = {
  warning: { type: 'range', alias: 'w', default: '1', summary: 'Warn outside this range (seconds ahead or behind).' },
  critical: {
    type: 'range',
    alias: 'c',
    default: '10',
    summary: 'Critical outside this range (seconds ahead or behind).',
  },
  ...agentOptions,
  ...guestLimitsOption,
} as const satisfies OptionTable

export default defineCheck({
  name,
  summary: "Clocks in the guests against this machine's, as after a pause or a migration (guest-get-time).",
  description: `The guest's clock is compared with the middle of the time that the question took, so it may be wrong by half of that time, both ways. Judged is what is certain: the drift without that half (\`drift\`). \`offset\` is the
difference itself, negative when the guest is behind, and \`round_trip\` the time it took; a guest that took more than 250 ms is asked once more.

The clock it is compared with is that of the machine the check runs on: keep that right, and run the check on the hypervisor itself rather than over ssh.

${unansweredText}

One libvirt call for any number of guests, one or two for each running one (its agent's), and one more for each whose agent does not answer.`,
  guests: true,
  readWrite: true,
  options,
  async collect(host: Host, { grace, guestLimits }, context): Promise<readonly GuestClock[]> {
    const { signal } = context
    context.stage('listing guests')
    const listing = await host.domainStats({ groups: ['state'], signal })
    return surveyAgents(listing, grace, context, {
      ask: running =>
        askAgents(host, running, (_, guest, limits) => readClock(() => host.domainTimeMs(guest, limits)), context),
      limits: guestLimits ? running => readGuestLimits(host, running, name, signal) : undefined,
    })
  },
  evaluate(guests, asked) {
    const verdict = new Verdict()
    const drifts: { guest: string; seconds: number }[] = []
    const others = judgeAnswers(verdict, guests, asked, ({ name: guest }, reading, { warning, critical }) => {
      const { offsetSeconds, roundTripSeconds } = reading
      const seconds = driftSeconds(reading)
      drifts.push({ guest, seconds })
      verdict.judge({
        guest,
        what: `clock ${offsetSeconds < 0 ? 'behind' : 'ahead'} by at least`,
        name: 'drift',
        value: seconds,
        unit: 's',
        note: [warning, critical].some(range => violates(range, seconds))
          ? `(${formatQuantity(Math.abs(offsetSeconds), 's')} ± ${formatQuantity(roundTripSeconds / 2, 's')}): set it with virsh domtime --now, and run a time service in it`
          : undefined,
        warning,
        critical,
      })
      verdict.measure({ name: 'offset', labels: { guest }, value: offsetSeconds, unit: 's' })
      verdict.measure({ name: 'round_trip', labels: { guest }, value: roundTripSeconds, unit: 's' })
    })
    const [worst] = drifts.toSorted((one, other) => other.seconds - one.seconds)
    verdict.summary = [
      worst === undefined
        ? 'no clock to look at'
        : `largest certain drift ${formatQuantity(worst.seconds, 's')} (${worst.guest}, of ${drifts.length} ${drifts.length === 1 ? 'guest' : 'guests'})`,
      ...others,
    ].join('; ')
    return verdict
  },
})

/** The drift without what the round trip leaves open. */
function driftSeconds({ offsetSeconds, roundTripSeconds }: ClockReading): number {
  return Math.max(0, Math.abs(offsetSeconds) - roundTripSeconds / 2)
}

/** The more certain of two readings; one will do when it was quick. */
async function readClock(read: () => Promise<number>): Promise<ClockReading> {
  const first = await readOnce(read)
  if (first.roundTripSeconds <= longRoundTripSeconds) return first
  const second = await readOnce(read)
  return second.roundTripSeconds < first.roundTripSeconds ? second : first
}

async function readOnce(read: () => Promise<number>): Promise<ClockReading> {
  const beforeMs = Date.now()
  const guestMs = await read()
  const afterMs = Date.now()
  return { offsetSeconds: (guestMs - (beforeMs + afterMs) / 2) / 1000, roundTripSeconds: (afterMs - beforeMs) / 1000 }
}

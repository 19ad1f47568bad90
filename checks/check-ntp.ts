import { parseAddress } from '../plugin/address.js'
import { defineLocalCheck } from '../plugin/check.js'
import { askChronyd, askNtpd, type ClockSync } from '../plugin/clock-sync.js'
import { type Finding, Verdict } from '../plugin/outcome.js'
import { atLeast, parseRange } from '../plugin/range.js'
import { pluginLine, rubyFloat, rubyRound } from '../plugin/ruby.js'
import type { Status } from '../plugin/status.js'

const unsyncedStatuses: ReadonlyMap<string, Status> = new Map([
  ['ok', 'OK'],
  ['warn', 'WARNING'],
  ['crit', 'CRITICAL'],
  ['unknown', 'UNKNOWN'],
])

/** The stratum of a clock that follows none. */
const noStratum = 16

export default defineLocalCheck({
  name: 'check-ntp',
  summary: 'How far the clock of this machine is off, as its ntpd or chronyd says.',
  description: `The daemon is asked itself on its own port: ntpd with a control message, as \`ntpq\` does, and chronyd for its tracking, as \`chronyc\` does; the one that answers counts. The Ruby plugin runs
\`ntpq\` and knows ntpd only. The offset of ntpd is the one it shows as such, that of chronyd what its system time is off from NTP time. systemd-timesyncd answers nobody: use one of
the others, or [check-kvm-guest-time](check-kvm-guest-time.md) from the hypervisor.

\`-u ok\` judges offset and stratum though no source is followed.`,
  options: {
    warning: {
      type: 'number',
      alias: 'w',
      default: 10,
      summary: 'Warn from this offset on, in either direction (ms).',
    },
    critical: {
      type: 'number',
      alias: 'c',
      default: 100,
      summary: 'Critical from this offset on, in either direction (ms).',
    },
    stratum: { type: 'integer', alias: 's', default: 15, summary: 'Critical above this stratum.' },
    unsyncedStatus: {
      type: 'string',
      alias: 'u',
      default: 'unknown',
      summary: 'What it is when no source is followed: ok, warn, crit or unknown.',
    },
    ntpd: { type: 'string', default: '127.0.0.1:123', summary: 'Where ntpd listens.' },
    chronyd: { type: 'string', default: '127.0.0.1:323', summary: 'Where chronyd listens for commands.' },
  },
  rubyLine: pluginLine('CheckNTP'),
  async collect({ unsyncedStatus, ntpd, chronyd }, { stage, signal }) {
    const unsynced = unsyncedStatuses.get(unsyncedStatus.toLowerCase())
    if (unsynced === undefined) throw new Error(`-u ${unsyncedStatus}: write one of ok, warn, crit, unknown`)
    const addresses = { ntpd: parseAddress(ntpd, '--ntpd'), chronyd: parseAddress(chronyd, '--chronyd') }
    stage(`asking ntpd at ${ntpd} and chronyd at ${chronyd}`)
    const answers = [askNtpd(addresses.ntpd, signal), askChronyd(addresses.chronyd, signal)]
    const sync = await Promise.any(answers).catch((error: AggregateError) => {
      const reasons = error.errors.map(reason => (reason instanceof Error ? reason.message : String(reason)))
      throw new Error(
        `NTP command Failed: neither ntpd (${reasons[0]}) nor chronyd (${reasons[1]}) tells: start one of them`,
      )
    })
    return { sync, unsynced }
  },
  evaluate({ sync, unsynced }, options) {
    const verdict = new Verdict()
    const { stratum, offsetMs } = sync
    const value = rubyRound(Math.abs(offsetMs), 6)
    verdict.measure({ name: 'stratum', value: stratum, critical: parseRange(`~:${options.stratum}`) })
    const trouble = troubleOf(sync, unsynced, options.stratum)
    verdict.summary = trouble?.message ?? `NTP offset by ${rubyFloat(value)}ms`
    if (trouble !== undefined) return verdict.add(trouble)
    const limits = { warning: atLeast(options.warning), critical: atLeast(options.critical) }
    verdict.judge({ name: 'offset_milliseconds', what: 'milliseconds off', value, ...limits })
    return verdict
  },
})

/** What makes the offset meaningless, in the order of the Ruby plugin. */
function troubleOf({ synchronized, stratum }: ClockSync, unsynced: Status, highest: number): Finding | undefined {
  if (!synchronized && unsynced !== 'OK') return { status: unsynced, message: 'NTP state unsynced' }
  if (stratum >= noStratum) return { status: 'CRITICAL', message: 'NTP not synced' }
  if (stratum <= highest) return undefined
  return { status: 'CRITICAL', message: `NTP stratum (${stratum}) above limit (${highest})` }
}

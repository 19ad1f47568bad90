import { type DiskFault, faultWords, readDiskFaults } from '../libvirt/disk-faults.js'
import type { Host } from '../libvirt/host.js'
import type { Domain, DomainState, DomainStateName, DomainStats } from '../libvirt/records.js'
import { type Context, defineCheck } from '../plugin/check.js'
import { parseExpectations } from '../plugin/expectations.js'
import { selectGuests, selectionFindings } from '../plugin/guests.js'
import { type Finding, Verdict } from '../plugin/outcome.js'
import { seenSince } from '../plugin/since.js'
import type { Status } from '../plugin/status.js'
import { formatQuantity } from '../plugin/text.js'

/** Time that may be spent on finding the disks of guests paused by an I/O error: their state is known already. */
const faultsTimeoutMs = 5000

/** What is known of one guest. */
export interface GuestState {
  readonly name: string
  readonly uuid: string
  /** Undefined when libvirt told none. */
  readonly state?: DomainState | undefined
  /** Marked to start with the host, and yet inactive. */
  readonly autostartInactive?: boolean
  /** Active, though not marked to start with the host. Known only when asked for. */
  readonly noAutostart?: boolean
  /** Active, though not defined: gone when it ends. Known only when asked for. */
  readonly transient?: boolean
  /** How long its QEMU has not answered, when it does not. */
  readonly notAnsweringSeconds?: number | undefined
  /** How long it has been seen in this state, run after run. */
  readonly seenSeconds?: number | undefined
  readonly diskFaults?: readonly DiskFault[] | undefined
}

export interface StateSample {
  readonly uri: string
  readonly guests: readonly GuestState[]
  /** Guests named by `--guest` or `--expect` that are not there. */
  readonly missing: readonly string[]
}

/** Passing: on the way to another state, which is well unless it lasts. */
type Judgement = readonly [status: Status | 'passing', remedy?: string]

/** What a state calls for; `state (reason)` wins over `state`. Names as virsh domstate --reason prints them. */
const judgements: Readonly<Record<string, Judgement>> = {
  running: ['OK'],
  'running (crashed)': ['WARNING', 'it was restarted after a crash'],
  'running (post-copy failed)': ['CRITICAL', 'see virsh domjobinfo on both hosts'],
  blocked: ['OK'],
  paused: ['passing'],
  'paused (user)': ['WARNING', 'continue it with virsh resume'],
  'paused (from snapshot)': ['WARNING', 'continue it with virsh resume'],
  'paused (unknown)': ['CRITICAL', "its QEMU stopped it, as after an internal error of KVM: see QEMU's log"],
  'paused (I/O error)': ['CRITICAL', 'make room or repair the storage, then virsh resume'],
  'paused (watchdog)': ['CRITICAL', 'its watchdog ran out: see its console'],
  'paused (crashed)': ['CRITICAL', 'see its console'],
  'paused (post-copy failed)': ['CRITICAL', 'see virsh domjobinfo on both hosts'],
  'shutting down': ['passing'],
  'shut off': ['OK'],
  'shut off (crashed)': ['CRITICAL', "its QEMU ended by itself: see QEMU's log, then virsh start"],
  'shut off (failed)': ['CRITICAL', "it failed to start: see QEMU's log"],
  'shut off (daemon)': ['CRITICAL', "libvirt ended it when it could not reach its QEMU: see libvirt's log"],
  crashed: ['CRITICAL', 'see its console, then virsh destroy and start'],
  suspended: ['WARNING', 'it went to sleep: wake it with virsh dompmwakeup'],
}

const expectable = ['running', 'paused', 'shut off', 'crashed', 'suspended'] as const satisfies DomainStateName[]
type Expectable = (typeof expectable)[number]
const severities = { critical: 'CRITICAL', warning: 'WARNING', ignore: 'OK' } as const

export default defineCheck({
  name: 'check-kvm-state',
  summary: 'State of the guests, with its reason: crashed, paused by an I/O error, not running though it should.',
  description: `CRITICAL: crashed or panicked, QEMU gone (shut off (crashed)), failed to start, paused by an I/O error (its disks are named), by its watchdog or for an unknown reason, not active
though it is to start with the host (\`--autostart\`), in another state than \`--expect\` says, named by \`--guest\` or \`--expect\` and not there, and running with a QEMU that does not answer.
WARNING: paused by a user or a snapshot, asleep, restarted after a crash, and on the way to another state (paused for a migration, save, dump or snapshot; shutting down) for longer than \`--stuck-after\`.
\`--expect\` makes a state that would be a WARNING right. Guests that are shut off are OK otherwise.

libvirt does not tell since when a guest is in its state: "seen so for" counts from the run that saw it first, and starts anew when no run has looked for an hour.
It forgets why a guest ended when it is restarted itself. A guest whose QEMU hangs is "running" for it: that it does not answer is known only from other calls, so inside the agent, next to checks
that ask QEMU (as check-kvm-memory does).

Two calls for any number of guests (one with \`--autostart ignore\`), one more for each of the two \`--warn-…\`; for guests paused by an I/O error one more, and one for each of them.`,
  guests: true,
  options: {
    expect: {
      type: 'strings',
      summary: `Critical unless GUEST=STATE, or with STATE alone unless each guest is in it (repeatable): ${expectable.join(', ')}.`,
    },
    autostart: {
      type: 'choice',
      choices: ['critical', 'warning', 'ignore'],
      default: 'critical',
      summary: 'What it is when a guest that is to start with the host is not active.',
    },
    warnTransient: { type: 'flag', summary: 'Warn of active guests that are not defined: gone when they end.' },
    warnNoAutostart: { type: 'flag', summary: 'Warn of active guests that do not start with the host.' },
    stuckAfter: {
      type: 'duration',
      default: '15m',
      summary: 'Warn of guests seen longer than this paused for a migration, save, dump or snapshot, or shutting down.',
    },
  },
  async collect(host: Host, options, context): Promise<StateSample> {
    const named = [...options.guest, ...parseExpectations('--expect', options.expect, expectable).byName.keys()]
    const { signal } = context
    context.stage('reading the states of guests')
    const [{ guests }, inactive, transient, noAutostart] = await Promise.all([
      host.domainStats({ groups: ['state'], signal }),
      options.autostart === 'ignore' ? [] : host.domains({ autostart: true, active: false }, { signal }),
      options.warnTransient ? host.domains({ active: true, persistent: false }, { signal }) : [],
      options.warnNoAutostart ? host.domains({ active: true, autostart: false }, { signal }) : [],
    ])
    const all = guests.map(stats => ({ ...stats, name: stats.domain.name, uuid: stats.domain.uuid }))
    const withNamed = selectGuests(all, { ...options, guest: named })
    const narrowed = options.guest.length > 0 || options.match !== undefined
    const { selected } = narrowed ? withNamed : selectGuests(all, options)
    const faults = await readFaults(host, selected, context)
    const seenSeconds = await readSeen(selected, context)
    const isIn = (domains: readonly Domain[]) => {
      const ids = new Set(domains.map(({ uuid }) => uuid))
      return (uuid: string) => ids.has(uuid)
    }
    const [isInactive, isTransient, isNotAutostart] = [isIn(inactive), isIn(transient), isIn(noAutostart)]
    return {
      uri: context.uri,
      missing: withNamed.missing.filter(name => options.exclude?.test(name) !== true),
      guests: selected.map(({ name, uuid, state, monitor }) => ({
        name,
        uuid,
        state,
        autostartInactive: isInactive(uuid),
        transient: isTransient(uuid),
        noAutostart: isNotAutostart(uuid),
        notAnsweringSeconds: monitor?.kind === 'not answering' ? monitor.forMs / 1000 : undefined,
        seenSeconds: seenSeconds.get(uuid),
        diskFaults: faults.get(uuid),
      })),
    }
  },
  evaluate({ uri, guests, missing }, options) {
    const verdict = new Verdict()
    const { byName, all } = parseExpectations('--expect', options.expect, expectable)
    for (const guest of guests) {
      const expected = byName.get(guest.name) ?? byName.get(guest.uuid) ?? all
      verdict.add({ guest: guest.name, ...judge(guest, expected, options) })
      const warn = (message: string) => verdict.add({ status: 'WARNING', guest: guest.name, message })
      if (guest.transient) warn('active, but not defined: it is gone when it ends; virsh define keeps it')
      else if (guest.noAutostart) warn('active, but does not start with the host: virsh autostart changes that')
    }
    for (const guest of missing) {
      const message = `no such guest on ${uri}: undefined, migrated away, or wrongly named by --guest or --expect`
      verdict.add({ status: 'CRITICAL', guest, message })
    }
    for (const finding of selectionFindings({ selected: guests, missing: [] }, options, uri)) verdict.add(finding)
    const counts = countStates(guests)
    for (const [name, value] of counts) verdict.measure({ name: name.replace(' ', '_'), value, min: 0 })
    verdict.measure({ name: 'missing', value: missing.length, min: 0 })
    verdict.summary = summaryOf(guests, counts, uri)
    return verdict
  },
})

/** The disks of guests paused by an I/O error; not at the expense of the run, since the guests' state is known already. */
function readFaults(host: Host, guests: readonly DomainStats[], { signal, stage, timeLeftMs }: Context) {
  stage('reading the disks of guests paused by an I/O error')
  const paused = guests.filter(({ state }) => state?.state === 'paused' && state.reason === 'I/O error')
  const timeMs = Math.max(1, Math.min(faultsTimeoutMs, timeLeftMs() / 2))
  const domains = paused.map(({ domain }) => domain)
  return readDiskFaults(host, domains, AbortSignal.any([signal, AbortSignal.timeout(timeMs)]))
}

/** For how long guests that do not run have been seen in their state, in seconds by UUID. */
async function readSeen(
  guests: readonly DomainStats[],
  { state: kept, now, stage }: Context,
): Promise<Map<string, number>> {
  stage('keeping since when guests are in their states')
  const conditions = new Map<string, string>()
  for (const { domain, state } of guests) {
    if (state !== undefined && state.state !== 'running')
      conditions.set(domain.uuid, `${state.stateCode}/${state.reasonCode}`)
  }
  const nowMs = now()
  // Where nothing can be kept it is not known since when; the states are.
  const since = await seenSince(kept, nowMs, conditions).catch(() => new Map<string, number>())
  return new Map([...since].map(([uuid, sinceMs]) => [uuid, (nowMs - sinceMs) / 1000]))
}

type Options = Readonly<{ autostart: keyof typeof severities; stuckAfter: number }>

function judge(guest: GuestState, expected: Expectable | undefined, options: Options): Omit<Finding, 'guest'> {
  const { state, seenSeconds = 0 } = guest
  if (state === undefined) return { status: 'UNKNOWN', message: 'libvirt does not tell its state' }
  const words = wordsOf(guest, state)
  if (guest.notAnsweringSeconds !== undefined) {
    const seconds = formatQuantity(guest.notAnsweringSeconds, 's')
    return {
      status: 'CRITICAL',
      message: `${words}, but its QEMU has not answered for ${seconds}: see QEMU's log and the storage`,
    }
  }
  const [call, remedy] = judgements[`${state.state} (${state.reason})`] ?? judgements[state.state] ?? unknownState
  const stuck = call === 'passing' && seenSeconds > options.stuckAfter
  const status = call === 'passing' ? (stuck ? 'WARNING' : 'OK') : call
  const own = { status, message: remedy === undefined ? words : `${words}: ${remedy}` }
  if (expected !== undefined) {
    const right = state.state === expected || (state.state === 'blocked' && expected === 'running')
    // A guest that is to be off may have got there by a crash; one that is to run or to pause must be well besides.
    const content = status !== 'CRITICAL' || expected === 'shut off' || expected === 'crashed'
    if (right) return content ? { status: 'OK', message: words } : own
    const wrong = status !== 'CRITICAL' && (call !== 'passing' || stuck)
    return wrong ? { status: 'CRITICAL', message: `${words}, but expected ${expected}` } : own
  }
  if (state.state === 'shut off' && status === 'OK' && guest.autostartInactive === true) {
    return {
      status: severities[options.autostart],
      message: `${words}, though it is to start with the host: virsh start`,
    }
  }
  return own
}

const unknownState: Judgement = ['UNKNOWN', 'not a state this check knows']

/** `paused (I/O error), seen so for 720 s, disk vda: no space (/data/web1.qcow2)`. */
function wordsOf(
  { seenSeconds = 0, diskFaults }: GuestState,
  { state, reason, stateCode, reasonCode }: DomainState,
): string {
  const why = reason === 'unknown' && reasonCode !== 0 ? `reason ${reasonCode}` : reason
  const since = seenSeconds >= 1 ? [`seen so for ${formatQuantity(Math.round(seenSeconds), 's')}`] : []
  const disks = diskFaults?.map(
    ({ disk, error, path }) => `disk ${disk}: ${faultWords[error]}${path === undefined ? '' : ` (${path})`}`,
  )
  const unnamed = state === 'paused' && reason === 'I/O error' && (disks === undefined || disks.length === 0)
  const detail = unnamed ? ['its disk could not be determined'] : (disks ?? [])
  return [`${state === 'unknown' ? `state ${stateCode}` : state} (${why})`, ...since, ...detail].join(', ')
}

function countStates(guests: readonly GuestState[]): Map<string, number> {
  const counts = new Map<string, number>([...expectable, 'other'].map(name => [name, 0]))
  for (const { state } of guests) {
    const name = expectable.find(known => known === state?.state) ?? 'other'
    counts.set(name, (counts.get(name) ?? 0) + 1)
  }
  return counts
}

function summaryOf(guests: readonly GuestState[], counts: ReadonlyMap<string, number>, uri: string): string {
  const [only] = guests
  if (only === undefined) return `no guests to look at on ${uri}`
  if (guests.length === 1 && only.state !== undefined) return `${only.name} ${wordsOf(only, only.state)}`
  const present = [...counts].filter(([, count]) => count > 0).map(([name, count]) => `${count} ${name}`)
  return `${guests.length} guests: ${present.join(', ')}`
}

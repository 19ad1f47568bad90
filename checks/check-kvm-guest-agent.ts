import { type AgentAnswer, type Ask, askAgents } from '../libvirt/guest-agents.js'
import type { Host } from '../libvirt/host.js'
import type { Domain, DomainState } from '../libvirt/records.js'
import { defineCheck } from '../plugin/check.js'
import type { OptionTable, OptionValues } from '../plugin/options.js'
import { type Finding, Verdict } from '../plugin/outcome.js'
import type { Status } from '../plugin/status.js'
import { formatQuantity } from '../plugin/text.js'

/** Commands of an agent that are looked at. */
const mostCommands = 1000

const channelRemedy = "add <channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>"
const startRemedy = 'install and start qemu-guest-agent in it'

/** What an agent says of itself. */
export interface AgentInfo {
  readonly seconds: number
  readonly version: string
  /** Whether each command it knows is enabled. */
  readonly commands: Readonly<Record<string, boolean>>
}

/** What is known of one run of a guest from earlier runs of the check. */
interface Watched {
  readonly id: number
  /** When the check first saw it run (milliseconds since 1970). */
  readonly sinceMs: number
  /** Whether the check ran shortly before it was started, so that `sinceMs` is about when it was. */
  readonly startSeen: boolean
  /** Whether its agent has ever answered. */
  readonly answered: boolean
  /** Whether its agent kept us waiting when it was last asked. */
  readonly silent: boolean
}

/** One guest and its agent. */
export interface GuestAgent extends Domain {
  readonly state: DomainState
  readonly answer: AgentAnswer<AgentInfo>
  readonly watchedSeconds: number
  readonly startSeen: boolean
  /** Whether its agent has answered before in this run of the guest. */
  readonly answeredBefore: boolean
}

const statuses = ['ok', 'warning', 'critical', 'unknown'] as const
const statusOf: Readonly<Record<(typeof statuses)[number], Status>> = {
  ok: 'OK',
  warning: 'WARNING',
  critical: 'CRITICAL',
  unknown: 'UNKNOWN',
}
const options = {
  grace: { type: 'duration', default: '5m', summary: 'How long a started guest may take until its agent answers.' },
  require: { type: 'strings', summary: 'A command that must be enabled, such as guest-fsfreeze-freeze (repeatable).' },
  notConfigured: {
    type: 'choice',
    choices: statuses,
    default: 'warning',
    summary: 'State of a guest without a channel for an agent.',
  },
  notAnswering: {
    type: 'choice',
    choices: statuses,
    default: 'critical',
    summary: 'State of a guest whose agent does not answer.',
  },
  disabled: {
    type: 'choice',
    choices: statuses,
    default: 'warning',
    summary: 'State of a guest whose agent refuses a command that is needed.',
  },
} as const satisfies OptionTable
type Options = OptionValues<typeof options>

export default defineCheck({
  name: 'check-kvm-guest-agent',
  summary: 'Whether the QEMU guest agents answer (guest-ping, guest-info).',
  description: `Four cases are told apart: the guest has no channel for an agent (\`--not-configured\`), it is still booting (OK), its agent does not answer
(\`--not-answering\`), or it answers but a needed command is disabled (\`--disabled\`; guest-ping and guest-info always are needed, others with \`--require\`).

Still booting is a guest whose start the check has witnessed no longer than \`--grace\` ago, and whose agent has not connected yet. libvirt does not tell when a guest was started: for a
guest that was already running when the check first looked, an agent that is not connected is UNKNOWN until \`--grace\` has passed.

Guests that do not run are not asked; a paused one is mentioned. An agent has one second for each command. Three are asked at a time, those that were silent last time at the end, and an agent that
did not answer is left alone for a while by a long-running program. When the run's time would not suffice for all, those not asked are UNKNOWN and the others have their results.

One libvirt call for any number of guests, two for each running one (its agent's), and one more for each whose agent does not answer.`,
  guests: true,
  readWrite: true,
  options,
  async collect(host: Host, { grace }, context): Promise<readonly GuestAgent[]> {
    const { signal, stage, state: store } = context
    stage('listing guests')
    const { takenAtMs, guests: all } = await host.domainStats({ groups: ['state'], signal })
    const guests = context.selectGuests(all.flatMap(({ domain, state }) => (state ? [{ ...domain, state }] : [])))
    const running = guests.filter(({ state }) => state.state === 'running' || state.state === 'blocked')
    const watched = watch(await store.read(), guests, takenAtMs, grace)
    stage('asking guest agents')
    const wasSilent = ({ uuid }: Domain) => Number(watched.get(uuid)?.silent === true)
    const inOrder = running.toSorted((one, other) => wasSilent(one) - wasSilent(other))
    const answers = await askAgents(host, inOrder, interview, context)
    await store.write(kept(takenAtMs, watched, answers))
    return guests.map(guest => {
      const { sinceMs = takenAtMs, startSeen = false, answered = false } = watched.get(guest.uuid) ?? {}
      const answer = answers.get(guest.uuid) ?? ({ kind: 'not running' } as const)
      return { ...guest, answer, watchedSeconds: (takenAtMs - sinceMs) / 1000, startSeen, answeredBefore: answered }
    })
  },
  evaluate(guests, asked) {
    const verdict = new Verdict()
    for (const guest of guests) {
      for (const finding of findingsOf(guest, asked)) verdict.add({ ...finding, guest: guest.name })
      if (guest.answer.kind !== 'answered') continue
      const labels = { guest: guest.name }
      verdict.measure({ name: 'response_time', labels, value: guest.answer.value.seconds, unit: 's' })
    }
    verdict.summary = summaryOf(guests)
    return verdict
  },
})

async function interview(ask: Ask): Promise<AgentInfo> {
  const startedMs = performance.now()
  await ask('guest-ping')
  const seconds = (performance.now() - startedMs) / 1000
  return { seconds, ...agentInfo(await ask('guest-info')) }
}

/** Version and commands out of guest-info's answer, which comes from inside the guest: nothing in it is certain. */
function agentInfo(info: unknown): Omit<AgentInfo, 'seconds'> {
  const fields = record(info)
  const version = typeof fields['version'] === 'string' ? fields['version'] : 'of unknown version'
  const listed: unknown[] = Array.isArray(fields['supported_commands']) ? fields['supported_commands'] : []
  const commands = listed.slice(0, mostCommands).map(record)
  return {
    version,
    commands: Object.fromEntries(commands.map(each => [String(each['name']), each['enabled'] === true])),
  }
}

function record(value: unknown): Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null ? { ...value } : {}
}

/** What is known of guests before they are asked: carried on for one that still is in the same run, paused or not; one that is off has none. */
function watch(last: unknown, guests: readonly Domain[], nowMs: number, graceSeconds: number): Map<string, Watched> {
  const { atMs, guests: seen } = record(last)
  const lastMs = typeof atMs === 'number' && atMs <= nowMs ? atMs : undefined
  const startSeen = lastMs !== undefined && nowMs - lastMs <= graceSeconds * 1000
  const before = lastMs === undefined ? {} : record(seen)
  return new Map(
    guests.flatMap(({ uuid, id }) => {
      if (id === undefined) return []
      const known = Object.hasOwn(before, uuid) ? before[uuid] : undefined
      const fresh = { id, sinceMs: nowMs, startSeen, answered: false, silent: false }
      return [[uuid, isWatched(known) && known.id === id ? known : fresh] as const]
    }),
  )
}

function isWatched(value: unknown): value is Watched {
  const { id, sinceMs, startSeen, answered, silent } = record(value)
  const flags = [startSeen, answered, silent].every(flag => typeof flag === 'boolean')
  return typeof id === 'number' && typeof sinceMs === 'number' && flags
}

/** What the next run is to know. An agent that refuses a command has answered; of one that was not asked nothing new is known. */
function kept(atMs: number, watched: ReadonlyMap<string, Watched>, answers: ReadonlyMap<string, AgentAnswer<unknown>>) {
  const guests = [...watched].map(([uuid, guest]) => {
    const kind = answers.get(uuid)?.kind ?? 'not asked'
    const answered = guest.answered || kind === 'answered' || kind === 'refused'
    return [uuid, { ...guest, answered, silent: kind === 'not asked' ? guest.silent : kind === 'silent' }] as const
  })
  return { atMs, guests: Object.fromEntries(guests) }
}

function findingsOf(guest: GuestAgent, asked: Options): Finding[] {
  const { answer, state } = guest
  const one = (status: Status, message: string) => [{ status, message }]
  switch (answer.kind) {
    case 'answered':
      return commandFindings(answer.value, asked)
    case 'refused':
      return one(statusOf[asked.disabled], `its agent refuses to answer: ${answer.text}`)
    case 'not configured':
      return one(statusOf[asked.notConfigured], `no agent configured: ${channelRemedy}`)
    case 'not connected':
      return [connectionFinding(guest, asked)]
    case 'silent': {
      const message = `its agent does not answer, for ${formatQuantity(answer.seconds, 's')}: restart qemu-guest-agent in it`
      return one(statusOf[asked.notAnswering], message)
    }
    case 'not asked':
      return one('UNKNOWN', answer.text)
    case 'not running':
      return state.state === 'paused' ? one('OK', `paused (${state.reason}), so its agent is not asked`) : []
  }
}

/** Not connected: still booting, or not there. */
function connectionFinding(guest: GuestAgent, { grace, notAnswering }: Options): Finding {
  const { watchedSeconds, startSeen, answeredBefore } = guest
  const [watched, enough] = [watchedSeconds, grace].map(seconds => formatQuantity(Math.round(seconds), 's'))
  const status = statusOf[notAnswering]
  if (answeredBefore) return { status, message: `its agent is not connected any more: ${startRemedy}` }
  if (watchedSeconds >= grace)
    return { status, message: `its agent has not connected within ${watched}: ${startRemedy}` }
  if (startSeen) return { status: 'OK', message: `still booting, for ${watched}: its agent has not connected yet` }
  const message = `its agent is not connected: still booting or not there, decided when watched for ${enough} (now ${watched})`
  return { status: 'UNKNOWN', message }
}

/** Whether the commands that are needed are there. */
function commandFindings({ seconds, version, commands }: AgentInfo, asked: Options): Finding[] {
  const problems = asked.require.flatMap((command): Finding[] => {
    const enabled = Object.hasOwn(commands, command) ? commands[command] : undefined
    if (enabled) return []
    const message =
      enabled === undefined
        ? `its agent ${version} does not know ${command}: install a newer one`
        : `${command} is disabled in its agent: allow it in the guest's qemu-ga.conf (block-rpcs, formerly blacklist)`
    return [{ status: statusOf[asked.disabled], message }]
  })
  const message = `its agent ${version} answers within ${formatQuantity(seconds, 's')}`
  return problems.length > 0 ? problems : [{ status: 'OK', message }]
}

/** What there is to say when all is well: how many answer, and which guests were not asked. */
function summaryOf(guests: readonly GuestAgent[]): string {
  const answered = guests.flatMap(({ answer }) => (answer.kind === 'answered' ? [answer.value.seconds] : []))
  const others: readonly (readonly [words: string, guests: readonly GuestAgent[]])[] = [
    ['still booting', guests.filter(({ answer }) => answer.kind === 'not connected')],
    ['without an agent', guests.filter(({ answer }) => answer.kind === 'not configured')],
    ['paused', guests.filter(({ state }) => state.state === 'paused')],
  ]
  return [
    answered.length === 0
      ? 'no running guest with an agent'
      : `${answered.length} guest ${answered.length === 1 ? 'agent answers' : 'agents answer'} within ${formatQuantity(Math.max(...answered), 's')}`,
    ...others.flatMap(([words, those]) => (those.length === 0 ? [] : [`${words}: ${namesOf(those)}`])),
  ].join('; ')
}

function namesOf(guests: readonly GuestAgent[]): string {
  const names = guests.slice(0, 3).map(({ name }) => name)
  return names.join(', ') + (guests.length > names.length ? ` and ${guests.length - names.length} more` : '')
}

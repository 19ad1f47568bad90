import type { Context } from './check.js'
import type { OptionTable, OptionValues } from './options.js'
import type { Limited, Verdict } from './outcome.js'
import { partOf } from './state.js'
import { type Status, statusChoices, statusOfChoice } from './status.js'
import { formatQuantity } from './text.js'

const channelRemedy = "add <channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>"
const startRemedy = 'install and start qemu-guest-agent in it'

/** How long a guest may take to boot, as every check of guest agents asks it. */
export const graceOption = {
  grace: { type: 'duration', default: '5m', summary: 'How long a started guest may take until its agent answers.' },
} as const satisfies OptionTable

/** The options of a check that needs something of the guests' agents. */
export const agentOptions = {
  ...graceOption,
  unanswered: {
    type: 'choice',
    choices: statusChoices,
    default: 'unknown',
    summary: 'State of a guest whose agent is not there, does not answer, or refuses to.',
  },
} as const satisfies OptionTable

/** What every check of guest agents says of how it asks them, for its page. */
export const askingText = `Guests that do not run are not asked; a paused one is mentioned. An agent has one second for each call. Three are asked at a time, those that were silent last time at the end, and an agent that
did not answer is left alone for a while by a long-running program. When the run's time would not suffice for all, those not asked are UNKNOWN and come first the next time, and the others have their results.`

/** The same with what becomes of guests without an answer, for checks with {@link agentOptions}. */
export const unansweredText = `A guest whose agent is not there, does not answer or refuses to is UNKNOWN with what to do about it, or what \`--unanswered\` says; one whose start was seen no longer than \`--grace\` ago and whose agent
has not connected yet is still booting and OK.

${askingText}`

interface Guest {
  readonly name: string
  readonly uuid: string
  /** Changes with every start; absent while it is off. */
  readonly id?: number
}

/** What came of asking one guest's agent: an AgentAnswer of libvirt/guest-agents.ts, which says more of each kind. */
export type Answer<T> =
  | { readonly kind: 'answered'; readonly value: T }
  | { readonly kind: 'refused'; readonly text: string }
  | { readonly kind: 'not configured' | 'not connected' | 'not running' }
  | { readonly kind: 'silent'; readonly seconds: number }
  | { readonly kind: 'not asked'; readonly text: string }

/** One guest and what its agent answered. */
export interface AskedGuest<T> extends Guest, Limited {
  readonly state: { readonly state: string; readonly reason: string }
  readonly answer: Answer<T>
  /** How long the check has seen it run. */
  readonly watchedSeconds: number
  /** Whether the check ran shortly before it was started, so that it has been running for about `watchedSeconds`. */
  readonly startSeen: boolean
  /** Whether its agent has answered before in this run of the guest. */
  readonly answeredBefore: boolean
}

/** What is known of one run of a guest from earlier runs of the check. */
interface Watched {
  readonly id: number
  /** When the check first saw it run (milliseconds since 1970). */
  readonly sinceMs: number
  readonly startSeen: boolean
  /** Whether its agent has ever answered. */
  readonly answered: boolean
  /** Whether its agent kept us waiting when it was last asked. */
  readonly silent: boolean
  /** Whether there was no time to ask its agent last time. */
  readonly missed: boolean
}

/** All defined guests, and when they were listed (milliseconds since 1970). */
export interface Listing<G extends Guest> {
  readonly takenAtMs: number
  readonly guests: readonly { readonly domain: G; readonly state?: AskedGuest<unknown>['state'] }[]
}

/** How a survey asks; both get the guests in the order in which to ask them. */
export interface Asking<G extends Guest, T> {
  /** The answers by UUID; a guest without one is not running. */
  ask(guests: readonly G[]): Promise<ReadonlyMap<string, Answer<T>>>
  /** The limits that guests' metadata sets, by UUID, when it may. */
  limits?: ((guests: readonly G[]) => Promise<ReadonlyMap<string, Readonly<Record<string, string>>>>) | undefined
}

/**
 * Asks the agents of the selected guests that run, those for which there was no time last time first and those that were silent at the end, and keeps what tells a guest that boots from one
 * whose agent is gone (part `agents` of the check's state).
 */
export async function surveyAgents<G extends Guest, T>(
  { takenAtMs, guests: all }: Listing<G>,
  graceSeconds: number,
  context: Context,
  { ask, limits }: Asking<G, T>,
): Promise<AskedGuest<T>[]> {
  const listed = all.flatMap(({ domain, state }) =>
    state ? [{ name: domain.name, uuid: domain.uuid, domain, state }] : [],
  )
  const guests = context.selectGuests(listed)
  const domains = guests.map(({ domain }) => domain)
  const state = partOf(context.state, 'agents')
  const watched = watch(await state.read(), domains, takenAtMs, graceSeconds)
  const running = guests.flatMap(({ domain, state: { state } }) => (isRunning(state) ? [domain] : []))
  const place = ({ uuid }: Guest) =>
    Number(watched.get(uuid)?.silent === true) - Number(watched.get(uuid)?.missed === true)
  context.stage('asking guest agents')
  const answers = await ask(running.toSorted((one, other) => place(one) - place(other)))
  await state.write(kept(takenAtMs, watched, answers))
  const own = await limits?.(running)
  return guests.map(({ domain: { name, uuid, id }, state: found }) => {
    const { sinceMs = takenAtMs, startSeen = false, answered = false } = watched.get(uuid) ?? {}
    const answer: Answer<T> = answers.get(uuid) ?? { kind: 'not running' }
    const watchedSeconds = (takenAtMs - sinceMs) / 1000
    const seen = { state: found, answer, watchedSeconds, startSeen, answeredBefore: answered, limits: own?.get(uuid) }
    return id === undefined ? { name, uuid, ...seen } : { name, uuid, id, ...seen }
  })
}

function isRunning(state: string): boolean {
  return state === 'running' || state === 'blocked'
}

/** What is known of guests before they are asked: carried on for one that still is in the same run, paused or not; one that is off has none. */
function watch(last: unknown, guests: readonly Guest[], nowMs: number, graceSeconds: number): Map<string, Watched> {
  const { atMs, guests: seen } = record(last)
  const lastMs = typeof atMs === 'number' && atMs <= nowMs ? atMs : undefined
  const startSeen = lastMs !== undefined && nowMs - lastMs <= graceSeconds * 1000
  const before = lastMs === undefined ? {} : record(seen)
  return new Map(
    guests.flatMap(({ uuid, id }) => {
      if (id === undefined) return []
      const known = Object.hasOwn(before, uuid) ? before[uuid] : undefined
      const fresh = { id, sinceMs: nowMs, startSeen, answered: false, silent: false, missed: false }
      return [[uuid, isWatched(known) && known.id === id ? known : fresh] as const]
    }),
  )
}

function isWatched(value: unknown): value is Watched {
  const { id, sinceMs, startSeen, answered, silent, missed } = record(value)
  const flags = [startSeen, answered, silent, missed].every(flag => typeof flag === 'boolean')
  return typeof id === 'number' && typeof sinceMs === 'number' && flags
}

function record(value: unknown): Readonly<Record<string, unknown>> {
  return isRecord(value) ? value : {}
}

function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null
}

/** What the next run is to know. An agent that refuses a command has answered; of one that was not asked nothing new is known. */
function kept(atMs: number, watched: ReadonlyMap<string, Watched>, answers: ReadonlyMap<string, Answer<unknown>>) {
  const guests = [...watched].map(([uuid, guest]) => {
    const kind = answers.get(uuid)?.kind ?? 'not asked'
    const answered = guest.answered || kind === 'answered' || kind === 'refused'
    const missed = kind === 'not asked' && answers.has(uuid)
    const silent = kind === 'not asked' ? guest.silent : kind === 'silent'
    return [uuid, { ...guest, answered, silent, missed }] as const
  })
  return { atMs, guests: Object.fromEntries(guests) }
}

/** Why there is no answer, in words. */
export interface Trouble {
  readonly kind:
    | Exclude<Answer<unknown>['kind'], 'answered' | 'not running'>
    | 'paused'
    | 'booting'
    /** Not connected, and too early to say whether that is for booting. */
    | 'undecided'
  readonly message: string
}

/** Why a guest has no answer; undefined when it has, or when it does not run at all. */
export function troubleOf(guest: AskedGuest<unknown>, graceSeconds: number): Trouble | undefined {
  const { answer, state } = guest
  switch (answer.kind) {
    case 'answered':
      return undefined
    case 'refused':
      return { kind: 'refused', message: refusalText(answer.text) }
    case 'not configured':
      return { kind: 'not configured', message: `no agent configured: ${channelRemedy}` }
    case 'not connected':
      return connectionTrouble(guest, graceSeconds)
    case 'silent': {
      const message = `its agent does not answer, for ${formatQuantity(answer.seconds, 's')}: restart qemu-guest-agent in it`
      return { kind: 'silent', message }
    }
    case 'not asked':
      return { kind: 'not asked', message: answer.text }
    case 'not running':
      return state.state === 'paused'
        ? { kind: 'paused', message: `paused (${state.reason}), so its agent is not asked` }
        : undefined
  }
}

/** An agent whose file systems are frozen says so in its own English, whatever libvirt's language. */
function refusalText(text: string): string {
  return /frozen/.test(text)
    ? 'its file systems are frozen, and its agent answers nothing else until they are thawed: see check-kvm-guest-frozen'
    : `its agent refuses to answer: ${text}`
}

/** Not connected: still booting, or not there. */
function connectionTrouble(
  { watchedSeconds, startSeen, answeredBefore }: AskedGuest<unknown>,
  graceSeconds: number,
): Trouble {
  const [watched, enough] = [watchedSeconds, graceSeconds].map(seconds => formatQuantity(Math.round(seconds), 's'))
  const kind = 'not connected'
  if (answeredBefore) return { kind, message: `its agent is not connected any more: ${startRemedy}` }
  if (watchedSeconds >= graceSeconds)
    return { kind, message: `its agent has not connected within ${watched}: ${startRemedy}` }
  if (startSeen) return { kind: 'booting', message: `still booting, for ${watched}: its agent has not connected yet` }
  const message = `its agent is not connected: still booting or not there, decided when watched for ${enough} (now ${watched})`
  return { kind: 'undecided', message }
}

/**
 * Judges the guests that answered, with the limits their metadata sets, and records a finding for each of the others. Returns what to add to the
 * summary about those.
 */
export function judgeAnswers<T, More extends object, O extends OptionValues<typeof agentOptions>>(
  verdict: Verdict,
  guests: readonly (AskedGuest<T> & More)[],
  asked: O,
  judge: (guest: AskedGuest<T> & More, value: T, limits: O) => void,
): string[] {
  for (const guest of guests) {
    const trouble = troubleOf(guest, asked.grace)
    if (trouble !== undefined) {
      verdict.add({
        status: statusOfTrouble(trouble, statusOfChoice[asked.unanswered]),
        guest: guest.name,
        message: trouble.message,
      })
    } else if (guest.answer.kind === 'answered') judge(guest, guest.answer.value, verdict.limitsOf(asked, guest))
  }
  return withoutAnswer(guests, asked.grace)
}

/** The state of a guest without an answer; `unanswered` when that is its agent's fault. */
export function statusOfTrouble({ kind }: Trouble, unanswered: Status): Status {
  if (kind === 'booting' || kind === 'paused') return 'OK'
  return kind === 'undecided' || kind === 'not asked' ? 'UNKNOWN' : unanswered
}

const troubleWords: Readonly<Record<Trouble['kind'], string>> = {
  booting: 'still booting',
  'not configured': 'without an agent',
  undecided: 'no answer',
  'not connected': 'no answer',
  silent: 'no answer',
  refused: 'no answer',
  'not asked': 'no answer',
  paused: 'paused',
}

/** The guests without an answer, for a summary: `still booting: web1, web2`. */
export function withoutAnswer(guests: readonly AskedGuest<unknown>[], graceSeconds: number): string[] {
  const groups = new Map<string, Guest[]>(Object.values(troubleWords).map(words => [words, []]))
  for (const guest of guests) {
    const trouble = troubleOf(guest, graceSeconds)
    if (trouble !== undefined) groups.get(troubleWords[trouble.kind])?.push(guest)
  }
  return [...groups].flatMap(([words, those]) => (those.length === 0 ? [] : [`${words}: ${namesOf(those)}`]))
}

function namesOf(guests: readonly Guest[]): string {
  const names = guests.slice(0, 3).map(({ name }) => name)
  return names.join(', ') + (guests.length > names.length ? ` and ${guests.length - names.length} more` : '')
}

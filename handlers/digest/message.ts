import type { SensuEvent } from '../../plugin/event.js'
import { firstLine, stateWord, timeText, worstBefore } from '../../plugin/event-text.js'
import { exitStatusOf, type Status, worstFirst, worstStatus } from '../../plugin/status.js'

/** What goes into one message. */
export interface DigestInput {
  /** The hypervisor's client. */
  readonly host: string
  /** Oldest first; of several about the same client and check the last one counts. */
  readonly events: readonly SensuEvent[]
  /** Events that are not among them. */
  readonly more: number
  /** Lines about single clients. */
  readonly mostLines: number
  readonly nowMs: number
  /** The new event's id. */
  readonly id: string
}

/** The events of the digest that a template may want one by one; more are not listed. */
const mostListed = 1000

/** One event about a host that stands for several about its guests: any handler understands it. Its state is the worst; it is a resolution when all are. */
export function digestEvent(input: DigestInput): Record<string, unknown> {
  const { host, more, nowMs, id } = input
  const latest = latestOf(input.events)
  const problems = latest.filter(({ action }) => action !== 'resolve')
  const status = worstStatus(problems.map(event => event.status))
  const before = worstStatus(latest.flatMap(event => statusBefore(event) ?? []))
  const seconds = Math.floor(nowMs / 1000)
  const flapping = problems.length > 0 && problems.every(({ action }) => action === 'flapping')
  return {
    id,
    client: clientOf(host, latest),
    check: {
      name: 'digest',
      issued: seconds,
      executed: seconds,
      duration: 0,
      status: exitStatusOf[status],
      output: outputOf(input, latest),
      digest: latest
        .slice(0, mostListed)
        .map(({ client, check, action, status }) => ({ client, check, action, status: exitStatusOf[status] })),
      history: [String(problems.length > 0 ? 0 : exitStatusOf[before]), String(exitStatusOf[status])],
      total_state_change: 0,
    },
    occurrences: 1,
    occurrences_watermark: 1,
    last_ok: problems.length > 0 ? null : seconds,
    action: problems.length === 0 ? 'resolve' : flapping ? 'flapping' : 'create',
    timestamp: seconds,
    last_state_change: problems.length > 0 ? (earliest(problems) ?? seconds) : seconds,
    silenced: false,
    silenced_by: [],
    ...(more > 0 && { not_listed: more }),
  }
}

function latestOf(events: readonly SensuEvent[]): SensuEvent[] {
  const latest = new Map<string, SensuEvent>()
  for (const event of events) {
    const key = JSON.stringify([event.client, event.check])
    latest.delete(key)
    latest.set(key, event)
  }
  return [...latest.values()]
}

function statusBefore(event: SensuEvent): Status | undefined {
  const word = worstBefore(event)
  return worstFirst.find(status => status === word)
}

/** The host's own definition when one of the events has it. */
function clientOf(host: string, events: readonly SensuEvent[]): unknown {
  const own = events.find(({ client }) => client === host)
  return own?.raw['client'] ?? { name: host, address: 'unknown', subscriptions: [] }
}

function earliest(events: readonly SensuEvent[]): number | undefined {
  const times = events.flatMap(({ lastStateChange, timestamp }) => lastStateChange ?? timestamp ?? [])
  return times.length === 0 ? undefined : Math.min(...times)
}

/** Events with the same state of the same check. */
interface Group {
  readonly word: string
  readonly check: string
  readonly events: SensuEvent[]
}

/** What comes first is the worst: the order of `stateWord`'s first words. */
const wordOrder: readonly string[] = [...worstFirst.filter(status => status !== 'OK'), 'FLAPPING', 'RESOLVED']

function groupsOf(events: readonly SensuEvent[]): Group[] {
  const groups = new Map<string, Group>()
  for (const event of events) {
    const [word, check] = [stateWord(event), event.check]
    const key = JSON.stringify([word, check])
    const group = groups.get(key)
    if (group === undefined) groups.set(key, { word, check, events: [event] })
    else group.events.push(event)
  }
  const rank = ({ word }: Group) => wordOrder.indexOf(word.split(' ', 1)[0] ?? '')
  return [...groups.values()].toSorted(
    (one, other) => rank(one) - rank(other) || one.check.localeCompare(other.check, 'en'),
  )
}

/** What a check printed about its guest begins with the guest's name already. */
function clientLine(event: SensuEvent): string {
  const line = firstLine(event)
  return line.startsWith(`${event.client}: `) ? `- ${line}` : `- ${event.client}: ${line}`
}

/** A line that counts, then each state of each check with its clients, the worst first. */
function outputOf({ host, more, mostLines }: DigestInput, latest: readonly SensuEvent[]): string {
  const groups = groupsOf(latest)
  const counts = new Map<string, number>()
  for (const { word, events } of groups) counts.set(word, (counts.get(word) ?? 0) + events.length)
  const total = latest.length + more
  const clients = new Set(latest.map(({ client }) => client)).size
  const counted = [...counts].map(([word, count]) => `${count} ${word}`)
  const lines = [
    `${total} events of ${clients} ${clients === 1 ? 'client' : 'clients'} on ${host}: ${counted.join(', ')}${more > 0 ? `, ${more} more` : ''}`,
  ]
  let left = mostLines
  for (const { word, check, events } of groups.slice(0, mostLines)) {
    const since = word === 'RESOLVED' ? undefined : earliest(events)
    lines.push(`${word} ${check}: ${events.length}${since === undefined ? '' : `, since ${timeText(since)}`}`)
    const shown = events.slice(0, left)
    left -= shown.length
    lines.push(...shown.map(clientLine))
    if (shown.length < events.length) lines.push(`- and ${events.length - shown.length} more`)
  }
  if (groups.length > mostLines) lines.push(`and ${groups.length - mostLines} more states of checks`)
  if (more > 0) lines.push(`and ${more} more events, too many to keep: see the dashboard`)
  return `${lines.join('\n')}\n`
}

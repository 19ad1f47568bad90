import type { Status } from './status.js'
import { printable } from './text.js'

/** Bytes of an event that are read at most. */
export const largestEventBytes = 16 * 1024 * 1024

/** An event of a Sensu 1.x server, as handlers get it. Names are safe to print; whatever is in `raw` and in the output is not. */
export interface SensuEvent {
  readonly id: string
  /** What happened: a problem (again), its end, or a state that changes too often. */
  readonly action: 'create' | 'resolve' | 'flapping'
  /** The client that the event is about. */
  readonly client: string
  /** The client that ran the check, when it is another one: for a guest that is its host. */
  readonly origin: string | undefined
  /** Whether the client is a guest, with a result of its own from `--per-guest`. */
  readonly isGuest: boolean
  readonly check: string
  readonly status: Status
  /** Everything that the check printed. */
  readonly output: string
  /** How often the status has been the same in a row. */
  readonly occurrences: number
  /** Statuses as texts, oldest first; the last one is this result's. */
  readonly history: readonly string[]
  /** Seconds since 1970: when the check ran, when it was last OK, when its state last changed. */
  readonly executed: number | undefined
  readonly lastOk: number | undefined
  readonly lastStateChange: number | undefined
  /** Seconds since 1970: when the server made the event. */
  readonly timestamp: number | undefined
  readonly silenced: boolean
  readonly silencedBy: readonly string[]
  /** All of it. */
  readonly raw: Readonly<Record<string, unknown>>
  /** The JSON as it came. */
  readonly json: string
}

const statuses: readonly Status[] = ['OK', 'WARNING', 'CRITICAL', 'UNKNOWN']
const actions = ['create', 'resolve', 'flapping'] as const

/** Reads an event from its JSON. Throws with what is wrong with it. */
export function readEvent(json: string): SensuEvent {
  const raw = record(parsed(json))
  const [client, check] = [record(raw['client']), record(raw['check'])]
  const names = [text(client['name']), text(check['name'])]
  const [clientName, checkName] = names.map(name => printable(name ?? '', 256))
  if (!clientName || !checkName) throw new Error('the input is no Sensu event: it needs client.name and check.name')
  const status = number(check['status']) ?? 3
  const origin = text(check['origin'])
  return {
    id: printable(text(raw['id']) ?? '', 100),
    action: actions.find(action => action === raw['action']) ?? (status === 0 ? 'resolve' : 'create'),
    client: clientName,
    origin: origin === undefined || origin === names[0] ? undefined : printable(origin, 256),
    // What ran says so; other proxy clients are switches, web sites and whatever a site likes.
    isGuest: text(check['source']) !== undefined && /(?:^|\s)--per-guest(?:\s|$)/.test(text(check['command']) ?? ''),
    check: checkName,
    status: statuses[status] ?? 'UNKNOWN',
    output: text(check['output']) ?? '',
    occurrences: number(raw['occurrences']) ?? 1,
    history: list(check['history']).slice(-21).map(statusText),
    executed: number(check['executed']),
    lastOk: number(raw['last_ok']),
    lastStateChange: number(raw['last_state_change']),
    timestamp: number(raw['timestamp']),
    silenced: raw['silenced'] === true,
    silencedBy: list(raw['silenced_by']).flatMap(entry => text(entry) ?? []),
    raw,
    json,
  }
}

function parsed(json: string): unknown {
  if (json.trim() === '')
    throw new Error(
      'no event on standard input: a Sensu server hands it over there, as JSON; where all is well its API has no event either',
    )
  try {
    return JSON.parse(json)
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error)
    throw new Error(`the input is no JSON: ${printable(reason, 150)}`)
  }
}

function record(value: unknown): Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Record<string, unknown>) : {}
}

function text(value: unknown): string | undefined {
  return typeof value === 'string' && value !== '' ? value : undefined
}

/** Sensu has texts here; anything but a status is not OK. */
function statusText(value: unknown): string {
  return typeof value === 'string' || typeof value === 'number' ? String(value).slice(0, 10) : '3'
}

/** A number within what a date can hold. */
function number(value: unknown): number | undefined {
  return typeof value === 'number' && Math.abs(value) < 8.64e12 ? value : undefined
}

function list(value: unknown): readonly unknown[] {
  return Array.isArray(value) ? value : []
}

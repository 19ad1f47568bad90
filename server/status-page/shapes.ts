// What the API answers, as far as the page shows it. Everything in it was written by somebody else: what has an unexpected form is left out
// or empty, never an error.

/** A status as the page knows it: 0 OK, 1 warning, 2 critical, 3 everything else. */
export type Status = 0 | 1 | 2 | 3

/** A current event. */
export interface SensuEvent {
  client: string
  check: string
  /** Who sent the result, when that is another client: for a guest its host. */
  host: string | undefined
  status: Status
  output: string
  /** When it became as it is, Unix seconds; not always known. */
  since: number | undefined
  occurrences: number
  flapping: boolean
  /** The newest statuses, oldest first. */
  history: Status[]
  /** Of the client: they decide what silences it. */
  subscriptions: string[]
}

/** An entry of the silenced registry. */
export interface Silence {
  /** `SUBSCRIPTION:CHECK`, with `*` for any. */
  id: string
  reason: string
  creator: string
  /** When it begins to count, Unix seconds; undefined: at once. */
  begin: number | undefined
  /** Seconds left; undefined when it does not expire. */
  expiresIn: number | undefined
  untilResolved: boolean
}

/** A registered client, in short. */
export interface Client {
  name: string
  /** The client that sends this one's results, for a guest its host. */
  host: string | undefined
  isProxy: boolean
  address: string
  /** Of the last keepalive, Unix seconds; undefined for those that send none. */
  keepalive: number | undefined
}

/** A stored result of a client. */
export interface Result {
  check: string
  status: Status
  output: string
  executed: number | undefined
  history: Status[]
}

export function readEvents(value: unknown): SensuEvent[] {
  return listOf(value, item => {
    const { client, check, ...event } = fields(item)
    const { name: clientName, subscriptions } = fields(client)
    const { name, origin, status, output, history } = fields(check)
    if (textOf(clientName) === '' || textOf(name) === '') return undefined
    return {
      client: textOf(clientName),
      check: textOf(name),
      host: textOf(origin) || undefined,
      status: statusOf(status),
      output: textOf(output),
      since: numberOf(event['last_state_change']) ?? numberOf(event['last_ok']),
      occurrences: numberOf(event['occurrences']) ?? 1,
      flapping: event['action'] === 'flapping',
      history: historyOf(history),
      subscriptions: listOf(subscriptions, textOf),
    }
  })
}

export function readSilences(value: unknown): Silence[] {
  return listOf(value, item => {
    const { id, reason, creator, begin, expire, expire_on_resolve: untilResolved } = fields(item)
    if (textOf(id) === '') return undefined
    const left = numberOf(expire) ?? -1
    return {
      id: textOf(id),
      reason: textOf(reason),
      creator: textOf(creator),
      begin: numberOf(begin),
      expiresIn: left < 0 ? undefined : left,
      untilResolved: untilResolved === true,
    }
  })
}

export function readClients(value: unknown): Client[] {
  return listOf(value, item => {
    const { name, host, type, address, timestamp, keepalives } = fields(item)
    if (textOf(name) === '') return undefined
    return {
      name: textOf(name),
      host: textOf(host) || undefined,
      isProxy: type === 'proxy',
      address: textOf(address),
      keepalive: keepalives === false ? undefined : numberOf(timestamp),
    }
  })
}

export function readResults(value: unknown): Result[] {
  return listOf(value, item => {
    const { name, status, output, executed, history } = fields(fields(item)['check'])
    if (textOf(name) === '') return undefined
    return {
      check: textOf(name),
      status: statusOf(status),
      output: textOf(output),
      executed: numberOf(executed),
      history: historyOf(history),
    }
  })
}

/** What `/info` says that somebody should do something about. */
export function readTroubles(value: unknown): string[] {
  const { redis, transport, servers } = fields(value)
  if (fields(redis)['connected'] !== true)
    return ['The API is not connected to Redis: nothing here can change until it is.']
  if (fields(transport)['connected'] !== true) return ['The API is not connected to the transport: no results arrive.']
  if (Array.isArray(servers) && servers.length === 0)
    return ['No server is at work: results are not processed, nobody is alerted.']
  return []
}

/** The length of the whole list that an answer is a page of. */
export function readTotal(header: string | null): number | undefined {
  try {
    return numberOf(fields(JSON.parse(header ?? ''))['total'])
  } catch {
    return undefined
  }
}

function fields(value: unknown): Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value) ? { ...value } : {}
}

function listOf<T>(value: unknown, read: (item: unknown) => T | undefined): T[] {
  return Array.isArray(value) ? value.map(read).filter(item => item !== undefined) : []
}

function textOf(value: unknown): string {
  return typeof value === 'string' ? value : typeof value === 'number' ? String(value) : ''
}

function numberOf(value: unknown): number | undefined {
  return typeof value === 'number' && Number.isFinite(value) ? value : undefined
}

/** Events have their history as texts, results as numbers. */
function historyOf(value: unknown): Status[] {
  return listOf(value, statusOf).slice(-21)
}

function statusOf(value: unknown): Status {
  const status = typeof value === 'number' ? value : Number.parseInt(textOf(value), 10)
  return status === 0 || status === 1 || status === 2 ? status : 3
}

// What follows from the API's answers, without anything of the browser.
import type { Client, SensuEvent, Silence, Status } from './shapes.js'

/** All that is known of the site at a time. */
export interface Site {
  events: readonly SensuEvent[]
  silences: readonly Silence[]
  clients: readonly Client[]
}

/** An event and what silences it: nothing, for most. */
export interface Problem {
  event: SensuEvent
  silences: Silence[]
}

/** A client in the overview. */
export interface ClientState {
  name: string
  /** Undefined when it is only known by events, or by its guests. */
  client: Client | undefined
  /** The worst of its events that are not silenced; 0 without any. */
  status: Status
  /** How many events it has that are not silenced. */
  problems: number
  /** Whether all of it is silenced, or events that it has. */
  hasSilenced: boolean
}

/** A client and those it sends results of: a host and its guests. */
export interface Group {
  host: ClientState
  guests: ClientState[]
}

/** Group of clients that somebody reports for, but nobody knows who. */
export const WITHOUT_HOST = ''

/** How bad a status is: critical before warning before everything else. */
const ranks: Record<Status, number> = { 0: 0, 1: 2, 2: 3, 3: 1 }

/** Compares statuses, the worse first. */
export function byBadness(a: Status, b: Status): number {
  return ranks[b] - ranks[a]
}

/** Every event with what silences it at a time (Unix seconds), the worst and newest first. */
export function problemsOf({ events, silences }: Site, now: number): Problem[] {
  const inForce = new Map(silencesInForce(silences, now).map(silence => [silence.id, silence]))
  const problems = events.map(event => ({
    event,
    silences: idsThatSilence(event).flatMap(id => inForce.get(id) ?? []),
  }))
  return problems.sort(
    ({ event: a }, { event: b }) =>
      byBadness(a.status, b.status) ||
      (b.since ?? 0) - (a.since ?? 0) ||
      compare(a.client, b.client) ||
      compare(a.check, b.check),
  )
}

function silencesInForce(silences: readonly Silence[], now: number): Silence[] {
  return silences.filter(({ begin }) => (begin ?? 0) <= now)
}

/** As the server decides it for the next result: by the client's subscriptions, its own one always among them. */
function idsThatSilence({ client, check, subscriptions }: SensuEvent): string[] {
  const all = new Set([...subscriptions, `client:${client}`])
  return [...[...all].flatMap(subscription => [`${subscription}:*`, `${subscription}:${check}`]), `*:${check}`]
}

/** Hosts with their guests, those where something is wrong first. */
export function groupsOf(site: Site, problems: readonly Problem[], now: number): Group[] {
  const { clients, silences } = site
  const states = statesOf(clients, problems)
  for (const { id } of silencesInForce(silences, now)) {
    const state = states.get(/^client:(.*):\*$/.exec(id)?.[1] ?? '')
    if (state) state.hasSilenced = true
  }
  const groups = new Map<string, Group>()
  const groupOf = (name: string) => {
    const group = groups.get(name) ?? { host: states.get(name) ?? unknownClient(name), guests: [] }
    groups.set(name, group)
    return group
  }
  const hosts = hostsOf(clients, problems)
  for (const state of states.values()) {
    const host = hosts.get(state.name) ?? (state.client?.isProxy ? WITHOUT_HOST : undefined)
    if (host === undefined) groupOf(state.name)
    else groupOf(host).guests.push(state)
  }
  for (const { guests } of groups.values()) guests.sort(worstFirst)
  return [...groups.values()].sort(
    (a, b) => worstOf(b) - worstOf(a) || last(a) - last(b) || compare(a.host.name, b.host.name),
  )
}

/** Also of clients that are known by their events alone, so that none is missing. */
function statesOf(clients: readonly Client[], problems: readonly Problem[]): Map<string, ClientState> {
  const states = new Map<string, ClientState>()
  for (const client of clients) states.set(client.name, { ...unknownClient(client.name), client })
  for (const { event, silences } of problems) {
    const state = states.get(event.client) ?? unknownClient(event.client)
    states.set(event.client, state)
    if (silences.length > 0) state.hasSilenced = true
    else {
      state.problems++
      if (ranks[event.status] > ranks[state.status]) state.status = event.status
    }
  }
  return states
}

/** By name of the client; what an event says is newer than the list. */
function hostsOf(clients: readonly Client[], problems: readonly Problem[]): Map<string, string> {
  const known = clients.map(({ name, host }) => ({ name, host }))
  const told = problems.map(({ event: { client, host } }) => ({ name: client, host }))
  const hosts = new Map<string, string>()
  for (const { name, host } of [...known, ...told]) if (host !== undefined && host !== name) hosts.set(name, host)
  return hosts
}

function unknownClient(name: string): ClientState {
  return { name, client: undefined, status: 0, problems: 0, hasSilenced: false }
}

function worstFirst(a: ClientState, b: ClientState): number {
  return byBadness(a.status, b.status) || compare(a.name, b.name)
}

function worstOf({ host, guests }: Group): number {
  return Math.max(ranks[host.status], ...guests.slice(0, 1).map(({ status }) => ranks[status]))
}

/** The group that is no host stands behind equals. */
function last({ host }: Group): number {
  return host.name === WITHOUT_HOST ? 1 : 0
}

/** Numbers in names count as numbers: web2 before web10. */
const { compare } = new Intl.Collator('en', { numeric: true })

/** Whether all words of a filter are in one of the texts. */
export function matches(filter: string, texts: readonly (string | undefined)[]): boolean {
  const all = texts.join('\n').toLowerCase()
  return filter
    .toLowerCase()
    .split(/\s+/)
    .every(word => all.includes(word))
}

/** The problems a filter leaves. */
export function filterProblems(problems: readonly Problem[], filter: string): Problem[] {
  return problems.filter(({ event: { client, host, check, output } }) => matches(filter, [client, host, check, output]))
}

/** The groups a filter leaves: whole ones by their host, else with those guests it fits. */
export function filterGroups(groups: readonly Group[], filter: string): Group[] {
  return groups.flatMap(group => {
    const { host, guests } = group
    if (matches(filter, [host.name, host.client?.address])) return [group]
    const left = guests.filter(({ name, client }) => matches(filter, [host.name, name, client?.address]))
    return left.length > 0 ? [{ host, guests: left }] : []
  })
}

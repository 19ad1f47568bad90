/** Every Redis key of Sensu's data model (Sensu 1.9 server, no key prefix). Nothing else in the project spells one. */

/** Set: names of all registered clients. */
export const clientsKey = 'clients'
/** Set: `client:check` of every check that was ever stored with a `ttl`. */
export const ttlKey = 'ttl'
/** Set: full names of all silence entries' keys. */
export const silencedKey = 'silenced'
/** Set: names of all aggregates. */
export const aggregatesKey = 'aggregates'
/** Set: ids of all servers, also of some that are gone. */
export const serversKey = 'servers'
/** What every silence entry's key begins with; `silence:<subscription|*>:<check|*>` follows from it. */
export const silencePrefix = 'silence:'
/** What every aggregate's key begins with. */
export const aggregatePrefix = 'aggregates:'

/** String: the client as JSON. */
export function clientKey(client: string): string {
  return `client:${client}`
}

/** String: the client's signature, empty when it has none. Its existence means "registered before". */
export function clientSignatureKey(client: string): string {
  return `client:${client}:signature`
}

/** Set: names of the checks this client has a stored result of. */
export function resultsKey(client: string): string {
  return `result:${client}`
}

/** String: the newest result of a check, as JSON. */
export function resultKey(client: string, check: string): string {
  return `result:${client}:${check}`
}

/** List: the newest statuses of a check as decimal strings, oldest first. */
export function historyKey(client: string, check: string): string {
  return `history:${client}:${check}`
}

/** String: Unix time of the newest status-0 result. */
export function lastOkKey(client: string, check: string): string {
  return `history:${client}:${check}:last_ok`
}

/** Hash: check name to event JSON. */
export function eventsKey(client: string): string {
  return `events:${client}`
}

/** String: what a running server says about itself, as JSON; expires when it stops saying so. */
export function serverKey(id: string): string {
  return `server:${id}`
}

/** String: when the owner of a leader task last said that it is at work, in units of 10^-7 s since the epoch. */
export function taskLockKey(task: string): string {
  return `lock:task:${task}`
}

/** String: id of the server that a leader task belongs to. */
export function taskOwnerKey(task: string): string {
  return `task:${task}:server`
}

/**
 * Set: ids of writers, and hash: what Redis answered to each one's last results, so that a result that arrives twice is stored once. They are the one
 * addition to Sensu's layout; below `server:`, where nobody else looks, and expiring.
 */
export const answersKey = 'server:answers'
export function answersOfKey(writer: string): string {
  return `server:${writer}:answers`
}

/** The member that stands for one client's check in `ttl` and in aggregates. */
export function checkMember(client: string, check: string): string {
  return `${client}:${check}`
}

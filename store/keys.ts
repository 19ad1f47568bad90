/** Every Redis key of Sensu's data model (Sensu 1.9 server, no key prefix). Nothing else in the project spells one. */

/** Set: names of all registered clients. */
export const clientsKey = 'clients'
/** Set: `client:check` of every check that was ever stored with a `ttl`. */
export const ttlKey = 'ttl'
/** Set: full names of all silence entries' keys. */
export const silencedKey = 'silenced'
/** Set: paths of all stashes, also of some that have expired. */
export const stashesKey = 'stashes'
/** Set: names of all aggregates. */
export const aggregatesKey = 'aggregates'
/** Set: ids of all servers, also of some that are gone. */
export const serversKey = 'servers'
/** What every silence entry's key begins with; `silence:<subscription|*>:<check|*>` follows from it. */
export const silencePrefix = 'silence:'
/** What every aggregate's key begins with. */
export const aggregatePrefix = 'aggregates:'
/** What every registered client's key begins with. */
export const clientPrefix = 'client:'
/** What every stash's key begins with. */
export const stashPrefix = 'stash:'
/** What the key of every server's description begins with. */
export const serverPrefix = 'server:'
/** What every result's key begins with; the rest is what checkMember makes. */
export const resultPrefix = 'result:'

/** What every history's key begins with; the rest is what checkMember makes. */
export const historyPrefix = 'history:'
/** What the key of every client's events begins with. */
export const eventsPrefix = 'events:'

/** String: the client as JSON. */
export function clientKey(client: string): string {
  return `${clientPrefix}${client}`
}

/** String: the client's signature, empty when it has none. Its existence means "registered before". */
export function clientSignatureKey(client: string): string {
  return `client:${client}:signature`
}

/** Set: names of the checks this client has a stored result of. */
export function resultsKey(client: string): string {
  return `${resultPrefix}${client}`
}

/** String: the newest result of a check, as JSON. */
export function resultKey(client: string, check: string): string {
  return `${resultPrefix}${client}:${check}`
}

/** List: the newest statuses of a check as decimal strings, oldest first. */
export function historyKey(client: string, check: string): string {
  return `${historyPrefix}${client}:${check}`
}

/** String: Unix time of the newest status-0 result. */
export function lastOkKey(client: string, check: string): string {
  return `history:${client}:${check}:last_ok`
}

/** String: what is silenced, as JSON; `id` is `<subscription|*>:<check|*>`. Expires when the entry does. */
export function silenceKey(id: string): string {
  return `${silencePrefix}${id}`
}

/** String: content of a stash, as JSON. Expires when the stash does. */
export function stashKey(path: string): string {
  return `${stashPrefix}${path}`
}

/** Set: checkMember of every check of an aggregate. */
export function aggregateKey(name: string): string {
  return `${aggregatePrefix}${name}`
}

/** Hash: check name to event JSON. */
export function eventsKey(client: string): string {
  return `${eventsPrefix}${client}`
}

/** String: what a running server says about itself, as JSON; expires when it stops saying so. */
export function serverKey(id: string): string {
  return `${serverPrefix}${id}`
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

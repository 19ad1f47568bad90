import { setTimeout as sleep } from 'node:timers/promises'
import { fromEntries, isObject } from '../sensu/json-value.js'
import { epochSeconds } from '../sensu/results.js'
import type { JsonObject } from '../sensu/types.js'
import type { Store } from '../store/store.js'

/** How long a client's events may take to be resolved before it is removed all the same (Sensu 1.9: 5 tries, 1 s apart). */
const resolveTimeoutMs = 4000
const pollMs = 100

export interface RemovalOptions {
  /** Refuse everything from this client that is on its way, until it is removed. */
  invalidate?: boolean
  /** With `invalidate`: go on refusing it for so many seconds. */
  invalidateSeconds?: number | undefined
}

/**
 * Removes a client from the registry with its results, histories and events; its events are resolved first, so that handlers hear of it. `publish`
 * takes a message for the pipe `results`. False when there is no such client.
 */
export async function removeClient(
  name: string,
  store: Store,
  publish: (result: JsonObject) => Promise<void>,
  { invalidate = false, invalidateSeconds }: RemovalOptions = {},
): Promise<boolean> {
  if (!(await store.hasClient(name))) return false
  if (invalidate) await store.invalidateClient(name)
  for (const event of await store.clientEvents(name)) await publish(await resolvingResult(event, store))
  const deadline = Date.now() + resolveTimeoutMs
  while ((await store.clientEvents(name)).length > 0 && Date.now() < deadline) await sleep(pollMs)
  await store.removeClient(name, invalidate ? invalidateSeconds : undefined)
  return true
}

/** The result that resolves an event whatever it is, as a message for the pipe `results` (Sensu 1.9: POST /resolve). */
export async function resolvingResult(event: JsonObject, store: Store): Promise<JsonObject> {
  const client = isObject(event['client']) ? String(event['client']['name']) : ''
  const { history: _, ...check } = isObject(event['check']) ? event['check'] : fromEntries([])
  const now = epochSeconds(Date.now())
  const signature = await store.clientSignature(client)
  return {
    client,
    check: {
      ...check,
      output: 'Resolving on request of the API',
      status: 0,
      issued: now,
      executed: now,
      force_resolve: true,
    },
    ...(signature !== null && { signature }),
  }
}

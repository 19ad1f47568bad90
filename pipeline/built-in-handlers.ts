import { parseJson } from '../sensu/json.js'
import { isObject, isTruthy } from '../sensu/json-value.js'
import type { JsonObject } from '../sensu/types.js'

/** What a built-in handler says; it is logged. */
export interface HandlerOutcome {
  output: string
  status: number
}

/** A handler that exists without configuration; gets the event data. */
export type BuiltInHandler = (data: Buffer) => Promise<HandlerOutcome>

/** Sensu's built-in handlers. `removeClient` resolves with false when there is no such client. */
export function builtInHandlers(removeClient: (name: string) => Promise<boolean>): Record<string, BuiltInHandler> {
  return {
    /** Answers with what it was given. */
    debug: async data => ({ output: data.toString(), status: 0 }),
    /** Removes the event's client. */
    deregistration: data => deregister(data, removeClient),
  }
}

async function deregister(data: Buffer, removeClient: (name: string) => Promise<boolean>): Promise<HandlerOutcome> {
  const event = parsedObject(data)
  const client = isObject(event['client']) ? event['client'] : {}
  const check = isObject(event['check']) ? event['check'] : {}
  const name = String(client['name'])
  // the removal resolves the client's events, this one too
  if (isTruthy(check['force_resolve'])) return { output: '', status: 0 }
  const removed = await removeClient(name)
  return removed
    ? { output: `deleted client ${name}`, status: 0 }
    : { output: `error deleting client ${name}`, status: 2 }
}

function parsedObject(data: Buffer): JsonObject {
  const value = parseJson(data)
  return isObject(value) ? value : {}
}

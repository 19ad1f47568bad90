import { removeClient } from '../../pipeline/remove-client.js'
import { sensuVersion } from '../../sensu/defaults.js'
import { stringifyJson } from '../../sensu/json.js'
import { isSet } from '../../sensu/json-value.js'
import { defaultRedactedNames, redact } from '../../sensu/redact.js'
import { epochSeconds } from '../../sensu/results.js'
import type { JsonObject } from '../../sensu/types.js'
import { validateClient } from '../../sensu/validate.js'
import type { StoredResultText } from '../../store/result-reader.js'
import { parsedObject } from '../../store/stored-text.js'
import { type Answer, accepted, badRequest, created, found, notFound } from './answer.js'
import { asTexts, listAnswer, wholeAnswer } from './lists.js'
import type { ApiParts } from './parts.js'
import { wholeNumber } from './query.js'
import { type ApiRequest, objectIn } from './request.js'
import type { Route } from './router.js'

export const clientRoutes: readonly Route[] = [
  { paths: ['/clients'], GET: getClients, POST: postClient },
  { paths: ['/clients/:client'], GET: getClient, DELETE: deleteClient },
  { paths: ['/clients/:client/history'], GET: getHistory },
]

async function getClients({ store }: ApiParts, { query }: ApiRequest): Promise<Answer> {
  return listAnswer(query, asTexts(await store.views.clients.list(query.page), redactedClient))
}

async function getClient({ store }: ApiParts, { parameters }: ApiRequest): Promise<Answer> {
  const text = await store.views.clients.one(parameters['client'] ?? '')
  return found(text && redactedClient(text))
}

/** What may make a client's text different without its secrets: their names, its own list of names, an escape that may hide one. */
const suspicious = new RegExp(`"(?:redact|${defaultRedactedNames.join('|')})"|\\\\u`)

/** A stored client as it is shown. Most have nothing to hide, and are not parsed. */
function redactedClient(text: string): string {
  if (!suspicious.test(text)) return text
  const client = parsedObject(text) ?? {}
  const { redact: own } = client
  const names = Array.isArray(own) ? own.filter(name => typeof name === 'string') : undefined
  return stringifyJson(redact(client, names))
}

async function postClient({ store }: ApiParts, request: ApiRequest): Promise<Answer> {
  const body = objectIn(request)
  if (body === undefined) return badRequest
  const client: JsonObject = {
    ...body,
    ...(!Object.hasOwn(body, 'keepalives') && { keepalives: false }),
    version: sensuVersion,
    timestamp: epochSeconds(Date.now()),
    ...(!Object.hasOwn(body, 'subscriptions') && { subscriptions: [] }),
  }
  if (validateClient(client).length > 0) return badRequest
  const { name = null, subscriptions } = client
  const own = `client:${String(name)}`
  const known = Array.isArray(subscriptions) ? subscriptions : []
  await store.views.clients.put({ ...client, subscriptions: [...new Set([...known, own])] })
  return created({ name })
}

/** The client's events are resolved, then it is removed, after the answer. */
async function deleteClient(parts: ApiParts, { parameters, query }: ApiRequest): Promise<Answer> {
  const { store, results, background } = parts
  const client = parameters['client'] ?? ''
  if (!(await store.hasClient(client))) return notFound
  const options = {
    invalidate: query.values.has('invalidate'),
    invalidateSeconds: wholeNumber(query.values.get('invalidate_expire')),
  }
  const publish = (result: JsonObject) => results.publish(result)
  background.start(`delete client ${client}`, () => removeClient(client, store, publish, options))
  return accepted()
}

/** The results of a client in the form of a history. Checks that have none, or never ran, are left out. */
async function getHistory({ store }: ApiParts, { parameters, query }: ApiRequest): Promise<Answer> {
  const texts: string[] = []
  for await (const slice of (await store.views.results.ofClient(parameters['client'] ?? '')).slices) {
    texts.push(...slice.flatMap(historyItem))
  }
  return wholeAnswer(query, texts)
}

function historyItem({ check, text, history }: StoredResultText): string[] {
  const executed = parsedObject(text)?.['executed']
  if (history.length === 0 || !isSet(executed)) return []
  const item = stringifyJson({
    check,
    history,
    last_execution: executed ?? null,
    last_status: history.at(-1) ?? 0,
  })
  return [`${item.slice(0, -1)},"last_result":${text}}`]
}

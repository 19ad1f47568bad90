import { resolvingResult } from '../../pipeline/remove-client.js'
import { parsedObject } from '../../store/stored-text.js'
import { type Answer, accepted, badRequest, found, notFound } from './answer.js'
import { listAnswer } from './lists.js'
import type { ApiParts } from './parts.js'
import { type ApiRequest, objectIn } from './request.js'
import type { Route } from './router.js'

export const eventRoutes: readonly Route[] = [
  { paths: ['/events', '/incidents'], GET: getEvents },
  { paths: ['/events/:client', '/incidents/:client'], GET: getClientEvents },
  { paths: ['/events/:client/:check', '/incidents/:client/:check'], GET: getEvent, DELETE: deleteEvent },
  { paths: ['/resolve'], POST: postResolve },
]

async function getEvents({ store }: ApiParts, { query }: ApiRequest): Promise<Answer> {
  return listAnswer(query, await store.views.events.list(query.page))
}

async function getClientEvents({ store }: ApiParts, { query, parameters }: ApiRequest): Promise<Answer> {
  return listAnswer(query, await store.views.events.ofClient(parameters['client'] ?? '', query.page))
}

async function getEvent({ store }: ApiParts, { parameters }: ApiRequest): Promise<Answer> {
  return found(await store.views.events.one(parameters['client'] ?? '', parameters['check'] ?? ''))
}

function deleteEvent(parts: ApiParts, { parameters }: ApiRequest): Promise<Answer> {
  return resolve(parts, parameters['client'] ?? '', parameters['check'] ?? '')
}

async function postResolve(parts: ApiParts, request: ApiRequest): Promise<Answer> {
  const { client, check } = objectIn(request) ?? {}
  return typeof client === 'string' && typeof check === 'string' ? resolve(parts, client, check) : badRequest
}

/** Publishes the result that resolves an event; any server may process it. */
async function resolve({ store, results, background }: ApiParts, client: string, check: string): Promise<Answer> {
  const event = parsedObject((await store.views.events.one(client, check)) ?? null)
  if (event === undefined) return notFound
  const result = await resolvingResult(event, store)
  background.start(`resolve ${client}/${check}`, () => results.publish(result))
  return accepted()
}

import { stringifyJson } from '../../sensu/json.js'
import { epochSeconds } from '../../sensu/results.js'
import type { JsonObject } from '../../sensu/types.js'
import { validateResult } from '../../sensu/validate.js'
import type { StoredResultText } from '../../store/result-reader.js'
import { parsedObject, withMember } from '../../store/stored-text.js'
import { type Answer, accepted, badRequest, found, noContent, notFound } from './answer.js'
import { asTexts, listAnswer } from './lists.js'
import type { ApiParts } from './parts.js'
import { type ApiRequest, objectIn } from './request.js'
import type { Route } from './router.js'

/** Who sends the results that come by the API. */
const SENDER = 'sensu-api'

export const resultRoutes: readonly Route[] = [
  { paths: ['/results'], GET: getResults, POST: postResult },
  { paths: ['/results/:client'], GET: getClientResults },
  { paths: ['/results/:client/:check'], GET: getResult, DELETE: deleteResult },
]

async function getResults({ store }: ApiParts, { query }: ApiRequest): Promise<Answer> {
  return listAnswer(query, asTexts(await store.views.results.list(query.page), resultText))
}

async function getClientResults({ store }: ApiParts, { query, parameters }: ApiRequest): Promise<Answer> {
  const listing = await store.views.results.ofClient(parameters['client'] ?? '', query.page)
  return listAnswer(query, asTexts(listing, resultText))
}

async function getResult({ store }: ApiParts, { parameters }: ApiRequest): Promise<Answer> {
  const result = await store.views.results.one(parameters['client'] ?? '', parameters['check'] ?? '')
  return found(result && resultText(result))
}

async function deleteResult({ store }: ApiParts, { parameters }: ApiRequest): Promise<Answer> {
  const removed = await store.views.results.remove(parameters['client'] ?? '', parameters['check'] ?? '')
  return removed ? noContent : notFound
}

/** The stored check as it is, with its history at its end; one that brought a history of its own has the stored one in its place. */
function resultText({ client, text, history }: StoredResultText): string {
  const check = text.includes('"history":')
    ? stringifyJson({ ...parsedObject(text), history })
    : withMember(text, 'history', `[${history.join(',')}]`)
  return `{"client":${JSON.stringify(client)},"check":${check}}`
}

/** Publishes a result as if a client had sent it. */
function postResult({ results, background }: ApiParts, request: ApiRequest): Answer {
  const body = objectIn(request)
  if (body === undefined) return badRequest
  const now = epochSeconds(Date.now())
  const check: JsonObject = {
    ...body,
    ...(!Object.hasOwn(body, 'status') && { status: 0 }),
    ...(!Object.hasOwn(body, 'executed') && { executed: now }),
  }
  if (validateResult(check) !== undefined) return badRequest
  const result = { client: SENDER, check: { ...check, issued: now, executed: now } }
  background.start('publish a check result', () => results.publish(result))
  return accepted()
}

import { stringifyJson } from '../../sensu/json.js'
import { entriesOf, isObject, isSet, isTruthy, member } from '../../sensu/json-value.js'
import { plainText } from '../../sensu/text-forms.js'
import type { CheckDefinition, Json } from '../../sensu/types.js'
import { type Answer, accepted, badRequest, notFound, ok } from './answer.js'
import { pagedAnswer } from './lists.js'
import type { ApiParts } from './parts.js'
import { type ApiRequest, objectIn } from './request.js'
import type { Route } from './router.js'

/** Longest name of an exchange, bytes (AMQP 0-9-1). */
const MAXIMUM_PIPE_BYTES = 255

export const checkRoutes: readonly Route[] = [
  { paths: ['/checks'], GET: getChecks },
  { paths: ['/checks/:check'], GET: getCheck, DELETE: deleteCheck },
  { paths: ['/request'], POST: postRequest },
]

function getChecks({ settings }: ApiParts, { query }: ApiRequest): Answer {
  const checks = entriesOf(settings.checks).flatMap(([name, check]) => {
    return isObject(check) && !isTruthy(check['standalone']) ? [{ ...check, name }] : []
  })
  return pagedAnswer(query, checks, stringifyJson)
}

function getCheck({ settings }: ApiParts, { parameters }: ApiRequest): Answer {
  const check = definition(settings.checks, parameters['check'] ?? '')
  return check && !isTruthy(check.standalone) ? ok(check) : notFound
}

/** Forgets results and histories of all clients; what is configured stays. */
async function deleteCheck({ store }: ApiParts, { parameters }: ApiRequest): Promise<Answer> {
  await store.views.clients.forgetCheck(parameters['check'] ?? '')
  return accepted()
}

/** Asks for a configured check now, whatever its schedule. */
function postRequest(parts: ApiParts, request: ApiRequest): Answer {
  const body = objectIn(request)
  if (body === undefined) return badRequest
  const { check: name, subscribers, reason = null, creator = null } = body
  const texts = [reason, creator]
  if (typeof name !== 'string' || texts.some(text => text !== null && typeof text !== 'string')) return badRequest
  const pipes = isSet(subscribers) ? pipesOf(subscribers ?? null) : undefined
  if (isSet(subscribers) && pipes === undefined) return badRequest
  const configured = definition(parts.settings.checks, name)
  if (configured === undefined) return notFound
  const check: CheckDefinition = {
    ...configured,
    ...(pipes && { subscribers: pipes }),
    api_requested: { reason, creator },
  }
  parts.background.start(`request check ${name}`, () => publish(parts, check))
  return accepted()
}

async function publish({ requests }: ApiParts, check: CheckDefinition): Promise<void> {
  await requests.publishAll(isObject(check.proxy_requests) ? await requests.proxyRequests(check) : [check])
}

/** Names of pipes; undefined when one cannot be used. */
function pipesOf(subscribers: Json): string[] | undefined {
  if (!Array.isArray(subscribers)) return undefined
  const names = subscribers.map(plainText)
  return names.every(name => name !== '' && Buffer.byteLength(name) <= MAXIMUM_PIPE_BYTES) ? names : undefined
}

function definition(checks: ApiParts['settings']['checks'], name: string): CheckDefinition | undefined {
  const check = member(checks, name)
  return isObject(check) ? { ...check, name } : undefined
}

import { severityOf } from '../../pipeline/filter.js'
import { stringifyJson } from '../../sensu/json.js'
import { toNumber } from '../../sensu/json-value.js'
import { epochSeconds } from '../../sensu/results.js'
import { plainText } from '../../sensu/text-forms.js'
import type { JsonObject } from '../../sensu/types.js'
import type { AggregateMember } from '../../store/aggregates.js'
import { type Answer, badRequest, noContent, notFound, ok } from './answer.js'
import { pagedAnswer, wholeAnswer } from './lists.js'
import type { ApiParts } from './parts.js'
import { type Query, wholeNumber } from './query.js'
import type { ApiRequest } from './request.js'
import type { Route } from './router.js'

export const aggregateRoutes: readonly Route[] = [
  { paths: ['/aggregates'], GET: getAggregates },
  { paths: ['/aggregates/:name'], GET: getAggregate, DELETE: deleteAggregate },
  { paths: ['/aggregates/:name/clients'], GET: getMembers('client', 'checks', 'check') },
  { paths: ['/aggregates/:name/checks'], GET: getMembers('check', 'clients', 'client') },
  { paths: ['/aggregates/:name/results/:severity'], GET: getSeverity },
]

async function getAggregates({ store }: ApiParts, { query }: ApiRequest): Promise<Answer> {
  return pagedAnswer(query, await store.views.aggregates.names(), name => stringifyJson({ name }))
}

/** How many checks of how many clients are in which state. */
async function getAggregate({ store }: ApiParts, { parameters, query }: ApiRequest): Promise<Answer> {
  const name = parameters['name'] ?? ''
  const members = await store.views.aggregates.members(name)
  if (members.length === 0) return notFound
  const results = { ok: 0, warning: 0, critical: 0, unknown: 0, total: 0, stale: 0 }
  const isStale = staleness(query)
  for await (const slice of store.views.aggregates.results(name)) {
    for (const { result } of slice) {
      if (isStale(result)) results.stale += 1
      else {
        results.total += 1
        results[severityName(result)] += 1
      }
    }
  }
  const distinct = (key: keyof AggregateMember) => new Set(members.map(member => member[key])).size
  return ok({ clients: distinct('client'), checks: distinct('check'), results })
}

async function deleteAggregate({ store }: ApiParts, { parameters }: ApiRequest): Promise<Answer> {
  return (await store.views.aggregates.remove(parameters['name'] ?? '')) ? noContent : notFound
}

/** The members, grouped by one of their parts. Of an aggregate that is not there Sensu shows an empty list, with 404. */
function getMembers(by: keyof AggregateMember, list: string, item: keyof AggregateMember) {
  return async ({ store }: ApiParts, { parameters, query }: ApiRequest): Promise<Answer> => {
    const groups = new Map<string, string[]>()
    for (const member of await store.views.aggregates.members(parameters['name'] ?? '')) {
      inGroup(groups, member[by], () => []).push(member[item])
    }
    const texts = [...groups].map(([name, items]) => stringifyJson({ name, [list]: items }))
    return { ...wholeAnswer(query, texts), ...(groups.size === 0 && { status: 404 }) }
  }
}

const severities = ['ok', 'warning', 'critical', 'unknown'] as const
const severityNames: readonly string[] = severities
type Severity = (typeof severities)[number]

/** Results of one severity, grouped by check, then by output. */
async function getSeverity({ store }: ApiParts, { parameters, query }: ApiRequest): Promise<Answer> {
  const { name = '', severity = '' } = parameters
  const status = severityNames.indexOf(severity)
  if (status < 0) return badRequest
  if ((await store.views.aggregates.members(name)).length === 0) return notFound
  const isStale = staleness(query)
  const checks = new Map<string, Map<string, string[]>>()
  for await (const slice of store.views.aggregates.results(name)) {
    for (const { client, check, result } of slice) {
      if (isStale(result) || !hasStatus(result, status)) continue
      const outputs = inGroup(checks, check, () => new Map<string, string[]>())
      inGroup(outputs, plainText(result['output']), () => []).push(client)
    }
  }
  const texts = [...checks].map(([check, outputs]) => {
    const summary = [...outputs].map(([output, clients]) => ({ output, total: clients.length, clients }))
    return stringifyJson({ check, summary })
  })
  return wholeAnswer(query, texts)
}

/** The group of a key, a new one when there is none. */
function inGroup<T>(groups: Map<string, T>, key: string, create: () => T): T {
  const group = groups.get(key) ?? create()
  groups.set(key, group)
  return group
}

/** With `max_age` (seconds) results that were executed before it do not count. */
function staleness(query: Query): (result: JsonObject) => boolean {
  const maximumAge = wholeNumber(query.values.get('max_age'))
  if (maximumAge === undefined) return () => false
  const oldest = epochSeconds(Date.now()) - maximumAge
  return ({ executed }) => (toNumber(executed) ?? 0) < oldest
}

function severityName({ status }: JsonObject): Severity {
  const found = severityOf(toNumber(status) ?? 3)
  return severities.find(known => known === found) ?? 'unknown'
}

/** Negative statuses count from the end (Sensu 1.9); others than these are in no list. */
function hasStatus({ status }: JsonObject, wanted: number): boolean {
  const given = toNumber(status)
  return given === wanted || given === wanted - severities.length
}

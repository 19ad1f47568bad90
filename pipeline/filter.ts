import { isObject, isSet } from '../sensu/json-value.js'
import type { Logger } from '../sensu/log.js'
import { isInTimeWindows } from '../sensu/time-windows.js'
import type { Json, JsonObject } from '../sensu/types.js'
import { attributesMatch, expressionFaults } from './attributes-match.js'
import { dependenciesRefuse, type EventLookup } from './check-dependencies.js'
import type { NamedHandler } from './resolve-handlers.js'

/** Statuses 0 to 3; every other one is unknown. A negative status counts from the end, as it does in Sensu 1.9. */
const severities = ['ok', 'warning', 'critical', 'unknown']

/** Why a handler is not called, in the words of Sensu's log, with the filter's name when it was a filter. */
export interface Refusal {
  message: string
  filter?: string
}

/** The severity a status stands for. */
export function severityOf(status: number): string {
  return severities.at(status) ?? 'unknown'
}

/** What events are filtered with. */
export interface FilterSurroundings {
  filters: { [name: string]: JsonObject | undefined }
  events: EventLookup
  logger: Logger
  now: Date
}

/**
 * Whether and why an event does not reach a handler, in Sensu's order: handling switched off, flapping, severity, silence, filters.
 * Unknown filters, and those that cannot be asked, are logged and let events pass.
 */
export async function refusalOf(
  handler: NamedHandler,
  event: JsonObject,
  surroundings: FilterSurroundings,
): Promise<Refusal | undefined> {
  const check = isObject(event['check']) ? event['check'] : {}
  if (check['handle'] === false) return { message: 'event handling disabled for event' }
  if (event['action'] === 'flapping' && handler['handle_flapping'] !== true)
    return { message: 'handler does not handle action' }
  if (!handlesSeverity(handler, event, check)) return { message: 'handler does not handle event severity' }
  if (event['silenced'] === true && handler['handle_silenced'] !== true) return { message: 'handler is silenced' }
  for (const name of filterNames(handler)) {
    if (await filterRefuses(name, event, check, surroundings)) {
      return { message: 'event was filtered', filter: String(name) }
    }
  }
  return undefined
}

/** Expressions of configured filters that are not understood, worded like Sensu's configuration errors. */
export function filterFaults(filters: {
  [name: string]: JsonObject | undefined
}): { object: JsonObject; message: string }[] {
  return Object.entries(filters).flatMap(([name, filter]) => {
    const attributes = filter?.['attributes']
    if (!isObject(attributes)) return []
    return expressionFaults(attributes).map(({ path, fault }) => ({
      object: { ...filter, name },
      message: `filter ${name}: the expression of attribute ${path} is not supported: ${fault}`,
    }))
  })
}

function handlesSeverity(handler: NamedHandler, event: JsonObject, check: JsonObject): boolean {
  const handled = handler['severities']
  if (!Array.isArray(handled)) return true
  const handles = (status: Json) => handled.includes(severityOf(Number(status)))
  if (event['action'] === 'resolve') return Array.isArray(check['history']) && check['history'].some(handles)
  return handles(check['status'] ?? null)
}

function filterNames(handler: NamedHandler): Json[] {
  if (Array.isArray(handler['filters'])) return handler['filters']
  return handler['filter'] === undefined || handler['filter'] === null ? [] : [handler['filter']]
}

async function filterRefuses(
  name: Json,
  event: JsonObject,
  check: JsonObject,
  { filters, events, logger, now }: FilterSurroundings,
): Promise<boolean> {
  const known = typeof name === 'string' ? name : ''
  const filter = Object.hasOwn(filters, known) ? filters[known] : undefined
  if (filter !== undefined) return nativeFilterRefuses(filter, event, now, logger)
  switch (known) {
    case 'occurrences':
      return occurrencesRefuse(event, check)
    case 'check_dependencies':
      try {
        return await dependenciesRefuse(event, events)
      } catch (error) {
        logger.error('failed to query events for check dependencies', { error: String(error) })
        return false
      }
    default:
      logger.error('unknown filter', { filter_name: name })
      return false
  }
}

function nativeFilterRefuses(filter: JsonObject, event: JsonObject, now: Date, log: Logger): boolean {
  if (isSet(filter['when']) && !isInTimeWindows(filter['when'], now)) return false
  const attributes = filter['attributes']
  const matched = attributesMatch(event, isObject(attributes) ? attributes : {}, { now, log })
  return filter['negate'] === true ? matched : !matched
}

/**
 * Sensu's built-in filter `occurrences`: an event passes from `check.occurrences` (1) occurrences on, then once every `check.refresh` (1800)
 * seconds; its resolution passes when it ever got that far.
 */
function occurrencesRefuse(event: JsonObject, check: JsonObject): boolean {
  const minimum = integerOr(check['occurrences'], 1)
  const refreshSeconds = integerOr(check['refresh'], 1800)
  const occurrences = integerOr(event['occurrences'], 1)
  const action = event['action']
  if (action === 'resolve' && integerOr(event['occurrences_watermark'], occurrences) >= minimum) return false
  if (occurrences < minimum) return true
  if (occurrences > minimum && (action === 'create' || action === 'flapping')) {
    const every = Math.floor(refreshSeconds / integerOr(check['interval'], 60))
    return Number.isFinite(every) && every !== 0 && (occurrences - minimum) % every !== 0
  }
  return false
}

function integerOr(value: Json | undefined, otherwise: number): number {
  if (typeof value === 'number') return Math.trunc(value)
  return typeof value === 'string' && /^\s*-?\d+\s*$/.test(value) ? Number(value) : otherwise
}

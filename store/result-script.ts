import { randomUUID } from 'node:crypto'
import { stringifyJson } from '../sensu/json.js'
import { isInteger, isTruthy } from '../sensu/json-value.js'
import type { Json, JsonObject } from '../sensu/types.js'
import { eventTemplate, jsonText, replaceLoneSurrogates, storedTemplate } from './check-template.js'
import { storedOutput } from './truncate-output.js'

/** One composed check result on its way into the store. */
export interface ResultInput {
  /** The client whose result this is: the check's `source`, else the sender. Name characters are the caller's to judge. */
  client: string
  /** The composed check: `name` a string, `status` an integer, `type` and `origin` already set. */
  check: JsonObject
  /** What the sender signed the result with. */
  signature?: string | undefined
  /** Replaces `check.command` when the registry says that the client is a proxy. */
  proxyCommand?: Json | undefined
  /** The store's clock, Unix seconds. */
  nowSeconds: number
  /** True for a result that may have been stored before: by a server that went away before it said so. */
  repeated?: boolean | undefined
  /** Whether the check holds only what JSON.stringify writes as Sensu does (see parsePlainJson). */
  plain?: boolean | undefined
}

/** An event that is built but not stored, as Sensu's registration event. */
export interface UnstoredEventInput extends ResultInput {
  /** The client's JSON as it goes into the event. */
  clientText: string
}

/** What the script reads as ARGV[10]: what most results do not have. */
interface ScriptOptions {
  /** What the sender signed the result with. */
  signature?: string
  /** The check has a `source`. */
  has_source?: true
  /** JSON of the check's command, and of that which replaces it for proxies. */
  command?: string
  proxy_command?: string
  aggregates?: string[]
  ttl?: true
  metric?: true
  /** `auto_resolve` is false. */
  never_resolves?: true
  force_resolve?: true
  low_flap_threshold?: number
  high_flap_threshold?: number
  /** How many texts the first template has; undefined without templates. */
  stored_pieces?: number
  /** The client's JSON, for an event that is only built. */
  unstored_client?: string
}

/** Who calls the script, for the answers that it keeps. */
export interface Writer {
  id: string
  /** Number of the call, modulo keptAnswers. */
  slot: number
}

// The bundle loads Node's crypto when it is asked for, each time anew; this is asked for with every result.
const newId = randomUUID

/** Place of the argument that says that the call may be a repetition. */
export const repeatedArgument = 8

/** Arguments of one call of the result script. */
export function resultCall(input: ResultInput, writer: Writer): string[] {
  return scriptCall(input, writer, {})
}

/** Arguments of a call that only builds the event. */
export function unstoredEventCall(input: UnstoredEventInput, writer: Writer): string[] {
  return scriptCall(input, writer, { unstored_client: input.clientText })
}

/** Whether both flap thresholds are on the check, and usable: both must be integers (Sensu 1.9). */
export function flapThresholds(check: JsonObject): { low: number; high: number } | 'absent' | 'invalid' {
  if (!Object.hasOwn(check, 'low_flap_threshold') || !Object.hasOwn(check, 'high_flap_threshold')) return 'absent'
  const { low_flap_threshold: low, high_flap_threshold: high } = check
  return isInteger(low) && isInteger(high) ? { low: Number(low), high: Number(high) } : 'invalid'
}

/** Names of the aggregates a result belongs to. */
export function aggregateNames(check: JsonObject): string[] {
  const { aggregates, aggregate } = check
  if (Array.isArray(aggregates)) return aggregates.filter(name => typeof name === 'string')
  if (typeof aggregate === 'string') return [aggregate]
  return isTruthy(aggregate) || isTruthy(aggregates) ? [String(check['name'])] : []
}

function scriptCall(input: ResultInput, writer: Writer, more: ScriptOptions): string[] {
  const { client, check, nowSeconds, repeated, plain } = input
  const text = plain ? JSON.stringify(check) : jsonText(check)
  const templates = checkTemplates(input, text)
  const options = { ...more, ...unusual(input), ...(templates && { stored_pieces: templates.stored.length }) }
  return [
    client,
    String(check['name']),
    String(nowSeconds),
    String(check['status']),
    plainText(check['executed'] ?? nowSeconds),
    newId(),
    writer.id,
    String(writer.slot),
    repeated ? '1' : '0',
    hasMembers(options) ? replaceLoneSurrogates(JSON.stringify(options)) : '',
    ...(templates ? [...templates.stored, ...templates.event] : [text]),
  ]
}

/** Undefined for the usual check: its text is stored as it is, and goes into the event with the two attributes at its end. */
function checkTemplates(input: ResultInput, text: string): { stored: string[]; event: string[] } | undefined {
  const { check } = input
  const cutsCommand = input.proxyCommand !== undefined
  const output = storedOutput(check)
  const bringsHistory = Object.hasOwn(check, 'history') || Object.hasOwn(check, 'total_state_change')
  if (!cutsCommand && output === undefined && !bringsHistory) return undefined
  const stored = output === undefined ? check : { ...check, output }
  return { stored: storedTemplate(stored, check, text, cutsCommand), event: eventTemplate(check, text, cutsCommand) }
}

function unusual({ check, signature, proxyCommand }: ResultInput): ScriptOptions {
  const options: ScriptOptions = {}
  if (signature !== undefined) options.signature = signature
  if (isTruthy(check['source'])) options.has_source = true
  if (proxyCommand !== undefined) {
    options.command = jsonText(check['command'] ?? null)
    options.proxy_command = jsonText(proxyCommand)
  }
  if (isTruthy(check['aggregates']) || isTruthy(check['aggregate'])) options.aggregates = aggregateNames(check)
  if (isTruthy(check['ttl'])) options.ttl = true
  if (check['type'] === 'metric') options.metric = true
  if (check['auto_resolve'] === false) options.never_resolves = true
  if (check['force_resolve'] === true) options.force_resolve = true
  const thresholds = flapThresholds(check)
  if (typeof thresholds === 'object') {
    options.low_flap_threshold = thresholds.low
    options.high_flap_threshold = thresholds.high
  }
  return options
}

function hasMembers(object: object): boolean {
  for (const _ in object) return true
  return false
}

function plainText(value: Json): string {
  return typeof value === 'string' ? value : stringifyJson(value)
}

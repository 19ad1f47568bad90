import { randomUUID } from 'node:crypto'
import { stringifyJson } from '../sensu/json.js'
import { isInteger, isTruthy } from '../sensu/json-value.js'
import type { Json, JsonObject } from '../sensu/types.js'
import { eventTemplate, jsonText, replaceLoneSurrogates, storedTemplate } from './check-template.js'
import {
  aggregatePrefix,
  aggregatesKey,
  clientKey,
  clientSignatureKey,
  clientsKey,
  eventsKey,
  historyKey,
  lastOkKey,
  resultKey,
  resultsKey,
  silencedKey,
  silencePrefix,
  ttlKey,
} from './keys.js'
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
}

/** An event that is built but not stored, as Sensu's registration event. */
export interface UnstoredEventInput extends ResultInput {
  /** The client's JSON as it goes into the event. */
  clientText: string
}

/** What the script reads as ARGV[1], named as it is read there. */
type ScriptOptions = ReturnType<typeof inputOptions> &
  ReturnType<typeof checkOptions> & {
    /** False for an event that is only built. */
    store: boolean
    /** The client to create when the registry has none, or the client of an event that is only built: JSON. */
    blank_client: string
    /** How many texts the first template has. */
    stored_pieces: number
  }

/** Version a client has that was created for its results only: the Sensu release whose data model this is. */
const dataModelVersion = '1.9.0'

/** Keys and arguments of one call of the result script. */
export function resultCall(input: ResultInput): { keys: string[]; args: string[] } {
  return scriptCall(input, blankClient(input), true)
}

/** Keys and arguments of a call that only builds the event. */
export function unstoredEventCall(input: UnstoredEventInput): { keys: string[]; args: string[] } {
  return scriptCall(input, input.clientText, false)
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

function scriptCall(input: ResultInput, clientText: string, store: boolean): { keys: string[]; args: string[] } {
  const { check } = input
  const cutsCommand = input.proxyCommand !== undefined
  const output = storedOutput(check)
  const text = jsonText(check)
  const stored = storedTemplate(output === undefined ? check : { ...check, output }, check, text, cutsCommand)
  const options: ScriptOptions = {
    store,
    blank_client: clientText,
    stored_pieces: stored.length,
    ...inputOptions(input),
    ...checkOptions(input),
  }
  return {
    keys: scriptKeys(input.client, String(check['name'])),
    args: [replaceLoneSurrogates(JSON.stringify(options)), '0', ...stored, ...eventTemplate(check, text, cutsCommand)],
  }
}

function inputOptions({ client, check, signature, proxyCommand, nowSeconds }: ResultInput) {
  return {
    client,
    now: nowSeconds,
    id: randomUUID(),
    signature: signature ?? null,
    command: jsonText(check['command'] ?? null),
    proxy_command: proxyCommand === undefined ? null : jsonText(proxyCommand),
    aggregate_prefix: aggregatePrefix,
    silence_prefix: silencePrefix,
  }
}

function checkOptions({ check, nowSeconds }: ResultInput) {
  const thresholds = flapThresholds(check)
  const { low, high } = typeof thresholds === 'object' ? thresholds : { low: null, high: null }
  const status = String(check['status'])
  const metric = check['type'] === 'metric'
  return {
    check: String(check['name']),
    status,
    executed: plainText(check['executed'] ?? nowSeconds),
    aggregates: aggregateNames(check),
    ttl: isTruthy(check['ttl']),
    plain: status === '0' && !metric && thresholds === 'absent',
    metric,
    auto_resolve: check['auto_resolve'] !== false,
    force_resolve: check['force_resolve'] === true,
    low_flap_threshold: low,
    high_flap_threshold: high,
  }
}

/** The keys in the order in which the script counts them. */
function scriptKeys(client: string, check: string): string[] {
  return [
    clientsKey,
    clientKey(client),
    clientSignatureKey(client),
    resultsKey(client),
    resultKey(client, check),
    historyKey(client, check),
    lastOkKey(client, check),
    ttlKey,
    eventsKey(client),
    silencedKey,
    aggregatesKey,
  ]
}

/**
 * The client that is created for results of a client nobody registered (Sensu 1.9, in its key order). `type` is there only when
 * the check names the client as its `source`.
 */
function blankClient({ client, check, nowSeconds }: ResultInput): string {
  const blank: JsonObject = {
    name: client,
    address: 'unknown',
    subscriptions: [`client:${client}`],
    keepalives: false,
    version: dataModelVersion,
    timestamp: nowSeconds,
  }
  if (isTruthy(check['source'])) blank['type'] = 'proxy'
  return stringifyJson(blank)
}

function plainText(value: Json): string {
  return typeof value === 'string' ? value : stringifyJson(value)
}

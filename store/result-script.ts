import { randomUUID } from 'node:crypto'
import { stringifyJson } from '../sensu/json.js'
import { entriesOf, isInteger, isTruthy } from '../sensu/json-value.js'
import type { Json, JsonObject } from '../sensu/types.js'
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

/** What the Lua script reads as ARGV[1]; snake_case as its names are read there. */
interface ScriptOptions {
  client: string
  check: string
  store: boolean
  now: number
  id: string
  status: string
  executed: string
  signature: string | null
  blank_client: string
  command: string
  proxy_command: string | null
  stored_pieces: number
  aggregates: string[]
  aggregate_prefix: string
  silence_prefix: string
  ttl: boolean
  plain: boolean
  metric: boolean
  auto_resolve: boolean
  force_resolve: boolean
  low_flap_threshold: number | null
  high_flap_threshold: number | null
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
  const { check, client: C } = input
  const K = String(check['name'])
  const cutsCommand = input.proxyCommand !== undefined
  const output = storedOutput(check)
  const text = jsonText(check)
  const stored = storedTemplate(output === undefined ? check : { ...check, output }, check, text, cutsCommand)
  const event = eventTemplate(check, text, cutsCommand)
  const thresholds = flapThresholds(check)
  const status = String(check['status'])
  const metric = check['type'] === 'metric'
  const executed = check['executed']
  const options: ScriptOptions = {
    client: C,
    check: K,
    store,
    now: input.nowSeconds,
    id: randomUUID(),
    status,
    executed: executed === undefined || executed === null ? String(input.nowSeconds) : plainText(executed),
    signature: input.signature ?? null,
    blank_client: clientText,
    command: Object.hasOwn(check, 'command') ? jsonText(check['command'] ?? null) : 'null',
    proxy_command: input.proxyCommand === undefined ? null : jsonText(input.proxyCommand),
    stored_pieces: stored.length,
    aggregates: aggregateNames(check),
    aggregate_prefix: aggregatePrefix,
    silence_prefix: silencePrefix,
    ttl: isTruthy(check['ttl']),
    plain: status === '0' && !metric && thresholds === 'absent',
    metric,
    auto_resolve: check['auto_resolve'] !== false,
    force_resolve: check['force_resolve'] === true,
    low_flap_threshold: typeof thresholds === 'object' ? thresholds.low : null,
    high_flap_threshold: typeof thresholds === 'object' ? thresholds.high : null,
  }
  return {
    keys: [
      clientsKey,
      clientKey(C),
      clientSignatureKey(C),
      resultsKey(C),
      resultKey(C, K),
      historyKey(C, K),
      lastOkKey(C, K),
      ttlKey,
      eventsKey(C),
      silencedKey,
      aggregatesKey,
    ],
    args: [replaceLoneSurrogates(JSON.stringify(options)), '0', ...stored, ...event],
  }
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

type Hole = 'command' | 'history' | 'total_state_change'

function storedTemplate(stored: JsonObject, check: JsonObject, text: string, cutsCommand: boolean): string[] {
  if (cutsCommand) return template(stored, ['command'])
  return [stored === check ? text : jsonText(stored)]
}

function eventTemplate(check: JsonObject, text: string, cutsCommand: boolean): string[] {
  if (cutsCommand || Object.hasOwn(check, 'history') || Object.hasOwn(check, 'total_state_change')) {
    return template(
      check,
      cutsCommand ? ['command', 'history', 'total_state_change'] : ['history', 'total_state_change'],
    )
  }
  // The usual result: the two attributes follow the others.
  return [`${text.slice(0, -1)},"history":`, 'history', ',"total_state_change":', 'total_state_change', '}']
}

/** Cuts the check's JSON at the values of the named attributes; those it does not have are appended in the given order. */
function template(check: JsonObject, holes: Hole[]): string[] {
  const pieces: string[] = []
  let piece = '{'
  const missing = new Set<string>(holes)
  const add = (key: string, value: Json | undefined) => {
    piece += `${piece === '{' || piece.endsWith('{') ? '' : ','}${jsonText(key)}:`
    if (value === undefined) {
      pieces.push(piece, key)
      piece = ''
    } else piece += jsonText(value)
  }
  for (const [key, value] of entriesOf(check)) {
    add(key, missing.delete(key) ? undefined : value)
  }
  for (const key of missing) add(key, undefined)
  return [...pieces, `${piece}}`]
}

/** JSON text that Redis' own decoder accepts too: it refuses the escapes of lone surrogates, which are no characters anyway. */
export function jsonText(value: Json): string {
  return replaceLoneSurrogates(stringifyJson(value))
}

function replaceLoneSurrogates(text: string): string {
  if (!text.includes('\\u')) return text
  return text.replace(/\\(?:u[dD][89a-fA-F][0-9a-fA-F]{2}|.)/g, found => (/^\\u[dD]/.test(found) ? '\\ufffd' : found))
}

function plainText(value: Json): string {
  return typeof value === 'string' ? value : stringifyJson(value)
}

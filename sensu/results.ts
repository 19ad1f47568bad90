import { deepMerge } from './deep-merge.js'
import { defaultHookTimeoutSeconds, sensuVersion } from './defaults.js'
import {
  entriesOf,
  type Float,
  float,
  fromEntries,
  isInteger,
  isObject,
  isSet,
  isTruthy,
  member,
} from './json-value.js'
import { defaultRedactedNames, redact } from './redact.js'
import { plainText } from './text-forms.js'
import type { CheckDefinition, CheckResult, CheckWithResult, ClientDefinition, Json, JsonObject } from './types.js'

/** Epoch seconds as Sensu writes them: whole, rounded down. */
export function epochSeconds(milliseconds: number): number {
  return Math.floor(milliseconds / 1000)
}

/** A duration for the wire: seconds with 3 decimals, always a float (`1.0`, `0.003`). */
export function durationSeconds(milliseconds: number): number | Float {
  return float(Math.round(milliseconds) / 1000)
}

/** The message on the pipe `results`, without an empty `source`; `signature` only when the client has one. */
export function resultMessage(client: ClientDefinition, check: CheckWithResult): CheckResult {
  const message: CheckResult = { client: client.name, check: check.source === '' ? withoutSource(check) : check }
  return isSet(client.signature) ? { ...message, signature: client.signature } : message
}

function withoutSource({ source: _source, ...check }: CheckWithResult): CheckWithResult {
  return check
}

/**
 * The message on the pipe `keepalives`: the redacted client definition with `version` and `timestamp`, which overwrite
 * attributes of these names at their place.
 */
export function keepaliveMessage(client: ClientDefinition, nowMs: number): JsonObject {
  const names = client.redact ?? defaultRedactedNames
  return redact({ ...client, version: sensuVersion, timestamp: epochSeconds(nowMs) }, names)
}

/**
 * Lays the local definition of a check over a request of that name: each attribute as a whole, local ones win, the
 * request's keep their places. A request with `proxy_requests` stays as it is.
 */
export function mergeLocalDefinition(request: CheckDefinition, local: CheckDefinition | undefined): CheckDefinition {
  if (local === undefined || Object.hasOwn(request, 'proxy_requests')) return request
  return fromEntries([...entriesOf(request), ...entriesOf(local)])
}

/** What names a check among those running: `<source>:<name>`, or the name, before token substitution. */
export function checkKey(check: CheckDefinition): string {
  const name = plainText(check.name)
  return isTruthy(check.source) ? `${plainText(check.source)}:${name}` : name
}

/** What a finished command adds to a check or a hook. */
export type Outcome = {
  /** epoch milliseconds of the acceptance, before waiting for a free place */
  executedMs: number
  /** milliseconds from the acceptance to the end */
  durationMs: number
  output: string | Buffer
  status: number
}

/** A check, or a hook, with its result: `executed`, `duration`, `output`, `status`, in this order at its end. */
export function withOutcome<T extends JsonObject>(definition: T, outcome: Outcome): T & JsonObject {
  return {
    ...definition,
    executed: epochSeconds(outcome.executedMs),
    duration: durationSeconds(outcome.durationMs),
    output: outcome.output,
    status: outcome.status,
  }
}

/** The result of a check that was not run because tokens have no value. */
export function unmatchedTokensResult(
  check: CheckDefinition,
  paths: readonly string[],
  nowMs: number,
): CheckWithResult {
  const output = unmatchedTokensText(paths)
  return { ...check, executed: epochSeconds(nowMs), output, status: 3, handle: false }
}

/** The output of a check or hook whose tokens have no value. */
export function unmatchedTokensText(paths: readonly string[]): string {
  return `Unmatched client token(s): ${paths.join(', ')}`
}

/** The result of a check that safe mode does not run because it is not defined here. */
export function safeModeResult(check: CheckDefinition, nowMs: number): CheckWithResult {
  const output = 'Check is not locally defined (safe mode)'
  return { ...check, output, status: 3, handle: false, executed: epochSeconds(nowMs) }
}

/** What a standalone check becomes when it is due: `name` and `issued` follow its definition. */
export function standaloneRequest(name: string, definition: CheckDefinition, nowMs: number): CheckDefinition {
  return { ...definition, name, issued: epochSeconds(nowMs) }
}

/** Whether the client itself schedules the check: standalone, published, with an interval or a cron line. */
export function isStandalone(check: CheckDefinition): boolean {
  const scheduled = typeof check.cron === 'string' || isInteger(check.interval)
  return isTruthy(check.standalone) && check.publish !== false && scheduled
}

/** What `client.deregister` publishes when the client stops. */
export function deregistrationCheck(client: ClientDefinition, nowMs: number): CheckWithResult {
  const now = epochSeconds(nowMs)
  const configured = isObject(client.deregistration) ? client.deregistration : {}
  return {
    ...deepMerge({ handler: 'deregistration', status: 1 }, configured),
    name: 'deregistration',
    output: 'client initiated deregistration',
    issued: now,
    executed: now,
  }
}

/**
 * A result from a local socket with what it may leave out: `status` 0 and `executed` now, when they are missing, null or
 * false. To be validated next.
 */
export function withResultDefaults(check: JsonObject, nowMs: number): CheckWithResult {
  return {
    ...check,
    status: isTruthy(check['status']) ? check['status'] : 0,
    executed: isTruthy(check['executed']) ? check['executed'] : epochSeconds(nowMs),
  }
}

/** A valid result from a local socket as it is published: issued now, whatever it said. */
export function issuedNow(check: CheckWithResult, nowMs: number): CheckWithResult {
  return { ...check, issued: epochSeconds(nowMs) }
}

const severities = ['ok', 'warning', 'critical', 'unknown']

/** The name of a status: 0 ok, 1 warning, 2 critical, else unknown (-4 to -2 count from the end, as in Sensu 1.9). */
export function severityOf(status: number): string {
  return severities.at(status) ?? 'unknown'
}

/**
 * The key of the hook that follows a status: the status itself, else its severity, else `non-zero` for every status but
 * 0. Undefined when none is defined.
 */
export function selectHook(hooks: JsonObject, status: number): string | undefined {
  const keys = [String(status), severityOf(status), ...(status === 0 ? [] : ['non-zero'])]
  return keys.find(key => isSet(member(hooks, key)))
}

/** A hook's time limit in seconds: its own (also null, for none), else 60. */
export function hookTimeout(hook: JsonObject): Json {
  return Object.hasOwn(hook, 'timeout') ? (member(hook, 'timeout') ?? null) : defaultHookTimeoutSeconds
}

/** The check with one of its hooks replaced; the others and their order stay. */
export function withHook(check: CheckWithResult, key: string, hook: JsonObject): CheckWithResult {
  const hooks = isObject(check.hooks) ? check.hooks : {}
  return { ...check, hooks: fromEntries([...entriesOf(hooks), [key, hook]]) }
}

/** What a command with `stdin: true` reads: the client, not redacted, and the check as far as it is known. */
export function standardInput(client: ClientDefinition, check: CheckDefinition): JsonObject {
  return { client, check }
}

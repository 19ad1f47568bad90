import { isObject, keysOf } from '../sensu/json-value.js'
import type { Logger } from '../sensu/log.js'
import {
  durationSeconds,
  epochSeconds,
  hookTimeout,
  selectHook,
  standardInput,
  unmatchedTokensText,
  withHook,
} from '../sensu/results.js'
import { UnquotableError } from '../sensu/shell-quoting.js'
import { substituteCommand, substituteText } from '../sensu/tokens.js'
import type { CheckWithResult, ClientDefinition, Json, JsonObject } from '../sensu/types.js'
import type { CommandRunner } from './commands.js'

export interface HookContext {
  client: ClientDefinition
  commands: CommandRunner
  log: Logger
  /** Whether token values are quoted for the shell. */
  quoteTokens: boolean
}

/** Runs the one hook that fits the check's status, and returns the check with the hook's outcome in its `hooks`. */
export async function withHookRun(check: CheckWithResult, context: HookContext): Promise<CheckWithResult> {
  const { hooks } = check
  const { log } = context
  if (hooks === undefined) return check
  if (!isObject(hooks)) {
    log.error('check hooks must be a hash', { check })
    return check
  }
  if (keysOf(hooks).length === 0) return check
  log.debug('attempting to execute check hook', { check })
  const key = selectHook(hooks, Number(check.status))
  if (key === undefined) return check
  const hook = hooks[key]
  const written = isObject(hook) ? textOf(hook['command']) : undefined
  if (!isObject(hook) || written === undefined) {
    log.error('check hook command must be a string', { check, hook: key })
    return check
  }
  const started: JsonObject = { ...hook, executed: epochSeconds(Date.now()) }
  const outcome = await execute(written, hook, withHook(check, key, started), context)
  return withHook(check, key, { ...started, ...outcome })
}

/** Also of a text that is not UTF-8; undefined for anything else. */
function textOf(value: Json | undefined): string | undefined {
  return typeof value === 'string' || Buffer.isBuffer(value) ? value.toString() : undefined
}

/** Returns what is added to the hook, in Sensu's key order. The published command keeps its tokens, for they may stand for secrets. */
async function execute(
  written: string,
  hook: JsonObject,
  check: CheckWithResult,
  { client, commands, quoteTokens }: HookContext,
): Promise<JsonObject> {
  const { text: command, unmatched, problem } = substituted(written, client, quoteTokens)
  if (problem !== undefined) return { output: problem, status: 3 }
  if (unmatched.length > 0) return { output: unmatchedTokensText(unmatched), status: 3 }
  const startedMs = performance.now()
  const definition = { ...hook, command, timeout: hookTimeout(hook) }
  const { output, status } = await commands.run(definition, standardInput(client, check))
  return { duration: durationSeconds(performance.now() - startedMs), output, status }
}

function substituted(
  written: string,
  client: ClientDefinition,
  quote: boolean,
): { text: string; unmatched: string[]; problem?: string } {
  try {
    return quote ? substituteCommand(written, client) : substituteText(written, client)
  } catch (error) {
    if (!(error instanceof UnquotableError)) throw error
    return { text: '', unmatched: [], problem: unquotableText(error) }
  }
}

/** The result's output when a value cannot be put into a command safely. */
export function unquotableText(error: UnquotableError): string {
  return `Unexpected error: cannot quote ${error.message}`
}

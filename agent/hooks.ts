import { isObject } from '../sensu/json-value.js'
import type { Logger } from '../sensu/log.js'
import type { ClientDefinition, Json, JsonObject } from '../sensu/types.js'
import { type CommandRunner, durationSeconds } from './commands.js'

/** Seconds a hook may take unless it says otherwise; an explicit null means no limit. */
const DEFAULT_TIMEOUT_SECONDS = 60
const SEVERITIES = ['ok', 'warning', 'critical']

export interface HookContext {
  client: ClientDefinition
  commands: CommandRunner
  log: Logger
}

/**
 * Runs the one hook that fits the check's status, and returns the check's `hooks` with the hook's outcome added.
 * `substituted` are the same hooks with tokens replaced: what is executed, but not what is published.
 */
export async function runHook(
  check: JsonObject,
  substituted: Json | undefined,
  context: HookContext,
): Promise<Json | undefined> {
  const { hooks } = check
  if (!isObject(hooks) || !isObject(substituted)) {
    if (hooks !== undefined) context.log.error('check hooks must be a hash', { check })
    return hooks
  }
  if (Object.keys(hooks).length === 0) return hooks
  context.log.debug('attempting to execute check hook', { check })
  const key = selectHook(hooks, Number(check['status']))
  if (key === undefined) return hooks
  const hook = hooks[key]
  const definition = substituted[key]
  if (!isObject(hook) || !isObject(definition) || typeof definition['command'] !== 'string') {
    context.log.error('check hook command must be a string', { check, hook: key })
    return hooks
  }
  const started: JsonObject = { ...hook, executed: Math.floor(Date.now() / 1000) }
  const input: JsonObject = { ...check, hooks: { ...hooks, [key]: started } }
  return { ...hooks, [key]: { ...started, ...(await execute(input, definition, context)) } }
}

/** By the status itself, by its severity, or because it is not zero: the first that exists. */
function selectHook(hooks: JsonObject, status: number): string | undefined {
  const candidates = [String(status), SEVERITIES[status] ?? 'unknown', ...(status === 0 ? [] : ['non-zero'])]
  return candidates.find(key => Object.hasOwn(hooks, key))
}

/** Returns what is added to the hook, in Sensu's key order. */
async function execute(check: JsonObject, definition: JsonObject, context: HookContext): Promise<JsonObject> {
  const { client, commands } = context
  const timeout = 'timeout' in definition ? (definition['timeout'] ?? null) : DEFAULT_TIMEOUT_SECONDS
  const startedMs = performance.now()
  const { output, status } = await commands.run({ ...definition, timeout }, { client, check })
  return { duration: durationSeconds(startedMs), output, status }
}

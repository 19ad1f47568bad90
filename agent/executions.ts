import { isObject, isTruthy } from '../sensu/json-value.js'
import type { Logger } from '../sensu/log.js'
import { substituteTokens } from '../sensu/tokens.js'
import type { CheckDefinition, ClientDefinition, Json, JsonObject } from '../sensu/types.js'
import { type CommandRunner, durationSeconds, type Outcome } from './commands.js'
import { runHook } from './hooks.js'
import type { Results } from './results.js'

export interface ExecutionsOptions {
  client: ClientDefinition
  /** The checks of the own configuration, by name. */
  checks: Record<string, CheckDefinition>
  safeMode: boolean
  log: Logger
  results: Results
  commands: CommandRunner
}

/** Executes checks: one at a time per check and source, results published as Sensu's client 1.9 does. */
export class Executions {
  readonly #options: ExecutionsOptions
  readonly #inProgress = new Set<string>()
  #onIdle: (() => void)[] = []

  constructor(options: ExecutionsOptions) {
    this.#options = options
  }

  /** The checks that are queued, running, or having their hook run: `name`, or `source:name`. */
  get inProgress(): string[] {
    return [...this.#inProgress]
  }

  /** Resolves when nothing is in progress. */
  async idle(): Promise<void> {
    if (this.#inProgress.size === 0) return
    await new Promise<void>(resolve => this.#onIdle.push(resolve))
  }

  /**
   * Decides what becomes of a check with a string `name`: merges the local definition of that name over it, refuses it
   * in safe mode, or executes it. Returns at once; the result is published when it is there.
   */
  process(request: JsonObject): void {
    const { log, safeMode, results } = this.#options
    log.debug('processing check', { check: request })
    const local = this.#localDefinition(request)
    const check = local && !('proxy_requests' in request) ? { ...request, ...local } : request
    if (!('command' in check)) {
      // our only extensions are the checks inside this process, which have a command
      log.warn('unknown check extension', { check })
    } else if (safeMode && !local) {
      results.publish({
        ...check,
        output: 'Check is not locally defined (safe mode)',
        status: 3,
        handle: false,
        executed: epochSeconds(),
      })
    } else {
      this.#executeOnce(check)
    }
  }

  #localDefinition({ name }: JsonObject): JsonObject | undefined {
    const { checks } = this.#options
    return typeof name === 'string' && Object.hasOwn(checks, name) ? checks[name] : undefined
  }

  /** The guard's key is taken from the request as it came, before tokens are substituted. */
  #executeOnce(check: JsonObject): void {
    const { log } = this.#options
    log.debug('attempting to execute check command', { check })
    const key = isTruthy(check['source']) ? `${check['source']}:${check['name']}` : String(check['name'])
    if (this.#inProgress.has(key)) {
      log.warn('previous check command execution in progress', { check })
      return
    }
    this.#inProgress.add(key)
    this.#execute(check)
      .catch((error: unknown) => {
        log.error('failed to execute check', { check: { name: check['name'] ?? null }, error: String(error) })
      })
      .finally(() => this.#release(key))
  }

  #release(key: string): void {
    this.#inProgress.delete(key)
    if (this.#inProgress.size > 0) return
    for (const resolve of this.#onIdle.splice(0)) resolve()
  }

  async #execute(check: JsonObject): Promise<void> {
    const { client, commands, results } = this.#options
    const { value, unmatched } = substituteTokens(check, client)
    const substituted: JsonObject = isObject(value) ? value : {}
    const base = publishable(check, substituted)
    base['executed'] = epochSeconds()
    if (unmatched.length > 0) {
      const output = `Unmatched client token(s): ${unmatched.join(', ')}`
      results.publish({ ...base, output, status: 3, handle: false })
      return
    }
    const startedMs = performance.now()
    const outcome = await commands.run(substituted, { client, check: base })
    const duration = durationSeconds(startedMs)
    for (const guest of outcome.guests)
      await this.#finish({ ...base, source: guest.source }, substituted, guest, duration)
    await this.#finish(base, substituted, outcome, duration)
  }

  /** Adds outcome and hook to the check and publishes it. */
  async #finish(base: JsonObject, substituted: JsonObject, outcome: Outcome, duration: Json): Promise<void> {
    const { client, commands, log, results } = this.#options
    const check: JsonObject = { ...base, duration, output: outcome.output, status: outcome.status }
    check['hooks'] = await runHook(check, substituted['hooks'], { client, commands, log })
    if (check['hooks'] === undefined) delete check['hooks']
    results.publish(check)
  }
}

/**
 * The check as it is published: substituted, except for the commands, which may hold secrets by then.
 * Null `hooks` and an empty `source` disappear.
 */
function publishable(check: JsonObject, substituted: JsonObject): JsonObject {
  const result: JsonObject = { ...substituted, command: check['command'] ?? null }
  if (result['hooks'] === null) delete result['hooks']
  if (result['source'] === '') delete result['source']
  const { hooks: original } = check
  const { hooks } = result
  if (isObject(hooks) && isObject(original)) result['hooks'] = withOriginalCommands(hooks, original)
  return result
}

function withOriginalCommands(hooks: JsonObject, original: JsonObject): JsonObject {
  const result = { ...hooks }
  for (const [key, hook] of Object.entries(hooks)) {
    const source = original[key]
    if (isObject(hook) && isObject(source) && 'command' in hook) result[key] = { ...hook, command: source['command'] }
  }
  return result
}

function epochSeconds(): number {
  return Math.floor(Date.now() / 1000)
}

import type { Logger } from '../sensu/log.js'
import {
  checkKey,
  durationSeconds,
  epochSeconds,
  mergeLocalDefinition,
  safeModeResult,
  standardInput,
  unmatchedTokensResult,
} from '../sensu/results.js'
import { substituteCheck } from '../sensu/tokens.js'
import type { CheckDefinition, ClientDefinition, Json, JsonObject } from '../sensu/types.js'
import type { CommandRunner, Outcome } from './commands.js'
import { withHookRun } from './hooks.js'
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
    const check = mergeLocalDefinition(request, local)
    if (!('command' in check)) {
      // our only extensions are the checks inside this process, which have a command
      log.warn('unknown check extension', { check })
    } else if (safeMode && !local) {
      results.publish(safeModeResult(check, Date.now()))
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
    const key = checkKey(check)
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

  async #execute(request: JsonObject): Promise<void> {
    const { client, commands, results } = this.#options
    const { check, command, unmatched } = substituteCheck(request, client)
    if (unmatched.length > 0) return results.publish(unmatchedTokensResult(check, unmatched, Date.now()))
    const started: JsonObject = { ...check, executed: epochSeconds(Date.now()) }
    const startedMs = performance.now()
    const outcome = await commands.run({ ...check, command }, standardInput(client, started))
    const duration = durationSeconds(performance.now() - startedMs)
    for (const guest of outcome.guests) await this.#finish({ ...started, source: guest.source }, guest, duration)
    await this.#finish(started, outcome, duration)
  }

  /** Adds outcome and hook to the check and publishes it. */
  async #finish(started: JsonObject, { output, status }: Outcome, duration: Json): Promise<void> {
    const { client, commands, log, results } = this.#options
    const check: JsonObject = { ...started, duration, output, status }
    results.publish(await withHookRun(check, { client, commands, log }))
  }
}

import { safeName } from '../plugin/text.js'
import { isSet } from '../sensu/json-value.js'
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
import { UnquotableError } from '../sensu/shell-quoting.js'
import { type SubstitutedCheck, substituteCheck } from '../sensu/tokens.js'
import type { CheckDefinition, ClientDefinition, Json, JsonObject } from '../sensu/types.js'
import type { CheckOutcome, CommandRunner, GuestOutcome, Outcome } from './commands.js'
import { type CheckExtensions, runExtension } from './extensions.js'
import type { ChangedGuests } from './guest-events.js'
import { unquotableText, withHookRun } from './hooks.js'
import type { InProcessCall } from './in-process.js'
import type { Results } from './results.js'

export interface ExecutionsOptions {
  client: ClientDefinition
  /** The checks of the own configuration, by name. */
  checks: Record<string, CheckDefinition>
  extensions: CheckExtensions
  safeMode: boolean
  /** Token values in commands are quoted for the shell. */
  quoteTokens: boolean
  log: Logger
  results: Results
  commands: CommandRunner
}

/** Executes checks: one at a time per check and source, results published as Sensu's client 1.9 does. */
export class Executions {
  readonly #options: ExecutionsOptions
  /** What waits for the end of each. */
  readonly #inProgress = new Map<string, (() => void)[]>()
  #onIdle: (() => void)[] = []

  constructor(options: ExecutionsOptions) {
    this.#options = options
  }

  /** The checks that are queued, running, or having their hook run: `name`, or `source:name`. */
  get inProgress(): string[] {
    return [...this.#inProgress.keys()]
  }

  /** Resolves when nothing is in progress. */
  async idle(): Promise<void> {
    if (this.#inProgress.size === 0) return
    await new Promise<void>(resolve => this.#onIdle.push(resolve))
  }

  /** Resolves when no execution of the check is in progress. */
  async whenFree(check: JsonObject): Promise<void> {
    const key = checkKey(check)
    for (let waiting = this.#inProgress.get(key); waiting; waiting = this.#inProgress.get(key)) {
      const last = waiting
      await new Promise<void>(resolve => last.push(resolve))
    }
  }

  /** How the check would run inside this process; undefined when it would not. */
  inProcessCall(check: JsonObject): InProcessCall | undefined {
    const { client, commands, quoteTokens } = this.#options
    try {
      const { command, unmatched } = substituteCheck(check, client, quoteTokens)
      return unmatched.length > 0 ? undefined : commands.inProcessCall({ ...check, command })
    } catch (error) {
      if (error instanceof UnquotableError) return undefined
      throw error
    }
  }

  /**
   * Decides what becomes of a check with a string `name`: merges the local definition of that name over it, refuses it
   * in safe mode, or executes it. Returns at once; the result is published when it is there. Of a run that brings one result
   * per guest, only those of `guests` are published.
   */
  process(request: JsonObject, guests: ChangedGuests = 'all'): void {
    const { log, safeMode, results } = this.#options
    log.debug('processing check', { check: request })
    const local = this.#localDefinition(request)
    const check = mergeLocalDefinition(request, local)
    if (!('command' in check)) {
      this.#runExtension(check)
    } else if (safeMode && !local) {
      results.publish(safeModeResult(check, Date.now()))
    } else {
      this.#executeOnce(check, guests)
    }
  }

  #localDefinition({ name }: JsonObject): JsonObject | undefined {
    const { checks } = this.#options
    return typeof name === 'string' && Object.hasOwn(checks, name) ? checks[name] : undefined
  }

  /** The guard's key is taken from the request as it came, before tokens are substituted. */
  #executeOnce(request: JsonObject, guests: ChangedGuests): void {
    const { client, commands, log } = this.#options
    log.debug('attempting to execute check command', { check: request })
    const key = checkKey(request)
    if (this.#inProgress.has(key)) {
      log.warn('previous check command execution in progress', { check: request })
      return
    }
    const prepared = this.#prepare(request)
    if (!prepared) return
    const { check, command } = prepared
    const acceptedMs = Date.now()
    const clockMs = performance.now()
    this.#inProgress.set(key, [])
    commands.whenFree(() => {
      const started: JsonObject = { ...check, executed: epochSeconds(acceptedMs) }
      const outcome = commands.execute({ ...check, command }, standardInput(client, started))
      this.#publish(started, outcome, clockMs, guests)
        .catch((error: unknown) => {
          log.error('failed to execute check', { check: { name: check['name'] ?? null }, error: String(error) })
        })
        .finally(() => this.#release(key))
      return outcome
    })
  }

  /** Substitutes the tokens. Undefined when the command cannot be run; why is published. */
  #prepare(request: JsonObject): Pick<SubstitutedCheck, 'check' | 'command'> | undefined {
    const { client, quoteTokens, results } = this.#options
    try {
      const { check, command, unmatched } = substituteCheck(request, client, quoteTokens)
      if (unmatched.length === 0) return { check, command }
      results.publish(unmatchedTokensResult(check, unmatched, Date.now()))
    } catch (error) {
      if (!(error instanceof UnquotableError)) throw error
      const { check } = substituteCheck(request, client)
      results.publish({ ...check, executed: epochSeconds(Date.now()), output: unquotableText(error), status: 3 })
    }
    return undefined
  }

  /** In this process, without slots, tokens or a time limit, as Sensu's own. */
  #runExtension(check: JsonObject): void {
    const { extensions, log } = this.#options
    const name = isSet(check['extension']) ? check['extension'] : check['name']
    const extension = typeof name === 'string' ? extensions.get(name) : undefined
    if (!extension) {
      log.warn('unknown check extension', { check })
      return
    }
    log.debug('attempting to run check extension', { check })
    const key = checkKey(check)
    if (this.#inProgress.has(key)) {
      log.warn('previous check extension execution in progress', { check })
      return
    }
    this.#inProgress.set(key, [])
    const started: JsonObject = { ...check, executed: epochSeconds(Date.now()) }
    const execution = runExtension(extension, started).then(outcome => ({ ...outcome, guests: [] }))
    this.#publish(started, execution, performance.now(), 'all')
      .catch((error: unknown) => {
        log.error('failed to execute check', { check: { name: check['name'] ?? null }, error: String(error) })
      })
      .finally(() => this.#release(key))
  }

  #release(key: string): void {
    const waiting = this.#inProgress.get(key) ?? []
    this.#inProgress.delete(key)
    for (const resolve of waiting) resolve()
    if (this.#inProgress.size > 0) return
    for (const resolve of this.#onIdle.splice(0)) resolve()
  }

  /** `acceptedClockMs`: when the check was accepted, by the monotonic clock; waiting for a slot counts in the duration. */
  async #publish(
    started: JsonObject,
    execution: Promise<CheckOutcome>,
    acceptedClockMs: number,
    changed: ChangedGuests,
  ): Promise<void> {
    const outcome = await execution
    const duration = durationSeconds(performance.now() - acceptedClockMs)
    const wanted = changed === 'all' ? undefined : new Set([...changed].map(name => safeName(name)))
    const guests = outcome.guests.filter(({ source, last }) => last || (wanted?.has(source) ?? true))
    // side by side: the hooks of a thousand guests must not wait for each other
    await Promise.all(guests.map(guest => this.#finish(guestCheck(started, guest), guest, duration)))
    if (wanted === undefined || guests.length === 0) await this.#finish(started, outcome, duration)
  }

  /** Adds outcome and hook to the check and publishes it. */
  async #finish(started: JsonObject, { output, status }: Outcome, duration: Json): Promise<void> {
    const { client, commands, log, results, quoteTokens } = this.#options
    const check: JsonObject = { ...started, duration, output, status }
    results.publish(await withHookRun(check, { client, commands, log, quoteTokens }))
  }
}

/** The check as the guest's own. Nobody is to wait for another result of a guest that is gone. */
function guestCheck(check: JsonObject, { source, last }: GuestOutcome): JsonObject {
  if (!last) return { ...check, source }
  const { ttl: _ttl, ttl_status: _status, ...lasting } = check
  return { ...lasting, source }
}

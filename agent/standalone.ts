import { CheckTimers, scheduleOf } from '../sensu/check-timers.js'
import type { Logger } from '../sensu/log.js'
import { isStandalone, standaloneRequest } from '../sensu/results.js'
import { isSubdued } from '../sensu/subdue.js'
import type { CheckDefinition, JsonObject } from '../sensu/types.js'
import type { Executions } from './executions.js'
import type { CheckExtensions } from './extensions.js'
import type { ChangedGuests } from './guest-events.js'

export interface StandaloneOptions {
  clientName: string
  /** All checks of the configuration, by name; only those that schedule themselves are used. */
  checks: Record<string, CheckDefinition>
  /** Those whose definition says so schedule themselves, too. */
  extensions: CheckExtensions
  executions: Executions
  log: Logger
}

/** Runs the checks that this client schedules by itself (`standalone: true`). */
export class StandaloneChecks {
  readonly #options: StandaloneOptions
  readonly #timers = new CheckTimers()

  constructor(options: StandaloneOptions) {
    this.#options = options
  }

  start(): void {
    const { checks, extensions, clientName, log } = this.#options
    log.debug('scheduling standalone checks')
    this.stop()
    const ownDefinitions = [...extensions.values()].map(({ name, definition }) => [name, definition] as const)
    // a check of the configuration takes the name of an extension
    for (const [name, check] of new Map([...ownDefinitions, ...Object.entries(checks)])) {
      const schedule = isStandalone(check) ? scheduleOf(check, `${clientName}:${name}`) : undefined
      if (schedule) this.#timers.schedule(name, schedule, () => this.#execute(name, check))
    }
  }

  stop(): void {
    this.#timers.stop()
  }

  /** Runs a check of the configuration now, besides its schedule; of one result per guest only those of `guests` are published. */
  runNow(name: string, guests: ChangedGuests): void {
    const check = this.#options.checks[name]
    if (check) this.#execute(name, check, guests)
  }

  #execute(name: string, check: JsonObject, guests?: ChangedGuests): void {
    const { executions, log } = this.#options
    if (isSubdued(check['subdue'], new Date())) log.info('check execution was subdued', { check: { ...check, name } })
    else executions.process(standaloneRequest(name, check, Date.now()), guests)
  }
}

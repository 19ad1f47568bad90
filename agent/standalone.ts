import { type Cron, nextRun, parseCron } from '../sensu/cron.js'
import type { Logger } from '../sensu/log.js'
import { isStandalone, standaloneRequest } from '../sensu/results.js'
import { splayDelayMs } from '../sensu/splay.js'
import { isSubdued } from '../sensu/subdue.js'
import type { CheckDefinition, JsonObject } from '../sensu/types.js'
import type { Executions } from './executions.js'
import type { CheckExtensions } from './extensions.js'
import type { ChangedGuests } from './guest-events.js'

/** setTimeout counts in 31 bits of milliseconds; whoever waits longer sleeps in pieces. */
const LONGEST_TIMER_MS = 2 ** 31 - 1

export interface StandaloneOptions {
  clientName: string
  /** All checks of the configuration, by name; only those that schedule themselves are used. */
  checks: Record<string, CheckDefinition>
  /** Those whose definition says so schedule themselves, too. */
  extensions: CheckExtensions
  executions: Executions
  log: Logger
}

/** When a check is due next, after the given moment. */
type Schedule = (nowMs: number) => number

/** Runs the checks that this client schedules by itself (`standalone: true`). */
export class StandaloneChecks {
  readonly #options: StandaloneOptions
  readonly #timers = new Map<string, NodeJS.Timeout>()

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
      const schedule = scheduleOf(check, `${clientName}:${name}`)
      if (schedule) this.#arm(name, check, schedule, schedule(Date.now()))
    }
  }

  stop(): void {
    for (const timer of this.#timers.values()) clearTimeout(timer)
    this.#timers.clear()
  }

  /** Runs a check of the configuration now, besides its schedule; of one result per guest only those of `guests` are published. */
  runNow(name: string, guests: ChangedGuests): void {
    const check = this.#options.checks[name]
    if (check) this.#execute(name, check, guests)
  }

  #arm(name: string, check: JsonObject, schedule: Schedule, dueMs: number): void {
    const delayMs = Math.min(dueMs - Date.now(), LONGEST_TIMER_MS)
    const onTimer = () => {
      // timers may be a little early by the wall clock; running now would make the next run fall on the same moment
      if (Date.now() < dueMs) return this.#arm(name, check, schedule, dueMs)
      this.#execute(name, check)
      this.#arm(name, check, schedule, schedule(Date.now()))
    }
    this.#timers.set(name, setTimeout(onTimer, Math.max(0, delayMs)))
  }

  #execute(name: string, check: JsonObject, guests?: ChangedGuests): void {
    const { executions, log } = this.#options
    const due = standaloneRequest(name, check, Date.now())
    if (isSubdued(check['subdue'], new Date())) {
      log.info('check execution was subdued', { check: due })
      return
    }
    executions.process(due, guests)
  }
}

/** Cron wins over interval. Undefined for checks that others schedule. */
function scheduleOf(check: JsonObject, splayKey: string): Schedule | undefined {
  const { cron, interval } = check
  if (!isStandalone(check)) return undefined
  if (typeof cron === 'string') {
    const parsed: Cron | undefined = parseCron(cron)
    return parsed && (nowMs => nextRun(parsed, new Date(nowMs)).getTime())
  }
  if (typeof interval !== 'number' || interval <= 0) return undefined
  // never the very moment of the run before
  return nowMs => nowMs + (splayDelayMs(splayKey, interval, nowMs) || interval * 1000)
}

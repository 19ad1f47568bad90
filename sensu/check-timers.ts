import { nextRun, parseCron } from './cron.js'
import { splayDelayMs } from './splay.js'
import type { CheckDefinition } from './types.js'

/** setTimeout counts in 31 bits of milliseconds; whoever waits longer sleeps in pieces. */
const LONGEST_TIMER_MS = 2 ** 31 - 1

/** When something is due next, after the given moment (epoch milliseconds). */
export type Schedule = (nowMs: number) => number

/** The rhythm of a check: its cron line, else its interval, shifted by the key's splay (see splayDelayMs). Undefined when it has neither. */
export function scheduleOf({ cron, interval }: CheckDefinition, splayKey: string): Schedule | undefined {
  if (typeof cron === 'string') {
    const parsed = parseCron(cron)
    return parsed && (nowMs => nextRun(parsed, new Date(nowMs)).getTime())
  }
  if (typeof interval !== 'number' || interval <= 0) return undefined
  // never the very moment of the run before
  return nowMs => nowMs + (splayDelayMs(splayKey, interval, nowMs) || interval * 1000)
}

/** One timer for each check that is on a schedule. Its moments are computed from the clock each time, so they do not drift. */
export class CheckTimers {
  readonly #timers = new Map<string, NodeJS.Timeout>()

  /** Calls `onDue` whenever the check is due; a check of that name is replaced. */
  schedule(name: string, schedule: Schedule, onDue: () => void): void {
    clearTimeout(this.#timers.get(name))
    this.#arm(name, schedule, schedule(Date.now()), onDue)
  }

  stop(): void {
    for (const timer of this.#timers.values()) clearTimeout(timer)
    this.#timers.clear()
  }

  #arm(name: string, schedule: Schedule, dueMs: number, onDue: () => void): void {
    const delayMs = Math.min(dueMs - Date.now(), LONGEST_TIMER_MS)
    const onTimer = () => {
      // timers may be a little early by the wall clock; running now would make the next run fall on the same moment
      if (Date.now() < dueMs) return this.#arm(name, schedule, dueMs, onDue)
      this.#arm(name, schedule, schedule(Date.now()), onDue)
      onDue()
    }
    this.#timers.set(name, setTimeout(onTimer, Math.max(0, delayMs)))
  }
}

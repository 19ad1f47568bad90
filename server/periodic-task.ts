import type { Logger } from '../sensu/log.js'
import type { LeaderTask } from './leader-tasks.js'

/** Sensu 1.9's monitors run first 30 s after their server got them, then every 30 s. */
export const MONITOR_INTERVAL_SECONDS = 30

/** A leader task that does the same thing again and again. A round that takes longer than the interval makes the next one wait. */
export class PeriodicTask implements LeaderTask {
  readonly name: string
  readonly #round: () => Promise<void>
  readonly #log: Logger
  readonly #intervalMs: number
  #timer: NodeJS.Timeout | undefined
  #running = false

  constructor(name: string, log: Logger, round: () => Promise<void>, intervalMs = MONITOR_INTERVAL_SECONDS * 1000) {
    this.name = name
    this.#log = log
    this.#round = round
    this.#intervalMs = intervalMs
  }

  start(): void {
    this.stop()
    this.#timer = setInterval(() => void this.#run(), this.#intervalMs)
  }

  stop(): void {
    clearInterval(this.#timer)
  }

  async #run(): Promise<void> {
    if (this.#running) return
    this.#running = true
    try {
      await this.#round()
    } catch (error) {
      this.#log.error('a server task failed', {
        task: this.name,
        error: error instanceof Error ? error.message : String(error),
      })
    } finally {
      this.#running = false
    }
  }
}

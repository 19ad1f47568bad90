import { CheckTimers, type Schedule, scheduleOf } from '../sensu/check-timers.js'
import { isObject, isTruthy, toNumber } from '../sensu/json-value.js'
import type { Logger } from '../sensu/log.js'
import { isSubdued } from '../sensu/subdue.js'
import type { CheckDefinition, Settings } from '../sensu/types.js'
import type { CheckRequests } from './check-requests.js'
import type { LeaderTask } from './leader-tasks.js'

/** Share of the interval over which proxy requests are spread, percent. */
const defaultSplayCoverage = 90

export interface CheckSchedulerOptions {
  settings: Pick<Settings, 'checks'>
  requests: CheckRequests
  log: Pick<Logger, 'debug' | 'info' | 'warn' | 'error'>
}

/** Publishes check requests when they are due: every interval, or by a cron line. */
export class CheckScheduler implements LeaderTask {
  readonly name = 'check_request_publisher'
  readonly #options: CheckSchedulerOptions
  readonly #timers = new CheckTimers()
  readonly #proxyTimers = new Set<NodeJS.Timeout>()

  constructor(options: CheckSchedulerOptions) {
    this.#options = options
  }

  start(): void {
    this.stop()
    for (const [name, check] of Object.entries(this.#options.settings.checks)) {
      if (isTruthy(check.standalone) || check.publish === false) continue
      // all servers have the same splay, so a request is at the same moment whoever publishes it
      const schedule = scheduleOf(check, name)
      if (schedule) this.#timers.schedule(name, schedule, () => void this.#publish({ ...check, name }, schedule))
    }
  }

  stop(): void {
    this.#timers.stop()
    for (const timer of this.#proxyTimers) clearTimeout(timer)
    this.#proxyTimers.clear()
  }

  async #publish(check: CheckDefinition, schedule: Schedule): Promise<void> {
    const { requests, log } = this.#options
    if (isSubdued(check.subdue, new Date())) {
      log.info('check request was subdued', { check })
    } else if (isObject(check.proxy_requests)) {
      await this.#publishProxyRequests(check, check.proxy_requests, schedule)
    } else {
      await requests.publish(check)
    }
  }

  async #publishProxyRequests(
    check: CheckDefinition,
    { splay, splay_coverage: coverage }: CheckDefinition,
    schedule: Schedule,
  ): Promise<void> {
    const { requests, log } = this.#options
    try {
      const found = await requests.proxyRequests(check)
      if (!isTruthy(splay)) return await requests.publishAll(found)
      const spreadMs = (this.#roundMs(check, schedule) * share(coverage)) / found.length
      for (const [index, request] of found.entries()) this.#publishLater(request, index * spreadMs)
    } catch (error) {
      log.error('failed to read the clients of proxy requests', { check, error: String(error) })
    }
  }

  /** Milliseconds until the check is due again. */
  #roundMs({ cron, interval }: CheckDefinition, schedule: Schedule): number {
    const now = Date.now()
    return isTruthy(cron) ? schedule(now) - now : (toNumber(interval) ?? 0) * 1000
  }

  #publishLater(request: CheckDefinition, delayMs: number): void {
    const { requests } = this.#options
    if (delayMs === 0) {
      void requests.publish(request)
      return
    }
    const timer = setTimeout(() => {
      this.#proxyTimers.delete(timer)
      void requests.publish(request)
    }, delayMs)
    this.#proxyTimers.add(timer)
  }
}

function share(coverage: CheckDefinition['splay_coverage']): number {
  return (toNumber(coverage) || defaultSplayCoverage) / 100
}

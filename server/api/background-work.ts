import type { Logger } from '../../sensu/log.js'

/** As much may go on at a time. */
const MAXIMUM = 1000

/** What requests have started and nobody waits for, such as the removal of a client. It is bounded, and finished before the server ends. */
export class BackgroundWork {
  readonly #log: Pick<Logger, 'error'>
  readonly #underWay = new Set<Promise<void>>()

  constructor(log: Pick<Logger, 'error'>) {
    this.#log = log
  }

  /** Whether so much goes on that nothing more should be started. */
  get full(): boolean {
    return this.#underWay.size >= MAXIMUM
  }

  /** Starts work; when it fails that is logged as `failed to <what>`. */
  start(what: string, work: () => Promise<unknown>): void {
    const done: Promise<void> = work()
      .then(
        () => {},
        error =>
          this.#log.error(`failed to ${what}`, { error: error instanceof Error ? error.message : String(error) }),
      )
      .finally(() => this.#underWay.delete(done))
    this.#underWay.add(done)
  }

  /** Resolves when nothing goes on any more, or the time is over: what waits for a broker that does not answer ends with its connection. */
  async idle(patienceMs: number): Promise<void> {
    const late = AbortSignal.timeout(patienceMs)
    const expired = new Promise<void>(resolve => late.addEventListener('abort', () => resolve()))
    while (this.#underWay.size > 0 && !late.aborted) await Promise.race([Promise.all(this.#underWay), expired])
  }
}

import { ApiError } from './api.js'

/** How often the API is asked while it answers; but it is left in peace so many times as long as it took for the answers. */
const INTERVAL_MS = 10_000
const PEACE_FACTOR = 4
/** So much more rarely while the page cannot be seen; its title still tells. */
const UNSEEN_FACTOR = 6
/** How long after a failure it is tried again: each time twice as long as before. */
const FIRST_RETRY_MS = 1000
const LAST_RETRY_MS = 30_000
/** What somebody did is looked for after these. */
const SOON_MS = [300, 1000, 3000]

/** How it stands with the API: since when, and when it is tried again, in milliseconds of the epoch. */
export type Connection =
  | { kind: 'connected'; at: number }
  | { kind: 'lost'; since: number; retryAt: number; reason: string }

/** Loads again and again: steadily while that works, ever more rarely while it does not, at once when somebody looks again. */
export class Poller {
  readonly #load: () => Promise<void>
  readonly #changed: (connection: Connection) => void
  #connection: Connection | undefined
  #failures = 0
  #loading = false
  #again = false
  #soon: number[] = []
  #timer: number | undefined

  constructor(load: () => Promise<void>, changed: (connection: Connection) => void) {
    this.#load = load
    this.#changed = changed
  }

  /** Never rejects. Asked while it loads, it loads once more afterwards. */
  async now(): Promise<void> {
    this.#again = this.#loading
    if (this.#loading) return
    this.#loading = true
    clearTimeout(this.#timer)
    const began = Date.now()
    try {
      await this.#load()
      this.#failures = 0
      this.#wait(Math.max(INTERVAL_MS, PEACE_FACTOR * (Date.now() - began)))
      this.#tell({ kind: 'connected', at: Date.now() })
    } catch (error) {
      if (!(error instanceof ApiError)) reportError(error)
      const delay = Math.min(LAST_RETRY_MS, FIRST_RETRY_MS * 2 ** this.#failures++)
      this.#wait(delay)
      this.#tell(this.#lost(error instanceof Error ? error.message : String(error), delay))
    } finally {
      this.#loading = false
    }
    if (this.#again) void this.now()
  }

  /** Something was done whose effect comes a little later. */
  soon(): void {
    this.#soon = [...SOON_MS]
    this.#wait(INTERVAL_MS)
  }

  watchVisibility(): void {
    document.addEventListener('visibilitychange', () => {
      if (!document.hidden) void this.now()
    })
    addEventListener('online', () => void this.now())
  }

  #lost(reason: string, delay: number): Connection {
    const before = this.#connection
    const now = Date.now()
    const since = before?.kind === 'lost' ? before.since : now
    return { kind: 'lost', since, retryAt: now + delay, reason }
  }

  #tell(connection: Connection): void {
    this.#connection = connection
    this.#changed(connection)
  }

  #wait(delay: number): void {
    clearTimeout(this.#timer)
    const soonest = Math.min(delay, this.#soon.shift() ?? delay)
    this.#timer = setTimeout(() => void this.now(), document.hidden ? soonest * UNSEEN_FACTOR : soonest)
  }
}

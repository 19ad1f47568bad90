import { setTimeout as sleep } from 'node:timers/promises'
import type { Logger } from '../sensu/log.js'
import type { TaskLocks } from '../store/task-locks.js'

/** How often what is done. */
export interface LeaderPace {
  /** The owner of a task says so. */
  renewalMs: number
  /** A task of somebody else is tried for; once more as long for each task that the server has already. */
  attemptMs: number
}

/**
 * Sensu's renewal of 10 s, and shorter pauses between attempts. Sensu waits 10 s, and 10 s more for each task it has already; with a lock that lives 30 s the last of
 * three tasks is idle for a minute when a server dies. Ours are all taken over within 38 s, and a server that has
 * tasks still lets others go first.
 */
const defaultPace: LeaderPace = { renewalMs: 10_000, attemptMs: 2000 }

/** Something that only one server does at a time. */
export interface LeaderTask {
  /** Sensu's name of it. */
  readonly name: string
  start(): void
  stop(): void
}

export interface LeaderTasksOptions {
  locks: TaskLocks
  /** In the order in which a server wants them. */
  tasks: readonly LeaderTask[]
  log: Pick<Logger, 'debug' | 'info' | 'warn'>
  pace?: LeaderPace
}

/** Sensu's election: which of the leader tasks this server does, agreed with all servers of a Redis by locks in it. */
export class LeaderTasks {
  readonly #options: LeaderTasksOptions
  readonly #renewals = new Map<string, NodeJS.Timeout>()
  readonly #pace: LeaderPace
  #electing: AbortController | undefined

  constructor(options: LeaderTasksOptions) {
    this.#options = options
    this.#pace = options.pace ?? defaultPace
  }

  /** Names of the tasks that this server does. */
  get owned(): string[] {
    return [...this.#renewals.keys()]
  }

  /** Begins to try for the tasks. */
  start(): void {
    if (this.#electing) return
    this.#electing = new AbortController()
    void this.#elect(this.#electing.signal)
  }

  /** Stops all tasks. Their locks are given back when Redis answers, so that others need not wait for them to grow old. */
  async relinquish(): Promise<void> {
    this.#electing?.abort()
    this.#electing = undefined
    const { tasks, locks } = this.#options
    const owned = tasks.filter(({ name }) => this.#renewals.has(name))
    for (const task of owned) this.#stop(task)
    await Promise.allSettled(owned.map(({ name }) => locks.release(name)))
  }

  /** Begins anew with the tasks that this server does: their settings have changed. */
  restartOwned(): void {
    for (const task of this.#options.tasks) if (this.#renewals.has(task.name)) task.start()
  }

  async #elect(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      for (const task of this.#options.tasks) {
        if (this.#renewals.has(task.name)) continue
        await pause(this.#pace.attemptMs * this.#renewals.size, signal)
        if (!signal.aborted) await this.#try(task, signal)
      }
      await pause(this.#pace.attemptMs, signal)
    }
  }

  async #try(task: LeaderTask, signal: AbortSignal): Promise<void> {
    const { locks, log } = this.#options
    try {
      if (!(await locks.acquire(task.name, Date.now()))) return
    } catch (error) {
      // a lost Redis is told by whoever watches the connection; anything else would be a task that nobody does
      log.debug('failed to try for a server task', { task: task.name, error: String(error) })
      return
    }
    if (signal.aborted) {
      await locks.release(task.name).catch(() => {})
      return
    }
    log.info('i am now responsible for a server task', { task: task.name })
    this.#renewals.set(
      task.name,
      setInterval(() => void this.#renew(task), this.#pace.renewalMs),
    )
    task.start()
  }

  async #renew(task: LeaderTask): Promise<void> {
    const { locks, log } = this.#options
    try {
      if (await locks.renew(task.name, Date.now())) return
    } catch {
      // without Redis everything pauses anyway; a lock that cannot be renewed grows old by itself
      return
    }
    if (!this.#renewals.has(task.name)) return
    log.warn('another sensu server is responsible for the task', { task: task.name })
    this.#stop(task)
  }

  #stop(task: LeaderTask): void {
    this.#options.log.warn('relinquishing server task', { task: task.name })
    clearInterval(this.#renewals.get(task.name))
    this.#renewals.delete(task.name)
    task.stop()
  }
}

async function pause(milliseconds: number, signal: AbortSignal): Promise<void> {
  try {
    await sleep(milliseconds, undefined, { signal })
  } catch {
    // aborted: whoever waits looks at the signal
  }
}

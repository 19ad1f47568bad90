import type { Redis } from 'ioredis'
import { taskLockKey, taskOwnerKey } from './keys.js'

/** A lock that was not renewed for so long may be taken over (Sensu 1.9: 30 s). */
const STALE = 30n * 10_000_000n

/** Sensu's locks of leader tasks: all servers of a Redis, ours and real ones, agree by them who does a task. */
export class TaskLocks {
  readonly #redis: () => Redis
  readonly #serverId: string

  /** `redis` throws while there is no connection. */
  constructor(redis: () => Redis, serverId: string) {
    this.#redis = redis
    this.#serverId = serverId
  }

  /**
   * Takes the task when nobody has it, or its owner has not renewed the lock for 30 s; true when it is ours. Of several servers that try at the
   * same moment one gets it (GETSET). Rejects when Redis is away.
   */
  async acquire(task: string, nowMs: number): Promise<boolean> {
    const redis = this.#redis()
    const key = taskLockKey(task)
    const now = lockValue(nowMs)
    if ((await redis.setnx(key, now)) === 0) {
      const held = (await redis.get(key)) ?? '0'
      if (BigInt(now) - numberOf(held) < STALE) return false
      if ((await redis.getset(key, now)) !== held) return false
    }
    await redis.set(taskOwnerKey(task), this.#serverId)
    return true
  }

  /** Renews the lock; false when the task belongs to another server by now. Rejects when Redis is away. */
  async renew(task: string, nowMs: number): Promise<boolean> {
    const redis = this.#redis()
    if ((await redis.get(taskOwnerKey(task))) !== this.#serverId) return false
    await redis.set(taskLockKey(task), lockValue(nowMs))
    return true
  }

  /** Gives the task back, so that others need not wait until the lock is old; nothing when it is not ours any more. */
  async release(task: string): Promise<void> {
    await this.#redis().eval(releaseScript, 2, taskLockKey(task), taskOwnerKey(task), this.#serverId)
  }
}

/** KEYS: 1 lock, 2 owner; ARGV: 1 server id. */
const releaseScript = `if redis.call('GET', KEYS[2]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end`

/** Seconds since the epoch times 10^7: the unit of Sensu 1.9. */
function lockValue(nowMs: number): string {
  return String(BigInt(Math.floor(nowMs)) * 10_000n)
}

/** What is no number is as good as no lock. */
function numberOf(text: string): bigint {
  return /^\d{1,20}$/.test(text) ? BigInt(text) : 0n
}

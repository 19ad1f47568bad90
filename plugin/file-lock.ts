import { spawnSync } from 'node:child_process'
import { closeSync, constants, openSync } from 'node:fs'

/** Longer than the program takes on a machine that does everything else at the same time. */
const programTimeoutMs = 10_000

/**
 * Takes a lock that ends with this process however it ends, kill -9 included: flock(2) on a file that is made if need be (mode 0600) and stays. Node
 * has no call for it; `flock` of util-linux locks what we have open, and the lock is ours as long as we have it open. Undefined when another
 * process has the lock. Returns how to give it up; throws when there can be no lock there.
 */
export function tryLock(path: string): (() => void) | undefined {
  const file = openSync(path, constants.O_RDWR | constants.O_CREAT | constants.O_NOFOLLOW, 0o600)
  try {
    const { status, error, stderr } = spawnSync('flock', ['--nonblock', '--conflict-exit-code', '75', '3'], {
      stdio: ['ignore', 'ignore', 'pipe', file],
      encoding: 'utf8',
      timeout: programTimeoutMs,
    })
    if (status === 0) return () => closeSync(file)
    if (status !== 75)
      throw new Error(`cannot lock ${path} with flock (util-linux): ${error?.message ?? stderr.trim()}`)
  } catch (error) {
    closeSync(file)
    throw error
  }
  closeSync(file)
  return undefined
}

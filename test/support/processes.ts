import { readFileSync } from 'node:fs'
import type { Test } from 'tap'
import { Launcher, type LauncherOptions } from '../../sensu/launcher.js'

/** Whether the process is there and no zombie. */
export function isAlive(pid: number): boolean {
  try {
    return !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'))
  } catch {
    return false
  }
}

/** Asks again and again until it is so. */
export async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise(resolve => setTimeout(resolve, 10))
}

/** A launcher that can be used; it ends with the test. */
export async function readyLauncher(t: Test, options: Partial<LauncherOptions> = {}): Promise<Launcher> {
  const launcher = new Launcher({ env: { ...process.env }, log: { warn: message => t.fail(message) }, ...options })
  t.teardown(() => launcher.close())
  launcher.start()
  await until(() => launcher.ready)
  return launcher
}

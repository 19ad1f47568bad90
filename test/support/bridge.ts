import { execFileSync } from 'node:child_process'
import type { Test } from './services.js'

const name = `skt${process.pid}`

/** Why there can be no bridge on this machine; false when there can. */
export function whyNoBridges(): string | false {
  try {
    execFileSync('ip', ['link', 'add', name, 'type', 'bridge'], { stdio: 'pipe' })
    execFileSync('ip', ['link', 'del', name])
    return false
  } catch (error) {
    return `no bridge can be made: ${error instanceof Error ? error.message : String(error)}`
  }
}

/** Makes the test file's bridge, which is up, for the time of the test; returns its name. */
export function ownBridge(t: Test): string {
  execFileSync('ip', ['link', 'add', name, 'type', 'bridge'])
  t.teardown(() => {
    execFileSync('ip', ['link', 'del', name])
  })
  execFileSync('ip', ['link', 'set', name, 'up'])
  return name
}

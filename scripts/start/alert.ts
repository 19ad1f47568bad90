import { existsSync, readFileSync } from 'node:fs'
import { setTimeout as delay } from 'node:timers/promises'
import type { Guest } from '../services/guest.js'
import { assertProgramsRun, lastLogLines, type Site, StartError } from './site.js'

/** From what is done to the guest to the handler's line about it. */
const alertTimeoutMs = 60_000
const pollMs = 50

/** What the handler writes of an event, as far as it is looked at here. */
interface EventLine {
  action: string
  status: string
  client: string
  check: string
  message: string
}

/** One alert: what was done to the guest, what the handler wrote, and how long that took. */
export interface Alert {
  done: string
  message: string
  afterMs: number
}

/**
 * Breaks something in the demonstration guest, waits for the handler's message, repairs it, and waits for the resolution: the whole way from libvirt's event
 * over agent, broker, server and Redis to the handler. Throws StartError when a message does not come.
 */
export async function demonstrateAlert(site: Site, guest: Guest, signal: AbortSignal): Promise<Alert[]> {
  const steps = [
    { done: `${guest.name} paused`, act: () => guest.suspend(), action: 'create' },
    { done: `${guest.name} resumed`, act: () => guest.resume(), action: 'resolve' },
  ]
  const alerts: Alert[] = []
  for (const { done, act, action } of steps) {
    const seen = readEvents(site).length
    const startedMs = performance.now()
    await act()
    const message = await waitForEvent(site, seen, { client: guest.name, action }, signal)
    alerts.push({ done, message, afterMs: performance.now() - startedMs })
  }
  return alerts
}

async function waitForEvent(
  site: Site,
  after: number,
  wanted: Pick<EventLine, 'client' | 'action'>,
  signal: AbortSignal,
): Promise<string> {
  const deadline = performance.now() + alertTimeoutMs
  for (;;) {
    assertProgramsRun(site)
    const found = readEvents(site)
      .slice(after)
      .find(({ client, action }) => client === wanted.client && action === wanted.action)
    if (found !== undefined) return found.message
    if (performance.now() > deadline)
      throw new StartError(
        `the handler got no ${wanted.action} event of ${wanted.client} within ${alertTimeoutMs / 1000} s; the last lines of the logs:\n${lastLogLines(site)}`,
      )
    await delay(pollMs, undefined, { signal })
  }
}

/** What the handler has written, but for a line it may be about to write. */
function readEvents({ eventsFile }: Site): EventLine[] {
  if (!existsSync(eventsFile)) return []
  const lines = readFileSync(eventsFile, 'utf8').split('\n').slice(0, -1)
  return lines.map((line): EventLine => JSON.parse(line))
}

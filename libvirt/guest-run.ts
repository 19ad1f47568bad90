import type { Domain, DomainStats } from './records.js'

/** Whether a guest's CPUs run: not when it is paused, asleep, on its way down or off. */
export function isRunning({ state }: Pick<DomainStats, 'state'>): boolean {
  return state?.state === 'running' || state?.state === 'blocked'
}

/** Names one run of a guest on this host: its counters begin anew when it is restarted or migrated, and then it has another id. */
export function runOf({ uuid, id }: Domain): string {
  return `${uuid} ${id}`
}

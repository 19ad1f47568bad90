/** The four states of a check, as the Monitoring Plugins guidelines name them. */
export type Status = 'OK' | 'WARNING' | 'CRITICAL' | 'UNKNOWN'

/** The process exit status, which is also Sensu's `status`, of each state. */
export type ExitStatus = 0 | 1 | 2 | 3

export const exitStatusOf: Readonly<Record<Status, ExitStatus>> = { OK: 0, WARNING: 1, CRITICAL: 2, UNKNOWN: 3 }

/** The states as the value of an option. */
export const statusChoices = ['ok', 'warning', 'critical', 'unknown'] as const

/** The state that an option's value names. */
export const statusOfChoice: Readonly<Record<(typeof statusChoices)[number], Status>> = {
  ok: 'OK',
  warning: 'WARNING',
  critical: 'CRITICAL',
  unknown: 'UNKNOWN',
}

/** From worst to best. An UNKNOWN outranks an OK: what could not be determined must not hide behind what could. */
export const worstFirst: readonly Status[] = ['CRITICAL', 'WARNING', 'UNKNOWN', 'OK']

/** The worst of several states (CRITICAL > WARNING > UNKNOWN > OK); OK when there are none. */
export function worstStatus(statuses: Iterable<Status>): Status {
  const present = new Set(statuses)
  return worstFirst.find(status => present.has(status)) ?? 'OK'
}

import { readFile } from 'node:fs/promises'

/** Clock ticks since boot of all CPUs of this machine together, as /proc/stat counts them. */
export interface CpuTicks {
  readonly stealTicks: number
  /** Every kind of time; guests' time is part of user time and not counted twice. */
  readonly totalTicks: number
}

/** Reads /proc/stat; undefined where there is none or it does not look as Linux writes it. */
export async function readCpuTicks(path = '/proc/stat'): Promise<CpuTicks | undefined> {
  const text = await readFile(path, 'latin1').catch(() => '')
  // user nice system idle iowait irq softirq steal; guest and guest_nice follow and are part of the first two.
  const [, fields] = /^cpu +((?:\d+ ){7}\d+)/.exec(text) ?? []
  if (fields === undefined) return undefined
  const ticks = fields.split(' ').map(Number)
  return { stealTicks: ticks[7] ?? 0, totalTicks: ticks.reduce((sum, value) => sum + value, 0) }
}

import { readFile } from 'node:fs/promises'

/** Clock ticks since boot of all CPUs of this machine together, as /proc/stat counts them. */
export interface CpuTicks {
  readonly stealTicks: number
  /** Every kind of time; guests' time is part of user time and not counted twice. */
  readonly totalTicks: number
}

/**
 * Clock ticks since boot of all CPUs together, by kind of time: user, nice, system, idle, iowait, irq, softirq, steal, guest and guest_nice (which
 * are part of the first two), as far as the kernel has them. Undefined when the text is not that of /proc/stat.
 */
export function cpuTicksIn(text: string): number[] | undefined {
  const [, fields] = /^cpu +([\d ]+)$/m.exec(text) ?? []
  return fields?.trim().split(/ +/).map(Number)
}

/** Reads /proc/stat; undefined where there is none or it does not look as Linux writes it. */
export async function readCpuTicks(path = '/proc/stat'): Promise<CpuTicks | undefined> {
  const ticks = cpuTicksIn(await readFile(path, 'latin1').catch(() => ''))?.slice(0, 8)
  const stealTicks = ticks?.[7]
  if (ticks === undefined || stealTicks === undefined) return undefined
  return { stealTicks, totalTicks: ticks.reduce((sum, value) => sum + value, 0) }
}

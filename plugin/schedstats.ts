import { readFile } from 'node:fs/promises'

/** Whether this machine's kernel keeps scheduler statistics; `absent` when it was built without. */
export type Schedstats = 'on' | 'off' | 'absent'

/** Reads kernel.sched_schedstats from its file below /proc/sys, which is off unless somebody switched it on: it costs a little. */
export async function readSchedstats(path: string): Promise<Schedstats> {
  const text = await readFile(path, 'latin1').catch(() => undefined)
  if (text === undefined) return 'absent'
  return text.trim() === '0' ? 'off' : 'on'
}

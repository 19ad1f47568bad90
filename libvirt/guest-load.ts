import type { CallOptions } from './calls.js'
import { paramNumber } from './decode.js'
import { type Ask, refusedText } from './guest-agents.js'
import type { Domain, Params } from './records.js'

/** CPUs of one guest whose times are added up. */
const mostCpus = 65_536

/** The calls that reading a guest's load needs, as a Host makes them. */
export interface LoadHost {
  libVersion(options?: CallOptions): Promise<string>
  domainGuestInfo(domain: Domain, types: readonly 'load'[], options?: CallOptions): Promise<Params>
}

/** Whether libvirt has a call for the load in guests (11.2 and newer). */
export async function hasGuestLoad(host: LoadHost, options: CallOptions): Promise<boolean> {
  const [major = 0, minor = 0] = (await host.libVersion(options)).split('.').map(Number)
  return major > 11 || (major === 11 && minor >= 2)
}

/** The load average of the last minute in a guest by libvirt's own call; undefined when its agent does not tell (before qemu-ga 10, or not Linux). */
export async function readGuestLoad(host: LoadHost, guest: Domain, options: CallOptions): Promise<number | undefined> {
  try {
    return paramNumber(await host.domainGuestInfo(guest, ['load'], options), 'load.1m')
  } catch (error) {
    refusedText(error)
    return undefined
  }
}

/** The same by passing the command through. */
export async function askGuestLoad(ask: Ask): Promise<number | undefined> {
  return number(await askIfKnown(ask, 'guest-get-load'), 'load1m')
}

/** CPU time of a guest since it booted, all its CPUs together, by its own accounts (milliseconds). */
export interface GuestCpuTimes {
  readonly usedMs: number
  readonly idleMs: number
  readonly iowaitMs: number
  readonly stealMs: number
}

/** The CPU times of a guest, by passing the command through; undefined when its agent does not tell (before qemu-ga 7.1, or not Linux). */
export async function askGuestCpuTimes(ask: Ask): Promise<GuestCpuTimes | undefined> {
  const listed = await askIfKnown(ask, 'guest-get-cpustats')
  const cpus: unknown[] = Array.isArray(listed) ? listed.slice(0, mostCpus) : []
  if (cpus.length === 0) return undefined
  const sum = (...names: readonly string[]) =>
    cpus.reduce<number>((total, cpu) => names.reduce((some, name) => some + (number(cpu, name) ?? 0), total), 0)
  // Time as a hypervisor of its own guests is within `user` and `nice`.
  const usedMs = sum('user', 'nice', 'system', 'irq', 'softirq')
  return { usedMs, idleMs: sum('idle'), iowaitMs: sum('iowait'), stealMs: sum('steal') }
}

async function askIfKnown(ask: Ask, command: string): Promise<unknown> {
  try {
    return await ask(command)
  } catch (error) {
    refusedText(error)
    return undefined
  }
}

/** A number among the fields of what an agent sent: nothing in that is certain. */
function number(value: unknown, name: string): number | undefined {
  if (typeof value !== 'object' || value === null) return undefined
  const field: unknown = Object.entries(value).find(([key]) => key === name)?.[1]
  return typeof field === 'number' ? field : undefined
}

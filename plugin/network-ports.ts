import { readdirSync, readFileSync, readlinkSync } from 'node:fs'
import { basename, join } from 'node:path'

/** A network device of this machine. */
export interface NetworkPort {
  /** Whether it carries traffic, as far as the kernel knows (operstate). */
  readonly up: boolean
  /** The bridge, bond or virtual switch it is a port of. */
  readonly master?: string | undefined
}

/** Devices looked at before something else may run. */
const looksAtATime = 50

/**
 * Network devices by name, from `class/net` of sysfs; those that are not there are left out. The kernel answers from memory: read at once that takes some
 * 20 us a device, where Node's threads would take ten times as long.
 */
export async function readNetworkPorts(
  names: readonly string[],
  sysDirectory: string,
): Promise<Map<string, NetworkPort>> {
  const directory = join(sysDirectory, 'class/net')
  const ports = new Map<string, NetworkPort>()
  const present = new Set(attempt(() => readdirSync(directory)))
  for (const name of names) {
    if (!present.has(name)) continue
    const state = attempt(() => readFileSync(join(directory, name, 'operstate'), 'latin1'))
    if (state === undefined) continue
    const master = attempt(() => readlinkSync(join(directory, name, 'master')))
    ports.set(name, { up: state.trim() !== 'down', master: master === undefined ? undefined : basename(master) })
    if (ports.size % looksAtATime === 0) await new Promise(resolve => setImmediate(resolve))
  }
  return ports
}

/** What a read gives, undefined when it fails: the device is not there any more, or not a port. */
function attempt<T>(read: () => T): T | undefined {
  try {
    return read()
  } catch {
    return undefined
  }
}

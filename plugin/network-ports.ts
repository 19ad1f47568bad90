import { readFile, readlink } from 'node:fs/promises'
import { basename, join } from 'node:path'

/** A network device of this machine. */
export interface NetworkPort {
  /** Whether it carries traffic, as far as the kernel knows (operstate). */
  readonly up: boolean
  /** The bridge, bond or virtual switch it is a port of. */
  readonly master?: string | undefined
}

/** Devices looked at one after the other, so that thousands do not crowd out other file access. */
const looksAtATime = 4

/** Network devices by name, from `class/net` of sysfs; those that are not there are left out. */
export async function readNetworkPorts(
  names: readonly string[],
  sysDirectory: string,
): Promise<Map<string, NetworkPort>> {
  const ports = new Map<string, NetworkPort>()
  // A name with a slash is no device's.
  const queue = names.filter(name => /^[^/]+$/.test(name) && name !== '.' && name !== '..').values()
  const work = async () => {
    for (const name of queue) {
      const device = join(sysDirectory, 'class/net', name)
      const state = await readFile(join(device, 'operstate'), 'latin1').catch(() => undefined)
      if (state === undefined) continue
      const master = await readlink(join(device, 'master')).catch(() => undefined)
      ports.set(name, { up: state.trim() !== 'down', master: master === undefined ? undefined : basename(master) })
    }
  }
  await Promise.all(Array.from({ length: looksAtATime }, work))
  return ports
}

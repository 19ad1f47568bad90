import { paramNumber } from './decode.js'
import { type Ask, refusedText } from './guest-agents.js'
import type { Params } from './records.js'

/** File systems of one guest that are looked at. */
const mostFilesystems = 1000
/** Of the list of mounts so much is read. */
const mostMountBytes = 512 * 1024

/** A file system mounted in a guest, as its agent reports it (guest-get-fsinfo). */
export interface MountedFilesystem {
  /** `/data`, or `C:\` where that is how mount points look. */
  readonly mount: string
  /** The system's name for the device: `vda1`, `dm-0`, a volume's GUID. One that is mounted twice has the same. */
  readonly device: string
  readonly type: string
  /** For unprivileged users, as df counts it. Absent, as is the next, when the agent does not tell (before qemu-ga 3.0, or it could not find out). */
  readonly totalBytes?: number
  readonly usedBytes?: number
}

/** The file systems in what libvirt's DOMAIN_GET_GUEST_INFO tells of type `filesystem`. */
export function mountedFilesystems(params: Params): MountedFilesystem[] {
  const count = Math.min(paramNumber(params, 'fs.count') ?? 0, mostFilesystems)
  return Array.from({ length: count }, (_, index) => {
    const text = (name: string) => String(params.get(`fs.${index}.${name}`) ?? '')
    const totalBytes = paramNumber(params, `fs.${index}.total-bytes`)
    const usedBytes = paramNumber(params, `fs.${index}.used-bytes`)
    const sizes = totalBytes === undefined || usedBytes === undefined ? {} : { totalBytes, usedBytes }
    return { mount: text('mountpoint'), device: text('name'), type: text('fstype'), ...sizes }
  })
}

/**
 * The mount points that a Linux guest has mounted read-only, from its /proc/1/mounts, read with three commands passed through to its agent; in words why
 * not when the agent refuses them.
 */
export async function readOnlyMounts(ask: Ask): Promise<readonly string[] | string> {
  try {
    return readOnlyIn(await readGuestFile(ask, '/proc/1/mounts'))
  } catch (error) {
    return refusedText(error)
  }
}

async function readGuestFile(ask: Ask, path: string): Promise<string> {
  const handle = await ask('guest-file-open', { path, mode: 'r' })
  try {
    const read = await ask('guest-file-read', { handle, count: mostMountBytes })
    const base64 = typeof read === 'object' && read !== null && 'buf-b64' in read ? String(read['buf-b64']) : ''
    return Buffer.from(base64, 'base64').toString()
  } finally {
    await ask('guest-file-close', { handle })
  }
}

/** The last one of several mounts on the same place is the one that is seen. */
function readOnlyIn(mounts: string): string[] {
  const readOnly = new Map<string, boolean>()
  for (const line of mounts.split('\n')) {
    const [, mount, , options] = line.split(' ')
    if (mount !== undefined && options !== undefined)
      readOnly.set(unescapeMount(mount), options.split(',').includes('ro'))
  }
  return [...readOnly].filter(([, isReadOnly]) => isReadOnly).map(([mount]) => mount)
}

/** The kernel writes blanks and backslashes in octal. */
function unescapeMount(mount: string): string {
  return mount.replaceAll(/\\([0-7]{3})/g, (_, octal) => String.fromCharCode(Number.parseInt(octal, 8)))
}

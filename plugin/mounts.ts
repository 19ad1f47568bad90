import { readFile } from 'node:fs/promises'

/** A mounted file system. */
export interface Mount {
  readonly mountPoint: string
  /** `ext4`, `nfs4`, `tmpfs`. */
  readonly type: string
  /** `rw`, `relatime`. */
  readonly options: readonly string[]
}

/** The mounted file systems in the order of the kernel's table (/proc/self/mounts: device, mount point, type, options). */
export async function readMounts(path: string): Promise<Mount[]> {
  const text = await readFile(path, 'utf8')
  return text.split('\n').flatMap(line => {
    const [, mountPoint, type, options] = line.split(' ')
    if (mountPoint === undefined || type === undefined || options === undefined) return []
    return [{ mountPoint: unescaped(mountPoint), type, options: options.split(',') }]
  })
}

/** Where /etc/fstab wants something mounted without being asked, the root apart. Empty when there is no such file. */
export async function readExpectedMountPoints(path: string): Promise<string[]> {
  const text = await readFile(path, 'utf8').catch(() => '')
  return text.split('\n').flatMap(line => {
    const [device = '#', mountPoint = '', , options = ''] = line.trim().split(/\s+/)
    const wanted = !device.startsWith('#') && /^\/./.test(mountPoint) && !options.split(',').includes('noauto')
    return wanted ? [unescaped(mountPoint).replace(/\/+$/, '')] : []
  })
}

/** Blanks and backslashes are written in octal there. */
function unescaped(text: string): string {
  return text.replaceAll(/\\([0-7]{3})/g, (_, digits) => String.fromCharCode(Number.parseInt(digits, 8)))
}

/** Types whose file systems may not answer: their files are on a network, or served by a process. */
const remoteTypes =
  /^(?:nfs4?|cifs|smb3|smbfs|ceph|glusterfs|lustre|afs|9p|ncpfs|ocfs2|gfs2|autofs|virtiofs|fuse(?:\..*|blk)?)$/

/** Whether asking this file system anything may hang for good. */
export function mayHang({ type }: Mount): boolean {
  return remoteTypes.test(type)
}

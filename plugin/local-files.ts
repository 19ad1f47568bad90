import { type Stats, stat } from 'node:fs'
import { dirname } from 'node:path'
import { FilesystemError, readFilesystem } from './filesystem.js'
import { readMounts } from './mounts.js'
import type { PendingReads } from './pending-reads.js'

/** A file system, or a file on one that has just answered, that takes longer hangs. */
const answerTimeoutMs = 2000

/** What was found at a path. */
export type LocalFile =
  | {
      readonly kind: 'file'
      /** Space it takes, without its holes. */
      readonly usedBytes: number
      /** Where the file system that it is on is mounted. */
      readonly mountPoint: string
    }
  /** A block device. */
  | { readonly kind: 'device' }
  | { readonly kind: 'missing' }
  /** It could not be looked at, why in words. */
  | { readonly kind: 'unknown'; readonly text: string }

/** Free space of a file system, for processes without privileges, as QEMU is. */
export interface LocalSpace {
  readonly mountPoint: string
  readonly totalBytes: number
  readonly availableBytes: number
}

/** What was found at some paths, and the file systems of those that are files. */
export interface LocalFiles {
  readonly files: ReadonlyMap<string, LocalFile>
  readonly spaces: readonly LocalSpace[]
}

export interface LookOptions {
  readonly pending: PendingReads
  readonly timeLeftMs: () => number
  /** The kernel's table of mounts, /proc/self/mounts. */
  readonly mounts: string
  /** Replaced by tests. */
  readonly readFilesystem?: typeof readFilesystem
}

/**
 * Looks at files of this machine without being held up by a file system that hangs (a dead NFS server). Each file system is asked by a process of its own
 * first, one after the other; files of one that does not answer are not touched, since that would hold a thread of ours for good. Never rejects: such files, and those that there is no
 * time for, are `unknown`.
 */
export async function lookAtFiles(paths: Iterable<string>, options: LookOptions): Promise<LocalFiles> {
  const look = new Look(options)
  for (const own of (await byMountPoint(paths, options.mounts)).values()) await look.atMount(own)
  return look
}

/** Paths by where their text says that they are mounted; a symbolic link on the way may lead elsewhere. */
async function byMountPoint(paths: Iterable<string>, file: string): Promise<Map<string, string[]>> {
  const mounts = await readMounts(file).catch(() => [])
  const points = mounts.map(({ mountPoint }) => mountPoint).sort((one, other) => other.length - one.length)
  const groups = new Map<string, string[]>()
  for (const path of new Set(paths)) {
    const point = points.find(mounted => path.startsWith(mounted.endsWith('/') ? mounted : `${mounted}/`)) ?? '/'
    const group = groups.get(point)
    if (group === undefined) groups.set(point, [path])
    else group.push(path)
  }
  return groups
}

/** One look at many files. */
class Look implements LocalFiles {
  readonly files = new Map<string, LocalFile>()
  readonly spaces: LocalSpace[] = []
  /** File systems that have answered, by device number. */
  readonly #mountPoints = new Map<number, string>()
  /** Directories of missing files, and whether they are there. */
  readonly #directories = new Map<string, boolean>()
  readonly #options: LookOptions

  constructor(options: LookOptions) {
    this.#options = options
  }

  /** Looks at files that are, or seem to be, on one file system; when one of them hangs the others are left alone. */
  async atMount(paths: readonly string[]): Promise<void> {
    let trouble = await this.#troubleAt(paths)
    for (const path of paths) {
      if (this.#options.timeLeftMs() <= 0) trouble ??= 'not looked at: no time left, allow more with --timeout'
      const file: LocalFile = trouble === undefined ? await this.#at(path) : { kind: 'unknown', text: trouble }
      if (file.kind === 'unknown' && file.text.endsWith(hangs)) trouble = file.text
      this.files.set(path, file)
    }
  }

  /** Why a file system cannot be looked at; undefined when it answers, for one of the directories on it that are there. */
  async #troubleAt(paths: readonly string[]): Promise<string | undefined> {
    const [first = '/'] = paths
    const found = await this.#filesystem(dirname(first))
    return found instanceof FilesystemError && found.kind === 'hung' ? `${dirname(first)} ${hangs}` : undefined
  }

  async #at(path: string): Promise<LocalFile> {
    try {
      const found = await this.#stat(path)
      if (found.isBlockDevice()) return { kind: 'device' }
      if (!found.isFile()) return { kind: 'unknown', text: 'it is neither a file nor a block device' }
      const mountPoint = this.#mountPoints.get(found.dev) ?? (await this.#newSpace(found.dev, path))
      return { kind: 'file', usedBytes: found.blocks * 512, mountPoint }
    } catch (error) {
      if (!isMissing(error)) return { kind: 'unknown', text: reasonOf(error) }
      // Where the directory is not to be seen either, the file may well be there for QEMU.
      return (await this.#isThere(dirname(path)))
        ? { kind: 'missing' }
        : { kind: 'unknown', text: `${dirname(path)} is not here: is it mounted, or is this a container?` }
    }
  }

  async #isThere(directory: string): Promise<boolean> {
    const known = this.#directories.get(directory)
    if (known !== undefined) return known
    const found = await this.#stat(directory).then(
      () => true,
      () => false,
    )
    this.#directories.set(directory, found)
    return found
  }

  async #newSpace(device: number, path: string): Promise<string> {
    const found = await this.#filesystem(path)
    if (found instanceof FilesystemError) throw found
    const { mountPoint, totalBytes, availableBytes } = found
    this.#mountPoints.set(device, mountPoint)
    if (!this.spaces.some(space => space.mountPoint === mountPoint))
      this.spaces.push({ mountPoint, totalBytes, availableBytes })
    return mountPoint
  }

  async #filesystem(path: string) {
    const read = this.#options.readFilesystem ?? readFilesystem
    return read(path, answerTimeoutMs).catch((error: unknown) => {
      if (error instanceof FilesystemError) return error
      throw error
    })
  }

  /** The file system has just answered; should it hang now, the next run finds the read still pending. */
  #stat(path: string): Promise<Stats> {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error(`${path} ${hangs}`)), answerTimeoutMs)
      this.#options.pending
        .join(`stat ${path}`, () => statOf(path))
        .then(resolve, reject)
        .finally(() => clearTimeout(timer))
    })
  }
}

const hangs = `has not answered for ${answerTimeoutMs / 1000} s: look at its storage`

/** With a callback: promises for files take 3 ms to load. */
function statOf(path: string): Promise<Stats> {
  return new Promise((resolve, reject) => stat(path, (error, found) => (error ? reject(error) : resolve(found))))
}

function isMissing(error: unknown): boolean {
  return error instanceof Error && 'code' in error && (error.code === 'ENOENT' || error.code === 'ENOTDIR')
}

function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error)
  return 'code' in error && error.code === 'EACCES' ? 'permission denied: run the check as root' : error.message
}

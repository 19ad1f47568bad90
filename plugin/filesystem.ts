import { spawn } from 'node:child_process'

/** The file system that a path is on, as df tells it. */
export interface Filesystem {
  readonly totalBytes: number
  /** What is not free: some of the rest may be kept for the superuser. */
  readonly usedBytes: number
  /** What an ordinary user can still write. */
  readonly availableBytes: number
  readonly mountPoint: string
}

/** Why a file system could not be looked at. */
export type FilesystemErrorKind = 'missing' | 'permission' | 'hung' | 'failed'

export class FilesystemError extends Error {
  override readonly name = 'FilesystemError'
  readonly kind: FilesystemErrorKind

  constructor(kind: FilesystemErrorKind, message: string) {
    super(message)
    this.kind = kind
  }
}

const longestOutput = 10_000
const causes: readonly (readonly [RegExp, FilesystemErrorKind])[] = [
  [/No such file or directory/, 'missing'],
  [/Permission denied/, 'permission'],
]

/** Asks df about the file system a path is on. Rejects with FilesystemError, `hung` after `timeoutMs`. */
export async function readFilesystem(path: string, timeoutMs: number): Promise<Filesystem> {
  const output = await answerOf('df', ['-P', '-k', '--', path], path, timeoutMs)
  return parseDf(output) ?? refuse(path, 'df', output)
}

/** What statfs tells of a mounted file system. */
export interface FilesystemSizes {
  readonly totalBytes: number
  readonly freeBytes: number
  /** What is free for others than root. */
  readonly availableBytes: number
  readonly inodes: number
  readonly freeInodes: number
}

/** Asks `stat -f` about a mounted file system that may hang. Rejects with FilesystemError, `hung` after `timeoutMs`. */
export async function readFilesystemSizes(path: string, timeoutMs: number): Promise<FilesystemSizes> {
  const output = await answerOf('stat', ['-f', '-c', '%S %b %f %a %c %d', '--', path], path, timeoutMs)
  const numbers = /^\d+(?: \d+){5}\n$/.test(output) ? output.split(' ').map(Number) : refuse(path, 'stat', output)
  const [blockBytes = 0, blocks = 0, free = 0, available = 0, inodes = 0, freeInodes = 0] = numbers
  return {
    totalBytes: blocks * blockBytes,
    freeBytes: free * blockBytes,
    availableBytes: available * blockBytes,
    inodes,
    freeInodes,
  }
}

function refuse(path: string, program: string, output: string): never {
  const kind = causes.find(([pattern]) => pattern.test(output))?.[1] ?? 'failed'
  throw new FilesystemError(kind, `${path}: ${output.trim() || `${program} says nothing`}`)
}

/**
 * What a program prints about a path. A process of its own, since a file system that does not answer (a dead NFS server) would hold a thread of ours for
 * good: this process could not even end. Rejects with FilesystemError, `hung` after `timeoutMs`.
 */
function answerOf(program: string, args: readonly string[], path: string, timeoutMs: number): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { PATH: process.env['PATH'], LC_ALL: 'C' },
    })
    let output = ''
    const collect = (chunk: Buffer) => {
      if (output.length < longestOutput) output += chunk.toString()
    }
    child.stdout.on('data', collect)
    child.stderr.on('data', collect)
    const fail = (kind: FilesystemErrorKind, why: string) => {
      clearTimeout(timer)
      reject(new FilesystemError(kind, `${path}: ${why}`))
    }
    const timer = setTimeout(() => {
      // What hangs in the kernel may not even die: it is not waited for.
      child.kill('SIGKILL')
      child.stdout.destroy()
      child.stderr.destroy()
      child.unref()
      fail('hung', `its file system did not answer within ${timeoutMs / 1000} s`)
    }, timeoutMs)
    child.on('error', error => fail('failed', `cannot run ${program}: ${error.message}`))
    child.on('close', () => {
      clearTimeout(timer)
      resolve(output)
    })
  })
}

/** The one line below df's head, `device total used available percent% mountpoint`, sizes in KiB; a device may have blanks. */
function parseDf(output: string): Filesystem | undefined {
  const [, total, used, available, mountPoint] = / (\d+) +(\d+) +(-?\d+) +(?:\d+%|-) (\/.*)$/m.exec(output) ?? []
  if (mountPoint === undefined) return undefined
  const [totalBytes, usedBytes] = [Number(total) * 1024, Number(used) * 1024]
  return { totalBytes, usedBytes, availableBytes: Math.max(0, Number(available) * 1024), mountPoint }
}

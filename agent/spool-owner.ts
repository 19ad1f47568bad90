import { linkSync, lstatSync, mkdirSync, readFileSync, renameSync, rmSync, type Stats, writeFileSync } from 'node:fs'
import { basename, join } from 'node:path'

/** The spool cannot be used: by whom or why, and what to do, is in the message. */
export class SpoolError extends Error {
  override readonly name = 'SpoolError'
  /** `owned`: another living process has it. `unusable`: the directory is not fit. */
  readonly code: 'owned' | 'unusable'

  constructor(code: SpoolError['code'], message: string, options?: ErrorOptions) {
    super(message, options)
    this.code = code
  }
}

/** Name of the file that says whose the directory is. */
export const ownerFile = 'owner'
const maximumOwnerBytes = 200

/**
 * Makes the directory, for this user alone (0700). One that exists is not changed, but refused when it is not this user's, is open to others,
 * or is a symbolic link: whoever may place one decides where we write. Throws SpoolError.
 */
export function prepareDirectory(directory: string): void {
  const unusable = (why: string, cause?: unknown) =>
    new SpoolError('unusable', `spool directory ${directory} cannot be used: ${why}`, { cause })
  let status: Stats
  try {
    mkdirSync(directory, { recursive: true, mode: 0o700 })
    status = lstatSync(directory)
  } catch (cause) {
    throw unusable(cause instanceof Error ? cause.message : String(cause), cause)
  }
  if (!status.isDirectory()) throw unusable('it is a symbolic link or a file; name the directory itself')
  if (status.uid !== process.getuid?.()) throw unusable(`it belongs to user ${status.uid}; give it to the agent's user`)
  if (status.mode & 0o077)
    throw unusable(`others have access to it (mode ${(status.mode & 0o777).toString(8)}); chmod 700 it`)
}

/**
 * Makes this process the directory's only owner, by a file with process id and start time: a process that ended without cleaning up, also one
 * whose id was given to another since, owns nothing any more. Returns how to give the ownership up. Throws SpoolError (`owned`).
 * Processes in different PID namespaces cannot see each other: do not share a directory between containers.
 */
export function takeOwnership(directory: string): () => void {
  const path = join(directory, ownerFile)
  const own = join(directory, `${ownerFile}.${process.pid}`)
  rmSync(own, { force: true })
  writeFileSync(own, `${process.pid} ${startTime(process.pid)}\n`, { flag: 'wx', mode: 0o600 })
  try {
    for (let attempt = 0; attempt < 3; attempt++) {
      if (linked(own, path)) return () => rmSync(path, { force: true })
      removeStale(directory, path)
    }
  } finally {
    rmSync(own, { force: true })
  }
  throw new SpoolError('owned', `spool directory ${directory} is being taken by other processes at the same time`)
}

/**
 * Removes what a process left that was killed while it took the ownership; false for a file that is nothing of the kind. Those of a living process stay:
 * it is about to find out that the directory has an owner, and may hold that very owner's file aside.
 */
export function tidyOwnership(path: string): boolean {
  const [, pid] = /^owner\.([1-9]\d{0,9})(?:\.old)?$/.exec(basename(path)) ?? []
  if (pid === undefined) return false
  if (startTime(Number(pid)) === undefined) rmSync(path, { force: true })
  return true
}

/** A link appears with its content, or not at all. */
function linked(from: string, to: string): boolean {
  try {
    linkSync(from, to)
    return true
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'EEXIST') return false
    throw error
  }
}

/** Moves the owner's file aside before judging it, so that of two processes only one judges, and none removes a newer owner. */
function removeStale(directory: string, path: string): void {
  const aside = `${path}.${process.pid}.old`
  refuseLivingOwner(directory, path)
  try {
    rmSync(aside, { force: true })
    renameSync(path, aside)
  } catch {
    return // another process was quicker
  }
  try {
    refuseLivingOwner(directory, aside)
  } catch (error) {
    linked(aside, path)
    throw error
  } finally {
    rmSync(aside, { force: true })
  }
}

function refuseLivingOwner(directory: string, path: string): void {
  const pid = livingOwner(path)
  if (pid === undefined) return
  throw new SpoolError('owned', `spool directory ${directory} is in use by process ${pid}; give each agent its own`)
}

/** The process id in the file when that very process lives. What is no owner's file names nobody. */
function livingOwner(path: string): number | undefined {
  try {
    const status = lstatSync(path)
    if (!status.isFile() || status.size > maximumOwnerBytes) return undefined
    const [pid = '', started = ''] = readFileSync(path, 'latin1').trim().split(' ')
    if (!/^[1-9]\d{0,9}$/.test(pid)) return undefined
    const actual = startTime(Number(pid))
    return actual !== undefined && actual === started ? Number(pid) : undefined
  } catch {
    return undefined
  }
}

/**
 * Start of a process in clock ticks since boot, with the boot's id; undefined when there is no such process, or only what its parent has not taken
 * note of yet (a zombie owns nothing). Fields 3 and 22 of /proc/PID/stat, counted behind the command's name.
 */
function startTime(pid: number): string | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1')
    const boot = readFileSync('/proc/sys/kernel/random/boot_id', 'latin1')
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
    return fields[0] === 'Z' || fields[0] === 'X' ? undefined : `${boot.trim()}/${fields[19]}`
  } catch {
    return undefined
  }
}

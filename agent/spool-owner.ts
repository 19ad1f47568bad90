import { constants, type Stats } from 'node:fs'
import { link, lstat, mkdir, open, readFile, rename, rm } from 'node:fs/promises'
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
export async function prepareDirectory(directory: string): Promise<void> {
  const unusable = (why: string, cause?: unknown) =>
    new SpoolError('unusable', `spool directory ${directory} cannot be used: ${why}`, { cause })
  let status: Stats
  try {
    await mkdir(directory, { recursive: true, mode: 0o700 })
    status = await lstat(directory)
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
export async function takeOwnership(directory: string): Promise<() => Promise<void>> {
  const path = join(directory, ownerFile)
  const own = join(directory, `${ownerFile}.${process.pid}`)
  await rm(own, { force: true })
  const file = await open(own, constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL, 0o600)
  await file.writeFile(`${process.pid} ${await startTime(process.pid)}\n`)
  await file.close()
  try {
    for (let attempt = 0; attempt < 3; attempt++) {
      if (await linked(own, path)) return () => rm(path, { force: true })
      await removeStale(directory, path)
    }
  } finally {
    await rm(own, { force: true })
  }
  throw new SpoolError('owned', `spool directory ${directory} is being taken by other processes at the same time`)
}

/**
 * Removes what a process left that was killed while it took the ownership; false for a file that is nothing of the kind. Those of a living process stay:
 * it is about to find out that the directory has an owner, and may hold that very owner's file aside.
 */
export async function tidyOwnership(path: string): Promise<boolean> {
  const [, pid] = /^owner\.([1-9]\d{0,9})(?:\.old)?$/.exec(basename(path)) ?? []
  if (pid === undefined) return false
  if ((await startTime(Number(pid))) === undefined) await rm(path, { force: true })
  return true
}

/** A link appears with its content, or not at all. */
async function linked(from: string, to: string): Promise<boolean> {
  try {
    await link(from, to)
    return true
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'EEXIST') return false
    throw error
  }
}

/** Moves the owner's file aside before judging it, so that of two processes only one judges, and none removes a newer owner. */
async function removeStale(directory: string, path: string): Promise<void> {
  const aside = `${path}.${process.pid}.old`
  await refuseLivingOwner(directory, path)
  try {
    await rm(aside, { force: true })
    await rename(path, aside)
  } catch {
    return // another process was quicker
  }
  try {
    await refuseLivingOwner(directory, aside)
  } catch (error) {
    await linked(aside, path)
    throw error
  } finally {
    await rm(aside, { force: true })
  }
}

async function refuseLivingOwner(directory: string, path: string): Promise<void> {
  const pid = await livingOwner(path)
  if (pid === undefined) return
  throw new SpoolError('owned', `spool directory ${directory} is in use by process ${pid}; give each agent its own`)
}

/** The process id in the file when that very process lives. What is no owner's file names nobody. */
async function livingOwner(path: string): Promise<number | undefined> {
  try {
    const status = await lstat(path)
    if (!status.isFile() || status.size > maximumOwnerBytes) return undefined
    const [pid = '', started = ''] = (await readFile(path, 'latin1')).trim().split(' ')
    if (!/^[1-9]\d{0,9}$/.test(pid)) return undefined
    const actual = await startTime(Number(pid))
    return actual !== undefined && actual === started ? Number(pid) : undefined
  } catch {
    return undefined
  }
}

/**
 * Start of a process in clock ticks since boot, with the boot's id; undefined when there is no such process, or only what its parent has not taken
 * note of yet (a zombie owns nothing). Fields 3 and 22 of /proc/PID/stat, counted behind the command's name.
 */
async function startTime(pid: number): Promise<string | undefined> {
  try {
    const stat = await readFile(`/proc/${pid}/stat`, 'latin1')
    const boot = await readFile('/proc/sys/kernel/random/boot_id', 'latin1')
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
    return fields[0] === 'Z' || fields[0] === 'X' ? undefined : `${boot.trim()}/${fields[19]}`
  } catch {
    return undefined
  }
}

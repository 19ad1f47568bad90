import { createHash, randomBytes } from 'node:crypto'
import { constants } from 'node:fs'
import { lstat, mkdir, open, rename, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { isAbsolute, join } from 'node:path'
import type { StateKeeper, StateKey, StateStore } from './state.js'

/** Cannot keep state; the message says where, why and what to do. */
export class StateError extends Error {
  override readonly name = 'StateError'
}

const largestFileBytes = 64 * 1024 * 1024

/** One short name for a key: `check-kvm-disk-io-3f0c…`. */
export function stateName({ check, uri, options }: StateKey): string {
  const digest = createHash('sha256')
    .update(JSON.stringify([check, uri, options]))
    .digest('hex')
  return `${check}-${digest.slice(0, 24)}`
}

/** State in files of mode 0600, one per key, replaced by renaming. */
export class FileState implements StateKeeper {
  readonly #variables: Readonly<Record<string, string | undefined>>

  /** `variables` is the environment: SENSU_KVM_STATE_DIR, XDG_STATE_HOME and TMPDIR are looked at. */
  constructor(variables: Readonly<Record<string, string | undefined>>) {
    this.#variables = variables
  }

  open(key: StateKey): StateStore {
    const path = async () => join(await this.#directory(key.directory), `${stateName(key)}.json`)
    return {
      read: async () => readJson(await path()),
      write: async value => replaceFile(await path(), JSON.stringify(value)),
    }
  }

  async #directory(asked: string | undefined): Promise<string> {
    const { SENSU_KVM_STATE_DIR: chosen, XDG_STATE_HOME: home, TMPDIR: temporary } = this.#variables
    const named = asked ?? chosen
    if (named !== undefined && named !== '') return privateDirectory(named)
    if (home !== undefined && isAbsolute(home)) return privateDirectory(join(home, 'sensu-kvm'))
    const system = '/var/lib/sensu-kvm'
    if (await isOwnDirectory(system)) return privateDirectory(system)
    return privateDirectory(join(temporary || tmpdir(), `sensu-kvm-${ownUid()}`))
  }
}

function ownUid(): number {
  return process.getuid?.() ?? 0
}

/** Root at a shell must not write where the agent's user keeps its own: those would no longer be that user's files. */
async function isOwnDirectory(path: string): Promise<boolean> {
  try {
    const found = await lstat(path)
    return found.isDirectory() && found.uid === ownUid()
  } catch {
    return false
  }
}

/** Creates the directory (0700) when it is missing; refuses one that somebody else could have planted or can change. */
async function privateDirectory(path: string): Promise<string> {
  try {
    await mkdir(path, { recursive: true, mode: 0o700 })
    const found = await lstat(path)
    if (!found.isDirectory()) throw new StateError(`${path} is not a directory, or a symbolic link to one`)
    if (found.uid !== ownUid()) throw new StateError(`${path} belongs to user ${found.uid}, not ${ownUid()}`)
    if ((found.mode & 0o022) !== 0) throw new StateError(`${path} is writable for others`)
    return path
  } catch (error) {
    throw new StateError(`cannot keep numbers between runs: ${reasonOf(error)}: choose a directory with --state-dir`)
  }
}

async function readJson(path: string): Promise<unknown> {
  const text = await readOwnFile(path)
  try {
    return text === undefined ? undefined : JSON.parse(text)
  } catch {
    return undefined // A damaged file counts as a first run; the next write replaces it.
  }
}

/** The file's text; undefined when there is none. Never follows a symbolic link, never reads what somebody else put there. */
async function readOwnFile(path: string): Promise<string | undefined> {
  try {
    const file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK)
    try {
      const found = await file.stat()
      if (!found.isFile() || found.uid !== ownUid())
        throw new StateError(`${path} is not a regular file of user ${ownUid()}`)
      return found.size > largestFileBytes ? undefined : await file.readFile('utf8')
    } finally {
      await file.close()
    }
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return undefined
    throw new StateError(`cannot read the numbers of the last run: ${reasonOf(error)}: remove ${path}`)
  }
}

async function replaceFile(path: string, text: string): Promise<void> {
  const temporary = `${path}.${randomBytes(6).toString('hex')}`
  try {
    // 'wx' is O_CREAT | O_EXCL: an existing file or link is never opened.
    const file = await open(temporary, 'wx', 0o600)
    try {
      await file.writeFile(text)
    } finally {
      await file.close()
    }
    await rename(temporary, path)
  } catch (error) {
    await rm(temporary, { force: true }).catch(() => undefined)
    throw new StateError(
      `cannot keep numbers for the next run: ${reasonOf(error)}: choose a directory with --state-dir`,
    )
  }
}

function reasonOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}

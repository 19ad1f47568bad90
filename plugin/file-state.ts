import {
  closeSync,
  constants,
  fstatSync,
  lstatSync,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, isAbsolute, join } from 'node:path'
import type { StateKeeper, StateKey, StateStore } from './state.js'

// Synchronous throughout: only one-shot programs keep state in files, a few kilobytes on a local disk, and promises for files (with the
// threads behind them) would cost their start 3 ms. No cryptographic hash for the same reason.

/** Cannot keep state; the message says where, why and what to do. */
export class StateError extends Error {
  override readonly name = 'StateError'
}

const largestFileBytes = 64 * 1024 * 1024

/** A file name for a key: `check-kvm-disk-io-3f0c….json`. The file holds the key itself too, so that keys whose hashes meet do not mix. */
export function stateFileName(key: StateKey): string {
  return `${key.check}-${hash(keyText(key))}.json`
}

function keyText({ check, uri, options }: StateKey): string {
  return JSON.stringify([check, uri, options])
}

/** FNV-1a, 64 bits, in hexadecimal. */
function hash(text: string): string {
  let value = 0xcbf29ce484222325n
  for (const byte of Buffer.from(text)) value = BigInt.asUintN(64, (value ^ BigInt(byte)) * 0x100000001b3n)
  return value.toString(16).padStart(16, '0')
}

/** How a check is told where to keep state, for messages. */
const checkOption = '--state-dir'

/** State in files of mode 0600, one per key, replaced by renaming. */
export class FileState implements StateKeeper {
  readonly #variables: Readonly<Record<string, string | undefined>>
  readonly #option: string

  /** `variables` is the environment: SENSU_KVM_STATE_DIR, XDG_STATE_HOME and TMPDIR are looked at. `option` names another directory, for messages. */
  constructor(variables: Readonly<Record<string, string | undefined>>, option = checkOption) {
    this.#variables = variables
    this.#option = option
  }

  open(key: StateKey): StateStore {
    const path = () => join(stateDirectory(this.#variables, key.directory, this.#option), stateFileName(key))
    return {
      read: async () => keptValue(readOwnFile(path()), keyText(key)),
      write: async value => keep(path(), JSON.stringify({ key: keyText(key), value }), this.#option),
    }
  }
}

/**
 * The directory for what is kept between runs, of this user alone; made when it is missing. `variables` is the environment. Throws StateError when there is none
 * that others could not have planted or cannot change.
 */
export function stateDirectory(
  variables: Readonly<Record<string, string | undefined>>,
  asked: string | undefined,
  option = checkOption,
): string {
  const { SENSU_KVM_STATE_DIR: chosen, XDG_STATE_HOME: home, TMPDIR: temporary } = variables
  const named = asked ?? chosen
  if (named !== undefined && named !== '') return privateDirectory(named, option)
  if (home !== undefined && isAbsolute(home)) return privateDirectory(join(home, 'sensu-kvm'), option)
  const system = '/var/lib/sensu-kvm'
  if (isOwnDirectory(system)) return privateDirectory(system, option)
  return privateDirectory(join(temporary || tmpdir(), `sensu-kvm-${ownUid()}`), option)
}

function ownUid(): number {
  return process.getuid?.() ?? 0
}

/** Root at a shell must not write where the agent's user keeps its own: those would no longer be that user's files. */
function isOwnDirectory(path: string): boolean {
  const found = lstatSync(path, { throwIfNoEntry: false })
  return found?.isDirectory() === true && found.uid === ownUid()
}

/** Makes a directory of this user alone (0700), and those it is in. Step by step: Node's own way never ends below /proc, where nothing can be made. */
export function makeDirectory(path: string, hasParent = false): void {
  try {
    mkdirSync(path, { mode: 0o700 })
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? error.code : ''
    if (code === 'EEXIST') return
    if (code !== 'ENOENT' || hasParent || dirname(path) === path) throw error
    makeDirectory(dirname(path))
    makeDirectory(path, true)
  }
}

/** Creates the directory (0700) when it is missing; refuses one that somebody else could have planted or can change. */
function privateDirectory(path: string, option: string): string {
  try {
    makeDirectory(path)
    const found = lstatSync(path)
    if (!found.isDirectory()) throw new StateError(`${path} is not a directory, or a symbolic link to one`)
    if (found.uid !== ownUid()) throw new StateError(`${path} belongs to user ${found.uid}, not ${ownUid()}`)
    if ((found.mode & 0o022) !== 0) throw new StateError(`${path} is writable for others`)
    return path
  } catch (error) {
    throw new StateError(`cannot keep numbers between runs: ${reasonOf(error)}: choose a directory with ${option}`)
  }
}

/** What the file keeps for the key; a damaged file counts as a first run, and the next write replaces it. */
function keptValue(text: string | undefined, key: string): unknown {
  try {
    const content = text === undefined ? undefined : JSON.parse(text)
    return content?.key === key ? content.value : undefined
  } catch {
    return undefined
  }
}

/** The file's text; undefined when there is none. Never follows a symbolic link, never reads what somebody else put there. */
function readOwnFile(path: string): string | undefined {
  try {
    const file = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK)
    try {
      const found = fstatSync(file)
      if (!found.isFile() || found.uid !== ownUid())
        throw new StateError(`${path} is not a regular file of user ${ownUid()}`)
      return found.size > largestFileBytes ? undefined : readFileSync(file, 'utf8')
    } finally {
      closeSync(file)
    }
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return undefined
    throw new StateError(`cannot read the numbers of the last run: ${reasonOf(error)}: remove ${path}`)
  }
}

function keep(path: string, text: string, option: string): void {
  try {
    replaceFile(path, text)
  } catch (error) {
    throw new StateError(`cannot keep numbers for the next run: ${reasonOf(error)}: choose a directory with ${option}`)
  }
}

/** Writes a file of mode 0600, all or nothing; a symbolic link is replaced, not followed. Throws what the file system says. */
export function replaceFile(path: string, text: string): void {
  const temporary = `${path}.${process.pid}-${process.hrtime.bigint()}`
  try {
    // 'wx' is O_CREAT | O_EXCL: an existing file or link is never opened.
    writeFileSync(temporary, text, { flag: 'wx', mode: 0o600 })
    renameSync(temporary, path)
  } catch (error) {
    rmSync(temporary, { force: true })
    throw error
  }
}

function reasonOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}

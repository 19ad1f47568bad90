import { readdirSync, readFileSync, rmSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { makeDirectory, replaceFile } from '../../plugin/file-state.js'

/** Bytes of all events that wait together; one event may have megabytes. */
const mostBytes = 64 * 1024 * 1024
/** Events that are only counted have an empty file each. */
const mostCounted = 100_000

/** What waits to be sent. */
export interface Waiting {
  /** The events, oldest first. */
  readonly events: readonly { readonly json: string }[]
  /** Events that were only counted because too many waited already. */
  readonly countedOnly: number
  /** Files with all this. */
  readonly files: readonly string[]
}

/**
 * Events that wait in a directory, one file each, written at once or not at all. Any number of processes may add; only the one that holds the lock
 * takes out. What was taken stays until it is removed, so that nothing is lost with the process that took it: at worst it is sent twice.
 */
export class EventSpool {
  readonly #directory: string
  readonly #mostEvents: number

  /** Makes the directory if need be. `mostEvents` are kept as they are, further ones only counted. */
  constructor(directory: string, mostEvents: number) {
    makeDirectory(directory)
    this.#directory = directory
    this.#mostEvents = mostEvents
  }

  /** The file to lock; it stays. */
  get lockFile(): string {
    return join(this.#directory, 'lock')
  }

  /** How many events wait. */
  get size(): number {
    return this.#names().length
  }

  /** Adds an event. Returns whether it is kept as it is, or only counted; throws when there is no place even for that. */
  add(json: string, nowMs: number): 'kept' | 'counted' {
    const names = this.#names()
    const kept = names.filter(name => name.endsWith('.json'))
    const room = kept.length < this.#mostEvents && this.#bytesOf(kept) + Buffer.byteLength(json) <= mostBytes
    if (!room && names.length - kept.length >= mostCounted) {
      throw new Error(
        `${this.#directory} has ${names.length} events waiting: the event is dropped; see why none are sent`,
      )
    }
    // Names sort by time. No two processes have the same id at a time.
    const name = `${String(nowMs).padStart(15, '0')}-${process.pid}-${process.hrtime.bigint()}`
    replaceFile(join(this.#directory, room ? `${name}.json` : `${name}.counted`), room ? json : '')
    return room ? 'kept' : 'counted'
  }

  /** What waits now. */
  read(): Waiting {
    const files = this.#names().map(name => join(this.#directory, name))
    const events = files.filter(file => file.endsWith('.json')).map(file => ({ json: readFileSync(file, 'utf8') }))
    return { events, countedOnly: files.length - events.length, files }
  }

  /** Removes what was sent. */
  remove({ files }: Waiting): void {
    for (const file of files) rmSync(file, { force: true })
  }

  /** Files of events, oldest first; those that are just being written have another ending. */
  #names(): string[] {
    return readdirSync(this.#directory)
      .filter(name => /\.(?:json|counted)$/.test(name))
      .sort()
  }

  #bytesOf(names: readonly string[]): number {
    // One that is sent meanwhile is gone.
    return names.reduce(
      (sum, name) => sum + (statSync(join(this.#directory, name), { throwIfNoEntry: false })?.size ?? 0),
      0,
    )
  }
}

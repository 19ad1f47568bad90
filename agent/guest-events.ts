import type { Host } from '../libvirt/host.js'
import type { Domain } from '../libvirt/records.js'
import type { Logger } from '../sensu/log.js'

/** The guests that something happened to, by name; `all` when that is not known. */
export type ChangedGuests = ReadonlySet<string> | 'all'

/** A check that is to run when something happens to a guest it looks at. */
export interface FollowingCheck {
  name: string
  /** The libvirt it asks. */
  uri: string
  covers(guest: Domain): boolean
}

export interface GuestEventsOptions {
  /** Asked at every start. */
  checks(): FollowingCheck[]
  /** The host is given back by its close(). */
  openHost(uri: string): Promise<Host>
  /** Resolves when the check is not running. */
  whenFree(name: string): Promise<void>
  run(name: string, guests: ChangedGuests): void
  log: Logger
}

/** After a run the next one waits so long for what happens together: guests that end one after the other, one that shuts down and then stops. */
const COLLECT_MS = 50
/** Whatever happens, no more than two runs of a check begin within this time because of events. */
const TWO_RUNS_MS = 1000
/** Beyond so many changed guests it is all of them. */
const MOST_NAMES = 10_000
const MOST_LOGGED = 10

/**
 * Runs checks when libvirt tells that something happened to a guest they look at: at once after a quiet time (libvirt tells when the new state is
 * there to be read), then once for all that happens together, and never twice at a time. What happens during a run has one of its own after it, so
 * the last result is never older than the last event. While stopped it goes on listening; the runs come with the next start.
 */
export class GuestEvents {
  readonly #options: GuestEventsOptions
  readonly #watches = new Map<string, Watch>()
  readonly #triggers = new Map<string, Trigger>()
  #checks: FollowingCheck[] = []

  constructor(options: GuestEventsOptions) {
    this.#options = options
  }

  start(): void {
    const { checks, openHost, log } = this.#options
    this.#checks = checks()
    const names = new Set(this.#checks.map(({ name }) => name))
    const uris = new Set(this.#checks.map(({ uri }) => uri))
    for (const [name, trigger] of this.#triggers) {
      if (names.has(name)) continue
      trigger.stop()
      this.#triggers.delete(name)
    }
    for (const [uri, watch] of this.#watches) {
      if (uris.has(uri)) continue
      watch.close()
      this.#watches.delete(uri)
    }
    for (const name of names) {
      if (!this.#triggers.has(name)) this.#triggers.set(name, new Trigger(name, this.#options))
      this.#triggers.get(name)?.start()
    }
    for (const uri of uris) {
      if (this.#watches.has(uri)) continue
      const onChange = (guest: Domain | 'all') => this.#onChange(uri, guest)
      this.#watches.set(uri, new Watch({ uri, openHost, onChange, log }))
    }
  }

  stop(): void {
    for (const trigger of this.#triggers.values()) trigger.stop()
  }

  /** Stops, and listens no more. */
  close(): void {
    this.stop()
    for (const watch of this.#watches.values()) watch.close()
    this.#watches.clear()
  }

  #onChange(uri: string, guest: Domain | 'all'): void {
    for (const check of this.#checks) {
      if (check.uri !== uri) continue
      if (guest === 'all' || check.covers(guest)) this.#triggers.get(check.name)?.note(guest)
    }
  }
}

interface WatchOptions {
  uri: string
  openHost(uri: string): Promise<Host>
  onChange(guest: Domain | 'all'): void
  log: Logger
}

/** Listens to one libvirt. Reconnecting is the Host's. */
class Watch {
  readonly #options: WatchOptions
  #close: (() => void) | undefined
  #closed = false
  #down = false

  constructor(options: WatchOptions) {
    this.#options = options
    this.#open().catch((error: unknown) => this.#onDown(error))
  }

  close(): void {
    this.#closed = true
    this.#close?.()
  }

  async #open(): Promise<void> {
    const { uri, openHost, onChange, log } = this.#options
    const host = await openHost(uri)
    if (this.#closed) return host.close()
    const ends = [
      host.on('lifecycle', ({ domain }) => onChange(domain)),
      // a guest that is paused already pauses no more, but its next broken disk is news
      host.on('ioError', ({ domain, action }) => action === 'pause' && onChange(domain)),
      host.onNotice('down', error => this.#onDown(error)),
      host.onNotice('resync', () => this.#onResync()),
    ]
    this.#close = () => {
      for (const end of ends) end()
      void host.close()
    }
    host.eventsReady().then(
      () => log.debug('listening to libvirt events', { uri }),
      () => {}, // told by the notice
    )
  }

  /** Told at every attempt; said once. */
  #onDown(error: unknown): void {
    const { uri, log } = this.#options
    if (this.#down || this.#closed) return
    this.#down = true
    log.warn('libvirt events are lost until it answers', { uri, error: String(error) })
  }

  #onResync(): void {
    const { uri, log, onChange } = this.#options
    this.#down = false
    log.info('libvirt events are back', { uri })
    onChange('all')
  }
}

/** Turns what happens to guests into runs of one check. */
class Trigger {
  readonly #name: string
  readonly #options: GuestEventsOptions
  #changed: Set<string> | 'all' = new Set()
  /** Takes back the run that is to come. */
  #cancel: (() => void) | undefined
  #waiting = false
  #active = false
  /** When the last run began, and the one before it, by the monotonic clock. */
  #lastMs = Number.NEGATIVE_INFINITY
  #beforeMs = Number.NEGATIVE_INFINITY

  constructor(name: string, options: GuestEventsOptions) {
    this.#name = name
    this.#options = options
  }

  start(): void {
    this.#active = true
    this.#arm()
  }

  stop(): void {
    this.#active = false
    this.#cancel?.()
    this.#cancel = undefined
  }

  note(guest: Domain | 'all'): void {
    if (guest === 'all' || this.#changed === 'all') this.#changed = 'all'
    else if (this.#changed.add(guest.name).size > MOST_NAMES) this.#changed = 'all'
    this.#arm()
  }

  #arm(): void {
    const nothing = this.#changed !== 'all' && this.#changed.size === 0
    if (nothing || !this.#active || this.#waiting || this.#cancel) return
    const earliestMs = Math.max(this.#lastMs + COLLECT_MS, this.#beforeMs + TWO_RUNS_MS)
    this.#cancel = callAfter(earliestMs - performance.now(), () => void this.#fire())
  }

  /** After the run that may be under way: that one may have looked before the event. */
  async #fire(): Promise<void> {
    this.#cancel = undefined
    this.#waiting = true
    await this.#options.whenFree(this.#name)
    this.#waiting = false
    if (!this.#active) return
    const guests = this.#changed
    this.#changed = new Set()
    this.#beforeMs = this.#lastMs
    this.#lastMs = performance.now()
    this.#options.log.info('guest events run a check', { check: this.#name, ...described(guests) })
    this.#options.run(this.#name, guests)
  }
}

/** Calls in so many milliseconds, without them as soon as all that has arrived is read. Returns what takes it back. */
function callAfter(milliseconds: number, call: () => void): () => void {
  if (milliseconds > 0) {
    const timer = setTimeout(call, milliseconds)
    return () => clearTimeout(timer)
  }
  const immediate = setImmediate(call)
  return () => clearImmediate(immediate)
}

function described(guests: ChangedGuests): { guests: string[]; count?: number } {
  if (guests === 'all') return { guests: ['all'] }
  return { guests: [...guests].slice(0, MOST_LOGGED), ...(guests.size > MOST_LOGGED && { count: guests.size }) }
}

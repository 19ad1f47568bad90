import type { Connection } from './connection.js'
import { eventKinds, eventNames } from './events.js'
import { ManagedConnection } from './managed-connection.js'
import { procedures } from './procedures.js'
import type { HostEventName, HostEvents } from './records.js'
import { XdrReader } from './xdr.js'

/** What the hub says besides events; see HostNotices. */
export interface Notices {
  down: Error
  resync: undefined
  listenerError: unknown
}

type OpenConnection = (
  onMessage: (procedure: number, payload: Buffer) => void,
  onClose: (reason: Error) => void,
) => Promise<Connection>

const registrationTimeoutMs = 5000

/**
 * Listeners to guests' events, and the connection that carries them: opened with the first listener, reopened and
 * registered anew after a loss, closed with the last listener.
 */
export class EventHub {
  readonly #connection: ManagedConnection
  readonly #listeners = new Map<HostEventName, Set<(event: never) => void>>()
  readonly #notices = new Map<keyof Notices, Set<(notice: never) => void>>()
  /** Callback ids by event, valid on `#registeredOn` only. */
  readonly #registered = new Map<HostEventName, number>()
  #registeredOn: Connection | undefined
  #releaseHold: (() => void) | undefined
  #syncing: Promise<void> | undefined
  #lost = false
  #closed = false

  constructor(open: OpenConnection) {
    this.#connection = new ManagedConnection({
      label: 'events',
      maximumRetired: 0,
      holdsProcess: true,
      open: () =>
        open(
          (procedure, payload) => this.#receive(procedure, payload),
          reason => this.#onClose(reason),
        ),
    })
  }

  on<Name extends HostEventName>(name: Name, listener: (event: HostEvents[Name]) => void): () => void {
    const remove = addTo(this.#listeners, name, listener)
    this.#sync()
    return () => {
      remove()
      this.#sync()
    }
  }

  onNotice<Name extends keyof Notices>(name: Name, listener: (notice: Notices[Name]) => void): () => void {
    return addTo(this.#notices, name, listener)
  }

  async ready(): Promise<void> {
    if (this.#syncing === undefined && !this.#inStep()) this.#sync()
    while (this.#syncing !== undefined) await this.#syncing
    if (!this.#inStep()) throw new Error('events are not registered with libvirt')
  }

  close(): void {
    this.#closed = true
    this.#listeners.clear()
    this.#releaseHold?.()
    this.#connection.close()
  }

  #wanted(name: HostEventName): boolean {
    return (this.#listeners.get(name)?.size ?? 0) > 0
  }

  /** True when the daemon is registered for exactly what is listened to. */
  #inStep(): boolean {
    return eventNames.every(name => this.#wanted(name) === this.#registered.has(name))
  }

  /** Brings the registrations in step with the listeners, one attempt after the other. */
  #sync(): void {
    if (this.#closed || this.#syncing !== undefined || this.#inStep()) return
    const attempt = this.#register().finally(() => {
      this.#syncing = undefined
    })
    this.#syncing = attempt
    attempt.then(
      () => this.#sync(),
      (error: unknown) => this.#onFailure(error),
    )
  }

  /** Events are lost until a later attempt succeeds; the connection's own back-off spaces the attempts. */
  #onFailure(error: unknown): void {
    if (this.#closed) return
    this.#lost = true
    this.#tell('down', error instanceof Error ? error : new Error(String(error)))
    this.#sync()
  }

  async #register(): Promise<void> {
    const connection = await this.#connection.acquire()
    if (connection !== this.#registeredOn) {
      this.#registered.clear()
      this.#registeredOn = connection
      this.#releaseHold = connection.hold()
    }
    for (const name of eventNames) {
      const callbackId = this.#registered.get(name)
      if (this.#wanted(name) && callbackId === undefined) {
        this.#registered.set(name, await registerEvent(connection, eventKinds[name].id))
      } else if (!this.#wanted(name) && callbackId !== undefined) {
        this.#registered.delete(name)
        await deregisterEvent(connection, callbackId)
      }
    }
    if (this.#registered.size === 0) connection.close()
    else if (this.#lost) {
      this.#lost = false
      this.#tell('resync', undefined)
    }
  }

  #onClose(reason: Error): void {
    this.#releaseHold = undefined
    this.#registered.clear()
    this.#registeredOn = undefined
    if (this.#closed || this.#listeners.size === 0 || this.#inStep()) return
    // During an attempt the attempt itself fails and says so.
    if (this.#syncing === undefined) this.#onFailure(reason)
  }

  #receive(procedure: number, payload: Buffer): void {
    for (const name of eventNames) {
      if (eventKinds[name].procedure !== procedure) continue
      const reader = new XdrReader(payload, `event ${name}`)
      reader.i32()
      this.#deliver(name, eventKinds[name].read(reader))
    }
  }

  #deliver(name: HostEventName, event: HostEvents[HostEventName]): void {
    for (const listener of [...(this.#listeners.get(name) ?? [])]) {
      try {
        listener(event as never)
      } catch (error) {
        if (!this.#tell('listenerError', error)) process.emitWarning(`a listener of ${name} threw: ${String(error)}`)
      }
    }
  }

  /** Returns false when nobody listens to the notice. */
  #tell<Name extends keyof Notices>(name: Name, notice: Notices[Name]): boolean {
    const listeners = this.#notices.get(name)
    if (listeners === undefined || listeners.size === 0) return false
    for (const listener of [...listeners]) listener(notice as never)
    return true
  }
}

function addTo<Name, Listener>(map: Map<Name, Set<Listener>>, name: Name, listener: Listener): () => void {
  const set = map.get(name) ?? new Set()
  map.set(name, set)
  set.add(listener)
  return () => void set.delete(listener)
}

async function registerEvent(connection: Connection, eventId: number): Promise<number> {
  const reader = await connection.call({
    procedure: procedures.eventRegister,
    timeoutMs: registrationTimeoutMs,
    write: writer => writer.i32(eventId).bool(false),
  })
  return reader.i32()
}

async function deregisterEvent(connection: Connection, callbackId: number): Promise<void> {
  await connection.call({
    procedure: procedures.eventDeregister,
    timeoutMs: registrationTimeoutMs,
    write: writer => writer.i32(callbackId),
  })
}

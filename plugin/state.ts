/** What one use of a check keeps from run to run: one JSON value. */
export interface StateStore {
  /** The value of the last `write`, not to be changed; undefined on the first run and when what is kept cannot be read as JSON. */
  read(): Promise<unknown>
  /** Replaces the value, all or nothing. It must be one that JSON can carry, and not be changed afterwards. */
  write(value: unknown): Promise<void>
}

/** A named part of what a store keeps, for a check that keeps several things. The parts are not to be written at the same time. */
export function partOf(store: StateStore, name: string): StateStore {
  const whole = async (): Promise<object> => {
    const value = await store.read()
    return typeof value === 'object' && value !== null && !Array.isArray(value) ? value : {}
  }
  return {
    read: async () => new Map<string, unknown>(Object.entries(await whole())).get(name),
    write: async value => store.write({ ...(await whole()), [name]: value }),
  }
}

/** Which use of which check a value belongs to. */
export interface StateKey {
  readonly check: string
  readonly uri: string
  /** The options that tell one use from another, so that two schedulers running the same check do not spoil each other's numbers. */
  readonly options: unknown
  /** The directory that the command line asks for. */
  readonly directory: string | undefined
}

/** Opens stores; opening does no input or output, the first read or write does. */
export interface StateKeeper {
  open(key: StateKey): StateStore
}

/** State in memory, for a process that lives between runs; the least recently used beyond 1,000 keys is forgotten. */
export class MemoryState implements StateKeeper {
  readonly #values = new Map<string, unknown>()
  readonly #limit: number

  constructor(limit = 1000) {
    this.#limit = limit
  }

  open(key: StateKey): StateStore {
    const name = JSON.stringify([key.check, key.uri, key.options])
    return {
      read: async () => this.#values.get(name),
      write: async value => {
        this.#values.delete(name)
        this.#values.set(name, value)
        const [oldest] = this.#values.keys()
        if (this.#values.size > this.#limit && oldest !== undefined) this.#values.delete(oldest)
      },
    }
  }
}

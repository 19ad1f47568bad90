import type { LocalSocket } from './agent.js'

/** A local socket that can be exchanged for one with other settings while it is open. */
export class ExchangeableSocket implements LocalSocket {
  #current: LocalSocket
  #open = false

  constructor(socket: LocalSocket) {
    this.#current = socket
  }

  async open(): Promise<void> {
    await this.#current.open()
    this.#open = true
  }

  async close(): Promise<void> {
    this.#open = false
    await this.#current.close()
  }

  /** Closes the one in use and opens `next` in its place. Rejects when that fails; the old one is open again then. */
  async exchange(next: LocalSocket): Promise<void> {
    const old = this.#current
    // both may want the same port
    if (this.#open) await old.close()
    try {
      if (this.#open) await next.open()
      this.#current = next
    } catch (error) {
      if (this.#open) await old.open()
      throw error
    }
  }
}

/** So many reads that may hang are under way at once; each that does holds one of Node's four threads. */
const mostAtOnce = 2

/**
 * Reads of this machine that may hang in the kernel for good, such as those of a network file system whose server is away. A read that is
 * still under way is shared by all who ask the same, in this run or a later one, so that a hanging one is not begun again and again;
 * those that would be too many at once wait for their turn. Who asks must bring a time limit of his own.
 */
export class PendingReads {
  readonly #pending = new Map<string, Promise<unknown>>()
  readonly #waiting: (() => void)[] = []
  #running = 0

  /** Resolves and rejects as `read` does; `key` names what is read. */
  join<T>(key: string, read: () => Promise<T>): Promise<T> {
    // The same key is the same read, and so the same type.
    const pending = this.#pending.get(key) as Promise<T> | undefined
    if (pending !== undefined) return pending
    const answer = this.#inTurn(read).finally(() => this.#pending.delete(key))
    this.#pending.set(key, answer)
    return answer
  }

  async #inTurn<T>(read: () => Promise<T>): Promise<T> {
    if (this.#running >= mostAtOnce) await new Promise<void>(resolve => this.#waiting.push(resolve))
    else this.#running++
    try {
      return await read()
    } finally {
      const next = this.#waiting.shift()
      if (next === undefined) this.#running--
      else next()
    }
  }
}

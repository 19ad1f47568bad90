import type { Redis } from 'ioredis'
import type { OnMessage } from './transport.js'

/** Also how long a consumer takes to stop. Whole seconds: older Redis knows no fractions. */
const POP_SECONDS = 1
const STOP_TIMEOUT_MS = POP_SECONDS * 1000 + 250

export interface ListConsumerOptions {
  /** For this consumer alone: a blocking command holds up everything behind it. */
  redis: Redis
  key: string
  onMessage: OnMessage
  /** Take the next message only when the last one's handler has finished. */
  acknowledge: boolean
  /** Returns a message to the head of the list, for another consumer. */
  putBack(message: Buffer): Promise<void>
  /** The consumer has ended, and needs its connection no more. */
  release(): void
  /** Redis answered with an error; the consumer has ended. Not called when the connection was lost. */
  onReplyError(error: Error): void
}

/**
 * Takes messages from a Redis list, one at a time.
 *
 * A list has no acknowledgements: a message is gone from Redis once it was popped, and is lost when the answer does not arrive. Each pop
 * waits a second at most, where the reference waits for ever: so Redis never waits for a consumer that disappeared unnoticed longer than
 * that second, can lose at most that one message on it, and stopping needs no message to be cut off in mid-flight.
 */
export class ListConsumer {
  readonly #options: ListConsumerOptions
  readonly #ended: Promise<void>
  #stopping = false

  constructor(options: ListConsumerOptions) {
    this.#options = options
    this.#ended = this.#consume()
  }

  /** A message that arrives meanwhile is put back, or delivered when that fails. Never rejects. */
  async stop(): Promise<void> {
    this.#stopping = true
    let timer: NodeJS.Timeout | undefined
    const expired = new Promise<void>(resolve => {
      timer = setTimeout(resolve, STOP_TIMEOUT_MS)
    })
    await Promise.race([this.#ended, expired])
    clearTimeout(timer)
    this.#options.release()
  }

  async #consume(): Promise<void> {
    while (!this.#stopping) {
      const message = await this.#pop()
      if (message) await this.#take(message)
    }
  }

  /** Undefined when there was none for a second, or never will be again. */
  async #pop(): Promise<Buffer | undefined> {
    const { redis, key, onReplyError } = this.#options
    try {
      return (await redis.blpopBuffer(key, POP_SECONDS))?.[1]
    } catch (error) {
      // without a reply the connection is gone, which its owner knows
      this.#stopping = true
      if (error instanceof Error && error.name === 'ReplyError') onReplyError(error)
      return undefined
    }
  }

  async #take(message: Buffer): Promise<void> {
    const { onMessage, acknowledge, putBack } = this.#options
    if (this.#stopping) {
      try {
        return await putBack(message)
      } catch {
        // the other connection is gone too: handling it late is better than losing it
      }
    }
    const handled = Promise.resolve(onMessage(message, false)).catch(() => {})
    if (acknowledge) await handled
  }
}

import type { ConsumeMessage } from 'amqplib'

/**
 * Acknowledges the messages of one channel in bunches: what was handled in one turn of the event loop costs one frame, as far as everything before it is
 * handled as well.
 */
export class Acknowledgements {
  readonly #send: (message: ConsumeMessage, allUpTo: boolean) => void
  /** Delivered and not handled; in the order of their tags. */
  readonly #open = new Set<number>()
  #handled: ConsumeMessage[] = []

  /** `send` is called outside of any handler, and must not throw. */
  constructor(send: (message: ConsumeMessage, allUpTo: boolean) => void) {
    this.#send = send
  }

  delivered(message: ConsumeMessage): void {
    this.#open.add(message.fields.deliveryTag)
  }

  handled(message: ConsumeMessage): void {
    this.#open.delete(message.fields.deliveryTag)
    if (this.#handled.length === 0) setImmediate(() => this.flush())
    this.#handled.push(message)
  }

  /** Acknowledges at once what was handled until now. */
  flush(): void {
    const [oldestOpen = Number.POSITIVE_INFINITY] = this.#open
    let last: ConsumeMessage | undefined
    for (const message of this.#handled) {
      const { deliveryTag } = message.fields
      if (deliveryTag > oldestOpen) this.#send(message, false)
      else if (last === undefined || deliveryTag > last.fields.deliveryTag) last = message
    }
    this.#handled = []
    if (last) this.#send(last, true)
  }
}

import { type Channel, connect } from 'amqplib'
import type { Test } from 'tap'
import { waitUntil } from '../../scripts/services/process.js'

const exchange = 'results'
const queue = 'kept-results'

/**
 * A queue for results that survives the broker's death: what the broker has confirmed is in it. A Sensu server's own queue dies with the
 * broker, so that it could not tell what the agent has lost from what the broker has.
 */
export class KeptResults {
  readonly #channel: Channel

  /**
   * Makes the queue so that it outlives the broker's death. What RabbitMQ (3.10) notes of a new quorum queue it writes to disk minutes later, or when it ends
   * in order, which it does here: killed before, it would know the queue and yet never answer who wants its messages.
   */
  static async prepare(t: Test, broker: { url(): string; restart(): Promise<void> }): Promise<void> {
    await KeptResults.open(t, broker.url())
    await broker.restart()
  }

  /** Finds the queue again, or makes it, and has it receive results from now on. */
  static async open(t: Test, url: string): Promise<KeptResults> {
    const connection = await connect(url)
    connection.on('error', () => {})
    t.teardown(() => connection.close().catch(() => {}))
    const channel = await connection.createChannel()
    await channel.assertExchange(exchange, 'direct', { durable: false, autoDelete: false })
    await channel.assertQueue(queue, { durable: true, arguments: { 'x-queue-type': 'quorum' } })
    await channel.bindQueue(queue, exchange, '')
    return new KeptResults(channel)
  }

  private constructor(channel: Channel) {
    this.#channel = channel
  }

  /** Waits until the broker has taken so many; resolves with how many they are by then. */
  async reached(count: number): Promise<number> {
    const taken = async () => {
      const { messageCount } = await this.#channel.checkQueue(queue)
      return messageCount >= count ? messageCount : undefined
    }
    return waitUntil(`${count} results are in the queue`, taken, { timeoutMs: 60_000, intervalMs: 10 })
  }

  /** Takes everything out, in order, up to the first result of the check. Rejects when the broker does not let it. */
  async takeUntil(last: string): Promise<{ name: string; output: string }[]> {
    const taken: { name: string; output: string }[] = []
    await new Promise<void>((resolve, reject) => {
      const onMessage = (message: { content: Buffer } | null) => {
        if (!message) return
        const { check } = JSON.parse(message.content.toString())
        taken.push(check)
        if (check.name === last) resolve()
      }
      this.#channel.consume(queue, onMessage, { noAck: true }).catch(reject)
    })
    return taken
  }
}

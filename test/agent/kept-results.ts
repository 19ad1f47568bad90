import { type Channel, connect } from 'amqplib'
import type { Test } from 'tap'
import { waitUntil } from '../../scripts/services/process.js'

const exchange = 'results'
const queue = 'kept-results'
const consumeTimeoutMs = 15_000

/**
 * A queue for results that survives the broker's death: what the broker has confirmed is in it. A Sensu server's own queue dies with the
 * broker, so that it could not tell what the agent has lost from what the broker has.
 */
export class KeptResults {
  readonly #test: Test
  readonly #url: string
  #channel: Channel

  /** Makes the queue, or finds it again, and has it receive results from now on. */
  static async open(t: Test, url: string): Promise<KeptResults> {
    return new KeptResults(t, url, await openChannel(t, url))
  }

  private constructor(t: Test, url: string, channel: Channel) {
    this.#test = t
    this.#url = url
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

  /** Takes everything out, in order, up to the first result of the check. Rejects when the broker lets nobody have them. */
  async takeUntil(last: string): Promise<{ name: string; output: string }[]> {
    const taken: { name: string; output: string }[] = []
    let done = () => {}
    const complete = new Promise<void>(resolve => {
      done = resolve
    })
    const onMessage = (message: { content: Buffer } | null) => {
      if (!message) return
      const { check } = JSON.parse(message.content.toString())
      taken.push(check)
      if (check.name === last) done()
    }
    for (let attempt = 1; ; attempt++) {
      try {
        const consuming = this.#channel.consume(queue, onMessage, { noAck: true })
        await Promise.race([consuming, rejectAfter(consumeTimeoutMs)])
        break
      } catch (error) {
        // a quorum queue that has just come back may leave its first consumer without an answer, for a minute and for good (RabbitMQ 3.10)
        if (attempt === 3 || taken.length > 0) throw error
        this.#channel = await openChannel(this.#test, this.#url)
      }
    }
    await complete
    return taken
  }
}

async function openChannel(t: Test, url: string): Promise<Channel> {
  const connection = await connect(url)
  connection.on('error', () => {})
  t.teardown(() => connection.close().catch(() => {}))
  const channel = await connection.createChannel()
  await channel.assertExchange(exchange, 'direct', { durable: false, autoDelete: false })
  await channel.assertQueue(queue, { durable: true, arguments: { 'x-queue-type': 'quorum' } })
  await channel.bindQueue(queue, exchange, '')
  return channel
}

function rejectAfter(milliseconds: number): Promise<never> {
  return new Promise((_, reject) => {
    setTimeout(
      () => reject(new Error(`the broker did not answer a consumer within ${milliseconds} ms`)),
      milliseconds,
    ).unref()
  })
}

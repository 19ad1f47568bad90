import { randomUUID } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { type ConfirmChannel, type ConsumeMessage, connect } from 'amqplib'
import type { Test } from 'tap'

/** As long as anything takes that is to come at all. */
const PATIENCE_MS = 20_000

/** A message as it arrived. */
export interface Received {
  /** JSON text. */
  text: string
  /** The same as bytes, which need not be UTF-8. */
  content: Buffer
  atMs: number
  properties: unknown
  routingKey: string
}

/** The server's place at the broker: receives results and keepalives, sends check requests. */
export class ServerSide {
  readonly results: Received[] = []
  readonly keepalives: Received[] = []
  /** Messages that no queue wanted; told before they are confirmed. */
  readonly #returned = new Set<unknown>()
  readonly #channel: ConfirmChannel
  readonly #exchanges = new Map<string, Promise<unknown>>()
  #waiting: (() => void)[] = []

  static async open(t: Test, url: string): Promise<ServerSide> {
    const connection = await connect(url)
    connection.on('error', () => {})
    t.teardown(() => connection.close().catch(() => {}))
    const channel = await connection.createConfirmChannel()
    const side = new ServerSide(channel)
    await side.#collect('results', side.results)
    await side.#collect('keepalives', side.keepalives)
    return side
  }

  private constructor(channel: ConfirmChannel) {
    this.#channel = channel
    channel.on('return', ({ properties }) => this.#returned.add(properties.messageId))
  }

  /** Publishes a check request as the server does, as soon as somebody has subscribed to it. */
  async request(exchange: string, body: object | string | Buffer, type: 'fanout' | 'direct' = 'fanout'): Promise<void> {
    while (!(await this.offer(exchange, body, type))) await sleep(10)
  }

  /** Publishes a check request as the server does. False when nobody has subscribed to it. */
  async offer(
    exchange: string,
    body: object | string | Buffer,
    type: 'fanout' | 'direct' = 'fanout',
  ): Promise<boolean> {
    await this.#declare(exchange, type)
    const content =
      Buffer.isBuffer(body) || typeof body === 'string' ? Buffer.from(body) : Buffer.from(JSON.stringify(body))
    const messageId = randomUUID()
    await new Promise(resolve => {
      this.#channel.publish(exchange, '', content, { mandatory: true, messageId }, resolve)
    })
    return !this.#returned.delete(messageId)
  }

  /** Once: the broker's answer costs more than a message. */
  #declare(exchange: string, type: string): Promise<unknown> {
    const declared =
      this.#exchanges.get(exchange) ??
      this.#channel.assertExchange(exchange, type, { durable: false, autoDelete: false })
    this.#exchanges.set(exchange, declared)
    return declared
  }

  /** Waits until a queue that clients share has so many consumers. */
  async consumers(queue: string, count: number): Promise<void> {
    const declare = () => this.#channel.assertQueue(queue, { durable: false, autoDelete: true })
    while ((await declare()).consumerCount < count) await sleep(10)
  }

  /** Waits for the n-th result of the check. */
  async result(name: string, count = 1): Promise<{ text: string; check: Record<string, unknown>; client: string }> {
    for (;;) {
      const matching = this.results
        .map(({ text }) => ({ text, ...JSON.parse(text) }))
        .filter(r => r.check?.name === name)
      if (matching[count - 1]) return matching[count - 1]
      await this.#more()
    }
  }

  /** Waits for the n-th keepalive of the client. */
  async keepalive(client: string, count = 1): Promise<Received> {
    for (;;) {
      const keepalive = this.keepalives.filter(({ text }) => JSON.parse(text).name === client)[count - 1]
      if (keepalive) return keepalive
      await this.#more()
    }
  }

  /** Waits for a condition on what has arrived; bounded, as a comparison afterwards tells more than a test that waits for ever. */
  async until(condition: () => boolean): Promise<void> {
    const late = AbortSignal.timeout(PATIENCE_MS)
    late.addEventListener('abort', () => this.#wake())
    while (!condition() && !late.aborted) await this.#more()
  }

  #wake(): void {
    for (const resolve of this.#waiting.splice(0)) resolve()
  }

  #more(): Promise<void> {
    return new Promise(resolve => this.#waiting.push(resolve))
  }

  async #collect(exchange: string, into: Received[]): Promise<void> {
    await this.#declare(exchange, 'direct')
    const { queue } = await this.#channel.assertQueue('', { exclusive: true, durable: false })
    await this.#channel.bindQueue(queue, exchange, '')
    const onMessage = (message: ConsumeMessage | null) => {
      if (!message) return
      const { content, properties, fields } = message
      into.push({ text: content.toString(), content, atMs: Date.now(), properties, routingKey: fields.routingKey })
      this.#wake()
    }
    await this.#channel.consume(queue, onMessage, { noAck: true })
  }
}

import { Duplex } from 'node:stream'
import { type ChannelModel, type ConfirmChannel, type ConsumeMessage, connect } from 'amqplib'
import { Acknowledgements } from './amqp-acknowledgements.js'
import type { AmqpEndpoint } from './amqp-endpoints.js'
import {
  type OnMessage,
  type PipeOptions,
  type PipeType,
  type QueueStats,
  type SubscribeOptions,
  TransportError,
} from './transport.js'

/** Everything is volatile in Sensu: exchanges live as long as the broker, queues as long as they have a consumer. */
const EXCHANGE = { durable: false, autoDelete: false }
const QUEUE = { durable: false, autoDelete: true, exclusive: false }
/** The properties that Sensu 1.9 sends. */
const PROPERTIES = { contentType: 'application/octet-stream', deliveryMode: 1, priority: 0 }
const CLOSE_TIMEOUT_MS = 500

export interface AmqpLinkOptions {
  /** Publications that may wait for their confirmation at once. */
  maxUnconfirmed: number
  /** The connection is gone, whoever ended it; not called after close(). */
  onClose(cause: Error | undefined): void
  /** The broker closed the channel because of what we asked for. */
  onChannelError(error: TransportError): void
}

interface Consumer {
  tag: string
  /** Those its queue is bound to. */
  exchanges: Set<string>
}

/** One connection to a broker with one confirming channel: declares, publishes, consumes. It does not outlive its connection. */
export class AmqpLink {
  readonly #connection: ChannelModel
  readonly #channel: ConfirmChannel
  readonly #options: AmqpLinkOptions
  readonly #declared = new Map<string, Promise<unknown>>()
  readonly #consumers = new Map<string, Consumer>()
  readonly #acknowledgements = new Acknowledgements((message, allUpTo) => this.#acknowledge(message, allUpTo))
  #unconfirmed = 0
  #closing = false

  /** Rejects with whatever amqplib, the system or the broker's handshake answered. */
  static async open(endpoint: AmqpEndpoint, options: AmqpLinkOptions): Promise<AmqpLink> {
    const connection = await connect(endpoint.connect, endpoint.socket)
    // amqplib reports each failure as 'error' and then as 'close'; the second carries the cause too
    connection.on('error', () => {})
    try {
      const channel = await connection.createConfirmChannel()
      await channel.prefetch(endpoint.prefetch)
      return new AmqpLink(connection, channel, options)
    } catch (error) {
      await closeConnection(connection)
      throw error
    }
  }

  private constructor(connection: ChannelModel, channel: ConfirmChannel, options: AmqpLinkOptions) {
    this.#connection = connection
    this.#channel = channel
    this.#options = options
    connection.on('close', cause => {
      if (!this.#closing) options.onClose(cause)
    })
    channel.on('error', cause => {
      if (!this.#closing) options.onChannelError(new TransportError('channel', 'rabbitmq channel error', { cause }))
    })
  }

  /** Resolves when the broker confirmed the message. Messages of one link are published in the order of the calls. */
  async publish(type: PipeType, exchange: string, message: Buffer, options?: PipeOptions): Promise<void> {
    if (this.#unconfirmed >= this.#options.maxUnconfirmed) {
      throw new TransportError('overloaded', `${this.#unconfirmed} messages wait for the broker's confirmation`)
    }
    this.#unconfirmed++
    try {
      await this.#declare(type, exchange, options)
      await this.#publishConfirmed(exchange, message)
    } catch (cause) {
      if (cause instanceof TransportError) throw cause
      throw new TransportError('disconnected', 'the connection ended before the broker confirmed', { cause })
    } finally {
      this.#unconfirmed--
    }
  }

  #publishConfirmed(exchange: string, message: Buffer): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#channel.publish(exchange, '', message, PROPERTIES, (error: unknown) => {
        if (error === null) resolve()
        else reject(this.#publishError(error))
      })
    })
  }

  /** amqplib tells a negative confirmation from a closed channel by its text only. */
  #publishError(cause: unknown): TransportError {
    if (cause instanceof Error && cause.message === 'message nacked') {
      return new TransportError('refused', 'the broker refused the message', { cause })
    }
    return new TransportError('disconnected', 'the connection ended before the broker confirmed', { cause })
  }

  #declare(type: PipeType, exchange: string, { passive = false, ...options }: PipeOptions = {}): Promise<unknown> {
    const key = `${type} ${exchange}`
    const known = this.#declared.get(key)
    if (known) return known
    const declaration = passive
      ? this.#channel.checkExchange(exchange)
      : this.#channel.assertExchange(exchange, type, { ...EXCHANGE, ...options })
    this.#declared.set(key, declaration)
    return declaration
  }

  /**
   * Binds `queue` to `exchange`, and consumes it unless that was done for another exchange already. When the broker
   * refuses, `onChannelError` is told too. Rejects with a TransportError.
   */
  async subscribe(
    type: PipeType,
    exchange: string,
    queue: string,
    onMessage: OnMessage,
    options: SubscribeOptions,
  ): Promise<void> {
    try {
      await this.#declare(type, exchange)
      // every answer awaited here is time in which the server's requests are lost: a queue in use exists already
      if (!this.#consumers.has(queue)) await this.#channel.assertQueue(queue, QUEUE)
      await this.#channel.bindQueue(queue, exchange, '')
      await this.#consume(queue, exchange, onMessage, options)
    } catch (cause) {
      throw new TransportError('channel', `cannot subscribe to ${exchange}`, { cause })
    }
  }

  async #consume(queue: string, exchange: string, onMessage: OnMessage, options: SubscribeOptions): Promise<void> {
    const known = this.#consumers.get(queue)
    known?.exchanges.add(exchange)
    if (known) return
    // one of a kind on its channel; the broker knows it together with the connection
    const consumerTag = `${queue}-${Math.random().toString(36).slice(2)}`
    this.#consumers.set(queue, { tag: consumerTag, exchanges: new Set([exchange]) })
    const noAck = options.acknowledge !== true
    await this.#channel.consume(queue, message => this.#deliver(message, noAck, onMessage), { consumerTag, noAck })
  }

  #deliver(message: ConsumeMessage | null, noAck: boolean, onMessage: OnMessage): void {
    // null: the broker cancelled the consumer, e.g. because its queue was deleted; a fresh start declares it again
    if (message === null) {
      if (!this.#closing) this.#options.onChannelError(new TransportError('channel', 'rabbitmq consumer cancelled'))
      return
    }
    const { content, fields } = message
    if (noAck) {
      void onMessage(content, fields.redelivered)
      return
    }
    this.#acknowledgements.delivered(message)
    const done = () => this.#acknowledgements.handled(message)
    Promise.resolve(onMessage(content, fields.redelivered)).then(done, done)
  }

  #acknowledge(message: ConsumeMessage, allUpTo: boolean): void {
    if (this.#closing) return
    try {
      this.#channel.ack(message, allUpTo)
    } catch {
      // the connection has gone: the broker delivers the message once more
    }
  }

  /** Undoes one subscribe(). A queue goes with its last exchange, as the broker deletes it with its last consumer. */
  async unsubscribe(exchange: string, queue: string): Promise<void> {
    const consumer = this.#consumers.get(queue)
    if (!consumer?.exchanges.delete(exchange)) return
    if (consumer.exchanges.size > 0) {
      await this.#channel.unbindQueue(queue, exchange, '')
    } else {
      this.#consumers.delete(queue)
      await this.#channel.cancel(consumer.tag)
    }
  }

  async unsubscribeAll(): Promise<void> {
    const consumers = [...this.#consumers.values()]
    this.#consumers.clear()
    await Promise.all(consumers.map(({ tag }) => this.#channel.cancel(tag)))
  }

  /** Declares the queue, as Sensu does, to count it. */
  async stats(queue: string): Promise<QueueStats> {
    const { messageCount, consumerCount } = await this.#channel.assertQueue(queue, QUEUE)
    return { messages: messageCount, consumers: consumerCount }
  }

  /** Says goodbye, waits for the broker's answer no longer than half a second. */
  async close(): Promise<void> {
    if (this.#closing) return
    this.#acknowledgements.flush()
    this.#closing = true
    await closeConnection(this.#connection)
  }
}

async function closeConnection(connection: ChannelModel): Promise<void> {
  let timer: NodeJS.Timeout | undefined
  const expired = new Promise<void>(resolve => {
    timer = setTimeout(resolve, CLOSE_TIMEOUT_MS)
  })
  try {
    await Promise.race([connection.close(), expired])
  } catch {
    // already closed, which is what was wanted
  }
  clearTimeout(timer)
  // amqplib has no way to give up a connection whose broker does not answer
  const stream: unknown = Reflect.get(connection.connection, 'stream')
  if (stream instanceof Duplex) stream.destroy()
}

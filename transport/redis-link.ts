import type { Redis } from 'ioredis'
import type { RedisAddress } from '../sensu/redis-settings.js'
import type { Session } from './reconnecting.js'
import { openRedis, type RedisLimits } from './redis-connection.js'
import { ListConsumer, type ListConsumerOptions } from './redis-list-consumer.js'
import {
  type OnMessage,
  type PipeType,
  type QueueStats,
  type SubscribeOptions,
  TransportError,
  type TransportLog,
} from './transport.js'

/** The reference looks after its connections this often. */
const PING_INTERVAL_MS = 3000

/** Replies that say: not this Redis, not now. Connecting anew, through the sentinels if there are any, is the remedy. */
const passingReplies = /^(READONLY|UNBLOCKED|LOADING|MASTERDOWN|CLUSTERDOWN)\b/

export interface RedisLinkOptions {
  address: RedisAddress
  limits: RedisLimits
  log: TransportLog
  /** Publications that may wait for their confirmation at once. */
  maxUnconfirmed: number
  /** Aborted when the transport closes. */
  closing: AbortSignal
  /** One of the connections is gone, or of no use any more; called once, and not after close(). */
  onLost(cause: Error | undefined): void
  /** Redis refused an operation; called once. */
  onRefused(error: TransportError): void
}

type ConsumedList = Pick<ListConsumerOptions, 'key' | 'onMessage' | 'acknowledge'>

/** The connections of one session: one for commands, one for all channels, one per list that is consumed. It ends with the first of them. */
export class RedisLink implements Session {
  readonly #options: RedisLinkOptions
  readonly #connections = new Set<Redis>()
  readonly #consumers = new Map<string, Promise<ListConsumer>>()
  readonly #channels = new Map<string, OnMessage>()
  #commands: Redis | undefined
  #subscriber: Redis | undefined
  #pings: NodeJS.Timeout | undefined
  #unsubscribing: Promise<unknown> = Promise.resolve()
  #unconfirmed = 0
  #over = false
  #refused = false

  /** Rejects with RedisConnectionError. */
  static async open(options: RedisLinkOptions): Promise<RedisLink> {
    const link = new RedisLink(options)
    const connections = await Promise.allSettled([link.#connect(), link.#connect()])
    const failed = connections.find(connection => connection.status === 'rejected')
    if (failed) {
      await link.close()
      throw failed.reason
    }
    const [commands, subscriber] = link.#connections
    if (commands && subscriber) link.#start(commands, subscriber)
    return link
  }

  private constructor(options: RedisLinkOptions) {
    this.#options = options
  }

  #start(commands: Redis, subscriber: Redis): void {
    this.#commands = commands
    this.#subscriber = subscriber
    subscriber.on('messageBuffer', (channel: Buffer, message: Buffer) => {
      void this.#channels.get(channel.toString())?.(message, false)
    })
    // Both are idle most of the time. An answer that does not come ends the connection, by ioredis' socketTimeout.
    this.#pings = setInterval(() => {
      for (const redis of [commands, subscriber]) redis.ping().catch(() => {})
    }, PING_INTERVAL_MS)
    this.#pings.unref()
  }

  async #connect(): Promise<Redis> {
    const { address, limits, log, closing } = this.#options
    const redis = await openRedis(address, limits, closing, cause => {
      if (!this.#connections.delete(redis) || this.#over) return
      log.debug('transport connection closed')
      this.#lose(cause)
    })
    if (this.#over || redis.status !== 'ready') {
      redis.disconnect()
      throw disconnected()
    }
    this.#connections.add(redis)
    log.debug('transport connection open')
    return redis
  }

  #lose(cause: Error | undefined): void {
    if (this.#over) return
    this.#over = true
    this.#options.onLost(cause)
  }

  /** Direct: to the end of the list. Fanout: to whoever listens at the moment. Resolves with Redis' answer. */
  async publish(type: PipeType, pipe: string, message: Buffer): Promise<void> {
    const commands = this.#opened(this.#commands)
    if (type === 'topic') throw new TransportError('refused', 'the Redis transport has no topic pipes')
    if (this.#unconfirmed >= this.#options.maxUnconfirmed) {
      throw new TransportError('overloaded', `${this.#unconfirmed} messages wait for Redis' answer`)
    }
    this.#unconfirmed++
    try {
      if (type === 'direct') await commands.rpush(this.#list(pipe), message)
      else await commands.publish(this.#channel(pipe), message)
    } catch (cause) {
      throw this.#failure(cause)
    } finally {
      this.#unconfirmed--
    }
  }

  async subscribe(type: PipeType, pipe: string, onMessage: OnMessage, options: SubscribeOptions): Promise<void> {
    try {
      if (type === 'fanout') await this.#listen(this.#channel(pipe), onMessage)
      else if (type === 'direct') await this.#consume(this.#list(pipe), onMessage, options.acknowledge === true)
      else throw new TransportError('refused', 'the Redis transport has no topic pipes')
    } catch (cause) {
      throw this.#failure(cause)
    }
  }

  async #listen(channel: string, onMessage: OnMessage): Promise<void> {
    const subscriber = this.#opened(this.#subscriber)
    if (this.#channels.has(channel)) return
    this.#channels.set(channel, onMessage)
    await subscriber.subscribe(channel)
    this.#options.log.debug(`subscribed to redis channel: ${channel}`)
  }

  async #consume(key: string, onMessage: OnMessage, acknowledge: boolean): Promise<void> {
    const commands = this.#opened(this.#commands)
    const consumer = this.#consumers.get(key) ?? this.#openConsumer(commands, { key, onMessage, acknowledge })
    this.#consumers.set(key, consumer)
    await consumer
  }

  async #openConsumer(commands: Redis, list: ConsumedList): Promise<ListConsumer> {
    const redis = await this.#connectOrLose()
    await this.#announce(list.key)
    return new ListConsumer({
      ...list,
      redis,
      putBack: async message => {
        await commands.lpush(list.key, message)
      },
      release: () => {
        this.#connections.delete(redis)
        redis.disconnect()
      },
      onReplyError: error => void this.#failure(error),
    })
  }

  /** A session that cannot have the connections it needs is of no use; the next one tries again. */
  async #connectOrLose(): Promise<Redis> {
    try {
      return await this.#connect()
    } catch (error) {
      this.#lose(error instanceof Error ? error : undefined)
      throw error
    }
  }

  /**
   * Makes a consumer countable: Redis does not tell who waits at a list, but how many listen to a channel. So a consumer also listens to a
   * channel called like its list, where nobody ever says anything. Where that is forbidden, it is merely not counted.
   */
  async #announce(key: string): Promise<void> {
    try {
      await this.#opened(this.#subscriber).subscribe(key)
    } catch (error) {
      if (!isReplyError(error)) throw error
    }
  }

  /** Never rejects. Waits for what earlier calls have begun, too. */
  async unsubscribe(type: PipeType, pipe: string): Promise<void> {
    const ending = type === 'fanout' ? this.#unlisten(this.#channel(pipe)) : this.#stopConsuming(this.#list(pipe))
    this.#unsubscribing = Promise.allSettled([this.#unsubscribing, ending])
    await this.#unsubscribing
  }

  async #unlisten(channel: string): Promise<void> {
    if (!this.#channels.delete(channel)) return
    if (!this.#over) await this.#subscriber?.unsubscribe(channel)
    this.#options.log.debug(`unsubscribed from redis channel: ${channel}`)
  }

  async #stopConsuming(key: string): Promise<void> {
    const consumer = this.#consumers.get(key)
    if (!consumer) return
    this.#consumers.delete(key)
    const stopping = consumer.then(opened => opened.stop())
    // it stops also where listening, which makes it countable, is forbidden
    await Promise.allSettled([stopping, this.#subscriber?.unsubscribe(key)])
  }

  /** Never rejects. Waits for what earlier calls have begun, too. */
  async unsubscribeAll(): Promise<void> {
    const consumers = [...this.#consumers.values()]
    this.#consumers.clear()
    const stopping = consumers.map(async consumer => (await consumer).stop())
    this.#unsubscribing = Promise.allSettled([this.#unsubscribing, this.#unsubscribeChannels(), ...stopping])
    await this.#unsubscribing
  }

  async #unsubscribeChannels(): Promise<void> {
    const channels = [...this.#channels.keys()]
    this.#channels.clear()
    if (!this.#over) await this.#subscriber?.unsubscribe()
    for (const channel of channels) this.#options.log.debug(`unsubscribed from redis channel: ${channel}`)
  }

  /**
   * The length of the list, and how many consumers of this project (of all processes) it has at this Redis. Consumers of Sensu's own
   * programs cannot be seen.
   */
  async stats(pipe: string): Promise<QueueStats> {
    const commands = this.#opened(this.#commands)
    const key = this.#list(pipe)
    try {
      const [messages, listening] = await Promise.all([commands.llen(key), commands.pubsub('NUMSUB', key)])
      return { messages, consumers: Number(listening[1] ?? 0) }
    } catch (cause) {
      throw this.#failure(cause)
    }
  }

  /** Lets the consumers finish what they are popping (a second), then drops all connections. */
  async close(): Promise<void> {
    clearInterval(this.#pings)
    this.#over = true
    await this.unsubscribeAll()
    for (const redis of this.#connections) redis.disconnect()
  }

  /** What to tell the caller; an answer that concerns the whole session is told its owner as well. */
  #failure(cause: unknown): TransportError {
    if (cause instanceof TransportError) return cause
    if (!isReplyError(cause)) return disconnected(cause)
    if (passingReplies.test(cause.message)) {
      this.#lose(cause)
      return disconnected(cause)
    }
    const message = `redis returned error code: ${cause.message}`
    if (!this.#refused) this.#options.onRefused(new TransportError('channel', message, { cause }))
    this.#refused = true
    return new TransportError('refused', message, { cause })
  }

  #opened(redis: Redis | undefined): Redis {
    if (redis && !this.#over) return redis
    throw disconnected()
  }

  #list(pipe: string): string {
    return `transport:${this.#options.address.db}:list:${pipe}`
  }

  #channel(pipe: string): string {
    return `transport:${this.#options.address.db}:channel:${pipe}`
  }
}

function isReplyError(error: unknown): error is Error {
  return error instanceof Error && error.name === 'ReplyError'
}

function disconnected(cause?: unknown): TransportError {
  return new TransportError('disconnected', 'the connection ended before Redis answered', { cause })
}

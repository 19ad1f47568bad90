import type { EventEmitter } from 'node:events'

/** How a pipe spreads its messages: to one consumer (direct), to all (fanout), or by pattern (topic). */
export type PipeType = 'direct' | 'fanout' | 'topic'

/** How a pipe that is not Sensu's own is made, when a broker has to be told: what its exchange is declared with. */
export interface PipeOptions {
  /** It outlives the broker. Default: false, as Sensu's pipes are. */
  durable?: boolean
  /** It goes with the last queue that is bound to it. Default: false. */
  autoDelete?: boolean
  /** It is there already, of whatever kind, and is not made. Default: false. */
  passive?: boolean
  /** The broker's own, such as `alternate-exchange`. */
  arguments?: Readonly<Record<string, unknown>>
}

/**
 * Why a transport refused something.
 * - `configuration`: the settings cannot be used; retrying does not help
 * - `disconnected`: there is no connection at the moment, or it went away before the broker confirmed
 * - `refused`: the broker answered no (negative confirmation)
 * - `overloaded`: too many messages wait for their confirmation; publish again when some were confirmed
 * - `channel`: the broker closed the channel, e.g. because an exchange exists with another type
 * - `closed`: close() was called
 */
export type TransportErrorCode = 'configuration' | 'disconnected' | 'refused' | 'overloaded' | 'channel' | 'closed'

/** The one error class of all transports; tell cases apart by `code`, never by the text. */
export class TransportError extends Error {
  override readonly name = 'TransportError'
  readonly code: TransportErrorCode

  constructor(code: TransportErrorCode, message: string, options?: ErrorOptions) {
    super(message, options)
    this.code = code
  }
}

/** What a transport tells its owner unasked. */
export interface TransportEvents {
  /** A working connection is gone; it is being rebuilt. Subscriptions are gone with it. */
  lost: []
  /** Connected again after a loss, or connected at last when the first attempt had failed. */
  restored: []
  /** The broker refused an operation. Nothing is rebuilt until reconnect() is called. */
  error: [error: TransportError]
}

/** Where a transport writes its log lines (`sensu/log.ts` fits). */
export interface TransportLog {
  debug(message: string, data?: Record<string, unknown>): void
  info(message: string, data?: Record<string, unknown>): void
  warn(message: string, data?: Record<string, unknown>): void
  error(message: string, data?: Record<string, unknown>): void
}

export interface SubscribeOptions {
  /**
   * Acknowledge each message when `onMessage` has finished, instead of when the broker sent it. Redis knows no
   * acknowledgements: there the next message is taken when `onMessage` has finished. Default: false.
   */
  acknowledge?: boolean
}

/** Takes one message. `redelivered`: it may have been taken before, by somebody who did not acknowledge it. Must not throw. */
export type OnMessage = (message: Buffer, redelivered: boolean) => void | Promise<void>

/** Messages waiting in a queue, and who consumes it. */
export interface QueueStats {
  messages: number
  consumers: number
}

/** Carries messages between clients and servers. Implementations keep their connection alive by themselves. */
export interface Transport extends EventEmitter<TransportEvents> {
  readonly connected: boolean
  /** Resolves at the first successful connection; retries until then. Rejects (`closed`) when closed before. */
  connect(): Promise<void>
  /** Drops the connection and builds it anew, after the usual first delay. */
  reconnect(): void
  /** Ends everything; pending publications are rejected. Never rejects, never waits longer than about a second. */
  close(): Promise<void>
  /**
   * Resolves when the broker has confirmed the message, rejects with a TransportError when it was not delivered. `options` count at the first
   * message of a pipe and connection; Redis, which makes nothing beforehand, has no use for them.
   */
  publish(type: PipeType, pipe: string, message: Buffer, options?: PipeOptions): Promise<void>
  /**
   * Delivers the messages of `pipe` through the queue `funnel`. Several pipes may share one funnel, and then should
   * share their handler: RabbitMQ gives all of them to the first, Redis, which has no funnels, each to its own.
   * A handler must not throw.
   */
  subscribe(
    type: PipeType,
    pipe: string,
    funnel: string,
    onMessage: OnMessage,
    options?: SubscribeOptions,
  ): Promise<void>
  /** Stops the deliveries of one pipe; those of other pipes through the same funnel go on undisturbed. Never rejects. */
  unsubscribe(type: PipeType, pipe: string, funnel: string): Promise<void>
  /** Stops all deliveries. Never rejects. */
  unsubscribeAll(): Promise<void>
  /** Of a queue; with Redis of the list of that name, whose consumers are counted as far as they are this project's. */
  stats(funnel: string): Promise<QueueStats>
}

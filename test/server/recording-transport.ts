import { EventEmitter } from 'node:events'
import type { PipeType, QueueStats, Transport, TransportEvents } from '../../transport/transport.js'

/** A transport that delivers nothing and keeps what is published. */
export class RecordingTransport extends EventEmitter<TransportEvents> implements Transport {
  readonly connected = true
  readonly published: { type: PipeType; pipe: string; message: string; atMs: number }[] = []

  async connect(): Promise<void> {}
  reconnect(): void {}
  async close(): Promise<void> {}
  async subscribe(): Promise<void> {}
  async unsubscribe(): Promise<void> {}
  async unsubscribeAll(): Promise<void> {}

  async publish(type: PipeType, pipe: string, message: Buffer): Promise<void> {
    this.published.push({ type, pipe, message: message.toString(), atMs: Date.now() })
  }

  async stats(): Promise<QueueStats> {
    return { messages: 0, consumers: 0 }
  }
}

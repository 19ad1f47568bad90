import { createSocket, type Socket } from 'node:dgram'
import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import { setTimeout as pause } from 'node:timers/promises'
import { waitUntil } from '../scripts/services/process.js'
import { RabbitmqTransport } from '../transport/rabbitmq.js'
import { checkOf, clientName, type SiteSize } from './large-site.js'

/** Results that flow, every tick so many; the last of them is timed. */
const tickMs = 50
const resultsPerTick = 25
const arrivalTimeoutMs = 60_000

/** So many results are published a second. */
export const flowPerSecond = (resultsPerTick * 1000) / tickMs

/** Results published at a steady rate; of some it is known when their handler got them. */
export class ResultFlow {
  readonly handlers: object
  readonly #transport: RabbitmqTransport
  readonly #socket: Socket
  readonly #size: SiteSize
  /** When each timed result was published, by its number. */
  readonly #published = new Map<number, number>()
  #tookMs: number[] = []
  #number = 0

  static async open(url: string, size: SiteSize): Promise<ResultFlow> {
    const silent = () => {}
    const log = { debug: silent, info: silent, warn: silent, error: silent }
    const transport = new RabbitmqTransport(url, { log, maxUnconfirmed: 100_000 })
    const socket = createSocket('udp4')
    socket.bind(0, '127.0.0.1')
    await Promise.all([transport.connect(), once(socket, 'listening')])
    return new ResultFlow(transport, socket, size)
  }

  private constructor(transport: RabbitmqTransport, socket: Socket, size: SiteSize) {
    this.#size = size
    this.#transport = transport
    this.#socket = socket
    const { port } = socket.address() as AddressInfo
    this.handlers = { timed: { type: 'udp', socket: { host: '127.0.0.1', port } } }
    socket.on('message', message => this.#handled(JSON.parse(message.toString()).check.output))
  }

  async consumers(): Promise<number> {
    return (await this.#transport.stats('results')).consumers
  }

  /** Lets results flow for that time, or longer if `work` takes longer; resolves with what the timed ones took, when all have arrived. */
  async during(milliseconds: number, work: () => unknown): Promise<number[]> {
    this.#tookMs = []
    const timer = setInterval(() => this.#tick(), tickMs)
    try {
      await Promise.all([work(), pause(milliseconds)])
    } finally {
      clearInterval(timer)
    }
    const arrived = () => this.#published.size === 0 || undefined
    await waitUntil('all results have reached their handler', arrived, { timeoutMs: arrivalTimeoutMs })
    return this.#tookMs
  }

  async close(): Promise<void> {
    this.#socket.close()
    await this.#transport.close()
  }

  #tick(): void {
    const nowSeconds = Math.floor(Date.now() / 1000)
    for (let at = 1; at < resultsPerTick; at++) {
      const client = clientName(Math.floor(Math.random() * this.#size.clients))
      const check = checkOf(Math.floor(Math.random() * this.#size.checks), 0, nowSeconds)
      this.#publish({ client, check })
    }
    const number = ++this.#number
    const timed = {
      ...{ name: 'timed', type: 'metric', handlers: ['timed'] },
      ...{ status: 0, output: String(number) },
    }
    this.#published.set(number, performance.now())
    this.#publish({ client: clientName(0), check: { ...timed, issued: nowSeconds, executed: nowSeconds } })
  }

  #publish(result: object): void {
    void this.#transport.publish('direct', 'results', Buffer.from(JSON.stringify(result)))
  }

  #handled(output: string): void {
    const startedMs = this.#published.get(Number(output))
    if (startedMs === undefined) return
    this.#published.delete(Number(output))
    this.#tookMs.push(performance.now() - startedMs)
  }
}

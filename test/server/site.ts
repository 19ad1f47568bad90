import { readdirSync, readFileSync, rmSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { type ConfirmChannel, connect } from 'amqplib'
import { Redis } from 'ioredis'
import type { Test } from 'tap'
import type { Redis as RedisServer } from '../../scripts/services/redis.js'
import type { JsonObject } from '../../sensu/types.js'
import { withOwnDirectory } from '../support/own-directory.js'
import { executable, ServiceProcess } from '../support/service-process.js'
import { rabbitmq, redis } from '../support/services.js'

/** How long a test waits for what must come. */
const PATIENCE_MS = 30_000

/** What a capturing handler was given. */
export interface HandlerCall {
  handler: string
  /** The event data as text. */
  stdin: string
}

/** A Sensu installation without its clients: a broker and a Redis of its own, servers, and handlers that keep what they are given. */
export class Site {
  readonly redisServer: RedisServer
  readonly redis: Redis
  readonly brokerUrl: string
  readonly #t: Test
  readonly #channel: ConfirmChannel
  readonly #handled: string

  static async open(t: Test, access: { brokerUrl?: string } = {}): Promise<Site> {
    const brokerUrl = access.brokerUrl ?? (await rabbitmq(t)).url
    const server = await redis(t, { durable: true })
    const client = new Redis({
      host: server.host,
      port: server.port,
      retryStrategy: () => 50,
      maxRetriesPerRequest: null,
    })
    client.on('error', () => {})
    const connection = await connect(brokerUrl)
    connection.on('error', () => {})
    const channel = await connection.createConfirmChannel()
    for (const pipe of ['keepalives', 'results']) await channel.assertExchange(pipe, 'direct', { durable: false })
    t.teardown(async () => {
      client.disconnect()
      await connection.close().catch(() => {})
    })
    return new Site(t, server, client, brokerUrl, channel)
  }

  private constructor(t: Test, server: RedisServer, client: Redis, brokerUrl: string, channel: ConfirmChannel) {
    this.#t = t
    this.redisServer = server
    this.redis = client
    this.brokerUrl = brokerUrl
    this.#channel = channel
    this.#handled = withOwnDirectory(t).testdir()
  }

  /** The site's configuration; handlers that have no type keep what they are given, `default` is one of them. */
  settings({ handlers = {}, ...more }: JsonObject & { handlers?: { [name: string]: JsonObject } } = {}): JsonObject {
    const all: { [name: string]: JsonObject } = { default: {}, ...handlers }
    const capture = (name: string) => ({ type: 'pipe', command: this.captureCommand(name) })
    return {
      rabbitmq: this.brokerUrl,
      redis: { host: this.redisServer.host, port: this.redisServer.port },
      handlers: Object.fromEntries(
        Object.entries(all).map(([name, handler]) => [
          name,
          { ...('type' in handler ? {} : capture(name)), ...handler },
        ]),
      ),
      ...more,
    }
  }

  /** Written under another name first, so that a file is whole when it is seen. */
  captureCommand(name: string): string {
    const file = `${this.#handled}/$$.$(date +%N)`
    return `f=${file}; cat > $f.new; mv $f.new $f.${name}; echo captured ${name}`
  }

  /** Starts a server and waits until it works. */
  async serve(settings: JsonObject = this.settings(), args: string[] = ['--no-api']): Promise<ServerProcess> {
    const server = new ServerProcess(this.#t, settings, args)
    await server.log('updated server registry')
    return server
  }

  /** Resolves when the broker has it. */
  publish(pipe: 'results' | 'keepalives', message: JsonObject | string): Promise<void> {
    const text = typeof message === 'string' ? message : JSON.stringify(message)
    return new Promise((resolve, reject) => {
      this.#channel.publish(pipe, '', Buffer.from(text), {}, error => (error ? reject(error) : resolve()))
    })
  }

  /** Everything that is published to a pipe from now on; `durable` makes the exchange another one than Sensu would. */
  async listen(type: 'fanout' | 'direct' | 'topic', pipe: string, { durable = false } = {}): Promise<string[]> {
    const messages: string[] = []
    await this.#channel.assertExchange(pipe, type, { durable })
    const { queue } = await this.#channel.assertQueue('', { exclusive: true })
    await this.#channel.bindQueue(queue, pipe, type === 'topic' ? '#' : '')
    await this.#channel.consume(queue, message => messages.push(String(message?.content)), { noAck: true })
    return messages
  }

  /** Waits for so many handler calls, and takes them; with 0 takes what is there. */
  async calls(count: number): Promise<HandlerCall[]> {
    const files = () => readdirSync(this.#handled).filter(name => !name.endsWith('.new'))
    await until(`${count} handler calls`, () => files().length >= count)
    return files().map(name => {
      const stdin = readFileSync(`${this.#handled}/${name}`, 'utf8')
      rmSync(`${this.#handled}/${name}`)
      return { handler: name.split('.').at(-1) ?? '', stdin }
    })
  }

  /** Waits until Redis has a string, and returns it. */
  async stored(key: string): Promise<string> {
    await until(key, async () => (await this.redis.exists(key)) === 1)
    return String(await this.redis.get(key))
  }
}

/** A running server. */
export class ServerProcess extends ServiceProcess {
  constructor(t: Test, settings: JsonObject, args: string[], env: Record<string, string> = {}) {
    super(withOwnDirectory(t), executable('sensu-kvm-server'), {
      files: { 'server.json': settings },
      args: ['-v', ...args],
      env,
    })
  }
}

/** Where a server answers the HTTP API, once it does. */
export async function apiPort(server: ServerProcess): Promise<number> {
  return Number((await server.log('api listening'))['port'])
}

/** Asks again and again; rejects when it takes too long. */
export async function until(what: string, condition: () => boolean | Promise<boolean>): Promise<void> {
  const deadline = Date.now() + PATIENCE_MS
  while (!(await condition())) {
    if (Date.now() > deadline) throw new Error(`waited ${PATIENCE_MS} ms in vain for ${what}`)
    await sleep(20)
  }
}

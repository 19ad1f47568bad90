import { renameSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Redis } from 'ioredis'
import root, { type Test } from 'tap'
import { parseJson, stringifyJson } from '../../sensu/json.js'
import type { Json, JsonObject } from '../../sensu/types.js'
import { withOwnDirectory } from '../support/own-directory.js'
import { object } from '../support/recorded-cases.js'
import type { LogLine } from '../support/service-process.js'
import { type BrokerAccess, rabbitmq } from '../support/services.js'
import { type HandlerCall, ServerProcess, Site } from './site.js'

/** Debian's library (package libfaketime) that gives one process a clock of its own. Timers go on as ever. */
const clockLibrary = '/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1'
/** The first moment of the recordings, Unix seconds. */
const beginning = 1795317173
/** What results and clients are called that only show that everything before them is done. */
const marker = 'marker'

/** What a server logs whenever it comes to it, whatever it is sent. */
const housekeeping = /^(i am now responsible|relinquishing|determining stale|updated server registry|transport conn)/

/** The one of this test file, whose rigs work one after the other. */
let broker: Promise<BrokerAccess> | undefined

/**
 * A built server on a RabbitMQ and a Redis of its own, one step at a time: its clock is set by hand, so that it writes the times of a recording, and its
 * handlers keep what they are given.
 */
export class Rig {
  readonly #site: Site
  readonly #server: ServerProcess
  readonly #clock: string
  #markers = 0
  /** How many log lines were returned or came before the first step. */
  #read: number

  /**
   * Handlers of the settings that have no type keep what they are given; `default` is one of them. The rig is taken down with the test. One that works
   * beside another needs a broker of its own.
   */
  static async start(t: Test, settings: Parameters<Site['settings']>[0] = {}, brokerUrl?: string): Promise<Rig> {
    broker ??= rabbitmq(root)
    const site = await Site.open(t, { brokerUrl: brokerUrl ?? (await broker).url })
    const clock = join(withOwnDirectory(t).testdir(), 'clock')
    setClock(clock, beginning)
    const server = new ServerProcess(t, site.settings(settings), ['--no-api'], {
      ...clockEnvironment(),
      FAKETIME_TIMESTAMP_FILE: clock,
    })
    await server.log('updated server registry')
    return new Rig(site, server, clock)
  }

  private constructor(site: Site, server: ServerProcess, clock: string) {
    this.#site = site
    this.#server = server
    this.#clock = clock
    this.#read = server.lines.length
  }

  get site(): Site {
    return this.#site
  }

  get redis(): Redis {
    return this.#site.redis
  }

  /** Sets the server's clock, Unix seconds. */
  at(seconds: number): Rig {
    setClock(this.#clock, seconds)
    return this
  }

  /** Publishes a keepalive or result, waits until all handlers ended, and returns their calls, sorted by handler. */
  async keepalive(client: Json): Promise<HandlerCall[]> {
    await this.#site.publish('keepalives', stringifyJson(client))
    await this.#mark(name =>
      this.#site.publish('keepalives', { name, subscriptions: [], registration: { handlers: [] } }),
    )
    return this.calls()
  }

  async result(result: Json): Promise<HandlerCall[]> {
    await this.#site.publish('results', stringifyJson(result))
    return this.calls()
  }

  /** Waits until every result that was published is processed and all handlers ended; returns their calls, sorted by handler. */
  async calls(): Promise<HandlerCall[]> {
    // twice: what an earlier message asked of Redis when it was stored is answered, too, when the second one is stored
    for (let i = 0; i < 2; i++) {
      await this.#mark(name =>
        this.#site.publish('results', { client: name, check: { name, status: 1, handlers: [] } }),
      )
    }
    const calls = (await this.#site.calls(0)).filter(({ stdin }) => !stdin.includes(`"${marker}-`))
    return calls.sort((a, b) => (a.handler < b.handler ? -1 : 1))
  }

  /** Waits for the monitor's next round, which has this time and logs this message; it is up to the caller to wait for its results. */
  async round(message: string, seconds: number): Promise<void> {
    this.at(seconds)
    const before = this.#server.lines.filter(line => line.message === message).length
    await this.#server.log(message, before + 1)
  }

  /** Log lines since the last call of this function, without their time and without housekeeping. */
  log(): JsonObject[] {
    const lines = this.#server.lines.slice(this.#read)
    this.#read = this.#server.lines.length
    return lines
      .filter(line => line.message !== 'handled event' && !housekeeping.test(line.message) && !isMarker(line))
      .map(({ timestamp: _, ...line }) => object(parseJson(JSON.stringify(line))))
  }

  /** All of Redis but what servers note for themselves: strings, lists, sorted members of sets, and hashes. */
  async dump(): Promise<{ [key: string]: Json }> {
    const all: { [key: string]: Json } = {}
    const keys = (await this.redis.keys('*')).filter(key => !/^(server:|servers$|lock:|task:|leader$)/.test(key))
    for (const key of keys.sort()) {
      const type = await this.redis.type(key)
      if (type === 'string') all[key] = await this.redis.get(key)
      else if (type === 'list') all[key] = await this.redis.lrange(key, 0, -1)
      else if (type === 'set') all[key] = (await this.redis.smembers(key)).sort()
      else all[key] = await this.redis.hgetall(key)
    }
    return all
  }

  /**
   * Sends something that makes an event for nobody, waits for its end and for that of all events before it, and removes its traces. One connection takes everything to
   * Redis, so what was published to the same queue before is stored by then.
   */
  async #mark(publish: (name: string) => Promise<void>): Promise<void> {
    this.#markers += 1
    const name = `${marker}-${this.#markers}`
    await publish(name)
    const { lines } = this.#server
    const events = (message: string) => lines.filter(line => line.message === message)
    await this.#server.until(() => {
      const begun = events('processing event')
      return begun.some(line => isMarker(line, name)) && begun.length === events('handled event').length
    })
    const traces = await this.redis.keys(`*${marker}-*`)
    if (traces.length > 0) await this.redis.del(...traces)
    await this.redis.srem('clients', name)
  }
}

/** For a process that reads its clock from a file (FAKETIME_TIMESTAMP_FILE, Unix seconds), or whose clock begins at `@SECONDS`. */
export function clockEnvironment(begins?: `@${number}`): Record<string, string> {
  return {
    LD_PRELOAD: clockLibrary,
    FAKETIME_FMT: '%s',
    FAKETIME_NO_CACHE: '1',
    FAKETIME_DONT_FAKE_MONOTONIC: '1',
    ...(begins !== undefined && { FAKETIME: begins }),
  }
}

/** Renamed, so that nobody reads half of it. */
function setClock(file: string, seconds: number): void {
  writeFileSync(`${file}.new`, `${seconds}\n`)
  renameSync(`${file}.new`, file)
}

function isMarker(line: LogLine, name = `${marker}-`): boolean {
  return JSON.stringify(line).includes(`"${name}`)
}

import { readdirSync, readFileSync, rmSync } from 'node:fs'
import { Writable } from 'node:stream'
import { fileURLToPath } from 'node:url'
import { Redis } from 'ioredis'
import type { Test } from 'tap'
import { Pipeline, type PipelineOptions, type PipelineSettings } from '../../pipeline/pipeline.js'
import { startRedis } from '../../scripts/services/redis.js'
import { parseJson } from '../../sensu/json.js'
import { isObject, newObject } from '../../sensu/json-value.js'
import { Logger } from '../../sensu/log.js'
import { Spawner } from '../../sensu/spawn.js'
import type { Json, JsonObject } from '../../sensu/types.js'
import { Store } from '../../store/store.js'

/** What a capturing handler was given: one entry a call. */
export interface HandlerCall {
  handler: string
  stdin: string
}

/** A store and pipeline on a private Redis, with a clock that is set by hand and handlers that keep what they are given. */
export interface Rig {
  redis: Redis
  store: Store
  pipeline: Pipeline
  /** Sets the clock, Unix seconds. */
  at(seconds: number): Rig
  /** Processes a keepalive or result, waits until all handlers ended, and returns their calls. */
  keepalive(client: Json): Promise<HandlerCall[]>
  result(result: Json): Promise<HandlerCall[]>
  /** Log lines since the last call of this function, without their time. */
  log(): JsonObject[]
  /** All of Redis but what servers note for themselves: strings, lists, sorted sets of members, and hashes. */
  dump(): Promise<{ [key: string]: Json }>
  /** Empties Redis, and goes on with other settings. */
  reset(settings?: Partial<PipelineSettings>, options?: Partial<PipelineOptions>): Promise<void>
}

/** Starts the rig; it is taken down with the test. */
export async function startRig(t: Test, settings: Partial<PipelineSettings> = {}): Promise<Rig> {
  const server = await startRedis()
  const directory = t.testdir({})
  const store = await Store.connect(server.url)
  const redis = new Redis(server.url)
  const spawner = new Spawner({ limit: 4 })
  let lines: JsonObject[] = []
  const logger = new Logger({
    level: 'debug',
    stream: new Writable({
      write(chunk, _encoding, done) {
        lines.push(object(parseJson(String(chunk))))
        done()
      },
    }),
  })
  let nowSeconds = 1795317173
  const pipelineWith = (more: Partial<PipelineSettings>, options: Partial<PipelineOptions> = {}) =>
    new Pipeline({
      store,
      spawner,
      logger,
      settings: { checks: {}, filters: {}, mutators: {}, handlers: {}, ...more },
      now: () => new Date(nowSeconds * 1000),
      ...options,
    })
  t.teardown(async () => {
    spawner.close()
    store.close()
    redis.disconnect()
    await server.stop()
  })
  const rig: Rig = {
    redis,
    store,
    pipeline: pipelineWith({}),
    at(seconds) {
      nowSeconds = seconds
      return rig
    },
    async keepalive(client) {
      await rig.pipeline.processKeepalive(client)
      return takeCalls()
    },
    async result(result) {
      await rig.pipeline.processResult(result)
      return takeCalls()
    },
    log() {
      const taken = lines.map(({ timestamp: _, ...line }) => line)
      lines = []
      return taken
    },
    dump: () => dump(redis),
    async reset(more = {}, options = {}) {
      await redis.flushall()
      lines = []
      rig.pipeline = pipelineWith({ ...more, handlers: withCaptures(more.handlers ?? {}, directory) }, options)
    },
  }
  await rig.reset(settings)
  return rig

  async function takeCalls(): Promise<HandlerCall[]> {
    await rig.pipeline.idle()
    const files = readdirSync(directory).sort()
    const calls = files.map(file => ({
      handler: String(file.split('.')[0]),
      stdin: readFileSync(`${directory}/${file}`, 'utf8'),
    }))
    for (const file of files) rmSync(`${directory}/${file}`)
    return calls
  }
}

/** Handlers named but without a command get one that keeps its input; `default` exists without being asked for. */
function withCaptures(handlers: PipelineSettings['handlers'], directory: string): PipelineSettings['handlers'] {
  const all: PipelineSettings['handlers'] = {
    default: {},
    ...handlers,
  }
  for (const [name, handler] of Object.entries(all)) {
    if (handler !== undefined && handler['type'] === undefined) {
      all[name] = {
        type: 'pipe',
        command: `cat > $(mktemp ${directory}/${name}.XXXXXXXX); echo captured ${name}`,
        ...handler,
      }
    }
  }
  return all
}

/** A recorded case: `{case, input, observed}`. */
export function fixture(name: string): JsonObject {
  const path = new URL(`../../../test/fixtures/server/${name}.json`, import.meta.url)
  return object(parseJson(readFileSync(fileURLToPath(path), 'utf8')))
}

/** The value behind a path of keys and indexes. */
export function at(value: Json | undefined, ...path: (string | number)[]): Json {
  let found: Json | undefined = value
  for (const step of path) {
    if (Array.isArray(found) && typeof step === 'number') found = found[step]
    else found = isObject(found) ? found[String(step)] : undefined
  }
  return found ?? null
}

export function object(value: Json | undefined): JsonObject {
  return isObject(value) ? value : newObject()
}

export function list(value: Json | undefined): Json[] {
  return Array.isArray(value) ? value : []
}

/** Event texts with the id made comparable: everything else must be the same, byte for byte. */
export function withoutId(text: string): string {
  return text.replace(/^\{"id":"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"/, '{"id":"ID"')
}

async function dump(redis: Redis): Promise<{ [key: string]: Json }> {
  const all: { [key: string]: Json } = {}
  const keys = (await redis.keys('*')).filter(key => !key.startsWith('server:'))
  for (const key of keys.sort()) {
    const type = await redis.type(key)
    if (type === 'string') all[key] = await redis.get(key)
    else if (type === 'list') all[key] = await redis.lrange(key, 0, -1)
    else if (type === 'set') all[key] = (await redis.smembers(key)).sort()
    else all[key] = await redis.hgetall(key)
  }
  return all
}

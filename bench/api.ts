import { createSocket, type Socket } from 'node:dgram'
import { once } from 'node:events'
import { get } from 'node:http'
import type { AddressInfo } from 'node:net'
import { findFreePort } from '../scripts/services/process.js'
import { type Rabbitmq, startRabbitmq } from '../scripts/services/rabbitmq.js'
import { type Redis, startRedis } from '../scripts/services/redis.js'
import { RabbitmqTransport } from '../transport/rabbitmq.js'
import { checkOf, clientName, fillSite } from './large-site.js'
import { median, quantile, type Row, watchLoop } from './measure.js'
import { ownProgram, type Program, peerProgram, rabbitmqSettings, Service } from './service.js'

const size = { clients: 10_000, checks: 20 }
/** Requests of ours one after the other, by path; the peer is asked once, it takes a minute for some. */
const requests: Readonly<Record<string, number>> = { '/clients': 5, '/events': 5, '/results': 3 }
const answerTimeoutMs = 300_000
const startTimeoutMs = 60_000
/** Results that flow from RabbitMQ meanwhile, every tick so many; one of them is timed. */
const tickMs = 50
const resultsPerTick = 25
/** Flow without and with requests, at least. */
const flowMs = 8000

/**
 * The API on a Redis with 10,000 clients and 200,000 results: how long its large lists take, what memory, and what they do to the results that the same
 * server stores meanwhile. Against a real sensu-api on the same Redis when the environment variable PEER_SENSU_API names one (a command like
 * PEER_SENSU_CLIENT).
 */
export async function benchApi(root: string): Promise<Row[]> {
  const broker = await startRabbitmq({ vhosts: ['/own', '/peer'] })
  const redis = await startRedis()
  const peerCommand = process.env['PEER_SENSU_API']
  try {
    await fillSite(redis, size)
    const own = await measureOwn(root, broker, redis)
    const peer = peerCommand ? await measurePeer(peerProgram('sensu-api', peerCommand), broker, redis) : undefined
    return rowsOf(own, peer)
  } finally {
    await redis.stop()
    await broker.stop()
  }
}

/** What asking one API came to. */
interface Asked {
  /** Milliseconds of each request, by path. */
  tookMs: Record<string, number[]>
  /** Bytes of an answer, and CPU time of one request, of whatever else the process did meanwhile, too; by path. */
  bytes: Record<string, number>
  cpuMs: Record<string, number>
  /** Before the first request, and the highest until after the last. */
  idleMiB: number
  peakMiB: number
}

interface Own extends Asked {
  /** Milliseconds from publishing a result until its handler has it, without requests and with them. */
  quietMs: number[]
  busyMs: number[]
  loopLagMs: number
}

async function measureOwn(root: string, broker: Rabbitmq, redis: Redis): Promise<Own> {
  const flow = await Flow.open(broker.url('/own'))
  const port = await findFreePort()
  const api = await startApi(ownProgram(root, 'sensu-kvm-server'), broker, '/own', redis, port, flow.handlers)
  try {
    await until(startTimeoutMs, async () => (await flow.consumers()) > 0)
    await flow.during(1000, () => {})
    const idleMiB = api.residentMiB()
    const quietMs = await flow.during(flowMs, () => {})
    const loopLag = watchLoop()
    let asked: Answers | undefined
    const busyMs = await flow.during(flowMs, async () => {
      asked = await askAll(api, port, path => requests[path] ?? 1)
    })
    if (asked === undefined) throw new Error('nothing was asked')
    return { ...asked, idleMiB, peakMiB: api.peakMiB(), quietMs, busyMs, loopLagMs: loopLag() }
  } finally {
    await api.stop()
    await flow.close()
  }
}

/** Nothing else happens meanwhile: it is a process of its own, and its server another. */
async function measurePeer(program: Program, broker: Rabbitmq, redis: Redis): Promise<Asked> {
  const port = await findFreePort()
  const api = await startApi(program, broker, '/peer', redis, port, {})
  try {
    const idleMiB = api.residentMiB()
    const asked = await askAll(api, port, () => 1)
    return { ...asked, idleMiB, peakMiB: api.peakMiB() }
  } finally {
    await api.stop()
  }
}

async function startApi(
  program: Program,
  broker: Rabbitmq,
  vhost: string,
  { host, port: redisPort }: Redis,
  port: number,
  handlers: object,
): Promise<Service> {
  const settings = {
    ...{ rabbitmq: rabbitmqSettings(broker, vhost), redis: { host, port: redisPort }, handlers },
    ...{ api: { bind: '127.0.0.1', port }, client: { name: 'bench', address: '127.0.0.1', subscriptions: [] } },
  }
  const service = await Service.start(program, settings)
  const answers = () =>
    ask(port, '/info').then(
      ({ bytes }) => bytes > 0,
      () => false,
    )
  await until(startTimeoutMs, answers)
  return service
}

type Answers = Pick<Asked, 'tookMs' | 'bytes' | 'cpuMs'>

async function askAll(api: Service, port: number, timesOf: (path: string) => number): Promise<Answers> {
  const asked: Answers = { tookMs: {}, bytes: {}, cpuMs: {} }
  for (const path of Object.keys(requests)) {
    const took: number[] = []
    const beforeMs = api.cpuMs()
    for (let time = 0; time < timesOf(path); time++) {
      const startedMs = performance.now()
      const { bytes, status } = await ask(port, path)
      if (status !== 200) throw new Error(`GET ${path} was answered with ${status}`)
      took.push(performance.now() - startedMs)
      asked.bytes[path] = bytes
    }
    asked.tookMs[path] = took
    asked.cpuMs[path] = (api.cpuMs() - beforeMs) / took.length
  }
  return asked
}

/** Resolves when the whole answer has been read; it is not kept. */
function ask(port: number, path: string): Promise<{ status: number; bytes: number }> {
  return new Promise((resolve, reject) => {
    const request = get({ host: '127.0.0.1', port, path, agent: false, timeout: answerTimeoutMs }, response => {
      let bytes = 0
      response.on('data', (chunk: Buffer) => {
        bytes += chunk.length
      })
      response.on('end', () => resolve({ status: response.statusCode ?? 0, bytes }))
      response.on('error', reject)
    })
    request.on('timeout', () => request.destroy(new Error(`GET ${path} took more than ${answerTimeoutMs / 1000} s`)))
    request.on('error', reject)
  })
}

function rowsOf(own: Own, peer: Asked | undefined): Row[] {
  const name = peer ? 'PEER_SENSU_API' : 'sensu-api (PEER_SENSU_API is not set)'
  const lists = Object.keys(requests).map((path): Row => {
    const took = own.tookMs[path] ?? []
    const theirs = peer?.tookMs[path]
    return {
      ...{ subject: `GET ${path}`, unit: 'ms', ours: median(took), peer: name, theirs: theirs && median(theirs) },
      loopLagMs: undefined,
      note: `${described(own, path)}, with ${perSecond} results/s stored meanwhile${peer ? `; the peer with nothing else to do: ${described(peer, path)}` : ''}`,
    }
  })
  const { quietMs, busyMs } = own
  const spread = (samples: number[]) =>
    `p50 ${median(samples).toFixed(1)}, p99 ${quantile(samples, 0.99).toFixed(1)}, worst ${quantile(samples, 1).toFixed(1)} ms of ${samples.length}`
  return [
    ...lists,
    {
      ...{ subject: 'memory, idle', unit: 'MiB', ours: own.idleMiB, peer: name, theirs: peer?.idleMiB },
      ...{ loopLagMs: undefined, note: 'ours stores results and schedules, too' },
    },
    {
      ...{ subject: 'memory, highest', unit: 'MiB', ours: own.peakMiB, peer: name, theirs: peer?.peakMiB },
      loopLagMs: undefined,
    },
    {
      ...{ subject: 'a result reaches its handler while lists are read (p99)', unit: 'ms' },
      ...{ ours: quantile(busyMs, 0.99), peer: 'the same without requests', theirs: quantile(quietMs, 0.99) },
      ...{ loopLagMs: own.loopLagMs, target: 'not stalled' },
      note: `${perSecond} results/s through RabbitMQ, none lost or late; with requests ${spread(busyMs)}; without ${spread(quietMs)}`,
    },
  ]
}

function described({ tookMs, bytes, cpuMs }: Answers, path: string): string {
  const took = tookMs[path] ?? []
  const worst = `worst of ${took.length} ${quantile(took, 1).toFixed(0)} ms`
  return `${((bytes[path] ?? 0) / 1e6).toFixed(1)} MB, ${worst}, ${cpuMs[path]?.toFixed(0)} ms CPU`
}

const perSecond = (resultsPerTick * 1000) / tickMs

/** Results published at a steady rate; of some it is known when their handler got them. */
class Flow {
  readonly handlers: object
  readonly #transport: RabbitmqTransport
  readonly #socket: Socket
  /** When each timed result was published, by its number. */
  readonly #published = new Map<number, number>()
  #tookMs: number[] = []
  #number = 0

  static async open(url: string): Promise<Flow> {
    const silent = () => {}
    const log = { debug: silent, info: silent, warn: silent, error: silent }
    const transport = new RabbitmqTransport(url, { log, maxUnconfirmed: 100_000 })
    const socket = createSocket('udp4')
    socket.bind(0, '127.0.0.1')
    await Promise.all([transport.connect(), once(socket, 'listening')])
    return new Flow(transport, socket)
  }

  private constructor(transport: RabbitmqTransport, socket: Socket) {
    this.#transport = transport
    this.#socket = socket
    const { port } = socket.address() as AddressInfo
    this.handlers = { timed: { type: 'udp', socket: { host: '127.0.0.1', port } } }
    socket.on('message', message => this.#handled(JSON.parse(message.toString()).check.output))
  }

  async consumers(): Promise<number> {
    return (await this.#transport.stats('results')).consumers
  }

  /** Lets results flow for that time, and for as long as `work` takes; resolves with what the timed ones took, when all have arrived. */
  async during(milliseconds: number, work: () => unknown): Promise<number[]> {
    this.#tookMs = []
    const timer = setInterval(() => this.#tick(), tickMs)
    const endMs = performance.now() + milliseconds
    try {
      await work()
      await until(milliseconds + 1000, () => performance.now() >= endMs)
    } finally {
      clearInterval(timer)
    }
    await until(answerTimeoutMs, async () => this.#published.size === 0)
    return this.#tookMs
  }

  async close(): Promise<void> {
    this.#socket.close()
    await this.#transport.close()
  }

  #tick(): void {
    const nowSeconds = Math.floor(Date.now() / 1000)
    for (let at = 1; at < resultsPerTick; at++) {
      const client = clientName(Math.floor(Math.random() * size.clients))
      const check = checkOf(Math.floor(Math.random() * size.checks), 0, nowSeconds)
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

/** Asks until it is so. Rejects when it takes longer. */
async function until(timeoutMs: number, condition: () => boolean | Promise<boolean>): Promise<void> {
  const deadline = performance.now() + timeoutMs
  while (!(await condition())) {
    if (performance.now() > deadline) throw new Error(`waited ${timeoutMs / 1000} s in vain`)
    await new Promise(resolve => setTimeout(resolve, 20))
  }
}

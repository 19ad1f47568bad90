import { get } from 'node:http'
import { findFreePort, waitUntil } from '../scripts/services/process.js'
import { type Rabbitmq, startRabbitmq } from '../scripts/services/rabbitmq.js'
import { type Redis, startRedis } from '../scripts/services/redis.js'
import { fillSite } from './large-site.js'
import { median, quantile, type Row, watchLoop } from './measure.js'
import { flowPerSecond, ResultFlow } from './result-flow.js'
import { ownProgram, type Program, peerProgram, rabbitmqSettings, Service } from './service.js'

const size = { clients: 10_000, checks: 20 }
/** Requests of ours one after the other, by path; the peer is asked once, it takes a minute for some. */
const requests: Readonly<Record<string, number>> = { '/clients': 5, '/events': 5, '/results': 3 }
const answerTimeoutMs = 300_000
const startTimeoutMs = 60_000
/** Flow without requests. */
const quietFlowMs = 8000

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
  const flow = await ResultFlow.open(broker.url('/own'), size)
  const port = await findFreePort()
  const api = await startApi(
    ownProgram(root, 'sensu-kvm-server'),
    rabbitmqSettings(broker, '/own'),
    redis,
    port,
    flow.handlers,
  )
  try {
    const consumed = async () => (await flow.consumers()) > 0 || undefined
    await waitUntil('the server takes results', consumed, { timeoutMs: startTimeoutMs })
    await flow.during(1000, () => {})
    const idleMiB = api.residentMiB()
    const quietMs = await flow.during(quietFlowMs, () => {})
    const loopLag = watchLoop()
    let asked: Answers | undefined
    const busyMs = await flow.during(0, async () => {
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
  const api = await startApi(program, rabbitmqSettings(broker, '/peer'), redis, port, {})
  try {
    const idleMiB = api.residentMiB()
    const asked = await askAll(api, port, () => 1)
    return { ...asked, idleMiB, peakMiB: api.peakMiB() }
  } finally {
    await api.stop()
  }
}

/** Starts it with these settings of its RabbitMQ; resolves when it answers. */
async function startApi(program: Program, rabbitmq: object, redis: Redis, port: number, handlers: object) {
  const settings = {
    ...{ rabbitmq, redis: { host: redis.host, port: redis.port }, handlers },
    ...{ api: { bind: '127.0.0.1', port }, client: { name: 'bench', address: '127.0.0.1', subscriptions: [] } },
  }
  const service = await Service.start(program, settings)
  await waitUntil('the API answers', () => ask(port, '/info'), { timeoutMs: startTimeoutMs })
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
      note: `${described(own, path)}, with ${flowPerSecond} results/s stored meanwhile${peer ? `; the peer with nothing else to do: ${described(peer, path)}` : ''}`,
    }
  })
  const { quietMs, busyMs } = own
  const spread = (samples: number[]) =>
    `p50 ${median(samples).toFixed(1)}, p99 ${quantile(samples, 0.99).toFixed(1)}, worst ${quantile(samples, 1).toFixed(1)} ms of ${samples.length}`
  return [
    ...lists,
    {
      ...{
        subject: 'memory of server and API, idle',
        unit: 'MiB',
        ours: own.idleMiB,
        peer: name,
        theirs: peer?.idleMiB,
      },
      ...{ loopLagMs: undefined, note: 'the peer is the API alone' },
    },
    {
      ...{
        subject: 'memory of server and API, highest',
        unit: 'MiB',
        ours: own.peakMiB,
        peer: name,
        theirs: peer?.peakMiB,
      },
      loopLagMs: undefined,
    },
    {
      ...{ subject: 'a result reaches its handler while lists are read (p99)', unit: 'ms' },
      ...{ ours: quantile(busyMs, 0.99), peer: 'the same without requests', theirs: quantile(quietMs, 0.99) },
      ...{ loopLagMs: own.loopLagMs, target: 'not stalled' },
      note: `${flowPerSecond} results/s through RabbitMQ; with requests ${spread(busyMs)}; without ${spread(quietMs)}`,
    },
  ]
}

function described({ tookMs, bytes, cpuMs }: Answers, path: string): string {
  const took = tookMs[path] ?? []
  const worst = `worst of ${took.length} ${quantile(took, 1).toFixed(0)} ms`
  return `${((bytes[path] ?? 0) / 1e6).toFixed(1)} MB, ${worst}, ${cpuMs[path]?.toFixed(0)} ms CPU`
}

import { setTimeout as pause } from 'node:timers/promises'
import { run } from '../scripts/services/process.js'
import { type Rabbitmq, startRabbitmq } from '../scripts/services/rabbitmq.js'
import { type Redis, startRedis } from '../scripts/services/redis.js'
import { RabbitmqTransport } from '../transport/rabbitmq.js'
import type { Row } from './measure.js'
import { cpuMs, ownProgram, type Program, peerProgram, rabbitmqSettings, Service, sum, Turns } from './service.js'

const clients = 100
const checksPerClient = 200
/** What waits in the queue when a turn begins. */
const batch = clients * checksPerClient
/** Besides a first turn, which is not counted. Histories are cut at 21 entries, and they are what is counted. */
const countedTurns = 2
const startTimeoutMs = 60_000
const turnTimeoutMs = 120_000
const pollMs = 20

/** Sums up the histories' lengths: how many results Redis has. */
const countScript = `
local count = 0
for c = 1, ${clients} do
  for k = 1, ${checksPerClient} do count = count + redis.call('LLEN', 'history:client-' .. c .. ':check-' .. k) end
end
return count`

/**
 * Check results (OK, of 100 clients with 200 checks each) from a queue of RabbitMQ into Redis: per second, and the servers' CPU for each, by one of our
 * servers, by two on the same queue, and by a real sensu-server when the environment variable PEER_SENSU_SERVER names one (a command like
 * PEER_SENSU_CLIENT). Each site has a virtual host and a Redis of its own. They take turns: 20,000 results wait while the servers are
 * stopped, which then go on.
 */
export async function benchServerResults(root: string): Promise<Row[]> {
  const broker = await startRabbitmq({ vhosts: ['/one', '/two', '/peer'] })
  const sites: Site[] = []
  const peerCommand = process.env['PEER_SENSU_SERVER']
  try {
    const open = async (vhost: string, programs: Program[]) => {
      const site = await Site.open(broker, vhost, programs)
      sites.push(site)
      return site
    }
    const own = ownProgram(root, 'sensu-kvm-server', '--no-api')
    const one = await open('/one', [own])
    const two = await open('/two', [own, own])
    const peer = peerCommand ? await open('/peer', [peerProgram('sensu-server', peerCommand)]) : undefined
    for (let turn = 0; turn <= countedTurns; turn++) {
      for (const site of sites) await site.takeTurn(turn > 0)
    }
    return rowsOf(one, two, peer)
  } finally {
    for (const site of sites) await site.close()
    await broker.stop()
  }
}

function rowsOf(one: Site, two: Site, peer: Site | undefined): Row[] {
  const name = peer ? 'PEER_SENSU_SERVER' : 'sensu-server (PEER_SENSU_SERVER is not set)'
  const row = (subject: string, unit: Row['unit'], figure: number, theirs: number | undefined): Row => ({
    ...{ subject, unit, ours: figure, peer: name, theirs, loopLagMs: undefined },
  })
  const target = '>= 5 times, aiming at 10'
  const count = (countedTurns * batch).toLocaleString('en')
  const redis = (site: Site | undefined) => (site ? `${(site.redisTurns.cpuMs * 1000).toFixed(0)} µs` : 'unknown')
  return [
    {
      ...row('results, one server', '/s', one.turns.perSecond, peer?.turns.perSecond),
      ...{ target, note: `${count} OK results, ${batch.toLocaleString('en')} at a time in turn, waiting in RabbitMQ` },
    },
    {
      ...row('CPU per result, one server', 'ms', one.turns.cpuMs, peer?.turns.cpuMs),
      note: `Redis itself needs ${redis(one)} for each, with the peer ${redis(peer)}`,
    },
    { ...row('results, two servers', '/s', two.turns.perSecond, peer?.turns.perSecond), target },
    row('CPU per result, two servers', 'ms', two.turns.cpuMs, peer?.turns.cpuMs),
    row('memory of one server', 'MiB', one.residentMiB(), peer?.residentMiB()),
  ]
}

/** One or more servers with a Redis of their own. */
class Site {
  readonly turns = new Turns()
  readonly redisTurns = new Turns()
  readonly #services: readonly Service[]
  readonly #redis: Redis
  readonly #transport: RabbitmqTransport
  #expected = 0

  private constructor(services: readonly Service[], redis: Redis, transport: RabbitmqTransport) {
    this.#services = services
    this.#redis = redis
    this.#transport = transport
  }

  static async open(broker: Rabbitmq, vhost: string, programs: readonly Program[]): Promise<Site> {
    const redis = await startRedis()
    const silent = () => {}
    const transport = new RabbitmqTransport(broker.url(vhost), {
      log: { debug: silent, info: silent, warn: silent, error: silent },
      maxUnconfirmed: batch,
    })
    const services: Service[] = []
    const site = new Site(services, redis, transport)
    try {
      await transport.connect()
      const settings = {
        rabbitmq: rabbitmqSettings(broker, vhost),
        redis: { host: redis.host, port: redis.port },
        client: { name: 'bench', address: '127.0.0.1', subscriptions: [] },
      }
      for (const program of programs) services.push(await Service.start(program, settings))
      await until(startTimeoutMs, async () => (await transport.stats('results')).consumers === programs.length)
      return site
    } catch (error) {
      await site.close()
      throw error
    }
  }

  /** Has a batch of results stored. */
  async takeTurn(counts: boolean): Promise<void> {
    this.#signal('SIGSTOP')
    await this.#publish()
    const [turns, redisTurns] = counts ? [this.turns, this.redisTurns] : [new Turns(), new Turns()]
    const redisPid = this.#redis.pid()
    const redisCpuMs = () => (redisPid === undefined ? Number.NaN : cpuMs(redisPid))
    const serversCpuMs = () => sum(this.#services.map(service => service.cpuMs()))
    const run = () => turns.take(batch, serversCpuMs, () => this.#untilStored()).then(() => turns.perSecond)
    await redisTurns.take(batch, redisCpuMs, run)
  }

  residentMiB(): number {
    return sum(this.#services.map(service => service.residentMiB()))
  }

  async close(): Promise<void> {
    this.#signal('SIGCONT')
    for (const service of this.#services) await service.stop()
    await this.#transport.close()
    await this.#redis.stop()
  }

  #signal(signal: NodeJS.Signals): void {
    for (const service of this.#services) service.signal(signal)
  }

  async #publish(): Promise<void> {
    const nowSeconds = Math.floor(Date.now() / 1000)
    const published: Promise<void>[] = []
    for (let check = 1; check <= checksPerClient; check++) {
      for (let client = 1; client <= clients; client++) {
        const result = { client: `client-${client}`, check: checkResult(`check-${check}`, nowSeconds) }
        published.push(this.#transport.publish('direct', 'results', Buffer.from(JSON.stringify(result))))
      }
    }
    await Promise.all(published)
    this.#expected += batch
  }

  /** Lets the servers go on until everything that was published is stored; results per second. */
  async #untilStored(): Promise<number> {
    const start = performance.now()
    this.#signal('SIGCONT')
    await until(turnTimeoutMs, async () => (await this.#transport.stats('results')).messages === 0)
    await until(turnTimeoutMs, async () => (await this.#countStored()) === this.#expected)
    return (batch * 1000) / (performance.now() - start)
  }

  async #countStored(): Promise<number> {
    const { host, port } = this.#redis
    const { stdout } = await run('redis-cli', ['-h', host, '-p', String(port), 'EVAL', countScript, '0'])
    return Number(stdout)
  }
}

function checkResult(name: string, nowSeconds: number): object {
  return {
    ...{ name, command: 'check-kvm-memory --warning 90 --critical 95', interval: 60, subscribers: ['base'] },
    ...{ issued: nowSeconds, executed: nowSeconds, duration: 0.012 },
    ...{ output: 'CheckKvmMemory: 12 guests, fullest guest-7 at 71.2% of 4096 MiB\n', status: 0 },
  }
}

/** Asks until it is so. Rejects when it takes longer. */
async function until(timeoutMs: number, condition: () => Promise<boolean>): Promise<void> {
  const deadline = performance.now() + timeoutMs
  while (!(await condition())) {
    if (performance.now() > deadline) throw new Error(`the servers were not ready within ${timeoutMs / 1000} s`)
    await pause(pollMs)
  }
}

import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { makeTemporaryDirectory, startProcess } from '../scripts/services/process.js'
import { startRabbitmq } from '../scripts/services/rabbitmq.js'
import { RabbitmqTransport } from '../transport/rabbitmq.js'
import type { Row } from './measure.js'

const client = 'bench'
const inProcessRequests = 4000
const spawnedRequests = 200
const answerTimeoutMs = 120_000

/** Checks per second in the agent, from requests on RabbitMQ to results on RabbitMQ: in its process, and spawned with virsh. */
export async function benchInProcessChecks(root: string, uri: string, guest: string): Promise<Row[]> {
  const directory = makeTemporaryDirectory()
  const broker = await startRabbitmq()
  const agent = await startAgent(root, directory, broker.url())
  const silent = () => {}
  const transport = new RabbitmqTransport(broker.url(), {
    log: { debug: silent, info: silent, warn: silent, error: silent },
    maxUnconfirmed: inProcessRequests * 2,
  })
  const requests = new Requests(transport)
  try {
    await transport.connect()
    await requests.listen()
    await requests.untilAnswered()
    const ours = `${join(root, 'dist/bin/check-kvm-state')} --uri '${uri}' --guest ${guest}`
    await requests.run(500, ours)
    await agent.lagMs()
    const inProcess = await requests.run(inProcessRequests, ours)
    const lagInProcess = await agent.lagMs()
    const spawned = await requests.run(spawnedRequests, `${join(root, 'bench/recipe-check.sh')} '${uri}' ${guest}`)
    return [
      {
        subject: 'guest state checks in the agent',
        unit: '/s',
        ours: inProcess,
        peer: 'the same agent, bash and virsh spawned',
        theirs: spawned,
        loopLagMs: lagInProcess,
        target: '>= 20 times',
        note: `${inProcessRequests.toLocaleString('en')} requests at once, each answered by a result; loop lag is the agent's`,
      },
    ]
  } finally {
    await transport.close()
    await agent.stop()
    await broker.stop()
    rmSync(directory, { recursive: true, force: true })
  }
}

/** The built agent with a configuration of its own, and a probe of its event loop. */
async function startAgent(root: string, directory: string, rabbitmqUrl: string) {
  const configuration = join(directory, 'conf.d')
  const lagFile = join(directory, 'lag')
  mkdirSync(configuration)
  const settings = {
    rabbitmq: rabbitmqUrl,
    client: {
      name: client,
      address: '127.0.0.1',
      subscriptions: [],
      socket: { enabled: false },
      http_socket: { enabled: false },
    },
  }
  writeFileSync(join(configuration, 'agent.json'), JSON.stringify(settings))
  const probe = `--import=${join(root, 'bench/lag-probe.mjs')}`
  const agent = await startProcess({
    name: 'sensu-kvm-agent',
    command: process.execPath,
    args: [
      join(root, 'dist/bin/sensu-kvm-agent'),
      '-d',
      configuration,
      '-l',
      join(directory, 'agent.log'),
      '-L',
      'warn',
    ],
    env: { ...process.env, NODE_OPTIONS: probe, LAG_PROBE_FILE: lagFile },
  })
  return {
    /** The longest hold-up of the agent's event loop since the last call, ms. */
    async lagMs(): Promise<number> {
      rmSync(lagFile, { force: true })
      process.kill(agent.pid, 'SIGWINCH')
      while (!existsSync(lagFile) || readFileSync(lagFile, 'utf8') === '') await pause(5)
      return Number(readFileSync(lagFile, 'utf8'))
    },
    stop: () => agent.stop(),
  }
}

/** Publishes check requests for the client `bench` and counts the results. */
export class Requests {
  readonly #transport: RabbitmqTransport
  readonly #waiting = new Set<string>()
  #answered: () => void = () => {}
  #round = 0

  constructor(transport: RabbitmqTransport) {
    this.#transport = transport
  }

  async listen(): Promise<void> {
    await this.#transport.subscribe('direct', 'results', 'results', message => {
      const { check } = JSON.parse(message.toString())
      if (!this.#waiting.delete(check.name)) return
      if (check.status !== 0) throw new Error(`${check.command} gave ${check.status}: ${check.output}`)
      if (this.#waiting.size === 0) this.#answered()
    })
  }

  /** Asks until the agent answers: only then has it subscribed. */
  async untilAnswered(name = client): Promise<void> {
    let answered = false
    const answer = this.run(1, 'true', name).then(() => {
      answered = true
    })
    while (!answered) {
      await Promise.race([answer, pause(200)])
      if (!answered) await this.#publish([...this.#waiting], 'true', name)
    }
  }

  /** Publishes so many requests at once, to one client; checks per second from the first request to the last result. */
  async run(count: number, command: string, name = client): Promise<number> {
    this.#round += 1
    const names = Array.from({ length: count }, (_, index) => `bench_${this.#round}_${index}`)
    for (const name of names) this.#waiting.add(name)
    const all = new Promise<void>((resolve, reject) => {
      this.#answered = resolve
      setTimeout(
        () => reject(new Error(`no result within ${answerTimeoutMs / 1000} s for ${command}`)),
        answerTimeoutMs,
      ).unref()
    })
    const start = performance.now()
    await this.#publish(names, command, name)
    await all
    return (count * 1000) / (performance.now() - start)
  }

  async #publish(names: readonly string[], command: string, to: string): Promise<void> {
    const issued = Math.floor(Date.now() / 1000)
    await Promise.all(
      names.map(name =>
        this.#transport.publish('fanout', `client:${to}`, Buffer.from(JSON.stringify({ name, command, issued }))),
      ),
    )
  }
}

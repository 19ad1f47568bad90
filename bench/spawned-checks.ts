import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { setTimeout as pause } from 'node:timers/promises'
import { startRabbitmq } from '../scripts/services/rabbitmq.js'
import { RabbitmqTransport } from '../transport/rabbitmq.js'
import { Requests } from './in-process-checks.js'
import type { Row } from './measure.js'
import { ownProgram, type Program, peerProgram, rabbitmqSettings, Service, Turns } from './service.js'

/** Sensu's default limit of commands at once. */
const concurrency = 12
/** Requests that are under way together; then it is the next one's turn. */
const batch = 2000
/** The bare loop has as many turns, but shorter ones. */
const loopBatch = 500
const command = 'true'
/** From its start until an idle client's memory is read. */
const settlingMs = 3000

/**
 * Checks that need a process, `true`, through an agent over RabbitMQ: per second, CPU of the agent for each, memory; against a bare loop of
 * child_process.spawn, and against a real sensu-client when the environment variable PEER_SENSU_CLIENT names one. That is a command for the
 * shell which takes Sensu's options `-d DIR -l FILE -L LEVEL`, becomes the client (`exec`) and ends on TERM. They take turns, so that a machine
 * whose speed drifts treats all alike.
 */
export async function benchSpawnedChecks(root: string, count: number): Promise<Row[]> {
  const broker = await startRabbitmq()
  const silent = () => {}
  const transport = new RabbitmqTransport(broker.url(), {
    log: { debug: silent, info: silent, warn: silent, error: silent },
    maxUnconfirmed: batch * 2,
  })
  const requests = new Requests(transport)
  const clients: Client[] = []
  const peerCommand = process.env['PEER_SENSU_CLIENT']
  try {
    await transport.connect()
    await requests.listen()
    const start = async (name: string, program: Program) => {
      const sockets = { socket: { enabled: false }, http_socket: { enabled: false } }
      const service = await Service.start(program, {
        rabbitmq: rabbitmqSettings(broker),
        client: { name, address: '127.0.0.1', subscriptions: [], ...sockets },
      })
      const client: Client = { name, service, turns: new Turns(), idleMiB: Number.NaN }
      clients.push(client)
      await requests.untilAnswered(name)
      await pause(settlingMs)
      client.idleMiB = service.residentMiB()
      await requests.run(loopBatch, command, name)
      return client
    }
    const ours = await start('bench-ours', ownProgram(root, 'sensu-kvm-agent'))
    const peer = peerCommand ? await start('bench-peer', peerProgram('sensu-client', peerCommand)) : undefined
    const loop = new Turns()
    const ownCpuMs = () => process.cpuUsage().user / 1000 + process.cpuUsage().system / 1000
    for (let done = 0; done < count; done += batch) {
      const size = Math.min(batch, count - done)
      for (const { turns, service, name } of clients) {
        await turns.take(
          size,
          () => service.cpuMs(),
          () => requests.run(size, command, name),
        )
      }
      await loop.take(Math.min(size, loopBatch), ownCpuMs, () => runLoop(Math.min(size, loopBatch)))
    }
    return rowsOf(count, ours, peer, loop)
  } finally {
    await transport.close()
    for (const { service } of clients) await service.stop()
    await broker.stop()
  }
}

function rowsOf(count: number, ours: Client, peer: Client | undefined, loop: Turns): Row[] {
  const checks = count.toLocaleString('en')
  const row = (subject: string, unit: Row['unit'], figure: number, name: string, theirs: number | undefined): Row => ({
    ...{ subject, unit, ours: figure, peer: name, theirs, loopLagMs: undefined },
  })
  const bare = 'bare child_process.spawn'
  const sensu = peer ? 'PEER_SENSU_CLIENT' : 'sensu-client (PEER_SENSU_CLIENT is not set)'
  const after = ours.service.residentMiB()
  return [
    {
      ...row('spawned checks', '/s', ours.turns.perSecond, bare, loop.perSecond),
      note: `${checks} checks, ${batch.toLocaleString('en')} at a time in turn, ${concurrency} at once; CPU is the client's own`,
    },
    row('CPU per spawned check', 'ms', ours.turns.cpuMs, bare, loop.cpuMs),
    { ...row('spawned checks', '/s', ours.turns.perSecond, sensu, peer?.turns.perSecond), target: '>= 1.2 times' },
    row('CPU per spawned check', 'ms', ours.turns.cpuMs, sensu, peer?.turns.cpuMs),
    { ...row('memory, idle', 'MiB', ours.idleMiB, sensu, peer?.idleMiB), target: '>= 0.56 times' },
    {
      ...row(`memory after ${checks} checks`, 'MiB', after, sensu, peer?.service.residentMiB()),
      target: '>= 0.56 times',
    },
  ]
}

/** The least that a Node process can do: start, collect the output, wait for the end. Per second. */
async function runLoop(count: number): Promise<number> {
  let left = count
  const worker = async () => {
    while (left-- > 0) {
      const child = spawn('sh', ['-c', command], { stdio: ['ignore', 'pipe', 'pipe'], detached: true })
      child.stdout.resume()
      child.stderr.resume()
      await once(child, 'close')
    }
  }
  const start = performance.now()
  await Promise.all(Array.from({ length: concurrency }, worker))
  return (count * 1000) / (performance.now() - start)
}

interface Client {
  name: string
  service: Service
  turns: Turns
  idleMiB: number
}

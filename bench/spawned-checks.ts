import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { makeTemporaryDirectory, startProcess } from '../scripts/services/process.js'
import { type Rabbitmq, startRabbitmq } from '../scripts/services/rabbitmq.js'
import { RabbitmqTransport } from '../transport/rabbitmq.js'
import { Requests } from './in-process-checks.js'
import type { Row } from './measure.js'

/** Sensu's default limit of commands at once. */
const concurrency = 12
/** Requests that are under way together; then it is the next one's turn. */
const batch = 2000
/** The bare loop has as many turns, but shorter ones. */
const loopBatch = 500
const command = 'true'
const clockTicksPerSecond = 100
/** From its start until an idle client's memory is read. */
const settlingMs = 3000

/** What one of them did, over all of its turns. */
class Turns {
  #checks = 0
  #seconds = 0
  #cpuMs = 0

  /** Counts one turn: `cpuMs` reads the process's CPU time, `run` tells how many checks a second there were. */
  async take(count: number, cpuMs: () => number, run: () => Promise<number>): Promise<void> {
    const before = cpuMs()
    const perSecond = await run()
    this.#cpuMs += cpuMs() - before
    this.#seconds += count / perSecond
    this.#checks += count
  }

  get perSecond(): number {
    return this.#checks / this.#seconds
  }

  get cpuMs(): number {
    return this.#cpuMs / this.#checks
  }
}

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
    const start = async (name: string, program: string, ...args: string[]) => {
      const client = await startClient(broker, name, program, args)
      clients.push(client)
      await requests.untilAnswered(name)
      await pause(settlingMs)
      client.idleMiB = residentMiB(client.pid)
      await requests.run(loopBatch, command, name)
      return client
    }
    const ours = await start('bench-ours', process.execPath, join(root, 'dist/bin/sensu-kvm-agent'))
    const peer = peerCommand ? await start('bench-peer', 'sh', '-c', `exec ${peerCommand} "$@"`, 'sh') : undefined
    const loop = new Turns()
    const ownCpuMs = () => process.cpuUsage().user / 1000 + process.cpuUsage().system / 1000
    for (let done = 0; done < count; done += batch) {
      const size = Math.min(batch, count - done)
      for (const { turns, pid, name } of clients) {
        await turns.take(
          size,
          () => cpuMs(pid),
          () => requests.run(size, command, name),
        )
      }
      await loop.take(Math.min(size, loopBatch), ownCpuMs, () => runLoop(Math.min(size, loopBatch)))
    }
    return rowsOf(count, ours, peer, loop)
  } finally {
    await transport.close()
    for (const client of clients) await client.stop()
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
  const after = residentMiB(ours.pid)
  return [
    {
      ...row('spawned checks', '/s', ours.turns.perSecond, bare, loop.perSecond),
      note: `${checks} checks, ${batch.toLocaleString('en')} at a time in turn, ${concurrency} at once; CPU is the client's own, with its launcher's`,
    },
    row('CPU per spawned check', 'ms', ours.turns.cpuMs, bare, loop.cpuMs),
    { ...row('spawned checks', '/s', ours.turns.perSecond, sensu, peer?.turns.perSecond), target: '>= 1.2 times' },
    row('CPU per spawned check', 'ms', ours.turns.cpuMs, sensu, peer?.turns.cpuMs),
    { ...row('memory, idle', 'MiB', ours.idleMiB, sensu, peer?.idleMiB), target: '>= 0.56 times' },
    {
      ...row(`memory after ${checks} checks`, 'MiB', after, sensu, peer && residentMiB(peer.pid)),
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
  pid: number
  turns: Turns
  idleMiB: number
  stop(): Promise<void>
}

async function startClient(broker: Rabbitmq, name: string, program: string, args: readonly string[]): Promise<Client> {
  const directory = makeTemporaryDirectory()
  const { host, port, user, password, vhosts } = broker
  const sockets = { socket: { enabled: false }, http_socket: { enabled: false } }
  const settings = {
    rabbitmq: { host, port, user, password, vhost: vhosts[0] },
    client: { name, address: '127.0.0.1', subscriptions: [], ...sockets },
  }
  const configuration = join(directory, 'conf.d')
  mkdirSync(configuration)
  writeFileSync(join(configuration, 'client.json'), JSON.stringify(settings))
  const client = await startProcess({
    name,
    command: program,
    args: [...args, '-d', configuration, '-l', join(directory, 'client.log'), '-L', 'warn'],
    env: { ...process.env, SENSU_KVM_STATE_DIR: join(directory, 'state') },
  })
  const stop = async () => {
    await client.stop()
    rmSync(directory, { recursive: true, force: true })
  }
  return { name, pid: client.pid, turns: new Turns(), idleMiB: Number.NaN, stop }
}

/** CPU time of a client itself, not of its commands, ms (proc(5): utime and stime in clock ticks). */
function cpuMs(pid: number): number {
  const ticks = sum(processesOf(pid), each => {
    const fields = readFileSync(`/proc/${each}/stat`, 'utf8').split(') ').at(-1)?.split(' ') ?? []
    return Number(fields[11]) + Number(fields[12])
  })
  return (ticks * 1000) / clockTicksPerSecond
}

function residentMiB(pid: number): number {
  const read = (each: number) => /VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${each}/status`, 'utf8'))?.[1]
  return sum(processesOf(pid), each => Number(read(each))) / 1024
}

/** The client's process, and the launcher it may have. */
function processesOf(pid: number): number[] {
  const children = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8')
    .trim()
    .split(' ')
    .filter(Boolean)
    .map(Number)
  return [pid, ...children.filter(child => commandLine(child).startsWith('sensu-kvm-launcher'))]
}

function commandLine(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8')
  } catch {
    // A command that has just ended.
    return ''
  }
}

function sum<T>(items: readonly T[], figure: (item: T) => number): number {
  return items.reduce((total, item) => total + figure(item), 0)
}

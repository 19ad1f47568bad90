import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { makeTemporaryDirectory, startProcess } from '../scripts/services/process.js'
import { startRabbitmq } from '../scripts/services/rabbitmq.js'
import { RabbitmqTransport } from '../transport/rabbitmq.js'
import { Requests } from './in-process-checks.js'
import type { Row } from './measure.js'

/** Sensu's default limit of commands at once. */
const concurrency = 12
/** Requests that are under way together. */
const batch = 2000
const command = 'true'
const clockTicksPerSecond = 100

/** What one client did. */
interface Figures {
  perSecond: number
  /** Of its own process, without those it started. */
  cpuMs: number
  idleMiB: number
  laterMiB: number
}

/**
 * Checks that need a process, `true`, through an agent over RabbitMQ: per second, CPU of the agent for each, memory; against a bare loop of
 * child_process.spawn, and against a real sensu-client when the environment variable PEER_SENSU_CLIENT names one. That is a command for the
 * shell which takes Sensu's options `-d DIR -l FILE -L LEVEL`, becomes the client (`exec`) and ends on TERM.
 */
export async function benchSpawnedChecks(root: string, count: number): Promise<Row[]> {
  const loop = await runLoop(Math.min(count, 5000))
  const ours = await measureClient(process.execPath, [join(root, 'dist/bin/sensu-kvm-agent')], count)
  const peerCommand = process.env['PEER_SENSU_CLIENT']
  const peer = peerCommand ? await measureClient('sh', ['-c', `exec ${peerCommand} "$@"`, 'sh'], count) : undefined
  const note = `${count.toLocaleString('en')} checks, ${batch.toLocaleString('en')} requested at a time, ${concurrency} at once; CPU is the client's own`
  const row = (subject: string, unit: Row['unit'], figure: number, name: string, theirs: number | undefined): Row => ({
    ...{ subject, unit, ours: figure, peer: name, theirs, loopLagMs: undefined },
  })
  const noPeer = 'sensu-client (PEER_SENSU_CLIENT is not set)'
  const sensu = peer ? 'sensu-client' : noPeer
  return [
    { ...row('spawned checks', '/s', ours.perSecond, 'bare child_process.spawn', loop.perSecond), note },
    row('CPU per spawned check', 'ms', ours.cpuMs, 'bare child_process.spawn', loop.cpuMs),
    { ...row('spawned checks', '/s', ours.perSecond, sensu, peer?.perSecond), target: '>= 1.2 times' },
    row('CPU per spawned check', 'ms', ours.cpuMs, sensu, peer?.cpuMs),
    row('memory, idle', 'MiB', ours.idleMiB, sensu, peer?.idleMiB),
    {
      ...row(`memory after ${count.toLocaleString('en')} checks`, 'MiB', ours.laterMiB, sensu, peer?.laterMiB),
      target: '>= 0.56 times',
    },
  ]
}

/** The least that a Node process can do: start, collect the output, wait for the end. */
async function runLoop(count: number): Promise<Pick<Figures, 'perSecond' | 'cpuMs'>> {
  let left = count
  const worker = async () => {
    while (left-- > 0) {
      const child = spawn('sh', ['-c', command], { stdio: ['ignore', 'pipe', 'pipe'], detached: true })
      child.stdout.resume()
      child.stderr.resume()
      await once(child, 'close')
    }
  }
  const cpu = process.cpuUsage()
  const start = performance.now()
  await Promise.all(Array.from({ length: concurrency }, worker))
  const elapsedMs = performance.now() - start
  const { user, system } = process.cpuUsage(cpu)
  return { perSecond: (count * 1000) / elapsedMs, cpuMs: (user + system) / 1000 / count }
}

async function measureClient(program: string, args: readonly string[], count: number): Promise<Figures> {
  const directory = makeTemporaryDirectory()
  const broker = await startRabbitmq()
  const silent = () => {}
  const transport = new RabbitmqTransport(broker.url(), {
    log: { debug: silent, info: silent, warn: silent, error: silent },
    maxUnconfirmed: batch * 2,
  })
  const { host, port, user, password, vhosts } = broker
  const sockets = { socket: { enabled: false }, http_socket: { enabled: false } }
  const settings = {
    rabbitmq: { host, port, user, password, vhost: vhosts[0] },
    client: { name: 'bench', address: '127.0.0.1', subscriptions: [], ...sockets },
  }
  const configuration = join(directory, 'conf.d')
  mkdirSync(configuration)
  writeFileSync(join(configuration, 'client.json'), JSON.stringify(settings))
  const client = await startProcess({
    name: 'the client',
    command: program,
    args: [...args, '-d', configuration, '-l', join(directory, 'client.log'), '-L', 'warn'],
    env: { ...process.env, SENSU_KVM_STATE_DIR: join(directory, 'state') },
  })
  const requests = new Requests(transport)
  try {
    await transport.connect()
    await requests.listen()
    await requests.untilAnswered()
    const idleMiB = residentMiB(client.pid)
    await requests.run(500, command)
    const cpuBefore = cpuMs(client.pid)
    let seconds = 0
    for (let done = 0; done < count; done += batch) {
      const size = Math.min(batch, count - done)
      seconds += size / (await requests.run(size, command))
    }
    const spentMs = cpuMs(client.pid) - cpuBefore
    return { perSecond: count / seconds, cpuMs: spentMs / count, idleMiB, laterMiB: residentMiB(client.pid) }
  } finally {
    await transport.close()
    await client.stop()
    await broker.stop()
    rmSync(directory, { recursive: true, force: true })
  }
}

/** CPU time of a process itself, ms (proc(5): utime and stime in clock ticks). */
function cpuMs(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ').at(-1)?.split(' ') ?? []
  return ((Number(fields[11]) + Number(fields[12])) * 1000) / clockTicksPerSecond
}

function residentMiB(pid: number): number {
  return Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]) / 1024
}

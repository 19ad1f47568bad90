import { constants, openSync, rmSync } from 'node:fs'
import { Socket } from 'node:net'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { Host } from '../libvirt/host.js'
import type { Guest } from '../scripts/services/guest.js'
import type { LibvirtdAccess } from '../scripts/services/libvirtd.js'
import { makeTemporaryDirectory, run, waitUntil } from '../scripts/services/process.js'
import { startRabbitmq } from '../scripts/services/rabbitmq.js'
import { startRedis } from '../scripts/services/redis.js'
import { median, quantile, type Row, watchLoop } from './measure.js'
import { ownProgram, Service } from './service.js'
import { startStateAgent, usualIntervalSeconds } from './state-agent.js'

const rounds = 50
const wordTimeoutMs = 60_000

/** From SIGKILL to a guest's QEMU until the handler of its event does its first thing: libvirtd, agent, broker, server and Redis real. */
export async function benchHandlerLatency(root: string, libvirtd: LibvirtdAccess, guest: Guest): Promise<Row[]> {
  const directory = makeTemporaryDirectory()
  const libvirtUri = libvirtd.readOnlyUri ?? libvirtd.uri
  const ends: (() => unknown)[] = [() => rmSync(directory, { recursive: true, force: true })]
  const endedBy = <T>(part: T, end: (part: T) => unknown): T => {
    ends.push(() => end(part))
    return part
  }
  try {
    const words = endedBy(await Words.open(join(directory, 'words')), opened => opened.close())
    const image = join(directory, 'guest.save')
    // restored from its memory within a second, where a boot takes several
    await libvirtd.virsh('save', guest.name, image)
    const broker = endedBy(await startRabbitmq(), service => service.stop())
    const redis = endedBy(await startRedis(), service => service.stop())
    const settings = serverSettings(broker.url(), redis, words.path)
    const program = ownProgram(root, 'sensu-kvm-server', '--no-api')
    const server = endedBy(await Service.start(program, settings, 'info'), service => service.stop())
    await server.untilLogged('updated server registry')
    const agentOptions = { root, rabbitmqUrl: broker.url(), libvirtUri, handlers: ['killed', 'restored'] }
    endedBy(await startStateAgent(agentOptions), service => service.stop())
    const host = endedBy(Host.open(libvirtUri, { readOnly: true }), opened => opened.close())
    let toldMs = 0
    host.on('lifecycle', ({ event }) => {
      if (event === 'stopped') toldMs = performance.now()
    })
    await host.eventsReady()
    const kills: Kill[] = []
    const loopLag = watchLoop()
    for (let round = 0; round <= rounds; round++) {
      await libvirtd.virsh('restore', image)
      // the first time it had not failed before
      if (round > 0) await words.next('restored')
      // quiet again, and never in step with a timer
      await pause(1100 + Math.random() * 200)
      const pid = guest.pid()
      if (pid === undefined) throw new Error(`guest ${guest.name} does not run`)
      const killedMs = performance.now()
      process.kill(pid, 'SIGKILL')
      const startedMs = await words.next('killed')
      kills.push({ libvirtMs: toldMs - killedMs, tookMs: startedMs - killedMs, ownMs: startedMs - toldMs })
    }
    return rowsOf(kills, loopLag())
  } finally {
    for (const end of ends.reverse()) await end()
  }
}

/** From the kill to libvirt's word, to the handler's, and between the two. */
interface Kill {
  libvirtMs: number
  tookMs: number
  ownMs: number
}

/**
 * The first kill is told apart: agent and server do everything for the first time. `loopLagMs`: how long this process was kept waiting at worst; on a
 * machine that is busy with something else the others were, too.
 */
function rowsOf([first, ...kills]: readonly Kill[], loopLagMs: number): Row[] {
  const took = kills.map(({ tookMs }) => tookMs)
  const libvirt = kills.map(({ libvirtMs }) => libvirtMs)
  const own = kills.map(({ ownMs }) => ownMs)
  const spread = (samples: readonly number[]) =>
    `p50 ${median(samples).toFixed(0)}, p90 ${quantile(samples, 0.9).toFixed(0)}, p99 ${quantile(samples, 0.99).toFixed(0)}, worst ${quantile(samples, 1).toFixed(0)} ms`
  const subject = 'QEMU killed, until its handler starts'
  const peer = `waiting for a ${usualIntervalSeconds} s interval`
  const intervalMs = usualIntervalSeconds * 1000
  return [
    {
      ...{ subject: `${subject} (p50)`, unit: 'ms', ours: median(took), peer: `${peer}, half of it on average` },
      ...{ theirs: intervalMs / 2, loopLagMs: undefined },
    },
    {
      ...{ subject: `${subject} (p99)`, unit: 'ms', ours: quantile(took, 0.99), peer, theirs: intervalMs },
      ...{ loopLagMs, target: '250 ms or less' },
      note:
        `${kills.length} kills of a restored guest: ${spread(took)}; of that until libvirt tells of it: ${spread(libvirt)}; ` +
        `the very first, before those: ${first?.tookMs.toFixed(0)} ms, libvirt's part ${first?.libvirtMs.toFixed(0)} ms`,
    },
    {
      ...{ subject: 'libvirt tells, until the handler starts (p50)', unit: 'ms', ours: median(own) },
      ...{ peer: '', theirs: undefined, loopLagMs: undefined, target: 'about 20 ms' },
      note: `agent, broker, server, Redis, starting the handler: ${spread(own)}`,
    },
  ]
}

/** A handler for guests that fail and one for those that are well again; the first thing each does is to say so. */
function serverSettings(rabbitmq: string, redis: { host: string; port: number }, path: string): object {
  const handler = (word: string) => ({ type: 'pipe', command: `echo ${word} > ${path}`, filter: word })
  return {
    rabbitmq,
    redis: { host: redis.host, port: redis.port },
    handlers: { killed: handler('killed'), restored: handler('restored') },
    filters: {
      killed: { attributes: { action: 'create', occurrences: 1 } },
      restored: { attributes: { action: 'resolve' } },
    },
  }
}

/** The words that handlers write into a named pipe, and when they arrived: a shell says one with nothing but itself. */
class Words {
  readonly path: string
  readonly #socket: Socket
  readonly #arrived: { word: string; atMs: number }[] = []

  static async open(path: string): Promise<Words> {
    await run('mkfifo', [path])
    return new Words(path)
  }

  private constructor(path: string) {
    this.path = path
    // both ends, so that it does not end with its first writer
    const fd = openSync(path, constants.O_RDWR | constants.O_NONBLOCK)
    this.#socket = new Socket({ fd, readable: true, writable: false })
    this.#socket.on('data', data => {
      const atMs = performance.now()
      for (const word of data.toString().trim().split('\n')) this.#arrived.push({ word, atMs })
    })
  }

  /** Resolves with when the word arrived, which is to be the next one, by the monotonic clock. */
  async next(word: string): Promise<number> {
    const next = await waitUntil(`a handler says "${word}"`, () => this.#arrived.shift(), { timeoutMs: wordTimeoutMs })
    if (next.word !== word) throw new Error(`a handler said "${next.word}", not "${word}"`)
    return next.atMs
  }

  close(): void {
    this.#socket.destroy()
  }
}

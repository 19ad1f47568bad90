import { setTimeout as pause } from 'node:timers/promises'
import { Host } from '../libvirt/host.js'
import type { Guest } from '../scripts/services/guest.js'
import type { LibvirtdAccess } from '../scripts/services/libvirtd.js'
import { startRabbitmq } from '../scripts/services/rabbitmq.js'
import { RabbitmqTransport } from '../transport/rabbitmq.js'
import { median, quantile, type Row } from './measure.js'
import { startStateAgent, usualIntervalSeconds } from './state-agent.js'

const rounds = 10
const resultTimeoutMs = 60_000

/** From SIGKILL to a guest's QEMU until the result that says so is on the results exchange, agent and broker real. */
export async function benchEventLatency(root: string, libvirtd: LibvirtdAccess, guest: Guest): Promise<Row[]> {
  const broker = await startRabbitmq()
  const silent = () => {}
  const transport = new RabbitmqTransport(broker.url(), {
    log: { debug: silent, info: silent, warn: silent, error: silent },
  })
  const statuses = new Statuses()
  const libvirtUri = libvirtd.readOnlyUri ?? libvirtd.uri
  const host = Host.open(libvirtUri, { readOnly: true })
  const agent = await startStateAgent({ root, rabbitmqUrl: broker.url(), libvirtUri })
  try {
    await transport.connect()
    await transport.subscribe('direct', 'results', 'results', message => {
      const { check } = JSON.parse(message.toString())
      if (check.source === guest.name) statuses.note(check.status)
    })
    let toldMs = 0
    host.on('lifecycle', ({ event }) => {
      if (event === 'stopped') toldMs = performance.now()
    })
    await host.eventsReady()
    const tookMs: number[] = []
    const libvirtMs: number[] = []
    for (let round = 0; round < rounds; round++) {
      // QEMU alone: the agent in the guest has no say in this
      if ((await guest.state()).startsWith('shut off')) {
        await libvirtd.virsh('start', guest.name)
        await statuses.until(0)
      }
      // past the time that two runs have in common
      await pause(1200)
      const killed = performance.now()
      guest.signal('SIGKILL')
      await statuses.until(2)
      tookMs.push(performance.now() - killed)
      libvirtMs.push(toldMs - killed)
    }
    return [
      {
        subject: 'QEMU killed, until its result arrives (p50)',
        unit: 'ms',
        ours: median(tookMs),
        peer: `waiting for a ${usualIntervalSeconds} s interval, half of it on average`,
        theirs: (usualIntervalSeconds * 1000) / 2,
        loopLagMs: undefined,
        note: `${rounds} kills, worst ${quantile(tookMs, 1).toFixed(0)} ms; libvirt itself takes ${median(libvirtMs).toFixed(0)} ms (p50) until it tells of it`,
      },
    ]
  } finally {
    await host.close()
    await transport.close()
    await agent.stop()
    await broker.stop()
  }
}

/** The statuses of one guest's results as they arrive. */
class Statuses {
  #last: number | undefined
  #waiting: { status: number; resolve: () => void } | undefined

  note(status: number): void {
    this.#last = status
    if (this.#waiting?.status === status) this.#waiting.resolve()
  }

  /** Resolves with the next result of the status, or at once when it is the last one's. */
  async until(status: number): Promise<void> {
    if (this.#last === status) return
    let timer: NodeJS.Timeout | undefined
    await new Promise<void>((resolve, reject) => {
      this.#waiting = { status, resolve }
      const late = () => reject(new Error(`no result of status ${status} within ${resultTimeoutMs / 1000} s`))
      timer = setTimeout(late, resultTimeoutMs)
    })
    clearTimeout(timer)
  }
}

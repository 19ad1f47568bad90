import { readFile } from 'node:fs/promises'
import { startRedis } from '../scripts/services/redis.js'
import type { JsonObject } from '../sensu/types.js'
import { Store } from '../store/store.js'

/** One line of the store's benchmark. */
export interface StoreMeasurement {
  name: string
  resultsPerSecond: number
  /** CPU time of this process per result, microseconds. */
  cpuMicroseconds: number
  /** CPU time of Redis per result, microseconds. */
  redisCpuMicroseconds: number
}

const clients = 50
const checksPerClient = 10
/** Results under way at once when pipelined. */
const window = 256

/**
 * Stores results of 50 clients with 10 checks each in a private Redis, over one connection: one by one and pipelined, all OK (the usual case) and all
 * failing (each with its event). Statuses change only with the case, so that every failing result after the first repeats its event.
 */
export async function measureStore(results = 20_000): Promise<StoreMeasurement[]> {
  const server = await startRedis()
  const store = await Store.connect(server.url)
  try {
    for (let c = 0; c < clients; c++)
      await store.storeClient({ name: `client-${c}`, subscriptions: ['base', `client:client-${c}`] })
    const measurements: StoreMeasurement[] = []
    for (const [kind, status] of [
      ['OK', 0],
      ['failing', 2],
    ] as const) {
      measurements.push(await measure(`${kind}, one by one`, store, server.pid(), results / 2, 1, status))
      measurements.push(await measure(`${kind}, pipelined`, store, server.pid(), results, window, status))
    }
    return measurements
  } finally {
    store.close()
    await server.stop()
  }
}

async function measure(
  name: string,
  store: Store,
  redisPid: number | undefined,
  results: number,
  parallel: number,
  status: number,
): Promise<StoreMeasurement> {
  let next = 0
  const worker = async () => {
    while (next < results) {
      const index = next++
      const client = `client-${index % clients}`
      await store.storeResult({ client, nowSeconds: 1_790_000_000 + index, check: check(index, status) })
    }
  }
  const redisBefore = await processCpuMicroseconds(redisPid)
  const cpuBefore = process.cpuUsage()
  const started = process.hrtime.bigint()
  await Promise.all(Array.from({ length: parallel }, worker))
  const seconds = Number(process.hrtime.bigint() - started) / 1e9
  const cpu = process.cpuUsage(cpuBefore)
  const redisCpu = (await processCpuMicroseconds(redisPid)) - redisBefore
  return {
    name,
    resultsPerSecond: Math.round(results / seconds),
    cpuMicroseconds: Math.round((cpu.user + cpu.system) / results),
    redisCpuMicroseconds: Math.round(redisCpu / results),
  }
}

/** A check of the size that Sensu's own clients send. */
function check(index: number, status: number): JsonObject {
  const executed = 1_790_000_000 + index
  return {
    name: `check-${Math.floor(index / clients) % checksPerClient}`,
    command: 'check-kvm-memory --warning 90 --critical 95',
    handlers: ['default'],
    interval: 60,
    subscribers: ['base'],
    issued: executed,
    executed,
    duration: 0.012,
    output: `CheckKvmMemory: 12 guests, fullest guest-7 at 91.2% of 4096 MiB | used=${index}MB;;;0\n`,
    status,
    type: 'standard',
  }
}

/** CPU time a process has used so far, from /proc; 100 ticks a second. */
async function processCpuMicroseconds(pid: number | undefined): Promise<number> {
  if (pid === undefined) return 0
  const fields = (await readFile(`/proc/${pid}/stat`, 'utf8')).split(') ')[1]?.split(' ') ?? []
  return (Number(fields[11]) + Number(fields[12])) * 10_000
}

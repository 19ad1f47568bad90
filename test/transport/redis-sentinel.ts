import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { Redis as Client } from 'ioredis'
import type { Test } from 'tap'
import { findFreePort, startProcess, waitUntil } from '../../scripts/services/process.js'
import { type Redis, startRedis } from '../../scripts/services/redis.js'
import { Watchdog } from '../../scripts/services/watchdog.js'

/** A master, its replica, and a sentinel that replaces the one by the other. */
export interface SentinelGroup {
  group: string
  sentinelPort: number
  master: Redis
  replica: Redis
}

const timeoutMs = 20_000

/** Starts the three redis-server processes; returns when the sentinel knows both servers. They end with the test. */
export async function startSentinelGroup(t: Test): Promise<SentinelGroup> {
  const group = 'm1'
  const master = await startRedis()
  t.teardown(() => master.stop())
  const replica = await startRedis({ settings: ['--replicaof', master.host, String(master.port)] })
  t.teardown(() => replica.stop())
  const sentinelPort = await startSentinel(t, group, master.port)
  return { group, sentinelPort, master, replica }
}

async function startSentinel(t: Test, group: string, masterPort: number): Promise<number> {
  const directory = t.testdir()
  const port = await findFreePort()
  const file = join(directory, 'sentinel.conf')
  const lines = [
    `port ${port}`,
    'bind 127.0.0.1',
    `dir ${directory}`,
    `sentinel monitor ${group} 127.0.0.1 ${masterPort} 1`,
    `sentinel down-after-milliseconds ${group} 300`,
    `sentinel failover-timeout ${group} 3000`,
  ]
  writeFileSync(file, `${lines.join('\n')}\n`)
  const watchdog = await Watchdog.start()
  const sentinel = await startProcess({
    name: 'redis-sentinel',
    command: 'redis-server',
    args: [file, '--sentinel'],
    cwd: directory,
    logFile: join(directory, 'sentinel.log'),
  })
  watchdog.watch(sentinel.pid)
  t.teardown(async () => {
    await sentinel.stop()
    await watchdog.end()
  })
  const knowsReplica = async () => {
    const client = new Client({ port, lazyConnect: true, retryStrategy: () => null })
    client.on('error', () => {})
    try {
      await client.connect()
      const replicas = await client.call('SENTINEL', 'REPLICAS', group)
      return JSON.stringify(replicas).includes('"master-link-status","ok"') ? true : undefined
    } finally {
      client.disconnect()
    }
  }
  await waitUntil('the sentinel knows the replica', knowsReplica, { timeoutMs, process: sentinel })
  return port
}

import { Redis } from 'ioredis'
import t, { type Test } from 'tap'
import { findFreePort, waitUntil } from '../../scripts/services/process.js'
import { withOwnDirectory } from '../support/own-directory.js'
import { startSentinelGroup } from '../transport/redis-sentinel.js'
import { AgentProcess } from './agent-process.js'
import { submit } from './submission.js'

const results = 'transport:0:list:results'

function observe(t: Test, port: number): Redis {
  const client = new Redis({ port })
  client.on('error', () => {})
  t.teardown(() => client.disconnect())
  return client
}

function numbered(from: number, count: number): { name: string; output: string }[] {
  return Array.from({ length: count }, (_, n) => ({ name: `check-${(from + n) % 10}`, output: `${from + n}` }))
}

/** Waits until the list has so many entries, and returns the outputs in them. */
async function outputs(client: Redis, count: number): Promise<string[]> {
  const reached = async () => ((await client.llen(results)) >= count ? true : undefined)
  await waitUntil(`${count} results are in the list`, reached, { timeoutMs: 30_000, intervalMs: 10 })
  return (await client.lrange(results, 0, -1)).map(text => JSON.parse(text).check.output)
}

t.test('Redis transport: results and requests survive a fail-over by sentinels', async t => {
  t.setTimeout(60_000)
  const { group, sentinelPort, master, replica } = await startSentinelGroup(t)
  const port = await findFreePort()
  const settings = {
    client: { name: 'moved', address: '127.0.0.9', subscriptions: ['roundrobin:work'], socket: { port } },
    transport: { name: 'redis' },
    redis: { sentinels: [{ host: '127.0.0.1', port: 1 }, { port: sentinelPort }], master: group },
  }
  const sockets = { ...settings.client, http_socket: { enabled: false } }
  const agent = new AgentProcess(withOwnDirectory(t), {
    files: { 'agent.json': { ...settings, client: sockets } },
  })
  await agent.log('subscribed to redis channel: transport:0:channel:client:moved')
  t.equal(await submit(port, numbered(0, 1000)), 'ok')
  const first = observe(t, master.port)
  await outputs(first, 1000)
  // Redis confirms before its replica has a result: what a master takes with it is beyond any client
  t.equal(await first.wait(1, 5000), 1)
  await master.kill()
  t.equal(await submit(port, numbered(1000, 1000)), 'ok')
  await agent.log('reconnecting to transport')
  await agent.log('reconnected to transport')
  t.equal(await submit(port, numbered(2000, 1000)), 'ok')
  const promoted = observe(t, replica.port)
  t.strictSame(
    await outputs(promoted, 3000),
    numbered(0, 3000).map(({ output }) => output),
  )
  await agent.log('subscribed to redis channel: transport:0:channel:client:moved', 2)
  await promoted.publish('transport:0:channel:client:moved', JSON.stringify({ name: 'asked', command: 'echo all' }))
  t.equal((await outputs(promoted, 3001)).at(-1), 'all\n')
  await promoted.rpush('transport:0:list:roundrobin:work', JSON.stringify({ name: 'shared', command: 'echo one' }))
  t.equal((await outputs(promoted, 3002)).at(-1), 'one\n')
  t.strictSame(await agent.stop(), { status: 0, signal: null })
})

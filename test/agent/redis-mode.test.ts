import { Redis } from 'ioredis'
import t from 'tap'
import { rabbitmq, redis } from '../support/services.js'
import { AgentProcess } from './agent-process.js'
import { ServerSide } from './server-side.js'

const [broker, database] = await Promise.all([rabbitmq(t), redis(t)])
const server = await ServerSide.open(t, broker.url)

function configuration(name: string, more: object = {}) {
  const sockets = { socket: { enabled: false }, http_socket: { enabled: false } }
  const settings = {
    client: { name, address: '127.0.0.9', subscriptions: ['all'], ...sockets },
    rabbitmq: broker.url,
    redis: { host: '127.0.0.1', port: database.port },
    sensu_kvm: { results: { to: 'redis' } },
    ...more,
  }
  return { 'agent.json': settings }
}

/** Waits until Redis has the key; asks again and again, as Redis tells nobody. */
async function stored(client: Redis, key: string): Promise<string> {
  for (;;) {
    const value = await client.get(key)
    if (value !== null) return value
    await new Promise(resolve => setTimeout(resolve, 10))
  }
}

t.test(
  "with results to redis everything of a result is in Sensu's keys, handlers run, and nothing is published",
  async t => {
    const client = new Redis(database.port, '127.0.0.1')
    t.teardown(() => client.disconnect())
    const checks = { own: { command: 'echo bad; exit 2', standalone: true, interval: 1, handler: 'note' } }
    const handlers = { note: { type: 'pipe', command: 'cat > handled; mv handled note.json' } }
    const agent = new AgentProcess(t, { files: configuration('to-redis', { checks, handlers }) })
    const result = JSON.parse(await stored(client, 'result:to-redis:own'))
    t.match(result, { name: 'own', output: 'bad\n', status: 2 })
    t.match(JSON.parse(await stored(client, 'client:to-redis')), {
      name: 'to-redis',
      subscriptions: ['all', 'client:to-redis'],
    })
    t.strictSame(await client.smembers('clients'), ['to-redis'])
    t.strictSame(await client.smembers('result:to-redis'), ['own'])
    t.equal((await client.lrange('history:to-redis:own', 0, 0))[0], '2')
    t.match(JSON.parse((await client.hget('events:to-redis', 'own')) ?? ''), {
      action: 'create',
      check: { name: 'own' },
    })
    await agent.file('note.json')
    // requests from a server still arrive by the transport
    await server.request('client:to-redis', { name: 'asked', command: 'echo yes' })
    t.match(JSON.parse(await stored(client, 'result:to-redis:asked')), { output: 'yes\n', status: 0 })
    t.strictSame(await agent.stop(), { status: 0, signal: null })
    t.strictSame([server.results, server.keepalives], [[], []])
  },
)

t.test('without a broker checks still run and results still arrive in redis', async t => {
  const client = new Redis(database.port, '127.0.0.1')
  t.teardown(() => client.disconnect())
  const checks = { alone: { command: 'echo alone', standalone: true, interval: 1 } }
  const rabbitmq = { host: '127.0.0.1', port: 1 }
  const agent = new AgentProcess(t, { files: configuration('alone', { checks, rabbitmq }) })
  t.match(JSON.parse(await stored(client, 'result:alone:alone')), { output: 'alone\n' })
  t.strictSame(await agent.stop(), { status: 0, signal: null })
})

t.test('what the pipeline cannot use is a configuration error', async t => {
  const filters = { when: { attributes: { check: { status: 'eval: exit' } } } }
  const agent = new AgentProcess(t, { files: configuration('refused', { filters }), args: ['--validate_config'] })
  t.strictSame(await agent.exit, { status: 2, signal: null })
  t.match(
    agent.text.join('\n'),
    /configuration is invalid.*filter when: the expression of attribute check.status is not supported/s,
  )
})

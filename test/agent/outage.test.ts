import t from 'tap'
import { ownRabbitmq } from '../support/services.js'
import { TcpProxy } from '../transport/tcp-proxy.js'
import { AgentProcess } from './agent-process.js'
import { ServerSide } from './server-side.js'

const broker = await ownRabbitmq(t)
const { user, password, vhosts } = broker
/** Agents reach the broker through it, so that none is back before the server's queues are. */
const proxy = await TcpProxy.start(broker.port)
t.teardown(() => proxy.stop())

function configuration(name: string, own: object = {}) {
  const client = { name, address: '127.0.0.9', subscriptions: ['all'] }
  const sockets = { socket: { enabled: false }, http_socket: { enabled: false } }
  const rabbitmq = { port: proxy.port, user, password, vhost: vhosts[0] }
  return { 'agent.json': { client: { ...client, ...sockets }, rabbitmq, sensu_kvm: own } }
}

t.test('a broker killed under running checks: no result is lost, their order is kept, and work goes on', async t => {
  const agent = new AgentProcess(t, { files: configuration('outage'), args: [] })
  const before = await ServerSide.open(t, broker.url())
  await before.keepalive('outage')
  // they wait for the broker to be gone, so that every result has to wait for the next one
  const names = Array.from({ length: 30 }, (_, n) => `held-${n}`)
  for (const name of names) {
    await before.request('client:outage', { name, command: `while [ ! -e gone ]; do sleep 0.02; done; echo ${name}` })
  }
  await agent.log('received check request', names.length)
  proxy.refuse()
  await broker.kill()
  await agent.log('reconnecting to transport')
  agent.touch('gone')
  await agent.log('publishing check result', names.length)
  const published = agent.lines.flatMap(({ message, payload }) => {
    if (message !== 'publishing check result') return []
    const { check } = payload as { check: { name: string } }
    return [check.name]
  })
  await broker.restart()
  const after = await ServerSide.open(t, broker.url())
  proxy.accept()
  await agent.log('reconnected to transport')
  await after.keepalive('outage')
  await after.request('client:outage', { name: 'afterwards', command: 'echo works' })
  t.match((await after.result('afterwards')).check, { output: 'works\n' })
  const arrived = after.results.map(({ text }) => JSON.parse(text).check.name)
  t.strictSame(arrived, [...published, 'afterwards'])
  t.strictSame(await agent.stop(), { status: 0, signal: null })
})

t.test('without a broker from the start the agent waits, and can be stopped', async t => {
  proxy.refuse()
  const agent = new AgentProcess(t, { files: configuration('early') })
  await agent.log('transport connection error')
  t.strictSame(await agent.stop(), { status: 0, signal: null })
  t.ok(agent.lines.some(({ message }) => message === 'stopping reactor'))
})

t.test('without a spool, results that cannot be delivered before the end are counted', async t => {
  proxy.accept()
  const agent = new AgentProcess(t, { files: configuration('ending', { spool: { enabled: false } }), args: [] })
  const server = await ServerSide.open(t, broker.url())
  await server.request('client:ending', { name: 'too-late', command: 'while [ ! -e gone ]; do sleep 0.02; done' })
  await agent.log('received check request')
  proxy.refuse()
  await agent.log('reconnecting to transport')
  agent.kill('SIGTERM')
  await agent.log('completing checks in progress')
  agent.touch('gone')
  t.strictSame(await agent.exit, { status: 0, signal: null })
  t.match(await agent.log('check results were not delivered before the end'), { level: 'error', results: 1 })
})

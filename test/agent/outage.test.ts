import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { findFreePort } from '../../scripts/services/process.js'
import { ownRabbitmq } from '../support/services.js'
import { TcpProxy } from '../transport/tcp-proxy.js'
import { AgentProcess } from './agent-process.js'
import { KeptResults } from './kept-results.js'
import { ServerSide } from './server-side.js'
import { submit } from './submission.js'

const broker = await ownRabbitmq(t)
const { user, password, vhosts } = broker
await KeptResults.prepare(t, broker)
/** Agents reach the broker through it, so that none is back before the server's queues are. */
const proxy = await TcpProxy.start(broker.port)
t.teardown(() => proxy.stop())

function configuration(name: string, client: object = {}, own: object = {}) {
  const sockets = { socket: { enabled: false }, http_socket: { enabled: false } }
  const rabbitmq = { port: proxy.port, user, password, vhost: vhosts[0] }
  const all = { name, address: '127.0.0.9', subscriptions: ['all'], ...sockets, ...client }
  return { 'agent.json': { client: all, rabbitmq, sensu_kvm: own } }
}

type Result = { name: string; output: string }

const idOf = ({ name, output }: Result) => `${name} ${output}`

/** The results of ten checks in turn, numbered in their output. */
function numbered(from: number, count: number): { name: string; output: string }[] {
  return Array.from({ length: count }, (_, n) => ({ name: `check-${(from + n) % 10}`, output: `${from + n}` }))
}

t.test('a broker killed under 10,000 results: none is lost, their order is kept, and work goes on', async t => {
  const port = await findFreePort()
  const agent = new AgentProcess(t, { files: configuration('outage', { socket: { port } }), args: [] })
  const server = await ServerSide.open(t, broker.url())
  const before = await KeptResults.open(t, broker.url())
  await server.keepalive('outage')
  const published = () =>
    agent.lines.flatMap(({ message, payload }) =>
      message === 'publishing check result' ? [idOf((payload as { check: Result }).check)] : [],
    )
  // their results come when there is no broker
  const held = Array.from({ length: 12 }, (_, n) => `held-${n}`)
  for (const name of held) {
    await server.request('client:outage', { name, command: 'while [ ! -e gone ]; do sleep 0.02; done; echo held' })
  }
  await agent.log('received check request', held.length)
  t.equal(await submit(port, numbered(0, 8000)), 'ok')
  const taken = await before.reached(1000)
  await broker.kill()
  t.ok(taken < 7000, `the broker died after about ${taken} of 8000 results`)
  proxy.refuse()
  await agent.log('reconnecting to transport')
  agent.touch('gone')
  t.equal(await submit(port, numbered(8000, 2000)), 'ok')
  await agent.log('publishing check result', 10_000 + held.length)
  await broker.restart()
  const after = await KeptResults.open(t, broker.url())
  const serverAgain = await ServerSide.open(t, broker.url())
  proxy.accept()
  await agent.log('reconnected to transport')
  await serverAgain.keepalive('outage')
  await serverAgain.request('client:outage', { name: 'afterwards', command: 'echo works' })
  const arrived = (await after.takeUntil('afterwards')).map(idOf)
  await agent.log('publishing check result', 10_000 + held.length + 1)
  const all = published()
  // where confirmations ended it goes on: what the broker had taken and not confirmed comes twice, in order, and nothing else does
  const repeated = arrived.length - all.length
  const back = arrived.findIndex((id, index) => id !== all[index])
  t.ok(repeated >= 0 && repeated <= 500, `${repeated} results came twice`)
  t.strictSame(arrived, back === -1 ? all : [...all.slice(0, back), ...all.slice(back - repeated)])
  t.strictSame(await agent.stop(), { status: 0, signal: null })
  t.strictSame(readdirSync(join(agent.directory, 'state/spool-outage')), [], 'nothing is left in the spool')
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
  const agent = new AgentProcess(t, { files: configuration('ending', {}, { spool: { enabled: false } }), args: [] })
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

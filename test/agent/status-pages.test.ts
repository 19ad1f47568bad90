import { once } from 'node:events'
import { connect } from 'node:net'
import t, { type Test } from 'tap'
import { findFreePort } from '../../scripts/services/process.js'
import { rabbitmq } from '../support/services.js'
import { TcpProxy } from '../transport/tcp-proxy.js'
import { AgentProcess } from './agent-process.js'
import { ServerSide } from './server-side.js'

const broker = await rabbitmq(t)
const proxy = await TcpProxy.start(broker.port)
t.teardown(() => proxy.stop())
const server = await ServerSide.open(t, broker.url)

async function start(t: Test, name: string, http: object = {}): Promise<{ agent: AgentProcess; port: number }> {
  const port = await findFreePort()
  const { user, password, vhost } = broker
  const client = { name, address: '127.0.0.9', subscriptions: [], socket: { enabled: false } }
  const settings = {
    client: { ...client, http_socket: { port, ...http } },
    rabbitmq: { port: proxy.port, user, password, vhost },
  }
  const agent = new AgentProcess(t, { files: { 'agent.json': settings }, args: [] })
  await server.keepalive(name)
  return { agent, port }
}

async function get(port: number, path: string, authorization?: string): Promise<{ status: number; text: string }> {
  const socket = connect(port, '127.0.0.1')
  const closed = once(socket, 'close')
  let text = ''
  socket.on('data', data => {
    text += data
  })
  const header = authorization === undefined ? '' : `Authorization: Basic ${btoa(authorization)}\r\n`
  socket.write(`GET ${path} HTTP/1.1\r\nHost: x\r\n${header}\r\n`)
  await closed
  return { status: Number(text.split(' ')[1]), text }
}

/** Value of a sample, by its name and labels as they stand in the page. */
function sample(page: string, name: string): number {
  const line = page.split('\n').find(each => each.startsWith(`sensu_kvm_agent_${name} `))
  return Number(line?.split(' ').at(-1) ?? Number.NaN)
}

t.test('/metrics counts what the agent does, in a form that Prometheus reads', async t => {
  const { port } = await start(t, 'measured')
  await server.request('client:measured', { name: 'm-ok', command: 'true' })
  await server.request('client:measured', { name: 'm-critical', command: 'exit 2' })
  await server.request('client:measured', { name: 'm-slow', command: 'sleep 60', timeout: 0.2 })
  await server.request('client:measured', { name: 'm-broken', command: 5 })
  const missing = `check-kvm-host-memory --uri 'qemu:///system?socket=/nonexistent/libvirt-sock'`
  await server.request('client:measured', { name: 'm-libvirt', command: missing })
  for (const name of ['m-ok', 'm-critical', 'm-slow', 'm-broken', 'm-libvirt']) await server.result(name)
  const { status, text } = await get(port, '/metrics')
  t.equal(status, 200)
  t.match(text, /\r\nContent-type: text\/plain; version=0\.0\.4/)
  t.equal(sample(text, 'checks_total{kind="process",status="ok"}'), 1)
  t.equal(sample(text, 'checks_total{kind="process",status="critical"}'), 2)
  t.equal(sample(text, 'checks_total{kind="process",status="unknown"}'), 1)
  t.equal(sample(text, 'checks_total{kind="in_process",status="unknown"}'), 1)
  t.equal(sample(text, 'check_failures_total{kind="process",reason="timeout"}'), 1)
  t.equal(sample(text, 'check_failures_total{kind="process",reason="not_started"}'), 1)
  t.equal(sample(text, 'check_duration_seconds_count{kind="process"}'), 4)
  t.equal(sample(text, 'check_duration_seconds_bucket{kind="process",le="+Inf"}'), 4)
  t.equal(sample(text, 'libvirt_calls_total{procedure="NODE_GET_MEMORY_STATS",outcome="disconnected"}'), 1)
  t.equal(sample(text, 'checks_in_flight'), 0)
  t.equal(sample(text, 'checks_queued'), 0)
  t.equal(sample(text, 'results_published_total'), 5)
  t.equal(sample(text, 'results_dropped_total'), 0)
  t.equal(sample(text, 'connected'), 1)
  t.ok(sample(text, 'resident_memory_bytes') > 1e7)
  t.ok(sample(text, 'event_loop_lag_seconds') >= 0)
  const [, body = ''] = text.split('\r\n\r\n')
  for (const line of body.trimEnd().split('\n')) {
    t.match(line, /^(# (HELP|TYPE) \w+ .+|\w+(\{\w+="[^"]*"(,\w+="[^"]*")*\})? -?[\d.e+-]+)$/)
  }
})

t.test('/healthz says whether results have somewhere to go', async t => {
  const { agent, port } = await start(t, 'healthy')
  t.match(await get(port, '/healthz'), { status: 200, text: /\r\n\r\nok\n$/ })
  proxy.refuse()
  await agent.log('reconnecting to transport')
  t.match(await get(port, '/healthz'), { status: 503, text: /not connected to rabbitmq\n$/ })
  t.equal(sample((await get(port, '/metrics')).text, 'connected'), 0)
  proxy.accept()
  await agent.log('reconnected to transport')
  t.match(await get(port, '/healthz'), { status: 200 })
  t.equal(sample((await get(port, '/metrics')).text, 'reconnects_total'), 1)
})

t.test('a blocked event loop is unhealthy afterwards', async t => {
  const { agent, port } = await start(t, 'blocked')
  agent.kill('SIGSTOP')
  await new Promise(resolve => setTimeout(resolve, 6500)) // the block itself
  agent.kill('SIGCONT')
  let answer = await get(port, '/healthz')
  // the first timer after the block may still be due
  while (answer.status === 200) answer = await get(port, '/healthz')
  t.match(answer, { status: 503, text: /the event loop was blocked for \d+\.\d s/ })
  while (answer.status !== 200) answer = await get(port, '/healthz')
  t.ok(sample((await get(port, '/metrics')).text, 'event_loop_lag_seconds') > 5)
})

t.test('the pages are protected as the others are, and not in the list of endpoints', async t => {
  const { port } = await start(t, 'protected', { user: 'u', password: 'p:w', protect_all_endpoints: true })
  for (const path of ['/metrics', '/healthz']) {
    t.equal((await get(port, path)).status, 401)
    t.equal((await get(port, path, 'u:wrong')).status, 401)
    t.equal((await get(port, path, 'u:p:w')).status, 200)
  }
  const { status, text } = await get(port, '/nope')
  t.equal(status, 404)
  t.strictSame(Object.keys(JSON.parse(text.split('\r\n\r\n')[1] ?? '').endpoints), [
    '/info',
    '/results',
    '/settings',
    '/brew',
  ])
})

import { once } from 'node:events'
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
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

interface Site {
  port: number
  state: string
  start(own?: object): AgentProcess
}

/** A client whose state outlives its processes. */
async function site(t: Test, name: string): Promise<Site> {
  const port = await findFreePort()
  const state = mkdtempSync(join(tmpdir(), 'spool-recovery-'))
  t.teardown(() => rmSync(state, { recursive: true, force: true }))
  const { user, password, vhost } = broker
  const client = { name, address: '127.0.0.9', subscriptions: [], socket: { port }, http_socket: { enabled: false } }
  const settings = { client, rabbitmq: { port: proxy.port, user, password, vhost } }
  const start = (own: object = {}) =>
    new AgentProcess(t, {
      files: { 'agent.json': { ...settings, sensu_kvm: own } },
      args: [],
      env: { SENSU_KVM_STATE_DIR: state },
    })
  return { port, state, start }
}

/** Hands a document in through the agent's socket. */
async function submit(port: number, document: object): Promise<string> {
  const socket = connect(port, '127.0.0.1')
  const closed = once(socket, 'close')
  let answer = ''
  socket.on('data', data => {
    answer += data
  })
  socket.end(JSON.stringify(document))
  await closed
  return answer
}

function batch(prefix: string, count: number, output = 'o'): object[] {
  return Array.from({ length: count }, (_, n) => ({ name: `${prefix}-${n}`, output, status: 0 }))
}

function arrived(client: string): string[] {
  return server.results
    .map(({ text }) => JSON.parse(text))
    .filter(result => result.client === client)
    .map(result => result.check.name)
}

async function onDisk(directory: string, text: string): Promise<void> {
  for (;;) {
    const files = existsSync(directory) ? readdirSync(directory).filter(file => file.endsWith('.segment')) : []
    if (files.some(file => readFileSync(join(directory, file)).includes(text))) return
    await sleep(5)
  }
}

t.test('what an agent could not deliver before it was killed, its next process sends: all, once, in order', async t => {
  const { port, state, start } = await site(t, 'killed')
  proxy.accept()
  const first = start()
  await server.keepalive('killed')
  proxy.refuse()
  await first.log('reconnecting to transport')
  t.equal(await submit(port, batch('before', 300)), 'ok')
  await onDisk(join(state, 'spool-killed'), 'before-299')
  first.kill('SIGKILL')
  await first.exit

  const second = start()
  t.match(await second.log('undelivered check results found in the spool'), { results: 300 })
  proxy.accept()
  await server.result('before-299')
  t.equal(await submit(port, batch('after', 3)), 'ok')
  await server.result('after-2')
  const expected = [...batch('before', 300), ...batch('after', 3)].map(result => Reflect.get(result, 'name'))
  t.strictSame(arrived('killed'), expected)
  t.strictSame(await second.stop(), { status: 0, signal: null })
})

t.test('an agent that is stopped while it is disconnected keeps its results for the next', async t => {
  const { port, start } = await site(t, 'stopped')
  proxy.accept()
  const first = start()
  await server.keepalive('stopped')
  proxy.refuse()
  await first.log('reconnecting to transport')
  t.equal(await submit(port, batch('kept', 20)), 'ok')
  t.strictSame(await first.stop(), { status: 0, signal: null })
  t.match(await first.log('undelivered check results are kept in the spool'), { level: 'info', results: 20 })
  proxy.accept()
  start()
  await server.result('kept-19')
  t.strictSame(
    arrived('stopped'),
    batch('kept', 20).map(result => Reflect.get(result, 'name')),
  )
})

t.test('a full spool drops the oldest, says so once, and counts them', async t => {
  const { port, start } = await site(t, 'full')
  proxy.accept()
  const agent = start({ spool: { max_bytes: 1024 * 1024 } })
  await server.keepalive('full')
  proxy.refuse()
  await agent.log('reconnecting to transport')
  t.equal(await submit(port, batch('large', 300, 'x'.repeat(10_000))), 'ok')
  await agent.log('too many undelivered check results, dropping the oldest')
  proxy.accept()
  await server.result('large-299')
  const { dropped } = await agent.log('check results were dropped while they could not be delivered')
  const names = arrived('full')
  t.equal(names.length + Number(dropped), 300)
  t.ok(names.length >= 80, `${names.length} were kept`)
  t.strictSame(
    names,
    batch('large', 300)
      .map(result => Reflect.get(result, 'name'))
      .slice(-names.length),
  )
  const told = agent.lines.filter(({ message }) => message.startsWith('too many undelivered'))
  t.equal(told.length, 1)
})

t.test('without a usable directory results are kept in memory, and one warning says so', async t => {
  const { port, state, start } = await site(t, 'memory')
  writeFileSync(join(state, 'file'), '')
  proxy.accept()
  const agent = start({ spool: { directory: join(state, 'file') } })
  t.match(await agent.log('undelivered check results are kept in memory only'), { level: 'warn' })
  await server.keepalive('memory')
  proxy.refuse()
  await agent.log('reconnecting to transport')
  t.equal(await submit(port, batch('held', 5)), 'ok')
  proxy.accept()
  await server.result('held-4')
  t.equal(agent.lines.filter(({ message }) => message.includes('in memory only')).length, 1)
})

import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { findFreePort } from '../../scripts/services/process.js'
import { parseJson } from '../../sensu/json.js'
import { isObject } from '../../sensu/json-value.js'
import { withOwnDirectory } from '../support/own-directory.js'
import { rabbitmq } from '../support/services.js'
import { AgentProcess } from './agent-process.js'
import { ServerSide } from './server-side.js'
import { submit } from './submission.js'

const broker = await rabbitmq(t)
const server = await ServerSide.open(t, broker.url)

function start(t: Test, client: { name: string; [key: string]: unknown }, more: object = {}): AgentProcess {
  const sockets = { socket: { enabled: false }, http_socket: { enabled: false } }
  const settings = {
    client: { address: '127.0.0.9', subscriptions: [], ...sockets, ...client },
    rabbitmq: broker.url,
    ...more,
  }
  return new AgentProcess(withOwnDirectory(t), { files: { 'agent.json': settings }, args: [] })
}

/** The output of a check whose result has arrived, as it was on the wire. */
function outputBytes(name: string): Buffer {
  const received = server.results.find(({ text }) => JSON.parse(text).check.name === name)
  const result = parseJson(received?.content ?? '')
  const check = isObject(result) && isObject(result['check']) ? result['check'] : {}
  const { output } = check
  return Buffer.isBuffer(output) ? output : Buffer.from(String(output))
}

const largeBytes = 1024 * 1024

t.setTimeout(60_000)

t.test('a roundrobin queue of two agents: each request is executed once, by one of them, and both work', async t => {
  const queue = 'roundrobin:work'
  const agents = ['one', 'two'].map(name => start(t, { name, subscriptions: [queue] }))
  await server.consumers(queue, 2)
  const executions = join(t.testdir(), 'executions')
  const names = Array.from({ length: 200 }, (_, n) => `shared-${n}`)
  for (const name of names) {
    await server.request(queue, { name, command: `echo ${name} >> ${executions}` }, 'direct')
  }
  for (const name of names) await server.result(name)
  t.strictSame(readFileSync(executions, 'utf8').trim().split('\n').sort(), [...names].sort())
  for (const agent of agents) t.strictSame(await agent.stop(), { status: 0, signal: null })
  const received = server.results.map(({ text }) => JSON.parse(text)).filter(({ check }) => names.includes(check.name))
  t.equal(received.length, names.length)
  for (const client of ['one', 'two']) {
    const share = received.filter(result => result.client === client).length
    t.ok(share >= 50, `${client} executed ${share}`)
  }
})

t.test('an output of 1 MiB arrives byte by byte: of a command and from the sockets, UTF-8 or not', async t => {
  const [port, httpPort] = [await findFreePort(), await findFreePort()]
  const agent = start(t, { name: 'large', socket: { port }, http_socket: { port: httpPort } })
  // everything that JSON has to escape, two to four bytes a character, at every offset within a frame or a chunk of a pipe
  const alphabet = '\0\u0001\t\n\r\u001f "\\/\u007fäß€\u2028\ud83d\ude00x'
  const output = alphabet.repeat(largeBytes / Buffer.byteLength(alphabet)).padEnd(largeBytes)
  const utf8 = Buffer.from(output)
  const anyBytes = Buffer.from(Array.from({ length: largeBytes }, (_, n) => (n * 7 + (n >> 8)) % 256))
  for (const [name, bytes] of Object.entries({ utf8, 'any-bytes': anyBytes })) {
    writeFileSync(join(agent.directory, name), bytes)
    await server.request('client:large', { name, command: `cat ${name}` })
    await server.result(name)
    t.ok(outputBytes(name).equals(bytes), name)
  }
  t.equal(await submit(port, [{ name: 'submitted', output }]), 'ok')
  t.equal((await server.result('submitted')).check.output, output)
  // what JSON escapes is left out
  const unescaped = anyBytes.filter(byte => byte >= 0x20 && byte !== 0x22 && byte !== 0x5c)
  const documentOf = (name: string) =>
    Buffer.concat([Buffer.from(`{"name":"${name}","output":"`), unescaped, Buffer.from('"}')])
  t.equal(await submit(port, documentOf('bytes-tcp')), 'ok')
  const headers = { 'content-type': 'application/json' }
  const url = `http://127.0.0.1:${httpPort}/results`
  t.equal((await fetch(url, { method: 'POST', headers, body: documentOf('bytes-http') })).status, 202)
  for (const name of ['bytes-tcp', 'bytes-http']) {
    await server.result(name)
    t.ok(outputBytes(name).equals(unescaped), name)
  }
  t.strictSame(await agent.stop(), { status: 0, signal: null })
})

t.test(
  'TERM: what runs and what waits is completed, nothing new is begun, the socket takes results to the end',
  async t => {
    const port = await findFreePort()
    const client = { name: 'ending', socket: { port }, deregister: true }
    const agent = start(t, client, { sensu: { spawn: { limit: 2 } } })
    const begun = server.results.length
    const names = ['running-1', 'running-2', 'waiting-1', 'waiting-2']
    for (const name of names) {
      const command = `touch ${name}; while [ ! -e go ]; do sleep 0.02; done; echo ${name}`
      await server.request('client:ending', { name, command })
    }
    await Promise.all([agent.file('running-1'), agent.file('running-2'), agent.log('received check request', 4)])
    agent.kill('SIGTERM')
    t.match(await agent.log('completing checks in progress'), { checks_in_progress: names })
    await server.result('deregistration')
    // the agent does not wait until it is unsubscribed; what comes before that is dropped as a duplicate
    while (await server.offer('client:ending', { name: 'running-1', command: 'true' })) {}
    t.equal(await submit(port, [{ name: 'submitted', output: 'in time' }]), 'ok')
    await server.result('submitted')
    agent.kill('SIGTERM')
    await agent.log('received signal', 2)
    t.equal(agent.running, true)
    agent.touch('go')
    t.strictSame(await agent.exit, { status: 0, signal: null })
    const arrived = server.results.slice(begun).map(({ text }) => JSON.parse(text).check)
    const executed = arrived.filter(({ name }) => names.includes(name))
    t.strictSame(
      executed.map(({ name, output, status }) => ({ name, output, status })).sort((a, b) => (a.name < b.name ? -1 : 1)),
      names.map(name => ({ name, output: `${name}\n`, status: 0 })),
    )
    t.strictSame(
      arrived.filter(check => !executed.includes(check)).map(({ name }) => name),
      ['deregistration', 'submitted'],
    )
  },
)

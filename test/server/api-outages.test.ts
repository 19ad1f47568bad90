import { once } from 'node:events'
import { connect, createServer } from 'node:net'
import t from 'tap'
import { stringifyJson } from '../../sensu/json.js'
import type { Json } from '../../sensu/types.js'
import { at, fixture, object } from '../support/recorded-cases.js'
import { ask } from './http.js'
import { sameAnswer } from './recorded-api.js'
import { apiPort, ServerProcess, Site, until } from './site.js'

const api = { bind: '127.0.0.1', port: 0 }
const site = await Site.open(t)

t.test('recorded case redis-outage: without Redis there is nothing to answer from, and that is said', async t => {
  const server = await site.serve(site.settings({ api }), [])
  const port = await apiPort(server)
  const answered = async () => (await ask(port, 'GET', '/clients')).status_line
  t.equal(await answered(), 'HTTP/1.1 200 OK')
  await site.redisServer.kill()
  await server.log('reconnecting to redis')
  const { observed } = fixture('redis-outage')
  for (const path of ['/clients', '/health', '/settings', '/nope', '/info']) {
    const recorded = object(at(observed, 'api', path))
    // the original gives up its consumers
    const body = String(recorded['body']).replaceAll('"consumers":0', '"consumers":1')
    sameAnswer(t, await ask(port, 'GET', path), { ...recorded, body }, 'body', path)
  }
  sameAnswer(t, await ask(port, 'OPTIONS', '/clients'), at(observed, 'api', 'OPTIONS'), 'body', 'OPTIONS')
  await site.redisServer.restart()
  await until('an answer', async () => (await answered()) === 'HTTP/1.1 200 OK')
  t.strictSame(await server.stop(), { status: 0, signal: null })
})

t.test('a list during which Redis is lost is cut off, so that nobody takes it for a whole one', async t => {
  const server = new ServerProcess(t, site.settings({ api }), ['--api-only'])
  const result = JSON.stringify({ name: 'k', status: 0, output: 'o'.repeat(2000) })
  const seeding = site.redis.pipeline()
  for (let at = 0; at < 10_000; at++) {
    seeding.sadd('clients', `host-${at}`).sadd(`result:host-${at}`, 'k').set(`result:host-${at}:k`, result)
  }
  await seeding.exec()
  const port = await apiPort(server)
  await until('the connections', async () => (await ask(port, 'OPTIONS', '/')).status_line === 'HTTP/1.1 200 OK')
  const socket = connect(port, '127.0.0.1')
  socket.write('GET /results HTTP/1.1\r\n\r\n')
  const [beginning] = await once(socket, 'data')
  socket.pause()
  t.match(String(beginning), /^HTTP\/1\.1 200 OK\r\n.*\r\nTransfer-Encoding: chunked\r\n/s)
  await site.redisServer.kill()
  await server.log('unexpected api error')
  let end = ''
  socket.on('data', data => {
    end = String(data).slice(-20)
  })
  socket.on('error', () => {})
  socket.resume()
  await new Promise(resolve => socket.once('close', resolve))
  t.notMatch(end, /\]\r\n0\r\n\r\n$/)
  await site.redisServer.restart()
  await site.redis.flushall()
  t.strictSame(await server.stop(), { status: 0, signal: null })
})

t.test('recorded case rabbitmq-outage: without a broker there is nobody to tell, and that is said', async t => {
  const settings = site.settings({ api, rabbitmq: { host: '127.0.0.1', port: await closedPort() } })
  const server = new ServerProcess(t, settings, ['--api-only'])
  const port = await apiPort(server)
  const { observed } = fixture('rabbitmq-outage')
  for (const path of ['/clients', '/health', '/info']) {
    const recorded: Json = at(observed, 'api', path)
    // no server is at work here
    const body = String(at(recorded, 'body')).replace(/"servers":\[.*\]/, '"servers":[]')
    await site.redis.del('servers')
    sameAnswer(t, await ask(port, 'GET', path), { ...object(recorded), body }, 'body', path)
  }
  t.strictSame(await server.stop(), { status: 0, signal: null })
})

t.test(
  'recorded case rabbitmq-queues-without-server: the API answers, and queues that nobody consumes are empty',
  async t => {
    const server = new ServerProcess(t, site.settings({ api }), ['--api-only'])
    const port = await apiPort(server)
    await until('the connections', async () => (await ask(port, 'OPTIONS', '/')).status_line === 'HTTP/1.1 200 OK')
    t.match(await ask(port, 'GET', '/info'), {
      body: /"keepalives":\{"messages":0,"consumers":0\},"results":\{"messages":0,"consumers":0\},"connected":true/,
    })
    t.match(await ask(port, 'GET', '/health?consumers=1'), {
      status_line: 'HTTP/1.1 412 Precondition Failed',
      body: stringifyJson([
        'keepalive consumers (0) less than min_consumers (1)',
        'result consumers (0) less than min_consumers (1)',
      ]),
    })
    t.strictSame(await server.stop(), { status: 0, signal: null })
  },
)

t.test('an address that is taken ends the start, and the log says what to do', async t => {
  const taken = createServer().listen(0, '127.0.0.1')
  t.teardown(() => taken.close())
  await until('the other server', () => taken.listening)
  const address = taken.address()
  const port = typeof address === 'object' && address ? address.port : 0
  const server = new ServerProcess(t, site.settings({ api: { bind: '127.0.0.1', port } }), [])
  t.match(
    await server.log(
      `the HTTP API cannot listen on 127.0.0.1:${port}: something listens there already, perhaps sensu-api: stop it, give api.port another number, or start with --no-api`,
    ),
    {
      level: 'fatal',
    },
  )
  t.strictSame(await server.exit, { status: 1, signal: null })
})

/** A port on which nobody listens. */
async function closedPort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await until('a port', () => server.listening)
  const address = server.address()
  await new Promise(resolve => server.close(resolve))
  return typeof address === 'object' && address ? address.port : 0
}

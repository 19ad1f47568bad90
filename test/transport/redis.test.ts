import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { type AddressInfo, createServer } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { Redis } from 'ioredis'
import t, { type Test } from 'tap'
import { createCertificates } from '../../scripts/services/certificates.js'
import { findFreePort, waitUntil } from '../../scripts/services/process.js'
import { isObject } from '../../sensu/json-value.js'
import type { Json } from '../../sensu/types.js'
import { createTransport } from '../../transport/create.js'
import { RedisTransport, type RedisTransportOptions } from '../../transport/redis.js'
import type { Transport } from '../../transport/transport.js'
import { redis } from '../support/services.js'
import { Inbox } from './inbox.js'
import { RecordingLog } from './recording-log.js'
import { startSentinelGroup } from './redis-sentinel.js'
import { TcpProxy } from './tcp-proxy.js'

const server = await redis(t)
const observer = observe(t, server.port)
const fixtures = fileURLToPath(new URL('../../../test/fixtures/client/', import.meta.url))
let names = 0
const unique = (what: string) => `${what}-${++names}`

/** An independent look at a Redis. */
function observe(t: Test, port: number, db = 0): Redis {
  const client = new Redis({ port, db })
  client.on('error', () => {})
  t.teardown(() => client.disconnect())
  return client
}

function make(t: Test, settings: Json, options: Partial<RedisTransportOptions> = {}) {
  const log = new RecordingLog()
  const transport = new RedisTransport(settings, { log, reconnectDelayMs: () => 20, ...options })
  t.teardown(() => transport.close())
  return { transport, log }
}

async function open(t: Test, settings: Json = { port: server.port }, options: Partial<RedisTransportOptions> = {}) {
  const opened = make(t, settings, options)
  await opened.transport.connect()
  return opened
}

/** What a recorded client was configured with, and its log. */
function recording(name: string): { redis: Json; name: string; messages: string[] } {
  const { input, observed } = JSON.parse(readFileSync(`${fixtures}${name}.json`, 'utf8'))
  const { SENSU_TRANSPORT_NAME, REDIS_URL, REDIS_SENTINEL_URLS } = input.env ?? {}
  const lines: { message: string }[] = observed.log ?? observed.client_log
  return {
    redis: input.redis ?? input.conf?.redis ?? REDIS_URL ?? { sentinels: REDIS_SENTINEL_URLS },
    name: SENSU_TRANSPORT_NAME ?? input.transport.name,
    messages: lines.map(({ message }) => message),
  }
}

/** Publishes as the agent does: again, until Redis has confirmed it. */
async function publishAgain(transport: Transport, pipe: string, text: string): Promise<void> {
  const publish = async () => {
    await transport.publish('direct', pipe, Buffer.from(text))
    return true
  }
  await waitUntil('the publication is confirmed', publish, { timeoutMs: 30_000 })
}

t.test('keys, channels, message bodies and log lines are those of the recorded client', async t => {
  const { redis: settings, messages } = recording('redis_transport')
  if (!isObject(settings)) throw new Error('the recording has no redis settings')
  const { transport, log } = await open(t, { ...settings, port: server.port })
  const other = observe(t, server.port, 5)
  const inbox = new Inbox()
  await transport.subscribe('fanout', 'tsub', 'funnel', inbox.take)
  await transport.subscribe('direct', 'roundrobin:tsub', 'roundrobin:tsub', inbox.take)
  await transport.subscribe('fanout', 'client:probe-rd', 'funnel', inbox.take)
  t.equal(await other.publish('transport:5:channel:tsub', 'request 1'), 1)
  await inbox.until(1)
  await other.rpush('transport:5:list:roundrobin:tsub', 'request 2')
  await inbox.until(2)
  t.equal(await other.publish('transport:5:channel:client:probe-rd', 'request 3'), 1)
  t.strictSame(await inbox.until(3), ['request 1', 'request 2', 'request 3'])
  await transport.publish('direct', 'keepalives', Buffer.from('{"name":"probe-rd"}'))
  await transport.publish('direct', 'results', Buffer.from('{"client":"probe-rd"}'))
  t.strictSame((await other.keys('*')).sort(), ['transport:5:list:keepalives', 'transport:5:list:results'])
  t.strictSame(await other.lrange('transport:5:list:results', 0, -1), ['{"client":"probe-rd"}'])
  const subscribed = (message: string) => message.startsWith('subscribed to')
  t.strictSame(log.lines.map(({ message }) => message).filter(subscribed), messages.filter(subscribed))
})

t.test('unsubscribing is no error, and is told per channel', async t => {
  const { transport, log } = await open(t)
  transport.on('error', error => t.fail(`the transport told an error: ${error.message}`))
  const pipe = unique('fanout')
  await transport.subscribe('fanout', pipe, 'funnel', () => {})
  await transport.unsubscribeAll()
  t.equal(await observer.publish(`transport:0:channel:${pipe}`, 'x'), 0, 'nobody listens')
  t.match(log.at('debug').at(-1), { message: `unsubscribed from redis channel: transport:0:channel:${pipe}` })
  t.strictSame([...log.at('warn'), ...log.at('error')], [])
  t.equal(transport.connected, true)
})

t.test('the path of a URL is the database', async t => {
  const { redis: url } = recording('redis_transport_url')
  const { transport } = await open(t, String(url).replace(':6379', `:${server.port}`))
  await transport.publish('direct', 'urls', Buffer.from('x'))
  t.strictSame(await observe(t, server.port, 5).lrange('transport:5:list:urls', 0, -1), ['x'])
})

t.test('a message that arrives while its consumer stops goes back to the head of the list', async t => {
  const { transport } = await open(t)
  const pipe = unique('roundrobin')
  const key = `transport:0:list:${pipe}`
  const inbox = new Inbox()
  await transport.subscribe('direct', pipe, pipe, inbox.take)
  await transport.publish('direct', pipe, Buffer.from('first'))
  await inbox.until(1)
  const stopped = transport.unsubscribeAll()
  await observer.rpush(key, 'a', 'b', 'c')
  await stopped
  t.strictSame(await observer.lrange(key, 0, -1), ['a', 'b', 'c'])
  t.strictSame(inbox.texts, ['first'])
})

/** Resolves when so many clients wait at the lists of the shared Redis. */
async function waiting(count: number): Promise<void> {
  const reached = async () =>
    (await observer.info('clients')).includes(`blocked_clients:${count}\r`) ? true : undefined
  await waitUntil(`${count} clients wait`, reached, { timeoutMs: 5000, intervalMs: 10 })
}

t.test('neither is a message lost when the transport closes before its consumers have stopped', async t => {
  const { transport } = await open(t)
  const pipe = unique('roundrobin')
  await transport.subscribe('direct', pipe, pipe, () => {
    t.fail('delivered after unsubscribing')
  })
  await waiting(1)
  void transport.unsubscribeAll()
  const closed = transport.close()
  await observer.rpush(`transport:0:list:${pipe}`, 'x')
  await closed
  t.strictSame(await observer.lrange(`transport:0:list:${pipe}`, 0, -1), ['x'])
})

t.test(
  'Redis stops waiting for a consumer that died unnoticed, before anybody notices, and keeps the messages',
  async t => {
    const proxy = await TcpProxy.start(server.port)
    t.teardown(() => proxy.stop())
    const { transport } = await open(t, { port: proxy.port })
    const pipe = unique('roundrobin')
    const key = `transport:0:list:${pipe}`
    await transport.subscribe('direct', pipe, pipe, () => {})
    await waiting(1)
    proxy.freeze()
    await waiting(0)
    t.equal(transport.connected, true)
    await observer.rpush(key, 'a', 'b')
    t.strictSame(await observer.lrange(key, 0, -1), ['a', 'b'])
  },
)

t.test('a connection that dies unnoticed is found out, and costs one message of a list at most', async t => {
  const proxy = await TcpProxy.start(server.port)
  t.teardown(() => proxy.stop())
  const { transport, log } = await open(t, { port: proxy.port }, { silenceTimeoutMs: 1500 })
  const pipe = unique('roundrobin')
  const key = `transport:0:list:${pipe}`
  const inbox = new Inbox()
  await transport.subscribe('direct', pipe, pipe, inbox.take)
  const lost = once(transport, 'lost')
  await waiting(1)
  proxy.freeze()
  for (const text of ['a', 'b', 'c']) await observer.rpush(key, text)
  await lost
  t.match(log.at('warn'), [{ message: 'transport connection error', error: /didn't receive any in 1500ms/ }])
  const left = await observer.lrange(key, 0, -1)
  t.strictSame(left.slice(-2), ['b', 'c'], 'a may have been on its way, nothing else was taken')
  if (!transport.connected) await once(transport, 'restored')
  await transport.subscribe('direct', pipe, pipe, inbox.take)
  t.strictSame(await inbox.until(left.length), left)
})

t.test('Redis killed and started again: told, restored, working', async t => {
  const own = await redis(t, { durable: true })
  const { transport, log } = await open(t, { port: own.port })
  const inbox = new Inbox()
  await transport.subscribe('direct', 'roundrobin:x', 'roundrobin:x', inbox.take)
  await transport.publish('direct', 'results', Buffer.from('1'))
  const [lost, restored] = [once(transport, 'lost'), once(transport, 'restored')]
  await own.kill()
  await lost
  t.match(log.at('warn'), [{ message: 'transport connection error', reason: 'tcp connection lost' }])
  await own.restart()
  await restored
  await transport.publish('direct', 'results', Buffer.from('2'))
  await transport.subscribe('direct', 'roundrobin:x', 'roundrobin:x', inbox.take)
  await transport.publish('direct', 'roundrobin:x', Buffer.from('x'))
  t.strictSame(await inbox.until(1), ['x'])
  t.strictSame(await observe(t, own.port).lrange('transport:0:list:results', 0, -1), ['1', '2'])
})

t.test('a wrong password is named, and tried again until it is right', async t => {
  const own = await redis(t, { password: 'right' })
  const { redis: recorded } = recording('redis_transport_badpass')
  if (!isObject(recorded)) throw new Error('the recording has no redis settings')
  for (const settings of [{ ...recorded, port: own.port }, { port: own.port }]) {
    const { transport, log } = make(t, settings)
    transport.connect().catch(() => {})
    t.match(await log.next('error', 1), {
      message: 'redis connection error',
      reason: 'possible authentication failure. wrong credentials?',
      host: `127.0.0.1:${own.port}`,
      user: 'default',
    })
    t.equal(transport.connected, false)
    t.notMatch(JSON.stringify(log.lines), /"x"/, 'the password is not logged')
    await transport.close()
  }
  const { transport, log } = make(t, { port: own.port, password: 'new' })
  const connected = transport.connect()
  await log.next('error', 1)
  const admin = new Redis({ port: own.port, password: 'right' })
  t.teardown(() => admin.disconnect())
  await admin.config('SET', 'requirepass', 'new')
  await connected
  await transport.publish('direct', 'results', Buffer.from('x'))
})

t.test('users of their own and passwords in URLs work', async t => {
  await observer.acl('SETUSER', 'agent', 'on', '>s3:cret', '~transport:*', '&transport:0:channel:*', '+@all')
  const { transport } = await open(t, `redis://agent:s3%3Acret@127.0.0.1:${server.port}`)
  const pipe = unique('roundrobin')
  const inbox = new Inbox()
  await transport.subscribe('direct', pipe, pipe, inbox.take)
  await transport.publish('direct', pipe, Buffer.from('x'))
  t.strictSame(await inbox.until(1), ['x'], 'although it may not make itself countable')
})

t.test('a refused connection is told once, a name that does not resolve too', async t => {
  const { redis: recorded } = recording('redis_transport_refused')
  if (!isObject(recorded)) throw new Error('the recording has no redis settings')
  const { transport, log } = make(t, { ...recorded, port: 1 })
  const rejected = t.rejects(transport.connect(), { code: 'closed' })
  await log.next('debug', 3)
  t.strictSame(log.at('error'), [
    {
      message: 'redis connection error',
      reason: 'unable to connect to redis',
      host: '127.0.0.1:1',
      error: 'connect ECONNREFUSED 127.0.0.1:1',
    },
  ])
  await transport.close()
  await rejected
  const unknown = make(t, { host: 'no-such-host.invalid' })
  unknown.transport.connect().catch(() => {})
  t.match(await unknown.log.next('error', 1), {
    message: 'redis connection error',
    reason: 'unable to resolve hostname',
    host: 'no-such-host.invalid:6379',
  })
})

t.test('what answers but is no Redis, and what never answers, is given up and tried again', async t => {
  for (const answer of [undefined, 'HTTP/1.1 400 Bad Request\r\n\r\n', '$999999999\r\n']) {
    let connections = 0
    let third: () => void = () => {}
    const tried = new Promise<void>(resolve => {
      third = resolve
    })
    const impostor = createServer(socket => {
      socket.on('error', () => {})
      if (answer) socket.write(answer)
      if (++connections === 3) third()
    }).listen(0, '127.0.0.1')
    t.teardown(() => impostor.close())
    await once(impostor, 'listening')
    const { port } = impostor.address() as AddressInfo
    const { transport } = make(t, { port }, { silenceTimeoutMs: 200 })
    transport.connect().catch(() => {})
    await tried
    t.equal(transport.connected, false)
    await transport.close()
  }
})

t.test('an error reply is told once per connection, refuses the publication, and reconnect() goes on', async t => {
  const { transport } = await open(t)
  const pipe = unique('results')
  const key = `transport:0:list:${pipe}`
  await observer.set(key, 'not a list')
  const errors: string[] = []
  transport.on('error', error => errors.push(`${error.code} ${error.message}`))
  for (const _ of [1, 2]) await t.rejects(transport.publish('direct', pipe, Buffer.from('x')), { code: 'refused' })
  const reply = /^channel redis returned error code: WRONGTYPE/
  t.match(errors, [reply])
  t.equal(errors.length, 1)
  t.equal(transport.connected, true)
  const restored = once(transport, 'restored')
  transport.reconnect()
  await restored
  await t.rejects(transport.publish('direct', pipe, Buffer.from('x')), { code: 'refused' })
  t.equal(errors.length, 2)
  await observer.del(key)
  await transport.publish('direct', pipe, Buffer.from('x'))
})

t.test('a list that cannot be consumed is told', async t => {
  const { transport } = await open(t)
  const pipe = unique('roundrobin')
  await observer.set(`transport:0:list:${pipe}`, 'not a list')
  const told = once(transport, 'error')
  await transport.subscribe('direct', pipe, pipe, () => {})
  const [error] = await told
  t.match(error, { code: 'channel', message: /WRONGTYPE/ })
})

t.test('topics, which Redis does not have, are refused', async t => {
  const { transport } = await open(t)
  await t.rejects(transport.publish('topic', 'x', Buffer.from('x')), { code: 'refused' })
  await t.rejects(
    transport.subscribe('topic', 'x', 'x', () => {}),
    { code: 'refused' },
  )
})

t.test('a Redis that becomes a replica is left, and taken again when it is a master', async t => {
  const own = await redis(t)
  const admin = observe(t, own.port)
  const { transport } = await open(t, { port: own.port })
  const lost = once(transport, 'lost')
  await admin.replicaof('127.0.0.1', '1')
  await t.rejects(transport.publish('direct', 'results', Buffer.from('x')), { code: 'disconnected' })
  await lost
  await admin.replicaof('NO', 'ONE')
  await publishAgain(transport, 'results', 'x')
})

t.test('TLS: the server is verified when there is an authority, and only then', async t => {
  const { authority, client, server: own } = await createCertificates(t.testdir())
  const port = await findFreePort()
  const files = ['--tls-cert-file', own.certificate, '--tls-key-file', own.key, '--tls-ca-cert-file', authority]
  await redis(t, { settings: ['--tls-port', String(port), ...files] })
  const tls = { ca_file: authority, cert_chain_file: client.certificate, private_key_file: client.key }
  const { transport } = await open(t, { host: 'localhost', port, tls })
  await transport.publish('direct', 'results', Buffer.from('x'))
  const other = await createCertificates(`${t.testdirName}/other`)
  const wrong = make(t, { host: 'localhost', port, tls: { ...tls, ca_file: other.authority } })
  wrong.transport.connect().catch(() => {})
  t.match(await wrong.log.next('error', 1), {
    message: 'redis connection error',
    reason: 'the certificate is not trusted',
    error: /certificate/,
  })
  const { log } = await open(t, { host: 'localhost', port, tls: { ...tls, ca_file: null } })
  t.match(log.at('warn'), [{ message: 'the certificate of the server is not verified', host: `localhost:${port}` }])
})

t.test('sentinels that cannot be reached, or do not know the group, are named', async t => {
  for (const name of ['redis_transport_array', 'redis_transport_string']) {
    const { redis: recorded } = recording(name)
    const { transport, log } = make(t, JSON.parse(JSON.stringify(recorded).replace('26999', '1')))
    transport.connect().catch(() => {})
    t.match(await log.next('error', 1), {
      message: 'redis connection error',
      reason: 'unable to determine redis master',
      error: /ECONNREFUSED|failed to connect to sentinel 127.0.0.1:1/,
    })
    await transport.close()
  }
})

t.test('a fail-over by sentinels: lost, restored at the new master, nothing confirmed is gone', async t => {
  const { group, sentinelPort, master, replica } = await startSentinelGroup(t)
  const dead = { host: '127.0.0.1', port: 1 }
  const byUrl = make(t, { sentinels: `redis://127.0.0.1:1,redis://127.0.0.1:${sentinelPort}`, master: group })
  const unknown = make(t, { sentinels: [{ port: sentinelPort }], master: 'other' })
  unknown.transport.connect().catch(() => {})
  t.match(await unknown.log.next('error', 1), { reason: 'unable to determine redis master', error: /No such master/ })
  const { transport } = await open(t, { sentinels: [dead, { port: sentinelPort }], master_group: group })
  await byUrl.transport.connect()
  const inbox = new Inbox()
  await transport.subscribe('fanout', 'all', 'funnel', inbox.take)
  const texts = Array.from({ length: 200 }, (_, index) => `${index}`)
  for (const text of texts.slice(0, 100)) await transport.publish('direct', 'results', Buffer.from(text))
  await observe(t, master.port).wait(1, 5000)
  const restored = [once(transport, 'restored'), once(byUrl.transport, 'restored')]
  await master.kill()
  for (const text of texts.slice(100)) await publishAgain(transport, 'results', text)
  await Promise.all(restored)
  const promoted = observe(t, replica.port)
  t.strictSame(await promoted.lrange('transport:0:list:results', 0, -1), texts)
  await transport.subscribe('fanout', 'all', 'funnel', inbox.take)
  await byUrl.transport.publish('fanout', 'all', Buffer.from('after'))
  t.strictSame(await inbox.until(1), ['after'])
})

t.test('closing ends an attempt at once, also one that hangs', async t => {
  const silent = createServer().listen(0, '127.0.0.1')
  await once(silent, 'listening')
  t.teardown(() => silent.close())
  const { port } = silent.address() as AddressInfo
  for (const settings of [{ port }, { sentinels: [{ port }] }]) {
    const { transport } = make(t, settings)
    const rejected = t.rejects(transport.connect(), { code: 'closed' })
    const accepted = once(silent, 'connection')
    await accepted
    const closed = await Promise.race([transport.close().then(() => true), sleep(2000, false, { ref: false })])
    t.equal(closed, true)
    await rejected
  }
})

t.test('createTransport takes the transport by its name', async t => {
  const { name, redis: recorded } = recording('redis_transport')
  const settings = {
    ...{ client: { name: 'c', address: 'a', subscriptions: [] }, sensu: { spawn: { limit: 1 } } },
    ...{ checks: {}, filters: {}, mutators: {}, handlers: {}, extensions: {} },
    redis: recorded,
  }
  const create = (transport: string) =>
    createTransport(
      {
        ...settings,
        sensu: { ...settings.sensu, keepalives: {} },
        transport: { name: transport, reconnect_on_error: true },
      },
      new RecordingLog(),
    )
  t.type(await create(name), RedisTransport)
  await t.rejects(create('kafka'), {
    code: 'configuration',
    message: 'there is no transport "kafka": transport name must be rabbitmq or redis',
  })
})

t.test('settings that cannot work are refused at once, by name', async t => {
  t.throws(() => make(t, { port: 'x' }), { code: 'configuration', message: 'redis port must be a whole number' })
  t.throws(() => make(t, 'http://x'), { code: 'configuration', message: /^redis has the scheme http:/ })
})

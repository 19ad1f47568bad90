import { once } from 'node:events'
import { type AddressInfo, createServer } from 'node:net'
import { connect } from 'amqplib'
import t, { type Test } from 'tap'
import { createCertificates } from '../../scripts/services/certificates.js'
import { RabbitmqTransport } from '../../transport/rabbitmq.js'
import { TransportError } from '../../transport/transport.js'
import { ownRabbitmq } from '../support/services.js'
import { Inbox } from './inbox.js'
import { RecordingLog } from './recording-log.js'
import { TcpProxy } from './tcp-proxy.js'

const broker = await ownRabbitmq(t, { tls: true })

const [vhost = '/'] = broker.vhosts
const settings = { host: broker.host, port: broker.port, vhost, user: broker.user, password: broker.password }
const quickly = () => 20
let names = 0
/** A name nobody else uses. */
const unique = (what: string) => `${what}-${++names}`

/** A transport to the private broker that ends with the test. */
function open(t: Test, overrides: Record<string, unknown> = {}, options: { maxUnconfirmed?: number } = {}) {
  return openWith(t, { ...settings, ...overrides }, options)
}

function openWith(t: Test, rabbitmq: unknown, options: { maxUnconfirmed?: number } = {}) {
  const log = new RecordingLog()
  const transport = new RabbitmqTransport(rabbitmq, { log, reconnectDelayMs: quickly, ...options })
  transport.on('error', () => {})
  t.teardown(() => transport.close())
  return { transport, log }
}

/** An independent look at the broker. */
async function observer(t: Test) {
  const connection = await connect({
    ...settings,
    hostname: broker.host,
    username: broker.user,
    vhost: encodeURIComponent(vhost),
  })
  t.teardown(() => connection.close())
  const channel = await connection.createChannel()
  channel.on('error', () => {})
  return channel
}

t.test('a published message carries what Sensu sends and nothing more', async t => {
  const { transport } = open(t)
  await transport.connect()
  const pipe = unique('props')
  const channel = await observer(t)
  await channel.assertExchange(pipe, 'direct', { durable: false, autoDelete: false })
  const { queue } = await channel.assertQueue('', { exclusive: true })
  await channel.bindQueue(queue, pipe, '')
  await transport.publish('direct', pipe, Buffer.from('{"a":1}'))
  const message = await channel.get(queue, { noAck: true })
  if (message === false) throw new Error('the confirmed message is not in the queue')
  t.equal(message.content.toString(), '{"a":1}')
  t.equal(message.fields.routingKey, '')
  const { headers, ...properties } = message.properties
  t.strictSame(JSON.parse(JSON.stringify(properties)), {
    contentType: 'application/octet-stream',
    deliveryMode: 1,
    priority: 0,
  })
  t.strictSame({ ...headers }, {})
})

t.test('exchanges and queues are declared as Sensu declares them', async t => {
  const { transport } = open(t)
  await transport.connect()
  const [fanout, shared, funnel] = [unique('fan'), unique('roundrobin:x'), unique('client-1.9.0-1')]
  await transport.subscribe('fanout', fanout, funnel, () => {})
  await transport.subscribe('direct', shared, shared, () => {})
  const channel = await observer(t)
  // the broker refuses a declaration that differs from the existing one
  await channel.assertExchange(fanout, 'fanout', { durable: false, autoDelete: false })
  await channel.assertExchange(shared, 'direct', { durable: false, autoDelete: false })
  for (const queue of [funnel, shared]) {
    const { consumerCount } = await channel.assertQueue(queue, { durable: false, autoDelete: true, exclusive: false })
    t.equal(consumerCount, 1)
  }
})

t.test("somebody else's exchange is declared as is said, or not at all", async t => {
  const { transport } = open(t)
  await transport.connect()
  const channel = await observer(t)
  const [durable, existing] = [unique('durable'), unique('existing')]
  await channel.assertExchange(existing, 'topic', { durable: true, autoDelete: true })
  const { queue } = await channel.assertQueue('', { exclusive: true })
  await channel.bindQueue(queue, existing, '#')
  await transport.publish('topic', existing, Buffer.from('1'), { passive: true })
  await transport.publish('fanout', durable, Buffer.from('2'), {
    durable: true,
    arguments: { 'alternate-exchange': existing },
  })
  for (const text of ['1', '2']) {
    const message = await channel.get(queue, { noAck: true })
    t.equal(message ? message.content.toString() : message, text)
  }
  await channel.assertExchange(durable, 'fanout', { durable: true, autoDelete: false, alternateExchange: existing })
})

t.test('several fanout pipes share one queue and one consumer', async t => {
  const { transport } = open(t)
  await transport.connect()
  const [first, second, funnel] = [unique('fan'), unique('fan'), unique('funnel')]
  const inbox = new Inbox()
  await transport.subscribe('fanout', first, funnel, inbox.take)
  await transport.subscribe('fanout', second, funnel, inbox.take)
  await transport.publish('fanout', first, Buffer.from('1'))
  await transport.publish('fanout', second, Buffer.from('2'))
  t.strictSame(await inbox.until(2), ['1', '2'])
  t.strictSame(await transport.stats(funnel), { messages: 0, consumers: 1 })
})

t.test('a direct pipe gives each message to one of its consumers', async t => {
  const [a, b] = [open(t).transport, open(t).transport]
  await Promise.all([a.connect(), b.connect()])
  const pipe = unique('roundrobin:web')
  const [inboxA, inboxB] = [new Inbox(), new Inbox()]
  await a.subscribe('direct', pipe, pipe, inboxA.take)
  await b.subscribe('direct', pipe, pipe, inboxB.take)
  for (const text of ['1', '2', '3', '4']) await a.publish('direct', pipe, Buffer.from(text))
  await Promise.all([inboxA.until(2), inboxB.until(2)])
  t.strictSame([...inboxA.texts, ...inboxB.texts].sort(), ['1', '2', '3', '4'])
})

t.test('with acknowledgements a message whose handler has not finished survives the consumer', async t => {
  const [a, b] = [open(t).transport, open(t).transport]
  await Promise.all([a.connect(), b.connect()])
  const pipe = unique('acknowledged')
  let started: () => void = () => {}
  const handling = new Promise<void>(resolve => {
    started = resolve
  })
  const neverEnding = () => {
    started()
    return new Promise<void>(() => {})
  }
  await b.publish('direct', pipe, Buffer.from('dropped without a queue, as Sensu does'))
  await a.subscribe('direct', pipe, pipe, () => neverEnding(), { acknowledge: true })
  const inbox = new Inbox()
  await b.publish('direct', pipe, Buffer.from('work'))
  await handling
  await b.subscribe('direct', pipe, pipe, inbox.take, { acknowledge: true })
  await a.close()
  t.strictSame(await inbox.until(1), ['work'])
})

t.test('unsubscribeAll ends deliveries, and subscribing again works', async t => {
  const { transport } = open(t)
  await transport.connect()
  const [pipe, funnel] = [unique('fan'), unique('funnel')]
  await transport.subscribe('fanout', pipe, funnel, () => {
    t.fail('delivered after unsubscribing')
  })
  await transport.unsubscribeAll()
  const inbox = new Inbox()
  await transport.subscribe('fanout', pipe, funnel, inbox.take)
  await transport.publish('fanout', pipe, Buffer.from('x'))
  t.strictSame(await inbox.until(1), ['x'])
})

t.test(
  'an exchange of another type is told as a channel error, and reconnect() makes everything work again',
  async t => {
    const { transport } = open(t)
    await transport.connect()
    const told = once(transport, 'error')
    await t.rejects(transport.subscribe('fanout', 'amq.direct', unique('funnel'), () => {}))
    const [error] = await told
    t.match(error, { code: 'channel', message: 'rabbitmq channel error' })
    const restored = once(transport, 'restored')
    transport.reconnect()
    await restored
    await transport.publish('direct', unique('again'), Buffer.from('x'))
  },
)

t.test('losing one of the two connections rebuilds both', async t => {
  const proxy = await TcpProxy.start(broker.port)
  t.teardown(() => proxy.stop())
  const { transport, log } = open(t, { port: proxy.port })
  await transport.connect()
  t.equal(proxy.accepted, 2)
  const [lost, restored] = [once(transport, 'lost'), once(transport, 'restored')]
  proxy.cut(0)
  await lost
  t.equal(transport.connected, false)
  await restored
  t.equal(proxy.accepted, 4)
  t.strictSame(log.at('warn'), [{ message: 'transport connection error', reason: 'tcp connection lost' }])
})

t.test('publications under way when the connection goes are rejected, never forgotten', async t => {
  const proxy = await TcpProxy.start(broker.port)
  t.teardown(() => proxy.stop())
  const { transport } = open(t, { port: proxy.port })
  await transport.connect()
  const pipe = unique('results')
  await transport.publish('direct', pipe, Buffer.from('declared'))
  proxy.freeze()
  const outcomes = Promise.allSettled([1, 2, 3].map(n => transport.publish('direct', pipe, Buffer.from(`${n}`))))
  proxy.refuse()
  for (const outcome of await outcomes) {
    t.match(outcome, { status: 'rejected', reason: { name: 'TransportError', code: 'disconnected' } })
  }
  await t.rejects(transport.publish('direct', pipe, Buffer.from('x')), { code: 'disconnected' })
  proxy.accept()
  await once(transport, 'restored')
  await transport.publish('direct', pipe, Buffer.from('x'))
})

t.test('pauses between attempts follow the number of the attempt, and start anew after a success', async t => {
  const proxy = await TcpProxy.start(broker.port)
  t.teardown(() => proxy.stop())
  const attempts: number[] = []
  let enough: () => void = () => {}
  const three = new Promise<void>(resolve => {
    enough = resolve
  })
  const transport = new RabbitmqTransport(
    { ...settings, port: proxy.port },
    {
      log: new RecordingLog(),
      reconnectDelayMs: attempt => {
        attempts.push(attempt)
        if (attempts.length === 3) enough()
        return 10
      },
    },
  )
  t.teardown(() => transport.close())
  await transport.connect()
  proxy.refuse()
  await three
  const restored = once(transport, 'restored')
  proxy.accept()
  await restored
  const before = attempts.length
  proxy.cut(proxy.accepted - 1)
  await once(transport, 'restored')
  t.strictSame(attempts.slice(0, 3), [1, 2, 3])
  t.equal(attempts[before], 1)
})

t.test('a broker that falls silent is noticed by its missing heartbeats', async t => {
  const proxy = await TcpProxy.start(broker.port)
  t.teardown(() => proxy.stop())
  const { transport, log } = open(t, { port: proxy.port, heartbeat: 1 })
  await transport.connect()
  proxy.freeze()
  await once(transport, 'lost')
  t.match(log.at('error'), [{ message: '[amqp] Detected missing amqp heartbeats' }])
  t.match(log.at('warn'), [{ message: 'transport connection error', reason: 'skipped heartbeats' }])
})

t.test('wrong credentials and a vhost that is not there are named, and tried again', async t => {
  for (const overrides of [{ password: 'wrong' }, { vhost: '/nowhere' }]) {
    const { transport, log } = open(t, overrides)
    transport.connect().catch(() => {})
    const line = await log.next('warn', 3) // one per connection, and again at the next attempt
    t.strictSame(line, {
      message: 'transport connection error',
      reason: 'possible authentication failure. wrong credentials?',
      user: broker.user,
    })
    await transport.close()
  }
})

t.test('a refused connection and a name that does not resolve are named', async t => {
  const refused = open(t, { port: 1 })
  refused.transport.connect().catch(() => {})
  t.match(await refused.log.next('error', 1), {
    message: '[amqp] Detected TCP connection failure: Errno::ECONNREFUSED',
    host: broker.host,
    port: 1,
  })
  const unknown = open(t, { host: 'no-such-host.invalid' })
  unknown.transport.connect().catch(() => {})
  t.match(await unknown.log.next('error', 1), {
    message: 'transport connection error',
    reason: 'unable to resolve hostname',
    host: 'no-such-host.invalid',
  })
})

t.test('of several brokers a dead one is passed over', async t => {
  const dead = { ...settings, port: 1 }
  const { transport } = openWith(t, [dead, broker.url(), dead])
  await transport.connect()
  t.equal(transport.connected, true)
})

t.test('what answers but is no broker is given up after the time limit or at once, and tried again', async t => {
  for (const answer of [
    undefined,
    'HTTP/1.1 400 Bad Request\r\n\r\n',
    Buffer.from([1, 0, 0, 0xff, 0xff, 0xff, 0xff]),
  ]) {
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
    const { transport } = open(t, { port, timeout: 0.2 })
    transport.connect().catch(() => {})
    await tried
    t.equal(transport.connected, false)
    await transport.close()
  }
})

t.test('close() while there is no connection ends the attempts and rejects connect()', async t => {
  const { transport } = open(t, { port: 1 })
  const connecting = transport.connect()
  const rejected = t.rejects(connecting, { code: 'closed' })
  await transport.close()
  await rejected
  await t.rejects(transport.connect(), { code: 'closed' })
})

t.test('unconfirmed publications are bounded', async t => {
  const { transport } = open(t, {}, { maxUnconfirmed: 2 })
  await transport.connect()
  const pipe = unique('bounded')
  const outcomes = await Promise.allSettled(['1', '2', '3'].map(x => transport.publish('direct', pipe, Buffer.from(x))))
  t.strictSame(
    outcomes.map(({ status }) => status),
    ['fulfilled', 'fulfilled', 'rejected'],
  )
  t.match(outcomes[2], { reason: { code: 'overloaded' } })
  await transport.publish('direct', pipe, Buffer.from('4'))
})

t.test('TLS: the broker is verified when there is an authority, and only then', async t => {
  const { tls } = broker
  if (!tls) throw new Error('the broker has no TLS')
  const other = await createCertificates(t.testdir())
  const { authority, client } = tls.certificates
  const own = { cert_chain_file: client.certificate, private_key_file: client.key }
  const secure = (ssl: object) => open(t, { host: 'localhost', port: tls.port, ssl: { ...own, ...ssl } })
  await secure({}).transport.connect()
  await secure({ ca_file: authority }).transport.connect()
  for (const ssl of [{ verify_peer: true }, { ca_file: other.authority }]) {
    const { transport, log } = secure(ssl)
    transport.connect().catch(() => {})
    t.match(await log.next('error', 1), { message: 'transport connection error', error: /certificate/ })
    await transport.close()
  }
})

t.test('TLS: a broker that wants a certificate refuses a client without one', async t => {
  const { transport, log } = open(t, { host: 'localhost', port: broker.tls?.port, ssl: true })
  transport.connect().catch(() => {})
  t.match(await log.next('error', 1), { message: 'transport connection error', error: /certificate required/ })
  t.equal(transport.connected, false)
})

t.test('settings that cannot work are refused at once, by name', async t => {
  const refuses = (rabbitmq: unknown, message: string) => {
    const make = () => new RabbitmqTransport(rabbitmq, { log: new RecordingLog() })
    t.throws(make, new TransportError('configuration', message))
  }
  refuses([], 'rabbitmq must name at least one broker, got []')
  refuses('http://x', 'rabbitmq must be a URL like amqp://user:password@host:5672/%2Fvhost')
  refuses({ port: 'x' }, 'rabbitmq port must be a number')
  refuses({ host: 5 }, 'rabbitmq host must be a string')
  refuses(7, 'rabbitmq must be a hash, a URL string, or an array of these')
  refuses({ ssl: { cert_chain_file: '/nowhere' } }, 'rabbitmq ssl cert_chain_file cannot be read: /nowhere')
})

t.test('a broker killed and started again: told, restored, working', async t => {
  const { transport } = open(t)
  await transport.connect()
  const [lost, restored] = [once(transport, 'lost'), once(transport, 'restored')]
  await broker.kill()
  await lost
  await broker.restart()
  await restored
  const inbox = new Inbox()
  const pipe = unique('fan')
  await transport.subscribe('fanout', pipe, unique('funnel'), inbox.take)
  await transport.publish('fanout', pipe, Buffer.from('x'))
  t.strictSame(await inbox.until(1), ['x'])
})

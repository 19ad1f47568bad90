// What every transport does, whatever carries it. Both implementations run the same suite over the real server.
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import t, { type Test } from 'tap'
import { RabbitmqTransport } from '../../transport/rabbitmq.js'
import { RedisTransport } from '../../transport/redis.js'
import type { Transport } from '../../transport/transport.js'
import { rabbitmq, redis } from '../support/services.js'
import { Inbox } from './inbox.js'
import { RecordingLog } from './recording-log.js'
import { TcpProxy } from './tcp-proxy.js'

interface Options {
  maxUnconfirmed?: number
}

interface Implementation {
  name: string
  serverPort: number
  make(port: number, log: RecordingLog, options: Options): Transport
}

const reconnectDelayMs = () => 20
const broker = await rabbitmq(t)
const redisServer = await redis(t)
const implementations: Implementation[] = [
  {
    name: 'RabbitMQ',
    serverPort: broker.port,
    make: (port, log, options) => new RabbitmqTransport({ ...broker, port }, { log, reconnectDelayMs, ...options }),
  },
  {
    name: 'Redis',
    serverPort: redisServer.port,
    make: (port, log, options) => new RedisTransport({ port }, { log, reconnectDelayMs, ...options }),
  },
]

let names = 0
const unique = (what: string) => `${what}-${++names}`
const numbers = (count: number) => Array.from({ length: count }, (_, index) => `${index + 1}`)

/** A handler that keeps its first message for itself until released. */
function slowHandler() {
  const inbox = new Inbox()
  let release: () => void = () => {}
  const released = new Promise<void>(resolve => {
    release = resolve
  })
  const take = (message: Buffer) => {
    inbox.take(message)
    return released
  }
  return { inbox, take, release }
}

for (const { name, serverPort, make } of implementations) {
  const open = async (t: Test, port = serverPort, options: Options = {}) => {
    const log = new RecordingLog()
    const transport = make(port, log, options)
    transport.on('error', error => t.fail(`the transport told an error: ${error.message}`))
    t.teardown(() => transport.close())
    await transport.connect()
    return transport
  }

  const openBehindProxy = async (t: Test) => {
    const proxy = await TcpProxy.start(serverPort)
    t.teardown(() => proxy.stop())
    return { proxy, transport: await open(t, proxy.port) }
  }

  t.test(`${name}: a direct pipe keeps every byte and the order`, async t => {
    const [sender, receiver] = [await open(t), await open(t)]
    const pipe = unique('direct')
    const inbox = new Inbox()
    await receiver.subscribe('direct', pipe, pipe, inbox.take)
    const binary = Buffer.concat([Buffer.from([0, 255, 13, 10]), randomBytes(1024 * 1024)])
    await sender.publish('direct', pipe, binary)
    await Promise.all(numbers(500).map(text => sender.publish('direct', pipe, Buffer.from(text))))
    const texts = await inbox.until(501)
    t.ok(inbox.messages[0]?.equals(binary))
    t.strictSame(texts.slice(1), numbers(500))
  })

  t.test(`${name}: a fanout pipe gives each message to every funnel`, async t => {
    const [sender, a, b] = [await open(t), await open(t), await open(t)]
    const pipe = unique('fanout é')
    const [inboxA, inboxB] = [new Inbox(), new Inbox()]
    await a.subscribe('fanout', pipe, unique('funnel'), inboxA.take)
    await b.subscribe('fanout', pipe, unique('funnel'), inboxB.take)
    for (const text of numbers(3)) await sender.publish('fanout', pipe, Buffer.from(text))
    t.strictSame(await inboxA.until(3), numbers(3))
    t.strictSame(await inboxB.until(3), numbers(3))
  })

  t.test(`${name}: several fanout pipes share a funnel and its handler`, async t => {
    const transport = await open(t)
    const [first, second, funnel] = [unique('fanout'), unique('fanout'), unique('funnel')]
    const inbox = new Inbox()
    await transport.subscribe('fanout', first, funnel, inbox.take)
    await transport.subscribe('fanout', second, funnel, inbox.take)
    await transport.subscribe('fanout', second, funnel, inbox.take)
    await transport.publish('fanout', first, Buffer.from('1'))
    await transport.publish('fanout', second, Buffer.from('2'))
    await transport.publish('fanout', first, Buffer.from('3'))
    t.strictSame(await inbox.until(3), ['1', '2', '3'], 'and subscribing twice delivers once')
  })

  t.test(
    `${name}: of two consumers of a roundrobin pipe one gets what the other is too busy for, each message once`,
    async t => {
      const [sender, a, b] = [await open(t), await open(t), await open(t)]
      const pipe = unique('roundrobin:web')
      const busy = slowHandler()
      await a.subscribe('direct', pipe, pipe, busy.take, { acknowledge: true })
      await sender.publish('direct', pipe, Buffer.from('1'))
      await busy.inbox.until(1)
      const free = new Inbox()
      await b.subscribe('direct', pipe, pipe, free.take, { acknowledge: true })
      for (const text of ['2', '3', '4', '5']) await sender.publish('direct', pipe, Buffer.from(text))
      // RabbitMQ may have promised one to the busy consumer already, if its prefetch allows; ours is one
      t.strictSame(await free.until(4), ['2', '3', '4', '5'])
      busy.release()
      t.strictSame(busy.inbox.texts, ['1'])
    },
  )

  t.test(`${name}: a consumer that stops loses no message to the one that stays`, async t => {
    const [sender, leaving, staying] = [await open(t), await open(t), await open(t)]
    const pipe = unique('roundrobin:db')
    const [left, stayed] = [new Inbox(), new Inbox()]
    await leaving.subscribe('direct', pipe, pipe, left.take)
    await staying.subscribe('direct', pipe, pipe, stayed.take)
    await sender.publish('direct', pipe, Buffer.from('1'))
    const stopped = leaving.unsubscribeAll()
    for (const text of ['2', '3', '4', '5', '6', '7']) await sender.publish('direct', pipe, Buffer.from(text))
    await stopped
    const before = left.texts.length
    await sender.publish('direct', pipe, Buffer.from('8'))
    await stayed.until(8 - before)
    t.strictSame([...left.texts, ...stayed.texts].sort(), numbers(8))
  })

  t.test(`${name}: unsubscribeAll ends deliveries, and subscribing again works`, async t => {
    const transport = await open(t)
    const [pipe, funnel] = [unique('fanout'), unique('funnel')]
    await transport.subscribe('fanout', pipe, funnel, () => {
      t.fail('delivered after unsubscribing')
    })
    await transport.unsubscribeAll()
    await transport.unsubscribeAll()
    const inbox = new Inbox()
    await transport.subscribe('fanout', pipe, funnel, inbox.take)
    await transport.publish('fanout', pipe, Buffer.from('x'))
    t.strictSame(await inbox.until(1), ['x'])
  })

  t.test(`${name}: unsubscribe ends one pipe, and the others of its funnel miss nothing meanwhile`, async t => {
    const [sender, transport] = [await open(t), await open(t)]
    const [given, kept, shared, funnel] = [unique('fanout'), unique('fanout'), unique('direct'), unique('funnel')]
    const [inbox, inboxOfShared] = [new Inbox(), new Inbox()]
    await transport.subscribe('fanout', given, funnel, inbox.take)
    await transport.subscribe('fanout', kept, funnel, inbox.take)
    await transport.subscribe('direct', shared, shared, inboxOfShared.take)
    await sender.publish('direct', shared, Buffer.from('before'))
    await inboxOfShared.until(1)
    const ended = Promise.all([
      transport.unsubscribe('fanout', given, funnel),
      transport.unsubscribe('direct', shared, shared),
      transport.unsubscribe('fanout', unique('unknown'), funnel),
    ])
    for (const text of numbers(50)) await sender.publish('fanout', kept, Buffer.from(text))
    await ended
    await sender.publish('fanout', given, Buffer.from('to nobody'))
    await sender.publish('direct', shared, Buffer.from('after'))
    await sender.publish('fanout', kept, Buffer.from('last'))
    t.strictSame(await inbox.until(51), [...numbers(50), 'last'])
    t.strictSame(inboxOfShared.texts, ['before'])
    t.equal((await sender.stats(shared)).consumers, 0)
  })

  t.test(`${name}: stats count what waits and who consumes`, async t => {
    const [sender, a, b] = [await open(t), await open(t), await open(t)]
    const pipe = unique('results')
    const busy = slowHandler()
    await a.subscribe('direct', pipe, pipe, busy.take, { acknowledge: true })
    await sender.publish('direct', pipe, Buffer.from('1'))
    await busy.inbox.until(1)
    for (const text of ['2', '3', '4']) await sender.publish('direct', pipe, Buffer.from(text))
    t.strictSame(await sender.stats(pipe), { messages: 3, consumers: 1 })
    await b.subscribe('direct', pipe, pipe, slowHandler().take, { acknowledge: true })
    t.equal((await sender.stats(pipe)).consumers, 2)
    await b.unsubscribeAll()
    t.equal((await sender.stats(pipe)).consumers, 1)
    busy.release()
  })

  t.test(
    `${name}: a lost connection is told, refuses work meanwhile, and everything works after its return`,
    async t => {
      const { proxy, transport } = await openBehindProxy(t)
      const [pipe, funnel] = [unique('fanout'), unique('funnel')]
      await transport.subscribe('fanout', pipe, funnel, () => {})
      const [lost, restored] = [once(transport, 'lost'), once(transport, 'restored')]
      proxy.refuse()
      await lost
      t.equal(transport.connected, false)
      const disconnected = { name: 'TransportError', code: 'disconnected' }
      await t.rejects(transport.publish('direct', pipe, Buffer.from('x')), disconnected)
      await t.rejects(
        transport.subscribe('direct', pipe, pipe, () => {}),
        disconnected,
      )
      await t.rejects(transport.stats(pipe), disconnected)
      await transport.unsubscribeAll()
      proxy.accept()
      await restored
      t.equal(transport.connected, true)
      const inbox = new Inbox()
      await transport.subscribe('fanout', pipe, funnel, inbox.take)
      await transport.publish('fanout', pipe, Buffer.from('again'))
      t.strictSame(await inbox.until(1), ['again'])
    },
  )

  t.test(`${name}: publications under way when the connection goes are rejected, never forgotten`, async t => {
    const { proxy, transport } = await openBehindProxy(t)
    const pipe = unique('direct')
    await transport.publish('direct', pipe, Buffer.from('declared'))
    proxy.freeze()
    const outcomes = Promise.allSettled(numbers(3).map(text => transport.publish('direct', pipe, Buffer.from(text))))
    proxy.refuse()
    for (const outcome of await outcomes) {
      t.match(outcome, { status: 'rejected', reason: { name: 'TransportError', code: 'disconnected' } })
    }
  })

  t.test(`${name}: reconnect() builds everything anew`, async t => {
    const { proxy, transport } = await openBehindProxy(t)
    const before = proxy.accepted
    const [lost, restored] = [once(transport, 'lost'), once(transport, 'restored')]
    transport.reconnect()
    await Promise.all([lost, restored])
    t.equal(proxy.accepted, 2 * before)
    await transport.publish('direct', unique('direct'), Buffer.from('x'))
  })

  t.test(`${name}: publications that wait for their confirmation are bounded`, async t => {
    const transport = await open(t, serverPort, { maxUnconfirmed: 2 })
    const pipe = unique('direct')
    const outcomes = await Promise.allSettled(numbers(3).map(x => transport.publish('direct', pipe, Buffer.from(x))))
    t.match(outcomes, [
      { status: 'fulfilled' },
      { status: 'fulfilled' },
      { status: 'rejected', reason: { code: 'overloaded' } },
    ])
    await transport.publish('direct', pipe, Buffer.from('4'))
  })

  t.test(`${name}: close() ends a transport for good, whatever it was doing`, async t => {
    const consuming = await open(t)
    await consuming.subscribe('direct', unique('direct'), unique('direct'), () => {})
    await consuming.subscribe('fanout', unique('fanout'), unique('funnel'), () => {})
    consuming.on('lost', () => t.fail('closing is no loss'))
    await consuming.close()
    await consuming.close()
    t.equal(consuming.connected, false)
    await t.rejects(consuming.publish('direct', 'x', Buffer.from('x')), { code: 'disconnected' })
    await t.rejects(consuming.connect(), { code: 'closed' })

    const connecting = make(1, new RecordingLog(), {})
    const rejected = t.rejects(connecting.connect(), { code: 'closed' })
    await connecting.close()
    await rejected
  })
}

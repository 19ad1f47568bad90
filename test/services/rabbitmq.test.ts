import { readFileSync } from 'node:fs'
import { connect } from 'amqplib'
import t from 'tap'
import { ownRabbitmq, rabbitmq } from '../support/services.js'

t.test('a broker keeps its port, users, queues and messages when it is killed', async t => {
  const broker = await ownRabbitmq(t, { vhosts: ['one', 'two'] })
  const before = await connect(broker.url('two'))
  before.on('error', () => {}) // the kill
  const channel = await before.createConfirmChannel()
  await channel.assertQueue('kept', { durable: true })
  channel.sendToQueue('kept', Buffer.from('still here'), { persistent: true })
  await channel.waitForConfirms()
  await broker.control('eval', 'mnesia:dump_log().') // else the queue itself may be lost, as at a power cut
  const firstPid = broker.pid()

  await broker.kill()
  t.equal(broker.pid(), undefined, 'it is gone')
  await broker.restart()

  t.not(broker.pid(), firstPid)
  const after = await connect(broker.url('two'))
  const message = await (await after.createChannel()).get('kept', { noAck: true })
  t.equal(String(message !== false && message.content), 'still here')
  await after.close()
})

t.test('it listens with TLS too, and wants a client certificate of its authority', async t => {
  const broker = await ownRabbitmq(t, { tls: true })
  const tls = broker.tls
  if (tls === undefined) throw new Error('no TLS listener')
  const url = `amqps://${broker.user}:${broker.password}@127.0.0.1:${tls.port}/%2Fsensu`
  const ca = [readFileSync(tls.certificates.authority)]
  const { certificate, key } = tls.certificates.client

  const connection = await connect(url, { ca, cert: readFileSync(certificate), key: readFileSync(key) })
  t.ok(await connection.createChannel())
  await connection.close()
  await t.rejects(connect(url, { ca }), 'without a certificate')
})

t.test('each test gets a virtual host of its own', async t => {
  const [one, other] = await Promise.all([rabbitmq(t), rabbitmq(t)])
  t.not(one.url, other.url)
  const connections = await Promise.all([connect(one.url), connect(other.url)])
  const [oneChannel, otherChannel] = await Promise.all(connections.map(connection => connection.createChannel()))
  await oneChannel?.assertQueue('mine', { exclusive: true })
  otherChannel?.on('error', () => {}) // the broker closes a channel that asks for a missing queue
  await t.rejects(Promise.resolve(otherChannel?.checkQueue('mine')), { message: /NOT_FOUND/ })
  await Promise.all(connections.map(connection => connection.close()))
})

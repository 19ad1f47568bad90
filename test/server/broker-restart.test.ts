import t from 'tap'
import { ownRabbitmq } from '../support/services.js'
import { Site, until } from './site.js'

t.test('a broker that restarts is found again, and the work goes on', async t => {
  const broker = await ownRabbitmq(t)
  const { host, port, user, password, vhosts } = broker
  const brokerUrl = `amqp://${user}:${password}@${host}:${port}/${encodeURIComponent(vhosts[0] ?? '/')}`
  const before = await Site.open(t, { brokerUrl })
  const checks = { tick: { command: 'true', subscribers: ['base'], interval: 1 } }
  const server = await before.serve(before.settings({ checks }))
  await before.publish('results', { client: 'c1', check: { name: 'first', status: 0, output: '' } })
  await before.stored('result:c1:first')
  await broker.restart()
  await server.log('reconnecting to transport')
  await server.log('reconnected to transport')
  await server.log('updated server registry', 2)
  const after = await Site.open(t, { brokerUrl })
  // tasks were given up, and taken again
  await server.log('i am now responsible for a server task', 4)
  const requests = await after.listen('fanout', 'base')
  await after.publish('results', { client: 'c1', check: { name: 'second', status: 0, output: '' } })
  await before.stored('result:c1:second')
  await until('a check request', () => requests.length > 0)
  t.strictSame(await server.stop(), { status: 0, signal: null })
})

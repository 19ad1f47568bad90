import t from 'tap'
import type { JsonObject } from '../../sensu/types.js'
import { TcpProxy } from '../transport/tcp-proxy.js'
import { type HandlerCall, Site, until } from './site.js'

const checks = 20
const results = 21

/** The n-th result of a check: each differs, and the last ones say by their status which they are. */
function result(check: number, n: number): JsonObject {
  const now = Math.floor(Date.now() / 1000)
  const status = n % 2 === 0 ? 0 : 2
  return {
    client: 'c1',
    check: { name: `k${check}`, status, output: `result ${n}`, issued: now, executed: now, duration: n / 1000 },
  }
}

/** Which event a handler was called for. */
function seen({ stdin }: HandlerCall): string {
  const event = JSON.parse(stdin)
  return `${event.check.name} ${event.action} ${event.id}`
}

/** Length of every check's history. */
async function histories(site: Site): Promise<number[]> {
  return Promise.all(Array.from({ length: checks }, (_, check) => site.redis.llen(`history:c1:k${check}`)))
}

async function stored(site: Site): Promise<number> {
  return (await histories(site)).reduce((sum, length) => sum + length, 0)
}

t.test('two servers on one client lose nothing and store nothing twice, also when one is killed', async t => {
  const site = await Site.open(t)
  const settings = site.settings({ handlers: { default: { type: 'set', handlers: [] } } })
  const [first, second] = [await site.serve(settings), await site.serve(settings)]
  const published: Promise<void>[] = []
  for (let n = 0; n < results - 1; n++) {
    for (let check = 0; check < checks; check++) published.push(site.publish('results', result(check, n)))
    // in the middle of it, with messages in its hands
    if (n === 10) {
      await until('the first results', async () => (await stored(site)) > checks)
      first.kill('SIGKILL')
      await first.exit
    }
  }
  await Promise.all(published)
  await until('all results', async () => (await stored(site)) >= checks * (results - 1))
  // one more of each check: whatever came twice would have shown by then
  for (let check = 0; check < checks; check++) await site.publish('results', result(check, 98))
  await until('the last results', async () => {
    const outputs = await Promise.all(
      Array.from({ length: checks }, async (_, check) => JSON.parse(await site.stored(`result:c1:k${check}`)).output),
    )
    return outputs.every(output => output === 'result 98')
  })
  t.strictSame(
    await histories(site),
    Array.from({ length: checks }, () => results),
  )
  t.strictSame(await site.redis.hlen('events:c1'), 0, 'the last result of every check was OK')
  t.strictSame(await second.stop(), { status: 0, signal: null })
})

t.test(
  'what a dead server stored and did not acknowledge is not stored again by the one that gets it next',
  async t => {
    const site = await Site.open(t)
    const broker = new URL(site.brokerUrl)
    const proxy = await TcpProxy.start(Number(broker.port))
    t.teardown(() => proxy.stop())
    const direct = site.settings()
    broker.port = String(proxy.port)
    const dying = await site.serve({ ...direct, rabbitmq: broker.href })
    proxy.mute()
    for (const n of [1, 2]) {
      for (let check = 0; check < checks; check++) await site.publish('results', result(check, n))
    }
    await until('all results', async () => (await stored(site)) === 2 * checks)
    const calls = await site.calls(2 * checks)
    const heir = await site.serve(direct)
    dying.kill('SIGKILL')
    await dying.exit
    proxy.refuse()
    await site.publish('results', { client: 'c1', check: { name: 'last', status: 0, output: '' } })
    await site.stored('result:c1:last')
    t.strictSame(
      await histories(site),
      Array.from({ length: checks }, () => 2),
    )
    t.equal(await site.redis.hlen('events:c1'), 0)
    const again = await site.calls(2 * checks)
    t.strictSame(
      again.map(seen).sort(),
      calls.map(seen).sort(),
      'handlers are called again for the very same events, as nobody knows whether they ran',
    )
    await heir.stop()
  },
)

t.test('an event is created once and resolved once, whoever processes its results', async t => {
  const site = await Site.open(t)
  const servers = [await site.serve(), await site.serve()]
  const names = Array.from({ length: 10 }, (_, check) => check)
  for (const n of [1, 2]) {
    for (const check of names) await site.publish('results', result(check, n))
    await until('all of them', async () => {
      const events = await site.redis.hlen('events:c1')
      return n === 1 ? events === names.length : events === 0
    })
  }
  const calls = await site.calls(2 * names.length)
  const events = calls.map(seen)
  t.equal(new Set(events).size, 2 * names.length)
  const ids = (action: string) => events.filter(call => call.includes(action)).map(call => call.split(' ')[2])
  t.strictSame(ids('create').sort(), ids('resolve').sort(), 'the id lives from create to resolve')
  for (const server of servers) await server.stop()
})

t.test('results that arrive while Redis is away are stored when it is back', async t => {
  const site = await Site.open(t)
  const server = await site.serve()
  await site.publish('results', result(0, 0))
  await site.stored('result:c1:k0')
  await site.redisServer.kill()
  await server.log('reconnecting to redis')
  for (let check = 0; check < checks; check++) await site.publish('results', result(check, 2))
  await site.redisServer.restart()
  await server.log('reconnected to redis')
  await until('all results', async () => (await stored(site)) >= checks + 1)
  t.strictSame(
    await histories(site),
    Array.from({ length: checks }, (_, check) => (check === 0 ? 2 : 1)),
  )
  await server.log('updated server registry', 2)
  t.strictSame(await server.stop(), { status: 0, signal: null })
})

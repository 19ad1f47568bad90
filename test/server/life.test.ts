import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { parseJson } from '../../sensu/json.js'
import { at, fixture, list, object } from '../support/recorded-cases.js'
import { Site, until } from './site.js'

const site = await Site.open(t)

t.test('HUP takes changed definitions over, and names what needs a restart', async t => {
  const server = await site.serve()
  const requests = await site.listen('fanout', 'base')
  const checks = { fresh: { command: 'true', subscribers: ['base'], interval: 1 } }
  const changed = { ...site.settings({ checks, handlers: { late: {} } }), sensu: { spawn: { limit: 3 } } }
  await server.log('i am now responsible for a server task')
  writeFileSync(join(server.directory, 'conf.d', 'server.json'), JSON.stringify(changed))
  server.kill('SIGHUP')
  await server.log('configuration reloaded')
  t.match(await server.log('changes that take effect only after a restart'), { settings: ['sensu spawn'] })
  await until('a request', () => requests.length > 0)
  t.match(JSON.parse(requests[0] ?? ''), { name: 'fresh', command: 'true' })
  await site.publish('results', { client: 'c1', check: { name: 'k', status: 1, output: '', handlers: ['late'] } })
  t.match(await site.calls(1), [{ handler: 'late' }])
  writeFileSync(join(server.directory, 'conf.d', 'server.json'), '{"checks": 5}')
  server.kill('SIGHUP')
  await server.log('the configuration was not reloaded, the one before stays in force')
  t.strictSame(await server.stop(), { status: 0, signal: null })
})

t.test(
  'recorded cases redis-transport-basic and redis-transport-server-state: messages by lists, requests by channels',
  async t => {
    const { input, observed } = fixture('redis-transport-basic')
    const recorded = object(at(input, 'config', 'checks'))
    const settings = site.settings({
      checks: recorded,
      transport: { name: 'redis' },
      handlers: { ht: { type: 'transport', pipe: { type: 'direct', name: 'evq' } } },
    })
    const subscriber = site.redis.duplicate()
    t.teardown(() => subscriber.disconnect())
    const requests: string[] = []
    subscriber.on('message', (_channel, message) => requests.push(message))
    await subscriber.subscribe('transport:0:channel:base')
    const server = await site.serve(settings)
    const { client, check } = object(parseJson(String(at(observed, 'redis_db3', 'events:rt1', 'value', 'k'))))
    await site.redis.rpush('transport:0:list:keepalives', JSON.stringify(client))
    await site.stored('client:rt1')
    const { type: _t, history: _h, total_state_change: _s, ...result } = object(check)
    await site.redis.rpush('transport:0:list:results', JSON.stringify({ client: 'rt1', check: result }))
    const [call] = await site.calls(1)
    await until('the event in its list', async () => (await site.redis.llen('transport:0:list:evq')) === 1)
    t.equal(await site.redis.lindex('transport:0:list:evq', 0), call?.stdin)
    t.match(JSON.parse(call?.stdin ?? ''), { client: { name: 'rt1' }, check: { name: 'k', status: 2, history: ['2'] } })
    await until('a request', () => requests.length > 0)
    const withoutTime = (text: unknown) => String(text).replace(/"issued":\d+/, '')
    t.equal(withoutTime(requests[0]), withoutTime(at(observed, 'pubsub_message', 2)))
    await until('one for the roundrobin', async () => (await site.redis.llen('transport:0:list:roundrobin:rr')) > 0)
    await server.log('i am now responsible for a server task', 3)
    const id = /[0-9a-f]{8}-[0-9a-f-]{27}/
    const keys = (await site.redis.keys('*')).map(key => key.replace(id, 'ID'))
    // the recorded client had sent more results, and its server used another database
    const state = list(at(fixture('redis-transport-server-state'), 'observed', 'keys')).map(key =>
      String(key).replace(id, 'ID').replace('transport:3', 'transport:0'),
    )
    for (const key of state.filter(key => !/:(keepalive|strstatus|topic)$/.test(key))) t.ok(keys.includes(key), key)
    t.strictSame(await server.stop(), { status: 0, signal: null })
  },
)

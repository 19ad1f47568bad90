import t from 'tap'
import { parseJson, stringifyJson } from '../../sensu/json.js'
import { entriesOf } from '../../sensu/json-value.js'
import type { JsonObject } from '../../sensu/types.js'
import { at, fixture, list, object } from '../support/recorded-cases.js'
import { ask, type HttpAnswer } from './http.js'
import { forgetAll, recordedSettings, sameAnswer, sameKeys, seedKeys } from './recorded-api.js'
import { apiPort, Site } from './site.js'

const site = await Site.open(t)
await site.redis.set('lock:task:client_monitor', '99999999999999999')
const { handlers: _, ...settings } = recordedSettings()
const api = { bind: '127.0.0.1', port: 0 }
const port = await apiPort(await site.serve(site.settings({ ...settings, api }), []))

t.beforeEach(() => forgetAll(site.redis))

function post(path: string, value: JsonObject): Promise<HttpAnswer> {
  return ask(port, 'POST', path, { body: stringifyJson(value) })
}

t.test('recorded case api-silenced-redis', async t => {
  const later = Math.floor(Date.now() / 1000) + 1000
  const bodies: JsonObject[] = [
    { check: 'haproxy' },
    { check: 'nulls', subscription: null, expire: null, reason: null },
    { subscription: 'all' },
    { subscription: 'beg', begin: later, expire: 60 },
    { subscription: 'begp', begin: later - 2000, expire: 60 },
    { subscription: 'client:a1', expire: 120 },
    { subscription: 'eor', expire_on_resolve: true },
    { check: 'expneg', expire: -1 },
    { subscription: 'lb', check: 'ha', reason: 'r', creator: 'c' },
    { subscription: 'load-balancer' },
    { subscription: 'roundrobin:rr' },
  ]
  for (const body of bodies) t.match(await post('/silenced', body), { status_line: 'HTTP/1.1 201 Created', body: '' })
  // see recorded-differences.ts
  const recorded = stringifyJson(fixture('api-silenced-redis')['observed'] ?? null)
  await sameKeys(
    t,
    site.redis,
    'silence*',
    object(parseJson(recorded.replaceAll(':nulls', '*:nulls').replaceAll('silence**', 'silence:*'))),
  )
})

t.test('recorded case silencing-events: the entries as the API lists them', async t => {
  const { input, observed } = fixture('silencing-events')
  await seedKeys(site.redis, object(at(input, 'entries_redis')))
  sameAnswer(t, await ask(port, 'GET', '/silenced'), at(observed, 'api_list'))
  t.match(await ask(port, 'POST', '/silenced/clear', { body: '{"id":"client:c3:s4"}' }), {
    status_line: 'HTTP/1.1 204 No Content',
  })
  sameAnswer(t, await ask(port, 'GET', '/silenced/ids/client:c3:s4'), at(observed, 's4_after'))
})

t.test('recorded case api-silenced-subscription-regex-quirk', async t => {
  for (const subscription of ['client:zz', 'a.b', 'axb']) {
    await post('/silenced', { subscription, ...(subscription !== 'client:zz' && { check: 'x' }) })
  }
  for (const [path, recorded] of entriesOf(object(fixture('api-silenced-subscription-regex-quirk')['observed']))) {
    const entries = list(parseJson(String(at(recorded, 'body'))))
    const wanted = entries.filter(entry => at(entry, 'subscription') === path.split('/').at(-1))
    // see recorded-differences.ts
    t.not(wanted.length, entries.length)
    sameAnswer(t, await ask(port, 'GET', path), { ...object(recorded), body: stringifyJson(wanted) })
  }
})

t.test('expired silence entries and stashes are forgotten when they are looked at', async t => {
  await post('/silenced', { check: 'gone', expire: -1 })
  await post('/stashes', { path: 'gone', content: {}, expire: 0 })
  t.equal((await ask(port, 'GET', '/silenced')).body, '[]')
  t.equal((await ask(port, 'GET', '/stashes')).body, '[]')
  t.equal(await site.redis.exists('silenced', 'stashes'), 0)
})

t.test('recorded case api-aggregates', async t => {
  const { input, observed } = fixture('api-aggregates')
  const executed = Math.floor(Date.now() / 1000) - 3
  const members: [client: string, name: string, status: number, aggregates: string[]][] = [
    ['ct', 'ag1', 0, ['ag1']],
    ['ct', 'ag2', 1, ['named']],
    ['kok', 'ag2', 2, ['named']],
    ['ct', 'ag3', 3, ['x1', 'named', 'a:b|c']],
    ['ct', 'ag4', 7, ['named']],
  ]
  for (const [client, name, status, aggregates] of members) {
    await site.publish('results', {
      client,
      check: { name, status, output: 'out\n', executed, issued: executed, aggregates },
    })
    await site.stored(`result:${client}:${name}`)
  }
  for (const label of list(input).map(String)) {
    const recorded = at(observed, label)
    if (label === 'members after') await sameKeys(t, site.redis, 'aggregates:named', object(recorded))
    else if (label.startsWith('DELETE')) sameAnswer(t, await ask(port, 'DELETE', '/aggregates/named'), recorded)
    else {
      if (label.startsWith('GET')) await ask(port, 'DELETE', '/results/ct/ag2')
      const named = label.startsWith('GET') ? '/aggregates/named' : label.split(' ')[0]
      const path = label.startsWith('critical') ? '/aggregates/named/results/critical?max_age=0' : named
      const answer = await ask(port, 'GET', path ?? '')
      // which two of four it is, is a matter of Redis' order
      const page = label.includes('limit') ? { body: answer.body } : {}
      sameAnswer(t, answer, { ...object(recorded), ...page }, 'all', label)
    }
  }
  await site.calls(4)
})

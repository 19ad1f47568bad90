import t from 'tap'
import { parseJson } from '../../sensu/json.js'
import { isInteger, isObject } from '../../sensu/json-value.js'
import type { Json } from '../../sensu/types.js'
import { at, list, object } from '../support/recorded-cases.js'
import { ask, type HttpAnswer } from './http.js'
import { apiPort, Site, until } from './site.js'

// One answer of another form, and the dashboard shows a whole site as empty, or ends.

const site = await Site.open(t)
const checks = { ping: { command: 'true', subscribers: ['base'], interval: 3600 } }
const server = await site.serve(site.settings({ checks, api: { bind: '127.0.0.1', port: 0 } }), [])
const port = await apiPort(server)

/** Its seven polls, all of which must succeed. */
const lists = [
  '/clients?limit=1000&offset=0',
  '/events?limit=1000&offset=0',
  '/checks',
  '/silenced',
  '/stashes',
  '/aggregates',
]

async function get(path: string): Promise<Json> {
  const answer = await ask(port, 'GET', path)
  t.equal(answer.status_line, 'HTTP/1.1 200 OK', path)
  t.ok(answer.headers.includes(`Content-length: ${Buffer.byteLength(answer.body)}`), path)
  return parseJson(answer.body)
}

/** Bodies end with empty lines and name a datacenter. */
function post(path: string, body: object): Promise<HttpAnswer> {
  return ask(port, 'POST', path, { body: `${JSON.stringify({ ...body, dc: 'Site 1', id: '' })}\n\n` })
}

t.test('a site where nothing has happened yet is empty, not broken', async t => {
  for (const path of lists.filter(path => path !== '/checks')) t.strictSame(await get(path), [], path)
  t.match(await get('/checks'), [{ name: 'ping' }])
})

t.test('numbers that it reads as integers are integers, settings of servers are texts', async t => {
  const info = await get('/info')
  for (const queue of ['keepalives', 'results']) {
    t.ok(isInteger(at(info, 'transport', queue, 'messages')))
    t.ok(isInteger(at(info, 'transport', queue, 'consumers')))
  }
  t.ok(Object.values(object(at(info, 'sensu', 'settings'))).every(value => typeof value === 'string'))
  t.ok(list(at(info, 'servers')).every(entry => isInteger(at(entry, 'timestamp'))))
  t.equal(list(at(info, 'servers')).length, 1)
})

t.test('what a person does there works, and shows in the lists', async t => {
  t.match(await post('/clients', { name: 'web1', address: 'x', subscriptions: ['base'], keepalives: false }), {
    status_line: 'HTTP/1.1 201 Created',
  })
  await site.publish('results', {
    client: 'web1',
    check: { name: 'disk', status: 2, output: 'full', aggregate: true, executed: 5, issued: 5 },
  })
  await site.stored('result:web1:disk')
  await site.calls(1)
  t.match(
    await post('/silenced', { subscription: 'client:web1', check: 'disk', reason: 'r', expire: 60, begin: null }),
    {
      status_line: 'HTTP/1.1 201 Created',
    },
  )
  t.match(await post('/stashes', { path: 'a/b', content: { timestamp: 1 } }), { status_line: 'HTTP/1.1 201 Created' })
  t.match(await post('/request', { check: 'ping', subscribers: ['base'] }), { status_line: 'HTTP/1.1 202 Accepted' })
  for (const path of lists) t.ok(list(await get(path)).every(isObject), path)
  t.match(await get('/silenced'), [{ id: 'client:web1:disk', begin: null, expire_on_resolve: false }])
  t.match(await get('/events'), [
    { client: { name: 'web1' }, check: { name: 'disk', status: 2, output: 'full' }, last_ok: null },
  ])
  t.match(await get('/clients/web1/history'), [
    { check: 'disk', history: [2], last_execution: 5, last_status: 2, last_result: { output: 'full' } },
  ])
  t.match(await get('/aggregates/disk'), { clients: 1, checks: 1, results: { critical: 1, total: 1, stale: 0 } })
  t.match(await ask(port, 'POST', '/silenced/clear', { body: '{"id":"client:web1:disk","dc":"Site 1"}\n\n' }), {
    status_line: 'HTTP/1.1 204 No Content',
  })
  t.match(await ask(port, 'GET', '/clients/nobody'), { status_line: 'HTTP/1.1 404 Not Found' })
})

t.test('what is in Redis and no object is not shown', async t => {
  await site.redis.sadd('clients', 'odd')
  await site.redis.mset('client:odd', '5', 'result:odd:k', '"x"', 'silence:odd:*', '[]', 'stash:odd', 'null')
  await site.redis.sadd('result:odd', 'k')
  await site.redis.sadd('silenced', 'silence:odd:*', 'other')
  await site.redis.sadd('stashes', 'odd')
  await site.redis.hset('events:odd', 'k', '"an event"', 'l', ' {"spaced": true} ')
  for (const path of [...lists, '/results']) t.ok(list(await get(path)).every(isObject), path)
  t.notMatch(await get('/results'), [{ client: 'odd' }])
  t.match(await ask(port, 'GET', '/events/odd'), { body: '[{"spaced":true}]' })
})

t.test('a removal that has begun is finished before the server ends', async t => {
  const named = { name: 'signed', address: 'x', subscriptions: [], timestamp: 1, signature: 's' }
  await site.publish('keepalives', named)
  await site.stored('client:signed')
  const check = { name: 'k', status: 1, output: '', executed: 1, issued: 1 }
  await site.publish('results', { client: 'signed', signature: 's', check })
  await site.calls(1)
  await ask(port, 'DELETE', '/clients/signed?invalidate=true')
  await until('the refusal', async () => (await site.redis.get('client:signed:signature')) === 'invalidated')
  t.strictSame(await server.stop(), { status: 0, signal: null })
  t.strictSame(await site.redis.keys('*signed*'), [])
})

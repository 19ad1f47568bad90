import t from 'tap'
import { parseJson, stringifyJson } from '../../sensu/json.js'
import { entriesOf, fromEntries } from '../../sensu/json-value.js'
import type { JsonObject } from '../../sensu/types.js'
import { at, fixture, list, object } from '../support/recorded-cases.js'
import { ask, exchange, type HttpAnswer } from './http.js'
import {
  dumpKeys,
  forgetAll,
  recordedSettings,
  sameAnswer,
  sameKeys,
  seedClients,
  seedKeys,
  seedResult,
  withoutTimes,
  withTimesHidden,
} from './recorded-api.js'
import { apiPort, Site, until } from './site.js'

const site = await Site.open(t)
await site.redis.set('lock:task:client_monitor', '99999999999999999')
const { handlers: _, ...settings } = recordedSettings()
const server = await site.serve(
  site.settings({ ...settings, handlers: { hflap: { handle_flapping: true } }, api: { bind: '127.0.0.1', port: 0 } }),
  [],
)
const port = await apiPort(server)

t.beforeEach(() => forgetAll(site.redis))

function post(path: string, value: JsonObject): Promise<HttpAnswer> {
  return ask(port, 'POST', path, { body: stringifyJson(value) })
}

t.test('recorded case api-post-clients-redis', async t => {
  await post('/clients', { name: 'pc1', address: 'unknown' })
  await post('/clients', object(parseJson(String(at(fixture('api-post-clients-full'), 'input', 'body')))))
  await sameKeys(t, site.redis, 'client:*', object(fixture('api-post-clients-redis')['observed']))
  t.strictSame((await site.redis.smembers('clients')).sort(), ['pc1', 'pc2'])
})

t.test('recorded cases api-post-results-redis and api-sensu-api-client', async t => {
  for (const name of ['ok', 'nosource', 'tokensource']) {
    await ask(port, 'POST', '/results', { body: String(at(fixture(`api-post-results-${name}`), 'input', 'body')) })
  }
  await post('/results', { name: 'negst', output: 'o', status: -1, source: 'apisrc' })
  for (const key of ['result:apisrc:apichk', 'result:apisrc:negst', 'result:sensu-api:apichk2']) await site.stored(key)
  await sameKeys(t, site.redis, 'result:*', object(fixture('api-post-results-redis')['observed']))
  await sameKeys(t, site.redis, 'client:sensu-api*', object(fixture('api-sensu-api-client')['observed']))
  await site.calls(2)
})

t.test('recorded case api-result-delete-redis', async t => {
  await seedClients(site.redis, { resolved: true })
  await site.redis.del('events:a1', 'events:a2')
  t.match(await ask(port, 'DELETE', '/results/a1/r1'), { status_line: 'HTTP/1.1 204 No Content' })
  await sameKeys(t, site.redis, '*a1*', object(fixture('api-result-delete-redis')['observed']))
})

t.test('recorded case api-check-delete-redis', async t => {
  const { 'stash:silence/a1/r1': _, ...recorded } = object(fixture('api-check-delete-redis')['observed'])
  await seedKeys(site.redis, recorded)
  await site.redis.sadd('clients', 'a1', 'a2')
  await seedResult(site.redis, 'a1', { name: 'r2' }, [0, 1])
  await site.redis.set('history:a1:r2:last_ok', '1')
  await ask(port, 'DELETE', '/checks/r2')
  await sameKeys(t, site.redis, '*a1*', recorded)
})

t.test('recorded cases api-event-delete-result and api-event-after-delete', async t => {
  await seedClients(site.redis)
  await ask(port, 'DELETE', '/events/a1/r2')
  await until('the resolve', async () => (await site.redis.hexists('events:a1', 'r2')) === 0)
  const recorded = String(fixture('api-event-delete-result')['observed'])
  t.equal(withTimesHidden(await site.redis.get('result:a1:r2')), withTimesHidden(recorded))
  sameAnswer(t, await ask(port, 'GET', '/events/a1/r2'), fixture('api-event-after-delete')['observed'] ?? null)
  t.match(await site.calls(1), [{ handler: 'default', stdin: /"action":"resolve"/ }])
})

t.test(
  'recorded case flapping-api-force-resolve: a flapping event is resolved, for those who handle flapping',
  async t => {
    const { observed } = fixture('flapping-api-force-resolve')
    const before = object(parseJson(String(at(observed, 'before'))))
    const { history, total_state_change: _, ...check } = object(before['check'])
    await site.redis.set('client:c1', stringifyJson(before['client'] ?? null))
    await site.redis.set('client:c1:signature', '')
    await seedResult(site.redis, 'c1', check, list(history))
    await site.redis.hset('events:c1', 'flap2', stringifyJson(before))
    sameAnswer(t, await post('/resolve', { client: 'c1', check: 'flap2' }), at(observed, 'response'))
    const calls = await site.calls(1)
    t.equal(withTimesHidden(calls[0]?.stdin), withTimesHidden(String(at(observed, 'calls', 0, 'stdin'))))
    t.equal(calls[0]?.handler, at(observed, 'calls', 0, 'handler'))
    t.equal(await site.redis.hget('events:c1', 'flap2'), at(observed, 'after'))
  },
)

t.test('recorded cases api-client-delete-*: events are resolved, then everything goes but the stash', async t => {
  const recorded = list(fixture('api-client-delete-100ms')['observed']).map(String)
  await seedClients(site.redis)
  await site.redis.del('result:a1:r1', 'result:a1:r2', 'history:a1:r1', 'history:a1:r2', 'result:a1', 'events:a1')
  await site.redis.set('stash:silence/a1/r1', '{"reason":"x"}')
  await site.publish('results', {
    client: 'a1',
    check: { name: 'd1', status: 1, output: 'out', executed: 1, issued: 1 },
  })
  await site.stored('result:a1:d1')
  t.match(await site.calls(1), [{ stdin: /"action":"create"/ }])
  await ask(port, 'DELETE', '/clients/a1')
  t.match(await site.calls(1), [{ stdin: /"action":"resolve"/ }])
  const left = Object.keys(await dumpKeys(site.redis, '*a1*'))
  t.strictSame(
    left.filter(key => !recorded.includes(key)),
    [],
  )
  await until('the removal', async () => (await site.redis.exists('client:a1')) === 0)
  await sameKeys(t, site.redis, '*a1*', object(fixture('api-client-delete-after')['observed']))
  t.equal(await site.redis.sismember('clients', 'a1'), 0)
})

t.test('recorded case api-invalidate-expire-after: the signature that nobody has stays as long as asked', async t => {
  await post('/clients', { name: 'inv2', address: 'x' })
  await ask(port, 'DELETE', '/clients/inv2?invalidate=true&invalidate_expire=5')
  await until('the removal', async () => (await site.redis.exists('client:inv2')) === 0)
  await sameKeys(t, site.redis, '*inv2*', object(fixture('api-invalidate-expire-after')['observed']))
})

t.test(
  'recorded case api-client-delete-signed-invalidate: the resolves are refused, too, and the client goes after 4 s',
  async t => {
    const { observed } = fixture('api-client-delete-signed-invalidate')
    await site.publish('keepalives', { name: 'sgd', address: 'x', subscriptions: [], timestamp: 1, signature: 'sss' })
    await site.stored('client:sgd')
    const check = { name: 'x', status: 1, output: 'out\n', issued: 1, executed: 1 }
    await site.publish('results', { client: 'sgd', check, signature: 'sss' })
    await site.calls(1)
    const began = Date.now()
    const answer = await ask(
      port,
      'DELETE',
      String(at(fixture('api-client-delete-signed-invalidate'), 'input', 'DELETE')),
    )
    sameAnswer(t, answer, at(observed, 'response'))
    for (const line of list(at(observed, 'log'))) await server.log(/"message":"([^"]*)"/.exec(String(line))?.[1] ?? '')
    await until('the removal', async () => (await site.redis.exists('client:sgd')) === 0)
    t.ok(Math.abs((Date.now() - began) / 1000 - Number(at(observed, 'seconds_until_removed'))) < 2)
    await sameKeys(t, site.redis, '*sgd*', object(at(observed, 'redis')))
  },
)

t.test('recorded case result-without-executed: it has no place in the history', async t => {
  const { api_history: _, ...keys } = object(fixture('result-without-executed')['observed'])
  await seedKeys(site.redis, keys)
  await site.redis.sadd('result:c1', 'noexec')
  const answer = await ask(port, 'GET', '/clients/c1/history')
  t.equal(list(parseJson(answer.body)).length, at(fixture('result-without-executed'), 'observed', 'api_history'))
})

t.test('recorded case api-request-messages', async t => {
  const recorded = list(fixture('api-request-messages')['observed'])
  const heard = new Map<string, string[]>()
  for (const pipe of new Set(recorded.map(message => String(at(message, 'pipe'))))) {
    heard.set(pipe, await site.listen(/^(direct|roundrobin):/.test(pipe) ? 'direct' : 'fanout', pipe))
  }
  const wanted = recorded.map(message => `${at(message, 'pipe')} ${withTimesHidden(at(message, 'msg'))}`).sort()
  for (const body of [
    { check: 'pubcheck' },
    { check: 'nopub', subscribers: ['adhoc', 'roundrobin:rr'], reason: 'why', creator: 'me' },
    { check: 'nopub', subscribers: [] },
    { check: 'standalone1' },
    { check: 'standalone1', subscribers: ['adhoc'] },
    { check: 'extcheck', subscribers: ['adhoc'] },
  ]) {
    t.match(await post('/request', body), { status_line: 'HTTP/1.1 202 Accepted' })
  }
  const requested = () =>
    [...heard].flatMap(([pipe, messages]) =>
      messages.filter(text => text.includes('api_requested')).map(text => `${pipe} ${withTimesHidden(text)}`),
    )
  await until('the requests', () => requested().length >= wanted.length)
  t.strictSame(requested().sort(), wanted)
})

t.test('a requested check with proxy requests goes out once for each client that is meant', async t => {
  const heard = await site.listen('fanout', 'poller')
  for (const name of ['sw1', 'sw2']) await post('/clients', { name, address: '10.0.0.1', device: 'switch' })
  await post('/request', { check: 'proxysplay', reason: 'r', creator: 'c' })
  const requested = () => heard.filter(text => text.includes('api_requested'))
  await until('the requests', () => requested().length === 2)
  t.strictSame(
    requested()
      .map(text => at(parseJson(text), 'source'))
      .sort(),
    ['sw1', 'sw2'],
  )
  t.match(parseJson(requested()[0] ?? ''), { api_requested: { reason: 'r', creator: 'c' }, command: 'ping 10.0.0.1' })
})

t.test('recorded case api-log-lines', async t => {
  const recorded = list(fixture('api-log-lines')['observed']).map(object)
  const from = server.lines.length
  await ask(port, 'GET', '/clients/c1/history?limit=1')
  await exchange(port, 'GET http://127.0.0.1:4568/health HTTP/1.1\r\nHost: x\r\n\r\n')
  await ask(port, 'GET', '/silenced/subscriptions/client')
  await exchange(port, 'GARBAGE\r\n\r\n')
  const logged = () =>
    server.lines
      .slice(from)
      .map(line => object(parseJson(JSON.stringify(line))))
      .filter(isAccess)
  await until('the lines', () => logged().length === recorded.length)
  for (const { timestamp: _, content_length: _c, backtrace, ...line } of recorded) {
    const text = stringifyJson(withoutTimes(fromEntries(entriesOf(line))))
    const same = logged().find(found => at(found, 'request', 'uri') === at(line, 'request', 'uri'))
    const { timestamp: _t, content_length: _l, remote_address: _r, ...own } = object(same)
    if (backtrace === undefined) t.equal(stringifyJson(withoutTimes(own)), text)
    else t.match(own, { level: 'error', message: 'unexpected api error' })
  }
})

function isAccess({ message }: JsonObject): boolean {
  return message === 'api response' || message === 'unexpected api error'
}

import t, { type Test } from 'tap'
import { parseJson, stringifyJson } from '../../sensu/json.js'
import { entriesOf, fromEntries, isObject, toNumber } from '../../sensu/json-value.js'
import type { Json, JsonObject } from '../../sensu/types.js'
import { at, fixture, list, object } from '../pipeline/rig.js'
import { ask, exchange, type HttpAnswer } from './http.js'
import {
  dumpKeys,
  forgetAll,
  recordedSettings,
  sameAnswer,
  seedClients,
  seedKeys,
  seedResult,
  withoutTimes,
} from './recorded-api.js'
import { apiPort, Site, until } from './site.js'

/** What requests leave behind in Redis, on the transport, with handlers and in the log. What is different on purpose: */
const deliberate = {
  'api-silenced-redis':
    'null is as good as nothing: `{"subscription": null, "check": "x"}` silences the check everywhere, not nothing',
  'api-silenced-subscription-regex-quirk': 'a subscription is a whole name, not a pattern (quirk 8)',
}

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

/** Compares dumps of Redis: keys, types, values, and how long they live still, to a few seconds. */
async function sameKeys(t: Test, pattern: string, recorded: JsonObject): Promise<void> {
  const found = await dumpKeys(site.redis, pattern)
  t.strictSame(Object.keys(found), Object.keys(recorded).sort())
  for (const [key, entry] of entriesOf(recorded)) {
    const value = at(entry, 'type') === 'set' ? list(at(entry, 'value')).map(String).sort() : at(entry, 'value')
    const wanted = { type: at(entry, 'type'), value }
    const { ttl, ...rest } = object(found[key])
    t.equal(stringifyJson(withoutTimes(rest)), stringifyJson(withoutTimes(wanted)), key)
    t.ok(Math.abs((toNumber(ttl) ?? 0) - (toNumber(at(entry, 'ttl')) ?? 0)) < 10, `${key} lives as long`)
  }
}

t.test('recorded case api-post-clients-redis', async t => {
  await post('/clients', { name: 'pc1', address: 'unknown' })
  await post('/clients', object(parseJson(String(at(fixture('api-post-clients-full'), 'input', 'body')))))
  await sameKeys(t, 'client:*', object(fixture('api-post-clients-redis')['observed']))
  t.strictSame((await site.redis.smembers('clients')).sort(), ['pc1', 'pc2'])
})

t.test('recorded cases api-post-results-redis and api-sensu-api-client', async t => {
  for (const name of ['ok', 'nosource', 'tokensource']) {
    await ask(port, 'POST', '/results', { body: String(at(fixture(`api-post-results-${name}`), 'input', 'body')) })
  }
  await post('/results', { name: 'negst', output: 'o', status: -1, source: 'apisrc' })
  for (const key of ['result:apisrc:apichk', 'result:apisrc:negst', 'result:sensu-api:apichk2']) await site.stored(key)
  await sameKeys(t, 'result:*', object(fixture('api-post-results-redis')['observed']))
  await sameKeys(t, 'client:sensu-api*', object(fixture('api-sensu-api-client')['observed']))
  await site.calls(2)
})

t.test('recorded case api-result-delete-redis', async t => {
  await seedClients(site.redis, { resolved: true })
  await site.redis.del('events:a1', 'events:a2')
  t.match(await ask(port, 'DELETE', '/results/a1/r1'), { status_line: 'HTTP/1.1 204 No Content' })
  await sameKeys(t, '*a1*', object(fixture('api-result-delete-redis')['observed']))
})

t.test('recorded case api-check-delete-redis', async t => {
  const { 'stash:silence/a1/r1': _, ...recorded } = object(fixture('api-check-delete-redis')['observed'])
  await seedKeys(site.redis, recorded)
  await site.redis.sadd('clients', 'a1', 'a2')
  await seedResult(site.redis, 'a1', { name: 'r2' }, [0, 1])
  await site.redis.set('history:a1:r2:last_ok', '1')
  await ask(port, 'DELETE', '/checks/r2')
  await sameKeys(t, '*a1*', recorded)
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
  await sameKeys(t, '*a1*', object(fixture('api-client-delete-after')['observed']))
  t.equal(await site.redis.sismember('clients', 'a1'), 0)
})

t.test('recorded case api-invalidate-expire-after: the signature that nobody has stays as long as asked', async t => {
  await post('/clients', { name: 'inv2', address: 'x' })
  await ask(port, 'DELETE', '/clients/inv2?invalidate=true&invalidate_expire=5')
  await until('the removal', async () => (await site.redis.exists('client:inv2')) === 0)
  await sameKeys(t, '*inv2*', object(fixture('api-invalidate-expire-after')['observed']))
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
    await sameKeys(t, '*sgd*', object(at(observed, 'redis')))
  },
)

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
  const recorded = stringifyJson(fixture('api-silenced-redis')['observed'] ?? null)
  t.not(deliberate['api-silenced-redis'], '')
  await sameKeys(
    t,
    'silence*',
    object(parseJson(recorded.replaceAll(':nulls', '*:nulls').replaceAll('silence**', 'silence:*'))),
  )
})

t.test('recorded case api-silenced-subscription-regex-quirk', async t => {
  for (const subscription of ['client:zz', 'a.b', 'axb']) {
    await post('/silenced', { subscription, ...(subscription !== 'client:zz' && { check: 'x' }) })
  }
  for (const [path, recorded] of entriesOf(object(fixture('api-silenced-subscription-regex-quirk')['observed']))) {
    const entries = list(parseJson(String(at(recorded, 'body'))))
    const wanted = entries.filter(entry => at(entry, 'subscription') === path.split('/').at(-1))
    t.not(wanted.length, entries.length, deliberate['api-silenced-subscription-regex-quirk'])
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
    if (label === 'members after') await sameKeys(t, 'aggregates:named', object(recorded))
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

function withTimesHidden(text: Json | undefined): string {
  const value = parseJson(String(text))
  return isObject(value) ? stringifyJson(withoutTimes(value)) : ''
}

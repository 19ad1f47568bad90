import t from 'tap'
import { parseJson } from '../../sensu/json.js'
import { canonicalText } from '../../sensu/json-value.js'
import type { Json, JsonObject } from '../../sensu/types.js'
import { at, fixture, list, object, withoutId } from '../support/recorded-cases.js'
import { Rig } from './rig.js'
import type { HandlerCall } from './site.js'

const c1: JsonObject = {
  name: 'c1',
  subscriptions: ['base'],
  address: '127.0.0.1',
  version: '1.9.0',
  timestamp: 1795317172,
}
const c3: JsonObject = { ...c1, name: 'c3' }

function event(call: HandlerCall | undefined): JsonObject {
  return object(parseJson(call?.stdin ?? 'null'))
}

/** Calls as many recordings list them: handler, client, check, action, silenced, silenced_by. */
function silenceView(calls: HandlerCall[]): string[] {
  return calls.map(call => {
    const e = event(call)
    return canonicalText([
      call.handler,
      at(e, 'client', 'name'),
      at(e, 'check', 'name'),
      at(e, 'action'),
      at(e, 'silenced'),
      at(e, 'silenced_by'),
    ])
  })
}

t.test('flapping: every step of the recorded sequence', async t => {
  const rig = await Rig.start(t, { handlers: { hflap: { handle_flapping: true } } })
  await rig.keepalive(c1)
  const { input, observed } = fixture('flapping-sequence')
  let id: Json = null
  let recordedId: Json = null
  for (const step of list(observed)) {
    const recorded = list(at(step, 'calls'))
    const time = Number(at(recorded[0], 'timestamp') ?? 1795317281)
    const check = {
      name: 'flap',
      status: at(step, 'status'),
      output: 'x',
      handlers: ['default', 'hflap'],
      low_flap_threshold: 5,
      high_flap_threshold: 25,
    }
    const calls = await rig
      .at(time)
      .result({ client: 'c1', check: { ...check, executed: at(recorded[0], 'last_ok') ?? time } })
    const views = calls.map(call => {
      const e = event(call)
      const { occurrences, occurrences_watermark, action, timestamp, last_state_change } = e
      const [tsc, history] = [at(e, 'check', 'total_state_change'), at(e, 'check', 'history')]
      return canonicalText({
        handler: call.handler,
        action: action ?? null,
        occurrences,
        occurrences_watermark,
        timestamp,
        last_state_change,
        tsc,
        history,
      })
    })
    const expected = recorded.map(call => {
      const { id: _id, last_ok: _ok, ...rest } = object(call)
      return canonicalText(rest)
    })
    t.same(views.sort(), expected.sort(), `step ${at(step, 'i')}`)
    const stored = parseJson((await rig.redis.hget('events:c1', 'flap')) ?? 'null')
    t.equal(at(stored, 'action'), at(step, 'registry', 'action'), `step ${at(step, 'i')} registry`)
    t.equal(at(stored, 'check', 'total_state_change'), at(step, 'registry_tsc'))
    if (recorded.length > 0) {
      const same = recordedId === at(recorded[0], 'id')
      t.equal(id === at(event(calls[0]), 'id'), same, 'the id changes exactly when the recorded one does')
      id = at(event(calls[0]), 'id')
      recordedId = at(recorded[0], 'id')
    }
  }
  t.same(list(at(input, 'thresholds')), [5, 25])
})

t.test('a flapping event that is force-resolved leaves the registry with action flapping', async t => {
  const rig = await Rig.start(t, { handlers: { hflap: { handle_flapping: true } } })
  const { observed } = fixture('flapping-api-force-resolve')
  const before = object(parseJson(String(at(observed, 'before'))))
  await rig.keepalive(object(before['client']))
  await rig.redis.rpush('history:c1:flap2', ...list(at(before, 'check', 'history')).map(String))
  await rig.redis.hset('events:c1', 'flap2', String(at(observed, 'before')))
  const expected = String(at(list(at(observed, 'calls'))[0], 'stdin'))
  const { history: _, ...check } = object(at(parseJson(expected), 'check'))
  const calls = await rig.at(Number(at(parseJson(expected), 'timestamp'))).result({ client: 'c1', check })
  t.same(calls, [{ handler: 'hflap', stdin: expected }], 'byte for byte, with the stored id')
  t.equal(await rig.redis.hget('events:c1', 'flap2'), null)
})

t.test('at, above and below the flap thresholds', async t => {
  const rig = await Rig.start(t)
  await rig.keepalive(c1)
  // One change, at the newest of 21 entries: 1.2 / 20 = 6 %.
  const history = Array.from({ length: 20 }, () => '0')
  const action = async (low: number, high: number, stored?: string) => {
    await rig.redis.del('history:c1:f', 'events:c1')
    await rig.redis.rpush('history:c1:f', ...history)
    if (stored !== undefined) await rig.redis.hset('events:c1', 'f', `{"id":"i","action":"${stored}","occurrences":1}`)
    await rig.result({
      client: 'c1',
      check: { name: 'f', status: 1, output: '', low_flap_threshold: low, high_flap_threshold: high },
    })
    return at(parseJson(String(await rig.redis.hget('events:c1', 'f'))), 'action')
  }
  t.equal(await action(1, 6), 'flapping', 'begins at the high one')
  t.equal(await action(1, 7), 'create', 'not below it')
  t.equal(await action(5, 50, 'flapping'), 'flapping', 'goes on above the low one')
  t.equal(await action(6, 50, 'flapping'), 'create', 'ends at it')
  t.equal(await action(5, 50, 'create'), 'create', 'the low one does not begin it')
})

t.test('flap thresholds that are no integers are logged and ignored', async t => {
  const rig = await Rig.start(t)
  await rig.keepalive(c1)
  const { input, observed } = fixture('flapping-invalid-thresholds')
  for (let i = 0; i < 3; i++) {
    rig.log()
    const calls = await rig.result({
      client: 'c1',
      check: { name: 'flapbad', status: 1, output: 'x', ...object(input) },
    })
    t.same(
      [calls[0]?.handler, 'flapbad', event(calls[0])['action'], event(calls[0])['occurrences']],
      ['default', 'flapbad', 'create', i + 1],
    )
    t.match(rig.log(), [
      { level: 'error', message: 'invalid check flap thresholds', check: { history: ['1'] }, client: { name: 'c1' } },
      {},
      {},
    ])
  }
  t.same(at(observed, 'calls'), [['default', 'flapbad', 'create', 3]])
})

t.test('total state change of every recorded history', async t => {
  const rig = await Rig.start(t)
  await rig.keepalive(c1)
  for (const vector of list(fixture('vectors-total-state-change')['observed'])) {
    const history = list(at(vector, 'history')).map(String)
    await rig.redis.del('history:c1:v')
    if (history.length > 1) await rig.redis.rpush('history:c1:v', ...history.slice(0, -1))
    const status = Number(history.at(-1) ?? 1)
    // An event is made of an OK result too when the check is a metric one.
    const [call] = await rig.result({ client: 'c1', check: { name: 'v', type: 'metric', status, output: '' } })
    const { check } = event(call)
    if (history.length === 0) continue
    t.same(at(check, 'history'), history.slice(-21))
    t.equal(at(check, 'total_state_change'), at(vector, 'total_state_change'), history.join(''))
  }
})

t.test('silencing: which handlers are called, and what becomes of the entries', async t => {
  const rig = await Rig.start(t, { handlers: { hsil: { handle_silenced: true } } })
  const { input, observed } = fixture('silencing-events')
  const time = 1795317438
  await rig.at(time).keepalive(c1)
  await rig.keepalive(c3)
  for (const [key, entry] of Object.entries(object(at(input, 'entries_redis')))) {
    if (key === 'silenced') await rig.redis.sadd(key, ...list(at(entry, 'value')).map(String))
    else await rig.redis.set(key, String(at(entry, 'value')))
  }
  const result = (client: string, name: string, status: number) =>
    rig.result({ client, check: { name, status, handlers: ['default', 'hsil'], output: 'out\n' } })
  const calls: HandlerCall[] = []
  for (const name of ['s1', 's2', 's3', 's4', 's5']) calls.push(...(await result('c3', name, 2)))
  rig.log()
  calls.push(...(await result('c1', 's1', 2)))
  t.match(
    rig.log().filter(line => line['message'] === 'handler is silenced'),
    [{ level: 'info', handler: { name: 'default' }, event: { silenced: true } }],
  )
  calls.push(...(await result('c1', 's9', 2)))
  t.same(silenceView(calls).sort(), list(at(observed, 'create')).map(canonicalText).sort())
  t.equal(
    at(parseJson(String(await rig.redis.hget('events:c1', 's9'))), 'silenced'),
    true,
    'a silenced event is in the registry',
  )
  t.same(
    silenceView(await result('c3', 's4', 0)).sort(),
    list(at(observed, 'resolve_s4_expire_on_resolve')).map(canonicalText).sort(),
  )
  t.same(silenceView(await result('c3', 's1', 0)).sort(), list(at(observed, 'resolve_s1')).map(canonicalText).sort())
  const dump = await rig.dump()
  for (const [key, entry] of Object.entries(object(at(observed, 'redis_after')))) {
    t.equal(canonicalText(dump[key] ?? null), canonicalText(at(entry, 'value')), key)
  }
  t.equal(dump['silence:client:c3:s4'], undefined, 'expire_on_resolve removed the entry')
})

t.test('a silenced event in full, and OK metrics that are never silenced', async t => {
  const rig = await Rig.start(t, { handlers: { hsil: { handle_silenced: true } } })
  const [recorded] = list(fixture('silenced-event-full')['observed'])
  const text = String(at(recorded, 'stdin'))
  const expected = object(parseJson(text))
  await rig.keepalive(object(expected['client']))
  await rig.redis.set('silence:client:c1:*', '{"id":"client:c1:*","begin":null,"expire_on_resolve":false}')
  const { history: _h, total_state_change: _t, ...check } = object(expected['check'])
  await rig.at(1795317347).result({ client: 'c1', check })
  const calls = await rig.at(Number(expected['timestamp'])).result({ client: 'c1', check })
  t.same(
    calls.map(call => [call.handler, withoutId(call.stdin)]),
    [['hsil', withoutId(text)]],
  )
  await rig.redis.set('silence:*:met0', '{"id":"*:met0","begin":null,"expire_on_resolve":false}')
  const metric = await rig.result({ client: 'c1', check: { name: 'met0', type: 'metric', status: 0, output: '' } })
  t.same(silenceView(metric), list(fixture('silencing-skipped-for-ok-metric')['observed']).map(canonicalText))
})

t.test('registration: once, overridable by the client, not stored', async t => {
  const rig = await Rig.start(t, { handlers: { registration: {} } })
  for (const name of ['registration-first-keepalive', 'registration-client-overrides']) {
    const { input, observed } = fixture(name)
    const [recorded] = list(at(observed, 'handler_calls'))
    const time = Number(at(parseJson(String(at(recorded, 'stdin'))), 'timestamp'))
    const calls = await rig.at(time).keepalive(at(input, 'keepalive_published'))
    t.same(
      calls.map(call => [call.handler, withoutId(call.stdin)]),
      [[at(recorded, 'handler'), withoutId(String(at(recorded, 'stdin')))]],
      name,
    )
    t.same(await rig.keepalive(at(input, 'keepalive_published')), [], 'not again')
    const dump = await rig.dump()
    for (const [key, entry] of Object.entries(object(at(observed, 'redis')))) {
      if (key !== 'clients')
        t.equal(canonicalText(dump[key] ?? null), canonicalText(at(entry, 'value')), `${name} ${key}`)
    }
    t.notOk(
      Object.keys(dump).some(key => /registration$|^events/.test(key)),
      'nothing of the registration event is stored',
    )
  }
  const proxied = await rig.result({ client: 'c1', check: { name: 'ping', source: 'sw1', status: 0, output: '' } })
  t.same(
    proxied.map(call => [call.handler, at(event(call), 'client', 'name'), at(event(call), 'check', 'name')]),
    [['registration', 'sw1', 'registration']],
  )
})

t.test('signatures of clients', async t => {
  const rig = await Rig.start(t)
  const state = async (name: string) => {
    const dump = await rig.dump()
    return canonicalText([dump[`client:${name}`] ?? null, dump[`client:${name}:signature`] ?? null])
  }
  const recordedState = (name: string, recorded: Json) =>
    canonicalText([at(recorded, `client:${name}`, 'value'), at(recorded, `client:${name}:signature`, 'value')])
  const late = object(fixture('client-signature-added-later')['observed'])
  for (const [step, signature] of Object.entries({ 1: undefined, 2: 'later', 3: undefined })) {
    const client = object(parseJson(String(at(late[step], 'client:clate', 'value'))))
    const { signature: _, ...unsigned } = client
    await rig.keepalive(
      signature === undefined
        ? { ...unsigned, timestamp: Number(step === '3' ? 1795317171 : client['timestamp']) }
        : client,
    )
    t.equal(await state('clate'), recordedState('clate', late[step] ?? null), `added later, step ${step}`)
  }
  const { observed } = fixture('client-signature-keepalives')
  const base = { address: '127.0.0.1', subscriptions: ['base'], version: '1.9.0' }
  await rig.keepalive({ name: 'csig', signature: 'abc', ...base, timestamp: 1795317167 })
  t.equal(await state('csig'), recordedState('csig', at(observed, 'after_first')))
  rig.log()
  await rig.keepalive({ name: 'csig', signature: 'wrong', marker: 'wrong', ...base, timestamp: 1795317168 })
  t.equal(await state('csig'), recordedState('csig', at(observed, 'after_wrong')))
  const log = list(at(observed, 'log'))
    .slice(1, 3)
    .map(line => {
      const { timestamp: _, ...rest } = object(parseJson(String(line)))
      return canonicalText(rest)
    })
  t.same(rig.log().map(canonicalText), log, 'log')
  await rig.keepalive({ name: 'csig', marker: 'none', ...base, timestamp: 1795317168 })
  t.equal(await state('csig'), recordedState('csig', at(observed, 'after_none')))
  await rig.keepalive({ name: 'csig', signature: 'abc', marker: 'right', ...base, timestamp: 1795317169 })
  t.equal(await state('csig'), recordedState('csig', at(observed, 'after_right')))
})

t.test('results of a signed client count only with its signature; an invalidated client stays out', async t => {
  const rig = await Rig.start(t)
  await rig.keepalive({ ...c1, signature: 'abc' })
  const check = { name: 'cpu', status: 1, output: 'x' }
  rig.log()
  t.same(await rig.result({ client: 'c1', check }), [])
  t.match(rig.log(), [
    {
      level: 'warn',
      message: 'invalid check result signature',
      result: { client: 'c1' },
      client: { signature: 'abc' },
    },
    { level: 'warn', message: 'not retrieving client from the registry' },
    { level: 'warn', message: 'halting result processing' },
  ])
  t.equal((await rig.result({ client: 'c1', check, signature: 'abc' })).length, 1)
  t.equal(
    (await rig.result({ client: 'other', check: { ...check, source: 'c1' }, signature: 'x' })).length,
    0,
    "the proxy client's signature counts",
  )
  await rig.redis.set('client:gone:signature', 'invalidated')
  t.same(await rig.result({ client: 'gone', check }), [])
  t.notOk(await rig.redis.exists('client:gone', 'result:gone'), 'nothing is stored')
  t.equal((await rig.result({ client: 'gone', check, signature: 'invalidated' })).length, 1)
})

t.test("a proxy client's check shows the site's own command", async t => {
  const rig = await Rig.start(t, {
    checks: { ping: { command: 'ping :::address:::', subscribers: ['poller'], interval: 5, publish: false } },
  })
  const send = (client: string, more: JsonObject) =>
    rig.result({ client, check: { name: 'ping', command: 'ping 10.0.0.1', status: 1, output: '', ...more } })
  const [proxied] = await send('c1', { source: 'sw1' })
  t.equal(at(event(proxied), 'check', 'command'), 'ping :::address:::')
  t.equal(at(parseJson(String(await rig.redis.get('result:sw1:ping'))), 'command'), 'ping :::address:::')
  const [own] = await send('c1', {})
  t.equal(at(event(own), 'check', 'command'), 'ping 10.0.0.1')
  t.same(Object.keys(object(event(proxied)['check'])), [
    'command',
    'subscribers',
    'interval',
    'publish',
    'name',
    'status',
    'output',
    'source',
    'type',
    'origin',
    'history',
    'total_state_change',
  ])
})

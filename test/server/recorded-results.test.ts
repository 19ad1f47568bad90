import t from 'tap'
import { parseJson, stringifyJson } from '../../sensu/json.js'
import { canonicalText } from '../../sensu/json-value.js'
import type { Json, JsonObject } from '../../sensu/types.js'
import { at, fixture, list, object, resultOf, timeOf, withoutId } from '../support/recorded-cases.js'
import { Rig } from './rig.js'
import type { HandlerCall } from './site.js'

const c1: JsonObject = {
  name: 'c1',
  subscriptions: ['base'],
  environment: 'production',
  address: '127.0.0.1',
  version: '1.9.0',
  timestamp: 1795317172,
}

/** The recorded site's definition of the check `merged`. */
const merged: JsonObject = {
  command: 'server-cmd',
  subscribers: ['base'],
  publish: false,
  handler: 'default',
  extra: 'from-server',
  interval: 10,
}

/** Text of a recorded event. */
function eventText(value: Json): string {
  return typeof value === 'string' ? value : ''
}

function sorted(calls: Json): string[] {
  return list(calls)
    .map(call => `${at(call, 'handler')} ${withoutId(eventText(at(call, 'stdin')))}`)
    .sort()
}

function sortedCalls(calls: HandlerCall[]): string[] {
  return calls.map(call => `${call.handler} ${withoutId(call.stdin)}`).sort()
}

/** The state of the keys a recording shows, as it shows it. */
async function shownState(rig: Rig, recorded: Json): Promise<string[]> {
  const dump = await rig.dump()
  return Object.keys(object(recorded)).map(key => `${key} ${canonicalText(dump[key] ?? null)}`)
}

function recordedState(recorded: Json): string[] {
  return Object.entries(object(recorded)).map(([key, entry]) => `${key} ${canonicalText(at(entry, 'value'))}`)
}

t.test('the recorded way of a check from OK over critical to warning', async t => {
  const rig = await Rig.start(t)
  await rig.at(1795317173).keepalive(c1)
  const first = fixture('result-ok-first')
  const ok = parseJson(eventText(at(first, 'observed', 'redis', 'result:c1:chk_a', 'value')))
  t.same(await rig.result({ client: 'c1', check: ok }), [], 'no handler for a first OK')
  t.same(await shownState(rig, at(first, 'observed', 'redis')), recordedState(at(first, 'observed', 'redis')))
  for (const name of [
    'result-create-1-status2',
    'result-create-2-status2',
    'result-create-3-status1',
    'result-create-4-status1',
  ]) {
    const { input, observed } = fixture(name)
    const calls = await rig.at(timeOf(at(observed, 'redis_event'))).result(input ?? null)
    t.same(sortedCalls(calls), sorted(at(observed, 'handler_calls')), `${name}: what the handler got`)
    t.equal(
      withoutId(eventText(await rig.redis.hget('events:c1', 'chk_a'))),
      withoutId(eventText(at(observed, 'redis_event'))),
      name,
    )
    t.equal(await rig.redis.hget('events:c1', 'chk_a'), calls[0]?.stdin, `${name}: the handler got what Redis holds`)
    t.same(await shownState(rig, at(observed, 'redis')), recordedState(at(observed, 'redis')), `${name}: Redis`)
  }
})

for (const name of [
  'result-merged-with-server-definition',
  'result-no-handler-uses-default',
  'result-unknown-handler-null-dup',
  'proxy-client-created-by-source',
  'unknown-client-without-source-created',
  'event-with-hooks',
  'metric-ok-always-handled',
  'status-255',
]) {
  t.test(`recorded case ${name}`, async t => {
    const rig = await Rig.start(t, { checks: { merged } })
    const observed = fixture(name)['observed'] ?? null
    const calls = at(observed, 'handler_calls') ?? observed
    const expected = list(Array.isArray(calls) ? calls : observed)
    const text = at(expected[0], 'stdin')
    const event = object(parseJson(eventText(text)))
    if (at(event, 'client', 'address') !== 'unknown') await rig.keepalive(event['client'] ?? null)
    const input = fixture(name)['input'] ?? null
    const sent = at(input, 'check', 'output') === null ? resultOf(text) : input
    t.same(sortedCalls(await rig.at(timeOf(text)).result(sent)), sorted(expected), 'handler')
    if (at(observed, 'redis') !== null) {
      const recorded = JSON.stringify(recordedState(at(observed, 'redis'))).replace(/"id\\+":\\+"[^"\\]+/g, 'ID')
      t.equal(
        JSON.stringify(await shownState(rig, at(observed, 'redis'))).replace(/"id\\+":\\+"[^"\\]+/g, 'ID'),
        recorded,
        'Redis',
      )
    }
    const unknown = list(at(observed, 'log')).map(line => object(parseJson(eventText(line)))['handler_name'] ?? null)
    const logged = rig.log().filter(line => line['message'] === 'unknown handler')
    t.same(
      logged.map(line => line['handler_name']),
      unknown,
      'unknown handlers are logged',
    )
  })
}

t.test('a standalone result is not merged with the definition of the same name', async t => {
  const rig = await Rig.start(t, { checks: { merged } })
  await rig.keepalive(c1)
  await rig.at(1795317176).result(fixture('result-merged-with-server-definition')['input'] ?? null)
  const { input, observed } = fixture('result-standalone-not-merged')
  const calls = await rig.at(1795317177).result(input ?? null)
  t.same(sortedCalls(calls), sorted(at(observed, 'handler_calls')))
  t.same(await shownState(rig, at(observed, 'redis')), recordedState(at(observed, 'redis')))
})

t.test('sequences of events, each continuing the one before', async t => {
  const rig = await Rig.start(t, { handlers: { hsil: { handle_silenced: true }, keepalive: {} } })
  const sequences: [string, Json][] = [
    [
      'metric-fail-then-ok',
      [
        ...list(at(fixture('metric-fail-then-ok'), 'observed', 'calls1')),
        ...list(at(fixture('metric-fail-then-ok'), 'observed', 'calls2')),
      ],
    ],
    [
      'ttl-event ttl1, ttl-resolve',
      [...list(at(fixture('ttl-event'), 'observed', 'ttl1')), ...list(at(fixture('ttl-resolve'), 'observed'))],
    ],
    ['ttl-event ttl2', at(fixture('ttl-event'), 'observed', 'ttl2 ttl_status 2')],
    [
      'keepalive-warning-event, keepalive-resolve-event',
      [
        ...list(at(fixture('keepalive-warning-event'), 'observed')),
        ...list(at(fixture('keepalive-resolve-event'), 'observed', 'kwarn')),
      ],
    ],
    ['keepalive-custom-thresholds', at(fixture('keepalive-custom-thresholds'), 'observed')],
    ['keepalive-signature-client', at(fixture('keepalive-signature-client'), 'observed')],
    [
      'keepalive-server-wide-settings',
      [{ handler: 'default', stdin: at(fixture('keepalive-server-wide-settings'), 'observed', 'event') }],
    ],
    ['keepalive-unmatched-token', at(fixture('keepalive-unmatched-token'), 'observed')],
    ...Object.entries(object(fixture('event-gallery')['observed'])).map(
      ([name, steps]) =>
        [`event-gallery ${name}`, list(steps).flatMap(step => list(at(step, 'handler_calls')))] satisfies [
          string,
          Json,
        ],
    ),
  ]
  for (const [name, calls] of sequences) {
    await rig.redis.flushall()
    if (name === 'event-gallery silenced')
      await rig.redis.set('silence:client:web01:e7', '{"id":"client:web01:e7","begin":null,"expire_on_resolve":false}')
    const first = object(parseJson(eventText(at(list(calls)[0], 'stdin'))))
    const history = list(at(first, 'check', 'history'))
    const checkName = String(at(first, 'check', 'name'))
    for (const call of list(calls)) {
      const text = at(call, 'stdin')
      const event = object(parseJson(eventText(text)))
      const client = object(event['client'])
      await rig.keepalive(client)
      if (call === list(calls)[0] && history.length > 1) await primeHistory(rig, client, checkName, history, first)
      const signature = client['signature']
      const got = await rig
        .at(timeOf(text))
        .result({ ...resultOf(text), ...(signature === undefined ? {} : { signature }) })
      t.same(sortedCalls(got), sorted([call]), `${name} at ${event['timestamp']}`)
    }
  }
})

/** Brings a check to the state before a recorded event that is not the first of its kind: earlier results, and the stored event. */
async function primeHistory(
  rig: Rig,
  client: JsonObject,
  check: string,
  history: Json[],
  event: JsonObject,
): Promise<void> {
  const name = String(client['name'])
  for (const status of history.slice(0, -1)) await rig.redis.rpush(`history:${name}:${check}`, String(status))
  if (event['last_ok'] !== null) await rig.redis.set(`history:${name}:${check}:last_ok`, String(event['last_ok']))
  if (Number(event['occurrences']) > 1) {
    const before = {
      ...event,
      occurrences: Number(event['occurrences']) - 1,
      occurrences_watermark: Number(event['occurrences']) - 1,
    }
    await rig.redis.hset(`events:${name}`, check, stringifyJson(before))
  }
}

t.test('a check with auto_resolve false stays in the registry until it is force-resolved', async t => {
  const rig = await Rig.start(t)
  const { observed } = fixture('auto-resolve-false')
  const [created] = list(at(observed, 'calls_create'))
  await rig.keepalive(c1)
  const calls = await rig.at(timeOf(at(created, 'stdin'))).result(resultOf(at(created, 'stdin')))
  t.same(sortedCalls(calls), sorted(at(observed, 'calls_create')))
  const ok = object(resultOf(at(created, 'stdin'))['check'])
  t.same(await rig.at(1795317182).result({ client: 'c1', check: { ...ok, status: 0 } }), [], 'no handler for the OK')
  t.equal(
    withoutId(eventText(await rig.redis.hget('events:c1', 'ar'))),
    withoutId(eventText(at(observed, 'redis_event'))),
  )
  const forced = at(fixture('auto-resolve-false-force-resolve'), 'observed', 'calls')
  const text = at(list(forced)[0], 'stdin')
  t.same(sortedCalls(await rig.at(timeOf(text)).result(resultOf(text))), sorted(forced))
  t.equal(await rig.redis.hget('events:c1', 'ar'), null)
})

t.test('handle false: the event is stored, no handler is called, and the log says so', async t => {
  const rig = await Rig.start(t)
  const { observed } = fixture('handle-false')
  await rig.keepalive(c1)
  rig.log()
  const text = at(observed, 'redis_event')
  t.same(await rig.at(timeOf(text)).result(resultOf(text)), [])
  t.equal(withoutId(eventText(await rig.redis.hget('events:c1', 'hf'))), withoutId(eventText(text)))
  t.match(rig.log().at(-1), {
    level: 'info',
    message: 'event handling disabled for event',
    handler: { name: 'default' },
    event: { action: 'create' },
  })
})

t.test('occurrences and their watermark', async t => {
  const rig = await Rig.start(t)
  await rig.keepalive(c1)
  const { observed } = fixture('occurrences-watermark')
  for (const step of list(observed)) {
    const time = Number(at(step, 'timestamp'))
    const [call] = await rig
      .at(time)
      .result({ client: 'c1', check: { name: 'occ', status: at(step, 'status'), output: 'x', executed: time } })
    const event = object(parseJson(call?.stdin ?? '{}'))
    const { occurrences_watermark: watermark, action, occurrences, last_state_change, timestamp } = event
    t.same({ status: at(step, 'status'), action, occurrences, watermark, last_state_change, timestamp }, step)
  }
})

t.test('OK keepalive results are stored like any other', async t => {
  const rig = await Rig.start(t)
  const { observed } = fixture('keepalive-ok-stored-result')
  const { type: _, ...check } = object(parseJson(eventText(at(observed, 'result:kok:keepalive', 'value'))))
  for (let i = 0; i < 3; i++) t.same(await rig.result({ client: 'kok', check, signature: '' }), [])
  t.same(await shownState(rig, observed ?? null), recordedState(observed ?? null))
})

t.test('a result without `executed` takes the time of its arrival as last_ok', async t => {
  const rig = await Rig.start(t)
  const { input, observed } = fixture('result-without-executed')
  await rig.at(1795317984).result({ client: 'c1', ...object(input) })
  const { api_history: _, ...state } = object(observed)
  t.same(
    await shownState(rig, state),
    recordedState(state).map(line => line.replace(/history:\w+/, 'history:c1')),
  )
})

t.test('the full state of Redis after each step of the recorded scenario', async t => {
  const rig = await Rig.start(t)
  const steps = new Map(
    list(fixture('redis-full-dump-sequence')['observed']).map(step => [at(step, 'after'), at(step, 'redis')]),
  )
  const after = async (name: string, time: number) => {
    const recorded = object(steps.get(name))
    const shown = Object.entries(recorded).filter(([key]) => !/^(lock:|server|task:)/.test(key))
    const ours = await rig.dump()
    const text = (entries: [string, Json][]) =>
      entries
        .map(([key, value]) => `${key} ${canonicalText(value)}`.replaceAll(/\{\\"id\\":\\"[^"]+\\"/g, '{ID'))
        .sort()
    t.same(
      text(Object.entries(ours)),
      text(shown.map(([key, entry]) => [key, at(entry, 'value')])),
      `${name} (${time})`,
    )
  }
  const base = { command: 'c', interval: 10, handlers: ['default'] }
  const result = async (time: number, check: JsonObject) => {
    await rig.at(time).result({ client: 'web01', check: { ...check, issued: time, executed: time, duration: 0.01 } })
  }
  const client = at(parseJson(eventText(at(object(steps.get('first keepalive of web01')), 'client:web01', 'value'))))
  await rig.at(1795318147).keepalive({ ...object(client), subscriptions: ['base'] })
  await after('first keepalive of web01', 1795318147)
  await result(1795318148, { name: 'cpu', status: 0, ...base, output: 'out\n' })
  await after('first OK result cpu', 1795318148)
  await result(1795318149, { name: 'cpu', status: 2, output: 'CRIT\n', ...base })
  await after('critical result cpu', 1795318149)
  await result(1795318149, { name: 'cpu', status: 2, output: 'CRIT\n', ...base })
  await after('critical result cpu again', 1795318149)
  await result(1795318150, { name: 'cpu', status: 0, output: 'OK\n', ...base })
  await after('OK result cpu (resolve)', 1795318150)
  await result(1795318151, {
    name: 'hb',
    status: 0,
    ttl: 30,
    aggregates: ['web', 'all'],
    handlers: ['default'],
    output: 'out\n',
  })
  await after('OK result hb with ttl 30 and aggregates', 1795318151)
  await result(1795318151, { name: 'ping', status: 1, source: 'sw9', handlers: ['default'], output: 'out\n' })
  await after('result for source sw9 (proxy client creation)', 1795318151)
})

t.test('aggregates', async t => {
  const rig = await Rig.start(t)
  const send = (client: string, check: JsonObject) =>
    rig.result({ client, check: { status: 0, output: 'x', ...check } })
  await send('ct', { name: 'ag1', aggregate: true })
  await send('ct', { name: 'ag2', aggregate: 'named' })
  await send('kok', { name: 'ag2', aggregate: 'named' })
  await send('ct', { name: 'ag3', aggregates: ['x1', 'named', 'a:b|c'] })
  await send('ct', { name: 'ag4', aggregates: ['named'], aggregate: 'ignored' })
  await send('ct', { name: 'ag5', aggregate: false })
  const dump = await rig.dump()
  const kept = Object.keys(dump).filter(key => key.startsWith('aggregates'))
  const { observed } = fixture('aggregates-redis')
  t.same(kept.map(key => `${key} ${canonicalText(dump[key] ?? null)}`).sort(), recordedState(observed ?? null).sort())
})

t.test('truncated output is stored, the whole one goes to handlers', async t => {
  const rig = await Rig.start(t)
  const { input, observed } = fixture('truncate-output')
  for (const check of list(input)) {
    const name = String(at(check, 'name'))
    const [call] = await rig.result({ client: 'c1', check: { status: 1, ...object(check) } })
    const whole = at(parseJson(call?.stdin ?? '{}'), 'check', 'output')
    t.equal(whole, at(observed, 'event_output_given_to_handler', name), `${name} event`)
    const stored = parseJson(eventText(await rig.redis.get(`result:c1:${name}`)))
    t.equal(at(stored, 'output'), at(observed, 'stored_output', name), `${name} stored`)
  }
})

t.test('numbers of any size and any text pass unchanged', async t => {
  const rig = await Rig.start(t)
  const stored = eventText(at(fixture('json-number-and-unicode-formatting'), 'observed', 'stored'))
  const { type: _, ...check } = object(parseJson(stored))
  await rig.result({ client: 'c1', check })
  t.equal(await rig.redis.get('result:c1:uni'), stored)
  t.match(await rig.redis.hget('events:c1', 'uni'), stored.slice(1, -1))
})

t.test('malformed results are logged and dropped; a status in text form counts', async t => {
  const rig = await Rig.start(t)
  const malformed: Json[] = [
    { client: 'rt1' },
    [],
    'x',
    null,
    { client: 'rt1', check: { status: 1 } },
    { client: 'rt1', check: { name: 'nostatus', output: 'x' } },
    { client: 'rt1', check: { name: 'halfstatus', output: 'x', status: 1.5 } },
    { client: 'rt1', check: { name: 'a:b', status: 1 } },
    { client: 'x:y', check: { name: 'a', status: 1 } },
    { client: 'rt1', check: { name: 'a', status: 1, source: 'x%20y' } },
  ]
  for (const result of malformed) {
    t.same(await rig.result(result), [])
    t.match(rig.log(), [{ level: 'error', message: 'invalid check result', error: /\w/ }])
  }
  for (const client of [[], { name: 'x' }, { subscriptions: [] }, { name: 'x y', subscriptions: [] }]) {
    await rig.keepalive(client)
    t.match(rig.log(), [{ level: 'error', message: 'invalid keepalive', error: /\w/ }])
  }
  t.same(await rig.dump(), {})
  await rig.result({ client: 'rt1', check: { name: 'strstatus', status: '2', output: 'x' } })
  t.equal(at(parseJson(eventText(await rig.redis.hget('events:rt1', 'strstatus'))), 'check', 'status'), 2)
  const noOutput = { name: 'nooutput', status: 1, truncate_output: true }
  t.equal((await rig.result({ client: 'rt1', check: noOutput })).length, 1, 'a check without output is stored')
})

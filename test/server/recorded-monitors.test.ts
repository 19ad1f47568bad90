import t from 'tap'
import { parseJson, stringifyJson } from '../../sensu/json.js'
import { canonicalText } from '../../sensu/json-value.js'
import type { Json, JsonObject } from '../../sensu/types.js'
import { at, fixture, list, object, resultOf, timeOf, withoutId } from '../support/recorded-cases.js'
import { rabbitmq } from '../support/services.js'
import { Rig } from './rig.js'
import { type HandlerCall, until } from './site.js'

t.jobs = 2

/** When the recorded clients were made known, Unix seconds; the monitors went round 11 s later (ttl: 1 s), and then every 30 s. */
const beginning = 1795317536
const keepaliveCases = [
  'keepalive-warning-event',
  'keepalive-resolve-event',
  'keepalive-signature-client',
  'keepalive-custom-thresholds',
  'keepalive-unmatched-token',
]

/** All handler calls below a recorded value. */
function callsIn(value: Json | undefined): HandlerCall[] {
  if (Array.isArray(value)) return value.flatMap(callsIn)
  const stdin = at(value, 'stdin')
  if (typeof stdin === 'string') return [{ handler: String(at(value, 'handler')), stdin }]
  return Object.values(object(value)).flatMap(callsIn)
}

const recorded = [...keepaliveCases, 'ttl-event', 'ttl-resolve'].flatMap(name => callsIn(fixture(name)['observed']))

/** A client as it is in the first or last recorded event that is about it. */
function recordedClient(name: string, which: 0 | -1 = 0): JsonObject {
  const clients = recorded.map(({ stdin }) => object(at(parseJson(stdin), 'client')))
  return object(clients.filter(client => client['name'] === name).at(which))
}

/** How kcrit got there, and what became of those that did not resolve. */
const unrecorded = /"name":"kcrit".*"status":2|"issued":1795317607.*"status":[12]/

function comparable(calls: HandlerCall[]): string[] {
  return calls.map(({ handler, stdin }) => `${handler} ${withoutId(stdin)}`).sort()
}

t.test('recorded keepalives and ttls: each round of the monitors', { buffered: true }, async t => {
  const rig = await Rig.start(t, { handlers: { keepalive: {} } })
  const ids = new Map<Json, Json>()
  const compare = (calls: HandlerCall[], time: number) => {
    const expected = recorded.filter(({ stdin }) => timeOf(stdin) === time)
    t.strictSame(comparable(calls), comparable(expected), `${time}`)
    for (const { stdin } of expected) {
      const here = calls.find(call => withoutId(call.stdin) === withoutId(stdin))
      const [there, id] = [at(parseJson(stdin), 'id'), at(parseJson(here?.stdin ?? 'null'), 'id')]
      t.equal(ids.get(there) ?? id, id, 'an event keeps its id')
      ids.set(there, id)
    }
  }
  const { address, version } = recordedClient('kwarn')
  const base = { address: address ?? null, subscriptions: ['base'], version: version ?? null }
  const { keepalives, age } = object(fixture('keepalive-disabled')['input'])
  const clients = [
    ...['kwarn', 'ksig', 'kcustom', 'ktok', 'ct'].map(name => recordedClient(name)),
    { name: 'kcrit', ...base, timestamp: beginning - 200 },
    { name: 'kok', ...base, timestamp: beginning },
  ]
  const disabled = { name: 'koff', ...base, keepalives: keepalives ?? null, timestamp: beginning - Number(age) }
  rig.at(beginning)
  for (const client of [...clients, disabled]) t.strictSame(await rig.keepalive(client), [])
  for (const [label, interval] of [['ttl1', 10] as const, ['ttl2 ttl_status 2', undefined] as const]) {
    const [call] = callsIn(at(fixture('ttl-event')['observed'], label))
    const { type: _, ...check } = object(resultOf(call?.stdin ?? null)['check'])
    if (interval === undefined) delete check['interval']
    else check['interval'] = interval
    t.strictSame(await rig.result({ client: 'ct', check: { ...check, status: 0, output: 'out\n' } }), [])
  }
  const keepaliveResults = clients.map(({ name }) => `result:${String(name)}:keepalive`)
  for (const seconds of [11, 41, 71]) {
    if (seconds === 71) {
      rig.at(beginning + 46)
      for (const name of ['kwarn', 'kcrit']) t.strictSame(await rig.keepalive(recordedClient(name, -1)), [])
    }
    const time = beginning + seconds
    await rig.round('determining stale clients', time)
    await stored(rig, keepaliveResults, `"issued":${time}`)
    compare(
      (await rig.calls()).filter(({ stdin }) => !unrecorded.test(stdin)),
      time,
    )
    const ttlTime = time - 10
    await rig.round('determining stale check results (ttl)', ttlTime)
    await stored(rig, ['result:ct:ttl1', 'result:ct:ttl2'], `${ttlTime - (beginning - 100)} seconds ago`)
    const calls = await rig.calls()
    // nor is the first round of the ttls
    if (seconds > 11) compare(calls, ttlTime)
  }
  const dump = await rig.dump()
  for (const [key, entry] of Object.entries(object(fixture('keepalive-ok-stored-result')['observed'])))
    t.equal(canonicalText(dump[key] ?? null), canonicalText(at(entry, 'value')), key)
  t.same(fixture('keepalive-disabled')['observed'], { events: [], results: [] })
  const ofDisabled = Object.keys(dump).filter(key => key.includes('koff'))
  t.strictSame(ofDisabled, ['client:koff', 'client:koff:signature'], 'keepalive-disabled')

  const [{ stdin: resolve } = { stdin: '' }] = callsIn(fixture('ttl-resolve')['observed'])
  compare(await rig.at(timeOf(resolve)).result(resultOf(resolve)), timeOf(resolve))
})

t.test('recorded case keepalive-server-wide-settings', { buffered: true }, async t => {
  const { input, observed } = fixture('keepalive-server-wide-settings')
  const text = String(at(observed, 'event'))
  const event = object(parseJson(text))
  const keepalives = at(input, 'sensu.keepalives')
  const rig = await Rig.start(t, { sensu: { keepalives } }, (await rabbitmq(t)).url)
  await rig.keepalive(event['client'] ?? null)
  // as it was one round before
  const history = list(at(event, 'check', 'history'))
    .slice(1)
    .map(String)
  await rig.redis.rpush('history:rt1:keepalive', ...history)
  const before = { ...event, occurrences: history.length, occurrences_watermark: history.length }
  await rig.redis.hset('events:rt1', 'keepalive', stringifyJson(before))
  await rig.round('determining stale clients', timeOf(text))
  await stored(rig, ['result:rt1:keepalive'], `"issued":${timeOf(text)}`)
  t.strictSame(
    await rig.calls(),
    [{ handler: 'default', stdin: text }],
    'byte for byte, with the id of the stored event',
  )
  t.equal(await rig.redis.hget('events:rt1', 'keepalive'), text)
})

/** Waits until each of these keys holds the text. */
function stored(rig: Rig, keys: string[], text: string): Promise<void> {
  return until(`${keys.join(', ')} with ${text}`, async () =>
    (await rig.redis.mget(keys)).every(value => value?.includes(text)),
  )
}

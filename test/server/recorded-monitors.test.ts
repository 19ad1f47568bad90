import t from 'tap'
import { parseJson, stringifyJson } from '../../sensu/json.js'
import { fromEntries } from '../../sensu/json-value.js'
import { Logger } from '../../sensu/log.js'
import type { Json, JsonObject, Settings } from '../../sensu/types.js'
import { keepaliveCheck, monitorClients } from '../../server/client-monitor.js'
import { ResultPublisher } from '../../server/result-publisher.js'
import { monitorTtl, staleCheck } from '../../server/ttl-monitor.js'
import { at, fixture, list, object } from '../pipeline/rig.js'
import { startStore } from '../store/support.js'
import { RecordingTransport } from './recording-transport.js'

function settingsWith(keepalives: JsonObject, handlers: Settings['handlers'] = { keepalive: {} }): Settings {
  return {
    client: { name: '', address: '', subscriptions: [] },
    sensu: { spawn: { limit: 12 }, keepalives },
    transport: { name: 'rabbitmq', reconnect_on_error: true },
    checks: {},
    filters: {},
    mutators: {},
    handlers,
    extensions: {},
  }
}

const usual = settingsWith({ thresholds: { warning: 120, critical: 180 } })

/** The recorded check as it was published: without what the pipeline adds. */
function published(check: Json): JsonObject {
  const { type: _t, history: _h, total_state_change: _s, ...rest } = object(check)
  return rest
}

/** All events of a recording, whatever it lists them under. */
function events(value: Json): JsonObject[] {
  if (Array.isArray(value)) return value.flatMap(events)
  const stdin = at(value, 'stdin')
  if (typeof stdin === 'string') return [object(parseJson(stdin))]
  return Object.values(object(value)).flatMap(item => events(item ?? null))
}

for (const name of [
  'keepalive-warning-event',
  'keepalive-resolve-event',
  'keepalive-signature-client',
  'keepalive-custom-thresholds',
  'keepalive-unmatched-token',
]) {
  t.test(`recorded case ${name}: every attribute in its place`, async t => {
    const recorded = events(fixture(name)['observed'] ?? null)
    t.not(recorded.length, 0)
    for (const event of recorded) {
      const check = published(event['check'] ?? null)
      const made = keepaliveCheck(object(event['client']), usual, Number(check['issued']) * 1000)
      t.equal(stringifyJson(made), stringifyJson(check))
    }
  })
}

t.test('recorded case keepalive-server-wide-settings', async t => {
  const { input, observed } = fixture('keepalive-server-wide-settings')
  const event = object(parseJson(String(at(observed, 'event'))))
  const check = published(event['check'] ?? null)
  const keepalives = { thresholds: { warning: 10, critical: 20 }, handlers: ['default'], custom: 'c' }
  const made = keepaliveCheck(object(event['client']), settingsWith(keepalives, {}), Number(check['issued']) * 1000)
  t.equal(stringifyJson(made), stringifyJson(check), stringifyJson(input ?? null))
})

t.test('recorded case keepalive-ok-stored-result', async t => {
  const check = published(
    parseJson(String(at(fixture('keepalive-ok-stored-result'), 'observed', 'result:kok:keepalive', 'value'))),
  )
  const client = { name: 'kok', timestamp: Number(check['issued']) - 71 }
  t.equal(stringifyJson(keepaliveCheck(client, usual, Number(check['issued']) * 1000)), stringifyJson(check))
})

t.test('recorded case ttl-event: every attribute in its place, executed and issued as they were', async t => {
  const { observed } = fixture('ttl-event')
  for (const [name, status] of [
    ['ttl1', 1],
    ['ttl2 ttl_status 2', 2],
  ] as const) {
    const recorded = events(at(observed, name))
    t.equal(recorded.length, 2)
    for (const event of recorded) {
      const { history: _h, total_state_change: _s, ...check } = object(event['check'])
      const before = { ...check, status: 0, output: 'out\n', ...(check['interval'] === 30 && { interval: 10 }) }
      const made = staleCheck(before, Number(check['executed']) + Number(/\d+/.exec(String(check['output']))?.[0]))
      t.equal(at(made ?? null, 'status'), status)
      t.strictSame(made, check)
    }
  }
})

t.test('at, above and below the ttl; a forced resolve and a missing time wait for the next result', async t => {
  const check = { name: 'k', ttl: 10, executed: 1000 }
  t.equal(staleCheck(check, 1009), undefined)
  t.match(staleCheck(check, 1010), { output: 'Last check execution was 10 seconds ago', status: 1, interval: 30 })
  t.equal(staleCheck({ ...check, force_resolve: true }, 2000), undefined)
  t.equal(staleCheck({ name: 'k', ttl: 10 }, 2000), undefined)
  t.equal(staleCheck({ name: 'k', executed: 1000 }, 2000), undefined, 'a check that does not use ttl any more')
})

t.test('at the thresholds of keepalives; unmatched tokens raise an OK to a warning', async t => {
  const status = (age: number) => keepaliveCheck({ name: 'c', timestamp: 1000 - age }, usual, 1_000_000).status
  t.strictSame([119, 120, 179, 180].map(status), [0, 1, 1, 2])
})

t.test('a round: every client that sends keepalives, with the signature that Redis has', async t => {
  const { store, redis } = await startStore(t)
  const transport = new RecordingTransport()
  const log = new Logger({ level: 'fatal' })
  const results = new ResultPublisher(transport, log)
  const now = Math.floor(Date.now() / 1000)
  const client = (name: string, more: JsonObject = {}) =>
    fromEntries([['name', name], ['timestamp', now], ['subscriptions', []], ...Object.entries(more)])
  await store.storeClient(client('plain'))
  await store.storeClient(client('signed', { signature: 'abc' }))
  await store.storeClient(client('off', { keepalives: false, timestamp: now - 9999 }))
  await redis.set('client:made', stringifyJson(client('made')))
  await redis.sadd('clients', 'made', 'vanished')
  await monitorClients({ settings: usual, store, results, log })
  const messages = transport.published.map(({ pipe, message }) => [pipe, ...Object.entries(object(parseJson(message)))])
  t.strictSame(
    transport.published.map(({ type, pipe }) => `${type} ${pipe}`),
    messages.map(() => 'direct results'),
  )
  const signatures = transport.published.map(({ message }) => {
    const { client: name, signature = 'none' } = object(parseJson(message))
    return `${name} ${signature === '' ? 'empty' : signature}`
  })
  t.strictSame(signatures.sort(), ['made none', 'plain empty', 'signed abc'])

  // recorded case keepalive-disabled
  const { input, observed } = fixture('keepalive-disabled')
  t.same([at(input, 'keepalives'), observed], [false, { events: [], results: [] }])

  transport.published.length = 0
  const result = (name: string, more: JsonObject, from = 'plain') =>
    store.storeResult({
      client: from,
      nowSeconds: now,
      check: { name, type: 'standard', status: 0, executed: now - 100, ...more },
    })
  await result('old', { ttl: 50 })
  await result('young', { ttl: 500 })
  await result('old', { ttl: 50 }, 'signed')
  await result('keepalive', { status: 2, handlers: [] }, 'signed')
  await redis.sadd('ttl', 'plain:gone')
  await monitorTtl({ store, results, log })
  t.match(
    transport.published.map(({ message }) => object(parseJson(message))),
    [{ client: 'plain', signature: '', check: { name: 'old', status: 1 } }],
  )
  t.equal(list(await redis.smembers('ttl')).includes('plain:gone'), false, 'a result that is gone is forgotten')
})

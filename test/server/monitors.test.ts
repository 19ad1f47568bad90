import t from 'tap'
import { parseJson, stringifyJson } from '../../sensu/json.js'
import { fromEntries } from '../../sensu/json-value.js'
import { Logger } from '../../sensu/log.js'
import type { JsonObject, Settings } from '../../sensu/types.js'
import { keepaliveCheck, monitorClients } from '../../server/client-monitor.js'
import { ResultPublisher } from '../../server/result-publisher.js'
import { monitorTtl, staleCheck } from '../../server/ttl-monitor.js'
import { startStore } from '../store/support.js'
import { list, object } from '../support/recorded-cases.js'
import { RecordingTransport } from './recording-transport.js'

const usual: Settings = {
  client: { name: '', address: '', subscriptions: [] },
  sensu: { spawn: { limit: 12 }, keepalives: { thresholds: { warning: 120, critical: 180 } } },
  transport: { name: 'rabbitmq', reconnect_on_error: true },
  checks: {},
  filters: {},
  mutators: {},
  handlers: { keepalive: {} },
  extensions: {},
}

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

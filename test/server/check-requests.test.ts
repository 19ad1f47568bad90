import { setImmediate as nextTurn, setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { parseJson, stringifyJson } from '../../sensu/json.js'
import { splayDelayMs } from '../../sensu/splay.js'
import type { JsonObject } from '../../sensu/types.js'
import { CheckRequests } from '../../server/check-requests.js'
import { CheckScheduler } from '../../server/check-scheduler.js'
import { startStore } from '../store/support.js'
import { fixture, object } from '../support/recorded-cases.js'
import { RecordingLog } from '../transport/recording-log.js'
import { RecordingTransport } from './recording-transport.js'
import { until } from './site.js'

const { store } = await startStore(t)
for (const number of [1, 2, 3]) {
  const more = { environment: 'prod', device: 'switch', keepalives: false, version: '1.9.0' }
  const name = `sw${number}`
  await store.storeClient({ name, address: `10.0.0.${number}`, subscriptions: ['net'], ...more })
}
await store.storeClient({ name: 'host', address: '10.0.0.9', subscriptions: ['base'] })

function rig(checks: { [name: string]: JsonObject } = {}) {
  const transport = new RecordingTransport()
  const log = new RecordingLog()
  const requests = new CheckRequests({ store, transport, log })
  const scheduler = new CheckScheduler({ settings: { checks }, requests, log })
  return { transport, lines: log.lines, requests, scheduler }
}

t.test('a client without an attribute that a token names gets no request; the log says which', async t => {
  const { requests, lines } = rig()
  const check = { name: 'bad', command: 'ping :::nonexist:::', proxy_requests: { client_attributes: { name: 'sw1' } } }
  t.strictSame(await requests.proxyRequests(check), [])
  t.match(
    lines.find(({ message }) => message === 'failed to publish a proxy check request'),
    {
      level: 'warn',
      reason: 'unmatched client tokens',
      unmatched_tokens: ['nonexist'],
      check: { name: 'bad', command: 'ping :::nonexist:::' },
    },
  )
  const { requests: others } = rig()
  t.strictSame(
    await others.proxyRequests({ name: 'x', proxy_requests: { client_attributes: {} } }),
    [],
    'no attributes: nobody',
  )
})

t.test(
  'requests go out at the moment that all servers compute, not when the check is standalone, subdued or unpublished',
  async t => {
    const all = { days: { all: [{ begin: '12:00 AM', end: '11:59:59 PM' }] } }
    const subscribers = ['base']
    const { transport, scheduler, lines } = rig({
      due: { command: 'true', subscribers, interval: 1 },
      subdued: { command: 'true', subscribers, interval: 1, subdue: all },
      standalone: { command: 'true', standalone: true, interval: 1 },
      unpublished: { command: 'true', subscribers, interval: 1, publish: false },
    })
    scheduler.start()
    await until('three requests', () => transport.published.length >= 3)
    scheduler.stop()
    const count = transport.published.length
    for (const { message, atMs } of transport.published) {
      t.equal(object(parseJson(message))['name'], 'due')
      const late = (1000 - splayDelayMs('due', 1, atMs)) % 1000
      t.ok(late < 500, `${late} ms after its moment`)
    }
    t.match(
      lines.find(({ message }) => message === 'check request was subdued'),
      { level: 'info', check: { name: 'subdued' } },
    )
    await sleep(1100)
    t.equal(transport.published.length, count, 'nothing after the end')
  },
)

t.test('requests for thousands of clients do not wait for the broker all at once, and none is left out', async t => {
  const { transport, requests } = rig()
  const publish = transport.publish.bind(transport)
  let [waiting, most] = [0, 0]
  transport.publish = async (...message) => {
    waiting += 1
    most = Math.max(most, waiting)
    await nextTurn()
    waiting -= 1
    await publish(...message)
  }
  const checks = Array.from({ length: 2500 }, (_, at) => ({ name: 'ping', source: `sw${at}`, subscribers: ['poller'] }))
  await requests.publishAll(checks)
  t.strictSame(
    transport.published.map(({ message }) => object(parseJson(message))['source']),
    checks.map(({ source }) => source),
  )
  t.ok(most <= 100, `${most} at a time`)
})

t.test('the moment of each recorded check, which all servers compute alike', async t => {
  for (const [key, entry] of Object.entries(object(fixture('check-request-splay-phase')['observed']))) {
    const { interval, md5_le64_mod_interval_ms: phase } = object(entry)
    t.equal(splayDelayMs(key.split('|')[1] ?? '', Number(interval), 0), phase, key)
  }
})

t.test('splayed proxy requests are spread over the covered part of the interval', async t => {
  const proxy_requests = { client_attributes: { device: "eval: value == 'switch'" }, splay: true, splay_coverage: 60 }
  const { transport, scheduler } = rig({
    ping: { command: 'ping', subscribers: ['poller'], interval: 2, proxy_requests },
  })
  scheduler.start()
  await until('a round', () => transport.published.length >= 3)
  scheduler.stop()
  const [first = 0, second = 0, third = 0] = transport.published.map(({ atMs }) => atMs)
  for (const gap of [second - first, third - second]) t.ok(gap > 350 && gap < 700, `${gap} ms instead of 400`)
  const sources = transport.published.map(({ message }) => object(parseJson(message))['source'])
  t.strictSame(sources.slice(0, 3).sort(), ['sw1', 'sw2', 'sw3'], stringifyJson(proxy_requests))
})

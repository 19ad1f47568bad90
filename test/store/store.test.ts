import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { startRedis } from '../../scripts/services/redis.js'
import { parseJson } from '../../sensu/json.js'
import type { Json, JsonObject } from '../../sensu/types.js'
import { Store } from '../../store/store.js'
import { StoreOverflowError } from '../../store/write-queue.js'
import { LossyRelay, resultInput, startStore } from './support.js'

function deferred(): { promise: Promise<void>; resolve: () => void } {
  let resolve: () => void = () => {}
  const promise = new Promise<void>(done => {
    resolve = done
  })
  return { promise, resolve }
}

function field(text: string | null | undefined, name: string): Json | undefined {
  const value = parseJson(text ?? 'null')
  return value !== null && typeof value === 'object' && !Array.isArray(value) ? Reflect.get(value, name) : undefined
}

t.test('two processes that store results of the same check at once: every one counts exactly once', async t => {
  const { server, redis, store } = await startStore(t)
  await store.storeClient({ name: 'c', subscriptions: ['client:c'] })
  const script = fileURLToPath(new URL('./storing-process.js', import.meta.url))
  const each = 2000
  const processes = [0, 1].map(() =>
    spawn(process.execPath, [script, server.url, String(each)], { stdio: ['ignore', 'pipe', 'inherit'] }),
  )
  const outputs = await Promise.all(
    processes.map(async child => {
      let output = ''
      child.stdout.on('data', data => {
        output += data
      })
      await once(child, 'close')
      return output
    }),
  )
  const occurrences = outputs.flatMap(output => output.trim().split(' ').map(Number)).sort((a, b) => a - b)
  t.same(
    occurrences,
    Array.from({ length: 2 * each }, (_, index) => index + 1),
    'every occurrence was told to one process',
  )
  t.equal(field(await redis.hget('events:c', 'k'), 'occurrences'), 2 * each)
  t.equal(await redis.llen('history:c:k'), 21)
  const ids = new Set((await redis.hvals('events:c')).map(text => field(text, 'id')))
  t.equal(ids.size, 1)
})

t.test('results wait in order while Redis is down, and are written after it is back', async t => {
  const seen: string[] = []
  const lost = deferred()
  const { server, store, redis } = await startStore(t, {
    onLost: () => {
      seen.push('lost')
      lost.resolve()
    },
    onRestored: () => seen.push('restored'),
  })
  await store.storeResult(resultInput(0))
  await server.kill()
  await lost.promise
  const results = [1, 2, 3, 0].map(status => store.storeResult(resultInput(status)))
  t.notOk(store.connected)
  t.match(store.backlog, { waiting: 4, dropped: 0 })
  await server.restart()
  const stored = await Promise.all(results)
  t.same(
    stored.map(result => result.outcome === 'stored' && result.event?.action),
    ['create', 'create', 'create', 'resolve'],
  )
  t.same(await redis.lrange('history:c:k', 0, -1), ['0', '1', '2', '3', '0'])
  t.same(seen, ['lost', 'restored'])
  t.match(store.backlog, { waiting: 0, dropped: 0 })
})

t.test('a store whose Redis is not up yet starts, and writes when it comes', async t => {
  const { server } = await startStore(t)
  await server.kill()
  const errors: (Error | undefined)[] = []
  const store = await Store.connect({ host: '127.0.0.1', port: server.port }, { onLost: error => errors.push(error) })
  t.teardown(() => store.close())
  t.notOk(store.connected)
  t.match(errors, [/ECONNREFUSED/])
  const result = store.storeResult(resultInput(1))
  await server.restart()
  t.match(await result, { outcome: 'stored', event: { action: 'create' } })
})

t.test('over the bound the oldest waiting result is given up, counted and reported', async t => {
  const dropped: number[] = []
  const lost = deferred()
  const notices = { onOverflow: (total: number) => dropped.push(total), onLost: lost.resolve }
  const { server, store, redis } = await startStore(t, notices, { maximumWrites: 3 })
  await server.kill()
  await lost.promise
  const results = [1, 2, 3, 4, 5].map(status => store.storeResult(resultInput(status)))
  const settled = Promise.allSettled(results)
  await server.restart()
  const outcomes = await settled
  t.same(
    outcomes.map(outcome => outcome.status),
    ['rejected', 'rejected', 'fulfilled', 'fulfilled', 'fulfilled'],
  )
  t.ok(outcomes[0]?.status === 'rejected' && outcomes[0].reason instanceof StoreOverflowError)
  t.same(dropped, [1, 2])
  t.same(await redis.lrange('history:c:k', 0, -1), ['3', '4', '5'])
  t.equal(store.backlog.dropped, 2)
})

t.test('texts too long to keep are given up too', async t => {
  const { store } = await startStore(t, {}, { maximumLength: 5000 })
  await t.rejects(store.storeResult(resultInput(1, { output: 'x'.repeat(5000) })), StoreOverflowError)
  t.match(await store.storeResult(resultInput(1)), { outcome: 'stored' })
})

t.test('an answer that is lost with the connection does not make a result count twice', async t => {
  const { server, redis } = await startStore(t)
  const relay = await LossyRelay.start(t, server.port)
  const store = await Store.connect({ port: relay.port })
  t.teardown(() => store.close())
  const storeLosingAnswer = async (status: number, more: JsonObject = {}) => {
    const lost = relay.loseNextAnswer()
    const result = store.storeResult(resultInput(status, more))
    await lost
    return result
  }
  await store.storeResult(resultInput(0, { executed: 1 }))
  t.match(await storeLosingAnswer(2, { executed: 2 }), {
    event: { action: 'create', handle: true, text: /"occurrences":1,/ },
  })
  t.match(await storeLosingAnswer(2, { executed: 3 }), {
    event: { action: 'create', handle: true, text: /"occurrences":2,/ },
  })
  t.same(await redis.lrange('history:c:k', 0, -1), ['0', '2', '2'])
  const both = [store.storeResult(resultInput(2, { executed: 3.1 })), storeLosingAnswer(2, { executed: 3.2 })]
  t.match(
    await Promise.all(both),
    [{ event: { text: /"occurrences":3,/ } }, { event: { text: /"occurrences":4,/ } }],
    'two under way',
  )
  t.match(await storeLosingAnswer(0, { executed: 4 }), {
    event: { action: 'resolve', handle: true, text: /"occurrences":4,/ },
  })
  const ok = await storeLosingAnswer(0, { executed: 5 })
  t.notOk(ok.outcome === 'stored' && ok.event?.handle, 'an OK after an OK stays without event')
  t.same(await redis.lrange('history:c:k', 0, -1), ['0', '2', '2', '2', '2', '0', '0'])
  t.equal(await redis.hlen('events:c'), 0)
})

t.test('scripts that were flushed are loaded again, and the order is kept', async t => {
  const { store, redis } = await startStore(t)
  await store.storeResult(resultInput(0))
  await redis.script('FLUSH')
  await Promise.all([1, 2, 3, 4].map(status => store.storeResult(resultInput(status))))
  t.same(await redis.lrange('history:c:k', 0, -1), ['0', '1', '2', '3', '4'])
})

t.test('a Redis that says "not now" is asked again', async t => {
  const { store, redis } = await startStore(t)
  await redis.config('SET', 'maxmemory', '1')
  const result = store.storeResult(resultInput(1))
  await redis.ping()
  t.equal(store.backlog.waiting, 1)
  await redis.config('SET', 'maxmemory', '0')
  t.match(await result, { outcome: 'stored' })
})

t.test('an error of Redis itself reaches the caller and stops nothing', async t => {
  const { store, redis } = await startStore(t)
  await redis.set('client:c', 'not json')
  await t.rejects(store.storeResult(resultInput(1)), /stored client c is not a JSON object/)
  t.match(await store.storeResult(resultInput(1, {}, { client: 'd' })), { outcome: 'stored' })
})

t.test('a Redis that hangs is left and tried anew, and nothing is lost or counted twice', async t => {
  const lost = deferred()
  const { server, store, redis } = await startStore(t, { onLost: lost.resolve }, { silenceTimeoutMs: 300 })
  const pid = server.pid() ?? 0
  process.kill(pid, 'SIGSTOP')
  const results = [1, 2].map(status => store.storeResult(resultInput(status)))
  await lost.promise
  process.kill(pid, 'SIGCONT')
  t.match(await Promise.all(results), [{ outcome: 'stored' }, { outcome: 'stored' }])
  t.same(await redis.lrange('history:c:k', 0, -1), ['1', '2'])
})

t.test('a password is needed, wrong ones are told', async t => {
  const server = await startRedis({ password: 'p@ss' })
  t.teardown(() => server.stop())
  const right = await Store.connect({ port: server.port, password: 'p@ss' })
  t.ok(right.connected)
  right.close()
  const errors: (Error | undefined)[] = []
  const wrong = await Store.connect({ port: server.port, password: 'no' }, { onLost: error => errors.push(error) })
  t.teardown(() => wrong.close())
  t.notOk(wrong.connected)
  t.match(errors, [/WRONGPASS|NOAUTH/])
})

t.test('with auto_reconnect false a lost connection is final, and said', async t => {
  const { server } = await startStore(t)
  const lost = deferred()
  const store = await Store.connect({ port: server.port, auto_reconnect: false }, { onLost: lost.resolve })
  await server.kill()
  await lost.promise
  await t.rejects(store.storeResult(resultInput(1)), /the store is closed|closed before/)
  t.throws(() => store.clients(), /Redis is not connected/)
})

t.test('closing gives up what waits, says how much, and leaves nothing behind', async t => {
  const { server, store } = await startStore(t)
  await server.kill()
  const result = store.storeResult(resultInput(1))
  t.equal(store.close(), 1)
  await t.rejects(result, /closed before Redis took this write/)
  await t.rejects(store.storeResult(resultInput(1)), /the store is closed/)
})

t.test('lone surrogates, deep nesting and odd keys do not break later results', async t => {
  const { store, redis } = await startStore(t)
  await store.storeClient({ name: 'c', subscriptions: ['client:c', 'x'], note: '\ud800 \\ud800' })
  let deep: Json = 1
  for (let level = 0; level < 400; level++) deep = [deep]
  const hostile = { output: 'a\udc00b', '10': 'ten', '9': [], __proto__key: {}, command: '%s %1 \\1', deep }
  t.match(await store.storeResult(resultInput(1, hostile)), { event: { text: /"occurrences":1,/ } })
  t.match(await store.storeResult(resultInput(1, hostile)), { event: { text: /"occurrences":2,/ } })
  t.match(await redis.get('client:c'), '"note":"\\ufffd \\\\ud800"')
  t.match(await redis.get('result:c:k'), '"output":"a\\ufffdb"')
})

t.test('history and total_state_change that come with a result keep their place in the event', async t => {
  const { store, redis } = await startStore(t)
  const more = { total_state_change: 7, executed: 5, history: ['9'], source: 's' }
  const result = await store.storeResult({ ...resultInput(1, more), proxyCommand: 'own' })
  const text = result.outcome === 'stored' ? (result.event?.text ?? '') : ''
  t.match(text, '"output":"x","total_state_change":0,"executed":5,"history":["1"],"source":"s","command":"own"}')
  t.match(
    await redis.get('result:c:k'),
    '"output":"x","total_state_change":7,"executed":5,"history":["9"],"source":"s","command":"own"}',
  )
})

t.test('clients, results and events are read back', async t => {
  const { store, redis } = await startStore(t)
  const count = 250
  const writes = Array.from({ length: count }, (_, i) => [
    store.storeClient({ name: `c${i}`, subscriptions: [] }),
    store.storeResult(resultInput(i % 2, { name: 'a' }, { client: `c${i}` })),
    store.storeResult(resultInput(0, { name: 'b' }, { client: `c${i}` })),
  ])
  await Promise.all(writes.flat())
  await redis.sadd('clients', 'ghost')
  await redis.set('result:c0:b', '{broken')
  const clients: JsonObject[] = []
  for await (const client of store.clients()) clients.push(client)
  t.equal(new Set(clients.map(client => client['name'])).size, count)
  const results = new Map<string, Json | undefined>()
  for await (const { client, check } of store.results()) results.set(`${client}/${check['name']}`, check['status'])
  t.equal(results.size, 2 * count - 1, 'broken ones are left out')
  t.equal(results.get('c7/a'), 1)
  let events = 0
  for await (const event of store.events()) events += event['action'] === 'create' ? 1 : 0
  t.equal(events, count / 2)
})

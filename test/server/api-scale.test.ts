import t from 'tap'
import { apiPort, Site, until } from './site.js'

const CLIENTS = 2500
const CHECKS = 4

const site = await Site.open(t)
// clients that never send keepalives are left alone
await site.redis.set('lock:task:client_monitor', '99999999999999999')
await Promise.all(Array.from({ length: CLIENTS }, (_, at) => seed(at)))
const server = await site.serve(site.settings({ api: { bind: '127.0.0.1', port: 0 } }), [])
const base = `http://127.0.0.1:${await apiPort(server)}`

async function seed(at: number): Promise<void> {
  const name = `host-${at}`
  const secret = at % 100 === 0 ? { password: 'p' } : {}
  const client = { name, address: 'x', subscriptions: ['base'], zone: at % 10, timestamp: 1, ...secret }
  const pipeline = site.redis.pipeline().sadd('clients', name).set(`client:${name}`, JSON.stringify(client))
  for (let check = 0; check < CHECKS; check++) {
    const result = { name: `c${check}`, status: 0, output: 'o'.repeat(300), executed: 1, issued: 1, type: 'standard' }
    pipeline.sadd(`result:${name}`, result.name).set(`result:${name}:${result.name}`, JSON.stringify(result))
    pipeline.rpush(`history:${name}:${result.name}`, '0', '0')
  }
  const event = { client, check: { name: 'c0', status: at % 3 }, action: 'create' }
  if (at % 2 === 0) pipeline.hset(`events:${name}`, 'c0', JSON.stringify(event))
  await pipeline.exec()
}

/** Results of another check that arrive while lists are read; resolves with the keys of all of them when told to stop. */
function resultsFlow(): { stop(): Promise<string[]> } {
  let flowing = true
  const keys: string[] = []
  const done = (async () => {
    while (flowing) {
      const client = `host-${keys.length % CLIENTS}`
      const name = `flow-${Math.floor(keys.length / CLIENTS)}`
      const check = { name, status: 0, output: 'x', executed: 1, issued: 1 }
      await site.publish('results', { client, check })
      keys.push(`result:${client}:${name}`)
    }
  })()
  return {
    async stop() {
      flowing = false
      await done
      return keys
    },
  }
}

interface Item {
  name?: string
  zone?: number
  client?: string | { name: string }
  check?: { name: string; history?: number[] }
}

async function items(path: string): Promise<{ list: Item[]; headers: Headers }> {
  const response = await fetch(`${base}${path}`)
  const list: Item[] = JSON.parse(await response.text())
  return { list, headers: response.headers }
}

t.test('the pages of a dashboard have every client and event once, while results flow', async t => {
  const flow = resultsFlow()
  await site.stored('result:host-0:flow-0')
  for (const [path, total] of [
    ['/clients', CLIENTS],
    ['/events', CLIENTS / 2],
  ] as const) {
    const names = new Set<string>()
    let told = Number.POSITIVE_INFINITY
    for (let offset = 0; offset < told; offset += 1000) {
      const { list, headers } = await items(`${path}?limit=1000&offset=${offset}`)
      const page = JSON.parse(headers.get('x-pagination') ?? '')
      t.match(page, { limit: 1000, offset })
      told = page.total
      t.ok(list.length === 1000 || offset + list.length >= told)
      for (const { name, client } of list) names.add(name ?? (typeof client === 'object' ? client.name : ''))
    }
    t.equal(names.size, total, path)
  }
  const published = await flow.stop()
  await until('all results', async () => (await site.redis.exists(...published)) === published.length)
  t.ok(published.length > 0)
})

t.test('filters look at every item, and at what is shown', async t => {
  t.equal((await items('/clients?filter.zone=7')).list.length, CLIENTS / 10)
  t.equal((await items('/clients?filter.password=REDACTED')).list.length, CLIENTS / 100)
  t.equal((await items('/clients?filter.password=p')).list.length, 0)
  const { list, headers } = await items('/clients?filter.zone=7&limit=1000')
  t.match(JSON.parse(headers.get('x-pagination') ?? ''), { total: CLIENTS }, 'the total is the unfiltered one')
  t.ok(list.length <= 1000 && list.every(({ zone }) => zone === 7))
})

t.test('a list that is too long to be held is sent in pieces, while others are answered and results flow', async t => {
  const flow = resultsFlow()
  const whole = items('/results')
  let reading = true
  void whole.finally(() => {
    reading = false
  })
  let answered = 0
  while (reading) {
    t.equal((await fetch(`${base}/health`)).status, 204)
    answered += 1
  }
  const { list, headers } = await whole
  t.equal(headers.get('transfer-encoding'), 'chunked')
  t.equal(list.filter(({ check }) => /^c\d$/.test(check?.name ?? '')).length, CLIENTS * CHECKS)
  t.match(
    list.find(({ client, check }) => client === 'host-7' && check?.name === 'c0'),
    { check: { history: [0, 0] } },
  )
  t.ok(answered > 1)
  await flow.stop()
})

t.test('who goes away in the middle of a list is not waited for', async t => {
  const aborted = new AbortController()
  const response = await fetch(`${base}/results`, { signal: aborted.signal })
  await response.body?.getReader().read()
  aborted.abort()
  await server.log('api client went away')
  t.equal((await items('/results/host-1?filter.check.name=c1')).list.length, 1)
  t.strictSame(await server.stop(), { status: 0, signal: null })
})

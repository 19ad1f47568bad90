import { once } from 'node:events'
import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { PassThrough } from 'node:stream'
import t, { type Test } from 'tap'
import { UndeliverableError } from '../../agent/held-results.js'
import { Spool } from '../../agent/spool.js'
import { SpooledResults } from '../../agent/spooled-results.js'
import { openSpooledSink } from '../../agent/spooled-sink.js'
import { parseJson } from '../../sensu/json.js'
import { Logger } from '../../sensu/log.js'
import { RedisTransport } from '../../transport/redis.js'
import { redis } from '../support/services.js'

const names = (from: number, to: number) => Array.from({ length: to - from + 1 }, (_, index) => `${from + index}`)

/** A destination that can be away, and can refuse. */
class Destination {
  ready = true
  readonly arrived: string[] = []
  /** Answers of the next deliveries; when there is none: accepted. */
  readonly refusals: (Error | undefined)[] = []
  mostAtOnce = 0
  #atOnce = 0

  async send(message: Buffer): Promise<void> {
    this.mostAtOnce = Math.max(this.mostAtOnce, ++this.#atOnce)
    await new Promise<void>(resolve => setImmediate(resolve))
    this.#atOnce--
    const refusal = this.refusals.shift()
    if (!this.ready) throw new Error('gone')
    if (refusal) throw refusal
    this.arrived.push(message.toString())
  }
}

async function open(t: Test, directory = join(t.testdir(), 'spool'), destination = new Destination()) {
  const spool = await Spool.open({ directory })
  const results = new SpooledResults({
    spool,
    send: message => destination.send(message),
    ready: () => destination.ready,
    window: 4,
    retryDelayMs: 1,
  })
  const close = async () => {
    results.close()
    await spool.close()
  }
  t.teardown(close)
  return { destination, spool, results, directory, close }
}

t.test('while the destination is there, results pass in order and nothing is written', async t => {
  const { destination, results, spool, directory } = await open(t)
  for (const name of names(1, 50)) results.add(Buffer.from(name))
  await results.drained(10_000)
  t.strictSame(destination.arrived, names(1, 50))
  t.ok(destination.mostAtOnce <= 4)
  t.equal(results.count, 0)
  await spool.flush()
  t.strictSame(readdirSync(directory), ['owner'])
})

t.test('results of an outage, also of an earlier process, arrive in order when the destination is back', async t => {
  const first = await open(t)
  first.destination.ready = false
  for (const name of names(1, 100)) first.results.add(Buffer.from(name))
  await first.close()
  const { destination, results, spool } = await open(t, first.directory, first.destination)
  t.equal(results.count, 100)
  for (const name of names(101, 150)) results.add(Buffer.from(name))
  await spool.flush()
  for (const name of names(151, 200)) results.add(Buffer.from(name))
  destination.ready = true
  results.resume()
  await results.drained(10_000)
  t.strictSame(destination.arrived, names(1, 200))
})

t.test('a failed delivery is repeated, together with what was sent after it; nothing is missing', async t => {
  const { destination, results } = await open(t)
  destination.refusals.push(undefined, new Error('refused'))
  for (const name of names(1, 10)) results.add(Buffer.from(name))
  await results.drained(10_000)
  const firsts = destination.arrived.filter((name, index) => destination.arrived.indexOf(name) === index)
  t.strictSame([...firsts].sort(), names(1, 10).sort())
  t.equal(destination.arrived.lastIndexOf('2') > destination.arrived.indexOf('1'), true)
})

t.test('what can never be delivered is given up, also on disk', async t => {
  const { destination, results, close, directory } = await open(t)
  destination.refusals.push(new UndeliverableError('broken'))
  for (const name of names(1, 3)) results.add(Buffer.from(name))
  await results.drained(10_000)
  await close()
  t.strictSame(destination.arrived, ['2', '3'])
  t.strictSame(readdirSync(directory), [])
})

t.test('drained() waits for a result wherever it is between spool and destination', async t => {
  const { destination, results } = await open(t)
  // each await takes the result a step further on its way
  for (let steps = 0; steps < 20; steps++) {
    results.add(Buffer.from(`${steps}`))
    for (let step = 0; step < steps; step++) await Promise.resolve()
    await results.drained(10_000)
    t.equal(destination.arrived.at(-1), `${steps}`, `after ${steps} steps`)
  }
})

t.test('drained() ends after its time, and close() says how many are kept', async t => {
  const { destination, results } = await open(t)
  destination.ready = false
  for (const name of names(1, 3)) results.add(Buffer.from(name))
  await results.drained(5)
  t.equal(results.close(), 3)
})

t.test('the sink: results that Redis could not take reach it from the next process, before newer ones', async t => {
  const server = await redis(t)
  const directory = join(t.testdir(), 'spool')
  const stream = new PassThrough()
  const log = new Logger({ level: 'info', stream })
  const start = async (port: number) => {
    const transport = new RedisTransport({ port }, { log, reconnectDelayMs: () => 20 })
    t.teardown(() => transport.close())
    const connected = transport.connect()
    connected.catch(() => {})
    return {
      transport,
      connected,
      ...(await openSpooledSink(transport, log, { directory, maxBytes: 1024 * 1024, syncIntervalMs: 1000 })),
    }
  }
  const result = (name: string) => ({ client: 'c', check: { name, output: 'o', status: 0, issued: 1, executed: 1 } })
  const away = await start(1)
  for (const name of names(1, 20)) away.sink.deliver(result(name))
  t.equal(away.sink.close(), 0, 'nothing is lost')
  await away.release()
  await away.transport.close()
  const back = await start(server.port)
  back.sink.deliver(result('21'))
  await back.connected
  back.transport.reconnect()
  await once(back.transport, 'restored')
  await back.sink.drained(10_000)
  const { Redis } = await import('ioredis')
  const client = new Redis(server.url)
  t.teardown(() => client.disconnect())
  const arrived = await client.lrange('transport:0:list:results', 0, -1)
  const checks = arrived.map(text => JSON.stringify(parseJson(text)).match(/"name":"(\d+)"/)?.[1])
  t.strictSame(checks, names(1, 21))
  back.sink.close()
  await back.release()
  t.match(String(stream.read()), /undelivered check results are kept in the spool[^\n]*"results":20/)
})

import t, { type Test } from 'tap'
import { HeldResults, UndeliverableError } from '../../agent/held-results.js'

/** A destination whose answers the test gives by hand. */
function destination(t: Test, overrides: { window?: number; maxBytes?: number } = {}) {
  const under: { result: string; accept(): void; fail(error?: Error): void }[] = []
  const state = { ready: true, overflows: 0, recovered: [] as number[] }
  const held = new HeldResults<string>({
    send: result =>
      new Promise((resolve, reject) => {
        under.push({ result, accept: resolve, fail: (error = new Error('gone')) => reject(error) })
      }),
    ready: () => state.ready,
    onOverflow: () => state.overflows++,
    onRecovered: dropped => state.recovered.push(dropped),
    window: 2,
    maxBytes: 1000,
    retryDelayMs: 1,
    ...overrides,
  })
  t.teardown(() => held.close())
  return { held, state, under, sent: () => under.map(({ result }) => result) }
}

const settled = () => new Promise<void>(resolve => setImmediate(resolve))

t.test('results go out in order, no more at once than the window allows', async t => {
  const { held, under, sent } = destination(t)
  for (const name of ['a', 'b', 'c', 'd']) held.add(name, 1)
  t.strictSame(sent(), ['a', 'b'])
  under[1]?.accept()
  await settled()
  t.strictSame(sent(), ['a', 'b'], 'b is done, but nothing passes a')
  under[0]?.accept()
  await settled()
  t.strictSame(sent(), ['a', 'b', 'c', 'd'])
})

t.test('after a failure everything not confirmed is sent again, in the old order', async t => {
  const { held, state, under, sent } = destination(t, { window: 3 })
  for (const name of ['a', 'b', 'c', 'd']) held.add(name, 1)
  state.ready = false
  under[1]?.accept()
  under[0]?.fail()
  under[2]?.fail()
  await settled()
  t.equal(held.count, 3)
  state.ready = true
  held.resume()
  t.strictSame(sent(), ['a', 'b', 'c', 'a', 'c', 'd'])
})

t.test('a failure of an attempt that is already over changes nothing', async t => {
  const { held, state, under, sent } = destination(t)
  held.add('a', 1)
  held.add('b', 1)
  state.ready = false
  under[0]?.fail()
  await settled()
  state.ready = true
  held.resume()
  under[1]?.fail()
  await settled()
  t.strictSame(sent(), ['a', 'b', 'a', 'b'])
})

t.test('a refused delivery is tried again by itself', async t => {
  const { held, under } = destination(t)
  held.add('a', 1)
  under[0]?.fail()
  while (under.length < 2) await settled()
  under[1]?.accept()
  await held.drained(10_000)
  t.equal(held.count, 0)
})

t.test('what can never be delivered is given up and holds nobody up', async t => {
  const { held, under, sent } = destination(t, { window: 1 })
  held.add('bad', 1)
  held.add('good', 1)
  under[0]?.fail(new UndeliverableError('broken'))
  await settled()
  t.strictSame(sent(), ['bad', 'good'])
})

t.test('beyond its bytes the oldest are dropped, told once, and counted when all is well again', async t => {
  const { held, state, under, sent } = destination(t, { maxBytes: 30 })
  state.ready = false
  for (const name of ['a', 'b', 'c', 'd', 'e']) held.add(name, 10)
  t.equal(held.count, 3)
  t.equal(state.overflows, 1)
  state.ready = true
  held.resume()
  for (let index = 0; index < 3; index++) {
    under[index]?.accept()
    await settled()
  }
  t.strictSame(sent(), ['c', 'd', 'e'])
  t.strictSame(state.recovered, [2])
})

t.test('a single result larger than the bound is still delivered', async t => {
  const { held, sent } = destination(t, { maxBytes: 5 })
  held.add('large', 1000)
  t.strictSame(sent(), ['large'])
})

t.test('drained() ends when everything is delivered, or its time is over', async t => {
  const { held, under } = destination(t)
  await held.drained(10_000)
  held.add('a', 1)
  await held.drained(5)
  t.equal(held.count, 1)
  const drained = held.drained(10_000)
  under[0]?.accept()
  await drained
  t.equal(held.count, 0)
})

t.test('close() tells how many results are lost, and sends nothing any more', async t => {
  const { held, state, sent } = destination(t)
  state.ready = false
  held.add('a', 1)
  held.add('b', 1)
  t.equal(held.close(), 2)
  state.ready = true
  held.resume()
  held.add('c', 1)
  t.strictSame(sent(), [])
})

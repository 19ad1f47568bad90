import t from 'tap'
import { Slots } from '../../agent/slots.js'

t.test('no more than the limit run at once, and the others follow in their order', async t => {
  const slots = new Slots(2)
  const started: number[] = []
  const ends: (() => void)[] = []
  let running = 0
  let most = 0
  const runs = [1, 2, 3, 4, 5].map(n =>
    slots.run(async () => {
      started.push(n)
      most = Math.max(most, ++running)
      await new Promise<void>(resolve => ends.push(resolve))
      running--
    }),
  )
  await new Promise(resolve => setImmediate(resolve))
  t.strictSame(started, [1, 2])
  while (ends.length > 0) {
    ends.shift()?.()
    await new Promise(resolve => setImmediate(resolve))
  }
  await Promise.all(runs)
  t.strictSame(started, [1, 2, 3, 4, 5])
  t.equal(most, 2)
})

t.test('a failure frees its slot', async t => {
  const slots = new Slots(1)
  await t.rejects(slots.run(() => Promise.reject(new Error('x'))))
  t.equal(await slots.run(async () => 'free'), 'free')
})

t.test('ten thousand may wait; they are counted, and none is left behind', async t => {
  const slots = new Slots(3)
  const order: number[] = []
  const ends = Array.from({ length: 10_000 }, (_, n) => slots.run(async () => order.push(n)))
  t.equal(slots.running, 3)
  t.equal(slots.queued, 9997)
  await Promise.all(ends)
  t.strictSame([slots.running, slots.queued], [0, 0])
  t.strictSame(
    order,
    ends.map((_, n) => n),
  )
})

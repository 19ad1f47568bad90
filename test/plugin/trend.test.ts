import t from 'tap'
import { MemoryState } from '../../plugin/state.js'
import { trendsOf } from '../../plugin/trend.js'

const hourSeconds = 3600
const minuteMs = 60_000

/** Feeds one amount per minute and returns the last trend. */
async function trendAfter(amounts: readonly number[], everyMs = minuteMs, historySeconds = hourSeconds) {
  const state = new MemoryState().open({ check: 'c', uri: '', options: {}, directory: undefined })
  let trend: number | undefined
  for (const [index, amount] of amounts.entries())
    trend = (await trendsOf(state, 1e12 + index * everyMs, new Map([['a', amount]]), historySeconds)).get('a')
  return { trend, state }
}

function amounts(count: number, of: (index: number) => number): number[] {
  return Array.from({ length: count }, (_, index) => of(index))
}

t.test('steady growth is known once there is enough history, and not before', async t => {
  t.equal((await trendAfter(amounts(60, index => index * 60))).trend, undefined)
  t.equal((await trendAfter(amounts(61, index => index * 60))).trend, 1)
  t.equal((await trendAfter(amounts(200, index => index * 60))).trend, 1)
  t.equal((await trendAfter(amounts(200, index => 1e6 - index * 60))).trend, -1)
})

t.test('a jump is no trend, growth that goes on after one is', async t => {
  for (const at of [5, 20, 40, 59, 60]) {
    t.equal((await trendAfter(amounts(61, index => (index < at ? 0 : 1e9)))).trend, 0, `jump after ${at} min`)
  }
  t.equal((await trendAfter(amounts(61, index => index * 60 + (index < 20 ? 0 : 1e9)))).trend, 1)
})

t.test('runs too far apart, or after a long pause, tell no trend', async t => {
  t.equal((await trendAfter([0, 1e9], hourSeconds * 1000)).trend, undefined)
  t.equal((await trendAfter([0, 1e9, 2e9], 3 * hourSeconds * 1000)).trend, undefined)
  t.equal((await trendAfter([0, 1e9], 1, 0)).trend, undefined)
})

t.test('what is kept stays small, and is forgotten when it is not seen for long', async t => {
  const { state } = await trendAfter(amounts(1000, index => index))
  const { points } = (await state.read()) as { points: Record<string, unknown[]> }
  t.ok((points['a']?.length ?? 99) <= 9, `${points['a']?.length} points`)
  await trendsOf(state, 2e12, new Map(), hourSeconds)
  t.same(await state.read(), { points: {} })
})

t.test('a clock that went back starts anew, damaged state counts as none', async t => {
  const { state } = await trendAfter(amounts(61, index => index * 60))
  t.equal((await trendsOf(state, 1e11, new Map([['a', 1]]), hourSeconds)).size, 0)
  for (const damaged of [
    undefined,
    null,
    7,
    { points: null },
    { points: { a: 7 } },
    { points: { a: [[1], ['x', 2], null] } },
  ]) {
    await state.write(damaged ?? null)
    t.equal((await trendsOf(state, 1e12, new Map([['a', 1]]), hourSeconds)).size, 0)
  }
})

import t from 'tap'
import { seenSince } from '../../plugin/since.js'
import type { StateStore } from '../../plugin/state.js'

/** A store that counts what is written. */
function memory(value?: unknown): StateStore & { value: unknown; writes: number } {
  const store = {
    value,
    writes: 0,
    read: async () => store.value,
    write: async (next: unknown) => {
      store.value = JSON.parse(JSON.stringify(next))
      store.writes += 1
    },
  }
  return store
}

const minuteMs = 60_000

t.test('an object keeps its time as long as its condition lasts, run after run', async t => {
  const state = memory()
  t.same([...(await seenSince(state, 0, new Map([['a', 'x']])))], [['a', 0]])
  const both = await seenSince(state, minuteMs, new Map([...[['a', 'x'] as const, ['b', 'x'] as const]]))
  t.same(
    [...both],
    [
      ['a', 0],
      ['b', minuteMs],
    ],
  )
  t.same([...(await seenSince(state, 2 * minuteMs, new Map([['a', 'y']])))], [['a', 2 * minuteMs]], 'another condition')
  t.same([...(await seenSince(state, 3 * minuteMs, new Map([['b', 'x']])))], [['b', 3 * minuteMs]], 'was left out')
})

t.test('a gap of an hour and a clock that went back start anew', async t => {
  const now = new Map([['a', 'x']])
  const state = memory()
  await seenSince(state, 0, now)
  t.equal((await seenSince(state, 60 * minuteMs - 1, now)).get('a'), 0)
  t.equal((await seenSince(state, 120 * minuteMs, now)).get('a'), 120 * minuteMs)
  t.equal((await seenSince(state, 119 * minuteMs, now)).get('a'), 119 * minuteMs)
})

t.test('an object whose condition is not known for a while keeps its time', async t => {
  const state = memory()
  const now = new Map([['a', 'x']])
  await seenSince(state, 0, now)
  t.same([...(await seenSince(state, minuteMs, new Map(), ['a', 'b']))], [])
  t.same([...(await seenSince(state, 2 * minuteMs, now))], [['a', 0]])
})

t.test('nothing is written while there is nothing to keep', async t => {
  const state = memory()
  await seenSince(state, 0, new Map())
  t.equal(state.writes, 0)
  await seenSince(state, 1, new Map([['a', 'x']]))
  await seenSince(state, 2, new Map())
  await seenSince(state, 3, new Map())
  t.equal(state.writes, 2)
})

t.test('whatever else is kept counts as nothing', async t => {
  const now = new Map([['a', 'x']])
  for (const value of [
    undefined,
    null,
    1,
    [],
    { atMs: 1 },
    { atMs: 1, seen: { a: 'x' } },
    { atMs: 1, seen: { a: ['x', '1'] } },
  ]) {
    t.equal((await seenSince(memory(value), 5, now)).get('a'), 5, JSON.stringify(value))
  }
  const inherited = await seenSince(memory({ atMs: 1, seen: {} }), 5, new Map([['toString', 'x']]))
  t.equal(inherited.get('toString'), 5)
})

import t from 'tap'
import { parsePath, placesAt } from '../../plugin/json-path.js'

const document = {
  name: 'web1',
  disks: [
    { size: 1, 'io-status': 'ok' },
    { size: 2, nested: { deep: [true] } },
  ],
}

t.test('a path leads by names and positions to one place, by [*] to many, or nowhere', async t => {
  for (const [path, places] of [
    ['', [{ path: '', value: document }]],
    ['name', [{ path: 'name', value: 'web1' }]],
    ['disks[1].nested.deep[0]', [{ path: 'disks[1].nested.deep[0]', value: true }]],
    ['disks[0].io-status', [{ path: 'disks[0].io-status', value: 'ok' }]],
    ['disks[*].size', [0, 1].map(index => ({ path: `disks[${index}].size`, value: index + 1 }))],
    ['disks[*].io-status', [{ path: 'disks[0].io-status', value: 'ok' }]],
    ['disks[2]', []],
    ['disks.length', []],
    ['disks[0][0]', []],
    ['name.length', []],
    ['constructor', []],
    ['__proto__', []],
    ['[0]', []],
  ] as const) {
    t.same(placesAt(document, parsePath(path)), places, path)
  }
  t.same(placesAt([[1], [2]], parsePath('[*][0]')), [
    { path: '[0][0]', value: 1 },
    { path: '[1][0]', value: 2 },
  ])
})

t.test('what is no path is said, with what to write', async t => {
  for (const path of ['[', '[]', '[-1]', '[x]', 'a..b', 'a.', ']', '.']) {
    t.throws(() => parsePath(path), { message: /^not a path at "/ }, path)
  }
})

t.test('a huge document gives a bounded number of places', async t => {
  const row = Array.from({ length: 1000 }, () => 1)
  t.equal(
    placesAt(
      Array.from({ length: 1000 }, () => row),
      parsePath('[*][*]'),
    ).length,
    1000,
  )
})

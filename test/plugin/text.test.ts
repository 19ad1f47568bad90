import t from 'tap'
import { exitStatusOf, type Status, worstStatus } from '../../plugin/status.js'
import { formatNumber, formatQuantity, labelValue, printable, safeName } from '../../plugin/text.js'
import { hostileNames } from './example.js'

t.test('the worst state wins: CRITICAL, then WARNING, then UNKNOWN, then OK', async t => {
  const order: Status[] = ['OK', 'UNKNOWN', 'WARNING', 'CRITICAL']
  for (const [rank, worse] of order.entries()) {
    for (const better of order.slice(0, rank + 1)) {
      t.equal(worstStatus([better, worse]), worse, `${worse} over ${better}`)
      t.equal(worstStatus([worse, better]), worse)
    }
  }
  t.equal(worstStatus([]), 'OK')
  t.same(
    order.map(status => exitStatusOf[status]),
    [0, 3, 1, 2],
  )
})

t.test('foreign text becomes one harmless line', async t => {
  for (const name of hostileNames) {
    const text = printable(name, 64)
    t.ok(text.length <= 64)
    t.notMatch(text, /[\p{Cc}\p{Cf}|\u2028\u2029]/u, JSON.stringify(text))
    t.notMatch(text, /[\uD800-\uDBFF](?![\uDC00-\uDFFF])/, 'no half of a surrogate pair')
  }
  t.equal(printable('a\n\tb'), 'a b')
  t.equal(printable('\u001b[31mred'), '?[31mred')
})

t.test('a name is mapped to Sensu characters without collisions', async t => {
  const table: [name: string, mapped: string][] = [
    ['web01', 'web01'],
    ['web_01.example-net', 'web_01.example-net'],
    ['my vm', 'my_x20vm'],
    ['my_x20vm', 'my_x5Fx20vm'],
    ['my_x5Fx20vm', 'my_x5Fx5Fx20vm'],
    ['_', '_'],
    ['', '_x5F'],
    ['_x5F', '_x5Fx5F'],
    ['é', '_xC3_xA9'],
    ['a/b', 'a_x2Fb'],
  ]
  for (const [name, mapped] of table) t.equal(safeName(name), mapped, `${JSON.stringify(name)} is ${mapped}`)
  const alphabet = ['_', 'x', '2', '0', 'x20', 'x5F', ' ', '.', '']
  const names = alphabet.flatMap(a => alphabet.flatMap(b => alphabet.flatMap(c => alphabet.map(d => a + b + c + d))))
  const distinct = new Set(names)
  t.equal(new Set([...distinct].map(name => safeName(name))).size, distinct.size)
  for (const name of [...hostileNames, `${'x'.repeat(4095)}y`]) t.match(safeName(name), /^[\w.-]{1,129}$/)
  t.not(safeName('x'.repeat(4096)), safeName(`${'x'.repeat(4095)}y`), 'long names that begin alike stay apart')
  t.equal(safeName('a.b', 'path'), 'a_x2Eb', 'a path has no dots of its own')
})

t.test('a label keeps a harmless name and maps any other', async t => {
  t.equal(labelValue('my vm'), 'my vm')
  for (const name of hostileNames) t.notMatch(labelValue(name), /[\p{Cc}\p{Cf}\\\n]/u)
})

t.test('numbers are decimal, never scientific', async t => {
  const table: [value: number | bigint | undefined, text: string | undefined][] = [
    [0, '0'],
    [-0, '0'],
    [1e21, '1000000000000000000000'],
    [1e-7, '0.0000001'],
    [-1e-7, '-0.0000001'],
    [1e-15, '0'],
    [0.1 + 0.2, '0.3'],
    [93.1234567, '93.123457'],
    [100, '100'],
    [18446744073709551615n, '18446744073709551615'],
    [Number.NaN, undefined],
    [Number.POSITIVE_INFINITY, undefined],
    [undefined, undefined],
  ]
  for (const [value, text] of table) t.equal(formatNumber(value), text)
})

t.test('quantities read well', async t => {
  const table: [value: number | undefined, unit: string, text: string][] = [
    [1536, 'B', '1.5 KiB'],
    [0, 'B', '0 B'],
    [1073741824, 'B', '1 GiB'],
    [-2048, 'B', '-2 KiB'],
    [0.0203, 's', '20.3 ms'],
    [0.00002, 's', '20 us'],
    [0, 's', '0 s'],
    [90, 's', '90 s'],
    [7200, 's', '2 h'],
    [172800, 's', '2 d'],
    [93.126, '%', '93.13 %'],
    [5, 'c', '5'],
    [5, '', '5'],
    [undefined, '%', 'unknown'],
  ]
  for (const [value, unit, text] of table) t.equal(formatQuantity(value, unit), text)
})

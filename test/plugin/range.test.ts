import t from 'tap'
import { crossedLimit, parseRange, RangeSyntaxError, rangeIn, violates } from '../../plugin/range.js'

t.test('a value alerts outside a range, and with @ inside; the ends belong to it', async t => {
  const table: [range: string, alerts: number[], fine: number[]][] = [
    ['10', [-0.1, 10.1, Number.POSITIVE_INFINITY], [0, 5, 10]],
    ['10:', [9.99, -1], [10, 1e300]],
    ['~:10', [10.01], [-1e300, 10]],
    ['10:20', [9, 21], [10, 15, 20]],
    ['@10:20', [10, 15, 20], [9.9, 20.1]],
    ['@10', [0, 10], [-1, 11]],
    ['@~:10', [-5, 10], [10.5]],
    ['@10:', [10, 11], [9]],
    ['~:', [], [-1e300, 0, 1e300]],
    ['5:5', [4, 6], [5]],
    ['-7:23', [-8, 24], [-7, 0, 23]],
    ['-10:-5', [-11, -4, 0], [-7]],
    ['0', [-1, 1], [0]],
    ['0.5', [0.51], [0.5]],
    ['+1:+2', [0], [1]],
  ]
  for (const [text, alerts, fine] of table) {
    const range = parseRange(text)
    for (const value of alerts) t.ok(violates(range, value), `${text} alerts at ${value}`)
    for (const value of fine) t.notOk(violates(range, value), `${text} is silent at ${value}`)
    t.ok(violates(range, Number.NaN) || text === '~:', `${text} alerts when the value is no number`)
  }
})

t.test('where implementations of ranges differ, this one decides', async t => {
  const accepted: [text: string, canonical: string][] = [
    [':5.75', '5.75'],
    ['-7:23', '-7:23'],
    ['~:', '~:'],
    ['  10  ', '10'],
    ['0:10', '10'],
    ['0:', '0:'],
    ['.5', '0.5'],
    ['5.', '5'],
    ['1.50:2.0', '1.5:2'],
    ['10000000000000000000:', '10000000000000000000:'],
    ['@0:5', '@5'],
    ['0.0000001', '0.0000001'],
  ]
  for (const [text, canonical] of accepted) t.equal(parseRange(text).text, canonical, `"${text}" is ${canonical}`)
  const refused = [
    '',
    ' ',
    ':',
    '@',
    '@:',
    '~',
    '2:1',
    '80%',
    '1:12%',
    '1e3',
    'inf',
    '0x10',
    '1:2:3',
    '10 :20',
    '1,5',
    'NaN',
    '--5',
    '10..20',
    '@@5',
    '1 2',
  ]
  for (const text of refused) t.throws(() => parseRange(text), RangeSyntaxError, `"${text}" is refused`)
  t.throws(() => parseRange('2:1'), { message: /start is above end/ })
})

t.test('the crossed part of a limit is named in words, with its unit', async t => {
  t.equal(crossedLimit(parseRange('90'), 95, '%'), 'above 90 %')
  t.equal(crossedLimit(parseRange('10:90'), 5, '%'), 'below 10 %')
  t.equal(crossedLimit(parseRange('@10:20'), 15, 's'), 'within 10 s to 20 s')
  t.equal(crossedLimit(parseRange('@~:20'), 15), 'at most 20')
  t.equal(crossedLimit(parseRange('@10:'), 15), 'at least 10')
  t.equal(crossedLimit(parseRange('1073741824:'), 5, 'B'), 'below 1 GiB')
})

t.test('a limit keeps its meaning in a larger unit', async t => {
  t.same(rangeIn(1000, parseRange('20')), parseRange('0.02'))
  t.same(rangeIn(1000, parseRange('35:')), parseRange('0.035:'))
  t.same(rangeIn(1000, parseRange('@~:100')), parseRange('@~:0.1'))
  t.equal(rangeIn(1000, undefined), undefined)
})

import t from 'tap'
import { overrideLimits } from '../../plugin/limits.js'
import { readOptions } from '../../plugin/options.js'
import { parseRange } from '../../plugin/range.js'

const table = {
  warning: { type: 'range', default: '80', summary: '' },
  swapCritical: { type: 'range', summary: 'Has no default.' },
  minimum: { type: 'number', summary: '' },
} as const

t.test('a limit replaces the range it names, in kebab case or camel case, also one without a value', async t => {
  const options = readOptions(table, {}, [])
  const { options: own, problems } = overrideLimits(options, { warning: '95', 'swap-critical': '5:' })
  t.same([own.warning.text, own.swapCritical?.text, own.minimum], ['95', '5:', undefined])
  t.same(problems, [])
  t.equal(overrideLimits(options, { swapCritical: '7' }).options.swapCritical?.text, '7')
  t.same([options.warning.text, options.swapCritical], ['80', undefined], 'the options themselves stay')
})

t.test('a limit that is no range, or of no range, changes nothing and is told', async t => {
  const options = readOptions(table, {}, [])
  const { options: own, problems } = overrideLimits(options, { warning: 'much', minimum: '5', constructor: '1' })
  t.equal(own.warning.text, '80')
  t.match(problems, [
    'its metadata sets warning to "much", not a range: write [@][start:][end], for example 80, 10:, ~:5 or @10:20',
    'its metadata sets limit "minimum", which this check does not have: use warning, swap-critical',
    'its metadata sets limit "constructor", which this check does not have: use warning, swap-critical',
  ])
})

t.test('options made by hand have the ranges that they hold', async t => {
  const { options, problems } = overrideLimits({ warning: parseRange('1'), other: 5 }, { warning: '2', other: '3' })
  t.same([options.warning.text, options.other], ['2', 5])
  t.equal(problems.length, 1)
})

import t, { type Test } from 'tap'
import { nextRun, parseCron } from '../../sensu/cron.js'
import { deepDiff, deepMerge } from '../../sensu/deep-merge.js'
import { parseJson, stringifyJson } from '../../sensu/json.js'
import { entriesOf, isObject, toNumber } from '../../sensu/json-value.js'
import { redact } from '../../sensu/redact.js'
import { severityOf, withResultDefaults } from '../../sensu/results.js'
import { splayDelayMs } from '../../sensu/splay.js'
import { isSubdued } from '../../sensu/subdue.js'
import { isInTimeWindow, isInTimeWindows } from '../../sensu/time-windows.js'
import { substituteText, substituteTokens } from '../../sensu/tokens.js'
import type { Json } from '../../sensu/types.js'
import { resultFailures, validateResult } from '../../sensu/validate.js'
import { rowDifferences } from '../agent/deliberate-differences.js'
import { suites } from '../agent/recordings.js'
import { hash, list, type Recording, recording as readRecording, recordings, rows, text } from './recordings.js'

// What Sensu 1.9 does with the same input. Everything here was recorded in UTC.
process.env['TZ'] = 'UTC'

const read = new Set<string>()
function recording(path: string): Recording {
  read.add(path)
  return readRecording(path)
}

const same = (test: Test, found: Json, wanted: Json, what: string) =>
  test.equal(stringifyJson(found), stringifyJson(wanted), what)

t.test('tokens in texts', async t => {
  for (const name of ['client/table_token_substitution', 'server/vectors-token-substitution']) {
    const table = recording(name)
    for (const row of rows(table)) {
      const source = text(row['text'] ?? row['string'])
      const found = substituteText(source, hash(hash(table.input)['attributes']))
      same(t, found.text, rowDifferences['tokens']?.[source] ?? text(row['result']), `${source} becomes`)
      same(t, found.unmatched, row['unmatched'] ?? null, `${source} misses`)
    }
  }
})

t.test('tokens in objects', async t => {
  for (const name of ['client/table_object_token_substitution', 'server/vectors-object-token-substitution']) {
    const { input, observed } = recording(name)
    const found = substituteTokens(hash(hash(input)['object']), hash(hash(input)['attributes']))
    same(t, found.value, hash(observed)['result'] ?? hash(observed)['object'] ?? null, name)
    same(t, found.unmatched, hash(observed)['unmatched'] ?? null, `${name}, missing`)
  }
})

function cronAnswer(line: string, now: Date): Json {
  const cron = parseCron(line)
  return cron === undefined ? 'invalid' : nextRun(cron, now).toISOString().replace('.000Z', 'Z')
}

t.test('cron lines', async t => {
  for (const row of rows(recording('client/table_cron'))) {
    const line = text(row['cron'])
    const wanted = text(row['next'] ?? row['next_or_error']).replace(/^.*Error: .*/, 'invalid')
    same(
      t,
      cronAnswer(line, new Date(text(row['now']))),
      rowDifferences['cron']?.[line] ?? wanted,
      `${line} after ${row['now']}`,
    )
  }
  for (const row of rows(recording('server/vectors-cron'))) {
    const now = new Date(`${row['now']}Z`)
    const seconds = toNumber(row['seconds_until_next'])
    const wanted =
      seconds === undefined ? 'invalid' : new Date(now.getTime() + seconds * 1000).toISOString().replace('.000Z', 'Z')
    same(t, cronAnswer(text(row['cron']), now), wanted, `${row['cron']} after ${row['now']}`)
  }
})

t.test('splay', async t => {
  for (const row of rows(recording('client/table_splay'))) {
    const delay = splayDelayMs(`${row['client']}:${row['check']}`, Number(row['interval']), Number(row['now_ms']))
    t.equal(delay / 1000, toNumber(row['delay_seconds']), `${row['client']}:${row['check']} every ${row['interval']} s`)
  }
  for (const row of rows(recording('server/vectors-splay'))) {
    const delay = splayDelayMs(text(row['name']), Number(row['interval']), 1795317000123)
    t.equal(
      delay / 1000,
      toNumber(row['delay_seconds_at_1795317000123ms']),
      `${row['name']} every ${row['interval']} s`,
    )
  }
})

t.test('time windows', async t => {
  for (const name of ['client/table_time_window', 'server/vectors-time-window']) {
    for (const row of rows(recording(name))) {
      const now = new Date(text(row['now']).replace(/Z?$/, 'Z'))
      const wanted = row['inside'] ?? row['in']
      t.equal(
        isInTimeWindow(row['begin'], row['end'], now),
        wanted,
        `${row['begin']} to ${row['end']} at ${row['now']}`,
      )
    }
  }
  for (const row of rows(recording('server/vectors-time-windows-days'))) {
    const now = new Date(`${text(row['now']).replace(/ .*/, '')}Z`)
    t.equal(
      isInTimeWindows(row['windows'], now),
      row['in'],
      `${stringifyJson(row['windows'] ?? null)} at ${row['now']}`,
    )
  }
})

t.test('subdue', async t => {
  for (const row of rows(recording('client/table_subdue'))) {
    t.equal(isSubdued(row['subdue'], new Date(text(row['now']))), row['subdued'], `${row['name']} at ${row['now']}`)
  }
})

t.test('deep merge', async t => {
  for (const row of rows(recording('client/table_deep_merge'))) {
    same(
      t,
      deepMerge(row['first'] ?? null, row['second'] ?? null),
      row['merged'] ?? null,
      stringifyJson(row['second'] ?? null),
    )
  }
  const { input, observed } = recording('server/vectors-deep-merge')
  for (const [index, pair] of list(input).entries()) {
    const [first = null, second = null] = list(pair)
    same(t, deepMerge(first, second), list(observed)[index] ?? null, stringifyJson(pair))
  }
})

t.test('differences between settings', async t => {
  for (const row of rows(recording('client/table_deep_diff'))) {
    same(
      t,
      deepDiff(hash(row['before']), hash(row['after'])),
      row['changes'] ?? null,
      stringifyJson(row['after'] ?? null),
    )
  }
})

t.test('redaction', async t => {
  for (const row of rows(recording('client/table_redaction'))) {
    const object = hash(row['object'])
    for (const [variant, wanted] of entriesOf(row)) {
      if (variant === 'object') continue
      const names = /^keys=\[(.*)\]$/
        .exec(variant)?.[1]
        ?.split(',')
        .filter(name => name !== '')
      same(t, redact(object, names), wanted, variant)
    }
  }
  const { input, observed } = recording('server/vectors-redact')
  same(t, redact(hash(hash(input)['object'])), hash(observed)['default'] ?? null, 'default names')
  same(
    t,
    redact(hash(hash(input)['object']), list(hash(input)['custom_keys']).map(text)),
    hash(observed)['custom'] ?? null,
    'own names',
  )
})

t.test('severities', async t => {
  for (const pair of list(recording('server/vectors-severity').observed)) {
    const [status, severity] = list(pair)
    t.equal(severityOf(Number(status)), severity, `status ${status}`)
  }
})

t.test('validation of results: every rule, in order', async t => {
  const table = recording('client/table_result_validation')
  for (const row of rows(table)) {
    const check = { ...hash(hash(table.input)['base']), ...hash(row['override']) }
    const what = stringifyJson(row['override'] ?? null)
    same(t, resultFailures(check), row['failures'] ?? null, what)
    same(t, validateResult(check) ?? null, row['socket_error_text'] ?? null, `${what}, first`)
  }
})

t.test('validation of results from the TCP socket', async t => {
  for (const { name, input, observed } of recordings('client', /^tcp_validate_/)) {
    const log = list(hash(observed)['client_log'] ?? []).filter(isObject)
    const failure = log.find(line => line['level'] === 'error')?.['error']
    const sent = list(hash(input)['chunks']).join('')
    const check = withResultDefaults(hash(parseJson(sent)), 1795317393000)
    t.equal(validateResult(check), failure ?? undefined, name)
  }
})

t.test('nothing was forgotten', async t => {
  const tables = recordings('client', suites['sensu/recorded-tables']).map(({ name }) => `client/${name}`)
  t.strictSame(
    tables.filter(path => !read.has(path)),
    [],
  )
})

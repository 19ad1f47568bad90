import t from 'tap'
import { nextRun, parseCron } from '../../sensu/cron.js'
import { splayDelayMs } from '../../sensu/splay.js'
import { isInTimeWindow, isInTimeWindows, parseClockTime } from '../../sensu/time-windows.js'

const before = process.env['TZ']
t.teardown(() => {
  if (before === undefined) delete process.env['TZ']
  else process.env['TZ'] = before
})
t.beforeEach(() => {
  process.env['TZ'] = 'UTC'
})

t.test('clock times as people write them', async t => {
  const hours: Record<string, number> = {
    '9AM': 9,
    '9 am': 9,
    '9:30 p.m.': 21.5,
    '12 AM': 0,
    '12:00 PM': 12,
    '17:00': 17,
    '5:15:36 PM': 17.26,
    '24:00': 24,
    '00:00:00.9': 0.00025,
    ' 7:00 ': 7,
  }
  for (const [text, hour] of Object.entries(hours))
    t.same(parseClockTime(text), { sinceMidnightMs: Math.round(hour * 3_600_000) }, text)
  const offsets: Record<string, number> = {
    '17:00 UTC': 0,
    '5PM PST': -480,
    '17:00Z': 0,
    '17:00 +0100': 60,
    '17:00+05:30': 330,
    '17:00 -9': -540,
    '17:00 UTC+2': 120,
  }
  for (const [text, offsetMinutes] of Object.entries(offsets)) t.match(parseClockTime(text), { offsetMinutes }, text)
  const date = { year: 2026, month: 12, day: 4 }
  for (const text of ['2026-12-04 5PM', '2026-12-4T17:00', '2026/12/04  17:00:00'])
    t.same(parseClockTime(text), { sinceMidnightMs: 17 * 3_600_000, date }, text)
  t.same(parseClockTime('2026-12-04 17:00 -9'), { sinceMidnightMs: 17 * 3_600_000, offsetMinutes: -540, date })
  t.same(parseClockTime('2026-12-04'), { sinceMidnightMs: 0, date })
  t.same(parseClockTime('17:00 CEST'), { sinceMidnightMs: 17 * 3_600_000 }, 'an unknown zone is local')
  for (const text of [
    '',
    '17',
    'noon',
    '25:00',
    '13 PM',
    '12:60',
    '24:01',
    '12:00:61',
    '9 o clock',
    '2026-02-30 9:00',
    '2026-00-01 9:00',
    '2026-12/04 9:00',
    '2026-12-04 9',
    '26-12-04 9:00',
    '1'.repeat(1000),
  ]) {
    t.equal(parseClockTime(text), undefined, text.slice(0, 20))
  }
  for (const value of [5, null, undefined, [], {}]) t.equal(parseClockTime(value), undefined)
})

t.test('windows follow the local clock, also when it is changed', async t => {
  process.env['TZ'] = 'Europe/Berlin'
  const inside = (begin: string, end: string, now: string) => isInTimeWindow(begin, end, new Date(now))
  // On 29 March 2026 the clocks go from 02:00 to 03:00, at 01:00 UTC.
  t.equal(inside('9:00', '10:00', '2026-03-29T07:30:00Z'), true)
  t.equal(inside('9:00', '10:00', '2026-03-29T08:30:00Z'), false)
  t.equal(inside('9:00', '10:00', '2026-03-28T08:30:00Z'), true)
  t.equal(inside('22:00', '6:00', '2026-03-29T03:59:00Z'), true, '05:59, over midnight')
  t.equal(inside('22:00', '6:00', '2026-03-29T04:01:00Z'), false)
  t.equal(inside('22:00', '6:00', '2026-03-29T21:59:59.5Z'), true, 'to the last moment of the day')
})

t.test('windows from one day to another, and in zones of their own', async t => {
  process.env['TZ'] = 'Asia/Kolkata'
  const inside = (begin: string, end: string, now: string) => isInTimeWindow(begin, end, new Date(now))
  t.equal(inside('2026-12-24 17:00', '2027-01-02 08:00', '2026-12-24T11:29:59Z'), false)
  t.equal(inside('2026-12-24 17:00', '2027-01-02 08:00', '2026-12-24T11:30:00Z'), true)
  t.equal(inside('2026-12-24 17:00', '2027-01-02 08:00', '2027-01-02T02:30:00Z'), true)
  t.equal(inside('2026-12-24 17:00', '2027-01-02 08:00', '2027-01-02T02:30:01Z'), false)
  t.equal(inside('2026-12-24T00:00Z', '2026-12-25', '2026-12-24T18:31:00Z'), false, 'the end is local midnight')
  // 22:00 to 06:00 in New York, on 23 December there
  t.equal(inside('10PM EST', '6AM EST', '2026-12-24T02:59:00Z'), false)
  t.equal(inside('10PM EST', '6AM EST', '2026-12-24T03:00:00Z'), true)
  t.equal(inside('10PM EST', '6AM EST', '2026-12-24T05:00:00Z'), true, 'the day after began there')
  t.equal(inside('10PM EST', '6AM EST', '2026-12-24T10:59:59Z'), true)
  t.equal(inside('10PM EST', '6AM EST', '2026-12-24T11:00:00Z'), false)
})

t.test('malformed windows never match', async t => {
  const now = new Date('2026-11-23T12:00:00Z')
  const malformed = [
    null,
    5,
    'x',
    [],
    { days: 5 },
    { days: { all: 5 } },
    { days: { all: [5, null, {}, { begin: 'x', end: 'y' }] } },
  ]
  for (const windows of malformed) t.equal(isInTimeWindows(windows, now), false)
  t.equal(isInTimeWindows({ days: { all: [5, { begin: '11:00', end: '13:00' }] } }, now), true)
})

t.test('cron lines outside the dialect', async t => {
  const invalid = [
    '0 0 L * *',
    '0 0 * * 5#2',
    '0 0 15W * *',
    '? * * * *',
    'H * * * *',
    '5/15 * * * *',
    '* * * jan-feb/x *',
    '* * * foo *',
    '0 0 * * sunday',
    '1..5 * * * *',
    '1- * * * *',
    ', * * * *',
    '1,,2 * * * *',
    '@reboot',
    '@Daily',
    '@every 5m',
    '0 0 30 2 *',
    '* * * * * * *',
    '1'.repeat(100_000),
    `${'1,'.repeat(50_000)} * * * *`.repeat(2),
  ]
  for (const line of invalid) t.equal(parseCron(line), undefined, line.slice(0, 30))
})

t.test('steps longer than their range, names, both day fields', async t => {
  const next = (line: string, from: string) => {
    const cron = parseCron(line)
    return cron && nextRun(cron, new Date(from)).toISOString()
  }
  t.equal(next('*/90 * * * *', '2026-11-23T10:30:00Z'), '2026-11-23T11:00:00.000Z')
  t.equal(next('10-20/30 * * * *', '2026-11-23T10:30:00Z'), '2026-11-23T11:10:00.000Z')
  t.equal(next('0 0 * DEC Sat', '2026-11-23T10:30:00Z'), '2026-12-05T00:00:00.000Z')
  t.equal(next('0 0 1 * mon', '2026-11-24T00:00:00Z'), '2026-11-30T00:00:00.000Z', 'a Monday')
  t.equal(next('0 0 1 * mon', '2026-11-30T00:00:00Z'), '2026-12-01T00:00:00.000Z', 'or the first')
  t.equal(next('  0   0 1 1 *  ignored', '2026-11-24T00:00:00Z'), '2027-01-01T00:00:00.000Z')
  process.env['TZ'] = 'America/New_York'
  t.equal(next('0 9 * * *', '2026-11-23T10:30:00Z'), '2026-11-23T14:00:00.000Z', 'local time')
})

t.test('splay spreads over the whole interval, never beyond', async t => {
  const delays = Array.from({ length: 1000 }, (_, i) => splayDelayMs(`client:check${i}`, 60, 1_795_317_000_000))
  t.ok(delays.every(delay => delay >= 0 && delay < 60_000))
  t.equal(new Set(delays.map(delay => Math.floor(delay / 10_000))).size, 6)
  t.equal(splayDelayMs('a:b', 2n ** 60n, 0) > 0, true, 'an interval beyond all numbers')
})

import t from 'tap'
import { batchesOf } from '../../handlers/metrics/batches.js'
import { graphiteLine, influxLine, opentsdbLine, opentsdbPoint } from '../../handlers/metrics/lines.js'
import { detectFormat, type OutputFormat, outputFormats, parseOutput } from '../../handlers/metrics/parse.js'
import { numberText, timeNsOf } from '../../handlers/metrics/point.js'
import type { Outcome } from '../../plugin/outcome.js'
import { formats } from '../../plugin/output.js'
import { hostileNames } from '../plugin/example.js'

const seconds = 1_700_000_000
const origin = { check: 'check-kvm-memory', host: 'node1.example', timeNs: BigInt(seconds) * 1_000_000_000n }
const noAdditions = { prefix: '', tags: new Map<string, string>() }

const outcome: Outcome = {
  findings: [{ status: 'OK', guest: 'web1', message: 'memory in use 14 %' }],
  metrics: [
    { name: 'used_percent', labels: { guest: 'web1' }, value: 14.5, unit: '%' },
    { name: 'read', labels: { guest: 'web1', disk: 'vda' }, value: 2n ** 60n, unit: 'c' },
    { name: 'swap_rate', labels: { guest: 'web1' }, value: undefined, unit: 'B' },
    { name: 'guests', value: 3 },
  ],
}
const report = { name: origin.check, outcome, scheme: origin.host, timeMs: seconds * 1000, verbose: false }

const graphiteLines = [
  'node1.example.kvm_memory.web1.used_percent 14.5 1700000000',
  'node1.example.kvm_memory.web1.vda.read 1152921504606846976 1700000000',
  'node1.example.kvm_memory.guests 3 1700000000',
]

function linesIn(output: string, format: OutputFormat): (string | undefined)[] {
  return parseOutput(output, format, origin).points.map(point => graphiteLine(point, noAdditions))
}

t.test('whatever format our checks print, it is recognised and becomes the same paths in Graphite', async t => {
  for (const format of outputFormats) {
    const output = formats[format](report)
    t.equal(detectFormat(output, origin), format)
    t.same(linesIn(output, format), graphiteLines, format)
    t.equal(parseOutput(output, format, origin).invalidCount, 0, format)
  }
})

t.test('lines that other plugins print are recognised', async t => {
  const cases: [output: string, format: OutputFormat | undefined][] = [
    ['', 'graphite'],
    ['\n# a comment\n', 'graphite'],
    ['web1.load.one 0.5 1700000000', 'graphite'],
    ['web1.load.one\t0.5\t1700000000\n', 'graphite'],
    ['cpu;host=web1;core=0 5 1700000000', 'graphite'],
    ['cpu,host=web1 idle=5i,text="a b, c=d" 1700000000000000000', 'influxdb'],
    ['cpu idle=5', 'influxdb'],
    ['put cpu.idle 1700000000 5 host=web1', 'opentsdb'],
    ['DISK OK - free: 3 GB | /=2643MB;5948;5958;0;5968', 'nagios'],
    ['OK | time=1', 'nagios'],
    ['OK\n/ is fine\n| time=1', 'nagios'],
    ['check-kvm-memory UNKNOWN: cannot reach libvirt', undefined],
    ['Traceback (most recent call last):\n  a = b', undefined],
  ]
  for (const [output, format] of cases) t.equal(detectFormat(output, origin), format, JSON.stringify(output))
})

t.test(
  'the first line that is of a format decides; lines that are not are counted and the first ones kept',
  async t => {
    const output = [
      'a warning',
      'a.b 1 1700000000',
      'a.c one 1700000000',
      'a.d 1',
      'a.e nan 1700000000',
      'a.f 2 1700000000',
    ].join('\n')
    t.equal(detectFormat(output, origin), 'graphite')
    const parsed = parseOutput(output, 'graphite', origin)
    t.equal(parsed.points.length, 2)
    t.equal(parsed.invalidCount, 4)
    t.same(parsed.invalid, ['a warning', 'a.c one 1700000000', 'a.d 1'])
  },
)

t.test('more lines than can be meant are not looked at, and counted', async t => {
  const { points, ignoredCount } = parseOutput('a 1 1700000000\n'.repeat(200_003), 'graphite', origin)
  t.same([points.length, ignoredCount], [200_000, 3])
})

t.test('performance data: quotes, units, limits, undetermined numbers, several lines', async t => {
  const output =
    "OK: fine | time=0,5s 'free space'=-1.5e3MB;~:10;@5:20;0 'it''s'=1c U=U 50%=3\nmore words\n| a=1\nb=2;;"
  const { points, invalid } = parseOutput(output, 'nagios', origin)
  t.same(
    points.map(({ field, number }) => [field, number]),
    [
      ['free space', '-1.5e3'],
      ["it's", '1'],
      ['50%', '3'],
      ['a', '1'],
      ['b', '2'],
    ],
  )
  t.same(invalid, ['time=0,5s'])
})

t.test("InfluxDB's line protocol keeps what only InfluxDB stores, escapes and all", async t => {
  const line = String.raw`kvm\ memory,host=a\,b,guest=w\=1 used=5i,up=t,note="x \"y\", z",free=0.5 1700000000123456789`
  const { points } = parseOutput(line, 'influxdb', origin)
  const [used, up] = points
  t.same(
    points.map(({ field, number, literal }) => [field, number, literal]),
    [
      ['used', '5', '5i'],
      ['up', undefined, 't'],
      ['note', undefined, String.raw`"x \"y\", z"`],
      ['free', '0.5', '0.5'],
    ],
  )
  t.equal(
    used && influxLine(used, noAdditions),
    String.raw`kvm\ memory,host=a\,b,guest=w\=1 used=5i 1700000000123456789`,
  )
  t.equal(up && graphiteLine(up, noAdditions), undefined, 'Graphite stores numbers only')
})

t.test('names from outside cannot break a line of any store', async t => {
  for (const name of hostileNames) {
    const point = {
      measurement: name,
      field: name,
      tags: new Map([
        ['host', name],
        ['guest', name],
      ]),
      number: '1',
      literal: '1',
      timeNs: origin.timeNs,
    }
    t.match(graphiteLine(point, noAdditions), /^[\w.-]+ 1 1700000000$/, JSON.stringify(name))
    t.match(opentsdbLine(point, noAdditions), /^put [\w.-]+ 1700000000 1 host=[\w.-]+ guest=[\w.-]+$/)
    const parsed = parseOutput(influxLine(point, noAdditions), 'influxdb', origin)
    t.same([parsed.points.length, parsed.invalidCount], [1, 0])
  }
})

t.test('a prefix and tags are added', async t => {
  const [point] = parseOutput('put kvm_memory.used 1700000000 5 host=node1 guest=web1', 'opentsdb', origin).points
  if (point === undefined) throw new Error('no point')
  const additions = {
    prefix: 'site.north',
    tags: new Map([
      ['dc', 'n 1'],
      ['host', 'other.example'],
    ]),
  }
  t.equal(graphiteLine(point, additions), 'site.north.other.example.kvm_memory.web1.n_x201.used 5 1700000000')
  t.equal(
    influxLine(point, additions),
    String.raw`site.north.kvm_memory,host=other.example,guest=web1,dc=n\ 1 used=5 1700000000000000000`,
  )
  t.equal(
    opentsdbLine(point, additions),
    'put site.north.kvm_memory.used 1700000000 5 host=other.example guest=web1 dc=n_x201',
  )
  t.same(opentsdbPoint(point, additions), {
    metric: 'site.north.kvm_memory.used',
    timestamp: 1_700_000_000,
    value: 5,
    tags: { host: 'other.example', guest: 'web1', dc: 'n_x201' },
  })
})

t.test('times are seconds, milli-, micro- or nanoseconds by their size', async t => {
  const expected = 1_700_000_000_500_000_000n
  for (const text of ['1700000000.5', '1700000000500', '1700000000500000', '1700000000500000000'])
    t.equal(timeNsOf(text), expected)
  for (const text of ['', 'N', '-1', '1e9', '1'.repeat(20)]) t.equal(timeNsOf(text), undefined, text)
})

t.test('numbers are decimal numbers', async t => {
  for (const text of ['0', '-1', '.5', '1.', '1e5', '-1.5E-3']) t.equal(numberText(text), text)
  t.equal(numberText('+1'), '1')
  for (const text of ['', '-', '1e', '0x10', 'nan', 'inf', '1e999', '1,5', '1 2'])
    t.equal(numberText(text), undefined, text)
})

t.test('lines are grouped within the limits, in order, and none is lost', async t => {
  t.same(batchesOf([], { lines: 2, bytes: 10 }), { batches: [], tooLong: [] })
  t.same(batchesOf(['1234', '1234', '1', 'ä'], { lines: 10, bytes: 10 }).batches, [
    ['1234', '1234'],
    ['1', 'ä'],
  ])
  t.same(batchesOf(['1', '2', '3'], { lines: 2, bytes: 100 }).batches, [['1', '2'], ['3']])
  t.same(batchesOf(['1', '123456789', '1234567890', '2'], { lines: 9, bytes: 10 }), {
    batches: [['1'], ['123456789'], ['2']],
    tooLong: ['1234567890'],
  })
})

import t, { type Test } from 'tap'
import { type Finding, type Metric, type Unit, Verdict } from '../../plugin/outcome.js'
import { formats, type Report } from '../../plugin/output.js'
import { parseRange } from '../../plugin/range.js'
import { hostileNames } from './example.js'

function report(findings: readonly Finding[], metrics: readonly Metric[] = [], changes: Partial<Report> = {}): Report {
  const outcome = { summary: 'all is well', findings, metrics }
  return {
    name: 'check-kvm-memory',
    outcome,
    scheme: 'node1.example',
    timeMs: 1_700_000_000_999,
    verbose: false,
    ...changes,
  }
}

const hostileMetrics = hostileNames.flatMap((guest): Metric[] =>
  (['B', 's', '%', 'c', ''] as const).map((unit, index) => ({
    name: `number${index}`,
    labels: { guest, disk: guest },
    value: index / 3,
    unit,
    warning: parseRange('10:20'),
    critical: parseRange('@~:5'),
    min: 0,
    max: 100,
  })),
)

/** Performance data in the Monitoring Plugins' grammar, without the quoted labels that are never needed here. */
const perfdataItem =
  /^[A-Za-z0-9_.-]+=(?:U|-?\d+(?:\.\d+)?(?:B|s|%|c)?)(?:;(?:@?(?:(?:~|-?[\d.]+):)?(?:-?[\d.]+)?)?){0,2}(?:;(?:-?[\d.]+)?){0,2}$/

function perfdataOf(output: string): string[] {
  return output.split('| ')[1]?.trim().split(' ') ?? []
}

t.test(
  'the first line names object, number and limit, worst first; one line for each object that is not OK follows',
  async t => {
    const verdict = new Verdict()
    const limits = { unit: '%', warning: parseRange('80'), critical: parseRange('90') } as const
    for (const [guest, value] of [
      ['web01', 85],
      ['db01', 93.125],
      ['ok01', 10],
    ] as const) {
      verdict.judge({ guest, what: 'memory in use', name: 'used_percent', value, ...limits })
    }
    verdict.add({ status: 'UNKNOWN', guest: 'dead01', device: 'vda', message: 'not answering for 12 s' })
    const output = formats.nagios(report(verdict.findings, verdict.metrics))
    t.equal(
      output,
      `check-kvm-memory CRITICAL: db01: memory in use 93.13 % (critical above 90 %); web01: memory in use 85 % (warning above 80 %); dead01 vda: not answering for 12 s
CRITICAL db01: memory in use 93.13 % (critical above 90 %)
WARNING web01: memory in use 85 % (warning above 80 %)
UNKNOWN dead01 vda: not answering for 12 s
| web01.used_percent=85%;80;90 db01.used_percent=93.125%;80;90 ok01.used_percent=10%;80;90
`,
    )
    t.match(formats.nagios(report(verdict.findings, [], { verbose: true })), /^OK ok01: memory in use 10 %$/m)
  },
)

t.test('when all is well the summary is the one line', async t => {
  t.equal(formats.nagios(report([{ status: 'OK', guest: 'a', message: 'fine' }])), 'check-kvm-memory OK: all is well\n')
  t.equal(
    formats.nagios(report([], [], { outcome: { findings: [], metrics: [] } })),
    'check-kvm-memory OK: nothing to judge\n',
  )
})

t.test('a finding about the host alone needs no second line', async t => {
  const output = formats.nagios(report([{ status: 'WARNING', message: 'memory in use 85 % (warning above 80 %)' }]))
  t.equal(output, 'check-kvm-memory WARNING: memory in use 85 % (warning above 80 %)\n')
})

t.test('a rounded number never reads like the limit it crossed', async t => {
  const verdict = new Verdict()
  verdict.judge({ what: 'in use', name: 'used', value: 90.001, unit: '%', critical: parseRange('90') })
  t.equal(verdict.findings[0]?.message, 'in use 90.001% (critical above 90 %)')
})

t.test('CRITICAL is tried before WARNING, and an undetermined number is U and not judged', async t => {
  const verdict = new Verdict()
  const judge = (value: number | undefined) =>
    verdict.judge({ what: 'x', name: 'x', value, warning: parseRange('10'), critical: parseRange('20') })
  t.same(
    [judge(10), judge(11), judge(20), judge(21), judge(-1), judge(undefined)],
    ['OK', 'WARNING', 'WARNING', 'CRITICAL', 'CRITICAL', 'OK'],
  )
  t.equal(verdict.findings.length, 5)
  t.match(formats.nagios(report([], [{ name: 'x', value: undefined, unit: 'B' }])), /\| x=U\n$/)
})

t.test('a thousand findings still give a first line of at most 255 characters that counts the rest', async t => {
  const findings = Array.from(
    { length: 5000 },
    (_, index): Finding => ({ status: 'CRITICAL', guest: `guest${index}`, message: 'paused by an I/O error on vda' }),
  )
  const lines = formats.nagios(report(findings)).split('\n')
  t.ok((lines[0]?.length ?? 999) <= 255)
  t.match(lines[0], /; \d+ more$/)
  t.equal(lines.length, 1 + 1000 + 1 + 1, 'detail lines are bounded')
  t.equal(lines.at(-2), 'and 4000 more')
})

t.test('hostile names break neither the lines nor the performance data', async t => {
  const findings = hostileNames.map(
    (guest): Finding => ({ status: 'CRITICAL', guest, device: guest, message: `bad ${guest}` }),
  )
  const output = formats.nagios(report(findings, hostileMetrics))
  const lines = output.trimEnd().split('\n')
  t.equal(output.split('|').length, 2, 'exactly one |')
  t.equal(lines.length, 1 + hostileNames.length + 1)
  t.ok((lines[0]?.length ?? 999) <= 255)
  t.notMatch(output.replaceAll('\n', ''), /[\p{Cc}\p{Cf}]/u, 'no control characters')
  const items = perfdataOf(output)
  t.equal(items.length, hostileMetrics.length, 'no two labels meet')
  t.equal(new Set(items.map(item => item.split('=')[0])).size, items.length)
  for (const item of items) t.match(item, perfdataItem)
})

t.test('performance data', async t => {
  const table: [metric: Metric, item: string][] = [
    [{ name: 'a', value: 1 }, 'a=1'],
    [{ name: 'a', value: 1, max: 4 }, 'a=1;;;;4'],
    [{ name: 'a', value: 1, unit: 'B', warning: parseRange('~:'), critical: parseRange('~:5') }, 'a=1B;;~:5'],
    [{ name: 'a', value: 2n ** 64n, unit: 'c' }, 'a=18446744073709551616c'],
    [{ name: 'a', value: 1e-9, unit: 's' }, 'a=0.000000001s'],
    [{ name: 'a', value: 1, labels: { guest: 'x y', disk: 'vda' } }, 'x_x20y.vda.a=1'],
  ]
  for (const [metric, item] of table) t.same(perfdataOf(formats.nagios(report([], [metric]))), [item])
  const twice = formats.nagios(
    report(
      [],
      [
        { name: 'a', value: 1 },
        { name: 'a', value: 2 },
      ],
    ),
  )
  t.same(perfdataOf(twice), ['a=1'], 'of two equal labels the first')
})

/** The lines of a format that promises nothing but lines, each against a strict grammar. */
function checkLines(t: Test, output: string, grammar: RegExp, count: number): string[] {
  t.ok(output.endsWith('\n'))
  const lines = output.slice(0, -1).split('\n')
  t.equal(lines.length, count)
  for (const line of lines) t.match(line, grammar)
  return lines
}

const plain: Metric[] = [
  { name: 'used', labels: { guest: 'web01' }, value: 1024, unit: 'B' },
  { name: 'reads', labels: { guest: 'web01', disk: 'vda' }, value: 7, unit: 'c' },
  { name: 'gone', value: undefined },
]

t.test('of numbers that print the same label the first counts, wherever they stand', async t => {
  const metric = (guest: string, disk: string, value: number): Metric => ({
    name: 'used',
    labels: { guest, disk },
    value,
  })
  const metrics = [metric('a.b', 'c', 1), metric('x', 'y', 2), metric('a', 'b.c', 3), metric('x', 'y', 4)]
  t.same(perfdataOf(formats.nagios(report([], metrics))), ['a.b.c.used=1', 'x.y.used=2'])
  const paths = formats.graphite(report([], metrics)).match(/(?<=memory\.)\S+ \d+/g)
  t.same(paths, ['a_x2Eb.c.used 1', 'x.y.used 2', 'a.b_x2Ec.used 3'], 'where dots are escaped they differ')
})

t.test('a number within its limits is put in words for whoever asks', async t => {
  const verdict = new Verdict()
  verdict.judge({ guest: 'web1', what: 'memory in use', name: 'used', unit: '%', value: 50, note: 'of 4 GiB' })
  const [finding] = verdict.findings
  t.equal(finding?.message, 'memory in use 50 % of 4 GiB')
  t.same(JSON.parse(JSON.stringify(finding)), { status: 'OK', guest: 'web1', message: 'memory in use 50 % of 4 GiB' })
})

t.test('graphite: path, value and seconds', async t => {
  t.equal(
    formats.graphite(report([], plain)),
    'node1.example.kvm_memory.web01.used 1024 1700000000\nnode1.example.kvm_memory.web01.vda.reads 7 1700000000\n',
  )
  const lines = checkLines(
    t,
    formats.graphite(report([], hostileMetrics)),
    /^[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+){5} -?\d+(?:\.\d+)? \d{10}$/,
    hostileMetrics.length,
  )
  t.equal(new Set(lines).size, lines.length)
})

t.test('influxdb: line protocol with nanoseconds', async t => {
  t.equal(
    formats.influxdb(report([], plain)),
    'kvm_memory,host=node1.example,guest=web01 used=1024 1700000000000000000\nkvm_memory,host=node1.example,guest=web01,disk=vda reads=7 1700000000000000000\n',
  )
  t.match(
    formats.influxdb(report([], [{ name: 'a', labels: { guest: 'a b,c=d' }, value: 1 }])),
    /,guest=a\\ b\\,c\\=d a=1 /,
  )
  const tag = String.raw`,[a-z]+=(?:[^,= \\\p{Cc}]|\\[,= ])+`
  checkLines(
    t,
    formats.influxdb(report([], hostileMetrics)),
    new RegExp(`^kvm_memory(?:${tag}){3} number\\d=-?\\d+(?:\\.\\d+)? \\d{19}$`, 'u'),
    hostileMetrics.length,
  )
})

t.test('opentsdb: put with at least one tag', async t => {
  t.equal(
    formats.opentsdb(report([], plain)),
    'put kvm_memory.used 1700000000 1024 host=node1.example guest=web01\nput kvm_memory.reads 1700000000 7 host=node1.example guest=web01 disk=vda\n',
  )
  checkLines(
    t,
    formats.opentsdb(report([], hostileMetrics)),
    /^put [\w.-]+ \d{10} -?\d+(?:\.\d+)?(?: [a-z]+=[\w./-]+){3}$/,
    hostileMetrics.length,
  )
})

t.test('prometheus: HELP and TYPE once for each family, units in the names, percentages as ratios', async t => {
  t.equal(
    formats.prometheus(
      report(
        [],
        [
          { name: 'used', labels: { guest: 'a"b' }, value: 1024, unit: 'B', help: 'Memory in use.' },
          { name: 'used_percent', labels: { guest: 'a"b' }, value: 50, unit: '%' },
          { name: 'used', labels: { guest: 'c' }, value: 1, unit: 'B' },
          { name: 'reads', value: 2, unit: 'c' },
          { name: 'latency_seconds', value: 0.001, unit: 's' },
          { name: 'gone', value: undefined },
        ],
      ),
    ),
    `# HELP kvm_memory_used_bytes Memory in use.
# TYPE kvm_memory_used_bytes gauge
kvm_memory_used_bytes{guest="a\\"b"} 1024
kvm_memory_used_bytes{guest="c"} 1
# HELP kvm_memory_used_ratio used percent
# TYPE kvm_memory_used_ratio gauge
kvm_memory_used_ratio{guest="a\\"b"} 0.5
# HELP kvm_memory_reads_total reads
# TYPE kvm_memory_reads_total counter
kvm_memory_reads_total 2
# HELP kvm_memory_latency_seconds latency seconds
# TYPE kvm_memory_latency_seconds gauge
kvm_memory_latency_seconds 0.001
`,
  )
  const label = String.raw`[a-zA-Z_]\w*="(?:[^"\\\p{Cc}]|\\["\\n])*"`
  const grammar = new RegExp(
    `^(?:# HELP \\w+ .*|# TYPE \\w+ (?:gauge|counter)|[a-zA-Z_]\\w*(?:\\{${label}(?:,${label})*\\})? -?\\d+(?:\\.\\d+)?)$`,
    'u',
  )
  const lines = checkLines(t, formats.prometheus(report([], hostileMetrics)), grammar, hostileMetrics.length + 2 * 5)
  t.equal(new Set(lines).size, lines.length, 'no series twice')
})

t.test('json: one object that says all, harmless to a terminal', async t => {
  const units: Unit[] = ['B', 's', '%', 'c', '']
  const output = formats.json(
    report(
      [{ status: 'WARNING', guest: hostileNames[9], message: 'odd' }],
      [...hostileMetrics, { name: 'gone', value: undefined }],
    ),
  )
  t.equal(output.trimEnd().split('\n').length, 1)
  t.notMatch(output.trimEnd(), /[\p{Cc}\p{Cf}]/u)
  const parsed = JSON.parse(output)
  t.match(parsed, {
    check: 'check-kvm-memory',
    status: 'WARNING',
    time: 1_700_000_000,
    findings: [{ guest: hostileNames[9], message: 'odd' }],
  })
  t.equal(parsed.metrics.length, hostileMetrics.length + 1)
  t.equal(parsed.metrics.at(-1).value, null)
  t.same(new Set(parsed.metrics.slice(0, -1).map((metric: { unit: string }) => metric.unit)), new Set(units))
  t.match(parsed.metrics[0], { labels: { guest: 'line\nbreak' }, warning: '10:20', critical: '@~:5' })
})

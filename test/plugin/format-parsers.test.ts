import t from 'tap'
import { programs } from '../../generated/programs.js'
import type { Context } from '../../plugin/check.js'
import { type RawValues, readOptions } from '../../plugin/options.js'
import type { Metric, Outcome } from '../../plugin/outcome.js'
import { type Format, formats, metricKind, type Report } from '../../plugin/output.js'
import { parseRange } from '../../plugin/range.js'
import { labelValue, safeName } from '../../plugin/text.js'
import { run, waitUntil } from '../../scripts/services/process.js'
import { busyGuests } from '../support/busy-guests.js'
import { checkContext } from '../support/checks.js'
import { type StoredPoint, startCarbon, startInfluxdb } from '../support/metric-stores.js'
import { hostileNames } from './example.js'

// What every check prints is given to the programs that read it: those are the judges of the formats, not our idea of them.

const scheme = 'node1.example'
const timeMs = Date.now()
const seconds = Math.floor(timeMs / 1000)

function report(name: string, outcome: Outcome): Report {
  return { name, outcome, scheme, timeMs, verbose: true }
}

const extremes = [
  ...[0, -1, 1e-12, 1e-300, -0.000001, 0.1 + 0.2, 1e15 + 0.3, 1e21, 2n ** 64n - 1n, -(2n ** 63n), Number.MAX_VALUE / 2],
  ...[undefined, Number.NaN, Number.POSITIVE_INFINITY],
]

/** Every unit, extreme value, kind of limit and hostile name, as a check could measure them. */
function extremeMetrics(): Metric[] {
  const limits = ['10', '~:10', '10:', '-5.5:1000000000000', '0.001:0.002', '~:', '@10:20'].map(parseRange)
  const units = ['B', 's', '%', 'c', ''] as const
  const values = extremes.map(
    (value, index): Metric => ({
      name: `value${index}`,
      value,
      unit: units[index % units.length],
      warning: limits[index % limits.length],
      critical: limits[(index + 1) % limits.length],
      min: 0,
      help: 'Back\\slash, "quote" and\nline break.',
    }),
  )
  const named = hostileNames.flatMap(guest =>
    units.map(
      (unit, index): Metric => ({ name: `number${index}`, labels: { guest, disk: guest }, value: 1 / 3, unit }),
    ),
  )
  return [...values, ...named]
}

/** Of checks that would measure for seconds otherwise. */
const rawOptions: Readonly<Record<string, RawValues>> = { 'check-cpu': { sleep: 0.1 } }

/** Of very many numbers every seventh: enough for all names and all guests, and stored in seconds. */
function thinned(outcome: Outcome): Outcome {
  const metrics = outcome.metrics.filter((_, index) => outcome.metrics.length < 500 || index % 7 === 0)
  return { ...outcome, metrics }
}

const { host, nextRound } = await busyGuests(t, hostileNames.length + 3, {
  names: hostileNames,
  stuck: [hostileNames.length],
  patienceMs: 10,
})
const reports = [report('check-extreme', { findings: [], metrics: extremeMetrics() })]
/** What every check comes to over guests with hostile names, one of them stuck; undefined where it needs what is not there. */
function runAll(contexts: readonly Context[]): Promise<(Outcome | undefined)[]> {
  // All at once: they wait for the guest that is stuck.
  return Promise.all(
    programs.map(async ({ check }, index) => {
      const options = readOptions(check.options, rawOptions[check.name] ?? {}, [])
      return check.run(async () => host, options, contexts[index] ?? checkContext()).catch(() => undefined)
    }),
  )
}

const contexts = programs.map(() => checkContext({ now: () => timeMs }))
await runAll(contexts)
nextRound()
for (const [index, outcome] of (await runAll(contexts)).entries()) {
  const name = programs[index]?.check.name ?? ''
  if (outcome !== undefined && outcome.metrics.length > 0) reports.push(report(name, thinned(outcome)))
}

function printed(format: Format): string {
  return reports.map(each => formats[format](each)).join('')
}

type Determined = Metric & { readonly value: number | bigint }

/** The numbers that must arrive: those that could be determined, of equal ones the first. */
function numbersOf({ outcome }: Report): Determined[] {
  const unique = new Map<string, Metric>()
  for (const metric of outcome.metrics) {
    const key = JSON.stringify([metric.labels, metric.name])
    if (!unique.has(key)) unique.set(key, metric)
  }
  return [...unique.values()].filter((metric): metric is Determined =>
    Number.isFinite(Number(metric.value ?? Number.NaN)),
  )
}

/** Equal as far as six decimals, or twelve for small numbers, carry. */
function near(found: number | undefined, wanted: number | bigint): boolean {
  const number = Number(wanted)
  const allowed = Math.abs(number) < 0.001 ? 1e-12 : Math.max(1e-6, Math.abs(number) * 1e-14)
  return found !== undefined && Math.abs(found - number) <= allowed
}

t.test('there is something to parse of most checks', async t => {
  const names = reports.map(({ name }) => name)
  for (const name of [
    'check-kvm-memory',
    'check-kvm-disk-io',
    'check-kvm-state',
    'check-kvm-guest-agent',
    'metrics-kvm',
  ])
    t.ok(names.includes(name), name)
  t.comment(`${names.length} reports, ${reports.flatMap(numbersOf).length} numbers: ${names.join(', ')}`)
})

/** Whether the parser's fields say what the metric does: label, value, unit, warning, critical, minimum. */
function isPerfdataOf(metric: Determined | undefined, fields: readonly string[]): boolean {
  if (metric === undefined) return false
  const [label = '', value, unit, warning, critical, min] = fields
  const { name, unit: wantedUnit = '' } = metric
  if (!label.endsWith(name) || !near(Number(value), metric.value) || unit !== wantedUnit) return false
  // This parser stops at an inverted range; one that nothing violates is not printed.
  const [wantedWarning, wantedCritical] = [metric.warning, metric.critical].map(range => range?.text ?? '')
  if (wantedWarning?.startsWith('@') || wantedCritical?.startsWith('@')) return true
  const limit = (text = '') => text.replace(/^~:$/, '')
  return warning === limit(wantedWarning) && critical === limit(wantedCritical) && min === String(metric.min ?? '')
}

t.test('performance data is read by Monitoring::Plugin as it was meant', async t => {
  const reader = `use Monitoring::Plugin::Performance;
while (<STDIN>) { chomp; for my $p (Monitoring::Plugin::Performance->parse_perfstring($_)) {
  print join("\\t", map { defined $_ ? $_ : '' } $p->label, $p->value, $p->uom, $p->warning, $p->critical, $p->min, $p->max), "\\n" } }`
  for (const each of reports) {
    const output = formats.nagios(each)
    t.equal(output.split('|').length, 2, `${each.name}: exactly one |`)
    const items = output.split('| ')[1]?.trimEnd().split(' ') ?? []
    // A line for each: the parser takes the square of the line's length.
    const { stdout } = await run('perl', ['-e', reader], { input: items.join('\n') })
    const parsed = stdout
      .replace(/\n$/, '')
      .split('\n')
      .map(line => line.split('\t'))
    const numbers = numbersOf(each)
    t.equal(parsed.length, numbers.length, `${each.name}: every number but those that are U`)
    t.equal(new Set(parsed.map(([label]) => label)).size, parsed.length, `${each.name}: no two labels meet`)
    const wrong = parsed.filter((fields, index) => !isPerfdataOf(numbers[index], fields))
    t.same(wrong, [], each.name)
  }
})

t.test('promtool reads all checks from one file, and has nothing to complain of', async t => {
  const output = printed('prometheus')
  await t.resolves(run('promtool', ['check', 'metrics'], { input: output }))
  const samples = output.split('\n').filter(line => line !== '' && !line.startsWith('#'))
  t.equal(samples.length, reports.flatMap(numbersOf).length)
  await t.rejects(run('promtool', ['check', 'metrics'], { input: `${output}again{` }), 'a test that can fail')
})

t.test('carbon stores every line of Graphite in a file of its own', async t => {
  const carbon = await startCarbon(t)
  const output = printed('graphite')
  const lines = output.trimEnd().split('\n')
  t.equal(lines.length, reports.flatMap(numbersOf).length)
  const stored = await carbon.store(output, seconds, lines.length)
  t.equal(stored.size, lines.length)
  const wrong = lines.filter(line => {
    const [path = '', value] = line.split(' ')
    return !near(stored.get(path), Number(value))
  })
  t.same(wrong, [])
  t.notMatch(await carbon.log(), /invalid line/)
})

/** The points that must be in a store, by name and tags. */
function wantedPoints(suffix: string, tagValue: (text: string) => string): Map<string, number | bigint> {
  return new Map(
    reports.flatMap(each =>
      numbersOf(each).map(({ name, labels, value }) => {
        const tags = Object.entries({ host: scheme, ...labels }).map(([tag, text]) => [tag, tagValue(text)])
        return [
          keyOf({ name: `${metricKind(each.name)}.${name}${suffix}`, tags: Object.fromEntries(tags) }),
          value,
        ] as const
      }),
    ),
  )
}

/** InfluxDB gives every tag of a measurement, empty where a series has none. */
function keyOf({ name, tags }: Pick<StoredPoint, 'name' | 'tags'>): string {
  return JSON.stringify([
    name,
    ...Object.entries(tags)
      .filter(([, value]) => value !== '')
      .sort(),
  ])
}

function differences(points: readonly StoredPoint[], wanted: ReadonlyMap<string, number | bigint>): string[] {
  const stored = new Map(points.map(point => [keyOf(point), point.value]))
  const wrong = [...wanted]
    .filter(([key, value]) => !near(stored.get(key), value))
    .map(([key]) => `missing or wrong: ${key}`)
  const surplus = [...stored.keys()].filter(key => !wanted.has(key)).map(key => `not ours: ${key}`)
  return [...wrong, ...surplus]
}

t.test('InfluxDB takes line protocol and put commands, and gives back the same names, tags and values', async t => {
  const influxdb = await startInfluxdb(t)
  await influxdb.write('lines', printed('influxdb'))
  t.same(differences(await influxdb.points('lines'), wantedPoints('', labelValue)), [])
  await t.rejects(influxdb.write('lines', 'kvm,host=a used= 1'), 'a test that can fail')
  await influxdb.put(printed('opentsdb'))
  const wanted = wantedPoints('.value', text => safeName(text))
  const points = await waitUntil(
    'every put is stored',
    async () => {
      const found = await influxdb.points('opentsdb')
      return found.length >= wanted.size ? found : undefined
    },
    { timeoutMs: 20_000, intervalMs: 200 },
  )
  t.same(differences(points, wanted), [])
})

t.test('JSON is one object a line, whatever is in it', async t => {
  for (const each of reports) {
    const { metrics } = JSON.parse(formats.json(each))
    const numbers = metrics.filter(({ value }: { value: number | null }) => value !== null)
    t.equal(numbers.length, numbersOf(each).length, each.name)
  }
})

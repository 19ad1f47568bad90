import type { Finding, Metric, Outcome } from './outcome.js'
import type { Range } from './range.js'
import { type Status, worstFirst, worstStatus } from './status.js'
import { cut, formatNumber, labelValue, printable, printableJson, printableLines, safeName } from './text.js'

/** Everything a format needs to print one result. */
export interface Report {
  /** The check's name. */
  readonly name: string
  readonly outcome: Outcome
  /** The first part of metric paths and the `host` label: the host's name unless `--scheme` says otherwise. */
  readonly scheme: string
  /** Milliseconds since 1970. */
  readonly timeMs: number
  /** Whether objects that are OK get a line too. */
  readonly verbose: boolean
  /** The first line of a check that takes another plugin's place, made of the status and the summary; then the only one unless `verbose`. */
  readonly line?: ((status: Status, text: string) => string) | undefined
}

/** What Sensu stores of a metric result by default, and the longest first line. */
const firstLineLength = 255
const longestObjectName = 64
const mostDetailLines = 1000
const partsPerChunk = 100

/** The formats of `--format`; each prints a whole report, ending in a line break. */
export const formats = {
  nagios: formatNagios,
  graphite: (report: Report) => metricLines(report, graphite),
  influxdb: (report: Report) => metricLines(report, influxdb),
  opentsdb: (report: Report) => metricLines(report, opentsdb),
  prometheus: formatPrometheus,
  json: formatJson,
} as const satisfies Record<string, (report: Report) => string>

export type Format = keyof typeof formats

/** Formats in which a line that starts with `#` is a comment: what went wrong must not spoil a file that a collector reads. */
const commentable: ReadonlySet<Format> = new Set<Format>(['prometheus', 'influxdb'])

/** What a run that failed prints: one UNKNOWN line, in JSON an object of the usual shape. */
export function formatFailure(
  format: Format,
  { name, line }: Pick<Report, 'name' | 'line'>,
  message: string,
  timeMs: number,
): string {
  const outcome: Outcome = { findings: [{ status: 'UNKNOWN', message }], metrics: [] }
  const report = { name, line, outcome, scheme: '', timeMs, verbose: false }
  if (format === 'json') return formats.json(report)
  return `${commentable.has(format) ? '# ' : ''}${formats.nagios(report)}`
}

/** The state a report comes to: its findings folded. */
export function statusOf(outcome: Outcome): Status {
  return worstStatus(outcome.findings.map(finding => finding.status))
}

/** `NAME STATUS: text`, one line of at most 255 characters that nothing in the text can break. */
export function statusLine(name: string, status: Status, text: string): string {
  return printable(`${name} ${status}: ${text}`, firstLineLength)
}

/** The first line of a report: the worst findings, as many as fit, or the summary when all is well. */
export function firstLine({ name, outcome, line }: Pick<Report, 'name' | 'outcome' | 'line'>): string {
  const status = statusOf(outcome)
  if (line !== undefined) {
    const text = outcome.summary ?? outcome.findings.map(findingText).join('; ')
    return printableLines(line(status, text)).replace(/\n$/, '')
  }
  const relevant = status === 'OK' ? outcome.findings : sortedFindings(outcome.findings.filter(isNotOk))
  if (status === 'OK' && outcome.summary !== undefined) return statusLine(name, status, outcome.summary)
  if (relevant.length === 0) return statusLine(name, status, 'nothing to judge')
  return statusLine(name, status, joinFitting(relevant, firstLineLength - name.length - 14))
}

/** `object: message`, the object's name made harmless and short. */
export function findingText({ guest, device, message }: Finding): string {
  const object = [guest, device].filter(part => part !== undefined).map(part => printable(part, longestObjectName))
  const text = printable(message)
  return object.length === 0 ? text : `${object.join(' ')}: ${text}`
}

function isNotOk(finding: Finding): boolean {
  return finding.status !== 'OK'
}

function sortedFindings(findings: readonly Finding[]): Finding[] {
  return worstFirst.flatMap(status => findings.filter(finding => finding.status === status))
}

/** The texts of findings joined by `; ` while they fit, at least one, then how many there are besides. */
function joinFitting([first, ...others]: readonly Finding[], length: number): string {
  const roomForCount = 12
  let joined = first === undefined ? '' : findingText(first)
  let shown = 0
  for (const finding of others) {
    const text = findingText(finding)
    if (joined.length + text.length + 2 > length - roomForCount) break
    joined += `; ${text}`
    shown += 1
  }
  const count = others.length - shown
  return count === 0 ? cut(joined, length) : `${cut(joined, length - roomForCount)}; ${count} more`
}

function formatNagios(report: Report): string {
  const perfdata = new LongText()
  eachUnique(report.outcome.metrics, dottedLabels, (metric, labels) => perfdata.add(` ${perfdataItem(metric, labels)}`))
  const first = firstLine(report)
  const lines = [first, ...(report.line && !report.verbose ? [] : detailLines(report))]
  // On a line of its own, so that the first line stays within its length however many numbers there are. Another plugin's line may have
  // its own `|`, of which there must be one only.
  const numbers = perfdata.whole()
  if (numbers !== '' && !first.includes('|')) lines.push(`|${numbers}`)
  return `${lines.join('\n')}\n`
}

function detailLines({ outcome, verbose }: Report): string[] {
  const shown = sortedFindings(verbose ? outcome.findings : outcome.findings.filter(isNotOk))
  const needed = shown.length > 1 ? shown : shown.filter(({ guest, device }) => (guest ?? device) !== undefined)
  const lines = needed.slice(0, mostDetailLines).map(finding => `${finding.status} ${findingText(finding)}`)
  return needed.length > lines.length ? [...lines, `and ${needed.length - lines.length} more`] : lines
}

/**
 * A text of very many short ones. Adding them up one by one V8 keeps the pieces of each until the end, and its garbage collector carries them about:
 * that takes longer than all else.
 */
class LongText {
  readonly #chunks: string[] = []
  #parts: string[] = []

  add(part: string): void {
    if (this.#parts.push(part) >= partsPerChunk) this.#join()
  }

  whole(): string {
    this.#join()
    return this.#chunks.join('')
  }

  #join(): void {
    this.#chunks.push(this.#parts.join(''))
    this.#parts = []
  }
}

type Labels = Readonly<Record<string, string>>
const noLabels: Labels = {}

/**
 * Gives `use` each metric with what its labels look like in a format; of equal ones the first only, since most parsers refuse a second. That text is made
 * once for numbers in a row that share their labels: guests have a hundred each.
 */
function eachUnique(
  metrics: readonly Metric[],
  textOf: (labels: Labels) => string,
  use: (metric: Metric, labels: string) => void,
): void {
  const seen = new Map<string, Set<string>>()
  let last: Labels | undefined
  let text = ''
  let names = new Set<string>()
  for (const metric of metrics) {
    const { name, labels = noLabels } = metric
    if (labels !== last) {
      last = labels
      text = textOf(labels)
      names = seen.get(text) ?? new Set()
      seen.set(text, names)
    }
    if (names.has(name)) continue
    names.add(name)
    use(metric, text)
  }
}

/** `web1.vda.` */
function dottedLabels(labels: Labels): string {
  return Object.values(labels)
    .map(value => `${safeName(value)}.`)
    .join('')
}

function perfdataItem({ name, value, unit = '', warning, critical, min, max }: Metric, labels: string): string {
  const number = formatNumber(value)
  let item = `${labels}${name}=${number === undefined ? 'U' : number + unit}`
  let separators = ''
  for (const limit of [limitText(warning), limitText(critical), formatNumber(min), formatNumber(max)]) {
    separators += ';'
    if (!limit) continue
    item += separators + limit
    separators = ''
  }
  return item
}

/** A range as performance data carries it; one that nothing can violate says nothing. */
function limitText(range: Range | undefined): string | undefined {
  return range === undefined || (range.text === '~:' && !range.inverted) ? undefined : range.text
}

/** The check's name without `check-`, as metric formats group by it: `kvm_memory`. */
export function metricKind(name: string): string {
  return name.replace(/^check-/, '').replaceAll(/[^A-Za-z0-9]/g, '_')
}

/** A format with one line for each number. */
interface LineFormat {
  /** What the lines of numbers with these labels have in common. */
  common(kind: string, labels: Labels, scheme: string): string
  line(common: string, kind: string, name: string, value: string, seconds: number): string
}

/** One line per number that could be determined. */
function metricLines({ name, scheme, timeMs, outcome }: Report, { common, line }: LineFormat): string {
  const kind = metricKind(name)
  const seconds = Math.floor(timeMs / 1000)
  const lines = new LongText()
  eachUnique(
    outcome.metrics,
    labels => common(kind, labels, scheme),
    (metric, own) => {
      const value = formatNumber(metric.value)
      if (value !== undefined) lines.add(`${line(own, kind, metric.name, value, seconds)}\n`)
    },
  )
  return lines.whole()
}

/** `host.kind.guest.disk.name value seconds`; the host's own dots stay, those of other names are escaped. */
const graphite: LineFormat = {
  common: (kind, labels, scheme) =>
    [safeName(scheme), kind, ...Object.values(labels).map(text => safeName(text, 'path')), ''].join('.'),
  line: (path, _, name, value, seconds) => `${path}${name} ${value} ${seconds}`,
}

/** `measurement,tag=value field=value nanoseconds`. Tag values are free of backslashes and line breaks by {@link labelValue}. */
const influxdb: LineFormat = {
  common: (kind, labels, scheme) =>
    Object.entries({ host: scheme, ...labels }).reduce(
      (tags, [tag, text]) => `${tags},${tag}=${labelValue(text).replaceAll(/[,= ]/g, '\\$&')}`,
      kind,
    ),
  line: (tags, _, name, value, seconds) => `${tags} ${name}=${value} ${seconds}000000000`,
}

/** The telnet form, `put metric seconds value tag=value`. */
const opentsdb: LineFormat = {
  common: (_, labels, scheme) =>
    Object.entries({ host: scheme, ...labels })
      .map(([tag, text]) => `${tag}=${safeName(text)}`)
      .join(' '),
  line: (tags, kind, name, value, seconds) => `put ${kind}.${name} ${seconds} ${value} ${tags}`,
}

const prometheusSuffix: Readonly<Record<string, string>> = { B: '_bytes', s: '_seconds', '%': '_ratio', c: '_total' }

/** The text exposition format, without time stamps (the node exporter's textfile collector refuses them); percentages become ratios. */
function formatPrometheus({ name, outcome }: Report): string {
  const families = new Map<string, string[]>()
  eachUnique(outcome.metrics, prometheusLabels, (metric, labels) => {
    const family = prometheusName(name, metric)
    const ratio = metric.unit === '%' && metric.value !== undefined
    const value = formatNumber(ratio ? Number(metric.value) / 100 : metric.value)
    if (value === undefined) return
    const help = printable(metric.help ?? metric.name.replaceAll('_', ' ')).replaceAll('\\', '\\\\')
    const header = [`# HELP ${family} ${help}`, `# TYPE ${family} ${metric.unit === 'c' ? 'counter' : 'gauge'}`]
    const lines = families.get(family) ?? header
    lines.push(`${family}${labels} ${value}`)
    families.set(family, lines)
  })
  return [...families.values()]
    .flat()
    .map(line => `${line}\n`)
    .join('')
}

function prometheusName(check: string, { name, unit }: Metric): string {
  const suffix = prometheusSuffix[unit ?? ''] ?? ''
  const base = `${metricKind(check)}_${name}`.replace(unit === '%' ? /_percent$/ : /$^/, '')
  return base.endsWith(suffix) ? base : base + suffix
}

function prometheusLabels(labels: Labels): string {
  const pairs = Object.entries(labels).map(([label, text]) => `${label}="${labelValue(text).replaceAll('"', '\\"')}"`)
  return pairs.length === 0 ? '' : `{${pairs.join(',')}}`
}

/** One JSON object on one line, names as they are. */
function formatJson(report: Report): string {
  const { name, outcome, timeMs } = report
  const metrics: object[] = []
  eachUnique(
    outcome.metrics,
    labels => JSON.stringify(labels),
    ({ value, warning, critical, ...metric }) => {
      const number = value === undefined || !Number.isFinite(Number(value)) ? null : Number(value)
      metrics.push({ ...metric, value: number, warning: warning?.text, critical: critical?.text })
    },
  )
  const status = statusOf(outcome)
  const summary = firstLine(report)
  return `${printableJson({ check: name, status, summary, time: Math.floor(timeMs / 1000), findings: outcome.findings, metrics })}\n`
}

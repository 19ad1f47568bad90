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

/** The formats of `--format`; each prints a whole report, ending in a line break. */
export const formats = {
  nagios: formatNagios,
  graphite: (report: Report) => metricLines(report, graphiteLine),
  influxdb: (report: Report) => metricLines(report, influxLine),
  opentsdb: (report: Report) => metricLines(report, opentsdbLine),
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
  return statusLine(name, status, joinFitting(relevant.map(findingText), firstLineLength - name.length - 14))
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

/** Texts joined by `; ` while they fit, at least one, then how many there are besides. */
function joinFitting(texts: readonly string[], length: number): string {
  const roomForCount = 12
  let [joined = ''] = texts
  let shown = 1
  for (const text of texts.slice(1)) {
    if (joined.length + text.length + 2 > length - roomForCount) break
    joined += `; ${text}`
    shown += 1
  }
  const count = texts.length - shown
  return count === 0 ? cut(joined, length) : `${cut(joined, length - roomForCount)}; ${count} more`
}

function formatNagios(report: Report): string {
  const perfdata = uniqueMetrics(report.outcome.metrics).map(perfdataItem)
  const first = firstLine(report)
  const lines = [first, ...(report.line && !report.verbose ? [] : detailLines(report))]
  // On a line of its own, so that the first line stays within its length however many numbers there are. Another plugin's line may have
  // its own `|`, of which there must be one only.
  if (perfdata.length > 0 && !first.includes('|')) lines.push(`| ${perfdata.join(' ')}`)
  return `${lines.join('\n')}\n`
}

function detailLines({ outcome, verbose }: Report): string[] {
  const shown = sortedFindings(verbose ? outcome.findings : outcome.findings.filter(isNotOk))
  const needed = shown.length > 1 ? shown : shown.filter(({ guest, device }) => (guest ?? device) !== undefined)
  const lines = needed.slice(0, mostDetailLines).map(finding => `${finding.status} ${findingText(finding)}`)
  return needed.length > lines.length ? [...lines, `and ${needed.length - lines.length} more`] : lines
}

/** Metrics that differ in name or labels; the first of equal ones, since most parsers refuse a second. */
function uniqueMetrics(metrics: readonly Metric[]): Metric[] {
  const seen = new Set<string>()
  return metrics.filter(metric => {
    const path = metricPath(metric, '\0')
    if (seen.has(path)) return false
    seen.add(path)
    return true
  })
}

function metricPath({ name, labels = {} }: Metric, separator: string): string {
  return [...Object.values(labels), name].join(separator)
}

function perfdataItem(metric: Metric): string {
  const label = [...Object.values(metric.labels ?? {}).map(value => safeName(value)), metric.name].join('.')
  const value = formatNumber(metric.value)
  const limits = [
    limitText(metric.warning),
    limitText(metric.critical),
    formatNumber(metric.min),
    formatNumber(metric.max),
  ]
  const tail = limits
    .map(limit => `;${limit ?? ''}`)
    .join('')
    .replace(/;+$/, '')
  return `${label}=${value === undefined ? 'U' : value + (metric.unit ?? '')}${tail}`
}

/** A range as performance data carries it; one that nothing can violate says nothing. */
function limitText(range: Range | undefined): string | undefined {
  return range === undefined || (range.text === '~:' && !range.inverted) ? undefined : range.text
}

/** The check's name without `check-`, as metric formats group by it: `kvm_memory`. */
export function metricKind(name: string): string {
  return name.replace(/^check-/, '').replaceAll(/[^A-Za-z0-9]/g, '_')
}

interface Sample {
  readonly kind: string
  readonly metric: Metric
  readonly value: string
  readonly seconds: number
  readonly scheme: string
}

/** One line per number that could be determined. */
function metricLines(report: Report, line: (sample: Sample) => string): string {
  const kind = metricKind(report.name)
  const seconds = Math.floor(report.timeMs / 1000)
  let lines = ''
  for (const metric of uniqueMetrics(report.outcome.metrics)) {
    const value = formatNumber(metric.value)
    if (value !== undefined) lines += `${line({ kind, metric, value, seconds, scheme: report.scheme })}\n`
  }
  return lines
}

/** `host.kind.guest.disk.name value seconds`; the host's own dots stay, those of other names are escaped. */
function graphiteLine({ kind, metric, value, seconds, scheme }: Sample): string {
  const labels = Object.values(metric.labels ?? {}).map(text => safeName(text, 'path'))
  return `${[safeName(scheme), kind, ...labels, metric.name].join('.')} ${value} ${seconds}`
}

/** `measurement,tag=value field=value nanoseconds`. Tag values are free of backslashes and line breaks by {@link labelValue}. */
function influxLine({ kind, metric, value, seconds, scheme }: Sample): string {
  const tags = Object.entries({ host: scheme, ...metric.labels })
    .map(([tag, text]) => `,${tag}=${labelValue(text).replaceAll(/[,= ]/g, '\\$&')}`)
    .join('')
  return `${kind}${tags} ${metric.name}=${value} ${seconds}000000000`
}

/** The telnet form, `put metric seconds value tag=value`. */
function opentsdbLine({ kind, metric, value, seconds, scheme }: Sample): string {
  const tags = Object.entries({ host: scheme, ...metric.labels }).map(([tag, text]) => `${tag}=${safeName(text)}`)
  return `put ${kind}.${metric.name} ${seconds} ${value} ${tags.join(' ')}`
}

const prometheusSuffix: Readonly<Record<string, string>> = { B: '_bytes', s: '_seconds', '%': '_ratio', c: '_total' }

/** The text exposition format, without time stamps (the node exporter's textfile collector refuses them); percentages become ratios. */
function formatPrometheus({ name, outcome }: Report): string {
  const families = new Map<string, string[]>()
  for (const metric of uniqueMetrics(outcome.metrics)) {
    const family = prometheusName(name, metric)
    const ratio = metric.unit === '%' && metric.value !== undefined
    const value = formatNumber(ratio ? Number(metric.value) / 100 : metric.value)
    if (value === undefined) continue
    const help = printable(metric.help ?? metric.name.replaceAll('_', ' ')).replaceAll('\\', '\\\\')
    const header = [`# HELP ${family} ${help}`, `# TYPE ${family} ${metric.unit === 'c' ? 'counter' : 'gauge'}`]
    const lines = families.get(family) ?? header
    lines.push(`${family}${prometheusLabels(metric)} ${value}`)
    families.set(family, lines)
  }
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

function prometheusLabels({ labels = {} }: Metric): string {
  const pairs = Object.entries(labels).map(([label, text]) => `${label}="${labelValue(text).replaceAll('"', '\\"')}"`)
  return pairs.length === 0 ? '' : `{${pairs.join(',')}}`
}

/** One JSON object on one line, names as they are. */
function formatJson(report: Report): string {
  const { name, outcome, timeMs } = report
  const metrics = uniqueMetrics(outcome.metrics).map(({ value, warning, critical, ...metric }) => ({
    ...metric,
    value: value === undefined || !Number.isFinite(Number(value)) ? null : Number(value),
    warning: warning?.text,
    critical: critical?.text,
  }))
  const status = statusOf(outcome)
  const summary = firstLine(report)
  return `${printableJson({ check: name, status, summary, time: Math.floor(timeMs / 1000), findings: outcome.findings, metrics })}\n`
}

import { metricKind } from '../../plugin/output.js'
import { formatNumber } from '../../plugin/text.js'
import { parseInfluxLine } from './influx-line.js'
import { parsePerfdata } from './perfdata.js'
import { numberText, type Point, plainField, timeNsOf } from './point.js'

/** The formats in which a check's output may carry numbers; the names are those of our checks' `--format`. */
export const outputFormats = ['graphite', 'influxdb', 'opentsdb', 'nagios', 'json'] as const
export type OutputFormat = (typeof outputFormats)[number]

/** What an output does not say itself. */
export interface Origin {
  /** The check's name. */
  readonly check: string
  /** The hypervisor or other machine on which the check ran. */
  readonly host: string
  /** When it ran, for lines without a time. */
  readonly timeNs: bigint
}

/** The numbers of one output. */
export interface Parsed {
  readonly points: readonly Point[]
  /** Lines that are not what the format says, at most {@link mostInvalid} of them. */
  readonly invalid: readonly string[]
  readonly invalidCount: number
  /** Lines that were not looked at because there are too many. */
  readonly ignoredCount: number
}

/** Lines of one output that are looked at: 1,000 guests with 200 numbers each. */
const mostLines = 200_000
const mostInvalid = 3
/** Lines in which a known format is looked for: an error message or two may come first. */
const linesToJudgeBy = 50

/** Reads one line; undefined when it is not of the format. */
type ReadLine = (line: string, origin: Origin) => readonly Point[] | undefined

const lineFormats: Readonly<Record<Exclude<OutputFormat, 'nagios'>, ReadLine>> = {
  json: readJson,
  opentsdb: readPut,
  graphite: readPath,
  influxdb: (line, { timeNs }) => parseInfluxLine(line, timeNs),
}

/**
 * The format of an output, told by its first line that is of one; undefined when there is none. An output without any line is of every format: of
 * `graphite`, then.
 */
export function detectFormat(output: string, origin: Origin): OutputFormat | undefined {
  const lines = output.split('\n', linesToJudgeBy).filter(isContent)
  if (lines.length === 0) return 'graphite'
  for (const line of lines) {
    if (/(?:^|\s)\|\s*(?:'[^']*'|\S+)=/.test(line)) return 'nagios'
    for (const [format, read] of Object.entries(lineFormats)) {
      if (read(line, origin) !== undefined) return outputFormats.find(known => known === format)
    }
  }
  return undefined
}

/** Reads every number of an output. Never throws: what cannot be read is counted, and the first such lines are named. */
export function parseOutput(output: string, format: OutputFormat, origin: Origin): Parsed {
  if (format === 'nagios') return { ...readPerfdata(output, origin), ignoredCount: 0 }
  const read = lineFormats[format]
  const lines = output.split('\n').filter(isContent)
  const points: Point[] = []
  const invalid: string[] = []
  for (const line of lines.slice(0, mostLines)) {
    const found = read(line, origin)
    if (found === undefined) invalid.push(line)
    else points.push(...found)
  }
  const ignoredCount = Math.max(0, lines.length - mostLines)
  return { points, invalid: invalid.slice(0, mostInvalid), invalidCount: invalid.length, ignoredCount }
}

/** Neither empty nor a comment. */
function isContent(line: string): boolean {
  return /^\s*[^\s#]/.test(line)
}

/** Graphite's `path value seconds`, the path perhaps with tags (`path;tag=value`). */
function readPath(line: string): Point[] | undefined {
  const [path = '', value = '', time = '', ...rest] = line.trim().split(/\s+/)
  const [measurement = '', ...tags] = path.split(';')
  const pairs = tags.map(splitPair)
  const number = numberText(value)
  const timeNs = timeNsOf(time)
  if (rest.length > 0 || measurement === '' || number === undefined || timeNs === undefined) return undefined
  if (!pairs.every(pair => pair !== undefined)) return undefined
  return [{ measurement, field: plainField, tags: new Map(pairs), number, literal: number, timeNs }]
}

/** OpenTSDB's `put metric time value tag=value …`. What is behind the metric's last dot is the number's name. */
function readPut(line: string): Point[] | undefined {
  const [put, metric = '', time = '', value = '', ...tags] = line.trim().split(/\s+/)
  const pairs = tags.map(splitPair)
  const number = numberText(value)
  const timeNs = timeNsOf(time)
  if (put !== 'put' || metric === '' || number === undefined || timeNs === undefined) return undefined
  if (!pairs.every(pair => pair !== undefined)) return undefined
  const [, measurement = metric, field = plainField] = /^(.+)\.([^.]+)$/.exec(metric) ?? []
  return [{ measurement, field, tags: new Map(pairs), number, literal: number, timeNs }]
}

function splitPair(text: string): [string, string] | undefined {
  const [, name, value] = /^([^=]+)=(.+)$/.exec(text) ?? []
  return name === undefined || value === undefined ? undefined : [name, value]
}

/** Our checks' `--format json`: one object a line with `check`, `time` in seconds and `metrics`. */
function readJson(line: string, { check, host, timeNs }: Origin): Point[] | undefined {
  const report = parsedObject(line)
  const metrics = report?.['metrics']
  if (report === undefined || !Array.isArray(metrics)) return undefined
  const measurement = metricKind(typeof report['check'] === 'string' ? report['check'] : check)
  const time = typeof report['time'] === 'number' ? timeNsOf(String(report['time'])) : undefined
  const points: Point[] = []
  for (const metric of metrics) {
    const { name, value, labels } = asObject(metric) ?? {}
    if (typeof name !== 'string') return undefined
    // A number that could not be determined is null.
    const number = typeof value === 'number' ? formatNumber(value) : undefined
    if (number === undefined) continue
    const pairs = Object.entries(asObject(labels) ?? {}).map(([label, text]) => [label, String(text)] as const)
    const tags = new Map([['host', host], ...pairs])
    points.push({ measurement, field: name, tags, number, literal: number, timeNs: time ?? timeNs })
  }
  return points
}

function parsedObject(text: string): Record<string, unknown> | undefined {
  try {
    return text.trimStart().startsWith('{') ? asObject(JSON.parse(text)) : undefined
  } catch {
    return undefined
  }
}

function asObject(value: unknown): Record<string, unknown> | undefined {
  return typeof value === 'object' && value !== null && !Array.isArray(value) ? { ...value } : undefined
}

function readPerfdata(output: string, { check, host, timeNs }: Origin): Omit<Parsed, 'ignoredCount'> {
  const { items, invalid } = parsePerfdata(output)
  const measurement = metricKind(check)
  const points = items.map(
    ({ label, number }): Point => ({
      measurement,
      field: label,
      tags: new Map([['host', host]]),
      number,
      literal: number,
      timeNs,
    }),
  )
  return { points, invalid: invalid.slice(0, mostInvalid), invalidCount: invalid.length }
}

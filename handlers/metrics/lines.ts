import { labelValue, safeName } from '../../plugin/text.js'
import { type Point, plainField } from './point.js'

/** What the settings add to every number. */
export interface Additions {
  /** In front of paths, metric names and measurements; parts are separated by dots, empty for none. */
  readonly prefix: string
  /** Besides a point's own tags, and instead of those of the same name. */
  readonly tags: ReadonlyMap<string, string>
}

/** How a store wants one number: undefined when it cannot store it. */
export type WriteLine = (point: Point, additions: Additions) => string | undefined

/**
 * Graphite's `path value seconds`. A point with a host becomes `host.measurement.tags.field`, as our checks print it; the host's own dots stay, those of
 * other tags are escaped.
 */
export function graphiteLine(point: Point, { prefix, tags: added }: Additions): string | undefined {
  if (point.number === undefined) return undefined
  const tags = allTags(point, added)
  const others = [...tags].flatMap(([name, value]) => (name === 'host' ? [] : [safeName(value, 'path')]))
  const path = [
    ...safeParts(prefix, 'path'),
    ...safeParts(tags.get('host') ?? '', 'name'),
    ...safeParts(point.measurement, 'path'),
    ...others,
    ...(point.field === plainField ? [] : safeParts(point.field, 'path')),
  ]
  return `${path.join('.')} ${point.number} ${seconds(point)}`
}

/** InfluxDB's line protocol, with a time in nanoseconds. */
export function influxLine(point: Point, { prefix, tags: added }: Additions): string {
  const tags = [...allTags(point, added)].map(([name, value]) => `,${influxName(name)}=${influxName(value)}`)
  const name = joined(prefix, point.measurement)
  // A line that begins with # is a comment.
  const measurement = influxName(name.startsWith('#') ? safeName(name) : name, /[, ]/g)
  return `${measurement}${tags.join('')} ${influxName(point.field)}=${point.literal} ${point.timeNs}`
}

function influxName(text: string, separators = /[,= ]/g): string {
  return labelValue(text).replaceAll(separators, '\\$&')
}

/** A number as OpenTSDB's HTTP interface takes it. */
export interface OpentsdbPoint {
  readonly metric: string
  /** Seconds since 1970. */
  readonly timestamp: number
  readonly value: number
  readonly tags: Readonly<Record<string, string>>
}

/** OpenTSDB's form of a number. OpenTSDB wants at least one tag: a point has its host. */
export function opentsdbPoint(point: Point, { prefix, tags: added }: Additions): OpentsdbPoint | undefined {
  if (point.number === undefined) return undefined
  const field = point.field === plainField ? '' : point.field
  const metric = safeParts(joined(prefix, point.measurement, field), 'name').join('.')
  const tags = [...allTags(point, added)].map(([name, value]) => [safeName(name), safeName(value)])
  return {
    metric,
    timestamp: Number(seconds(point)),
    value: Number(point.number),
    tags: Object.fromEntries(tags),
  }
}

/** The same as a line of OpenTSDB's telnet interface. */
export function opentsdbLine(point: Point, additions: Additions): string | undefined {
  const found = opentsdbPoint(point, additions)
  if (found === undefined) return undefined
  const tags = Object.entries(found.tags).map(([name, value]) => `${name}=${value}`)
  return `put ${found.metric} ${found.timestamp} ${point.number} ${tags.join(' ')}`
}

function allTags({ tags }: Point, added: ReadonlyMap<string, string>): Map<string, string> {
  return new Map([...tags, ...added])
}

function joined(...parts: string[]): string {
  return parts.filter(part => part !== '').join('.')
}

/** The parts of a dotted name, each made harmless; empty ones are left out. */
function safeParts(name: string, alphabet: 'name' | 'path'): string[] {
  return name
    .split('.')
    .filter(part => part !== '')
    .map(part => safeName(part, alphabet))
}

function seconds({ timeNs }: Point): bigint {
  return timeNs / 1_000_000_000n
}

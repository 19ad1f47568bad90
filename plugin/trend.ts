import type { Judgement } from './outcome.js'
import { type Range, rangeIn } from './range.js'
import type { StateStore } from './state.js'
import { formatQuantity } from './text.js'

const mostKept = 100_000
/** Amounts are kept this many times in the shortest history that is judged. */
const keptPerHistory = 4

type Point = readonly [timeMs: number, amount: number]

/**
 * How fast amounts have been growing, per second, by object: over the last one to two `historySeconds`, and of the two halves of that time the one with the
 * slower growth, so that a single jump is no trend. Keeps the new amounts. An object that has not been seen for so long, or too seldom
 * meanwhile, has no entry.
 */
export async function trendsOf(
  state: StateStore,
  nowMs: number,
  current: ReadonlyMap<string, number>,
  historySeconds: number,
): Promise<Map<string, number>> {
  const historyMs = historySeconds * 1000
  const isRecent = ([timeMs]: Point) => timeMs < nowMs && timeMs >= nowMs - 2 * historyMs
  const kept = new Map([...keptPoints(await state.read())].map(([object, points]) => [object, points.filter(isRecent)]))
  const trends = new Map<string, number>()
  for (const [object, amount] of current) {
    const points = kept.get(object) ?? []
    const trend = trendOf([...points, [nowMs, amount]], historyMs)
    if (trend !== undefined) trends.set(object, trend)
    const last = points.at(-1)
    const isDue = last === undefined || nowMs - last[0] >= historyMs / keptPerHistory
    kept.set(object, isDue ? [...points, [nowMs, amount]] : points)
  }
  const entries = [...kept].filter(([, points]) => points.length > 0).slice(0, mostKept)
  await state.write({ points: Object.fromEntries(entries) })
  return trends
}

/** When something will be full that has so much room left; undefined when it does not grow. The limits are in hours. */
export function fullIn(
  roomBytes: number,
  bytesPerSecond: number,
  { fullWarning, fullCritical }: { fullWarning: Range | undefined; fullCritical: Range | undefined },
): Judgement | undefined {
  if (bytesPerSecond <= 0 || roomBytes <= 0) return undefined
  return {
    what: 'full in',
    name: 'full_in',
    value: roomBytes / bytesPerSecond,
    unit: 's',
    note: `when it grows on by ${formatQuantity(bytesPerSecond * 3600, 'B')} an hour`,
    warning: rangeIn(1 / 3600, fullWarning),
    critical: rangeIn(1 / 3600, fullCritical),
  }
}

/** The slower growth of the two halves; undefined when the points do not reach back far enough, or none is near their middle. */
function trendOf(points: readonly Point[], historyMs: number): number | undefined {
  const [first, last] = [points[0], points.at(-1)]
  if (first === undefined || last === undefined || last[0] - first[0] < historyMs) return undefined
  const middleMs = (first[0] + last[0]) / 2
  const distance = ([timeMs]: Point) => Math.abs(timeMs - middleMs)
  const [middle] = points.slice(1, -1).toSorted((one, other) => distance(one) - distance(other))
  if (middle === undefined || distance(middle) > historyMs / 2) return undefined
  return Math.min(perSecond(first, middle), perSecond(middle, last))
}

function perSecond([fromMs, from]: Point, [toMs, to]: Point): number {
  return ((to - from) / (toMs - fromMs)) * 1000
}

/** What `trendsOf` kept; whatever does not look like it counts as nothing. */
function keptPoints(value: unknown): Map<string, Point[]> {
  const points = typeof value === 'object' && value !== null && 'points' in value ? value.points : undefined
  if (typeof points !== 'object' || points === null) return new Map()
  return new Map(
    Object.entries(points).map(([object, list]) => [object, Array.isArray(list) ? list.filter(isPoint) : []]),
  )
}

function isPoint(value: unknown): value is Point {
  return Array.isArray(value) && value.length === 2 && value.every(Number.isFinite)
}

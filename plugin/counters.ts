import type { StateStore } from './state.js'

/** Growing numbers of one object, by name. */
export type Counters = Readonly<Record<string, number | bigint>>

/** How much each counter of an object grew since its last sample. */
export interface Growth {
  /** Seconds between the two samples. */
  readonly seconds: number
  readonly grown: Readonly<Record<string, number>>
}

type Kept = readonly [timeMs: number, counters: Readonly<Record<string, number>>]

/** An object not seen for a day is forgotten, and no more than this many are kept. */
const longestKeptMs = 86_400_000
const mostKept = 100_000

/**
 * Compares counters with those of the last run and keeps the new ones. Objects are named by what survives a rename or a restart (guest UUID
 * and device). An object without an entry in the result has no rate this time: it is new, or a counter went back (guest restarted),
 * or no time has passed. An object that is missing once keeps its old sample.
 *
 * @param timeMs when the counters were read: take it before the call that reads them
 */
export async function growthSince(
  state: StateStore,
  timeMs: number,
  current: ReadonlyMap<string, Counters>,
): Promise<Map<string, Growth>> {
  const last = keptSamples(await state.read())
  const growth = new Map<string, Growth>()
  for (const [object, counters] of current) {
    const before = last.get(object)
    const grown = before === undefined ? undefined : compare(before, timeMs, counters)
    if (grown !== undefined) growth.set(object, grown)
  }
  const recent = [...last].filter(([object, [time]]) => !current.has(object) && Math.abs(timeMs - time) < longestKeptMs)
  const fresh = [...current].map(([object, counters]): [string, Kept] => [object, [timeMs, asNumbers(counters)]])
  await state.write({ counters: Object.fromEntries([...fresh, ...recent].slice(0, mostKept)) })
  return growth
}

function compare([time, before]: Kept, timeMs: number, counters: Counters): Growth | undefined {
  const seconds = (timeMs - time) / 1000
  if (seconds <= 0) return undefined
  const grown = Object.entries(asNumbers(counters)).map(
    ([name, value]) => [name, value - (before[name] ?? Number.NaN)] as const,
  )
  // A reset of one counter is a reset of the object: mixing two lives would give wrong averages.
  return grown.every(([, difference]) => difference >= 0) ? { seconds, grown: Object.fromEntries(grown) } : undefined
}

function asNumbers(counters: Counters): Record<string, number> {
  return Object.fromEntries(Object.entries(counters).map(([name, value]) => [name, Number(value)]))
}

/** What `growthSince` kept; whatever does not look like it counts as nothing. */
function keptSamples(value: unknown): Map<string, Kept> {
  const counters = isRecord(value) ? value['counters'] : undefined
  return new Map(
    isRecord(counters) ? Object.entries(counters).filter((entry): entry is [string, Kept] => isKept(entry[1])) : [],
  )
}

function isKept(value: unknown): value is Kept {
  if (!Array.isArray(value) || value.length !== 2) return false
  const [time, counters]: unknown[] = value
  return (
    typeof time === 'number' && isRecord(counters) && Object.values(counters).every(item => typeof item === 'number')
  )
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

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
  const kept: [string, Kept][] = []
  for (const [object, counters] of current) {
    const numbers = asNumbers(counters)
    const before = last.get(object)
    const grown = before === undefined ? undefined : compare(before, timeMs, numbers)
    if (grown !== undefined) growth.set(object, grown)
    kept.push([object, [timeMs, numbers]])
  }
  for (const [object, sample] of last) {
    if (!current.has(object) && Math.abs(timeMs - sample[0]) < longestKeptMs) kept.push([object, sample])
  }
  await state.write({ counters: Object.fromEntries(kept.slice(0, mostKept)) })
  return growth
}

function compare([time, before]: Kept, timeMs: number, counters: Kept[1]): Growth | undefined {
  const seconds = (timeMs - time) / 1000
  if (seconds <= 0) return undefined
  const grown: Record<string, number> = {}
  for (const [name, value] of Object.entries(counters)) {
    const difference = value - (before[name] ?? Number.NaN)
    // A reset of one counter is a reset of the object: mixing two lives would give wrong averages.
    if (!(difference >= 0)) return undefined
    grown[name] = difference
  }
  return { seconds, grown }
}

function asNumbers(counters: Counters): Kept[1] {
  const numbers: Record<string, number> = {}
  for (const [name, value] of Object.entries(counters)) numbers[name] = Number(value)
  return numbers
}

/** What `growthSince` kept; whatever does not look like it counts as nothing. */
function keptSamples(value: unknown): Map<string, Kept> {
  const counters = isRecord(value) ? value['counters'] : undefined
  const samples = new Map<string, Kept>()
  for (const [object, sample] of Object.entries(isRecord(counters) ? counters : {})) {
    if (isKept(sample)) samples.set(object, sample)
  }
  return samples
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

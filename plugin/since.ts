import type { StateStore } from './state.js'

/** What is kept longer than this without a run in between says nothing about the time in between. */
const longestGapMs = 3_600_000
const mostKept = 100_000

type Entry = readonly [condition: string, sinceMs: number]

interface Kept {
  readonly atMs: number
  /** By object: its condition, and when it was first seen in it (milliseconds since 1970). */
  readonly seen: Readonly<Record<string, Entry>>
}

/**
 * Since when each object has been seen in its present condition, run after run (milliseconds since 1970): a lower bound of how long it has
 * lasted, and `nowMs` when it is new. What was in between two runs is not known. Objects left out are forgotten, but for those in `unknown`, whose
 * condition could not be determined this time.
 */
export async function seenSince(
  state: StateStore,
  nowMs: number,
  current: ReadonlyMap<string, string>,
  unknown: readonly string[] = [],
): Promise<Map<string, number>> {
  const last = await state.read()
  const kept = isKept(last) && nowMs >= last.atMs && nowMs - last.atMs < longestGapMs ? last.seen : {}
  const since = new Map<string, number>()
  for (const [object, condition] of current) {
    const before = Object.hasOwn(kept, object) ? kept[object] : undefined
    since.set(object, before?.[0] === condition ? before[1] : nowMs)
  }
  const held = Object.entries(kept).filter(([object]) => unknown.includes(object))
  if (current.size > 0 || isKept(last)) await state.write(keep(nowMs, current, since, held))
  return since
}

function keep(
  atMs: number,
  current: ReadonlyMap<string, string>,
  since: ReadonlyMap<string, number>,
  held: readonly (readonly [object: string, entry: Entry])[],
): Kept | null {
  const seen = [...current].map(([object, condition]): [string, Entry] => [
    object,
    [condition, since.get(object) ?? atMs],
  ])
  const entries = [...seen, ...held].slice(0, mostKept)
  return entries.length === 0 ? null : { atMs, seen: Object.fromEntries(entries) }
}

function isKept(value: unknown): value is Kept {
  if (typeof value !== 'object' || value === null || !('atMs' in value) || !('seen' in value)) return false
  const { atMs, seen } = value
  return typeof atMs === 'number' && typeof seen === 'object' && seen !== null && Object.values(seen).every(isEntry)
}

function isEntry(value: unknown): boolean {
  return Array.isArray(value) && typeof value[0] === 'string' && typeof value[1] === 'number'
}

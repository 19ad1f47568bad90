import type { StateStore } from '../../plugin/state.js'

const hourMs = 3_600_000

/** The times (milliseconds since 1970) of what was tried within the last hour; files may hold anything. A time in the future, from before a clock was set back, counts as now. */
export function recentAttempts(kept: unknown, nowMs: number): number[] {
  if (!Array.isArray(kept)) return []
  return kept
    .filter(time => typeof time === 'number' && Number.isFinite(time))
    .map(time => Math.min(time, nowMs))
    .filter(time => time > nowMs - hourMs)
}

/**
 * Takes note of an attempt before it is made, so that one which ends this process counts, too. Returns its number within the hour; `exhausted` with the time
 * of the next one (milliseconds since 1970) when there were as many as permitted. Whoever calls it has the guest's lock.
 */
export async function noteAttempt(
  store: StateStore,
  nowMs: number,
  most: number,
): Promise<{ number: number } | { exhausted: true; nextMs: number }> {
  const recent = recentAttempts(await store.read(), nowMs)
  if (recent.length >= most) return { exhausted: true, nextMs: (recent.at(-most) ?? nowMs) + hourMs }
  await store.write([...recent, nowMs])
  return { number: recent.length + 1 }
}

/** A daemon never stops working on a question that hangs, and has few threads for them: it is repeated no more often than this. */
const askAgainMs = 600_000
const mostKept = 1000

/** By object: since when it has been silent, and when it was last asked (milliseconds since 1970). */
type Kept = Readonly<Record<string, readonly [sinceMs: number, askedMs: number]>>

/** Objects that do not answer, kept from run to run: those are left alone for ten minutes at a time. */
export class Silence {
  readonly #nowMs: number
  readonly #before: Kept
  readonly #now = new Map<string, readonly [sinceMs: number, askedMs: number]>()

  /** `kept` is what an earlier run got from {@link Silence.keep}; anything else counts as nothing. */
  constructor(kept: unknown, nowMs: number) {
    this.#before = isKept(kept) ? kept : {}
    this.#nowMs = nowMs
  }

  /** Whether the object may be asked; false when it was asked in vain not long ago, which is then still so. */
  mayAsk(object: string): boolean {
    const [sinceMs, askedMs] = this.#entry(object) ?? []
    if (sinceMs === undefined || askedMs === undefined || Math.abs(this.#nowMs - askedMs) >= askAgainMs) return true
    this.#now.set(object, [sinceMs, askedMs])
    return false
  }

  /** Notes that the object was asked and did not answer. */
  note(object: string): void {
    this.#now.set(object, [this.#entry(object)?.[0] ?? this.#nowMs, this.#nowMs])
  }

  /** For how long the object has been silent, as far as runs have seen. */
  secondsOf(object: string): number {
    return Math.max(0, this.#nowMs - (this.#now.get(object)?.[0] ?? this.#nowMs)) / 1000
  }

  /** What the next run needs to know. */
  keep(): Kept {
    return Object.fromEntries([...this.#now].slice(0, mostKept))
  }

  #entry(object: string): Kept[string] | undefined {
    return Object.hasOwn(this.#before, object) ? this.#before[object] : undefined
  }
}

function isKept(value: unknown): value is Kept {
  if (typeof value !== 'object' || value === null) return false
  return Object.values(value).every(
    entry => Array.isArray(entry) && entry.length === 2 && entry.every(time => typeof time === 'number'),
  )
}

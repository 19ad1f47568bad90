/** One number, as far as possible independent of the format it came in and of the store it goes to. */
export interface Point {
  /** What is measured: the check's kind (`kvm_memory`), or a whole path where the format has nothing else. Parts are separated by dots. */
  readonly measurement: string
  /** The number's name within that; `value` where the format has none. */
  readonly field: string
  /** In the order in which they make up a path. */
  readonly tags: ReadonlyMap<string, string>
  /** As a decimal number; undefined for texts and truth values, which only InfluxDB stores. */
  readonly number: string | undefined
  /** As InfluxDB's line protocol writes it: `5i`, `0.5`, `"text"`, `true`. */
  readonly literal: string
  /** Nanoseconds since 1970. */
  readonly timeNs: bigint
}

/** A field that says nothing: left out of paths. */
export const plainField = 'value'

/** The text of a number that every store reads; undefined when it is none, or not finite. */
export function numberText(text: string): string | undefined {
  const [, sign = '', digits] = /^([+-]?)((?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?)$/i.exec(text) ?? []
  return digits === undefined || !Number.isFinite(Number(digits)) ? undefined : `${sign === '-' ? '-' : ''}${digits}`
}

/** A time whose unit is told by its size: seconds, milli-, micro- or nanoseconds since 1970. Undefined when it is no time. */
export function timeNsOf(text: string): bigint | undefined {
  const [, whole, fraction = ''] = /^(\d{1,19})(?:\.(\d+))?$/.exec(text) ?? []
  if (whole === undefined) return undefined
  // 11 digits of seconds last until the year 5138, 14 of milliseconds as well.
  const digitsBelowUnit = whole.length <= 11 ? 9 : whole.length <= 14 ? 6 : whole.length <= 17 ? 3 : 0
  return BigInt(whole + fraction.slice(0, digitsBelowUnit).padEnd(digitsBelowUnit, '0'))
}

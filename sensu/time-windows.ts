import { isObject, member } from './json-value.js'
import type { Json } from './types.js'

const daysOfWeek = ['sunday', 'monday', 'tuesday', 'wednesday', 'thursday', 'friday', 'saturday']

/** The keys a set of time windows may have. */
export const windowDays: readonly string[] = ['all', ...daysOfWeek]

/** Hours east of Greenwich of the zone names that Sensu 1.9 knows; any other name means local time. */
const zoneHours: ReadonlyMap<string, number> = new Map([
  ['UTC', 0],
  ['UT', 0],
  ['GMT', 0],
  ['Z', 0],
  ['EST', -5],
  ['EDT', -4],
  ['CST', -6],
  ['CDT', -5],
  ['MST', -7],
  ['MDT', -6],
  ['PST', -8],
  ['PDT', -7],
])

const minuteMs = 60_000
const dayMs = 24 * 60 * minuteMs

/** A clock time: milliseconds since midnight and, if it named one, the zone's offset from UTC. */
export type ClockTime = { sinceMidnightMs: number; offsetMinutes?: number }

const clockSyntax =
  /^(?<hour>\d{1,2})(?::(?<minute>\d{1,2})(?::(?<second>\d{1,2})(?:[.,](?<fraction>\d{1,9}))?)?)?\s*(?<half>[ap]\.?m\.?)?\s*(?<zone>[a-z]{1,5}|(?:utc|gmt)?[+-]\d{1,2}(?::?\d{2})?)?$/i

/**
 * Reads a clock time as people write it in Sensu 1.9's time windows: `9AM`, `11:30:00 PM`, `17:00`, `5PM PST`,
 * `17:00 +0100`, `24:00`. Undefined when it is none.
 */
export function parseClockTime(text: Json | undefined): ClockTime | undefined {
  if (typeof text !== 'string') return undefined
  const parts = clockSyntax.exec(text.trim())?.groups
  if (!parts) return undefined
  const { minute, half, zone } = parts
  // A lone number is a day of the month, not an hour.
  if (minute === undefined && half === undefined) return undefined
  const hour = toHour(Number(parts['hour']), half)
  const minutes = Number(minute ?? 0)
  const seconds = Number(`${parts['second'] ?? 0}.${parts['fraction'] ?? 0}`)
  const sinceMidnightMs = Math.floor((hour * 60 + minutes) * minuteMs + seconds * 1000)
  if (Number.isNaN(hour) || minutes > 59 || seconds >= 61 || sinceMidnightMs > dayMs) return undefined
  const offsetMinutes = zoneOffset(zone)
  return offsetMinutes === undefined ? { sinceMidnightMs } : { sinceMidnightMs, offsetMinutes }
}

function toHour(hour: number, half: string | undefined): number {
  if (half === undefined) return hour > 24 ? Number.NaN : hour
  if (hour > 12) return Number.NaN
  return (hour % 12) + (half.toLowerCase().startsWith('p') ? 12 : 0)
}

function zoneOffset(zone: string | undefined): number | undefined {
  const numeric = /(?<sign>[+-])(?<hours>\d{1,2}):?(?<minutes>\d{2})?$/.exec(zone ?? '')?.groups
  if (!numeric) {
    const hours = zoneHours.get((zone ?? '').toUpperCase())
    return hours === undefined ? undefined : hours * 60
  }
  const size = Number(numeric['hours']) * 60 + Number(numeric['minutes'] ?? 0)
  return numeric['sign'] === '-' ? -size : size
}

/** The time on the current date (of its own zone), as epoch milliseconds. */
function onDateOf(now: Date, time: ClockTime): number {
  if (time.offsetMinutes === undefined) {
    // As milliseconds of the local date, which is right on days with a change of the clocks too.
    return new Date(now.getFullYear(), now.getMonth(), now.getDate(), 0, 0, 0, time.sinceMidnightMs).getTime()
  }
  const shifted = now.getTime() + time.offsetMinutes * minuteMs
  return shifted - (((shifted % dayMs) + dayMs) % dayMs) - time.offsetMinutes * minuteMs + time.sinceMidnightMs
}

function startOfDay(now: Date, daysLater: number): number {
  return new Date(now.getFullYear(), now.getMonth(), now.getDate() + daysLater).getTime()
}

/**
 * Whether now lies between two clock times of the current date, both inclusive. When the end is before the begin the
 * window goes over midnight: before the end it runs from the start of today, else to the end of today (Sensu 1.9).
 * False when either is no clock time.
 */
export function isInTimeWindow(begin: Json | undefined, end: Json | undefined, now: Date): boolean {
  const from = parseClockTime(begin)
  const to = parseClockTime(end)
  if (from === undefined || to === undefined) return false
  const at = now.getTime()
  let beginMs = onDateOf(now, from)
  let endMs = onDateOf(now, to)
  if (endMs < beginMs) {
    if (at < endMs) beginMs = startOfDay(now, 0)
    else endMs = startOfDay(now, 1) - 1
  }
  return at >= beginMs && at <= endMs
}

/**
 * Whether now lies in any window of `{days: {all: [{begin, end}], monday: […]}}`: those of `all` and of today's local
 * weekday. A window without both ends, and anything malformed, never matches.
 */
export function isInTimeWindows(windows: Json | undefined, now: Date): boolean {
  const days = isObject(windows) ? member(windows, 'days') : undefined
  if (!isObject(days)) return false
  return ['all', daysOfWeek[now.getDay()] ?? ''].some(day => {
    const conditions = member(days, day)
    if (!Array.isArray(conditions)) return false
    return conditions.some(
      window => isObject(window) && isInTimeWindow(member(window, 'begin'), member(window, 'end'), now),
    )
  })
}

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

/** A clock time: milliseconds since midnight and, if it named one, the zone's offset from UTC and the day (month from 1). */
export type ClockTime = { sinceMidnightMs: number; offsetMinutes?: number; date?: CalendarDate }

type CalendarDate = { year: number; month: number; day: number }

const dateSyntax =
  /^(?<year>\d{4})(?<separator>[-/])(?<month>\d{1,2})\k<separator>(?<day>\d{1,2})(?:(?:T|\s+)(?=\d)|$)/i
const clockSyntax =
  /^(?<hour>\d{1,2})(?::(?<minute>\d{1,2})(?::(?<second>\d{1,2})(?:[.,](?<fraction>\d{1,9}))?)?)?\s*(?<half>[ap]\.?m\.?)?\s*(?<zone>[a-z]{1,5}|(?:utc|gmt)?[+-]\d{1,2}(?::?\d{2})?)?$/i

/**
 * Reads a clock time as people write it in Sensu 1.9's time windows: `9AM`, `11:30:00 PM`, `17:00`, `5PM PST`,
 * `17:00 +0100`, `24:00`; with the day before it as in `2026-12-24 17:00`, or that alone,
 * for its first moment. Undefined when it is none.
 */
export function parseClockTime(text: Json | undefined): ClockTime | undefined {
  if (typeof text !== 'string') return undefined
  const dated = dateSyntax.exec(text.trim())
  const date = dated === null ? undefined : calendarDate(dated.groups ?? {})
  const clock = text.trim().slice(dated?.[0].length ?? 0)
  const parts = clockSyntax.exec(clock === '' && dated ? '00:00' : clock)?.groups
  if (!parts || (dated !== null && date === undefined)) return undefined
  const { minute, half, zone } = parts
  // A lone number is a day of the month, not an hour.
  if (minute === undefined && half === undefined) return undefined
  const hour = toHour(Number(parts['hour']), half)
  const minutes = Number(minute ?? 0)
  const seconds = Number(`${parts['second'] ?? 0}.${parts['fraction'] ?? 0}`)
  const sinceMidnightMs = Math.floor((hour * 60 + minutes) * minuteMs + seconds * 1000)
  if (Number.isNaN(hour) || minutes > 59 || seconds >= 61 || sinceMidnightMs > dayMs) return undefined
  const offsetMinutes = zoneOffset(zone)
  return { sinceMidnightMs, ...(offsetMinutes !== undefined && { offsetMinutes }), ...(date !== undefined && { date }) }
}

/** Undefined for a day that does not exist. */
function calendarDate(parts: Record<string, string | undefined>): CalendarDate | undefined {
  const [year = 0, month = 0, day = 0] = [parts['year'], parts['month'], parts['day']].map(Number)
  const exists = new Date(Date.UTC(year, month - 1, day)).getUTCMonth() === month - 1 && day > 0
  return exists ? { year, month, day } : undefined
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

/** The time on its own date, or on the current one (of its own zone), as epoch milliseconds. */
function onDateOf(now: Date, time: ClockTime): number {
  const { date } = time
  if (time.offsetMinutes === undefined) {
    // As milliseconds of the local date, which is right on days with a change of the clocks too.
    const [year, month, day] = date
      ? [date.year, date.month - 1, date.day]
      : [now.getFullYear(), now.getMonth(), now.getDate()]
    return new Date(year, month, day, 0, 0, 0, time.sinceMidnightMs).getTime()
  }
  if (date) return Date.UTC(date.year, date.month - 1, date.day) - time.offsetMinutes * minuteMs + time.sinceMidnightMs
  return startOfDay(now.getTime(), time) + time.sinceMidnightMs
}

/** When the day began that it is at a moment, in the zone of a clock time. */
function startOfDay(atMs: number, { offsetMinutes }: ClockTime, daysLater = 0): number {
  if (offsetMinutes !== undefined) {
    const shifted = atMs + offsetMinutes * minuteMs
    return (Math.floor(shifted / dayMs) + daysLater) * dayMs - offsetMinutes * minuteMs
  }
  const at = new Date(atMs)
  return new Date(at.getFullYear(), at.getMonth(), at.getDate() + daysLater).getTime()
}

/**
 * Whether now lies between two clock times, of the current date unless they name another, both inclusive. When the end is before the begin the
 * window goes over midnight: before the end it runs from the start of the begin's day, else to the end of the
 * end's, each in its own zone (Sensu 1.9).
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
    if (at < endMs) beginMs = startOfDay(beginMs, from)
    else endMs = startOfDay(endMs, to, 1) - 1
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

import { Cron as Schedule } from 'croner'

/** A parsed cron line that has a next run at some time. */
export type Cron = { readonly text: string; readonly schedule: Schedule }

const aliases: ReadonlyMap<string, string> = new Map([
  ['@yearly', '0 0 1 1 *'],
  ['@annually', '0 0 1 1 *'],
  ['@monthly', '0 0 1 * *'],
  ['@weekly', '0 0 * * 0'],
  ['@daily', '0 0 * * *'],
  ['@midnight', '0 0 * * *'],
  ['@hourly', '0 * * * *'],
])

type Field = { lowest: number; highest: number; names?: readonly string[] }

const weekDays = ['sun', 'mon', 'tue', 'wed', 'thu', 'fri', 'sat']
const months = ['jan', 'feb', 'mar', 'apr', 'may', 'jun', 'jul', 'aug', 'sep', 'oct', 'nov', 'dec']
const fields: readonly Field[] = [
  { lowest: 0, highest: 59 },
  { lowest: 0, highest: 23 },
  { lowest: 1, highest: 31 },
  { lowest: 1, highest: 12, names: months },
  { lowest: 0, highest: 7, names: weekDays },
]

/**
 * Parses a cron line in the dialect of Sensu 1.9: minute, hour, day of month, month, day of week (a sixth field is
 * ignored), or an alias; elements `*`, `*` + `/n`, `a`, `a-b`, `a-b/n` and names of months and days. When both day fields
 * are restricted a day matching either counts. Undefined for anything else, for values out of range, and for a line that
 * never comes true (31 February).
 */
export function parseCron(text: string): Cron | undefined {
  const line = aliases.get(text.trim()) ?? text.trim().toLowerCase()
  const words = line.split(/\s+/)
  if (words.length < 5 || words.length > 6) return undefined
  const parts: string[] = []
  for (const [index, field] of fields.entries()) {
    const part = translate(words[index] ?? '', field)
    if (part === undefined) return undefined
    parts.push(part)
  }
  // Croner's own dialect is wider; only plain numbers, ranges and steps are handed over.
  const schedule = new Schedule(parts.join(' '), { paused: true, domAndDow: false })
  return schedule.nextRun() === null ? undefined : { text, schedule }
}

/** The first matching minute after the minute of `from`, in the process's time zone. */
export function nextRun(cron: Cron, from: Date): Date {
  const next = cron.schedule.nextRun(from)
  if (next === null) throw new RangeError(`the cron line ${cron.text} has no run after ${from.toISOString()}`)
  return next
}

/** One field with names as numbers; undefined when it is not in the dialect. */
function translate(text: string, field: Field): string | undefined {
  // A comma at the end is accepted by the reference.
  const elements = text.replace(/,+$/, '').split(',')
  const translated = elements.map(element => translateElement(element, field))
  return translated.some(element => element === undefined) ? undefined : translated.join(',')
}

const elementSyntax = /^(?:\*|(?<first>\w+)(?:-(?<last>\w+))?)(?:\/(?<step>\d{1,4}))?$/

function translateElement(element: string, field: Field): string | undefined {
  if (element === '*') return element
  const { first, last, step } = elementSyntax.exec(element)?.groups ?? {}
  const isWildcard = element.startsWith('*')
  const from = isWildcard ? field.lowest : toValue(first, field)
  const to = isWildcard ? field.highest : toValue(last ?? first, field)
  if (from === undefined || to === undefined || from > to) return undefined
  if (step === undefined) return isWildcard ? undefined : `${from}-${to}`
  if (Number(step) === 0 || (!isWildcard && last === undefined)) return undefined
  return Number(step) > to - from ? String(from) : `${from}-${to}/${Number(step)}`
}

function toValue(text: string | undefined, field: Field): number | undefined {
  if (text === undefined) return undefined
  const named = field.names?.indexOf(text) ?? -1
  // Both lists of names start with the field's lowest value.
  const value = named >= 0 ? named + field.lowest : /^\d{1,2}$/.test(text) ? Number(text) : -1
  return value >= field.lowest && value <= field.highest ? value : undefined
}

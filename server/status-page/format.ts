import type { Silence, Status } from './shapes.js'

/** Names of statuses as checks print them. */
export const statusNames: Record<Status, string> = { 0: 'OK', 1: 'WARNING', 2: 'CRITICAL', 3: 'UNKNOWN' }

/** Classes of the style sheet. */
export const statusClasses: Record<Status, string> = { 0: 'ok', 1: 'warning', 2: 'critical', 3: 'unknown' }

const units: readonly [seconds: number, name: string][] = [
  [86_400, 'd'],
  [3600, 'h'],
  [60, 'min'],
  [1, 's'],
]

/** A duration by its largest unit, from hours on with the next one: `3 h 20 min`, `2 d`, `59 s`. */
export function duration(seconds: number): string {
  const whole = Math.max(0, Math.round(seconds))
  const at = Math.max(
    0,
    units.findIndex(([size]) => whole >= size || size === 1),
  )
  const [[size, name] = [1, 's'], [nextSize, nextName] = [1, 's']] = units.slice(at)
  const first = `${Math.floor(whole / size)} ${name}`
  const rest = Math.floor((whole % size) / nextSize)
  return size <= 60 || rest === 0 ? first : `${first} ${rest} ${nextName}`
}

export function nowSeconds(): number {
  return Math.floor(Date.now() / 1000)
}

/** A time (Unix seconds) in the words of the reader's place. */
export function timeText(seconds: number): string {
  return new Date(seconds * 1000).toLocaleString()
}

export function clockText(milliseconds: number): string {
  return new Date(milliseconds).toLocaleTimeString()
}

/** `1 client`, `2 clients`. */
export function counted(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? '' : 's'}`
}

/** The first line of an output that says something. */
export function firstLine(output: string): string {
  return (
    output
      .split('\n', 50)
      .find(line => line.trim() !== '')
      ?.slice(0, 500) ?? '(no output)'
  )
}

/** What a silence is about, in words. */
export function silencedThing(id: string): string {
  const colon = id.lastIndexOf(':')
  const [subscription, check] = [id.slice(0, colon), id.slice(colon + 1)]
  const where = subscription.startsWith('client:')
    ? subscription.slice('client:'.length)
    : `subscription ${subscription}`
  if (subscription === '*') return `${check} everywhere`
  return check === '*' ? `everything on ${where}` : `${check} on ${where}`
}

/** Until when, why and by whom. `now`: Unix seconds. */
export function silenceTerms({ begin, expiresIn, untilResolved, reason, creator }: Silence, now: number): string {
  const ends = [
    ...(expiresIn === undefined ? [] : [`${duration(expiresIn)} left`]),
    ...(untilResolved ? ['until it is resolved'] : []),
  ]
  return [
    ...(begin !== undefined && begin > now ? [`begins in ${duration(begin - now)}`] : []),
    ends.length > 0 ? ends.join(' or ') : 'without end',
    ...(reason === '' ? [] : [`“${reason}”`]),
    ...(creator === '' ? [] : [`by ${creator}`]),
  ].join(' · ')
}

/** Where the page shows a client: the part of its address behind `#`, which links from elsewhere may name as well. */
export function clientAddress(client: string): string {
  return `#client=${encodeURIComponent(client)}`
}

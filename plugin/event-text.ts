import type { SensuEvent } from './event.js'
import { cut, formatQuantity, printable, printableLines } from './text.js'

/** `--per-guest` and most plugins begin with their own name and the state, which the headline says already. */
const prefix = /^[\w.-]+ (?:OK|WARNING|CRITICAL|UNKNOWN)(?::| -) */
const longestHeadline = 250
const statusWords: Readonly<Record<string, string>> = { '0': 'OK', '1': 'WARNING', '2': 'CRITICAL' }

/** `CRITICAL`, `RESOLVED`, `FLAPPING (CRITICAL)`: what is to be known first. */
export function stateWord({ action, status }: SensuEvent): string {
  if (action === 'resolve') return 'RESOLVED'
  return action === 'flapping' ? `FLAPPING (${status})` : status
}

/** Who it is about: `web1 on kvm-host`, or `kvm-host`. */
export function subjectText({ client, origin }: SensuEvent): string {
  return origin === undefined ? client : `${client} on ${origin}`
}

/** The one line to read on a telephone: `CRITICAL: web1 on kvm-host: memory_check: memory in use 95 % (critical above 90 %)`. One line, bounded, printable. */
export function headline(event: SensuEvent): string {
  const line = firstLine(event)
  return cut(
    `${stateWord(event)}: ${subjectText(event)}: ${event.check}${line === '' ? '' : `: ${line}`}`,
    longestHeadline,
  )
}

/** The first line that the check printed, without its name, state and performance data, and without the client's name, which stands before it anyway. */
export function firstLine({ output, client }: SensuEvent): string {
  const [line = ''] = output.trimStart().slice(0, 10_000).split('\n', 1)
  const [words = ''] = line.split('|', 1)
  const text = printable(words, longestHeadline).replace(prefix, '')
  return text.startsWith(`${client}: `) ? text.slice(client.length + 2) : text
}

/** What the check printed, for people: printable, without performance data on lines of their own, at most `length` characters. */
export function outputText({ output }: SensuEvent, length = 4000): string {
  // Cut before anything looks at it: outputs may have megabytes.
  const lines = printableLines(output.slice(0, 4 * length)).split('\n')
  const words = lines.filter(line => !line.startsWith('| ')).map(line => line.replace(/ *\|.*$/, '').trimEnd())
  return cut(words.join('\n').trim(), length)
}

/** What there is to know of an event besides the headline, in the order to read it; values are one printable line each. */
export function factsOf(event: SensuEvent, dashboardUrl: string | undefined): [label: string, value: string][] {
  const { client, origin, isGuest, check, lastOk, history, silencedBy, silenced } = event
  const link = dashboardLink(event, dashboardUrl)
  const facts: [string, string | undefined][] = [
    [isGuest ? 'Guest' : 'Client', client],
    [isGuest ? 'Host' : 'Checked by', origin],
    ['Check', check],
    ['State', stateText(event)],
    ['Last OK', lastOk === undefined || event.status === 'OK' ? undefined : timeText(lastOk)],
    ['History', history.length < 2 ? undefined : historyText(history)],
    ['Silenced by', silenced ? printable(silencedBy.join(', '), 200) || 'yes' : undefined],
    ['Dashboard', link],
  ]
  return facts.filter((fact): fact is [string, string] => fact[1] !== undefined)
}

/** `CRITICAL since 2026-01-05 10:00:00 UTC (12 min), 5 times in a row`; of a resolution, what it was before and how long. */
export function stateText(event: SensuEvent): string {
  const { action, status, occurrences, lastStateChange, timestamp } = event
  const since = lastStateChange === undefined ? '' : ` since ${timeText(lastStateChange)}`
  const seconds = (timestamp ?? 0) - (lastStateChange ?? timestamp ?? 0)
  const lasting = seconds > 0 && lastStateChange !== undefined ? ` (${durationText(seconds)})` : ''
  if (action === 'resolve') return `${status}${since}, was ${worstBefore(event) ?? 'not OK'}`
  const times = occurrences > 1 ? `, ${occurrences} times in a row` : ''
  return `${status}${since}${lasting}${times}${action === 'flapping' ? ', changing too often' : ''}`
}

/** The state before an event that resolves, by the history. */
export function worstBefore({ history }: SensuEvent): string | undefined {
  const before = history.slice(0, -1).findLast(status => status !== '0')
  return before === undefined ? undefined : wordOf(before)
}

function wordOf(status: string): string {
  return statusWords[status] ?? 'UNKNOWN'
}

/** `OK ×5, WARNING, CRITICAL ×2`, oldest first. */
export function historyText(history: readonly string[]): string {
  const runs: { word: string; count: number }[] = []
  for (const word of history.map(wordOf)) {
    const last = runs.at(-1)
    if (last?.word === word) last.count++
    else runs.push({ word, count: 1 })
  }
  return runs.map(({ word, count }) => (count === 1 ? word : `${word} ×${count}`)).join(', ')
}

/** A time as people in any time zone read it: `2026-01-05 10:00:00 UTC`. */
export function timeText(seconds: number): string {
  return `${new Date(seconds * 1000).toISOString().slice(0, 19).replace('T', ' ')} UTC`
}

/** `45 s`, `12 min`, `3.5 h`, `2 d`. */
export function durationText(seconds: number): string {
  const minutes = Math.round(seconds / 60)
  return seconds >= 120 && seconds < 7200 ? `${minutes} min` : formatQuantity(seconds, 's')
}

/** The event's page in the dashboard: the template with tokens replaced by URL-encoded values; undefined without one. */
export function dashboardLink(event: SensuEvent, template: string | undefined): string | undefined {
  return template === undefined ? undefined : fillTokens(template, event, urlEncoded)
}

/** Halves of surrogate pairs, which no URL can hold, become U+FFFD. */
function urlEncoded(value: string): string {
  return encodeURIComponent(Buffer.from(value).toString())
}

const token = /:::([\w.-]{1,200})(?:\|([^:]{0,200}))?:::/g

/**
 * Replaces tokens such as `:::check.name:::` or `:::client.environment|none:::` by what is there in the event, or by the default, or by nothing. What
 * is no text is written as JSON. `encode` makes a value fit for its place.
 */
export function fillTokens(template: string, event: SensuEvent, encode: (value: string) => string): string {
  return template.replace(token, (_, path: string, instead = '') => {
    const value = valueAt(event.raw, path) ?? instead
    return encode(typeof value === 'string' ? value : JSON.stringify(value))
  })
}

/** A template with something for each token: its default, or the value that is given. For judging what can come of it. */
export function sampleOf(template: string, value: string): string {
  return template.replace(token, (_, _path: string, instead = '') => instead || value)
}

/** What is at a dotted path in a JSON document; undefined for nothing, and for null. */
export function valueAt(document: unknown, path: string): unknown {
  let value = document
  for (const name of path.split('.')) {
    value =
      typeof value === 'object' && value !== null && Object.hasOwn(value, name) ? Reflect.get(value, name) : undefined
  }
  return value ?? undefined
}

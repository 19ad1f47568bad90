import { createHash } from 'node:crypto'

/** Characters that could move the cursor, hide text or break a line: controls, format characters (bidi, zero width), separators, halves of pairs. */
const unprintable = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}]/gu
const whitespace = /[\s\p{Zl}\p{Zp}]+/gu

/** Cuts a text to at most `length` characters (UTF-16 units), ending in `...` when something was cut, never inside a surrogate pair. */
export function cut(text: string, length: number): string {
  return text.length <= length ? text : `${text.slice(0, length - 3).replace(/[\uD800-\uDBFF]$/, '')}...`
}

/**
 * One line of foreign text made safe for a terminal and for the Nagios format: blanks and line breaks become one blank,
 * control and invisible characters `?`, and `|`, which would start performance data, `/`.
 */
export function printable(text: string, length = 1000): string {
  // Cut first as well: a name of megabytes must not cost a pass of a regular expression over all of it.
  const short = text.length > 2 * length ? text.slice(0, 2 * length) : text
  const clean = short.replace(whitespace, ' ').replace(unprintable, '?').replaceAll('|', '/').trim()
  return cut(clean, length)
}

/** Longer texts of several lines are cut. */
const longestText = 1_000_000

/** Foreign text of any number of lines made safe for a terminal: control and invisible characters but line feeds and tabs become `?`. */
export function printableLines(text: string): string {
  return cut(text, longestText).replace(unprintable, character => (/[\n\t]/.test(character) ? character : '?'))
}

/** JSON text whose invisible characters are written as escapes, so that it is as harmless to a terminal as it is to a parser. */
export function printableJson(value: unknown): string {
  const escaped = (unit: string) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`
  return JSON.stringify(value).replace(unprintable, character => character.split('').map(escaped).join(''))
}

/** The characters a segment may keep: Sensu's names allow dots, a Graphite path must not contain them. */
type Alphabet = 'name' | 'path'
const kept: Readonly<Record<Alphabet, RegExp>> = { name: /[A-Za-z0-9.-]/, path: /[A-Za-z0-9-]/ }
/** Names that stand for themselves, as nearly all do. */
const harmless: Readonly<Record<Alphabet, RegExp>> = {
  name: /^(?!.*_x[0-9A-F]{2})[\w.-]{1,128}$/,
  path: /^(?!.*_x[0-9A-F]{2})[\w-]{1,128}$/,
}
const longestSafeName = 128

/**
 * A foreign name in Sensu's allowed characters, `[\w.-]`, without collisions. Letters, digits, `.`, `-` and `_` stand for themselves;
 * every other byte of the UTF-8 form becomes `_x` and two upper-case hexadecimal digits (`my vm` is `my_x20vm`); a literal `_` in
 * front of what looks like that becomes `_x5F`, so the mapping can be undone and two names never meet. A result
 * longer than 128 characters is cut to 96, followed by `-` and 32 digits of the SHA-256 of the name: 129 characters, a length nothing else has.
 */
export function safeName(name: string, alphabet: Alphabet = 'name'): string {
  if (harmless[alphabet].test(name)) return name
  if (name === '') return '_x5F' // Nothing else maps to this: a literal `_` alone stays `_`.
  const head = name.length > longestSafeName ? name.slice(0, longestSafeName) : name
  const encoded = head.replace(/_(?=x[0-9A-F]{2})|[^_]/gsu, character => escapeCharacter(character, kept[alphabet]))
  if (head === name && encoded.length <= longestSafeName) return encoded
  return `${encoded.slice(0, 96)}-${createHash('sha256').update(name).digest('hex').slice(0, 32)}`
}

function escapeCharacter(character: string, allowed: RegExp): string {
  if (character.length === 1 && allowed.test(character)) return character
  return [...Buffer.from(character)].map(byte => `_x${byte.toString(16).toUpperCase().padStart(2, '0')}`).join('')
}

/** A foreign name as a metric's label value: itself when it is harmless and of reasonable length, otherwise its {@link safeName}. */
export function labelValue(name: string): string {
  return name !== '' && name.length <= longestSafeName && printable(name) === name && !name.includes('\\')
    ? name
    : safeName(name)
}

/**
 * A number in the C locale, never in scientific notation: six decimals, twelve for numbers below a thousandth, without trailing zeros.
 * What is not finite gives undefined.
 */
export function formatNumber(value: number | bigint | undefined): string | undefined {
  if (typeof value === 'bigint') return value.toString()
  if (value === undefined || !Number.isFinite(value)) return undefined
  if (Number.isSafeInteger(value)) return String(value)
  if (Number.isInteger(value)) return BigInt(value).toString()
  return withoutZeros(value.toFixed(Math.abs(value) < 0.001 ? 12 : 6))
}

/** A number with decimals without the zeros at its end. By hand: a thousand guests have a hundred thousand numbers. */
function withoutZeros(text: string): string {
  let end = text.length
  while (text[end - 1] === '0') end -= 1
  if (text[end - 1] === '.') end -= 1
  const short = text.slice(0, end)
  return short === '-0' ? '0' : short
}

const binaryPrefixes = ['', 'Ki', 'Mi', 'Gi', 'Ti', 'Pi', 'Ei']
const secondScales = [
  { from: 86_400, divisor: 86_400, unit: 'd' },
  { from: 3600, divisor: 3600, unit: 'h' },
  { from: 1, divisor: 1, unit: 's' },
  { from: 0.001, divisor: 0.001, unit: 'ms' },
  { from: 0, divisor: 0.000001, unit: 'us' },
]

/** A number for people: `1.5 GiB`, `20 ms`, `93.1 %`, `12`. At most two decimals; undefined is `unknown`. */
export function formatQuantity(value: number | bigint | undefined, unit: string = ''): string {
  if (value === undefined || (typeof value === 'number' && !Number.isFinite(value))) return 'unknown'
  const number = Number(value)
  if (unit === 'B') return formatBytes(number)
  if (unit === 's') return formatSeconds(number)
  return join(rounded(number), unit === 'c' ? '' : unit)
}

function formatBytes(bytes: number): string {
  const exponent = Math.min(binaryPrefixes.length - 1, Math.max(0, Math.floor(Math.log2(Math.abs(bytes) || 1) / 10)))
  return join(rounded(bytes / 1024 ** exponent), `${binaryPrefixes[exponent]}B`)
}

function formatSeconds(seconds: number): string {
  const size = Math.abs(seconds)
  const scale = size === 0 ? undefined : secondScales.find(({ from }) => size >= from)
  return scale === undefined ? '0 s' : join(rounded(seconds / scale.divisor), scale.unit)
}

function rounded(value: number): string {
  const hundredths = Math.round(value * 100) / 100
  // With two decimals JavaScript's own text is the shortest, and never in scientific notation.
  return Number.isInteger(hundredths) ? (formatNumber(hundredths) ?? 'unknown') : String(hundredths)
}

function join(number: string, unit: string): string {
  return unit === '' ? number : `${number} ${unit}`
}

import { entriesOf, isObject } from './json-value.js'
import type { Json } from './types.js'

/**
 * A value as plain text, as Sensu 1.9 puts it into commands and names: strings as they are, numbers and booleans in
 * their notation, null as nothing, arrays and hashes in the notation of `inspectText`.
 */
export function plainText(value: Json | undefined): string {
  if (value === null || value === undefined) return ''
  return typeof value === 'string' || Buffer.isBuffer(value) ? value.toString() : inspectText(value)
}

/** Ruby's notation of a value, visible in Sensu's outputs: `["x", 5, nil]`, `{:key=>1.0}`. */
export function inspectText(value: Json): string {
  if (value === null) return 'nil'
  if (typeof value === 'string' || Buffer.isBuffer(value)) return inspectString(value.toString())
  if (Array.isArray(value)) return `[${value.map(inspectText).join(', ')}]`
  if (!isObject(value)) return String(value)
  const members = entriesOf(value).map(([key, item]) => `:${inspectKey(key)}=>${inspectText(item)}`)
  return `{${members.join(', ')}}`
}

function inspectKey(key: string): string {
  return /^[A-Za-z_]\w*[?!]?$/.test(key) ? key : inspectString(key)
}

const shortEscapes: ReadonlyMap<string, string> = new Map([
  ['"', '\\"'],
  ['\\', '\\\\'],
  ['\n', '\\n'],
  ['\t', '\\t'],
  ['\r', '\\r'],
  ['\f', '\\f'],
  ['\v', '\\v'],
  ['\b', '\\b'],
  ['\x07', '\\a'],
  ['\x1b', '\\e'],
])

function inspectString(text: string): string {
  // `#` only where it would start an interpolation.
  const escaped = text.replace(/["\\\p{Cc}]|#(?=[{$@])/gu, character => {
    if (character === '#') return '\\#'
    const code = character.charCodeAt(0)
    const long = code === 0x7f ? '\\x7F' : `\\u${code.toString(16).toUpperCase().padStart(4, '0')}`
    return shortEscapes.get(character) ?? long
  })
  return `"${escaped}"`
}

import { isUtf8 } from 'node:buffer'
import { entriesOf, Float, formatFloat, fromEntries } from './json-value.js'
import type { Json } from './types.js'

/** The text is not JSON in Sensu's dialect. The message says what was found and at which line and column. */
export class JsonSyntaxError extends Error {
  override readonly name = 'JsonSyntaxError'
}

/** Bounds of what is parsed: levels of nesting, and characters (bytes for a Buffer). */
export type JsonBounds = { maxDepth?: number; maxLength?: number }

const defaultMaxDepth = 512
const defaultMaxLength = 64 * 1024 * 1024
const maxIntegerDigits = 1000

/**
 * Parses one document in the dialect of Sensu 1.9: comments are allowed before and inside the document, nothing but
 * blanks after it; raw line ends and tabs are allowed in strings; of duplicate keys the last value counts, at the first
 * place. NaN, infinities and numbers too large for a float are refused. Integers of any size are kept, floats stay
 * floats (see `Json`). Of a Buffer that is not UTF-8, every string that is not becomes a Buffer leaf.
 * Throws a JsonSyntaxError.
 */
export function parseJson(text: string | Buffer, bounds: JsonBounds = {}): Json {
  const maxLength = bounds.maxLength ?? defaultMaxLength
  if (text.length > maxLength) throw new JsonSyntaxError(`the document is larger than ${maxLength} bytes`)
  const maxDepth = bounds.maxDepth ?? defaultMaxDepth
  if (typeof text === 'string') return new Parser(text, false, maxDepth).document()
  const bytes = !isUtf8(text)
  return new Parser(text.toString(bytes ? 'latin1' : 'utf8'), bytes, maxDepth).document()
}

/** Compact JSON as text. A Buffer leaf is decoded, bytes that are not UTF-8 become U+FFFD (see `encodeJson`). */
export function stringifyJson(value: Json): string {
  return print(value, undefined, bytes => JSON.stringify(bytes.toString()))
}

/** Compact JSON as bytes for the wire. The bytes of a Buffer leaf go out unchanged, as Sensu 1.9 sends them. */
export function encodeJson(value: Json): Buffer {
  const leaves: Buffer[] = []
  // A NUL never occurs in printed JSON, it marks the place of a leaf.
  const text = print(value, undefined, bytes => {
    leaves.push(bytes)
    return '\0'
  })
  if (leaves.length === 0) return Buffer.from(text)
  const parts = text.split('\0').flatMap((part, index) => {
    const leaf = leaves[index]
    return leaf ? [Buffer.from(part), encodeBytes(leaf)] : [Buffer.from(part)]
  })
  return Buffer.concat(parts)
}

/** JSON for people, as Sensu 1.9 prints it: two blanks indent, no blank after the colon, one array item a line. */
export function prettyJson(value: Json): string {
  return print(value, '\n', bytes => JSON.stringify(bytes.toString()))
}

function encodeBytes(bytes: Buffer): Buffer {
  return Buffer.from(JSON.stringify(bytes.toString('latin1')), 'latin1')
}

/** `lineEnd` is undefined for compact output, else the line feed with the current indent. */
function print(value: Json, lineEnd: string | undefined, printBytes: (bytes: Buffer) => string): string {
  if (typeof value === 'string') return JSON.stringify(value)
  if (typeof value === 'number') return Number.isSafeInteger(value) ? String(value || 0) : formatFloat(value)
  if (value === null || typeof value === 'boolean' || typeof value === 'bigint') return String(value)
  if (value instanceof Float) return formatFloat(value.value)
  if (Buffer.isBuffer(value)) return printBytes(value)
  const inner = lineEnd === undefined ? undefined : `${lineEnd}  `
  const isList = Array.isArray(value)
  const items = isList
    ? value.map(item => print(item ?? null, inner, printBytes))
    : entriesOf(value).map(([key, item]) => `${JSON.stringify(key)}:${print(item, inner, printBytes)}`)
  const [open, close] = isList ? ['[', ']'] : ['{', '}']
  if (items.length === 0) return open + close
  return open + (inner ?? '') + items.join(`,${inner ?? ''}`) + (lineEnd ?? '') + close
}

const escapes: ReadonlyMap<string, string> = new Map([
  ['"', '"'],
  ['\\', '\\'],
  ['/', '/'],
  ['b', '\b'],
  ['f', '\f'],
  ['n', '\n'],
  ['r', '\r'],
  ['t', '\t'],
])

const fourHexDigits = /^[0-9a-fA-F]{4}$/

/** A recursive descent over the text; in `bytes` mode every character of the text is one byte of the document. */
class Parser {
  readonly #text: string
  readonly #bytes: boolean
  readonly #maxDepth: number
  // Own regular expressions, as `lastIndex` is state.
  readonly #blanks = /[ \t\r\n]*/y
  readonly #plain = /[^"\\\0]*/y
  readonly #number = /-?(?:0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?/y
  #at = 0
  #depth = 0

  constructor(text: string, bytes: boolean, maxDepth: number) {
    this.#text = text
    this.#bytes = bytes
    this.#maxDepth = maxDepth
  }

  document(): Json {
    const value = this.#value()
    this.#match(this.#blanks)
    if (this.#at < this.#text.length) throw this.#error('unexpected characters after the JSON document')
    return value
  }

  #value(): Json {
    this.#skip()
    switch (this.#text[this.#at]) {
      case '{':
        return this.#nested(() => this.#object())
      case '[':
        return this.#nested(() => this.#array())
      case '"':
        return this.#string()
      case 't':
        return this.#word('true', true)
      case 'f':
        return this.#word('false', false)
      case 'n':
        return this.#word('null', null)
      default:
        return this.#numeral()
    }
  }

  #nested(parse: () => Json): Json {
    if (++this.#depth > this.#maxDepth) throw this.#error(`nested deeper than ${this.#maxDepth} levels`)
    this.#at++
    const value = parse()
    this.#depth--
    return value
  }

  #object(): Json {
    const entries: [string, Json][] = []
    for (this.#skip(); !this.#accept('}'); this.#skip()) {
      if (entries.length > 0) this.#expect(',')
      this.#skip()
      if (this.#text[this.#at] !== '"') throw this.#unexpected()
      const key = this.#string()
      this.#skip()
      this.#expect(':')
      entries.push([key.toString(), this.#value()])
    }
    return fromEntries(entries)
  }

  #array(): Json {
    const items: Json[] = []
    for (this.#skip(); !this.#accept(']'); this.#skip()) {
      if (items.length > 0) this.#expect(',')
      items.push(this.#value())
    }
    return items
  }

  #string(): string | Buffer {
    this.#at++
    let value = ''
    for (;;) {
      value += this.#match(this.#plain)?.[0] ?? ''
      if (this.#accept('"')) return this.#bytes ? decode(value) : value
      if (this.#text[this.#at] !== '\\') throw this.#unexpected()
      value += this.#escape()
    }
  }

  #escape(): string {
    if (this.#text[this.#at + 1] === 'u') return this.#unicodeEscapes()
    const character = escapes.get(this.#text[this.#at + 1] ?? '')
    if (character === undefined) throw this.#error('invalid escape in a string')
    this.#at += 2
    return character
  }

  /** A whole run of them, as two may be the halves of one character. */
  #unicodeEscapes(): string {
    let text = ''
    while (this.#text.startsWith('\\u', this.#at)) {
      const digits = this.#text.slice(this.#at + 2, this.#at + 6)
      if (!fourHexDigits.test(digits)) throw this.#error('invalid escape in a string')
      text += String.fromCharCode(Number.parseInt(digits, 16))
      this.#at += 6
    }
    return this.#bytes ? Buffer.from(text).toString('latin1') : text
  }

  #numeral(): Json {
    const match = this.#match(this.#number)
    if (!match?.[0]) throw this.#unexpected()
    const [digits, fraction, exponent] = match
    if (fraction !== undefined || exponent !== undefined) {
      const value = Number(digits)
      if (!Number.isFinite(value)) throw this.#error('number out of range')
      return Number.isInteger(value) ? new Float(value) : value
    }
    if (digits.length > maxIntegerDigits) throw this.#error(`integer of more than ${maxIntegerDigits} digits`)
    const value = Number(digits)
    return Number.isSafeInteger(value) ? value || 0 : BigInt(digits)
  }

  #word(word: string, value: Json): Json {
    if (!this.#text.startsWith(word, this.#at)) throw this.#unexpected()
    this.#at += word.length
    return value
  }

  #skip(): void {
    for (;;) {
      this.#match(this.#blanks)
      if (this.#text[this.#at] !== '/') return
      const block = this.#text[this.#at + 1] === '*'
      if (!block && this.#text[this.#at + 1] !== '/') throw this.#unexpected()
      const end = this.#text.indexOf(block ? '*/' : '\n', this.#at + 2)
      if (end < 0 && block) throw this.#error('comment without an end')
      this.#at = end < 0 ? this.#text.length : end + (block ? 2 : 1)
    }
  }

  #match(pattern: RegExp): RegExpExecArray | null {
    pattern.lastIndex = this.#at
    const match = pattern.exec(this.#text)
    if (match) this.#at = pattern.lastIndex
    return match
  }

  #accept(character: string): boolean {
    if (this.#text[this.#at] !== character) return false
    this.#at++
    return true
  }

  #expect(character: string): void {
    if (!this.#accept(character)) throw this.#unexpected()
  }

  #unexpected(): JsonSyntaxError {
    const character = this.#text[this.#at]
    return this.#error(
      character === undefined ? 'unexpected end of the document' : `unexpected character ${JSON.stringify(character)}`,
    )
  }

  #error(problem: string): JsonSyntaxError {
    const before = this.#text.slice(0, this.#at)
    const lineStart = before.lastIndexOf('\n') + 1
    const line = before.split('\n').length
    return new JsonSyntaxError(`${problem} at line ${line}, column ${this.#at - lineStart + 1}`)
  }
}

/** The bytes (one per character) as text when they are UTF-8, else as they are. */
function decode(latin1: string): string | Buffer {
  const bytes = Buffer.from(latin1, 'latin1')
  return isUtf8(bytes) ? bytes.toString() : bytes
}

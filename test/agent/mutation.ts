/** Random numbers that a seed repeats (mulberry32). */
export class Randomness {
  #state: number

  constructor(seed: number) {
    this.#state = seed | 0
  }

  /** A whole number from 0, below the limit. */
  below(limit: number): number {
    this.#state = (this.#state + 0x6d2b79f5) | 0
    let mixed = Math.imul(this.#state ^ (this.#state >>> 15), 1 | this.#state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return Math.floor((((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32) * limit)
  }

  pick<T>(items: readonly T[]): T {
    const item = items[this.below(items.length)]
    if (item === undefined) throw new Error('nothing to pick from')
    return item
  }
}

/** What parsers stumble over. */
const nasty = [
  ...[
    'null',
    'NaN',
    '-1',
    '1e999',
    '99999999999999999999',
    '0.1',
    'true',
    '""',
    '{}',
    '[]',
    '[[[[',
    '{"',
    '\\u',
    '\\ud800',
    '"\\',
  ],
  ...[
    ':::',
    '|',
    '..',
    '__proto__',
    'constructor',
    '\0',
    '\r\n\r\n',
    '\ufeff',
    '\u2028',
    '/*',
    '%',
    'Content-Length: 9e9\r\n',
  ],
].map(text => Buffer.from(text))

type Change = (bytes: Buffer, at: number, random: Randomness) => Buffer

const changes: readonly Change[] = [
  (bytes, at, random) =>
    Buffer.concat([bytes.subarray(0, at), Buffer.from([random.below(256)]), bytes.subarray(at + 1)]),
  (bytes, at, random) => Buffer.concat([bytes.subarray(0, at), random.pick(nasty), bytes.subarray(at)]),
  (bytes, at, random) =>
    Buffer.concat([bytes.subarray(0, at), random.pick(nasty), bytes.subarray(at + 1 + random.below(12))]),
  (bytes, at, random) => Buffer.concat([bytes.subarray(0, at), bytes.subarray(at + 1 + random.below(8))]),
  (bytes, at, random) => Buffer.concat([bytes.subarray(0, at), bytes.subarray(Math.max(0, at - random.below(40)))]),
  (bytes, at) => bytes.subarray(0, at),
  replaceValue,
]

/** Keeps the document valid and changes the type of one value: what gets past the parser. */
function replaceValue(bytes: Buffer, at: number, random: Randomness): Buffer {
  const text = bytes.toString('latin1')
  const value = random.pick([
    'null',
    '-1',
    '1.5',
    'false',
    '""',
    '{}',
    '[]',
    '[null]',
    '{"a":{}}',
    '"\\u0000"',
    '12345678901234567890',
  ])
  const colon = text.indexOf(':', at)
  if (colon < 0) return bytes
  const rest = text.slice(colon + 1).replace(/^("(?:[^"\\]|\\.)*"|[\w.-]+|\{[^{}]*\}|\[[^[\]]*\])/, () => value)
  return Buffer.from(text.slice(0, colon + 1) + rest, 'latin1')
}

/** The message with one to four changes. A command's letters are never changed into another command: only `:` and `true` are in the seeds. */
export function mutate(message: string, random: Randomness): Buffer {
  let bytes: Buffer = Buffer.from(message)
  for (let left = 1 + random.below(4); left > 0; left--) {
    bytes = random.pick(changes)(bytes, random.below(bytes.length + 1), random)
  }
  return bytes
}

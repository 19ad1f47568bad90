import { kebabCase, type Option, type OptionTable, type RawValue, type RawValues } from './options.js'

/** An option as a command line names it, with the value in the same word if there is one; `option` is undefined for a name that is none. */
interface Named {
  readonly name: string
  readonly option: Option | undefined
  readonly attached: string | undefined
}

/**
 * Reads a command line as Ruby's OptionParser does: a letter's value may follow it at once (`-w80`), letters of switches may be joined, a
 * value may begin with a dash, long names may be cut short, the last of several counts. `_` in a long name is as good as `-`, and a percent
 * sign behind a number is ignored. What is not an option of the table is kept under its own name, for the schema to refuse.
 */
export function readRubyArguments(
  table: OptionTable,
  argv: readonly string[],
): { raw: RawValues; positional: string[] } {
  const raw: Record<string, RawValue> = {}
  const positional: string[] = []
  const words = argv[Symbol.iterator]()
  for (const word of words) {
    if (word === '--') positional.push(...words)
    else if (!/^-./.test(word)) positional.push(word)
    for (const { name, option, attached } of optionsIn(table, word)) {
      const isSwitch = option === undefined || option.type === 'flag'
      raw[name] = isSwitch ? (attached ?? true) : rubyValue(option, attached ?? words.next().value ?? '')
    }
  }
  return { raw, positional }
}

function optionsIn(table: OptionTable, word: string): Named[] {
  if (word === '--' || !/^-./.test(word)) return []
  if (!word.startsWith('--')) return lettersIn(table, word.slice(1))
  const [, given = '', attached] = /^--([^=]*)(?:=(.*))?$/s.exec(word) ?? []
  const name = longName(table, given.replaceAll('_', '-'))
  const option = Object.entries(table).find(([key]) => kebabCase(key) === name)?.[1]
  return [{ name, option, attached }]
}

/** Letters of switches, up to the first letter that takes a value: the rest of the word. */
function lettersIn(table: OptionTable, letters: string): Named[] {
  const found: Named[] = []
  for (const [at, letter] of letters.split('').entries()) {
    const [key, option] = Object.entries(table).find(([, { alias }]) => alias === letter) ?? [letter, undefined]
    const takesValue = option !== undefined && option.type !== 'flag'
    found.push({ name: kebabCase(key), option, attached: takesValue ? letters.slice(at + 1) || undefined : undefined })
    if (takesValue) break
  }
  return found
}

/** The option's whole name when what is given is the beginning of one only. */
function longName(table: OptionTable, given: string): string {
  const names = Object.keys(table).map(kebabCase)
  const candidates = names.filter(name => name.startsWith(given))
  return names.includes(given) || candidates.length !== 1 ? given : (candidates[0] ?? given)
}

function rubyValue(option: Option, text: string): RawValue {
  const numeric = option.type === 'number' || option.type === 'integer'
  return numeric && /^[+-]?(?:\d+\.?\d*|\.\d+)%?$/.test(text) ? Number(text.replace('%', '')) : text
}

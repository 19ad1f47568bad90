import { float } from '../sensu/json-value.js'
import { tokenMark } from '../sensu/tokens.js'
import { ExpressionError, type Pattern, Sym, type Value } from './expression-values.js'

/** A word of an expression. */
export interface Token {
  kind: 'literal' | 'name' | 'operator' | 'end'
  text: string
  /** Position in the text, from 0. */
  at: number
  value: Value
}

// Sticky: `tokenize` says where each of them is tried.
const operators = /<=>|===|==|!=|=~|!~|<=|>=|&&|\|\||\.\.\.|\.\.|&\.|[-+*/%<>!?:.,()[\]{}|&]/y
const blanks = /[\s]+/y
const numbers = /\d[\d_]*(?:\.\d[\d_]*)?(?:[eE][+-]?\d+)?/y
const names = /[A-Za-z_]\w*[?]?/y
const symbols = /:(?:([A-Za-z_]\w*[?]?)|"([^"\\#]*)")/y
const singleQuoted = /'((?:[^'\\]|\\[\s\S])*)'/y
const doubleQuoted = /"((?:[^"\\]|\\[\s\S])*)"/y
const words = /%w(?:\[([^\]]*)\]|\(([^)]*)\))/y
const marks = new RegExp(tokenMark.source, 'y')
const regularExpressions = /\/((?:[^/\\]|\\[\s\S])*)\/([imxo]*)/y

/** Splits an expression into words. `values` are those of Sensu's tokens, whose marks the text has; whatever they are, they end no literal and call nothing. */
export function tokenize(text: string, values: readonly string[] = []): Token[] {
  const tokens: Token[] = []
  let at = 0
  const take = (pattern: RegExp): RegExpExecArray | null => {
    pattern.lastIndex = at
    return pattern.exec(text)
  }
  while (at < text.length) {
    const blank = take(blanks)
    if (blank) {
      at += blank[0].length
      continue
    }
    const mark = take(marks)
    if (mark) {
      tokens.push(...valueTokens(markedValue(mark, values), at))
      at += mark[0].length
      continue
    }
    const found = literal(take, afterValue(tokens.at(-1)), at, values) ?? nameOrOperator(take)
    if (!found) throw new ExpressionError(`unexpected ${text[at]}`, at)
    tokens.push({ ...found, at })
    at += found.text.length
  }
  return tokens
}

function markedValue([, index]: RegExpMatchArray | string[], values: readonly string[]): string {
  return values[Number(index)] ?? ''
}

function withValues(text: string, values: readonly string[], write = (value: string) => value): string {
  return text.replace(new RegExp(tokenMark.source, 'g'), (...match: string[]) => write(markedValue(match, values)))
}

/** The words of a value that stands by itself: a number, a quoted text, true, false, nil, or a list of these. */
function valueTokens(text: string, at: number): Token[] {
  const tokens = tokenize(text)
  const isPlain = ({ kind, text: word, value }: Token) =>
    kind === 'literal'
      ? !(value instanceof RegExp)
      : (kind === 'operator' ? [',', '[', ']', '-'] : ['true', 'false', 'nil']).includes(word)
  if (!tokens.every(isPlain))
    throw new ExpressionError("a token's value is neither a number, a quoted text nor a list", at)
  return tokens.map(token => ({ ...token, at }))
}

/** Whether a `/`, `%` or `:` that follows is an operator. */
function afterValue(token: Token | undefined): boolean {
  if (token === undefined) return false
  // what follows a question, as in `value.match? /x/`, is asked about
  if (token.kind === 'name') return !['and', 'or', 'not'].includes(token.text) && !token.text.endsWith('?')
  return token.kind === 'literal' || token.text === ')' || token.text === ']' || token.text === '}'
}

type Take = (pattern: RegExp) => RegExpExecArray | null
type Found = Omit<Token, 'at'>

function literal(take: Take, followsValue: boolean, at: number, values: readonly string[]): Found | undefined {
  const filled = (text = '') => withValues(text, values)
  const found = (match: RegExpExecArray, value: Value): Found => ({ kind: 'literal', text: match[0], value })
  const number = take(numbers)
  if (number) return found(number, numberOf(number[0].replaceAll('_', '')))
  const single = take(singleQuoted)
  if (single) return found(single, filled((single[1] ?? '').replace(/\\(['\\])/g, '$1')))
  const double = take(doubleQuoted)
  if (double) return found(double, filled(unescaped(double[1] ?? '', at)))
  if (followsValue) return undefined
  const symbol = take(symbols)
  if (symbol) return found(symbol, new Sym(filled(symbol[1] ?? symbol[2])))
  const list = take(words)
  if (list)
    return found(
      list,
      (list[1] ?? list[2] ?? '')
        .split(/\s+/)
        .filter(word => word !== '')
        .map(filled),
    )
  const regular = take(regularExpressions)
  if (!regular) return undefined
  const [, source = '', flags = ''] = regular
  return found(regular, patternOf(source, flags, at, values))
}

function nameOrOperator(take: Take): Found | undefined {
  const name = take(names)
  if (name) return { kind: 'name', text: name[0], value: null }
  const operator = take(operators)
  return operator ? { kind: 'operator', text: operator[0], value: null } : undefined
}

function numberOf(text: string): Value {
  if (/[.eE]/.test(text)) return float(Number(text))
  const value = Number(text)
  return Number.isSafeInteger(value) ? value : BigInt(text)
}

const escapes: ReadonlyMap<string, string> = new Map([
  ['n', '\n'],
  ['t', '\t'],
  ['r', '\r'],
  ['e', '\x1b'],
  ['s', ' '],
  ['0', '\0'],
])

function unescaped(text: string, at: number): string {
  if (text.includes('#{')) throw new ExpressionError('texts with #{…} are not supported', at)
  return text.replace(/\\([\s\S])/g, (_, character: string) => escapes.get(character) ?? character)
}

/** A Ruby regular expression as JavaScript's: `^` and `$` are at every line, `\A` and `\z` at the ends of the text. */
function patternOf(source: string, flags: string, at: number, values: readonly string[]): Pattern {
  if (flags.includes('x')) throw new ExpressionError('the flag x of a regular expression is not supported', at)
  if (/\[\[:|\(\?[#>imx-]|\\[pGRXK]|#\{/.test(source)) {
    throw new ExpressionError('this form of a regular expression is not supported', at)
  }
  const translated = source
    .replace(/\\A/g, '(?<![\\s\\S])')
    .replace(/\\Z/g, '(?=\\n?(?![\\s\\S]))')
    .replace(/\\z/g, '(?![\\s\\S])')
    .replace(/\\h/g, '[0-9a-fA-F]')
  try {
    const filled = withValues(translated, values, value => value.replace(/[^\w\s]/g, '\\$&'))
    return new RegExp(filled, `m${flags.includes('i') ? 'i' : ''}${flags.includes('m') ? 's' : ''}`)
  } catch (error) {
    throw new ExpressionError(error instanceof Error ? error.message : String(error), at)
  }
}

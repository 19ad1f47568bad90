import { Float } from '../sensu/json-value.js'
import type { Json } from '../sensu/types.js'
import { misuseOf, takesArguments } from './expression-arguments.js'
import { arithmetic, callMethod, compare, equals, isMethod, matchText, truthy } from './expression-methods.js'
import { type Token, tokenize } from './expression-tokens.js'
import { ExpressionError, Moment, Range, Sym, type Value } from './expression-values.js'

/** What an expression is evaluated with. */
export interface Scope {
  variables: ReadonlyMap<string, Value>
  now: Date
}

type Node = (scope: Scope) => Value

/** Deeper nesting is refused, so that no text can exhaust the stack. */
const maximumDepth = 50
const maximumLength = 10_000

/**
 * Understands a filter's `eval:` expression: the part of Ruby that such expressions are written in, with the attribute as `value`. Literals, comparison,
 * boolean and arithmetic operators, `? :`, `=~`, indexes, calls of the methods of expression-methods.ts (some with a block), `Time.now` and
 * `Time.at`. Nothing can be assigned, defined, or called that is not in that list. Throws an ExpressionError that says what is not
 * understood, and where; so does the function returned, when a method does not exist for a value. `values` stand where the text has marks (see
 * tokens.ts): in a text as they are, in a regular expression as text, elsewhere as the literals they hold.
 */
export function compileExpression(text: string, values: readonly string[] = []): (value: Json, now: Date) => boolean {
  if (text.length > maximumLength) throw new ExpressionError(`longer than ${maximumLength} characters`)
  const node = new Parser(tokenize(text, values)).whole()
  return (value, now) => truthy(node({ variables: new Map([['value', value]]), now }))
}

/** Operators by rising precedence, as Ruby has them. */
const comparisons = ['<=>', '===', '==', '!=', '=~', '!~']
const orders = ['<=', '>=', '<', '>']
const words = ['and', 'or', 'not']

class Parser {
  readonly #tokens: Token[]
  readonly #names: string[] = ['value']
  #at = 0
  #depth = 0

  constructor(tokens: Token[]) {
    this.#tokens = tokens
  }

  whole(): Node {
    if (this.#tokens.length === 0) return () => null
    const node = this.#wordy()
    if (this.#at < this.#tokens.length) throw this.#unexpected()
    return node
  }

  /** `and`, `or`, `not`: weaker than everything else, and of equal strength. */
  #wordy(): Node {
    let left = this.#negated()
    for (;;) {
      if (this.#accept('and')) left = and(left, this.#negated())
      else if (this.#accept('or')) left = or(left, this.#negated())
      else return left
    }
  }

  #negated(): Node {
    if (!this.#accept('not')) return this.#choice()
    const inner = this.#nested(() => this.#negated())
    return scope => !truthy(inner(scope))
  }

  #choice(): Node {
    const condition = this.#range()
    if (!this.#accept('?')) return condition
    const yes = this.#nested(() => this.#choice())
    this.#expect(':')
    const no = this.#nested(() => this.#choice())
    return scope => (truthy(condition(scope)) ? yes(scope) : no(scope))
  }

  #range(): Node {
    const first = this.#or()
    const exclusive = this.#accept('...')
    if (!exclusive && !this.#accept('..')) return first
    const last = this.#or()
    return scope => new Range(first(scope), last(scope), exclusive)
  }

  #or(): Node {
    let left = this.#and()
    while (this.#accept('||')) left = or(left, this.#and())
    return left
  }

  #and(): Node {
    let left = this.#not()
    while (this.#accept('&&')) left = and(left, this.#not())
    return left
  }

  #not(): Node {
    if (!this.#accept('!')) return this.#comparison()
    const inner = this.#nested(() => this.#not())
    return scope => !truthy(inner(scope))
  }

  #comparison(): Node {
    const left = this.#order()
    const operator = comparisons.find(text => this.#accept(text))
    if (operator === undefined) return left
    const right = this.#order()
    switch (operator) {
      case '<=>':
        return scope => compare(left(scope), right(scope)) ?? null
      case '===':
        return scope => equals(left(scope), right(scope))
      case '==':
        return scope => equals(left(scope), right(scope))
      case '!=':
        return scope => !equals(left(scope), right(scope))
      case '=~':
        return scope => matchText(left(scope), right(scope))
      default:
        return scope => matchText(left(scope), right(scope)) === null
    }
  }

  #order(): Node {
    let left = this.#sum()
    for (;;) {
      const operator = orders.find(text => this.#accept(text))
      if (operator === undefined) return left
      const [first, second] = [left, this.#sum()]
      left = scope => callMethod(first(scope), operator, [second(scope)], undefined)
    }
  }

  #sum(): Node {
    return this.#leftToRight(['+', '-'], () => this.#product())
  }

  #product(): Node {
    return this.#leftToRight(['*', '/', '%'], () => this.#signed())
  }

  #leftToRight(operators: string[], operand: () => Node): Node {
    let left = operand()
    for (;;) {
      const operator = operators.find(text => this.#accept(text))
      if (operator === undefined) return left
      const [first, second] = [left, operand()]
      left = scope => arithmetic(operator, first(scope), second(scope))
    }
  }

  #signed(): Node {
    if (this.#accept('!')) {
      const inner = this.#nested(() => this.#signed())
      return scope => !truthy(inner(scope))
    }
    if (!this.#accept('-')) return this.#postfix(this.#primary())
    const inner = this.#nested(() => this.#signed())
    return scope => arithmetic('*', -1, inner(scope))
  }

  /** Method calls and indexes. */
  #postfix(start: Node): Node {
    let receiver = start
    for (;;) {
      const safe = this.#accept('&.')
      if (safe || this.#accept('.')) receiver = this.#call(receiver, safe)
      else if (this.#peek.kind === 'operator' && this.#peek.text === '[') receiver = this.#index(receiver)
      else return receiver
    }
  }

  #index(receiver: Node): Node {
    this.#expect('[')
    const args = this.#list(']')
    return scope =>
      callMethod(
        receiver(scope),
        '[]',
        args.map(arg => arg(scope)),
        undefined,
      )
  }

  #call(receiver: Node, safe: boolean): Node {
    const token = this.#next()
    const name = token.text
    if (token.kind !== 'name' || !isMethod(name)) throw new ExpressionError(`unknown method ${name}`, token.at)
    const opened = this.#accept('(')
    const named = opened && this.#accept('&') ? this.#namedBlock() : undefined
    const args = named ? [] : opened ? this.#list(')') : this.#bareArguments(name)
    const block = named ?? (this.#accept('{') ? this.#block() : undefined)
    const misuse = misuseOf(name, args.length, block !== undefined)
    if (misuse !== undefined) throw new ExpressionError(misuse, token.at)
    return scope => {
      const target = receiver(scope)
      if (safe && target === null) return null
      const values = args.map(arg => arg(scope))
      const run = block && ((item: Value) => block(scope, item))
      return callMethod(target, name, values, run)
    }
  }

  /** Those of a call without parentheses, as in `value.include? "x"`. A list would be an index, a minus sign an operator. */
  #bareArguments(name: string): Node[] {
    const { kind, text } = this.#peek
    const begins = kind === 'literal' || (kind === 'name' && !words.includes(text))
    if (!begins || !takesArguments(name)) return []
    const args = [this.#nested(() => this.#choice())]
    while (this.#accept(',')) args.push(this.#nested(() => this.#choice()))
    return args
  }

  /** `(&:method)`, up to the symbol read already. */
  #namedBlock(): (scope: Scope, item: Value) => Value {
    const { value, text, at } = this.#next()
    if (!(value instanceof Sym) || !isMethod(value.name)) throw new ExpressionError(`unknown method ${text}`, at)
    const { name } = value
    this.#expect(')')
    return (_scope, item) => callMethod(item, name, [], undefined)
  }

  /** `{ |item| … }`; the brace has been read. */
  #block(): (scope: Scope, item: Value) => Value {
    this.#expect('|')
    const name = this.#next()
    if (name.kind !== 'name') throw this.#unexpected(name)
    this.#expect('|')
    this.#names.push(name.text)
    const body = this.#nested(() => this.#wordy())
    this.#names.pop()
    this.#expect('}')
    return (scope, item) => body({ ...scope, variables: new Map([...scope.variables, [name.text, item]]) })
  }

  #primary(): Node {
    const token = this.#next()
    const { kind, text } = token
    if (kind === 'literal') return () => token.value
    if (kind === 'operator' && text === '(') {
      const inner = this.#nested(() => this.#wordy())
      this.#expect(')')
      return inner
    }
    if (kind === 'operator' && text === '[') {
      const items = this.#list(']')
      return scope => items.map(item => item(scope))
    }
    if (kind === 'name') return this.#named(token)
    throw this.#unexpected(token)
  }

  #named(token: Token): Node {
    const { text } = token
    if (this.#names.includes(text)) return scope => scope.variables.get(text) ?? null
    switch (text) {
      case 'nil':
        return () => null
      case 'true':
        return () => true
      case 'false':
        return () => false
      case 'Time':
        return this.#time()
      case 'Integer':
      case 'Float':
      case 'String': {
        this.#expect('(')
        const [arg = () => null] = this.#list(')')
        const method = { Integer: 'to_i', Float: 'to_f', String: 'to_s' }[text]
        return scope => callMethod(arg(scope), method, [], undefined)
      }
      default:
        throw new ExpressionError(`unknown name ${text}`, token.at)
    }
  }

  #time(): Node {
    this.#expect('.')
    if (this.#accept('now')) {
      if (this.#accept('(')) this.#expect(')')
      return scope => new Moment(scope.now.getTime() / 1000)
    }
    if (!this.#accept('at')) throw this.#unexpected()
    this.#expect('(')
    const [arg = () => null] = this.#list(')')
    return scope => {
      const seconds = arg(scope)
      if (typeof seconds === 'number' || seconds instanceof Float) return new Moment(Number(seconds))
      throw new ExpressionError('Time.at needs a number')
    }
  }

  /** Expressions separated by commas up to the closing text. */
  #list(closing: string): Node[] {
    const items: Node[] = []
    while (!this.#accept(closing)) {
      if (items.length > 0) this.#expect(',')
      items.push(this.#nested(() => this.#wordy()))
    }
    return items
  }

  #nested(parse: () => Node): Node {
    if (++this.#depth > maximumDepth) throw new ExpressionError(`nested deeper than ${maximumDepth} levels`)
    const node = parse()
    this.#depth--
    return node
  }

  get #peek(): Token {
    return this.#tokens[this.#at] ?? { kind: 'end', text: 'the end', at: 0, value: null }
  }

  #next(): Token {
    const token = this.#peek
    this.#at++
    return token
  }

  #accept(text: string): boolean {
    const { kind, text: found } = this.#peek
    if (found !== text || (kind !== 'operator' && kind !== 'name')) return false
    this.#at++
    return true
  }

  #expect(text: string): void {
    if (!this.#accept(text)) throw this.#unexpected()
  }

  #unexpected(token = this.#peek): ExpressionError {
    return token.kind === 'end'
      ? new ExpressionError('it ends too early')
      : new ExpressionError(`unexpected ${token.text}`, token.at)
  }
}

function and(left: Node, right: Node): Node {
  return scope => {
    const value = left(scope)
    return truthy(value) ? right(scope) : value
  }
}

function or(left: Node, right: Node): Node {
  return scope => {
    const value = left(scope)
    return truthy(value) ? value : right(scope)
  }
}

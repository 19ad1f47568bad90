/** What surrounds a place in a command, as far as it matters for a value that is put there. */
type Context = 'plain' | 'single' | 'double'

/** A place in a command where no way of writing makes every value harmless. */
export class UnquotableError extends Error {
  override readonly name = 'UnquotableError'
}

/**
 * Writes values into a shell command so that the shell takes each for nothing but text: outside of quotes in single quotes,
 * inside of quotes with what is special there escaped. To be called with rising offsets. Backquotes, here-documents, `${…}`, `$((…))`, `case` and
 * comments have rules of their own: in a command with any of them `quote` throws UnquotableError. A shell in the shell (`sh -c "…"`, `eval`)
 * reads the value once more, against which nothing here helps.
 */
export class ShellQuoting {
  readonly #command: string
  /** Innermost last; what `$(` opened inside of double quotes is plain again. */
  readonly #contexts: Context[] = ['plain']
  #offset = 0

  constructor(command: string) {
    this.#command = command
  }

  #assertPlainSyntax(): void {
    const odd = /\bcase\s|<<|`|\(\(|\$\{|\$'|(?:^|[\s;&|(])#/.exec(this.#command)
    if (odd) throw new UnquotableError(`a token in a command with ${JSON.stringify(odd[0].trim())}`)
  }

  /** The value as it has to stand at this offset of the command. */
  quote(value: string, offset: number, length: number): string {
    if (this.#offset === 0) this.#assertPlainSyntax()
    this.#advanceTo(offset)
    this.#offset = offset + length
    if (value.includes('\0')) throw new UnquotableError('a value with a NUL byte')
    switch (this.#contexts.at(-1)) {
      case 'single':
        return value.replaceAll("'", "'\\''")
      case 'double':
        return value.replace(/[\\"$`]/g, '\\$&')
      default:
        return `'${value.replaceAll("'", "'\\''")}'`
    }
  }

  #advanceTo(offset: number): void {
    while (this.#offset < offset) {
      const context = this.#contexts.at(-1)
      if (context === 'single') this.#singleQuoted()
      else this.#character(context === 'double')
    }
  }

  #singleQuoted(): void {
    if (this.#command[this.#offset++] === "'") this.#contexts.pop()
  }

  #character(quoted: boolean): void {
    const character = this.#command[this.#offset++]
    if (character === '\\') this.#offset++
    else if (character === '"') this.#toggle(quoted)
    else if (character === '$' && this.#command[this.#offset] === '(') this.#openSubstitution()
    else if (!quoted) this.#unquoted(character)
  }

  #toggle(quoted: boolean): void {
    if (quoted) this.#contexts.pop()
    else this.#contexts.push('double')
  }

  #unquoted(character: string | undefined): void {
    if (character === "'") this.#contexts.push('single')
    else if (character === '(') this.#contexts.push('plain')
    else if (character === ')' && this.#contexts.length > 1) this.#contexts.pop()
  }

  #openSubstitution(): void {
    this.#offset++
    this.#contexts.push('plain')
  }
}

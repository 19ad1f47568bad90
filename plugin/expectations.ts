/** What objects are expected to be: some by name, all others alike. */
export interface Expectations<Word extends string> {
  readonly byName: ReadonlyMap<string, Word>
  readonly all: Word | undefined
}

/** The parts of `NAME=VALUE`, or of `VALUE` alone. A name may contain `=`, a value does not. */
export function splitExpectation(text: string): { name: string | undefined; value: string } {
  const [, name, value = text] = /^(.+)=([^=]*)$/s.exec(text) ?? []
  return { name, value }
}

/**
 * Reads the values of an option such as `--expect`: `NAME=WORD`, or `WORD` alone for all objects. Words are compared without regard to case, blanks,
 * `-` and `_`. A name may contain `=`, a word does not. Throws on what is none of the words, with what to write.
 */
export function parseExpectations<Word extends string>(
  option: string,
  texts: readonly string[],
  words: readonly Word[],
): Expectations<Word> {
  const byName = new Map<string, Word>()
  let all: Word | undefined
  for (const text of texts) {
    const { name, value: word } = splitExpectation(text)
    const known = words.find(candidate => plain(candidate) === plain(word))
    if (known === undefined) {
      throw new Error(`${option} ${text}: not an expectation: write NAME=WORD or WORD, with one of ${words.join(', ')}`)
    }
    if (name === undefined) all = known
    else byName.set(name, known)
  }
  return { byName, all }
}

function plain(word: string): string {
  return word.toLowerCase().replaceAll(/[ _-]/g, '')
}

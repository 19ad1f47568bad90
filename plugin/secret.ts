/** Stands for a secret in everything that is printed. */
export const hiddenText = 'REDACTED'

/** A shorter one would be found in words that have nothing to do with it. */
const shortestHidden = 4

/** A text that must not be printed by accident: printed, joined or written as JSON it is `REDACTED`. */
export class Secret {
  readonly #text: string

  constructor(text: string) {
    this.#text = text
  }

  /** The secret itself, for who sends it. */
  reveal(): string {
    return this.#text
  }

  toString(): string {
    return hiddenText
  }

  toJSON(): string {
    return hiddenText
  }
}

/** All secrets among the values of a section. */
export function secretsIn(value: unknown): Secret[] {
  if (value instanceof Secret) return [value]
  return typeof value === 'object' && value !== null ? Object.values(value).flatMap(secretsIn) : []
}

/**
 * Makes a function that hides secrets in a text, however it came there: as they are, as part of a URL, in base64. It is the last resort, for
 * what servers and libraries say; nobody writes a secret into a message.
 */
export function hideSecrets(secrets: readonly Secret[]): (text: string) => string {
  const forms = secrets
    .map(secret => secret.reveal())
    .filter(text => text.length >= shortestHidden)
    .flatMap(text => [text, encodeURIComponent(text), Buffer.from(text).toString('base64'), ...pathOf(text)])
    .sort((a, b) => b.length - a.length)
  return text => forms.reduce((hidden, form) => hidden.replaceAll(form, hiddenText), text)
}

/** Of a secret URL, which is secret for what follows the host, that part. */
function pathOf(text: string): string[] {
  if (!/^\w+:\/\//.test(text) || !URL.canParse(text)) return []
  const { pathname, search } = new URL(text)
  return pathname.length >= shortestHidden ? [pathname + search, pathname] : []
}

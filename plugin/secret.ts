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
 * Makes a function that hides secrets in a text, however it came there: as they are, encoded for a URL, in base64. It is the last resort, for
 * what servers and libraries say; nobody writes a secret into a message.
 */
export function hideSecrets(secrets: readonly Secret[]): (text: string) => string {
  const forms = secrets
    .flatMap(secret => secretParts(secret.reveal()))
    .filter(text => text.length >= shortestHidden)
    .flatMap(text => [text, encodeURIComponent(Buffer.from(text).toString()), Buffer.from(text).toString('base64')])
    .sort((a, b) => b.length - a.length)
  return text => forms.reduce((hidden, form) => hidden.replaceAll(form, hiddenText), text)
}

/** A part of a URL without its escapes; as it is when they make no sense. */
export function decodeUrl(text: string): string {
  try {
    return decodeURIComponent(text)
  } catch {
    return text
  }
}

/** Of a URL what follows the host, and the password: the host is named in messages. */
function secretParts(text: string): string[] {
  if (!/^\w+:\/\//.test(text) || !URL.canParse(text)) return [text]
  const { pathname, search, password } = new URL(text)
  return [pathname + search, pathname, search, decodeUrl(password)]
}

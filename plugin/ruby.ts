import type { Status } from './status.js'

/** The line of a plugin made with the sensu-plugin gem: `CheckLoad OK: text`. */
export function pluginLine(name: string): (status: Status, text: string) => string {
  return (status, text) => `${name} ${status}: ${text}`
}

/** A Float as Ruby prints it: `1.0`, `0.25`, `2.0e-05`, `NaN`. */
export function rubyFloat(value: number): string {
  if (!Number.isFinite(value)) return String(value)
  const size = Math.abs(value)
  if (size !== 0 && (size < 1e-4 || size >= 1e15)) {
    const [mantissa = '', exponent = ''] = value.toExponential().split('e')
    const digits = exponent.slice(1).padStart(2, '0')
    return `${mantissa.includes('.') ? mantissa : `${mantissa}.0`}e${exponent[0]}${digits}`
  }
  const text = Object.is(value, -0) ? '-0' : String(value)
  return text.includes('.') ? text : `${text}.0`
}

/** Rounds as Ruby's Float#round: halves away from zero, and what reads as a half counts as one (1.005 is 1.01). */
export function rubyRound(value: number, digits: number): number {
  if (!Number.isFinite(value)) return value
  const scale = 10 ** digits
  const size = Math.abs(value)
  const below = Math.floor(size * scale + 0.5)
  const rounded = (below + 0.5) / scale <= size ? below + 1 : below
  return (Math.sign(value) * rounded) / scale
}

/** A number with so many decimals, as Ruby's `format` prints it: of two that are as near, the even one. */
export function rubyFixed(value: number, digits: number): string {
  const scaled = value * 10 ** digits
  const below = Math.floor(scaled)
  return scaled - below === 0.5 ? ((below + (below % 2)) / 10 ** digits).toFixed(digits) : value.toFixed(digits)
}

/** What Ruby's regular expressions spell differently; what is not listed here means the same in both. */
const rubySpellings: Readonly<Record<string, string>> = {
  '\\A': '(?<![\\s\\S])',
  '\\z': '(?![\\s\\S])',
  '\\Z': '(?=\\n?(?![\\s\\S]))',
  '\\h': '[0-9a-fA-F]',
  '\\H': '[^0-9a-fA-F]',
}
/** Within brackets. */
const rubyClasses: Readonly<Record<string, string>> = {
  '\\h': '0-9a-fA-F',
  '[:alnum:]': 'A-Za-z0-9',
  '[:alpha:]': 'A-Za-z',
  '[:blank:]': ' \\t',
  '[:digit:]': '0-9',
  '[:lower:]': 'a-z',
  '[:space:]': '\\s',
  '[:upper:]': 'A-Z',
  '[:word:]': '\\w',
  '[:xdigit:]': '0-9A-Fa-f',
}

/**
 * A regular expression as Ruby reads it: `^` and `$` match at every line, `(?i)` in front ignores case, `\A`, `\z`, `\h` and POSIX classes
 * are known. Throws an Error that names `option` when the text is none.
 */
export function rubyPattern(text: string, option: string): RegExp {
  const [, letters = '', pattern = ''] = /^(?:\(\?([im]+)\))?(.*)$/s.exec(text) ?? []
  const source = pattern.replaceAll(/\\.|\[(?:\\.|\[:\w+:\]|[^\]\\])*\]/gs, part =>
    part.startsWith('[')
      ? part.replaceAll(/\\.|\[:\w+:\]/gs, inner => rubyClasses[inner] ?? inner)
      : (rubySpellings[part] ?? part),
  )
  // Ruby's m lets a dot match line ends, which JavaScript calls s.
  const flags = `m${letters.includes('i') ? 'i' : ''}${letters.includes('m') ? 's' : ''}`
  try {
    return new RegExp(source, flags)
  } catch (error) {
    throw new Error(`${option} ${text}: ${error instanceof Error ? error.message : String(error)}`)
  }
}

import { numberText } from './point.js'

/** One number of the Monitoring Plugins' performance data; its unit and limits are not of interest here. */
export interface PerfdataItem {
  readonly label: string
  readonly number: string
}

/** A label, in quotes when it has blanks (a quote in it is doubled), and everything up to the next blank. */
const item = /\s*(?:'((?:[^']|'')+)'|([^\s'=][^\s=]*))=(\S*)/y

/** A number and its unit. What has a comma for a point has no number in front of it. */
const withUnit = /^([-+.\d]+(?:e[-+]?\d+)?)[^\d.,]*$/i

/**
 * Reads the performance data of a plugin's output: what follows the `|` of the first line, and what follows the first `|` of the lines below it, to
 * the end. A value `U` was not determined and is left out.
 */
export function parsePerfdata(output: string): { items: PerfdataItem[]; invalid: string[] } {
  const items: PerfdataItem[] = []
  const invalid: string[] = []
  for (const text of perfdataTexts(output)) {
    item.lastIndex = 0
    let end = 0
    for (let match = item.exec(text); match !== null; match = item.exec(text)) {
      end = item.lastIndex
      const [whole, quoted, plain = '', rest = ''] = match
      const [value = ''] = rest.split(';', 1)
      const number = numberText(withUnit.exec(value)?.[1] ?? '')
      if (number !== undefined) items.push({ label: quoted?.replaceAll("''", "'") ?? plain, number })
      else if (value !== 'U') invalid.push(whole.trim())
    }
    const left = text.slice(end).trim()
    if (left !== '') invalid.push(left)
  }
  return { items, invalid }
}

function perfdataTexts(output: string): string[] {
  const [first = '', ...others] = output.split('\n')
  const below = others.join('\n')
  return [first, below].flatMap(text => {
    const bar = text.indexOf('|')
    return bar < 0 ? [] : [text.slice(bar + 1)]
  })
}

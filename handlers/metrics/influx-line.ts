import { numberText, type Point, timeNsOf } from './point.js'

/**
 * Reads one line of InfluxDB's line protocol, `measurement,tag=value field=value time`: a point for each field. A line without a time has `defaultTimeNs`.
 * Undefined when it is no such line.
 */
export function parseInfluxLine(line: string, defaultTimeNs: bigint): Point[] | undefined {
  const [series = '', fields, time, ...rest] = split(line.trim(), ' ').filter(part => part !== '')
  if (fields === undefined || rest.length > 0) return undefined
  const timeNs = time === undefined ? defaultTimeNs : timeNsOf(time)
  const [measurement = '', ...tags] = split(series, ',')
  const pairs = tags.map(tag => readPair(tag))
  if (timeNs === undefined || measurement === '' || !pairs.every(pair => pair !== undefined)) return undefined
  const points: Point[] = []
  for (const text of split(fields, ',')) {
    const [name, literal] = readPair(text, raw => raw) ?? []
    if (name === undefined || literal === undefined) return undefined
    const number = fieldNumber(literal)
    if (number === null) return undefined
    points.push({
      measurement: withoutEscapes(measurement),
      field: name,
      tags: new Map(pairs),
      number,
      literal,
      timeNs,
    })
  }
  return points
}

/** The number that a field's value is; undefined for texts and truth values, null for what is none of these. */
function fieldNumber(literal: string): string | undefined | null {
  if (/^"(?:[^"\\]|\\.)*"$/.test(literal) || /^(?:t|true|f|false)$/i.test(literal)) return undefined
  return numberText(literal.replace(/(?<=^-?\d+)[iu]$/, '')) ?? null
}

function readPair(text: string, readValue = withoutEscapes): [string, string] | undefined {
  const [name = '', value = '', ...rest] = split(text, '=')
  return rest.length > 0 || name === '' || value === '' ? undefined : [withoutEscapes(name), readValue(value)]
}

/** Splits at a character that is neither behind a backslash nor in double quotes (which count in fields only, where a value begins with one). */
function split(text: string, separator: string): string[] {
  const parts: string[] = []
  let begin = 0
  let quoted = false
  for (let index = 0; index < text.length; index += 1) {
    const character = text[index]
    if (character === '\\') index += 1
    else if (character === '"' && (quoted || text[index - 1] === '=')) quoted = !quoted
    else if (character === separator && !quoted) {
      parts.push(text.slice(begin, index))
      begin = index + 1
    }
  }
  return [...parts, text.slice(begin)]
}

/** A backslash stands for itself except in front of a separator. */
function withoutEscapes(text: string): string {
  return text.replace(/\\([,= ])/g, '$1')
}

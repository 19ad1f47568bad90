import type { Row } from './measure.js'

/** The rows as an aligned table for people. */
export function formatTable(rows: readonly Row[]): string {
  const header = ['what', 'ours', 'instead', '', 'times better', 'loop lag', 'target']
  const cells = rows.map(row => [
    row.subject,
    figure(row.ours, row.unit),
    figure(row.theirs, row.unit),
    row.peer,
    ratio(row),
    figure(row.loopLagMs, 'ms'),
    row.target ?? '',
  ])
  const widths = header.map((title, column) => Math.max(title.length, ...cells.map(line => line[column]?.length ?? 0)))
  const rightAligned = new Set([1, 2, 4, 5])
  const lines = [header, widths.map(width => '-'.repeat(width)), ...cells].map(line =>
    line
      .map((cell, column) =>
        rightAligned.has(column) ? cell.padStart(widths[column] ?? 0) : cell.padEnd(widths[column] ?? 0),
      )
      .join('  ')
      .trimEnd(),
  )
  const notes = rows.flatMap(row => (row.note ? [`${row.subject}: ${row.note}`] : []))
  return [...lines, ...(notes.length > 0 ? ['', ...notes] : []), ''].join('\n')
}

/** How many times better ours is: less time or memory, or a higher rate. */
export function ratio(row: Row): string {
  if (row.theirs === undefined) return ''
  const times = row.unit === '/s' ? row.ours / row.theirs : row.theirs / row.ours
  return `${times.toFixed(times < 10 ? 1 : 0)}x`
}

function figure(value: number | undefined, unit: string): string {
  if (value === undefined) return ''
  const digits = value < 1 ? 3 : value < 10 ? 2 : value < 100 ? 1 : 0
  return `${value.toFixed(digits)} ${unit}`
}

/** One line of the table: the newest result of one check of one client (a guest, or the host's agent itself). */
export interface StatusRow {
  client: string
  check: string
  status: number
  output: string
  /** When the check ran, seconds since 1970. */
  executedSeconds: number
}

/** How the table is drawn. */
export interface TableStyle {
  /** Columns of the terminal; no line is longer. */
  width: number
  /** The most rows that are shown; the number of the others is told. */
  maximumRows: number
  nowSeconds: number
  color: boolean
}

const statusNames = ['OK', 'WARNING', 'CRITICAL', 'UNKNOWN']
const statusColors = [32, 33, 31, 35]
const gap = '  '
/** Names come from outside and may be of any length; this much of them is shown. */
const longestName = 32
const shortestOutput = 20

/** The table's lines. Names and outputs are foreign text: nothing in them can move the cursor or break a line. */
export function renderTable(rows: readonly StatusRow[], style: TableStyle): string[] {
  const shown = [...rows].sort(byName).slice(0, style.maximumRows)
  const cells = shown.map(row => ({
    client: cut(plain(row.client), longestName),
    check: cut(plain(row.check), longestName),
    status: statusName(row.status),
    age: formatAge(style.nowSeconds - row.executedSeconds),
    output: plain(row.output.split('\n', 1)[0] ?? ''),
    color: statusColors[row.status] ?? 35,
  }))
  const header = { client: 'GUEST / CLIENT', check: 'CHECK', status: 'STATUS', age: 'AGE', output: 'OUTPUT', color: 1 }
  const all = [header, ...cells]
  const width = (name: 'client' | 'check' | 'status' | 'age') => Math.max(...all.map(cell => displayWidth(cell[name])))
  const [client, check, status, age] = [width('client'), width('check'), width('status'), width('age')]
  const rest = Math.max(shortestOutput, style.width - client - check - status - age - 4 * gap.length)
  const paint = (text: string, color: number) => (style.color ? `\x1b[${color}m${text}\x1b[0m` : text)
  const lines = all.map(cell => {
    const before = pad(cell.client, client) + gap + pad(cell.check, check) + gap
    const after = `${gap}${' '.repeat(age - displayWidth(cell.age))}${cell.age}${gap}${cut(cell.output, rest)}`
    return cutAround(before, cell.status, after, style.width, status, text => paint(text, cell.color))
  })
  const hidden = rows.length - shown.length
  return hidden > 0 ? [...lines, cut(`… and ${hidden} more`, style.width)] : lines
}

/** Joins the parts of a line and cuts it to the width; colour codes take no room. */
function cutAround(
  before: string,
  status: string,
  after: string,
  width: number,
  statusWidth: number,
  paint: (text: string) => string,
): string {
  const padded = pad(status, statusWidth)
  const room = width - displayWidth(before)
  if (room < displayWidth(padded)) return cut(before + padded, width)
  return before + paint(padded) + cut(after, room - displayWidth(padded)).trimEnd()
}

function byName(a: StatusRow, b: StatusRow): number {
  return compare(a.client, b.client) || compare(a.check, b.check)
}

function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0
}

function statusName(status: number): string {
  return statusNames[status] ?? `UNKNOWN ${Number.isInteger(status) ? status : ''}`.trimEnd()
}

function formatAge(seconds: number): string {
  if (!Number.isFinite(seconds)) return '?'
  const age = Math.max(0, Math.round(seconds))
  if (age < 120) return `${age} s`
  if (age < 7200) return `${Math.floor(age / 60)} min`
  return `${Math.floor(age / 3600)} h`
}

/** Foreign text without anything that a terminal would act upon: control and format characters, odd separators. */
function plain(text: string): string {
  return text.replaceAll(/[\p{Cc}\p{Cf}\p{Co}\p{Cs}\p{Zl}\p{Zp}]/gu, '·')
}

function pad(text: string, width: number): string {
  return text + ' '.repeat(Math.max(0, width - displayWidth(text)))
}

function cut(text: string, width: number): string {
  if (displayWidth(text) <= width) return text
  let kept = ''
  let used = 0
  for (const character of text) {
    const next = characterWidth(character)
    if (used + next > width - 1) break
    kept += character
    used += next
  }
  return width > 0 ? `${kept}…` : ''
}

function displayWidth(text: string): number {
  let width = 0
  for (const character of text) width += characterWidth(character)
  return width
}

/** Terminals draw East Asian characters and emoji in two cells, and combining marks in none. */
function characterWidth(character: string): number {
  if (/\p{M}/u.test(character)) return 0
  return /[\u1100-\u115f\u2e80-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff00-\uff60\uffe0-\uffe6]|\p{Emoji_Presentation}/u.test(
    character,
  )
    ? 2
    : 1
}

import t from 'tap'
import { renderTable, type StatusRow, type TableStyle } from '../../scripts/start/status-table.js'

const style: TableStyle = { width: 80, maximumRows: 100, nowSeconds: 1000, color: false }

const escapeCharacter = '\x1b'

/** What follows an escape character, without the rest of the colour code. */
function withoutCode(text: string, index: number): string {
  return index === 0 ? text : text.replace(/^\[\d+m/, '')
}

function row(change: Partial<StatusRow>): StatusRow {
  return { client: 'web1', check: 'state', status: 0, output: 'fine\n', executedSeconds: 990, ...change }
}

t.test('one line for each result, by client and check, with a readable age', async t => {
  const rows = [
    row({ client: 'web2', status: 2, output: 'gone\nand more', executedSeconds: 700 }),
    row({ client: 'web1', check: 'state', status: 1, executedSeconds: 1001 }),
    row({ client: 'web1', check: 'memory', status: 3, executedSeconds: -9000 }),
  ]
  t.same(renderTable(rows, style), [
    'GUEST / CLIENT  CHECK   STATUS      AGE  OUTPUT',
    'web1            memory  UNKNOWN     2 h  fine',
    'web1            state   WARNING     0 s  fine',
    'web2            state   CRITICAL  5 min  gone',
  ])
})

t.test('a status beyond 3 is shown with its number, a missing time as a question mark', async t => {
  const [, line] = renderTable([row({ status: 127, executedSeconds: Number.NaN })], style)
  t.equal(line, 'web1            state  UNKNOWN 127    ?  fine')
})

t.test('names and outputs cannot move the cursor, hide text or break the line', async t => {
  const hostile = '\x1b[2J\x1b]0;title\x07\r\u202Eevil\u200B\u009b31m\u2028'
  const [, line = ''] = renderTable([row({ client: hostile, check: hostile, output: `${hostile}tail` })], style)
  t.notMatch(line, /[\p{Cc}\p{Cf}\p{Zl}]/u)
  t.match(line, /^·\[2J·\]0;title···evil··31m· /)
})

for (const width of [10, 20, 40, 79, 80, 200])
  t.test(`no line is wider than ${width} columns`, async t => {
    const rows = [
      row({ output: 'x'.repeat(500) }),
      row({ client: 'a'.repeat(300), check: 'b'.repeat(300) }),
      row({ client: 'wide', output: '漢字'.repeat(200) }),
    ]
    for (const line of renderTable(rows, { ...style, width })) {
      const columns = [...line].reduce((sum, character) => sum + (/\p{Script=Han}/u.test(character) ? 2 : 1), 0)
      t.ok(columns <= width, `${columns} columns`)
    }
  })

t.test('colour codes are the only difference on a colour terminal', async t => {
  const rows = [row({ status: 2 }), row({ client: 'web2', status: 0 })]
  const colored = renderTable(rows, { ...style, color: true })
  t.ok(colored[1]?.includes(`${escapeCharacter}[31mCRITICAL${escapeCharacter}[0m`))
  t.ok(colored[2]?.includes(`${escapeCharacter}[32mOK      ${escapeCharacter}[0m`))
  const uncolored = colored.map(line => line.split(escapeCharacter).map(withoutCode).join(''))
  t.same(uncolored, renderTable(rows, style))
})

t.test('more rows than there is room for are counted', async t => {
  const rows = Array.from({ length: 12 }, (_, index) => row({ client: `web${index}` }))
  const lines = renderTable(rows, { ...style, maximumRows: 5 })
  t.equal(lines.length, 7)
  t.equal(lines.at(-1), '… and 7 more')
})

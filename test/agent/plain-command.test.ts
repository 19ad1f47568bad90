import { execFileSync } from 'node:child_process'
import t from 'tap'
import { plainWords } from '../../agent/plain-command.js'

const plain: [command: string, words: string[]][] = [
  ['check-kvm-state', ['check-kvm-state']],
  ['  /usr/lib/sensu/check-kvm-state   --all\t-w 80 ', ['/usr/lib/sensu/check-kvm-state', '--all', '-w', '80']],
  [`check -w '80 90' --name="web 01"`, ['check', '-w', '80 90', '--name=web 01']],
  [`check '$HOME' 'a|b' "it's" 'say "x"'`, ['check', '$HOME', 'a|b', "it's", 'say "x"']],
  [`check "" '' a""b`, ['check', '', '', 'ab']],
  [
    'check --uri=qemu+ssh://root@host/system -w @10:20,5',
    ['check', '--uri=qemu+ssh://root@host/system', '-w', '@10:20,5'],
  ],
  [`check 'two\nlines'`, ['check', 'two\nlines']],
]

t.test('a plain command is split as the shell splits it', async t => {
  for (const [command, words] of plain) {
    t.strictSame(plainWords(command), words, command)
    // the shell's own opinion, with a program that prints its arguments
    const [, ...rest] = words
    const script = `set -- ${command.trim().replace(/^\S+/, '')}\nfor word; do printf '%s\\0' "$word"; done`
    const printed = execFileSync('sh', ['-c', script]).toString()
    t.strictSame(printed, rest.map(word => `${word}\0`).join(''), `sh agrees about ${command}`)
  }
})

t.test('whatever needs the shell is left to the shell', async t => {
  const syntax = [
    '$',
    '`',
    '|',
    ';',
    '&',
    '<',
    '>',
    '(',
    ')',
    '*',
    '?',
    '[',
    ']',
    '{',
    '}',
    '~',
    '#',
    '\\',
    '!',
    '\n',
    '\r',
    '\0',
  ]
  for (const character of syntax) t.equal(plainWords(`check a${character}b`), undefined, JSON.stringify(character))
  for (const character of ['$', '`', '\\']) t.equal(plainWords(`check "a${character}b"`), undefined, `"${character}"`)
  for (const command of ['', '   ', `check 'open`, `check "open`, `check it's`, `check '\0'`]) {
    t.equal(plainWords(command), undefined, JSON.stringify(command))
  }
})

t.test('hostile input takes no time', async t => {
  const started = performance.now()
  plainWords(`check ${'"'.repeat(99_999)}`)
  plainWords(`check ${`'a' `.repeat(50_000)}'`)
  plainWords(' '.repeat(100_000))
  t.ok(performance.now() - started < 1000)
})

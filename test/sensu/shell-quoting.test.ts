import { execFileSync } from 'node:child_process'
import t from 'tap'
import { UnquotableError } from '../../sensu/shell-quoting.js'
import { substituteCommand } from '../../sensu/tokens.js'

/** What a value can contain to do harm, alone and together. */
const values = [
  'plain',
  'two words',
  "it's",
  '"double"',
  '$(echo injected >&2; exit 9)',
  '`echo injected >&2; exit 9`',
  '; echo injected',
  '| cat /etc/passwd',
  `$HOME \${HOME}`,
  'back\\slash\\',
  'line\nbreak; echo injected',
  '*',
  '#',
  ')',
  '-n',
  `'"'"'; $(false) \`false\` \\"`,
]

/** Places for a value, each of which prints it as one argument. */
const commands = [
  "printf '%s|' :::v:::",
  'printf "%s|" ":::v:::"',
  "printf '%s|' ':::v:::'",
  `printf "%s|" a:::v:::b "c:::v:::d" 'e:::v:::f'`,
  'printf "%s|" "$(printf "%s" :::v:::)"',
  `printf '%s|' "$(printf '%s' "x:::v:::y")" :::v:::`,
  '(printf "%s|" :::v:::); true && printf "%s|" ":::v:::"',
  'printf \'%s|\' \\\' :::v::: \\" ":::v:::"',
]

t.test('a quoted value is nothing but text, wherever in a command it stands', async t => {
  for (const value of values) {
    for (const command of commands) {
      const { text } = substituteCommand(command, { v: value })
      const harmless = execFileSync('sh', ['-c', substituteCommand(command, { v: 'MARK' }).text]).toString()
      // a substitution takes the newlines at the end of what it reads, none of ours end with one
      t.equal(execFileSync('sh', ['-c', text]).toString(), harmless.replaceAll('MARK', value), text)
    }
  }
})

t.test('a default is quoted as a value is; what has neither is reported', async t => {
  t.equal(substituteCommand('echo :::x|a b:::', {}).text, "echo 'a b'")
  t.strictSame(substituteCommand('echo :::x:::', {}), { text: 'echo ', unmatched: ['x'] })
  t.equal(substituteCommand('echo `date` # no token', {}).text, 'echo `date` # no token')
})

t.test('where no quoting is safe the command is refused', async t => {
  const refused = [
    'echo `echo :::v:::`',
    'cat <<EOF\n:::v:::\nEOF',
    `echo \${X:-:::v:::}`,
    'echo $((:::v:::))',
    '"$(case x in x) echo :::v::: ;; esac)"',
    'true # :::v:::',
    "echo $':::v:::'",
  ]
  for (const command of refused) {
    t.throws(() => substituteCommand(command, { v: 'x' }), UnquotableError, command)
  }
  t.throws(() => substituteCommand('echo :::v:::', { v: 'a\0b' }), UnquotableError)
})

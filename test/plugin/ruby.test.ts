import t from 'tap'
import { defineLocalCheck } from '../../plugin/check.js'
import { Verdict } from '../../plugin/outcome.js'
import { runCheck } from '../../plugin/program.js'
import { pluginLine, rubyFloat, rubyPattern, rubyRound } from '../../plugin/ruby.js'
import { exampleEnvironment, programOf } from './example.js'

t.test('a number is printed as Ruby prints a Float', async t => {
  const table: [value: number, text: string][] = [
    [0, '0.0'],
    [-0, '-0.0'],
    [100, '100.0'],
    [0.25, '0.25'],
    [0.1 + 0.2, '0.30000000000000004'],
    [1e-4, '0.0001'],
    [0.00002, '2.0e-05'],
    [1.5e-7, '1.5e-07'],
    [-0.00002, '-2.0e-05'],
    [999_999_999_999_999, '999999999999999.0'],
    [1e15, '1.0e+15'],
    [1.25e20, '1.25e+20'],
    [Number.NaN, 'NaN'],
  ]
  for (const [value, text] of table) t.equal(rubyFloat(value), text)
})

t.test('a number is rounded as Ruby rounds a Float', async t => {
  const table: [value: number, rounded: number][] = [
    [1.005, 1.01],
    [2.675, 2.68],
    [0.125, 0.13],
    [-0.125, -0.13],
    [99.995, 100],
    [0.004999, 0],
    [33.333333, 33.33],
    [-1.005, -1.01],
    [1e-9, 0],
  ]
  for (const [value, rounded] of table) t.equal(rubyRound(value, 2), rounded, String(value))
  t.ok(Number.isNaN(rubyRound(Number.NaN, 2)))
})

t.test('a pattern means what it means in Ruby', async t => {
  const matches: [pattern: string, text: string, matches: boolean][] = [
    ['nginx|apache', 'apache2 -k start', true],
    ['^b$', 'a\nb\nc', true],
    ['\\Ab', 'a\nb', false],
    ['\\Aa', 'a\nb', true],
    ['b\\z', 'a\nb', true],
    ['b\\z', 'b\n', false],
    ['b\\Z', 'b\n', true],
    ['(?i)NGINX', 'nginx', true],
    ['a.b', 'a\nb', false],
    ['(?m)a.b', 'a\nb', true],
    ['[[:digit:]]{2}', 'a12', true],
    ['^[^[:space:]]+$', 'a b', false],
    ['\\h\\h:', 'fe:', true],
    ['java.*\\-jar', 'java -Xmx1g -jar x', true],
    ['\\\\A', '\\A', true],
    ['[\\]a]', ']', true],
  ]
  for (const [pattern, text, expected] of matches) {
    t.equal(rubyPattern(pattern, '--query').test(text), expected, `${pattern} in ${JSON.stringify(text)}`)
  }
  t.throws(() => rubyPattern('(', '--query'), { message: /^--query \(: Invalid regular expression/ })
})

const successor = await programOf(
  defineLocalCheck({
    name: 'check-successor',
    summary: 'Says what it understood.',
    options: {
      warning: { type: 'number', alias: 'w', default: 80, summary: 'A number.' },
      pattern: { type: 'string', alias: 't', summary: 'A text with a letter of the common options.' },
      timeout: { type: 'number', alias: 'V', summary: 'A name of the common options.' },
      ignoreCase: { type: 'flag', alias: 'i', summary: 'A switch.' },
      responseCode: { type: 'string', summary: 'A long name.' },
      responseBytes: { type: 'integer', alias: 'b', summary: 'Another with the same beginning.' },
    },
    rubyLine: pluginLine('CheckSuccessor'),
    takesSeconds: ({ timeout = 0 }) => timeout,
    collect: async (options, { timeLeftMs }) => ({ ...options, seconds: Math.round(timeLeftMs() / 1000) }),
    evaluate({ warning, pattern, timeout, ignoreCase, responseCode, responseBytes, seconds }) {
      const verdict = new Verdict()
      verdict.measure({ name: 'seconds', value: seconds })
      verdict.summary = [warning, pattern, timeout, ignoreCase, responseCode, responseBytes].join(' ')
      return verdict
    },
  }),
)

/** What the check prints for a command line, in one line. */
async function answer(...argv: string[]): Promise<string> {
  return (await runCheck(successor, argv, exampleEnvironment())).output.trimEnd()
}

t.test('a command line is read as Ruby reads it', async t => {
  const understood: [argv: string[], text: string][] = [
    [[], '80  false'],
    [['-w80', '-w', '.9'], '0.9   false'],
    [['--warning', '90%'], '90   false'],
    [['-w', '-5'], '-5   false'],
    [['-t', '-jar x'], '80 -jar x  false'],
    [['-t-jar'], '80 -jar  false'],
    [['-it', 'a'], '80 a  true'],
    [['-ita'], '80 a  true'],
    [['--ignore_case'], '80   true'],
    [['--response-c', '^2'], '80   false ^2'],
    [['-t', '"quoted"'], '80 "quoted"  false'],
  ]
  for (const [argv, text] of understood) {
    const [line] = (await answer(...argv)).split('\n')
    t.equal(line?.trimEnd().replaceAll(/ +/g, ' '), `CheckSuccessor OK: ${text.replaceAll(/ +/g, ' ')}`, argv.join(' '))
  }
})

t.test('what cannot be read is one line in the shape of the plugin', async t => {
  const refused: [argv: string[], problem: string][] = [
    [['--nosuch'], 'unknown option --nosuch: see --help'],
    [['-x'], 'unknown option -x: see --help'],
    [['--response', '5'], 'unknown option --response: see --help'],
    [['-w', 'lots'], '--warning lots: not a number'],
    [['-w'], '--warning needs a value: it takes a number'],
    [['-b', '1.5'], '--response-bytes 1.5: not a whole number'],
    [['--ignore-case=yes'], '--ignore-case is a switch: give it without a value'],
    [['stray'], 'unexpected argument "stray": options start with --'],
    [['--', '-w'], 'unexpected argument "-w": options start with --'],
    [['-u', 'test:///default'], 'unknown option -u: see --help'],
  ]
  for (const [argv, problem] of refused) {
    const { output, status } = await runCheck(successor, argv, exampleEnvironment())
    t.same([output.split('\n')[0], status], [`CheckSuccessor UNKNOWN: ${problem}`, 3], argv.join(' '))
  }
})

t.test('a name or letter of the old plugin is not the common one; the time it takes is not counted', async t => {
  t.match(await answer(), /\n\| seconds=30$/)
  t.match(await answer('--timeout', '15'), /\n\| seconds=45$/)
  t.match(await answer('-V', '2.5'), /^CheckSuccessor OK: 80 {2}2\.5 false/)
  t.match(await answer('-v'), /^CheckSuccessor OK: 80/, 'what is left of the common ones works')
  t.match(successor.help, /-t, --pattern /)
  t.match(await answer('--version'), /^check-successor 1\.2\.3 /)
})

t.test('there is one | in the output: performance data, or what the line itself has', async t => {
  t.equal(await answer('-t', 'nginx|apache'), 'CheckSuccessor OK: 80 nginx|apache  false')
  t.match(JSON.parse(await answer('-t', 'a|b', '--format', 'json')), { summary: 'CheckSuccessor OK: 80 a|b  false  ' })
  t.equal((await answer('-t', 'two\nlines\u001b[2J')).split('| ')[0], 'CheckSuccessor OK: 80 two\nlines?[2J  false  \n')
})

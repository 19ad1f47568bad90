import t from 'tap'
import { parseCommandLine } from '../../plugin/command-line.js'
import { runCheck } from '../../plugin/program.js'
import { exampleCheck, exampleEnvironment, programOf } from './example.js'

const program = await programOf(exampleCheck)

/** The problems of a command line, none when it is fine. */
function problemsOf(...argv: string[]): readonly string[] {
  const request = parseCommandLine(program.check, program.validate, argv)
  return request.kind === 'problems' ? request.problems : []
}

t.test('each thing that is wrong with a command line is one clear line', async t => {
  const range = 'a range: write [@][start:][end], for example 80, 10:, ~:5 or @10:20'
  const table: [argv: string[], problem: string][] = [
    [['--warnin', '5'], 'unknown option --warnin: did you mean --warning?'],
    [['--waring=5'], 'unknown option --waring: did you mean --warning?'],
    [['--pre-guest'], 'unknown option --pre-guest: did you mean --per-guest?'],
    [['--guests', 'a'], 'unknown option --guests: did you mean --guest?'],
    [['--entirely-different'], 'unknown option --entirely-different: see --help'],
    [['-x'], 'unknown option -x: see --help'],
    [[`--${'x'.repeat(100)}`], `unknown option --${'x'.repeat(100)}: see --help`],
    [['--no-strict'], 'unknown option --no-strict: did you mean --strict?'],
    [['--minimumOps', '5'], 'unknown option --minimumOps: did you mean --minimum-ops?'],
    [['stray'], 'unexpected argument "stray": options start with --'],
    [['--', '--strict'], 'unexpected argument "--strict": options start with --'],
    [['-w', 'abc'], `--warning abc: not ${range}`],
    [['-w'], `--warning needs a value: it takes ${range}`],
    [['--warning='], `--warning needs a value: it takes ${range}`],
    [['-w', '5:2'], '--warning 5:2: start is above end: a range runs from its lower to its upper bound'],
    [['-w', '1', '-w', '2'], '--warning is given 2 times: give it once'],
    [['--factor', 'two'], '--factor two: not a number from 0 to 10'],
    [['--factor', '11'], '--factor 11: not a number from 0 to 10'],
    [['--factor', '1e1'], '--factor 1e1: not a number from 0 to 10'],
    [['--minimum-ops', '1.5'], '--minimum-ops 1.5: not a whole number of at least 0'],
    [['--minimum-ops', '-1'], '--minimum-ops -1: not a whole number of at least 0'],
    [['--mode', 'medium'], '--mode medium: not one of fast, slow'],
    [['--format', 'xml'], '--format xml: not one of nagios, graphite, influxdb, opentsdb, prometheus, json'],
    [['--grace', 'soon'], '--grace soon: not a time: write 250ms, 30s, 5m, 2h or 1d (seconds without a unit)'],
    [['-t', '0'], '--timeout 0: leaves no time at all: write a time such as 30s'],
    [['--guest'], '--guest needs a value: it takes one or more texts'],
    [['--strict=maybe'], '--strict is a switch: give it without a value'],
    [['--all', '--guest', 'a'], '--all contradicts --guest and --match: leave one of them out'],
    [['--uri', ''], '--uri needs a value: it takes a text'],
  ]
  for (const [argv, problem] of table) t.same(problemsOf(...argv), [problem], argv.join(' '))
  t.match(problemsOf('--match', '('), [/^--match \(: not a regular expression: /])
})

t.test('all problems are told at once, the first with the status', async t => {
  const { output, status } = await runCheck(program, ['--warnin', '5', '--mode', 'x'], exampleEnvironment())
  t.equal(status, 3)
  t.equal(
    output,
    'check-example UNKNOWN: unknown option --warnin: did you mean --warning?\n--mode x: not one of fast, slow\n',
  )
})

t.test('hostile arguments are told as one harmless line', async t => {
  for (const argument of [
    '--\u001b[31m',
    '--__proto__',
    '--constructor',
    'a\nb',
    `--${'x'.repeat(100_000)}`,
    '-\u0000',
    '--toString=1',
  ]) {
    const { output, status } = await runCheck(program, [argument], exampleEnvironment())
    t.equal(status, 3)
    t.match(output, /^check-example UNKNOWN: [^\p{Cc}]{1,240}\n$/u)
  }
})

t.test('options become typed values, with defaults', async t => {
  const request = (...argv: string[]) => parseCommandLine(program.check, program.validate, argv)
  t.match(request(), {
    kind: 'run',
    common: { timeout: 30, format: 'nagios', verbose: false, uri: undefined },
    options: {
      warning: { end: 80 },
      critical: { end: 90 },
      factor: 1,
      grace: 120,
      mode: 'fast',
      strict: false,
      only: [],
      guest: [],
      minimumOps: undefined,
    },
  })
  const argv = [
    '-w',
    '-5:10',
    '-c=@1:2',
    '--only',
    'a',
    'b',
    '--only',
    'c',
    '-vv',
    '--strict',
    '--name',
    '^x',
    '-t',
    '250ms',
    '--guest',
    'web 01',
    '--factor',
    '0.5',
  ]
  t.match(request(...argv), {
    kind: 'run',
    common: { timeout: 0.25, verbose: true },
    options: {
      warning: { start: -5, end: 10 },
      critical: { inverted: true },
      only: ['a', 'b', 'c'],
      strict: true,
      name: /^x/u,
      guest: ['web 01'],
      factor: 0.5,
    },
  })
})

t.test('help and version exit 3 and win over mistakes', async t => {
  const help = await runCheck(program, ['--nonsense', '-h'], exampleEnvironment())
  t.equal(help.status, 3)
  t.match(help.output, /^Use of an example resource\.\n/)
  for (const option of [
    '-w, --warning',
    '--minimum-ops',
    '--per-guest',
    '-t, --timeout',
    '-u, --uri',
    '--agent-socket',
  ]) {
    t.ok(help.output.includes(option), option)
  }
  t.same(await runCheck(program, ['-V'], exampleEnvironment()), {
    output: 'check-example 1.2.3 (sensu-kvm)\n',
    status: 3,
  })
})

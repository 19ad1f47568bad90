import t from 'tap'
import { parseServiceArguments, usageText } from '../../sensu/command-line.js'

const parse = (...argv: string[]) => parseServiceArguments(argv, { program: 'sensu-client' })
const options = (...argv: string[]) => {
  const parsed = parse(...argv)
  return parsed.kind === 'run' ? parsed.options : parsed
}

t.test('every option, short and long', async t => {
  const all = {
    configFile: 'c.json',
    configDirectories: ['d1', 'd2'],
    extensionDirectory: 'e',
    logFile: 'l',
    logLevel: 'warn',
    pidFile: 'p',
    validateConfig: true,
    printConfig: true,
    background: true,
  }
  const short = '-c c.json -d d1,d2 -e e -l l -L warn -p p --validate_config -P -b'
  const long =
    '--config c.json --config_dir d1,d2 --extension_dir e --log l --log_level WARN --pid_file p --validate_config --print_config --background'
  t.same(options(...short.split(' ')), all)
  t.same(options(...long.split(' ')), all)
  t.same(options('-v'), { logLevel: 'debug' })
  t.same(options('--verbose'), { logLevel: 'debug' })
  t.same(options(), {})
})

t.test('abbreviations, attached values, combined options, order', async t => {
  t.same(options('--valid'), { validateConfig: true })
  t.same(options('--log=x'), { logFile: 'x' }, 'the whole name is not an abbreviation of a longer one')
  t.same(options('--lo', 'x', '--con=c'), { logFile: 'x', configFile: 'c' }, 'of names that begin alike the shortest')
  t.same(options('--log_l=error'), { logLevel: 'error' })
  t.same(options('--config=c', '--config_d=d'), { configFile: 'c', configDirectories: ['d'] })
  t.same(options('-dconf.d', '-lx', '-Lfatal'), { configDirectories: ['conf.d'], logFile: 'x', logLevel: 'fatal' })
  t.same(options('-vbP'), { logLevel: 'debug', background: true, printConfig: true })
  t.same(options('-bl', 'x'), { background: true, logFile: 'x' })
  t.same(options('-l', 'a', '-v', '-l', 'b', '-L', 'info'), { logFile: 'b', logLevel: 'info' }, 'the last one wins')
  t.same(options('-l', '-v'), { logFile: '-v' }, 'a value may look like an option')
  t.same(options('foo', '-v', '-', 'bar'), { logLevel: 'debug' }, 'other arguments are ignored')
  t.same(options('-v', '--', '-b'), { logLevel: 'debug' }, 'nothing after --')
  const parsed = parseServiceArguments(['-l', 'x'], { program: 'p', defaults: { pidFile: 'd', logFile: 'd' } })
  t.same(parsed, { kind: 'run', options: { pidFile: 'd', logFile: 'x' } }, 'defaults of the program')
})

t.test('what cannot be understood ends it with status 1', async t => {
  const refused = {
    '--nope': 'invalid option: --nope',
    '--nope=1': 'invalid option: --nope=1',
    '-x': 'invalid option: -x',
    '-vx': 'invalid option: -x',
    '-l': 'missing argument: -l',
    '--log': 'missing argument: --log',
    '--lo': 'missing argument: --lo',
    '--ver': 'ambiguous option: --ver',
    '--verbose=1': 'needless argument: --verbose=1',
  }
  for (const [argument, message] of Object.entries(refused)) {
    t.same(parse(argument), { kind: 'exit', status: 1, stdout: '', stderr: `${message}\n` }, argument)
  }
  t.same(parse('-L', 'loud'), { kind: 'exit', status: 1, stdout: 'Unknown log level: loud\n', stderr: '' })
})

t.test('help and version end it as soon as they are reached', async t => {
  t.same(parse('-V', '--nope'), { kind: 'exit', status: 0, stdout: '1.9.0\n', stderr: '' })
  t.same(parse('-h', '--nope'), { kind: 'exit', status: 0, stdout: usageText('sensu-client'), stderr: '' })
  t.match(parse('--nope', '-h'), { status: 1 })
  const own = parseServiceArguments(['--version'], { program: 'p', version: '1.9.0 (p 0.1)' })
  t.match(own, { stdout: '1.9.0 (p 0.1)\n' })
})

t.test('usage: a header, then one line an option, texts in one column', async t => {
  const [header, ...lines] = usageText('sensu-kvm-agent').trimEnd().split('\n')
  t.equal(header, 'Usage: sensu-kvm-agent [options]')
  t.equal(lines.length, 12)
  t.match(lines[0], /^ {4}-h, --help {23}\S/)
  t.match(lines[3], /^ {4}-d, --config_dir DIR\[,DIR\] {7}\S/)
  t.match(lines[4], /^ {8}--validate_config {12}\S/)
  for (const line of lines) t.match(line, /^ {4}.{32} \S/, line)
})

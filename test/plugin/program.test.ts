import { once } from 'node:events'
import { type AddressInfo, createServer, type Server } from 'node:net'
import t, { type Test } from 'tap'
import { sendResults } from '../../plugin/agent-socket.js'
import { defineCheck, defineLocalCheck } from '../../plugin/check.js'
import { Verdict } from '../../plugin/outcome.js'
import { runCheck } from '../../plugin/program.js'
import { MemoryState } from '../../plugin/state.js'
import {
  type ExampleGuest,
  type ExampleHost,
  exampleCheck,
  exampleEnvironment,
  hostileNames,
  programOf,
  readText,
} from './example.js'

const program = await programOf(exampleCheck)
const guests: ExampleGuest[] = [
  { name: 'web01', usedPercent: 95 },
  { name: 'web02', usedPercent: 10 },
  { name: 'db 01', usedPercent: 85 },
]

t.test('a run prints its report and exits with the worst status', async t => {
  t.same(await runCheck(program, ['--match', 'web'], exampleEnvironment(guests)), {
    output: `check-example CRITICAL: web01: in use 95 % (critical above 90 %)
CRITICAL web01: in use 95 % (critical above 90 %)
| web01.used_percent=95%;80;90 web02.used_percent=10%;80;90
`,
    status: 2,
  })
  t.match(await runCheck(program, ['--guest', 'web02'], exampleEnvironment(guests)), {
    output: /^check-example OK: 1 guests\n/,
    status: 0,
  })
  t.match(await runCheck(program, ['--exclude', 'web'], exampleEnvironment(guests)), {
    output: /^check-example WARNING: db 01: /,
    status: 1,
  })
})

t.test('a named guest that is not there is UNKNOWN and hides no other', async t => {
  const { output, status } = await runCheck(
    program,
    ['--guest', 'nope', '--guest', 'web01'],
    exampleEnvironment(guests),
  )
  t.equal(status, 2)
  t.match(output, /^UNKNOWN nope: no such guest on qemu:\/\/\/system: correct --guest$/m)
  t.match(await runCheck(program, ['--match', '^nope'], exampleEnvironment(guests)), {
    output: 'check-example UNKNOWN: no guest on qemu:///system matches --match ^nope: correct it\n',
    status: 3,
  })
})

t.test('a guest has its own limits from its metadata; a bad one is UNKNOWN for that guest alone', async t => {
  const limited: ExampleGuest[] = [
    { name: 'busy', usedPercent: 95, limits: { warning: '97', critical: '99' } },
    { name: 'typo', usedPercent: 95, limits: { warnin: '97' } },
    { name: 'broken', usedPercent: 10, limits: { critical: 'lots' } },
  ]
  const { output } = await runCheck(program, ['-v'], exampleEnvironment(limited))
  t.match(output, /^OK busy: in use 95 %$/m)
  t.match(output, /busy\.used_percent=95%;97;99/)
  t.match(output, /^CRITICAL typo: /m)
  t.match(
    output,
    /^UNKNOWN typo: its metadata sets limit "warnin", which this check does not have: use warning, critical$/m,
  )
  t.match(output, /^UNKNOWN broken: its metadata sets critical to "lots", not a range: /m)
})

t.test('the URI comes from the command line, the environment or the default', async t => {
  const asked: unknown[] = []
  const openHost = async (options: { uri: string; readOnly: boolean }) => {
    asked.push([options.uri, options.readOnly])
    return { guests: async () => [], close: async () => undefined }
  }
  await runCheck(program, [], exampleEnvironment([], { openHost }))
  await runCheck(
    program,
    [],
    exampleEnvironment([], { openHost, variables: { LIBVIRT_DEFAULT_URI: 'test:///default' } }),
  )
  await runCheck(
    program,
    ['-u', 'qemu:///session'],
    exampleEnvironment([], { openHost, variables: { LIBVIRT_DEFAULT_URI: 'x' } }),
  )
  t.same(asked, [
    ['qemu:///system', true],
    ['test:///default', true],
    ['qemu:///session', true],
  ])
})

t.test(
  'a check of this machine alone opens no libvirt, has no option for it, and reads below the root it is given',
  async t => {
    const local = defineLocalCheck({
      name: 'check-local',
      summary: 'Reads a file.',
      options: { file: { type: 'string', default: '/etc/motd', summary: 'Which.' } },
      collect: async ({ file }, { path }) => readText(path(file)),
      evaluate: text => Object.assign(new Verdict(), { summary: text }),
    })
    const root = t.testdir({ etc: { motd: 'hello' } })
    const openHost = () => Promise.reject(new Error('opened'))
    const program = await programOf(local)
    const run = async (...argv: string[]) =>
      await runCheck(program, argv, exampleEnvironment([], { openHost, variables: { SENSU_KVM_ROOT: root } }))
    t.same(await run(), { output: 'check-local OK: hello\n', status: 0 })
    t.match(await run('--file', '/nowhere'), { output: /^check-local UNKNOWN: ENOENT.*\/nowhere'\n$/, status: 3 })
    t.match(await run('-u', 'test:///default'), {
      output: 'check-local UNKNOWN: unknown option -u: see --help\n',
      status: 3,
    })
    t.notMatch(program.help, '--uri')
  },
)

t.test('whatever is thrown is UNKNOWN and one line without a stack trace', async t => {
  const failing = (error: unknown) => exampleEnvironment([], { openHost: () => Promise.reject(error) })
  const table: [error: unknown, line: string][] = [
    [
      new Error('cannot reach qemu:///system: no socket /run/x: start libvirtd'),
      'cannot reach qemu:///system: no socket /run/x: start libvirtd',
    ],
    [new Error('two\nlines | and a pipe'), 'two lines / and a pipe'],
    [new TypeError('x is undefined'), 'internal error: x is undefined'],
    ['a text', 'a text'],
    [undefined, 'undefined'],
    [new Error(''), 'Error'],
  ]
  for (const [error, line] of table) {
    t.same(await runCheck(program, [], failing(error)), { output: `check-example UNKNOWN: ${line}\n`, status: 3 })
  }
  const long = await runCheck(program, [], failing(new Error('x'.repeat(10_000))))
  t.ok(long.output.length <= 256)
})

t.test('a failure stays readable for whoever reads the format', async t => {
  const environment = exampleEnvironment([], { openHost: () => Promise.reject(new Error('no socket')) })
  const line = 'check-example UNKNOWN: no socket\n'
  const outputOf = async (format: string) => (await runCheck(program, ['--format', format], environment)).output
  t.equal(await outputOf('prometheus'), `# ${line}`)
  t.equal(await outputOf('influxdb'), `# ${line}`)
  t.equal(await outputOf('graphite'), line)
  t.equal(await outputOf('opentsdb'), line)
  t.match(JSON.parse(await outputOf('json')), {
    status: 'UNKNOWN',
    time: 1_700_000_000,
    findings: [{ message: 'no socket' }],
  })
})

/** A host that never answers, and notes that it was closed. */
function hangingHost() {
  let closed = 0
  const close = async () => {
    closed += 1
  }
  return { host: { guests: () => new Promise<never>(() => undefined), close }, closed: () => closed }
}

t.test('a run that takes too long says in which stage, and closes its connection', async t => {
  const { host, closed } = hangingHost()
  const asking = await runCheck(program, ['-t', '50ms'], exampleEnvironment([], { openHost: async () => host }))
  t.match(asking, { output: /^check-example UNKNOWN: no answer within 0\.05 s while reading guests: .*\n$/, status: 3 })
  t.equal(closed(), 1)
  const connecting = await runCheck(
    program,
    ['-t', '50ms'],
    exampleEnvironment([], { openHost: () => new Promise(() => undefined) }),
  )
  t.match(connecting.output, /while connecting to qemu:\/\/\/system/)
})

t.test('a host is closed once, though both the deadline and the end of the work ask for it', async t => {
  let closed = 0
  let fail: (error: Error) => void = () => undefined
  const close = async () => {
    closed += 1
    fail(new Error('closed'))
  }
  const asked = new Promise<never>((_, reject) => {
    fail = reject
  })
  await runCheck(
    program,
    ['-t', '20ms'],
    exampleEnvironment([], { openHost: async () => ({ guests: () => asked, close }) }),
  )
  await asked.catch(() => undefined)
  await new Promise(setImmediate)
  t.equal(closed, 1)
})

t.test('a connection that is there only after the deadline is closed again', async t => {
  const { host, closed } = hangingHost()
  let open: (value: typeof host) => void = () => undefined
  const opening = new Promise<typeof host>(resolve => {
    open = resolve
  })
  await runCheck(program, ['-t', '20ms'], exampleEnvironment([], { openHost: () => opening }))
  open(host)
  await opening
  await new Promise(setImmediate)
  t.equal(closed(), 1)
})

t.test('the signal of the environment ends a run, before and while it works', async t => {
  const { host } = hangingHost()
  const abort = new AbortController()
  const running = runCheck(program, [], exampleEnvironment([], { openHost: async () => host, signal: abort.signal }))
  setImmediate(() => abort.abort())
  t.same(await running, { output: 'check-example UNKNOWN: stopped while reading guests\n', status: 3 })
  const late = await runCheck(program, [], exampleEnvironment([], { openHost: async () => host, signal: abort.signal }))
  t.match(late.output, /^check-example UNKNOWN: stopped while /)
})

t.test('with --per-guest each guest has its own result and the run counts them', async t => {
  const result = await runCheck(
    program,
    ['--per-guest'],
    exampleEnvironment([...guests, { name: 'ok', usedPercent: 1 }]),
  )
  t.same(result, {
    output: 'check-example OK: 4 guests: 2 OK, 1 WARNING (db_x2001), 1 CRITICAL (web01)\n',
    status: 0,
    guests: [
      {
        source: 'web01',
        output: `check-example CRITICAL: web01: in use 95 % (critical above 90 %)
CRITICAL web01: in use 95 % (critical above 90 %)
| web01.used_percent=95%;80;90
`,
        status: 2,
      },
      { source: 'web02', output: 'check-example OK: web02: in use 10 %\n| web02.used_percent=10%;80;90\n', status: 0 },
      {
        source: 'db_x2001',
        output: `check-example WARNING: db 01: in use 85 % (warning above 80 %)
WARNING db 01: in use 85 % (warning above 80 %)
| db_x2001.used_percent=85%;80;90
`,
        status: 1,
      },
      { source: 'ok', output: 'check-example OK: ok: in use 1 %\n| ok.used_percent=1%;80;90\n', status: 0 },
    ],
  })
})

t.test('hostile guests get valid sources, one each', async t => {
  const { guests: results = [] } = await runCheck(
    program,
    ['--per-guest'],
    exampleEnvironment(hostileNames.map(name => ({ name, usedPercent: 99 }))),
  )
  t.equal(new Set(results.map(({ source }) => source)).size, hostileNames.length)
  for (const { source, output } of results) {
    t.match(source, /^[\w.-]+$/)
    t.equal(output.split('|').length, 2)
    t.equal(output.split('\n').length, 4)
  }
})

/** A client socket that answers every document, and keeps what it was sent. */
async function clientSocket(t: Test, answer: string): Promise<{ address: string; received: string[]; server: Server }> {
  const received: string[] = []
  const server = createServer(socket => {
    let text = ''
    socket.on('error', () => undefined)
    socket.on('data', chunk => {
      text += chunk
      try {
        JSON.parse(text)
      } catch {
        return
      }
      received.push(text)
      socket.end(answer)
    })
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => server.close())
  return { address: `127.0.0.1:${(server.address() as AddressInfo).port}`, received, server }
}

t.test('an executable hands the guests to the client socket of the agent, in bounded portions', async t => {
  const { address, received } = await clientSocket(t, 'ok')
  const many = Array.from({ length: 120 }, (_, index) => ({ name: `vm${index}`, usedPercent: 5 }))
  const environment = exampleEnvironment(many, { deliver: sendResults })
  const { output, status } = await runCheck(
    program,
    ['--per-guest', '--agent-socket', address, '--check-name', 'memory'],
    environment,
  )
  t.same([output, status], ['check-example OK: 120 guests: 120 OK\n', 0])
  const results = received.flatMap(text => JSON.parse(text))
  t.equal(received.length, 3)
  t.equal(results.length, 120)
  t.same(results[0], {
    name: 'memory',
    source: 'vm0',
    output: 'check-example OK: vm0: in use 5 %\n| vm0.used_percent=5%;80;90\n',
    status: 0,
  })
})

t.test('guests that cannot be handed over make the run UNKNOWN', async t => {
  const { address, server } = await clientSocket(t, 'invalid')
  const environment = exampleEnvironment(guests, { deliver: sendResults })
  const refused = await runCheck(program, ['--per-guest', '--agent-socket', address], environment)
  t.same(refused, {
    output: `check-example UNKNOWN: the agent at ${address} refused a guest's result with "invalid": see its log\n`,
    status: 3,
  })
  server.close()
  await once(server, 'close')
  const nobody = await runCheck(program, ['--per-guest', '--agent-socket', address], environment)
  t.match(nobody, {
    output:
      /^check-example UNKNOWN: cannot hand 3 guest results to the agent at 127\.0\.0\.1:\d+: connect ECONNREFUSED .*: start sensu-kvm-agent, or name its client socket with --agent-socket\n$/,
    status: 3,
  })
  t.match(await runCheck(program, ['--per-guest', '--agent-socket', 'here'], environment), {
    output: /not an address: write HOST:PORT/,
    status: 3,
  })
})

t.test('an agent that takes the results and never answers ends in the timeout, naming the stage', async t => {
  const server = createServer(socket => socket.on('error', () => undefined).resume())
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => server.close())
  const address = `127.0.0.1:${(server.address() as AddressInfo).port}`
  const environment = exampleEnvironment(guests, { deliver: sendResults })
  const { output } = await runCheck(program, ['--per-guest', '--agent-socket', address, '-t', '100ms'], environment)
  t.match(output, `no answer within 0.1 s while handing results to the agent at ${address}`)
})

t.test('a check that needs the read-write socket asks for it, and keeps its state apart by its options', async t => {
  const counting = defineCheck({
    name: 'check-count',
    summary: 'Counts its runs.',
    readWrite: true,
    options: { step: { type: 'integer', default: 1, summary: 'Step.' } },
    async collect(_host: ExampleHost, { step }, { state }) {
      const count = Number((await state.read()) ?? 0) + step
      await state.write(count)
      return count
    },
    evaluate: count => Object.assign(new Verdict(), { summary: `${count}` }),
  })
  const readOnly: boolean[] = []
  const environment = exampleEnvironment([], {
    state: new MemoryState(),
    openHost: async options => {
      readOnly.push(options.readOnly)
      return { guests: async () => [], close: async () => undefined }
    },
  })
  const counter = await programOf(counting)
  const run = async (...argv: string[]) => (await runCheck(counter, argv, environment)).output
  t.equal(await run(), 'check-count OK: 1\n')
  t.equal(await run('--step', '5'), 'check-count OK: 5\n')
  t.equal(await run('-t', '5'), 'check-count OK: 2\n', 'common options make no difference')
  t.equal(await run('-u', 'test:///default'), 'check-count OK: 1\n')
  t.same(new Set(readOnly), new Set([false]))
})

/** Runs with `--per-guest` one after the other, as one check that remembers. */
function rememberingRuns(checkName?: string) {
  const state = new MemoryState()
  return (present: readonly ExampleGuest[], ...words: string[]) =>
    runCheck(program, ['--per-guest', ...words], { ...exampleEnvironment(present), state, checkName })
}

t.test('a guest that is gone is resolved once, and nothing is to be waited for', async t => {
  const run = rememberingRuns()
  await run(guests)
  const second = await run(guests.slice(0, 2))
  t.match(second.output, /^check-example OK: 2 guests: 1 OK, 1 CRITICAL \(web01\); 1 gone \(db_x2001\)\n$/)
  t.match(second.guests?.at(-1), { source: 'db_x2001', status: 0, last: true, output: /OK: db 01: no longer on/ })
  t.equal((await run(guests.slice(0, 2))).guests?.length, 2)
  t.notMatch((await run(guests)).guests?.at(-1), { last: true }, 'one that is back is like any other')
})

t.test('--gone critical reports it until it is back, --gone resolve ends that, --gone ignore says nothing', async t => {
  const run = rememberingRuns('guest-memory')
  await run(guests)
  for (const round of [1, 2]) {
    const { guests: results } = await run([], '--gone', 'critical')
    t.match(results, [{ status: 2 }, { status: 2 }, { status: 2 }], `round ${round}`)
    t.notMatch(results?.[0], { last: true })
  }
  t.match((await run(guests.slice(0, 2), '--gone', 'critical')).guests?.at(-1), { source: 'db_x2001', status: 2 })
  t.equal((await run(guests.slice(0, 2), '--gone', 'ignore')).guests?.length, 2)
  t.match((await run(guests.slice(0, 2))).guests?.at(-1), { source: 'db_x2001', status: 0, last: true })
})

t.test('who is gone goes by the name of the results; without one, by the options', async t => {
  const named = rememberingRuns('guest-memory')
  await named(guests)
  const narrowed = await named(guests, '--match', 'web')
  t.match(narrowed.guests?.at(-1), { source: 'db_x2001', last: true }, 'no longer selected: its result must not stay')
  const unnamed = rememberingRuns()
  await unnamed(guests)
  t.equal((await unnamed(guests, '--match', 'web')).guests?.length, 2, 'another use of the same check')
})

t.test('a run that fails, or cannot remember, resolves nobody', async t => {
  const run = rememberingRuns()
  await run(guests)
  t.match(await run(guests, '--no-such-option'), { status: 3, guests: undefined })
  const broken = { open: () => ({ read: () => Promise.reject(new Error('no disk')), write: async () => undefined }) }
  const result = await runCheck(program, ['--per-guest'], { ...exampleEnvironment(guests), known: broken })
  t.match(result, { status: 1, output: /cannot tell which guests are gone: no disk; 3 guests/ })
  t.equal(result.guests?.length, 3)
})

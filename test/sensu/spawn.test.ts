import { readdirSync, readFileSync, readlinkSync } from 'node:fs'
import { createServer } from 'node:net'
import t, { type Test } from 'tap'
import { Float } from '../../sensu/json-value.js'
import { NativeStarter } from '../../sensu/native-start.js'
import { Spawner, type SpawnerOptions, type SpawnRequest } from '../../sensu/spawn.js'
import { isAlive, until } from '../support/processes.js'

type MakeSpawner = (t: Test, options?: Partial<SpawnerOptions>) => Promise<Spawner>

/** The ways to start commands, which nobody is to tell apart. */
const ways: Record<string, MakeSpawner> = {
  'as children of this process': async (t, options = {}) => {
    const made = new Spawner({ limit: 12, ...options })
    t.teardown(() => made.close())
    return made
  },
  'by posix_spawn': async (t, options = {}) => {
    const loadStarter = () => NativeStarter.load({ warn: message => t.fail(message) })
    const made = new Spawner({ limit: 12, ...options, loadStarter })
    t.teardown(() => made.close())
    await Promise.all([made.run({ command: 'true' }), made.run({ command: 'true' })])
    return made
  },
}

for (const [way, spawner] of Object.entries(ways)) t.test(way, t => conform(t, spawner))

/** What is true of a command, however it was started. */
async function conform(t: Test, spawner: MakeSpawner): Promise<void> {
  const run = async (t: Test, request: SpawnRequest) => {
    const { output, status, timedOut } = await (await spawner(t)).run(request)
    return { output: output.toString(), status, timedOut }
  }

  t.test('output and status', async t => {
    const cases: [string, string, number][] = [
      ['echo hello', 'hello\n', 0],
      ['printf hello; exit 1', 'hello', 1],
      [':', '', 0],
      ['exit 255', '', 255],
      ['kill -9 $$', '', 9],
      ['kill -TERM $$', '', 15],
      ['echo "$0 $#"', 'sh 0\n', 0],
    ]
    for (const [command, output, status] of cases) {
      t.same(await run(t, { command }), { output, status, timedOut: false }, command)
    }
    const unknown = await run(t, { command: 'no-such-command-here' })
    t.equal(unknown.status, 127)
    t.match(unknown.output, /^sh: .*no-such-command-here.*not found\n$/, "the shell's own message")
  })

  t.test('output and error come in the order they were written, through one pipe', async t => {
    const command = 'for i in 1 2 3 4 5; do echo out$i; echo err$i >&2; done'
    const lines = [1, 2, 3, 4, 5].map(i => `out${i}\nerr${i}\n`).join('')
    t.same(await run(t, { command }), { output: lines, status: 0, timedOut: false })
    const opened = await run(t, {
      command: 'echo a >/dev/stderr; echo b >/dev/stdout; test -p /dev/stdout && echo pipe',
    })
    t.equal(opened.output, 'a\nb\npipe\n', 'and it can be opened by name')
  })

  t.test('bytes that are not UTF-8, and large output, arrive unchanged', async t => {
    const bytes = await (await spawner(t)).run({ command: "printf 'a\\377b'" })
    t.same(bytes.output, Buffer.from([0x61, 0xff, 0x62]))
    const large = await (await spawner(t)).run({ command: 'head -c 5000000 /dev/zero' })
    t.equal(large.output.length, 5_000_000)
    t.equal(large.truncated, false)
  })

  t.test('output beyond the limit is dropped, the command still ends by itself', async t => {
    const limited = await spawner(t, { maxOutputBytes: 1000 })
    const result = await limited.run({ command: 'head -c 300000 /dev/zero; exit 1' })
    t.match(result, { status: 1, truncated: true })
    t.equal(result.output.length, 1000)
  })

  t.test('an own process group, led by the shell', async t => {
    const { output } = await run(t, { command: 'cut -d " " -f 5 /proc/$$/stat; echo $$' })
    const [group, pid] = output.trim().split('\n')
    t.equal(group, pid)
  })

  t.test('standard input', async t => {
    t.equal((await run(t, { command: 'cat', stdin: '{"a":1}' })).output, '{"a":1}')
    t.equal((await run(t, { command: 'cat /dev/stdin', stdin: 'by name' })).output, 'by name')
    t.equal((await run(t, { command: 'wc -c', stdin: Buffer.alloc(3_000_000) })).output.trim(), '3000000')
    t.equal((await run(t, { command: 'cat', stdin: '' })).output, '', 'empty input')
    for (const command of ['echo not read; exit 1', 'head -c 3 >/dev/null; echo not read; exit 1']) {
      const result = await run(t, { command, stdin: 'x'.repeat(1_000_000) })
      t.same(result, { output: 'not read\n', status: 1, timedOut: false }, 'a command that does not read it')
    }
    const inherited = await run(t, { command: 'readlink /proc/$$/fd/0' })
    t.equal(inherited.output.trim(), readlinkSync('/proc/self/fd/0'), 'without data it is inherited')
  })

  t.test('a time limit ends the command with TERM', async t => {
    const started = performance.now()
    const result = await run(t, { command: 'echo before; sleep 50; echo after', timeoutSeconds: 0.3 })
    t.same(result, { output: 'Execution timed out', status: 2, timedOut: true })
    t.ok(performance.now() - started < 2000, 'soon')
    for (const timeoutSeconds of [0, null, undefined, 100, new Float(100), 100n]) {
      t.equal((await run(t, { command: 'echo in time', timeoutSeconds })).output, 'in time\n', String(timeoutSeconds))
    }
  })

  t.test('who ignores TERM gets KILL after 3 seconds', async t => {
    const started = performance.now()
    const result = await run(t, { command: 'trap "" TERM; echo $$; while :; do sleep 1; done', timeoutSeconds: 0.2 })
    const seconds = (performance.now() - started) / 1000
    t.same(result, { output: 'Execution timed out', status: 2, timedOut: true })
    t.ok(seconds >= 3.1 && seconds < 5, `after ${seconds} s`)
  })

  t.test('nothing of the group survives a time limit, even when its leader ended at once', async t => {
    const file = `${t.testdir()}/pid`
    const command = `sh -c 'trap "" TERM; echo $$ >${file}; while :; do sleep 1; done' & sleep 50`
    const result = await run(t, { command, timeoutSeconds: 0.5 })
    t.equal(result.timedOut, true)
    const pid = Number(readFileSync(file, 'utf8'))
    await until(() => !isAlive(pid))
  })

  t.test('a grandchild in the background delays the result, at most to the time limit', async t => {
    const late = await run(t, { command: 'echo bg; (sleep 0.4; echo late) &' })
    t.same(late, { output: 'bg\nlate\n', status: 0, timedOut: false })
    const tooLate = await run(t, { command: 'echo bg; sleep 50 &', timeoutSeconds: 0.3 })
    t.same(tooLate, { output: 'Execution timed out', status: 2, timedOut: true })
    const own = await run(t, { command: 'echo bg; sleep 0.5 >/dev/null 2>&1 &' })
    t.equal(own.output, 'bg\n', 'one with an own output does not')
  })

  t.test('the output of a process that escaped does not get into later results', async t => {
    const one = await spawner(t, { limit: 1 })
    const file = `${t.testdir()}/pid`
    const command = `setsid sh -c 'trap "" PIPE; echo $$ >${file}; while sleep 0.01; do echo intruder; done' 2>/dev/null & sleep 50`
    t.equal((await one.run({ command, timeoutSeconds: 0.5 })).timedOut, true)
    t.teardown(() => process.kill(Number(readFileSync(file, 'utf8')), 'SIGKILL'))
    for (let i = 0; i < 40; i++) t.equal((await one.run({ command: 'echo own' })).output.toString(), 'own\n')
  })

  t.test('what cannot be started has a result too', async t => {
    const cases: [SpawnRequest, string][] = [
      [{ command: 5 }, 'Unexpected error: all arguments must be String: ["sh", "-c", 5]'],
      [{ command: null }, 'Unexpected error: all arguments must be String: ["sh", "-c", nil]'],
      [{ command: undefined }, 'Unexpected error: all arguments must be String: ["sh", "-c", nil]'],
      [{ command: 'echo a\0b' }, 'Unexpected error: argument cannot contain null bytes: "echo a\\u0000b"'],
      [{ command: 'x', timeoutSeconds: -0.5 }, 'Unexpected error: time interval must not be negative'],
      [{ command: 'x', timeoutSeconds: '5' }, 'Unexpected error: the timeout must be a number of seconds, not "5"'],
      [
        { command: 'x', cwd: '/no/such/directory' },
        'Unexpected error: cannot start sh in /no/such/directory: spawn sh ENOENT',
      ],
    ]
    for (const [request, output] of cases) {
      t.same(await run(t, request), { output, status: 3, timedOut: false })
    }
  })

  t.test('a command longer than the system permits is an error, not a crash', async t => {
    const result = await run(t, { command: `: ${'x'.repeat(300_000)}` })
    t.equal(result.status, 3)
    t.match(result.output, /^Unexpected error: cannot start sh: spawn .*E2BIG/)
  })

  t.test('environment and working directory', async t => {
    const made = await spawner(t, { env: { PATH: process.env['PATH'], OF_SPAWNER: 'a' } })
    const { output } = await made.run({ command: 'echo "$OF_SPAWNER"; pwd', cwd: '/' })
    t.equal(output.toString(), 'a\n/\n')
    const own = await made.run({ command: '/bin/echo "$OF_SPAWNER$OWN"', env: { PATH: process.env['PATH'], OWN: 'b' } })
    t.equal(own.output.toString(), 'b\n')
  })

  t.test('no more run at a time than permitted, the others wait in order', async t => {
    const made = await spawner(t, { limit: 2 })
    const order: number[] = []
    const runs = Array.from({ length: 8 }, (_, i) => made.run({ command: 'sleep 0.05' }).then(() => order.push(i)))
    t.equal(made.running, 2)
    t.equal(made.queued, 6)
    let most = 0
    const watch = setInterval(() => {
      most = Math.max(most, made.running)
    }, 5)
    await Promise.all(runs)
    clearInterval(watch)
    t.equal(most, 2)
    t.same([made.running, made.queued], [0, 0])
    for (const [place, index] of order.entries()) t.ok(Math.abs(place - index) <= 1, 'first come, first served')
  })

  t.test('a full queue is said, at once', async t => {
    const made = await spawner(t, { limit: 1, maxQueued: 1 })
    const [first, second] = [made.run({ command: 'sleep 0.1' }), made.run({ command: 'echo second' })]
    const third = await made.run({ command: 'echo third' })
    t.equal(third.output.toString(), 'Unexpected error: 1 commands are waiting already, this one was not started')
    t.equal(third.status, 3)
    t.equal((await first).status, 0)
    t.equal((await second).output.toString(), 'second\n')
  })

  t.test('aborting ends a running command and takes a waiting one out of the queue', async t => {
    const made = await spawner(t, { limit: 1 })
    const stop = new AbortController()
    const reason = new Error('stopping')
    const file = `${t.testdir()}/pid`
    const running = made.run({ command: `echo $$ >${file}; exec sleep 50`, signal: stop.signal })
    const waiting = made.run({ command: 'echo never', signal: stop.signal })
    const patient = made.run({ command: 'echo after' })
    const pid = () => Number(readFileSync(file, { encoding: 'utf8', flag: 'a+' }))
    await until(() => pid() > 0)
    const ends = Promise.all([t.rejects(running, reason), t.rejects(waiting, reason)])
    stop.abort(reason)
    await ends
    t.equal(isAlive(pid()), false)
    t.equal((await patient).output.toString(), 'after\n')
    await t.rejects(made.run({ command: 'echo x', signal: stop.signal }), reason, 'and nothing is started any more')
    t.same([made.running, made.queued], [0, 0])
  })

  t.test('no descriptor leaks, neither here nor into commands', async t => {
    const made = await spawner(t)
    const server = createServer().listen(0, '127.0.0.1')
    t.teardown(() => server.close())
    await made.run({ command: 'true', stdin: 'x' })
    const open = () => readdirSync('/proc/self/fd').length
    const before = open()
    await Promise.all(Array.from({ length: 60 }, (_, i) => made.run({ command: `exit ${i % 3}`, stdin: 'x' })))
    await made.run({ command: 'sleep 50', timeoutSeconds: 0.1 })
    await made.run({ command: 'x', cwd: '/no/such/directory' })
    t.ok(open() <= before + 16, `${open()} descriptors, ${before} before: at most the pipes that are kept`)
    const { output } = await made.run({ command: 'ls -l /proc/$$/fd; :', stdin: 'x' })
    const ours = output
      .toString()
      .split('\n')
      .filter(line => /socket:|sensu-| [12] -> pipe:/.test(line))
    t.equal(ours.length, 3, `input, output and error: ${ours}`)
  })
}

t.test('nothing is left in the directory for temporary files', async t => {
  const directory = t.testdir()
  const before = process.env['TMPDIR']
  process.env['TMPDIR'] = directory
  t.teardown(() => {
    if (before === undefined) delete process.env['TMPDIR']
    else process.env['TMPDIR'] = before
  })
  const made = new Spawner({ limit: 1 })
  t.teardown(() => made.close())
  await made.run({ command: 'cat', stdin: 'secret' })
  t.same(readdirSync(directory), [])
  process.env['TMPDIR'] = '/no/such/directory'
  const without = new Spawner({ limit: 1 })
  const { output, status } = await without.run({ command: 'true' })
  t.equal(status, 3)
  t.match(output.toString(), /^Unexpected error: cannot make a pipe in \/no\/such\/directory: ENOENT/)
})

import { spawn } from 'node:child_process'
import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { appendFileSync, readFileSync, renameSync, statSync } from 'node:fs'
import { type AddressInfo, createServer } from 'node:net'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { guestEvent, resolvedEvent, runHandler, sectionFile } from '../support/handlers.js'
import { withOwnDirectory } from '../support/own-directory.js'

const name = 'handler-log'

function linesOf(path: string): Record<string, unknown>[] {
  return readFileSync(path, 'utf8')
    .trimEnd()
    .split('\n')
    .map(line => JSON.parse(line))
}

t.test('an event is a line of JSON that says who, where, what and since when', async t => {
  t.testdir({})
  const file = join(t.testdirName, 'events.json')
  const argv = sectionFile(t, name, { file })
  t.match(await runHandler(name, argv, guestEvent()), {
    stdout: `handler-log: web1/memory_check create: written to ${file}\n`,
    stderr: '',
    status: 0,
  })
  t.match(await runHandler(name, argv, resolvedEvent()), {
    stdout: `handler-log: web1/memory_check resolve: written to ${file}\n`,
    status: 0,
  })
  const [problem, end] = linesOf(file)
  t.match(problem, {
    action: 'create',
    status: 'CRITICAL',
    client: 'web1',
    origin: 'kvm-host',
    check: 'memory_check',
    message: 'CRITICAL: web1 on kvm-host: memory_check: memory in use 95 % (critical above 90 %)',
    occurrences: 2,
    last_ok: 1_767_606_000,
    last_state_change: 1_767_606_600,
    history: '0,0,1,2,2',
    silenced: false,
    id: '7c5e0e2f-1111-4222-8333-444455556666',
    output:
      'check-kvm-memory CRITICAL: web1: memory in use 95 % (critical above 90 %)\nCRITICAL web1: memory in use 95 %',
  })
  t.match(end, { status: 'OK', message: 'RESOLVED: web1 on kvm-host: memory_check: memory in use 40 %' })
  t.equal(statSync(file).mode & 0o777, 0o640)
})

t.test('what is there is kept, and a file that was rotated away is begun anew', async t => {
  t.testdir({})
  const file = join(t.testdirName, 'events.json')
  const argv = sectionFile(t, name, { file })
  appendFileSync(file, '{"earlier":true}\n')
  await runHandler(name, argv, guestEvent())
  t.equal(linesOf(file).length, 2)
  renameSync(file, `${file}.1`)
  await runHandler(name, argv, guestEvent())
  t.same([linesOf(file).length, linesOf(`${file}.1`).length], [1, 2])
})

t.test('twenty handlers at once write twenty whole lines', async t => {
  t.testdir({})
  const file = join(t.testdirName, 'events.json')
  const argv = sectionFile(t, name, { file, max_bytes: 65_536 })
  const output = 'x'.repeat(20_000)
  await Promise.all(Array.from({ length: 20 }, () => runHandler(name, argv, guestEvent({ check: { output } }))))
  t.same(
    linesOf(file).map(({ check }) => check),
    Array(20).fill('memory_check'),
  )
})

t.test('a line is bounded whatever the event holds, and is harmless to a terminal', async t => {
  t.testdir({})
  const file = join(t.testdirName, 'events.json')
  const argv = sectionFile(t, name, { file, max_bytes: 1000, content: 'event' })
  const hostile = '\u001b]0;owned\u0007\u202e"\\\n'.repeat(100_000)
  await runHandler(name, argv, guestEvent({ check: { output: hostile, name: 'evil\nname\u001b[2J' } }))
  const text = readFileSync(file, 'utf8')
  t.ok(Buffer.byteLength(text) <= 1000, `${text.length}`)
  t.match(text, /^[\x20-\x7e]*\n$/)
  t.match(linesOf(file), [{ check: 'evil name?[2J', truncated: true }])
})

t.test('the whole event is written on request, when it is short enough', async t => {
  t.testdir({})
  const file = join(t.testdirName, 'events.json')
  await runHandler(name, sectionFile(t, name, { file, content: 'event' }), guestEvent())
  t.same(linesOf(file), [guestEvent()])
})

t.test('a file that cannot be written is a failure that says which and what to do', async t => {
  const directory = t.testdir({})
  const nowhere = join(directory, 'no/such/folder')
  const { stdout, stderr, status } = await runHandler(name, sectionFile(t, name, { file: nowhere }), guestEvent())
  t.equal(stdout, '')
  t.equal(
    stderr,
    `handler-log: cannot append to ${nowhere}: ENOENT: no such file or directory, open '${nowhere}': make it writable for this user, and look whether there is room\n`,
  )
  t.equal(status, 1)
  t.match(await runHandler(name, sectionFile(t, name, { file: '/dev/full' }), guestEvent()), {
    stderr: /^handler-log: cannot append to \/dev\/full: ENOSPC/,
    status: 1,
  })
})

t.test('a file that cannot be written does not keep the message from syslog', async t => {
  t.testdir({})
  const { port, received } = await tcpReceiver(t, 1)
  const syslog = `tcp://127.0.0.1:${port}`
  const argv = sectionFile(t, name, { file: '/nowhere/events.json', syslog })
  const { stderr, status } = await runHandler(name, argv, guestEvent())
  t.match(await received, 'memory_check')
  t.match(stderr, new RegExp(`^handler-log: cannot append to /nowhere/events\\.json: .*; sent to ${syslog}\\n$`))
  t.equal(status, 1)
})

t.test('by UDP a message is one datagram of RFC 5424', async t => {
  t.testdir({})
  const socket = createSocket('udp4')
  t.teardown(() => socket.close())
  socket.bind(0, '127.0.0.1')
  await once(socket, 'listening')
  const syslog = `udp://127.0.0.1:${socket.address().port}`
  const argv = sectionFile(t, name, { syslog, facility: 'local3', tag: 'sensu alerts' })
  const message = once(socket, 'message')
  t.match(await runHandler(name, argv, guestEvent()), {
    stdout: `handler-log: web1/memory_check create: sent to ${syslog}\n`,
    status: 0,
  })
  const [bytes] = (await message) as [Buffer]
  t.match(
    bytes.toString(),
    /^<154>1 \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z \S+ sensu_alerts \d+ create - \{"time":.*"client":"web1".*\}$/,
  )
})

async function tcpReceiver(t: Test, drops: number): Promise<{ port: number; received: Promise<string> }> {
  let left = drops
  let done: (text: string) => void = () => undefined
  const received = new Promise<string>(resolve => {
    done = resolve
  })
  const server = createServer(socket => {
    socket.on('error', () => undefined)
    if (left-- > 0) return socket.resetAndDestroy()
    let text = ''
    socket.on('data', chunk => {
      text += chunk
    })
    socket.on('end', () => done(text))
    return undefined
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => server.close())
  return { port: (server.address() as AddressInfo).port, received }
}

t.test('by TCP its length stands in front', async t => {
  t.testdir({})
  const { port, received } = await tcpReceiver(t, 0)
  t.match(await runHandler(name, sectionFile(t, name, { syslog: `tcp://127.0.0.1:${port}` }), guestEvent()), {
    status: 0,
  })
  const [, length, message = ''] = /^(\d+) (<26>1 .*)$/s.exec(await received) ?? []
  t.equal(Number(length), Buffer.byteLength(message))
})

t.test('a syslog where nobody listens is tried again until the time is nearly over', async t => {
  t.testdir({})
  const argv = sectionFile(t, name, { syslog: 'tcp://127.0.0.1:1', timeout: '3s' })
  const { stderr, status } = await runHandler(name, argv, guestEvent())
  t.match(
    stderr,
    /^handler-log: cannot write to syslog at 127\.0\.0\.1:1 \(TCP\): connect ECONNREFUSED 127\.0\.0\.1:1 \(\d tries in \d\.\d s\)\n$/,
  )
  t.equal(status, 1)
})

/** Prints what the first datagram to a Unix socket holds: Node.js has no such sockets, Perl is on every Debian. */
const datagramReceiver = `use Socket; alarm 30; socket(S, AF_UNIX, SOCK_DGRAM, 0); bind(S, sockaddr_un($ARGV[0])); $| = 1; print "ready\\n"; recv(S, $text, 65536, 0); print $text`

t.test('a local socket of datagrams, as /dev/log is one, is reached', async t => {
  t.testdir({})
  const path = join(withOwnDirectory(t).testdir(), 'log')
  const receiver = spawn('perl', ['-e', datagramReceiver, path], { stdio: ['ignore', 'pipe', 'inherit'] })
  t.teardown(() => receiver.kill())
  const closed = once(receiver, 'close')
  let text = ''
  receiver.stdout.setEncoding('utf8').on('data', chunk => {
    text += chunk
  })
  await once(receiver.stdout, 'data')
  const argv = sectionFile(t, name, { syslog: `unix://${path}`, facility: 'auth' })
  t.match(await runHandler(name, argv, guestEvent({ check: { output: "it's $(touch x)\n" } })), {
    status: 0,
    stderr: '',
  })
  await closed
  t.match(text, /^ready\n<34>.* sensu: \{"time":.*it's \$\(touch x\).*\}\n?$/s)
})

t.test('a local socket of the stream kind is reached', async t => {
  t.testdir({})
  const path = join(withOwnDirectory(t).testdir(), 'log')
  const server = createServer()
  server.listen(path)
  await once(server, 'listening')
  t.teardown(() => server.close())
  const connection = once(server, 'connection').then(([socket]) => once(socket, 'data'))
  const run = runHandler(name, sectionFile(t, name, { syslog: `unix://${path}` }), guestEvent())
  const [chunk] = await connection
  t.match(String(chunk), /^<26>1 .*\}\n$/)
  t.match(await run, { status: 0 })
})

t.test('a dry run prints what would be written, and writes nothing', async t => {
  t.testdir({})
  const file = join(t.testdirName, 'events.json')
  const argv = sectionFile(t, name, { file, syslog: 'udp://127.0.0.1:9' })
  const { stdout, status } = await runHandler(name, [...argv, '--dry-run'], guestEvent())
  t.match(stdout, new RegExp(`^${file}: \\{"time".*\\}\\nudp://127\\.0\\.0\\.1:9: <26>1 .*\\}\\n$`))
  t.equal(status, 0)
  t.throws(() => statSync(file))
})

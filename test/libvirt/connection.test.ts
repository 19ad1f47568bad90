import t, { type Test } from 'tap'
import { Connection, type ConnectionOptions } from '../../libvirt/connection.js'
import { dial } from '../../libvirt/dial.js'
import { procedures } from '../../libvirt/procedures.js'
import { parseUri } from '../../libvirt/uri.js'
import { FakeLibvirtd } from '../support/fake-libvirtd.js'

const places = { systemDirectory: '/nonexistent', runtimeDirectory: undefined, userId: 0 }

async function fake(t: Test): Promise<FakeLibvirtd> {
  const daemon = await FakeLibvirtd.start()
  t.teardown(() => daemon.remove())
  return daemon
}

async function open(t: Test, daemon: FakeLibvirtd, change: Partial<ConnectionOptions> = {}): Promise<Connection> {
  const wire = await dial(parseUri(daemon.uri), { access: 'read', timeoutMs: 1000, places })
  const connection = await Connection.open(wire, {
    label: 'fake',
    remoteUri: 'qemu:///system',
    readOnly: true,
    timeoutMs: 1000,
    keepalive: false,
    maximumInFlight: 3,
    ...change,
  })
  t.teardown(() => connection.close())
  return connection
}

const hostname = (connection: Connection, timeoutMs = 2000) =>
  connection.call({ procedure: procedures.getHostname, timeoutMs }).then(reader => reader.string())

t.test('opening asks for authentication, then for the driver, and nothing else', async t => {
  const daemon = await fake(t)
  daemon.on(procedures.connectOpen, call => {
    t.equal(call.arguments.optionalString(), 'qemu:///system')
    t.equal(call.arguments.u32(), 1, 'read-only')
    call.reply()
  })
  await open(t, daemon)
  t.same(daemon.called, ['AUTH_LIST', 'CONNECT_OPEN'])
})

t.test('polkit is asked when the daemon wants it; SASL is refused with a way out', async t => {
  const daemon = await fake(t)
  daemon.on(procedures.authList, call => call.reply(writer => writer.u32(1).i32(2)))
  let allowed = false
  daemon.on(procedures.connectOpen, call => (allowed ? call.reply() : call.fail(39, 'authentication required')))
  daemon.on(procedures.authPolkit, call => {
    allowed = true
    call.reply(writer => writer.i32(1))
  })
  await open(t, daemon)
  t.same(daemon.called, ['AUTH_LIST', 'CONNECT_OPEN', 'AUTH_POLKIT', 'CONNECT_OPEN'], 'once too early, for nothing')
  daemon.on(procedures.authPolkit, call => call.fail(45, 'keine Rechte'))
  await t.rejects(open(t, daemon), { kind: 'auth', message: /keine Rechte; add the user to group libvirt/ })
  daemon.on(procedures.authList, call => call.reply(writer => writer.u32(1).i32(1)))
  await t.rejects(open(t, daemon), { kind: 'auth', message: /SASL/ })
})

t.test('a failed opening closes the socket', async t => {
  const daemon = await fake(t)
  daemon.on(procedures.connectOpen, call => call.fail(5, 'no driver'))
  await t.rejects(open(t, daemon), { name: 'LibvirtError', code: 5, procedure: 'CONNECT_OPEN' })
  const [socket] = daemon.sockets
  if (socket !== undefined) await new Promise(resolve => socket.once('close', resolve))
  t.equal(daemon.sockets.size, 0)
})

t.test('a daemon that never answers the opening is given up at the deadline', async t => {
  const daemon = await fake(t)
  daemon.ignore(procedures.authList)
  await t.rejects(open(t, daemon, { timeoutMs: 50 }), { name: 'LibvirtTimeoutError', procedure: 'AUTH_LIST' })
})

t.test('an answer in single bytes is as good as a whole one', async t => {
  const daemon = await fake(t)
  daemon.on(procedures.getHostname, call => {
    for (const byte of call.frame(writer => writer.string('node-1'))) call.socket.write(Buffer.from([byte]))
  })
  t.equal(await hostname(await open(t, daemon)), 'node-1')
})

t.test('answers may come in any order', async t => {
  const daemon = await fake(t)
  const answers: (() => void)[] = []
  daemon.on(procedures.getHostname, call => {
    const number = answers.length
    answers.push(() => call.reply(writer => writer.string(`answer ${number}`)))
    if (answers.length === 3) for (const answer of answers.toReversed()) answer()
  })
  const connection = await open(t, daemon)
  t.same(await Promise.all([hostname(connection), hostname(connection), hostname(connection)]), [
    'answer 0',
    'answer 1',
    'answer 2',
  ])
})

t.test('an error answer carries every field, and the connection goes on', async t => {
  const daemon = await fake(t)
  daemon.on(procedures.getHostname, call => call.fail(42, 'Domäne nicht gefunden'))
  const connection = await open(t, daemon)
  await t.rejects(hostname(connection), {
    name: 'LibvirtError',
    code: 42,
    domain: 10,
    level: 2,
    procedure: 'CONNECT_GET_HOSTNAME',
    text: 'Domäne nicht gefunden',
    str1: 'first',
    str2: undefined,
    int1: 7,
    int2: -1,
    notFound: true,
    denied: false,
  })
  daemon.on(procedures.getHostname, call => call.socket.write(call.frame(w => w.i32(1), { status: 1 })))
  await t.rejects(hostname(connection), { kind: 'protocol', message: /CONNECT_GET_HOSTNAME is malformed/ })
  daemon.on(procedures.getHostname, call => call.reply(writer => writer.string('still here')))
  t.equal(await hostname(connection), 'still here')
})

t.test('a call without an answer ends at its deadline and keeps its place until the daemon answers', async t => {
  const daemon = await fake(t)
  const hanging: (() => void)[] = []
  daemon.on(procedures.getType, call => hanging.push(() => call.reply(writer => writer.string('late'))))
  daemon.on(procedures.getHostname, call => call.reply(writer => writer.string('node-1')))
  const connection = await open(t, daemon, { maximumInFlight: 1 })
  let ended = 0
  const startedMs = performance.now()
  await t.rejects(
    connection.call({ procedure: procedures.getType, timeoutMs: 80, guest: 'web1', onLateEnd: () => (ended += 1) }),
    { name: 'LibvirtTimeoutError', procedure: 'CONNECT_GET_TYPE', guest: 'web1', notAsked: false },
  )
  const tookMs = performance.now() - startedMs
  t.ok(tookMs >= 79 && tookMs < 200, `ended after ${tookMs} ms`)
  t.equal(connection.abandonedCalls, 1)
  t.ok(connection.blocked)
  const waiting = hostname(connection)
  t.equal(daemon.count(procedures.getHostname), 0, 'no second call is sent while the place is taken')
  hanging[0]?.()
  t.equal(await waiting, 'node-1', 'the late answer frees the place and is not taken for another')
  t.equal(ended, 1)
  t.equal(connection.abandonedCalls, 0)
})

t.test('calls wait their turn in order, and waiting counts towards the deadline', async t => {
  const daemon = await fake(t)
  let release: (() => void) | undefined
  const order: string[] = []
  daemon.on(procedures.getType, call => {
    release = () => call.reply(writer => writer.string('x'))
  })
  daemon.on(procedures.domainLookupByName, call => {
    order.push(call.arguments.string())
    call.reply(writer => writer.string('n').uuid('0'.repeat(32)).i32(1))
  })
  const connection = await open(t, daemon, { maximumInFlight: 1 })
  const lookup = (name: string, timeoutMs: number) =>
    connection.call({ procedure: procedures.domainLookupByName, timeoutMs, write: w => w.string(name), guest: name })
  const first = connection.call({ procedure: procedures.getType, timeoutMs: 5000 })
  const second = lookup('second', 5000)
  await t.rejects(lookup('impatient', 30), { name: 'LibvirtTimeoutError', guest: undefined }, 'no blame on its guest')
  const third = lookup('third', 5000)
  release?.()
  await Promise.all([first, second, third])
  t.same(order, ['second', 'third'], 'what timed out in the queue is never sent')
})

t.test('giving up a call by signal rejects with the reason', async t => {
  const daemon = await fake(t)
  const connection = await open(t, daemon)
  const controller = new AbortController()
  const call = connection.call({ procedure: procedures.getType, timeoutMs: 5000, signal: controller.signal })
  controller.abort(new Error('enough'))
  await t.rejects(call, /enough/)
  t.equal(connection.abandonedCalls, 1)
  const late = connection.call({ procedure: procedures.getType, timeoutMs: 5000, signal: controller.signal })
  await t.rejects(late, /enough/, 'an aborted signal sends nothing')
})

t.test('whatever is not the protocol ends the connection with one clear error for every call', async t => {
  const cases: [string, (call: import('../support/fake-libvirtd.js').FakeCall) => void, RegExp][] = [
    ['text', call => call.socket.write('HTTP/1.1 400 Bad Request\r\n\r\n'), /a frame of \d+ bytes was announced/],
    ['a length of zero', call => call.socket.write(Buffer.alloc(64)), /a frame of 0 bytes/],
    ['a wrong serial', call => call.socket.write(call.frame(undefined, { serial: 999 })), /serial 999/],
    ['another procedure', call => call.socket.write(call.frame(undefined, { procedure: 3 })), /procedure 3/],
    ['an unknown status', call => call.socket.write(call.frame(undefined, { status: 9 })), /status 9/],
    ['a stream', call => call.socket.write(call.frame(undefined, { type: 3 })), /type 3/],
  ]
  for (const [name, answer, message] of cases) {
    const daemon = await fake(t)
    daemon.on(procedures.getHostname, answer)
    let reason: Error | undefined
    const connection = await open(t, daemon, { onClose: closed => (reason = closed) })
    const other = connection.call({ procedure: procedures.getType, timeoutMs: 5000 })
    const rejected = t.rejects(other, { name: 'LibvirtConnectionError', kind: 'protocol' }, `${name}: the other call`)
    await t.rejects(hostname(connection), { kind: 'protocol', message }, name)
    await rejected
    t.match(reason, { kind: 'protocol' })
    t.ok(connection.closed)
    await t.rejects(hostname(connection), { name: 'LibvirtConnectionError', kind: 'protocol' }, `${name}: later calls`)
  }
})

t.test('a connection closed in the middle of an answer rejects what was pending', async t => {
  const daemon = await fake(t)
  daemon.on(procedures.getHostname, call => {
    const frame = call.frame(writer => writer.string('node-1'))
    call.socket.end(frame.subarray(0, frame.length - 3))
  })
  const connection = await open(t, daemon)
  await t.rejects(hostname(connection), {
    kind: 'closed',
    message: /fake closed the connection \(while waiting for CONNECT_GET_HOSTNAME\)/,
  })
})

t.test('the daemon is pinged when silent, and given up when it does not answer', async t => {
  const daemon = await fake(t)
  let reason: Error | undefined
  const closed = new Promise<void>(resolve => {
    open(t, daemon, {
      keepalive: { intervalMs: 20, count: 2 },
      onClose: error => {
        reason = error
        resolve()
      },
    })
  })
  await closed
  t.match(reason, { kind: 'closed', message: /has not answered a ping for 0.06 s/ })
  t.equal(daemon.called.filter(name => name === '6b656570 1').length, 2)
})

t.test('pings are answered and pongs keep the connection', async t => {
  const daemon = await fake(t)
  daemon.on({ ...procedures.getType, program: 0x6b656570, number: 1 }, call =>
    call.socket.write(daemon.message(2, () => undefined, 0x6b656570)),
  )
  daemon.on(procedures.getHostname, call => call.reply(writer => writer.string('node-1')))
  const connection = await open(t, daemon, { keepalive: { intervalMs: 5, count: 2 } })
  daemon.broadcast(daemon.message(1, () => undefined, 0x6b656570))
  const pong = { ...procedures.getType, program: 0x6b656570, number: 2, name: '6b656570 2' }
  await daemon.untilCalled(pong)
  await daemon.untilCalled({ ...pong, name: '6b656570 1' }, 5)
  t.equal(await hostname(connection), 'node-1')
})

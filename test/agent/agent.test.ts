import { once } from 'node:events'
import { createServer } from 'node:net'
import { connect } from 'amqplib'
import t from 'tap'
import { rabbitmq } from '../support/services.js'
import { AgentProcess } from './agent-process.js'
import { ServerSide } from './server-side.js'

const broker = await rabbitmq(t)
const { host, port, vhost, user, password } = broker
const server = await ServerSide.open(t, broker.url)
const noSockets = { socket: { enabled: false }, http_socket: { enabled: false } }
let clients = 0

/** Configuration of a client nobody else is. */
function configuration(client: object = {}, more: object = {}) {
  const name = `agent-${++clients}`
  const settings = {
    client: { name, address: '127.0.0.9', subscriptions: ['all', 'roundrobin:shared'], ...noSockets, ...client },
    rabbitmq: { host, port, vhost, user, password },
    ...more,
  }
  return { name, files: { 'agent.json': settings } }
}

t.test('keepalives come at once, with everything the client is, in its order, without secrets', async t => {
  const { name, files } = configuration({ zone: 'a', password: 'geheim', nested: [{ api_key: 'k', ok: 1 }] })
  new AgentProcess(t, { files })
  const { text, properties, routingKey } = await server.keepalive(name)
  const { timestamp } = JSON.parse(text)
  t.ok(Math.abs(timestamp - Date.now() / 1000) < 5)
  t.equal(
    text,
    JSON.stringify({
      name,
      address: '127.0.0.9',
      subscriptions: ['all', 'roundrobin:shared', `client:${name}`],
      socket: { enabled: false, bind: '127.0.0.1', port: 3030 },
      http_socket: { enabled: false, bind: '127.0.0.1', port: 3031 },
      zone: 'a',
      password: 'REDACTED',
      nested: [{ api_key: 'REDACTED', ok: 1 }],
      version: '1.9.0',
      timestamp,
    }),
  )
  t.match(properties, { contentType: 'application/octet-stream', deliveryMode: 1, priority: 0 })
  t.equal(routingKey, '')
})

t.test(
  'the queue of fanout subscriptions is named after client, version and start; shared ones after themselves',
  async t => {
    const { name, files } = configuration()
    const before = Math.floor(Date.now() / 1000)
    const agent = new AgentProcess(t, { files })
    await agent.log('scheduling standalone checks')
    const told = agent.lines.filter(({ message }) => /^(subscribing|scheduling)/.test(message))
    t.match(
      told.map(({ message, subscription }) => subscription ?? message),
      ['scheduling keepalives', 'subscribing to client subscriptions', 'all', 'roundrobin:shared', `client:${name}`],
    )
    await server.keepalive(name)
    await server.request(`client:${name}`, { name: 'once', command: 'true' })
    await server.result('once')
    const connection = await connect(broker.url)
    t.teardown(() => connection.close())
    const found: string[] = []
    for (let start = before - 2; start <= Date.now() / 1000; start++) {
      const channel = await connection.createChannel()
      channel.on('error', () => {})
      const queue = `${name}-1.9.0-${start}`
      const answer = await channel.checkQueue(queue).catch(() => undefined)
      if (answer?.consumerCount === 1) found.push(queue)
    }
    t.equal(found.length, 1)
    const channel = await connection.createChannel()
    const shared = await channel.assertQueue('roundrobin:shared', {
      durable: false,
      autoDelete: true,
      exclusive: false,
    })
    t.ok(shared.consumerCount >= 1)
  },
)

t.test('whatever a request is, the agent lives on and says what it dropped', async t => {
  const { name, files } = configuration()
  const agent = new AgentProcess(t, { files, args: [] })
  await server.keepalive(name)
  const exchange = `client:${name}`
  const broken = [
    '',
    'nonsense',
    '{"name":"x","command":"true"',
    '{"name":"x","password":"geheim", broken',
    '5',
    'null',
    '[]',
    '"text"',
    '{}',
    '{"name":5,"command":"true"}',
    '{"name":null}',
    Buffer.from([0xff, 0xfe, 0x00]),
    `{"name":${'['.repeat(100_000)}`,
    `{"x":"${'y'.repeat(2_000_000)}`,
  ]
  for (const body of broken) await server.request(exchange, body)
  const odd = [
    { name: 'hooks-list', command: 'exit 1', hooks: [1] },
    { name: 'hook-empty', command: 'exit 1', hooks: { warning: {} } },
    { name: 'hook-text', command: 'exit 1', hooks: { warning: 'x' } },
    { name: 'command-list', command: ['a'] },
    { name: 'timeout-hash', command: 'true', timeout: {} },
    { name: '', command: 'true' },
    { name: '__proto__', command: 'true' },
    { name: 'constructor', command: 'true' },
    { name: 'source-number', source: 5, command: 'true' },
    { name: 'proxy', proxy_requests: null, command: 'true' },
  ]
  for (const request of odd) {
    await server.request(exchange, request)
    await server.result(request.name)
  }
  await agent.log('dropping an invalid check request', 7)
  const parsing = 'failed to parse the check request payload'
  await agent.log(parsing, 7)
  t.notMatch(JSON.stringify(agent.lines), /geheim/)
  for (const line of agent.lines.filter(({ message }) => message === parsing)) {
    t.ok(JSON.stringify(line).length < 1000, 'a broken request does not flood the log')
  }
  t.equal((await agent.stop()).status, 0)
})

t.test('in safe mode only what is configured here is executed', async t => {
  const checks = { known: { command: 'echo local', subscribers: [], interval: 60 } }
  const { name, files } = configuration({ safe_mode: true }, { checks })
  new AgentProcess(t, { files })
  await server.keepalive(name)
  await server.request(`client:${name}`, { name: 'unknown-in-safe-mode', command: 'echo remote' })
  const refused = await server.result('unknown-in-safe-mode')
  t.match(refused.check, { output: 'Check is not locally defined (safe mode)', status: 3, handle: false })
  await server.request(`client:${name}`, { name: 'known', command: 'echo remote' })
  t.match((await server.result('known')).check, { output: 'local\n', command: 'echo local' })
})

t.test('a check does not run twice at once, for the same source', async t => {
  const { name, files } = configuration()
  const agent = new AgentProcess(t, { files })
  await server.keepalive(name)
  const exchange = `client:${name}`
  const wait = 'while [ ! -e go ]; do sleep 0.02; done'
  await server.request(exchange, { name: 'dup', command: wait })
  await server.request(exchange, { name: 'dup', command: wait })
  await server.request(exchange, { name: 'dup', source: 'other', command: wait })
  await agent.log('previous check command execution in progress')
  agent.touch('go')
  const sources = [(await server.result('dup')).check.source, (await server.result('dup', 2)).check.source]
  t.strictSame(sources.sort(), ['other', undefined])
  await server.request(exchange, { name: 'dup', command: 'echo again' })
  t.equal((await server.result('dup', 3)).check.output, 'again\n')
})

t.test('no more commands run at once than sensu.spawn.limit says', async t => {
  const { name, files } = configuration({}, { sensu: { spawn: { limit: 3 } } })
  new AgentProcess(t, { files })
  await server.keepalive(name)
  for (let n = 0; n < 9; n++) {
    await server.request(`client:${name}`, { name: `par-${n}`, command: 'date +%s%N; sleep 0.2; date +%s%N' })
  }
  const spans: [number, number][] = []
  for (let n = 0; n < 9; n++) {
    const { output } = (await server.result(`par-${n}`)).check
    const [begin = 0, end = 0] = String(output).trim().split('\n').map(Number)
    spans.push([begin, end])
  }
  const most = Math.max(...spans.map(([begin]) => spans.filter(([b, e]) => b <= begin && begin < e).length))
  t.equal(most, 3)
})

t.test('standalone checks run by themselves, subdued ones do not, and keys keep their order', async t => {
  const checks = {
    ticking: { command: 'echo tick', standalone: true, interval: 1, handlers: ['h'] },
    quiet: {
      command: 'echo never',
      standalone: true,
      interval: 1,
      subdue: { days: { all: [{ begin: '00:00:00', end: '23:59:59' }] } },
    },
    others: { command: 'echo never', standalone: true, publish: false, interval: 1 },
  }
  const { name, files } = configuration({ subscriptions: [] }, { checks })
  const agent = new AgentProcess(t, { files })
  const first = await server.result('ticking')
  const second = await server.result('ticking', 2)
  t.equal(Number(second.check.issued) - Number(first.check.issued), 1)
  t.strictSame(Object.keys(first.check), [
    ...['command', 'standalone', 'interval', 'handlers', 'name', 'issued', 'executed', 'duration', 'output', 'status'],
  ])
  t.equal(first.client, name)
  const { quiet } = checks
  t.match(await agent.log('check execution was subdued'), { check: { ...quiet, name: 'quiet', issued: undefined } })
  t.equal(server.results.filter(({ text }) => /"name":"(quiet|others)"/.test(text)).length, 0)
})

t.test('TERM: deregistration first, then the result of what still runs, then the end', async t => {
  const { name, files } = configuration({
    deregister: true,
    deregistration: { handler: 'mine', extra: 'e', name: 'not this' },
    signature: 'sig',
  })
  const agent = new AgentProcess(t, { files })
  await server.keepalive(name)
  await server.request(`client:${name}`, { name: 'long', command: `echo on; while [ ! -e go ]; do sleep 0.02; done` })
  await agent.log('attempting to execute check command')
  agent.kill('SIGTERM')
  const { text } = await server.result('deregistration')
  t.match(
    text,
    new RegExp(
      `^\\{"client":"${name}","check":\\{"handler":"mine","status":1,"extra":"e","name":"deregistration",` +
        '"output":"client initiated deregistration","issued":\\d+,"executed":\\d+\\},"signature":"sig"\\}$',
    ),
  )
  t.match(await agent.log('completing checks in progress'), { checks_in_progress: ['long'] })
  t.equal(agent.running, true)
  agent.touch('go')
  t.match((await server.result('long')).check, { output: 'on\n', status: 0 })
  t.strictSame(await agent.exit, { status: 0, signal: null })
  const sequence = agent.lines.filter(({ level }) => level !== 'debug').map(({ message }) => message)
  t.strictSame(sequence.slice(sequence.indexOf('received signal')), [
    ...['received signal', 'stopping', 'publishing check result', 'completing checks in progress'],
    ...['publishing check result', 'closing client sockets', 'stopping reactor'],
  ])
})

t.test('signals that Sensu leaves to the system end the agent by that signal; INT stops in order', async t => {
  for (const signal of ['SIGQUIT', 'SIGUSR1'] as const) {
    const { name, files } = configuration()
    const agent = new AgentProcess(t, { files })
    await server.keepalive(name)
    agent.kill(signal)
    t.strictSame(await agent.exit, { status: null, signal })
  }
  const { name, files } = configuration()
  const agent = new AgentProcess(t, { files })
  await server.keepalive(name)
  agent.kill('SIGINT')
  t.strictSame(await agent.exit, { status: 0, signal: null })
})

t.test('wrong credentials: said, tried again, and the agent can be stopped', async t => {
  const { files } = configuration({}, { rabbitmq: { host, port, vhost, user, password: 'wrong' } })
  const agent = new AgentProcess(t, { files })
  const line = await agent.log('transport connection error', 3)
  t.match(line, { level: 'warn', reason: 'possible authentication failure. wrong credentials?', user })
  t.notMatch(JSON.stringify(agent.lines), /"wrong"/)
  t.strictSame(await agent.stop(), { status: 0, signal: null })
})

t.test('an exchange of another type: reported, then a new attempt, or the end when so configured', async t => {
  const again = new AgentProcess(t, configuration({ subscriptions: ['amq.direct'] }))
  t.match(await again.log('transport connection error', 2), { level: 'error', error: 'rabbitmq channel error' })
  await again.log('reconnected to transport')
  const transport = { name: 'rabbitmq', reconnect_on_error: false }
  const ending = new AgentProcess(t, configuration({ subscriptions: ['amq.direct'] }, { transport }))
  t.strictSame(await ending.exit, { status: 0, signal: null })
  t.ok(ending.lines.some(({ message }) => message === 'stopping reactor'))
})

t.test('what keeps the agent from running is one clear line and the right status', async t => {
  const invalid = new AgentProcess(t, {
    files: { 'a.json': { client: { name: 'a b' }, sensu_kvm: { in_process: 1 } } },
  })
  t.strictSame(await invalid.exit, { status: 2, signal: null })
  const fatal = invalid.lines.filter(({ level }) => level === 'fatal').map(({ message }) => message)
  t.strictSame(fatal, [
    'client name cannot contain spaces or special characters',
    'sensu_kvm in_process must be boolean',
    'SENSU NOT RUNNING!',
  ])
  const report = new AgentProcess(t, { files: { 'a.json': { sensu_kvm: { colour: 1 } } }, args: ['--validate_config'] })
  t.strictSame(await report.exit, { status: 2, signal: null })
  t.equal(report.text[0], 'configuration is invalid')
  t.match(report.text.join('\n'), /sensu_kvm colour is not a known setting/)

  const unknown = new AgentProcess(t, configuration({}, { transport: { name: 'kafka' } }))
  t.strictSame(await unknown.exit, { status: 1, signal: null })
  const blocker = createServer().listen(0, '127.0.0.1')
  t.teardown(() => blocker.close())
  await once(blocker, 'listening')
  const address = blocker.address()
  const taken = typeof address === 'object' ? address?.port : 0
  const busy = new AgentProcess(t, configuration({ socket: { port: taken } }))
  t.strictSame(await busy.exit, { status: 1, signal: null })
  for (const agent of [unknown, busy]) t.notMatch(agent.text.join('\n'), /^\s+at /m, 'no stack trace')
})

import t, { type Test } from 'tap'
import { createCertificates } from '../../scripts/services/certificates.js'
import { withOwnDirectory } from '../support/own-directory.js'
import { ownRabbitmq, rabbitmq } from '../support/services.js'
import { TcpProxy } from '../transport/tcp-proxy.js'
import { AgentProcess } from './agent-process.js'
import { ServerSide } from './server-side.js'

const [broker, second] = await Promise.all([ownRabbitmq(t, { tls: true }), rabbitmq(t)])
const { user, password } = broker
const [vhost = '/'] = broker.vhosts
const server = await ServerSide.open(t, broker.url())

function start(t: Test, name: string, rabbitmq: unknown): AgentProcess {
  const sockets = { socket: { enabled: false }, http_socket: { enabled: false } }
  const client = { name, address: '127.0.0.9', subscriptions: [], ...sockets }
  return new AgentProcess(withOwnDirectory(t), { files: { 'agent.json': { client, rabbitmq } } })
}

t.setTimeout(60_000)

t.test('TLS: a broker of the right authority and name is taken, every other one refused and told', async t => {
  const { tls } = broker
  if (!tls) throw new Error('the broker has no TLS')
  const { authority, client } = tls.certificates
  const other = await createCertificates(t.testdir())
  const elsewhere = await TcpProxy.start(tls.port, '127.0.0.2')
  t.teardown(() => elsewhere.stop())
  const own = { cert_chain_file: client.certificate, private_key_file: client.key }
  const open = (name: string, ssl: unknown, host = 'localhost', port = tls.port) =>
    start(t, name, { host, port, vhost, user, password, ssl })

  const trusting = open('trusting', { ...own, ca_file: authority })
  const careless = open('careless', own)
  const refused: [AgentProcess, object][] = [
    [
      open('wrong-authority', { ...own, ca_file: other.authority }),
      { host: 'localhost', reason: 'the certificate is not trusted', error: /self-signed certificate/ },
    ],
    [
      open('wrong-name', { ...own, ca_file: authority }, '127.0.0.2', elsewhere.port),
      { host: '127.0.0.2', reason: 'the certificate is for another host', error: /127\.0\.0\.2 is not in the cert/ },
    ],
    [
      open('system-authorities', { ...own, verify_peer: true }),
      { host: 'localhost', reason: 'the certificate is not trusted', error: /self-signed certificate/ },
    ],
    [
      open('no-certificate', { ca_file: authority }),
      { host: 'localhost', reason: 'tls handshake failed', error: /certificate required/ },
    ],
  ]
  for (const name of ['trusting', 'careless']) {
    await server.keepalive(name)
    await server.request(`client:${name}`, { name: `over-tls-${name}`, command: 'echo safe' })
    t.match(await server.result(`over-tls-${name}`), { client: name, check: { output: 'safe\n' } })
  }
  const unverified = 'the certificate of the server is not verified'
  t.match(await careless.log(unverified), { level: 'warn', host: 'localhost', setting: 'rabbitmq ssl ca_file' })
  t.notOk(trusting.lines.some(({ message }) => message === unverified))
  for (const [agent, line] of refused) {
    // two connections an attempt: the third line is of the second attempt
    t.match(await agent.log('transport connection error', 3), { level: 'error', ...line })
    t.notMatch(JSON.stringify(agent.lines), password)
    t.strictSame(await agent.stop(), { status: 0, signal: null })
  }
  const names = new Set(server.keepalives.map(({ text }) => JSON.parse(text).name))
  t.strictSame([...names].sort(), ['careless', 'trusting'])
})

t.test(
  'credentials that are wrong at first: told at each attempt, and when they are right the agent works',
  async t => {
    const late = { user: 'late', password: 'correct horse' }
    const agent = start(t, 'late', { port: broker.port, vhost, ...late })
    const line = { level: 'warn', reason: 'possible authentication failure. wrong credentials?', user: 'late' }
    t.match(await agent.log('transport connection error'), line)
    await broker.control('add_user', late.user, late.password)
    await broker.control('set_permissions', '-p', vhost, late.user, '.*', '.*', '.*')
    await server.keepalive('late')
    t.ok(
      agent.lines
        .filter(({ message }) => message === 'transport connection error')
        .every(({ user }) => user === 'late'),
    )
    t.notMatch(JSON.stringify(agent.lines), late.password)
    await agent.log('reconnected to transport')
  },
)

t.test('of two brokers one that is away at the start costs one pause', async t => {
  // each start shuffles the list anew: until one has begun with the wrong one
  for (let round = 1; ; round++) {
    const agent = start(t, `patient-${round}`, [{ port: 1 }, broker.url()])
    await server.keepalive(`patient-${round}`)
    const failure = agent.lines.find(({ level }) => level === 'error')
    t.strictSame(await agent.stop(), { status: 0, signal: null })
    if (failure === undefined && round < 20) continue
    t.match(failure, { message: '[amqp] Detected TCP connection failure: Errno::ECONNREFUSED', port: 1 })
    break
  }
})

t.test('when the broker dies, the agent goes to the other one of its list, with what it could not deliver', async t => {
  const other = await ServerSide.open(t, second.url)
  const proxy = await TcpProxy.start(second.port)
  t.teardown(() => proxy.stop())
  proxy.refuse()
  const agent = start(t, 'moving', [broker.url(), { ...second, port: proxy.port }])
  await server.keepalive('moving')
  await server.request('client:moving', { name: 'across', command: 'while [ ! -e gone ]; do sleep 0.02; done' })
  await agent.log('received check request')
  proxy.accept()
  await broker.kill()
  await agent.log('reconnecting to transport')
  agent.touch('gone')
  await other.keepalive('moving')
  t.match(await other.result('across'), { client: 'moving', check: { status: 0 } })
  await other.request('client:moving', { name: 'there', command: 'echo works' })
  t.equal((await other.result('there')).check.output, 'works\n')
  t.strictSame(await agent.stop(), { status: 0, signal: null })
})

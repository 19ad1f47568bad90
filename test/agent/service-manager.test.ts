import { mkdirSync, mkdtempSync, rmSync, symlinkSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { delimiter, join } from 'node:path'
import t, { type Test } from 'tap'
import { rabbitmq } from '../support/services.js'
import { TcpProxy } from '../transport/tcp-proxy.js'
import { AgentProcess } from './agent-process.js'
import { NotifySocket } from './notify-socket.js'
import { ServerSide } from './server-side.js'

const broker = await rabbitmq(t)
const proxy = await TcpProxy.start(broker.port)
t.teardown(() => proxy.stop())

/** Short: the path of a Unix socket has 107 characters at most. */
function shortDirectory(t: Test): string {
  const directory = mkdtempSync(join(tmpdir(), 'notify-'))
  t.teardown(() => rmSync(directory, { recursive: true, force: true }))
  return directory
}

function start(t: Test, name: string, env: Record<string, string>): AgentProcess {
  const { user, password, vhost } = broker
  const sockets = { socket: { enabled: false }, http_socket: { enabled: false } }
  const client = { name, address: '127.0.0.9', subscriptions: [], ...sockets }
  const settings = { client, rabbitmq: { port: proxy.port, user, password, vhost } }
  return new AgentProcess(t, { files: { 'agent.json': settings }, args: [], env })
}

t.test('the service manager hears when the agent works, reconnects, reloads and stops', async t => {
  proxy.refuse()
  const socket = await NotifySocket.open(t, join(shortDirectory(t), 's'))
  const agent = start(t, 'notifying', { NOTIFY_SOCKET: socket.path })
  await socket.message(/^STATUS=connecting$/)
  await agent.log('[amqp] Detected TCP connection failure: Errno::ECONNRESET').catch(() => {})
  t.notOk(
    socket.messages.some(message => message.includes('READY=1')),
    'not ready without a broker',
  )
  proxy.accept()
  await socket.message(/^READY=1 STATUS=working$/)
  proxy.refuse()
  await socket.message(/^STATUS=reconnecting$/)
  proxy.accept()
  await socket.message(/^STATUS=working$/)
  agent.kill('SIGHUP')
  await socket.message(/^RELOADING=1/)
  await socket.message(/^READY=1 STATUS=working$/, 2)
  t.strictSame(await agent.stop(), { status: 0, signal: null })
  t.ok(socket.messages.includes('STOPPING=1 STATUS=stopping'))
})

t.test('the watchdog is fed at half of its interval, and not by a stopped loop', async t => {
  proxy.accept()
  const socket = await NotifySocket.open(t, join(shortDirectory(t), 's'))
  const agent = start(t, 'watched', { NOTIFY_SOCKET: socket.path, WATCHDOG_USEC: '400000' })
  await socket.message(/^WATCHDOG=1$/, 3)
  agent.kill('SIGSTOP')
  const before = socket.messages.length
  await new Promise(resolve => setTimeout(resolve, 600)) // more than the whole interval: silence cannot be waited for otherwise
  t.ok(socket.messages.length - before <= 1, 'at most one that was on its way')
  agent.kill('SIGCONT')
  await socket.message(/^WATCHDOG=1$/, 5)
})

t.test('where there is no systemd-notify, Perl speaks; commands do not get the socket', async t => {
  proxy.accept()
  const directory = shortDirectory(t)
  mkdirSync(join(directory, 'bin'))
  for (const program of ['sh', 'perl', 'mkfifo', 'env']) {
    symlinkSync(`/usr/bin/${program}`, join(directory, 'bin', program))
  }
  const socket = await NotifySocket.open(t, join(directory, 's'))
  const server = await ServerSide.open(t, broker.url)
  const PATH = [join(directory, 'bin')].join(delimiter)
  start(t, 'perl', { NOTIFY_SOCKET: socket.path, WATCHDOG_USEC: '60000000', PATH })
  await socket.message(/^READY=1 STATUS=working$/)
  await server.request('client:perl', { name: 'environment', command: 'env' })
  const { check } = await server.result('environment')
  t.notMatch(check['output'], /NOTIFY_SOCKET|WATCHDOG/)
})

t.test('a socket that nobody listens to is told once, and the agent works', async t => {
  proxy.accept()
  const agent = start(t, 'unheard', { NOTIFY_SOCKET: '/nonexistent/notify', WATCHDOG_USEC: '200000' })
  t.match(await agent.log('the service manager cannot be told'), { level: 'warn' })
  await agent.log('client http socket disabled per configuration')
  t.strictSame(await agent.stop(), { status: 0, signal: null })
  t.equal(agent.lines.filter(({ message }) => message === 'the service manager cannot be told').length, 1)
})

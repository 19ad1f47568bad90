import { existsSync, readFileSync, renameSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { rabbitmq } from '../support/services.js'
import { AgentProcess } from './agent-process.js'
import { ServerSide } from './server-side.js'

const broker = await rabbitmq(t)
const server = await ServerSide.open(t, broker.url)

function configuration(name: string, client: object = {}) {
  const sockets = { socket: { enabled: false }, http_socket: { enabled: false } }
  return { 'agent.json': { client: { name, subscriptions: [], ...sockets, ...client }, rabbitmq: broker.url } }
}

/** Messages of the log file, one after the other. */
function messages(file: string): string[] {
  const lines = readFileSync(file, 'utf8').split('\n').filter(Boolean)
  return lines.map(line => JSON.parse(line).message)
}

function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0)
    // a zombie whose parent does not care has ended too
    return !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'))
  } catch {
    return false
  }
}

t.test('-b: the command returns at once, and the agent goes on in a session of its own', async t => {
  const agent = new AgentProcess(t, {
    files: configuration('background', { deregister: true }),
    args: ['-b', '-l', 'log', '-p', join(t.testdirName, 'pid')],
  })
  t.strictSame(await agent.exit, { status: 0, signal: null })
  const pid = await agent.pidFile('pid')
  t.teardown(() => {
    if (isRunning(pid)) process.kill(pid, 'SIGKILL')
  })
  t.ok(pid > 0 && pid !== agent.pid)
  await server.keepalive('background')
  const command = 'pwd; ps -o sid= -p $PPID; env | grep -c BACKGROUND'
  await server.request('client:background', { name: 'where', command })
  const [directory, session, marks] = String((await server.result('where')).check.output).split('\n')
  t.strictSame([directory, Number(session), marks], ['/', pid, '0'])
  process.kill(pid, 'SIGHUP')
  await server.request('client:background', { name: 'after-hup', command: 'true' })
  await server.result('after-hup')
  process.kill(pid, 'SIGTERM')
  await server.result('deregistration')
  while (isRunning(pid)) await sleep(20)
  const said = messages(join(agent.directory, 'log'))
  t.equal(said.at(-1), 'stopping reactor')
  t.equal(said.filter(message => message === 'configuring sensu spawn').length, 1, 'nothing is logged twice')
})

t.test('a PID file that cannot be written ends the start with status 2', async t => {
  const agent = new AgentProcess(t, { files: configuration('pid'), args: ['-p', '/nonexistent/pid'] })
  t.strictSame(await agent.exit, { status: 2, signal: null })
  const fatal = agent.lines.filter(({ level }) => level === 'fatal').map(({ message }) => message)
  t.strictSame(fatal, ['could not write to pid file', 'SENSU NOT RUNNING!'])
})

t.test('USR2 opens the log file anew, TRAP switches debugging on and off', async t => {
  const agent = new AgentProcess(t, { files: configuration('signals'), args: ['-l', 'log'] })
  const log = join(agent.directory, 'log')
  await server.keepalive('signals')
  const ask = async (name: string) => {
    await server.request('client:signals', { name, command: 'true' })
    await server.result(name)
  }
  renameSync(log, `${log}.1`)
  agent.kill('SIGUSR2')
  while (!existsSync(log)) await sleep(10)
  await ask('quiet')
  t.strictSame(messages(log), ['received check request', 'publishing check result'])
  agent.kill('SIGTRAP')
  for (let round = 0; !messages(log).includes('processing check'); round++) await ask(`loud-${round}`)
  agent.kill('SIGTERM')
  t.strictSame(await agent.exit, { status: 0, signal: null })
})

t.test('help, version and misuse need no configuration', async t => {
  const run = async (...args: string[]) => {
    const agent = new AgentProcess(t, { files: {}, args })
    const { status } = await agent.exit
    return { status, first: agent.text[0] }
  }
  t.strictSame(await run('--version'), { status: 0, first: '1.9.0' })
  t.strictSame(await run('--help'), { status: 0, first: 'Usage: sensu-kvm-agent [options]' })
  t.strictSame(await run('--nope'), { status: 1, first: 'invalid option: --nope' })
  t.strictSame(await run('-L', 'loud'), { status: 1, first: 'Unknown log level: loud' })
})

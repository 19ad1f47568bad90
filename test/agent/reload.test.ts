import { writeFileSync } from 'node:fs'
import { connect, createServer } from 'node:net'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { findFreePort, waitUntil } from '../../scripts/services/process.js'
import { isAlive } from '../../scripts/services/watchdog.js'
import { rabbitmq } from '../support/services.js'
import { AgentProcess } from './agent-process.js'
import { ServerSide } from './server-side.js'

const broker = await rabbitmq(t)
const server = await ServerSide.open(t, broker.url)
let clients = 0

function configuration(client: { name: string; [key: string]: unknown }, more: object = {}): object {
  const sockets = { socket: { enabled: false }, http_socket: { enabled: false } }
  return { client: { address: '127.0.0.9', subscriptions: [], ...sockets, ...client }, rabbitmq: broker.url, ...more }
}

async function start(t: Test, client: object = {}, more: object = {}) {
  const name = `reload-${++clients}`
  const agent = new AgentProcess(t, { files: { 'agent.json': configuration({ name, ...client }, more) } })
  await server.keepalive(name)
  const rewrite = (content: object | string) => {
    const text = typeof content === 'string' ? content : JSON.stringify(content)
    writeFileSync(join(agent.directory, 'conf.d/agent.json'), text)
    agent.kill('SIGHUP')
  }
  return { agent, name, rewrite }
}

/** What the client socket at the port answers to a ping; undefined when nobody listens. */
function ping(port: number): Promise<string | undefined> {
  return new Promise(resolve => {
    const socket = connect(port, '127.0.0.1')
    socket.on('error', () => resolve(undefined))
    socket.on('connect', () => socket.write('ping'))
    socket.on('data', data => resolve(data.toString()))
  })
}

t.setTimeout(60_000)

t.test('HUP takes a changed configuration over; what runs goes on, and its result is published', async t => {
  const { agent, name, rewrite } = await start(t, { subscriptions: ['old', 'both'] })
  await server.request('old', {
    name: 'running',
    command: 'touch started; while [ ! -e done ]; do sleep 0.05; done; echo ended',
  })
  await agent.file('started')
  rewrite(
    configuration(
      { name, subscriptions: ['both', 'new'], team: 'storage', signature: 'signed' },
      { checks: { often: { standalone: true, interval: 1, command: 'echo :::team:::' } } },
    ),
  )
  await agent.log('configuration reloaded')
  t.match(JSON.parse((await server.keepalive(name, 2)).text), {
    team: 'storage',
    subscriptions: ['both', 'new', `client:${name}`],
  })
  t.match((await server.result('often')).check, { output: 'storage\n', status: 0 })
  for (const subscription of ['both', 'new', `client:${name}`]) {
    const check = `asked-${subscription.replace(':', '-')}`
    await server.request(subscription, { name: check, command: 'echo :::team:::' })
    t.match(await server.result(check), { check: { output: 'storage\n' }, signature: 'signed' })
  }
  await server.request(`client:${name}`, { name: 'running', command: 'true' })
  await agent.log('previous check command execution in progress')
  agent.touch('done')
  t.match((await server.result('running')).check, { output: 'ended\n', status: 0 })
  rewrite(configuration({ name, subscriptions: [] }))
  await agent.log('configuration reloaded', 2)
  const sofar = server.results.length
  // two intervals of the check that is no more
  await sleep(2100)
  t.equal(server.results.length, sofar)
  t.strictSame(await agent.stop(), { status: 0, signal: null })
})

t.test('a subscription that is removed ends, and the others lose nothing by that', async t => {
  const { agent, name, rewrite } = await start(t, { subscriptions: ['old', 'kept', 'roundrobin:old'] })
  for (const exchange of ['old', 'kept']) await server.request(exchange, { name: `first-${exchange}`, command: 'true' })
  await server.request('roundrobin:old', { name: 'first-shared', command: 'true' }, 'direct')
  await server.result('first-shared')
  rewrite(configuration({ name, subscriptions: ['kept'] }))
  const refused: number[] = []
  let asked = 0
  for (; !agent.lines.some(({ message }) => message === 'configuration reloaded'); asked++) {
    if (!(await server.offer('kept', { name: `kept-${asked}`, command: 'true' }))) refused.push(asked)
  }
  t.strictSame(refused, [], `${asked} requests had somebody who wanted them`)
  for (let n = 0; n < asked; n++) await server.result(`kept-${n}`)
  t.equal(await server.offer('old', { name: 'too-late', command: 'true' }), false)
  t.equal(await server.offer('roundrobin:old', { name: 'too-late', command: 'true' }, 'direct'), false)
})

t.test('a bad configuration is refused with the report of --validate_config, and the old one stays', async t => {
  const { agent, name, rewrite } = await start(t, { team: 'storage' })
  const broken = { checks: { bad: { command: 5, standalone: true, interval: 0, password: 'secret' } } }
  rewrite(configuration({ name, team: 'web' }, broken))
  const { errors } = await agent.log('configuration is invalid')
  const messages = (list: unknown) => (list as { message: string }[]).map(({ message }) => message)
  t.ok(messages(errors).length > 1)
  t.notMatch(JSON.stringify(errors), /secret/, 'a log line has no secrets')
  await t.test('as reported', async t => {
    const files = { 'agent.json': configuration({ name, team: 'web' }, broken) }
    const validation = new AgentProcess(t, { files, args: ['--validate_config'] })
    await validation.exit
    t.strictSame(messages(errors), messages(JSON.parse(validation.text.slice(1).join('\n')).errors))
  })
  rewrite('{"client": ')
  await agent.log('configuration is invalid', 2)
  rewrite(configuration({ name }, { sensu_kvm: { nonsense: 1 } }))
  t.match(await agent.log('configuration is invalid', 3), { errors: [{ message: /nonsense is not a known setting/ }] })
  await agent.log('the configuration was not reloaded, the one before stays in force', 3)
  await server.request(`client:${name}`, { name: 'old-team', command: 'echo :::team:::' })
  t.equal((await server.result('old-team')).check.output, 'storage\n')
})

t.test('HUP with nothing new to read ends a process in the foreground, as a terminal does that closes', async t => {
  const { agent, name, rewrite } = await start(t, { team: 'storage' })
  const same = configuration({ name, team: 'storage' })
  rewrite('{')
  await agent.log('the configuration was not reloaded, the one before stays in force')
  rewrite(same)
  await agent.log('configuration reloaded')
  t.equal(agent.running, true, 'there was something new since it was last read')
  rewrite(same)
  t.strictSame(await agent.exit, { status: null, signal: 'SIGHUP' })
})

t.test('what a running agent cannot change is named, and stays', async t => {
  const { agent, name, rewrite } = await start(t)
  rewrite({
    ...configuration(
      { name: 'renamed', team: 'web' },
      { sensu: { spawn: { limit: 3 } }, sensu_kvm: { in_process: false } },
    ),
    rabbitmq: { host: '127.0.0.1', port: 1 },
  })
  const { settings } = await agent.log('changes that take effect only after a restart')
  t.strictSame(settings, ['client name', 'sensu spawn', 'rabbitmq', 'sensu_kvm in_process'])
  t.match(JSON.parse((await server.keepalive(name, 2)).text), { name, team: 'web', subscriptions: [`client:${name}`] })
  await server.request(`client:${name}`, { name: 'still-here', command: 'echo :::team:::' })
  t.match(await server.result('still-here'), { client: name, check: { output: 'web\n' } })
})

t.test('sockets move; a port that is taken refuses the whole, and the old one is open again', async t => {
  const [first, second] = [await findFreePort(), await findFreePort()]
  const { agent, name, rewrite } = await start(t, { socket: { port: first } })
  t.equal(await ping(first), 'pong')
  rewrite(configuration({ name, socket: { port: second } }))
  await agent.log('configuration reloaded')
  t.strictSame([await ping(first), await ping(second)], [undefined, 'pong'])
  const taken = createServer().listen(0, '127.0.0.1')
  await new Promise(resolve => taken.once('listening', resolve))
  t.teardown(() => taken.close())
  const address = taken.address()
  const port = typeof address === 'object' ? address?.port : undefined
  rewrite(configuration({ name, team: 'web', socket: { port } }))
  t.match(await agent.log('the configuration was not reloaded, the one before stays in force'), { error: /EADDRINUSE/ })
  t.equal(await ping(second), 'pong')
  rewrite(configuration({ name, http_socket: { port: first, user: 'u', password: 'p' } }))
  await agent.log('configuration reloaded', 2)
  const response = await fetch(`http://127.0.0.1:${first}/settings`, {
    headers: { authorization: `Basic ${btoa('u:p')}` },
  })
  t.equal(response.status, 200)
  t.equal(await ping(second), undefined)
})

t.test('in the background HUP finds the configuration by the relative path it was given', async t => {
  const name = `reload-${++clients}`
  const files = { 'agent.json': configuration({ name }) }
  const agent = new AgentProcess(t, {
    files,
    args: ['-d', 'conf.d', '-b', '-l', 'log', '-p', join(t.testdirName, 'pid')],
  })
  await agent.exit
  const pid = await agent.pidFile('pid')
  t.teardown(() => {
    try {
      process.kill(pid, 'SIGKILL')
    } catch {
      // gone already, as it should
    }
  })
  await server.keepalive(name)
  writeFileSync(join(agent.directory, 'conf.d/agent.json'), JSON.stringify(configuration({ name, team: 'night' })))
  process.kill(pid, 'SIGHUP')
  t.match(JSON.parse((await server.keepalive(name, 2)).text), { team: 'night' })
  process.kill(pid, 'SIGTERM')
  await waitUntil('it has ended', () => !isAlive(pid) || undefined, { timeoutMs: 20_000 })
})

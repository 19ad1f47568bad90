// Replays what was recorded of Sensu 1.9's client, beyond check requests (recorded-requests) and TCP and HTTP (recorded-sockets), against
// the built agent, a real broker and a real Redis. What differs on purpose is in `deliberate`.
import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { existsSync, readdirSync, renameSync, rmSync } from 'node:fs'
import { connect } from 'node:net'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { Redis as RedisClient } from 'ioredis'
import t, { type Test } from 'tap'
import { findFreePort } from '../../scripts/services/process.js'
import { ownRabbitmq, redis } from '../support/services.js'
import { TcpProxy } from '../transport/tcp-proxy.js'
import { AgentProcess, type LogLine } from './agent-process.js'
import { withOwnDirectory } from './own-directory.js'
import { comparableLines, recordedCase, recordedConfiguration, told, withoutPlace } from './recorded-case.js'
import { ServerSide } from './server-side.js'

interface Difference {
  reason: string
  /** The results published instead; as recorded when absent. */
  results?: string[]
  /** What the log says from the level info on, instead. */
  told?: string[]
}

const dropped = ['error dropping an invalid check request']
/** A broken hook is told before the check is published without it. */
const hookTold = (text: string) => ['info received check request', `error ${text}`, 'info publishing check result']
const uncaught =
  'the reference ends, or goes on with what it leaked, on an uncaught error; here the request is dropped and told'
const rawMessage =
  'the reference logs the whole body as the message, and with it secrets; here the message says what is wrong'
const unhooked = (name: string, hooks: string) =>
  `{"client":"CLIENT","check":{"name":"${name}","command":"exit 2","hooks":${hooks},"executed":0,"duration":0.0,"output":"","status":2}}`
const brokenHook = 'the reference ends, or never publishes, when a hook is broken; the check itself has a result'

/** Everything that differs on purpose, by case; `*` stands for the prefix of cases with and without the global error handler. */
const deliberate: Readonly<Record<string, Difference>> = {
  bad_empty: { reason: rawMessage, told: ['error failed to parse the check request payload'] },
  bad_single_quotes: { reason: rawMessage, told: ['error failed to parse the check request payload'] },
  bad_trailing: { reason: rawMessage, told: ['error failed to parse the check request payload'] },
  bad_two_objects: { reason: rawMessage, told: ['error failed to parse the check request payload'] },
  bad_utf8: { reason: uncaught, told: dropped },
  '*array': { reason: uncaught, told: dropped },
  '*empty_object': { reason: uncaught, told: dropped },
  '*name_integer': { reason: uncaught, told: dropped },
  '*no_name': { reason: uncaught, told: dropped },
  '*null': { reason: uncaught, told: dropped },
  '*number': { reason: uncaught, told: dropped },
  '*nan': {
    reason: 'NaN is no JSON; other readers of the result could not parse it',
    results: [],
    told: ['error failed to parse the check request payload'],
  },
  '*hook_no_command': {
    reason: brokenHook,
    results: [unhooked('hk2', '{"critical":{}}')],
    told: hookTold('check hook command must be a string'),
  },
  '*hook_not_hash': {
    reason: brokenHook,
    results: [unhooked('hk', '{"critical":"x"}')],
    told: hookTold('check hook command must be a string'),
  },
  '*hooks_not_hash': {
    reason: brokenHook,
    results: [unhooked('hk3', '"abc"')],
    told: hookTold('check hooks must be a hash'),
  },
  '*name_invalid_utf8': { reason: uncaught, told: dropped },
  udp_big_60k: { reason: 'the reference cuts datagrams at 16 KiB; here a whole datagram is read' },
  standalone_non_ascii: { reason: 'the reference strips what is not ASCII; here it is kept' },
  standalone_hooks_state_kept_between_runs: {
    reason: "the reference writes a hook's outcome, and secrets in its command, into its own configuration",
  },
  deregistration_custom: { reason: 'the Ruby extension of the recorded client is not there' },
  signals_HUP: { reason: 'HUP reloads the configuration instead of ending the agent' },
  stop_hangs_with_leaked_in_progress_key: { reason: 'nothing leaks, so the agent ends' },
  stop_while_disconnected: { reason: 'the last result is kept for the next start instead of lost' },
  transport_loss_and_recovery: { reason: 'no result is lost, so none is said to be' },
  transport_channel_error: {
    reason: 'a keepalive that the broker did not confirm is told; the reference does not know',
  },
  transport_wrong_password: { reason: 'the reference tells of a refused connection as lost, too' },
  redis_silent: { reason: 'the reference does not say that it cannot connect' },
  redis_secrets: { reason: 'passwords are not logged' },
  redis_stop: { reason: 'the reference unsubscribes by an unknown command and tells the error' },
}

function reasonOf(name: string): string {
  const difference = deliberate[name]
  if (!difference) throw new Error(`${name} does not differ on purpose`)
  return difference.reason
}

const [firstVhost, secondVhost, thirdVhost] = ['/sensu', '/second', '/third']
const broker = await ownRabbitmq(t, { vhosts: [firstVhost, secondVhost, thirdVhost] })
const { user, password } = broker
const server = await ServerSide.open(t, broker.url(firstVhost))
/** Nothing listens there. */
const closedPort = await findFreePort()
/** The ports that the recorded clients found a broker at, behind a relay, and none. */
const brokerPorts: Readonly<Record<number, number>> = { 5672: broker.port, 5679: closedPort, 5674: closedPort }

/** A recorded `rabbitmq` section, for the broker of this test. */
function rabbitmqHere(recorded: unknown, port?: number): object {
  if (Array.isArray(recorded)) return recorded.map(entry => rabbitmqHere(entry, port))
  const section = recorded as { port?: number; password: string }
  const here = port ?? brokerPorts[section.port ?? 5672] ?? broker.port
  return { ...section, port: here, password: section.password === 'secret' ? password : section.password }
}

/** A recorded configuration with ports that are free here. */
async function here(recorded: Record<string, unknown>, port?: number) {
  const client: Record<string, unknown> = { ...(recorded['client'] as object) }
  for (const name of ['socket', 'http_socket']) {
    const socket = client[name] as { port?: number; enabled?: boolean } | undefined
    if (socket?.port !== undefined) client[name] = { ...socket, port: await findFreePort() }
    else if (socket?.enabled !== false && client['name'] !== undefined) {
      // the recorded client opened the default port, which may be taken here
      client[name] = { ...socket, ...(name === 'http_socket' && socket === undefined ? { enabled: false } : {}) }
    }
  }
  const { rabbitmq } = recorded
  const own = { host: broker.host, port: port ?? broker.port, vhost: firstVhost, user, password }
  const empty = rabbitmq === undefined || JSON.stringify(rabbitmq) === '{}'
  return { ...recorded, client, rabbitmq: empty ? own : rabbitmqHere(rabbitmq, port) }
}

function portOf(configuration: { client: Record<string, unknown> }, socket: 'socket' | 'http_socket'): number {
  return (configuration.client[socket] as { port: number }).port
}

async function sendDatagram(port: number, text: string): Promise<void> {
  const socket = createSocket('udp4')
  await new Promise<void>((resolve, reject) => {
    socket.send(text, port, '127.0.0.1', error => (error ? reject(error) : resolve()))
  })
  socket.close()
}

/** Sends one request and returns everything until the other side closes. */
async function ask(port: number, request: string): Promise<string> {
  const socket = connect(port, '127.0.0.1', () => socket.write(request))
  const chunks: Buffer[] = []
  socket.on('data', chunk => chunks.push(chunk))
  await once(socket, 'close')
  return Buffer.concat(chunks).toString()
}

/** Waits for a condition on what the agent logged. */
async function untilTold(agent: AgentProcess, condition: (lines: readonly LogLine[]) => boolean): Promise<void> {
  while (!condition(agent.lines)) {
    if (!agent.running) throw new Error(`the agent ended: ${agent.text.join('\n')} ${told(agent.lines).join('\n')}`)
    await sleep(10)
  }
}

/** What is told once the configuration is loaded. */
function sinceStart(lines: readonly (LogLine | string)[]): string[] {
  const texts = told(lines)
  return texts.slice(texts.indexOf('info configuring sensu spawn'))
}

const withoutRepetition = (lines: string[]) => lines.filter((line, index) => line !== lines[index - 1])

/** Replays broken and odd check requests, one after the other: their results and what the log says of them. */
async function replayRequests(t: Test, agent: AgentProcess, client: string, names: readonly string[], side = server) {
  for (const name of names) {
    const { input, observed } = recordedCase(name)
    const difference = deliberate[name] ?? deliberate[name.replace(/^malformed_request_(global_error_handler_)?/, '*')]
    const before = { lines: agent.lines.length, results: side.results.length }
    const body = typeof input.raw === 'string' ? input.raw : Buffer.from(input.raw.base64, 'base64')
    await side.request(`client:${client}`, body)
    const wantedResults = difference?.results ?? observed.results_raw ?? []
    const ofClient = () => side.results.slice(before.results).filter(({ text }) => text.includes(`"${client}"`))
    while (ofClient().length < wantedResults.length) await sleep(5)
    // what it would say by mistake, it has said before it answers the next request
    await side.request(`client:${client}`, { name: `after_${name}`, command: 'true' })
    await side.result(`after_${name}`)
    // the result and the log come on different ways
    const answered = ({ message, payload }: LogLine) =>
      message === 'publishing check result' && JSON.stringify(payload).includes(`"after_${name}"`)
    await untilTold(agent, lines => lines.slice(before.lines).some(answered))
    const results = ofClient().filter(({ text }) => !text.includes('"after_'))
    t.strictSame(
      results.map(({ text }) => withoutPlace(text)),
      wantedResults.map(text => withoutPlace(text.replace('CLIENT', client))),
      `${name}: results`,
    )
    const lines = agent.lines.slice(before.lines).filter(line => !JSON.stringify(line).includes('after_'))
    t.strictSame(told(lines), difference?.told ?? told(observed.client_log), `${name}: log`)
  }
}

const casesNamed = (pattern: RegExp) =>
  readdirSync(join(import.meta.dirname, '../../../test/fixtures/client'))
    .map(file => file.replace('.json', ''))
    .filter(name => pattern.test(name))

t.jobs = 4

t.test('keepalive_*: what a client says of itself, at once', { buffered: true }, async t => {
  const ubuntu = {
    ...{ name: 'ubuntu', address: '127.0.0.1', subscriptions: ['base'] },
    socket: { bind: '127.0.0.1', port: 3030 },
  }
  const side = await ServerSide.open(t, broker.url(secondVhost))
  for (const name of ['probe-a', 'probe-min', 'probe-safe', 'probe-sig', 'ubuntu']) {
    const { input, observed } = recordedCase(`keepalive_${name}`)
    const [recordedClient = ubuntu] = input.client_config ?? []
    const recorded = { client: recordedClient, rabbitmq: { vhost: secondVhost, user, password: 'secret' } }
    const files = { 'c.json': await here(recorded) }
    if (name === 'ubuntu') files['c.json'].client['http_socket'] = undefined
    const agent = new AgentProcess(t, { files, args: [] })
    const { text, properties, routingKey } = await side.keepalive(name)
    const [wanted] = observed.messages
    t.equal(withoutPlace(text), withoutPlace(wanted?.raw ?? ''), name)
    t.match(properties, wanted?.properties ?? {}, `${name}: properties`)
    t.equal(routingKey, wanted?.routing_key)
    await agent.stop()
  }
})

t.test('udp_*, bad_*: datagrams and broken requests', { buffered: true }, async t => {
  const side = await ServerSide.open(t, broker.url(thirdVhost))
  const configuration = await here({
    client: recordedConfiguration('a__01_client').client,
    rabbitmq: { vhost: thirdVhost, user, password: 'secret' },
  })
  const agent = new AgentProcess(t, { files: { 'c.json': configuration } })
  await side.keepalive('probe-a')
  const ofSocket = /^(socket received|publishing check result|failed to process check result|data from socket)/
  for (const name of casesNamed(/^udp_(?!big)/)) {
    const { input, observed } = recordedCase(name)
    const before = agent.lines.length
    await sendDatagram(portOf(configuration, 'socket'), input.datagram)
    const lines = () => agent.lines.slice(before).filter(({ message }) => ofSocket.test(message))
    await untilTold(agent, () => lines().length >= observed.client_log.length)
    t.strictSame(comparableLines(lines()), comparableLines(observed.client_log), `${name}: log`)
    for (const wanted of observed.results) {
      const { text } = await side.result((wanted['check'] as { name: string }).name)
      t.equal(withoutPlace(text), withoutPlace(JSON.stringify(wanted)), name)
    }
  }
  const big = `{"name":"u_big","output":"${'x'.repeat(60_000)}"}`
  await sendDatagram(portOf(configuration, 'socket'), big)
  t.equal(String((await side.result('u_big')).check.output).length, 60_000, reasonOf('udp_big_60k'))
  await replayRequests(t, agent, 'probe-a', [], side)
  const quiet = new AgentProcess(withOwnDirectory(t), {
    files: { 'c.json': { ...configuration, client: { name: 'probe-bad', subscriptions: [], ...noSockets } } },
    args: [],
  })
  await side.keepalive('probe-bad')
  await replayRequests(t, quiet, 'probe-bad', casesNamed(/^bad_/), side)
})

const noSockets = { socket: { enabled: false }, http_socket: { enabled: false } }

for (const [letters, pattern] of [
  ['crash', /^malformed_request_(?!global)/],
  ['crashg', /^malformed_request_global/],
] as const) {
  t.test(`${pattern.source}, and what follows: broken requests leave nothing behind`, { buffered: true }, async t => {
    const configuration = await here(recordedConfiguration(letters))
    const agent = new AgentProcess(t, { files: { 'c.json': configuration }, args: [] })
    await server.keepalive(`probe-${letters}`)
    await agent.log('client http socket disabled per configuration')
    if (letters === 'crashg') {
      const { observed } = recordedCase('extension_gem_missing')
      const about = agent.lines.filter(({ message }) => /extension/.test(message))
      t.strictSame(comparableLines(about), comparableLines(observed.client_log), 'extension_gem_missing')
    }
    await replayRequests(t, agent, `probe-${letters}`, casesNamed(pattern))
    t.strictSame(await agent.stop(), { status: 0, signal: null }, 'stop_hangs_with_leaked_in_progress_key')
    t.match(await agent.log('completing checks in progress'), { checks_in_progress: [] })
  })
}

/** A time at which all of the checks, each with its phase (ms) and interval (s), fall due within 2 to 4.5 s. */
function timeBefore(checks: readonly { phaseMs: number; interval: number }[]): number {
  const now = Math.floor(Date.now() / 1000) * 1000
  for (let time = now; time < now + 100_000_000; time += 500) {
    const dueMs = checks.map(
      ({ phaseMs, interval }) => (((phaseMs - time) % (interval * 1000)) + interval * 1000) % (interval * 1000),
    )
    if (dueMs.every(due => due > 2000 && due < 4500)) return time
  }
  throw new Error('these checks never fall due together')
}

t.test('standalone_sa_*, deregistration_custom: own checks, each at its time', { buffered: true }, async t => {
  const side = await ServerSide.open(t, broker.url(secondVhost))
  const names = ['sa_interval', 'sa_ttl_source', 'sa_metric', 'sa_long', 'sa_cron']
  const cases = new Map(names.map(name => [name, recordedCase(`standalone_${name}`)]))
  const schedules = names.slice(0, 3).map(name => {
    const { input, observed } = recordedCase(`standalone_${name}`)
    return { name, phaseMs: observed.expected_phase_ms, interval: Number(input['interval']) }
  })
  // a full minute is when the cron line comes true; another clock saves waiting for all that
  const everything = [...schedules, { name: 'sa_cron', phaseMs: 0, interval: 60 }]
  const shiftMs = timeBefore(everything) - Date.now()
  const clock = `const now=Date.now;Date.now=()=>now()+${shiftMs}`
  const files = {
    '01_client.json': recordedConfiguration('a__01_client'),
    '03_checks.json': recordedConfiguration('a__03_checks'),
    '02_conn.json': { rabbitmq: { port: broker.port, vhost: secondVhost, user, password } },
  }
  const { client } = await here(files['01_client.json'])
  files['01_client.json'] = { client: { ...client, subscriptions: [] } }
  const env = { NODE_OPTIONS: `--import=data:text/javascript,${encodeURIComponent(clock)}` }
  const agent = new AgentProcess(t, { files, args: [], env })
  for (const [name, { observed }] of cases) {
    const { text, check } = await side.result(name)
    const wanted = observed.results[0]?.['body']
    t.equal(withoutPlace(text), withoutPlace(JSON.stringify(wanted)), name)
    const schedule = everything.find(candidate => candidate.name === name)
    if (!schedule) continue
    const lateMs = (Number(check.issued) * 1000 + 1000 - schedule.phaseMs) % (schedule.interval * 1000)
    t.ok(lateMs >= 0 && lateMs < 3000, `${name} ran when it was due (${lateMs} ms at most)`)
  }
  t.notOk(side.results.some(({ text }) => /sa_subdued|sa_nopublish/.test(text)))
  const busy = 'previous check command execution in progress'
  await agent.log(busy, agent.lines.filter(({ message }) => message === busy).length + 1)
  const before = { lines: agent.lines.length, results: side.results.length }
  t.strictSame(await agent.stop(), { status: 0, signal: null })
  while (side.results.length < before.results + 2) await sleep(5)
  const recorded = recordedCase('deregistration_custom')
  const ownLines = (lines: readonly (LogLine | string)[]) =>
    comparableLines(lines).filter(line => !/probe_ext|sa_(?!long)/.test(line))
  const fromSignal = (lines: string[]) => lines.slice(lines.findIndex(line => line.includes('received signal')))
  t.strictSame(
    fromSignal(ownLines(agent.lines.slice(before.lines))),
    fromSignal(ownLines(recorded.observed.client_log)),
    'deregistration_custom: log',
  )
  t.strictSame(
    side.results.slice(before.results).map(({ text }) => withoutPlace(text)),
    recorded.observed.results.map(({ raw }) => withoutPlace(String(raw))).filter(text => !text.includes('probe_ext')),
    'deregistration_custom: results',
  )
})

t.test(
  'signature_results, standalone_hooks*, standalone_non_ascii, stop_sigterm_*: a client that signs',
  { buffered: true },
  async t => {
    const recorded = recordedConfiguration('sig')
    const configuration = await here(recorded)
    // each second, instead of every 3 and 5; told apart by a file of the test's own
    const text = JSON.stringify(recorded.checks).replace(/"interval":\d+/g, '"interval":1')
    const checks = JSON.parse(text.replace('/var/tmp/probe/sig/fail', 'fail'))
    const files = { 'c.json': { ...configuration, checks } }
    const agent = new AgentProcess(t, { files, args: [] })
    const expected = (result: unknown) =>
      withoutPlace(JSON.stringify(result))
        .replace('/var/tmp/probe/sig/fail', 'fail')
        .replace(/"interval":\d+/, '"interval":1')
    const hooky = recordedCase('standalone_hooks_state_kept_between_runs').observed.results
    /** The configured command, without its value, and no trace of an earlier run. */
    const stateless = (text: string) => text.replace('"echo hide"', '"echo :::mykey:::"')
    t.equal(withoutPlace((await server.result('hooky')).text), stateless(expected(hooky[0])), 'a first run')
    agent.touch('fail')
    const nth = async (status: number) => {
      for (let count = 1; ; count++) {
        const result = await server.result('hooky', count)
        if (result.check.status === status) return { ...result, count }
      }
    }
    const failed = await nth(2)
    t.equal(withoutPlace(failed.text), stateless(expected(hooky[2])), 'a run with a hook')
    rmSync(join(agent.directory, 'fail'))
    let count = failed.count
    let afterwards = failed
    while (afterwards.check.status !== 0) afterwards = { ...(await server.result('hooky', ++count)), count }
    t.equal(withoutPlace(afterwards.text), stateless(expected(hooky[0])), 'a run after that has nothing of it')
    const [utf] = recordedCase('standalone_non_ascii').observed.results
    const kept = expected(utf).replace('"nave"', '"naïve"').replace('"caf\\n"', '"café\\n"')
    t.equal(withoutPlace((await server.result('utf')).text), kept, 'standalone_non_ascii')

    const body = '{"name":"hps","output":"o"}'
    const head = `POST /results HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n`
    await ask(portOf(configuration, 'http_socket'), head + body)
    const unreadable = recordedCase('http_no_credentials_configured_settings').observed['settings'] as {
      response: string
    }
    const settings = await ask(portOf(configuration, 'http_socket'), 'GET /settings HTTP/1.1\r\n\r\n')
    t.equal(settings, unreadable.response, 'http_no_credentials_configured_settings')
    await server.request('client:probe-sig', { name: 'longcheck', command: 'sleep 3; echo done', issued: 1795317736 })
    await agent.log('received check request')
    t.strictSame(await agent.stop(), { status: 0, signal: null })
    const { raw } = recordedCase('signature_results').observed
    const signed = async (name: string) => withoutPlace((await server.result(name)).text)
    t.equal(await signed('hps'), withoutPlace(raw[3] ?? ''), 'a result from the HTTP socket is signed')
    t.ok(server.results.findIndex(({ text }) => text.includes('"deregistration"') && text.includes('probe-sig')) >= 0)
    const last = server.results.filter(({ text }) => text.includes('probe-sig')).slice(-2)
    const stopped = recordedCase('stop_sigterm_deregister_with_check_in_progress').observed
    t.strictSame(
      last.map(({ text }) => withoutPlace(text)),
      stopped.results.map(({ body: result }) => withoutPlace(JSON.stringify(result))),
      'stop_sigterm: deregistration, then what was running',
    )
    const fromSignal = (lines: string[]) => lines.slice(lines.indexOf('warn received signal'))
    t.strictSame(fromSignal(told(agent.lines)), fromSignal(told(stopped.client_log)), 'stop_sigterm: log')
  },
)

t.test(
  'http_protect_all_endpoints, stop_sigint_plain: a protected client in safe mode',
  { buffered: true },
  async t => {
    const configuration = await here(recordedConfiguration('safe'))
    const agent = new AgentProcess(t, { files: { 'c.json': configuration }, args: [] })
    await server.keepalive('probe-safe')
    const { observed } = recordedCase('http_protect_all_endpoints')
    const body = '{"name":"protected","output":"o"}'
    const length = `Content-Type: application/json\r\nContent-Length: ${body.length}\r\n`
    const authorization = `Authorization: Basic ${Buffer.from('u:p').toString('base64')}\r\n`
    const requests: Readonly<Record<string, string>> = {
      info_noauth: 'GET /info HTTP/1.1\r\n\r\n',
      results_noauth: `POST /results HTTP/1.1\r\n${length}\r\n${body}`,
      brew_noauth: 'GET /brew HTTP/1.1\r\n\r\n',
      results_auth: `POST /results HTTP/1.1\r\n${authorization}${length}\r\n${body}`,
    }
    for (const [name, request] of Object.entries(requests)) {
      const { response } = observed[name] as { response: string }
      t.equal(await ask(portOf(configuration, 'http_socket'), request), response, name)
    }
    await agent.log('publishing check result')
    agent.kill('SIGINT')
    t.strictSame(await agent.exit, { status: 0, signal: null })
    const lines = told(agent.lines)
    const recorded = told(recordedCase('stop_sigint_plain').observed.client_log)
    t.strictSame(lines.slice(-recorded.length), recorded, 'stop_sigint_plain')
  },
)

t.test('signals_*: which ends the agent, and how', { buffered: true }, async t => {
  const { observed } = recordedCase('signals_exit_status')
  const numbers: Readonly<Record<string, number>> = { SIGQUIT: 3, SIGUSR1: 10 }
  for (const [name, value] of Object.entries(observed)) {
    if (deliberate[`signals_${name}`]) continue
    const recorded = value as { exit?: number; still_running?: boolean; TERM_exit?: number }
    const configuration = await here(recordedConfiguration('sg'))
    configuration.client['name'] = `probe-sg-${name}`
    const agent = new AgentProcess(t, { files: { 'c.json': configuration }, args: ['-p', 'pid', '-l', 'log'] })
    await server.keepalive(`probe-sg-${name}`)
    agent.kill(`SIG${name}` as NodeJS.Signals)
    if (recorded.still_running) {
      await server.request(`client:probe-sg-${name}`, { name: `alive-${name}`, command: 'true' })
      await server.result(`alive-${name}`)
      t.equal((await agent.stop()).status, recorded.TERM_exit, `${name}, then TERM`)
    } else {
      const { status, signal } = await agent.exit
      t.equal(status ?? -(numbers[String(signal)] ?? 0), recorded.exit, name)
    }
    t.ok(existsSync(join(agent.directory, 'pid')), 'the PID file stays')
  }
})

t.test('signals_trap_usr2: debugging switched, log file opened anew', { buffered: true }, async t => {
  const { observed } = recordedCase('signals_trap_usr2_hup')
  const configuration = await here(recordedConfiguration('sg'))
  configuration.client['name'] = 'probe-trap'
  const agent = new AgentProcess(t, { files: { 'c.json': configuration }, args: ['-L', 'debug', '-l', 'log'] })
  await server.keepalive('probe-trap')
  const request = async (name: string) => {
    await server.request('client:probe-trap', { name, command: 'true' })
    await server.result(name)
  }
  const messages = async () =>
    (await agent.file('log'))
      .split('\n')
      .filter(Boolean)
      .map(line => JSON.parse(line))
      .map(({ level, message }) => `${level}:${message}`)
  await request('before')
  const before = (await messages()).length
  agent.kill('SIGTRAP')
  for (let round = 0; (await messages()).at(-2) !== 'info:received check request'; round++)
    await request(`trap-${round}`)
  t.strictSame((await messages()).slice(before).slice(-2), (observed['log_after_first_TRAP'] as string[]).slice(-2))
  agent.kill('SIGTRAP')
  for (let round = 0; !(await messages()).slice(-3).includes('debug:processing check'); round++)
    await request(`loud-${round}`)
  renameSync(join(agent.directory, 'log'), join(agent.directory, 'old'))
  agent.kill('SIGUSR2')
  while (!existsSync(join(agent.directory, 'log'))) await sleep(10)
  await request('anew')
  t.strictSame(await messages(), observed['new_log_after_USR2'])
})

/** Recorded agents that cannot, or cannot always, reach a broker: their configuration, and until which line they are compared. */
const brokerCases: Readonly<Record<string, { lines: number; without?: RegExp }>> = {
  // the first failure is told once for both connections by the reference, later ones twice
  transport_broker_refused_at_start: { lines: 4 },
  transport_dns_failure: { lines: 4 },
  transport_unknown_vhost: { lines: 4 },
  // deliberate.transport_wrong_password
  transport_wrong_password: { lines: 4, without: /tcp connection lost/ },
}

for (const [name, { lines, without = /^$/ }] of Object.entries(brokerCases)) {
  t.test(name, { buffered: true }, async t => {
    const { input, observed } = recordedCase(name)
    const agent = new AgentProcess(t, { files: { 'c.json': await here(input) }, args: [] })
    await untilTold(agent, all => sinceStart(all).length >= lines)
    const distinct = (all: readonly (LogLine | string)[]) =>
      withoutRepetition(sinceStart(all).filter(line => !without.test(line)))
    t.strictSame(distinct(agent.lines), distinct(observed.client_log))
    const own = (all: readonly (LogLine | string)[]) => comparableLines(all).find(line => line.includes('"reason"'))
    t.equal(own(agent.lines), own(observed.client_log), 'with the same data')
    const before = agent.lines.length
    t.strictSame(await agent.stop(), { status: 0, signal: null })
    const end = (all: string[]) => all.slice(all.indexOf('warn received signal'))
    const stopped = recordedCase('stop_while_never_connected').observed.client_log
    t.strictSame(end(told(agent.lines.slice(before))), end(told(stopped)), 'stop_while_never_connected')
  })
}

t.test(
  'transport_array_first_broker_dead, rabbit_prefetch_heartbeat_array, rabbitmq_topology',
  { buffered: true },
  async t => {
    const { input, observed } = recordedCase('transport_array_first_broker_dead')
    const array = new AgentProcess(t, { files: { 'c.json': await here(input) }, args: [] })
    const recorded = recordedCase('rabbitmq_topology')
    const a = await here({ client: { ...recordedConfiguration('a__01_client').client, ...noSockets } })
    const topology = new AgentProcess(withOwnDirectory(t), {
      files: { 'c.json': { ...a, rabbitmq: { ...a.rabbitmq, vhost: firstVhost } } },
    })
    await Promise.all([
      server.keepalive('probe-t6'),
      server.keepalive('probe-a'),
      topology.log('scheduling standalone checks'),
    ])
    await server.request('probe', { name: 'bound', command: 'true' })
    await server.result('bound')
    await server.request('tsub', { name: 'bound-t6', command: 'true' })
    await server.result('bound-t6')
    const control = async (...args: string[]) =>
      (await broker.control('-q', ...args)).stdout.replace(/(probe-[a-z0-9]+-1\.9\.0)-\d{10}/g, '$1-START').split('\n')
    const started = (line: string) => line.replace(/(probe-[a-z0-9]+-1\.9\.0)-\d{10}/g, '$1-START')
    const ofA =
      /^(probe-a-|direct:probe|roundrobin:probe|client:probe-a\t|probe\t|\texchange\t(probe-a-|direct:|roundrobin:))/
    const sorted = (lines: readonly string[]) =>
      lines
        .map(started)
        .filter(line => ofA.test(line))
        .sort()
    const wanted = (what: string) => sorted(recorded.observed[what] as string[])
    const vhost = ['-p', firstVhost]
    const queues = await control(
      'list_queues',
      ...vhost,
      ...'name durable auto_delete exclusive arguments consumers'.split(' '),
    )
    t.strictSame(sorted(queues), wanted('queues'), 'rabbitmq_topology: queues')
    const exchanges = await control(
      'list_exchanges',
      ...vhost,
      ...'name type durable auto_delete internal arguments'.split(' '),
    )
    t.strictSame(sorted(exchanges), wanted('exchanges'), 'rabbitmq_topology: exchanges')
    t.strictSame(sorted(await control('list_bindings', ...vhost)), wanted('bindings'), 'rabbitmq_topology: bindings')
    const consumers = await control(
      ...['list_consumers', ...vhost, 'queue_name', 'ack_required', 'prefetch_count', 'active'],
    )
    const withoutTag = (recorded.observed['consumers'] as string[]).map(line =>
      line.split('\t').toSpliced(1, 1).join('\t'),
    )
    t.strictSame(sorted(consumers), sorted(withoutTag), 'rabbitmq_topology: consumers')
    const [view = ''] = recordedCase('rabbit_prefetch_heartbeat_array').observed['broker_view'] as string[]
    const [queue, acknowledge, prefetch] = started(view).split('\t')
    t.ok(
      consumers.includes([queue, acknowledge, prefetch, 'true'].join('\t')),
      'rabbit_prefetch: prefetch as configured',
    )
    const heartbeats = (await control('list_connections', 'timeout')).filter(line => line === '30')
    t.equal(heartbeats.length, 2, 'rabbit_heartbeat: both connections use the configured one')
    const allowed = new Set(told(observed.client_log))
    t.strictSame(
      sinceStart(array.lines).filter(line => !allowed.has(line) && !/received check/.test(line)),
      [],
      'nothing else is told',
    )
  },
)

t.test(
  'transport_loss_and_recovery, stop_while_disconnected: the broker goes and comes back',
  { buffered: true },
  async t => {
    const proxy = await TcpProxy.start(broker.port)
    t.teardown(() => proxy.stop())
    const recorded = recordedConfiguration('t1')
    const configuration = await here({ ...recorded, rabbitmq: { ...recorded.rabbitmq } }, proxy.port)
    const agent = new AgentProcess(t, { files: { 'c.json': configuration }, args: [] })
    await server.keepalive('probe-t1')
    await server.request('tsub', { name: 'is-up', command: 'true' })
    await server.result('is-up')
    proxy.refuse()
    await agent.log('reconnecting to transport')
    const { observed } = recordedCase('transport_loss_and_recovery')
    const answers = observed['responses_while_down'] as { response: string }[]
    const [httpPort, socketPort] = [portOf(configuration, 'http_socket'), portOf(configuration, 'socket')]
    const body = '{"name":"down-http","output":"o"}'
    const head = `POST /results HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n`
    t.strictSame(
      [
        await ask(socketPort, '{"name":"down-tcp","output":"o"}'),
        await ask(httpPort, head + body),
        await ask(httpPort, 'GET /info HTTP/1.1\r\n\r\n'),
      ],
      answers.map(({ response }) => response),
      'the sockets answer as ever',
    )
    proxy.accept()
    await agent.log('reconnected to transport')
    await server.result('down-tcp')
    await server.result('down-http')
    await server.keepalive('probe-t1', 2)
    const distinct = (lines: string[]) =>
      lines.filter(line => /transport$|transport connection|failed to publish/.test(line.replace(/ \(.*/, '')))
    const lossTold = ['warn transport connection error (tcp connection lost)', 'warn reconnecting to transport']
    t.strictSame(distinct(told(agent.lines)).slice(0, 2), lossTold)
    t.strictSame(distinct(told(agent.lines)).at(-1), 'info reconnected to transport')
    t.strictSame(distinct(told(observed.client_log)).slice(0, 2), lossTold)
    t.notOk(told(agent.lines).includes('error failed to publish check result'), reasonOf('transport_loss_and_recovery'))

    const oneLost = agent.lines.length
    proxy.cut(2)
    await agent.log('reconnected to transport', 2)
    const recordedLines = told(recordedCase('transport_one_of_two_connections_lost').observed.client_log)
    const [lost, , back] = recordedLines
    const seen = told(agent.lines.slice(oneLost)).filter(line => recordedLines.includes(line))
    t.strictSame([seen[0], seen.at(-1)], [lost, back], 'transport_one_of_two_connections_lost')
    await server.keepalive('probe-t1', 3)

    proxy.refuse()
    await agent.log('reconnecting to transport', 3)
    const before = agent.lines.length
    t.strictSame(await agent.stop(), { status: 0, signal: null })
    const end = (all: string[]) => all.slice(all.indexOf('warn received signal'))
    const stopped = told(recordedCase('stop_while_disconnected').observed.client_log)
    const same = end(stopped).filter(line => line !== 'error failed to publish check result')
    const ours = end(told(agent.lines.slice(before))).filter(line => !line.includes('kept in the spool'))
    t.strictSame(ours, same, 'stop_while_disconnected')
  },
)

t.test('transport_broker_late_at_start_then_second_loss', { buffered: true }, async t => {
  const proxy = await TcpProxy.start(broker.port)
  t.teardown(() => proxy.stop())
  proxy.refuse()
  const configuration = await here(recordedConfiguration('t1'), proxy.port)
  configuration.client['name'] = 'probe-late'
  const agent = new AgentProcess(t, { files: { 'c.json': configuration }, args: [] })
  await untilTold(agent, lines => lines.some(({ level }) => level === 'error'))
  proxy.accept()
  await server.keepalive('probe-late')
  proxy.refuse()
  await agent.log('reconnecting to transport')
  proxy.accept()
  await server.keepalive('probe-late', 2)
  const about = /(reconnect\w+ to transport)|tcp connection lost/
  const recorded = told(recordedCase('transport_broker_late_at_start_then_second_loss').observed.client_log)
  const order = (lines: string[]) => withoutRepetition(lines.filter(line => about.test(line)))
  t.strictSame(order(told(agent.lines)), order(recorded))
})

for (const name of ['transport_channel_error_reconnect_loop', 'transport_channel_error_reconnect_on_error_false']) {
  t.test(name, { buffered: true }, async t => {
    const { input, observed } = recordedCase(name)
    const agent = new AgentProcess(t, { files: { 'c.json': await here(input) }, args: [] })
    const loops = observed['alive'] === true
    if (loops) await agent.log('reconnected to transport', 2)
    else t.strictSame(await agent.exit, { status: 0, signal: null })
    // why the broker closed the channel is told beyond what the reference does
    const about = (lines: readonly (LogLine | string)[]) =>
      sinceStart(lines)
        .map(line => line.replace(/ \(Channel closed .*/, ''))
        .filter(line => !/publishing check result|in the spool|failed to publish keepalive/.test(line))
        .slice(0, 6)
    const wanted = about(observed.client_log)
    t.strictSame(about(agent.lines).slice(0, wanted.length), wanted)
  })
}

t.test('redis_*: Redis as the transport', { buffered: true }, async t => {
  const store = await redis(t)
  const locked = await redis(t, { password: 'another' })
  const client = new RedisClient({ host: store.host, port: store.port, db: 5 })
  t.teardown(() => client.disconnect())
  /** The recorded section or URL, for the Redis of this test. */
  const section = <T>(recorded: T): T =>
    JSON.parse(
      JSON.stringify(recorded)
        .replace(/\b6379\b/g, String(store.port))
        .replace(/\b2?6999\b/g, String(closedPort)),
    )
  for (const name of casesNamed(/^redis_transport_/)) {
    const { input, observed } = recordedCase(name)
    const conf = section(input.conf) as { redis?: { port?: number } }
    if (name.endsWith('badpass')) conf.redis = { ...conf.redis, port: locked.port }
    const agent = new AgentProcess(t, { files: { 'c.json': conf }, env: section(input.env) })
    const reaches = observed.log.some(({ message }) => message === 'scheduling standalone checks')
    if (reaches)
      await untilTold(agent, lines => lines.some(({ message }) => message.startsWith('subscribed to redis channel')))
    else await untilTold(agent, lines => lines.some(({ message }) => /connection error|failure/.test(message)))
    t.equal((await agent.stop()).status, observed['exit'], `${name}: exit status`)
    // deliberate: redis_silent, redis_secrets, redis_stop, and how many threads the reference has
    const own =
      /eventmachine|^loading |client overrides|connection open|unsubscribed from|redis connection error|connecting to transport|reconnecting to|transport connection error/
    const comparable = (lines: readonly LogLine[]) =>
      comparableLines(lines.filter(({ message }) => !own.test(message)))
        .map(line => line.replace(/(127\.0\.0\.1:)\d+/g, '$1PORT'))
        // the path of a URL is the database here
        .map(line => line.replace('transport:5:', 'transport:0:'))
    t.strictSame(comparable(agent.lines), comparable(observed.log), name)
  }
  await client.flushdb()
  const { input, observed } = recordedCase('redis_transport')
  const configuration = await here(input)
  const files = { 'c.json': { ...configuration, redis: section({ ...(input['redis'] as object), port: 6379 }) } }
  const agent = new AgentProcess(t, { files })
  const { db } = input['redis'] as { db: number }
  const result = await client.blpop(`transport:${db}:list:results`, 20)
  t.equal(withoutPlace(result?.[1] ?? ''), withoutPlace(observed.results_list[0] ?? ''), 'redis_transport: results')
  t.match(await client.lpop(`transport:${db}:list:keepalives`), /"name":"probe-rd"/)
  await agent.stop()
})

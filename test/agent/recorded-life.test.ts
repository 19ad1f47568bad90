// Replays what was recorded of the life of Sensu 1.9's client against the built agent, a real broker and a real Redis: keepalives, own checks,
// broken requests, signals, and transports that come and go.
import { once } from 'node:events'
import { existsSync, renameSync, rmSync } from 'node:fs'
import { connect } from 'node:net'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { Redis as RedisClient } from 'ioredis'
import t, { type Test } from 'tap'
import { findFreePort } from '../../scripts/services/process.js'
import { withOwnDirectory } from '../support/own-directory.js'
import type { LogLine } from '../support/service-process.js'
import { ownRabbitmq, redis } from '../support/services.js'
import { TcpProxy } from '../transport/tcp-proxy.js'
import { AgentProcess } from './agent-process.js'
import {
  comparableLogs,
  type RecordedCase,
  Recordings,
  recordedConfiguration,
  told,
  withoutPlace,
} from './recordings.js'
import { ServerSide } from './server-side.js'

const recordings = new Recordings('agent/recorded-life')
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

/** What is told from the level info on, once the configuration is loaded. */
function sinceStart(lines: readonly LogLine[]): LogLine[] {
  const start = lines.findIndex(({ message }) => message === 'configuring sensu spawn')
  return lines.slice(start).filter(({ level }) => level !== 'debug')
}

/** How often an attempt fails, and for how many connections at once, is not compared. */
function onceEach(lines: readonly LogLine[]): LogLine[] {
  const texts = lines.map(line => JSON.stringify({ ...line, timestamp: 0 }))
  return lines.filter((_, index) => texts.indexOf(texts[index] ?? '') === index)
}

/** The same with every change to another line, and back. */
function changes(lines: readonly LogLine[]): LogLine[] {
  const texts = lines.map(line => JSON.stringify({ ...line, timestamp: 0 }))
  return lines.filter((_, index) => texts[index] !== texts[index - 1])
}

const isReconnected = ({ message }: LogLine) => message === 'reconnected to transport'

function sinceSignal(lines: readonly LogLine[]): LogLine[] {
  return lines.slice(lines.findIndex(({ message }) => message === 'received signal'))
}

/** Compares log lines; those that matter are found by the caller. */
function sameLog(t: Test, found: readonly LogLine[], wanted: readonly LogLine[], name: string): void {
  const logs = comparableLogs(found, wanted)
  t.strictSame(logs.found, logs.wanted, `${name}: log`)
}

/** Whether it is the last line about the request after a case's own. */
function isLast({ message, payload }: LogLine, name: string): boolean {
  return message === 'publishing check result' && JSON.stringify(payload).includes(`"after_${name}"`)
}

/** Replays broken check requests, one after the other: their results, and what the log says of them. */
async function replayRequests(t: Test, agent: AgentProcess, client: string, cases: RecordedCase[], side = server) {
  for (const { name, input, results: wanted, log } of cases) {
    const before = { lines: agent.lines.length, results: side.results.length }
    const body = typeof input.raw === 'string' ? input.raw : Buffer.from(input.raw.base64, 'base64')
    await side.request(`client:${client}`, body)
    const ofClient = () => side.results.slice(before.results).filter(({ text }) => text.includes(`"${client}"`))
    await side.until(() => ofClient().length >= wanted.length)
    // what it would say by mistake, it has said before it answers the next request
    await side.request(`client:${client}`, { name: `after_${name}`, command: 'true' })
    await side.result(`after_${name}`)
    await agent.until(() => agent.lines.some(line => isLast(line, name)))
    const results = ofClient().filter(({ text }) => !text.includes('"after_'))
    t.strictSame(
      results.map(({ text }) => withoutPlace(text)),
      wanted.map(withoutPlace),
      `${name}: results`,
    )
    const lines = agent.lines.slice(before.lines).filter(line => !JSON.stringify(line).includes('after_'))
    sameLog(t, lines, log, name)
  }
}

t.jobs = 4

t.test('keepalive_*: what a client says of itself, at once', { buffered: true }, async t => {
  const ubuntu = {
    ...{ name: 'ubuntu', address: '127.0.0.1', subscriptions: ['base'] },
    socket: { bind: '127.0.0.1', port: 3030 },
  }
  const side = await ServerSide.open(t, broker.url(secondVhost))
  for (const name of ['probe-a', 'probe-min', 'probe-safe', 'probe-sig', 'ubuntu']) {
    const { input, observed } = recordings.take(`keepalive_${name}`)
    const [recordedClient = ubuntu] = input.client_config ?? []
    const recorded = { client: recordedClient, rabbitmq: { vhost: secondVhost, user, password: 'secret' } }
    const files = { 'c.json': await here(recorded) }
    if (name === 'ubuntu') files['c.json'].client['http_socket'] = undefined
    const agent = new AgentProcess(t, { files, args: [] })
    const { text, properties, routingKey } = await side.keepalive(name)
    const [wanted] = observed['messages'] as { raw: string; properties: object; routing_key: string }[]
    t.equal(withoutPlace(text), withoutPlace(wanted?.raw ?? ''), name)
    t.match(properties, wanted?.properties ?? {}, `${name}: properties`)
    t.equal(routingKey, wanted?.routing_key)
    await agent.stop()
  }
})

const noSockets = { socket: { enabled: false }, http_socket: { enabled: false } }

t.test('bad_*: requests that are no JSON', { buffered: true }, async t => {
  const side = await ServerSide.open(t, broker.url(thirdVhost))
  const configuration = await here({
    client: { ...recordedConfiguration('a__01_client').client, ...noSockets },
    rabbitmq: { vhost: thirdVhost, user, password: 'secret' },
  })
  const agent = new AgentProcess(t, { files: { 'c.json': configuration }, args: [] })
  await side.keepalive('probe-a')
  await replayRequests(t, agent, 'probe-a', recordings.matching(/^bad_/), side)
})

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
      const { name, log } = recordings.take('extension_gem_missing')
      sameLog(
        t,
        agent.lines.filter(({ message }) => /extension/.test(message)),
        log,
        name,
      )
    }
    await replayRequests(t, agent, `probe-${letters}`, recordings.matching(pattern))
    t.strictSame(await agent.stop(), { status: 0, signal: null })
    const stopped = recordings.take('stop_hangs_with_leaked_in_progress_key')
    sameLog(t, sinceSignal(agent.lines), sinceSignal(stopped.log), stopped.name)
  })
}

/** A time at which all of the checks, each with its phase (ms) and interval (s), fall due within 4 to 6.5 s. */
function timeBefore(checks: readonly { phaseMs: number; interval: number }[]): number {
  const now = Math.floor(Date.now() / 1000) * 1000
  for (let time = now; time < now + 100_000_000; time += 500) {
    const dueMs = checks.map(
      ({ phaseMs, interval }) => (((phaseMs - time) % (interval * 1000)) + interval * 1000) % (interval * 1000),
    )
    if (dueMs.every(due => due > 4000 && due < 6500)) return time
  }
  throw new Error('these checks never fall due together')
}

t.test('standalone_sa_*, deregistration_custom: own checks, each at its time', { buffered: true }, async t => {
  const side = await ServerSide.open(t, broker.url(secondVhost))
  const cases = recordings.matching(/^standalone_sa_/).map(({ input, observed, results }) => ({
    check: String(input['check']),
    phaseMs: Number(observed['expected_phase_ms']),
    interval: Number(input['interval']),
    wanted: results[0] ?? '',
  }))
  // the phase of a check every second says nothing, a cron line has none
  const schedules = cases.filter(({ check }) => !/^sa_(long|cron)$/.test(check))
  // a full minute is when the cron line comes true; another clock saves waiting for all that
  const everything = [...schedules, { check: 'sa_cron', phaseMs: 0, interval: 60 }]
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
  for (const { check: name, wanted } of cases) {
    const { text, check } = await side.result(name)
    t.equal(withoutPlace(text), withoutPlace(wanted), name)
    const schedule = everything.find(candidate => candidate.check === name)
    if (!schedule) continue
    const lateMs = (Number(check.issued) * 1000 + 1000 - schedule.phaseMs) % (schedule.interval * 1000)
    t.ok(lateMs >= 0 && lateMs < 3000, `${name} ran when it was due (${lateMs} ms at most)`)
  }
  t.notOk(side.results.some(({ text }) => /sa_subdued|sa_nopublish/.test(text)))
  const busy = 'previous check command execution in progress'
  await agent.log(busy, agent.lines.filter(({ message }) => message === busy).length + 1)
  // other agents send theirs there as well
  const results = () => side.results.map(({ text }) => text).filter(text => text.includes('"probe-a"'))
  const before = { lines: agent.lines.length, results: results().length }
  t.strictSame(await agent.stop(), { status: 0, signal: null })
  while (results().length < before.results + 2) await sleep(5)
  const { name, log, results: wanted } = recordings.take('deregistration_custom')
  // what its other checks did at the moment is another matter
  const isOther = (text: string) => /probe_ext|"sa_(?!long)/.test(text)
  const ofStop = (lines: readonly LogLine[]) => sinceSignal(lines).filter(line => !isOther(JSON.stringify(line)))
  sameLog(t, ofStop(agent.lines.slice(before.lines)), ofStop(log), name)
  t.strictSame(
    results().slice(before.results).map(withoutPlace),
    wanted.filter(text => !isOther(text)).map(withoutPlace),
    `${name}: results`,
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
    const expected = (result = '') =>
      withoutPlace(result)
        .replace('/var/tmp/probe/sig/fail', 'fail')
        .replace(/"interval":\d+/, '"interval":1')
    const hooky = recordings.take('standalone_hooks_state_kept_between_runs').results
    t.equal(withoutPlace((await server.result('hooky')).text), expected(hooky[0]), 'a first run')
    agent.touch('fail')
    const nth = async (status: number) => {
      for (let count = 1; ; count++) {
        const result = await server.result('hooky', count)
        if (result.check.status === status) return { ...result, count }
      }
    }
    const failed = await nth(2)
    t.equal(withoutPlace(failed.text), expected(hooky[2]), 'a run with a hook')
    rmSync(join(agent.directory, 'fail'))
    let count = failed.count
    let afterwards = failed
    while (afterwards.check.status !== 0) afterwards = { ...(await server.result('hooky', ++count)), count }
    t.equal(withoutPlace(afterwards.text), expected(hooky[3]), 'a run after that')
    const [utf] = recordings.take('standalone_non_ascii').results
    t.equal(withoutPlace((await server.result('utf')).text), expected(utf), 'standalone_non_ascii')

    const body = '{"name":"hps","output":"o"}'
    const head = `POST /results HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n`
    await ask(portOf(configuration, 'http_socket'), head + body)
    const noCredentials = recordings.take('http_no_credentials_configured_settings').observed
    const { response } = noCredentials['settings'] as { response: string }
    const settings = await ask(portOf(configuration, 'http_socket'), 'GET /settings HTTP/1.1\r\n\r\n')
    t.equal(settings, response, 'http_no_credentials_configured_settings')
    await t.rejects(
      ask(portOf(configuration, 'socket'), 'ping'),
      { code: 'ECONNREFUSED' },
      'its TCP socket is disabled',
    )
    await server.request('client:probe-sig', { name: 'longcheck', command: 'sleep 3; echo done', issued: 1795317736 })
    await agent.log('received check request')
    t.strictSame(await agent.stop(), { status: 0, signal: null })
    for (const wanted of recordings.take('signature_results').results) {
      const { name } = JSON.parse(wanted).check
      const { text } = name === 'hooky' ? afterwards : await server.result(name)
      t.equal(withoutPlace(text), expected(wanted), `signature_results: ${name}`)
    }
    // its own checks, each second, may be under way as well
    const isOwn = (text: string) => /"name":"(utf|hooky)"/.test(text)
    const last = server.results.filter(({ text }) => text.includes('probe-sig') && !isOwn(text)).slice(-2)
    const stopped = recordings.take('stop_sigterm_deregister_with_check_in_progress')
    t.strictSame(
      last.map(({ text }) => withoutPlace(text)),
      stopped.results.map(withoutPlace),
      `${stopped.name}: deregistration, then what was running`,
    )
    const lines = sinceSignal(agent.lines).filter(line => !isOwn(JSON.stringify(line)))
    for (const line of lines) {
      if (!Array.isArray(line['checks_in_progress'])) continue
      line['checks_in_progress'] = line['checks_in_progress'].filter(name => name === 'longcheck')
    }
    sameLog(t, lines, sinceSignal(stopped.log), stopped.name)
  },
)

t.test(
  'http_protect_all_endpoints, stop_sigint_plain: a protected client in safe mode',
  { buffered: true },
  async t => {
    const configuration = await here(recordedConfiguration('safe'))
    const agent = new AgentProcess(t, { files: { 'c.json': configuration }, args: [] })
    await server.keepalive('probe-safe')
    const { observed } = recordings.take('http_protect_all_endpoints')
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
    const { name, log } = recordings.take('stop_sigint_plain')
    sameLog(t, sinceSignal(agent.lines), sinceSignal(log), name)
  },
)

t.test('signals_*: which ends the agent, and how', { buffered: true }, async t => {
  const { observed } = recordings.take('signals_exit_status')
  const numbers: Readonly<Record<string, number>> = { SIGHUP: 1, SIGQUIT: 3, SIGUSR1: 10 }
  for (const [name, value] of Object.entries(observed)) {
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
  const { observed } = recordings.take('signals_trap_usr2_hup')
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
  t.match(observed['after_HUP'], { SIGHUP: { alive: false } })
  agent.kill('SIGHUP')
  t.strictSame(await agent.exit, { status: null, signal: 'SIGHUP' })
})

for (const name of ['broker_refused_at_start', 'dns_failure', 'unknown_vhost', 'wrong_password']) {
  t.test(`transport_${name}: no broker, told at each attempt, tried for ever`, { buffered: true }, async t => {
    const { input, log } = recordings.take(`transport_${name}`)
    const agent = new AgentProcess(t, { files: { 'c.json': await here(input) }, args: [] })
    await agent.until(() => sinceStart(agent.lines).length >= 4)
    sameLog(t, onceEach(sinceStart(agent.lines)), onceEach(sinceStart(log)), name)
    const before = agent.lines.length
    t.strictSame(await agent.stop(), { status: 0, signal: null })
    const stopped = recordings.take('stop_while_never_connected')
    sameLog(t, sinceSignal(agent.lines.slice(before)), sinceSignal(stopped.log), stopped.name)
  })
}

t.test(
  'transport_array_first_broker_dead, rabbit_prefetch_heartbeat_array, rabbitmq_topology',
  { buffered: true },
  async t => {
    const { input, log } = recordings.take('transport_array_first_broker_dead')
    const array = new AgentProcess(t, { files: { 'c.json': await here(input) }, args: [] })
    const recorded = recordings.take('rabbitmq_topology')
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
    const [view = ''] = recordings.take('rabbit_prefetch_heartbeat_array').observed['broker_view'] as string[]
    const [queue, acknowledge, prefetch] = started(view).split('\t')
    t.ok(
      consumers.includes([queue, acknowledge, prefetch, 'true'].join('\t')),
      'rabbit_prefetch: prefetch as configured',
    )
    const heartbeats = (await control('list_connections', 'timeout')).filter(line => line === '30')
    t.equal(heartbeats.length, 2, 'rabbit_heartbeat: both connections use the configured one')
    // the list is shuffled: which of the brokers is tried first is chance
    const deadFirst = array.lines.some(isReconnected)
    const ofStart = (lines: readonly LogLine[]) =>
      changes(sinceStart(lines).filter(({ message }) => !/check/.test(message)))
    const wantedLines = deadFirst ? ofStart(log) : ofStart(log).slice(0, 1)
    sameLog(t, ofStart(array.lines), wantedLines, 'transport_array_first_broker_dead')
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
    const agent = new AgentProcess(t, { files: { 'c.json': configuration } })
    await server.keepalive('probe-t1')
    await server.request('tsub', { name: 'is-up', command: 'true' })
    await server.result('is-up')
    proxy.refuse()
    await agent.log('reconnecting to transport')
    const { observed, log } = recordings.take('transport_loss_and_recovery')
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
    await agent.log('scheduling standalone checks', 2)
    // from a loss until everything is scheduled again; how many attempts fail meanwhile, and connections end, depends on the moment
    const ofLoss = (lines: readonly LogLine[]) => {
      const about = /^(transport|reconnect|subscribing|scheduling|failed to)/
      const all = lines.filter(({ message }) => about.test(message) && !/connection (open|closed)$/.test(message))
      const lost = all.slice(all.findIndex(({ message }) => message === 'transport connection error'))
      return changes(lost.slice(0, 1 + lost.findIndex(({ message }) => message === 'scheduling standalone checks')))
    }
    sameLog(t, ofLoss(agent.lines), ofLoss(log), 'transport_loss_and_recovery')

    const oneLost = agent.lines.length
    proxy.cut(2)
    await agent.log('reconnected to transport', 2)
    const one = recordings.take('transport_one_of_two_connections_lost')
    await agent.log('scheduling standalone checks', 3)
    // the broker's word that it has the keepalive may be lost with the connection
    const isUnconfirmed = ({ message }: LogLine) => message === 'failed to publish keepalive'
    const ofOne = ofLoss(agent.lines.slice(oneLost).filter(line => !isUnconfirmed(line)))
    sameLog(t, ofOne, ofLoss(one.log), one.name)
    await server.keepalive('probe-t1', 3)

    proxy.refuse()
    await agent.log('reconnecting to transport', 3)
    const before = agent.lines.length
    t.strictSame(await agent.stop(), { status: 0, signal: null })
    const stopped = recordings.take('stop_while_disconnected')
    const ofStop = (lines: readonly LogLine[]) => sinceSignal(lines).filter(({ level }) => level !== 'debug')
    sameLog(t, ofStop(agent.lines.slice(before)), ofStop(stopped.log), stopped.name)
  },
)

t.test('transport_broker_late_at_start_then_second_loss', { buffered: true }, async t => {
  const port = await findFreePort()
  const configuration = await here(recordedConfiguration('t1'), port)
  configuration.client['name'] = 'probe-late'
  const agent = new AgentProcess(t, { files: { 'c.json': configuration }, args: [] })
  await untilTold(agent, lines => lines.some(({ level }) => level === 'error'))
  const proxy = await TcpProxy.start(broker.port, broker.host, port)
  t.teardown(() => proxy.stop())
  await server.keepalive('probe-late')
  proxy.refuse()
  await agent.log('reconnecting to transport')
  proxy.accept()
  await server.keepalive('probe-late', 2)
  await agent.log('reconnected to transport', 2)
  const { name, log } = recordings.take('transport_broker_late_at_start_then_second_loss')
  // until the first connection each attempt fails; whether one does after the loss depends on the moment
  const ofTransport = (lines: readonly LogLine[]) => {
    const all = sinceStart(lines).filter(({ message }) => !/check/.test(message))
    const first = all.findIndex(isReconnected)
    return changes(all.filter(({ message }, index) => index < first || !message.startsWith('[amqp]')))
  }
  sameLog(t, ofTransport(agent.lines), ofTransport(log), name)
})

for (const name of ['transport_channel_error_reconnect_loop', 'transport_channel_error_reconnect_on_error_false']) {
  t.test(name, { buffered: true }, async t => {
    const { input, observed, log } = recordings.take(name)
    const agent = new AgentProcess(t, { files: { 'c.json': await here(input) }, args: [] })
    const loops = observed['alive'] === true
    if (loops) await agent.log('reconnected to transport', 2)
    else t.strictSame(await agent.exit, { status: 0, signal: null })
    const about = (lines: readonly LogLine[]) =>
      sinceStart(lines)
        // whether the first keepalive was confirmed before the channel was closed depends on the moment
        .filter(({ message }) => !/^publishing check result|^failed to publish keepalive/.test(message))
        .slice(0, loops ? 4 : undefined)
    sameLog(t, about(agent.lines), about(log), name)
  })
}

t.test('redis_*: Redis as the transport', { buffered: true }, async t => {
  const store = await redis(t)
  const client = new RedisClient({ host: store.host, port: store.port, db: 5 })
  t.teardown(() => client.disconnect())
  /** The recorded section or URL, for the Redis of this test. */
  const section = <T>(recorded: T): T =>
    JSON.parse(
      JSON.stringify(recorded)
        .replace(/\b6379\b/g, String(store.port))
        .replace(/\b2?6999\b/g, String(closedPort)),
    )
  for (const { name, input, observed, log } of recordings.matching(/^redis_transport_/)) {
    const conf = section(input.conf) as { redis?: { port?: number } }
    if (name.endsWith('badpass')) conf.redis = { ...conf.redis, port: store.port }
    const agent = new AgentProcess(t, { files: { 'c.json': conf }, env: section(input.env) })
    const reaches = log.some(({ message }) => message === 'scheduling standalone checks')
    if (reaches)
      await untilTold(agent, lines => lines.some(({ message }) => message.startsWith('subscribed to redis channel')))
    else await untilTold(agent, lines => lines.some(({ message }) => /connection error|failure/.test(message)))
    t.equal((await agent.stop()).status, observed['exit'], `${name}: exit status`)
    // opening and closing of connections is told here, threads are not
    const own =
      /eventmachine|^loading |client overrides|connection open|connection closed|reconnecting\.\.\.|unsubscribed from/
    const comparable = (lines: readonly LogLine[]) => onceEach(lines.filter(({ message }) => !own.test(message)))
    sameLog(t, comparable(agent.lines), comparable(section(log)), name)
  }
  await client.flushdb()
  const { input, observed, results } = recordings.take('redis_transport')
  const configuration = await here(input)
  const files = { 'c.json': { ...configuration, redis: section({ ...(input['redis'] as object), port: 6379 }) } }
  const agent = new AgentProcess(t, { files })
  const { db } = input['redis'] as { db: number }
  const key = (kind: string, name: string) => `transport:${db}:${kind}:${name}`
  await agent.log('scheduling standalone checks')
  await agent.until(() => agent.lines.some(({ message }) => message.endsWith('channel:client:probe-rd')))
  await client.publish(key('channel', 'client:probe-rd'), '{"name":"viaredis","command":"echo r","issued":1}')
  await client.publish(key('channel', 'tsub'), '{"name":"viaredis2","command":"echo r2","issued":1}')
  await client.rpush(key('list', 'roundrobin:tsub'), '{"name":"viaredis3","command":"echo r3","issued":1}')
  const published = async () =>
    (await client.lrange(key('list', 'results'), 0, -1)).map(text => ({ text, ...JSON.parse(text) }))
  const wanted = new Map(results.map(text => [JSON.parse(text).check.name, text]))
  wanted.set('deregistration', DEREGISTERED)
  const info = await ask(portOf(configuration, 'http_socket'), 'GET /info HTTP/1.1\r\n\r\n')
  t.equal(withoutCounts(info), withoutCounts(String(observed['http_info'])), 'redis_transport: /info')
  while (new Set((await published()).map(({ check }) => check.name)).size < wanted.size - 1) await sleep(20)
  await agent.stop()
  const all = await published()
  for (const [name, text] of wanted) {
    t.equal(
      withoutPlace(all.find(({ check }) => check.name === name)?.text ?? ''),
      withoutPlace(text),
      `redis_transport: ${name}`,
    )
  }
  const keepalive = await client.lindex(key('list', 'keepalives'), 0)
  const [recordedKeepalive = ''] = observed['keepalives_list'] as string[]
  t.equal(withoutPlace(keepalive ?? ''), withoutPlace(recordedKeepalive), 'redis_transport: keepalive')
})

/** What the recorded client published at its end, as its Redis monitor shows. */
const DEREGISTERED =
  '{"client":"probe-rd","check":{"handler":"deregistration","status":1,"name":"deregistration","output":"client initiated deregistration","issued":1795317933,"executed":1795317933}}'

/** What waits in the lists depends on the moment. */
function withoutCounts(response: string): string {
  return response.replace(/"(messages|consumers)":\d+/g, '"$1":0')
}

t.test('nothing was forgotten', { buffered: false }, async t => t.strictSame(recordings.left, []))

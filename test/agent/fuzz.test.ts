// Mutated messages at every input of the agent: it neither ends nor grows, says no unhandled error, and answers afterwards.
// FUZZ_SECONDS (default 10) and FUZZ_SEED (default 1) make it longer and other; a failure names both.
import { createSocket } from 'node:dgram'
import { readFileSync, writeFileSync } from 'node:fs'
import { connect as connectSocket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { connect } from 'amqplib'
import t from 'tap'
import { findFreePort } from '../../scripts/services/process.js'
import { loadSettings } from '../../sensu/settings.js'
import { rabbitmq } from '../support/services.js'
import { AgentProcess } from './agent-process.js'
import { mutate, Randomness } from './mutation.js'
import { ServerSide } from './server-side.js'

const seconds = Number(process.env['FUZZ_SECONDS'] ?? 10)
const seed = Number(process.env['FUZZ_SEED'] ?? 1)
const random = new Randomness(seed)

/** Well-formed messages that mutations start from. None runs a command that could do harm when it is changed. */
const seeds = {
  request: [
    '{"name":"f","command":":","issued":1795316669,"handlers":["default"],"timeout":1}',
    '{"name":"g","command":":","source":"proxy-:::name:::","hooks":{"ok":{"command":":","timeout":1},"0":{"command":":"}}}',
    '{"name":"h","command":": :::nested.a|x::: :::name:::","stdin":true,"ttl":30,"subdue":{"days":{"all":[{"begin":"1AM","end":"2AM"}]}}}',
    '{"name":"i","extension":"none","proxy_requests":{"client_attributes":{"name":"x"}}}',
  ],
  result: [
    'ping',
    '{"name":"s","output":"o","status":1,"ttl":5,"handlers":["a"],"aggregates":["b"],"source":"c"}',
    '[{"name":"s1","output":"\\u00e9\\ud83d\\ude00"},{"name":"s2","output":"","executed":1795317394,"low_flap_threshold":1,"high_flap_threshold":2}]',
  ],
  http: [
    'GET /info HTTP/1.1\r\nHost: x\r\n\r\n',
    'GET /settings?redacted=false HTTP/1.1\r\nAuthorization: Basic dTpw\r\n\r\n',
    'POST /results HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: 25\r\n\r\n{"name":"w","output":"o"}',
    'BREW /brew HTTP/1.0\n\n',
  ],
  configuration: [
    '{"client":{"name":"c","address":"a","subscriptions":["x"],"keepalive":{"thresholds":{"warning":1}},"redact":["k"]},"checks":{"a":{"command":"true","interval":5,"standalone":true}}}',
    '{"checks":{"b":{"command":"x","cron":"*/5 1-3 * jan mon","subscribers":["y"],"hooks":{"non-zero":{"command":"z"}},"subdue":{"days":{"monday":[{"begin":"22:00","end":"06:00"}]}}}}}',
    '{"handlers":{"p":{"type":"pipe","command":"x"},"s":{"type":"set","handlers":["p"]}},"filters":{"f":{"attributes":{"a":1}}},"rabbitmq":[{"host":"h"},"amqp://u:p@h/%2F"],"sensu":{"spawn":{"limit":3}}}',
  ],
}

t.test(`mutated messages at the broker and the sockets (FUZZ_SEED=${seed} FUZZ_SECONDS=${seconds})`, async t => {
  const broker = await rabbitmq(t)
  const [socketPort, httpPort] = [await findFreePort(), await findFreePort()]
  const client = {
    ...{ name: 'fuzzed', address: '127.0.0.9', subscriptions: [], nested: { a: 1 } },
    ...{ socket: { port: socketPort }, http_socket: { port: httpPort, user: 'u', password: 'p' } },
  }
  const agent = new AgentProcess(t, { files: { 'c.json': { client, rabbitmq: broker.url } }, args: ['-L', 'fatal'] })
  const server = await ServerSide.open(t, broker.url)
  await server.keepalive('fuzzed')
  const connection = await connect(broker.url)
  t.teardown(() => connection.close())
  const channel = await connection.createConfirmChannel()
  const datagrams = createSocket('udp4')
  t.teardown(() => void datagrams.close())
  const exchange = 'client:fuzzed'
  await server.request(exchange, { name: 'warm', command: 'true' })
  await server.result('warm')

  const rounds = { sent: 0 }
  const burst = async () => {
    for (let n = 0; n < 20; n++) channel.publish(exchange, '', mutate(random.pick(seeds.request), random))
    for (let n = 0; n < 20; n++) datagrams.send(mutate(random.pick(seeds.result), random), socketPort, '127.0.0.1')
    const streams = [
      ...Array.from({ length: 10 }, () => throwAt(socketPort, mutate(random.pick(seeds.result), random))),
      ...Array.from({ length: 10 }, () => throwAt(httpPort, mutate(random.pick(seeds.http), random))),
    ]
    await Promise.all([...streams, channel.waitForConfirms()])
    rounds.sent += 60
    server.results.length = 0
  }
  /** Everything thrown so far has been dealt with: requests are taken in order. */
  const settle = async (name: string) => {
    await server.request(exchange, { name, command: 'echo alive' })
    t.match((await server.result(name)).check, { output: 'alive\n' }, `${name}: requests are executed`)
    return residentMiB(agent.pid)
  }
  const start = performance.now()
  const until = async (share: number) => {
    while (performance.now() - start < share * seconds * 1000 && agent.running) await burst()
  }
  await until(0.4)
  const early = await settle('early')
  await until(1)
  const late = await settle('late')
  t.comment(`${rounds.sent} messages, ${early.toFixed(0)} MiB after the first part, ${late.toFixed(0)} MiB in the end`)
  t.ok(late - early < 48, `memory stays: ${early.toFixed(0)} MiB, then ${late.toFixed(0)} MiB`)
  t.match(await ask(socketPort, 'ping'), /^pong/, 'the TCP socket answers')
  t.match(await ask(httpPort, 'GET /info HTTP/1.1\r\n\r\n'), /^HTTP\/1\.1 200 /, 'the HTTP socket answers')
  t.strictSame(await agent.stop(), { status: 0, signal: null })
  t.strictSame(agent.text, [], 'nothing unhandled is printed')
  t.strictSame(
    agent.lines.filter(({ level }) => level === 'fatal'),
    [],
    'nothing unexpected is told',
  )
})

t.test(`mutated configuration files (FUZZ_SEED=${seed})`, async t => {
  const directory = t.testdir({ 'conf.d': {} })
  const start = performance.now()
  let refused = 0
  let count = 0
  while (count < 300 || performance.now() - start < seconds * 100) {
    const text = mutate(random.pick(seeds.configuration), random)
    writeFileSync(`${directory}/conf.d/c.json`, text)
    try {
      const { errors } = loadSettings({
        service: 'client',
        configDirectories: [`${directory}/conf.d`],
        environment: {},
        hostName: 'vm',
        address: '192.0.2.2',
      })
      if (errors.length > 0) refused++
    } catch (error) {
      t.fail(`a configuration is read or refused, but ${String(error)}: ${text.toString('latin1')}`)
    }
    count++
  }
  t.ok(refused > 0 && refused < count, `${refused} of ${count} are refused`)
})

/** Sends bytes to a TCP port and waits for the end of the connection, at most a little longer than a silent sender is borne. */
async function throwAt(port: number, bytes: Buffer): Promise<void> {
  await Promise.race([ask(port, bytes), sleep(100)])
}

/** Everything that comes back until the other side closes; after 2 s this side does. */
function ask(port: number, bytes: Buffer | string): Promise<string> {
  return new Promise(resolve => {
    const chunks: Buffer[] = []
    const socket = connectSocket(port, '127.0.0.1', () => socket.write(bytes))
    socket.setTimeout(2000, () => socket.destroy())
    socket.on('data', chunk => chunks.push(chunk))
    socket.on('error', () => {})
    socket.on('close', () => resolve(Buffer.concat(chunks).toString()))
  })
}

function residentMiB(pid: number): number {
  return Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]) / 1024
}

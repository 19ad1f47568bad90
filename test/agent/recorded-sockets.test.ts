// Replays recorded conversations with the local sockets of Sensu 1.9 against the built agent: answers byte for byte, results, log.
import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { connect } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { findFreePort } from '../../scripts/services/process.js'
import type { LogLine } from '../support/service-process.js'
import { rabbitmq } from '../support/services.js'
import { AgentProcess } from './agent-process.js'
import { comparableLogs, type RecordedCase, Recordings, recordedConfiguration, withoutPlace } from './recordings.js'
import { ServerSide } from './server-side.js'

const client = 'probe-a'
/** A connection that is still open after this long is one that stays open. */
const STAYS_OPEN_MS = 1200

const recordings = new Recordings('agent/recorded-sockets')
const broker = await rabbitmq(t)
const { host, port, vhost, user, password } = broker
const server = await ServerSide.open(t, broker.url)
const files = {
  '01_client.json': recordedConfiguration('a__01_client'),
  '02_conn.json': recordedConfiguration('a__02_conn'),
  '03_checks.json': recordedConfiguration('a__03_checks'),
}
const socketPort = await findFreePort()
const httpPort = await findFreePort()
files['01_client.json'].client.socket.port = socketPort
files['01_client.json'].client.http_socket.port = httpPort
files['02_conn.json'].rabbitmq = { host, port, vhost, user, password }
const agent = new AgentProcess(t, { files })
await server.keepalive(client)

/** What a recorded client sent, piece by piece. Long texts were recorded abbreviated. */
function chunksOf({ name, input }: RecordedCase): Buffer[] {
  if (name === 'tcp_complete_then_half_close') return [Buffer.from('{"name":"s_half","output":"o"}\n')]
  const chunks = (input['chunks'] ?? [input['datagram'] ?? input['request'] ?? input.raw]) as (
    | string
    | { base64: string }
  )[]
  return chunks.map(chunk => {
    if (typeof chunk !== 'string') return Buffer.from(chunk.base64, 'base64')
    const [, head = chunk, bytes] = /^(.*x)\.\.\.\((\d+) bytes\)$/.exec(chunk) ?? []
    const end = name.endsWith('missing_end') || bytes === undefined ? '' : '"}'
    return Buffer.from(bytes === undefined ? chunk : head.padEnd(Number(bytes) - end.length, 'x') + end)
  })
}

/** Sends the chunks; returns everything that came back, and whether the other side closed. */
async function converse(recorded: RecordedCase, port: number): Promise<{ response: string; closed: boolean }> {
  const { name, input, observed } = recorded
  const socket = connect(port, '127.0.0.1')
  const received: Buffer[] = []
  socket.on('data', data => received.push(data))
  socket.on('error', () => {})
  const closed = once(socket, 'close').then(() => true)
  await once(socket, 'connect')
  for (const [index, chunk] of chunksOf(recorded).entries()) {
    // the pause between chunks is what such a recording is about
    if (index > 0) await sleep(Number(input['gap'] ?? 0))
    if (socket.writable) socket.write(chunk)
  }
  if (input['end'] === true || name === 'tcp_complete_then_half_close') socket.end()
  const staysOpen = observed['closed'] === false
  const ended = await Promise.race([closed, ...(staysOpen ? [sleep(STAYS_OPEN_MS, false)] : [])])
  socket.destroy()
  return { response: Buffer.concat(received).toString(), closed: ended }
}

async function sendDatagram(recorded: RecordedCase): Promise<void> {
  const socket = createSocket('udp4')
  const [datagram = Buffer.alloc(0)] = chunksOf(recorded)
  await new Promise<void>((resolve, reject) => {
    socket.send(datagram, socketPort, '127.0.0.1', error => (error ? reject(error) : resolve()))
  })
  socket.close()
}

/** The broker's settings, its counts and the ports are this run's own, and so is the length of what shows the settings. */
function withoutPlaces(text: string): string {
  return withoutPlace(text)
    .replace(/"rabbitmq":\{[^}]*\}/, '"rabbitmq":{}')
    .replace(/"(messages|consumers)":\d+/g, '"$1":0')
    .replace(
      /Content-length: \d+(?=\r\nContent-type: application\/json\r\n\r\n\{"(client|sensu)")/,
      'Content-length: 0',
    )
}

const ofSocket = /^(socket received|data from socket|failed to process check result|discarding data)/
const ofHttp = /^http socket/

/** Whether a line shows something of what was sent; the recordings hold lines about the conversation before, too. */
const isAbout = ({ data }: LogLine, sent: string) =>
  data === undefined || (data !== '' && sent.startsWith(String(data)))

const checkNames = (results: readonly string[]) => results.map(text => JSON.parse(text).check.name)

/** What the log says, from a line on, of one socket and of results with these names. */
function linesOf(socket: RegExp, names: readonly string[], from: number): LogLine[] {
  return agent.lines.slice(from).filter(({ message, payload }) => {
    const { check } = (payload ?? {}) as { check?: { name: string } }
    return socket.test(message) || (message === 'publishing check result' && names.includes(check?.name ?? ''))
  })
}

async function replay(t: Test, recorded: RecordedCase) {
  const { name, observed, results, log } = recorded
  const names = checkNames(results)
  const before = { lines: agent.lines.length, results: server.results.length }
  if (name.startsWith('udp_')) await sendDatagram(recorded)
  else {
    const { response, closed } = await converse(recorded, name.startsWith('http_') ? httpPort : socketPort)
    t.equal(withoutPlaces(response), withoutPlaces(String(observed['response'] ?? '')), `${name}: answer`)
    t.equal(closed, observed['closed'] !== false, `${name}: closed`)
  }
  const arrived = () =>
    server.results.slice(before.results).filter(({ text }) => names.includes(JSON.parse(text).check.name))
  await server.until(() => arrived().length >= results.length)
  t.strictSame(
    arrived().map(({ text }) => withoutPlaces(text)),
    results.map(withoutPlaces),
    `${name}: results`,
  )
  if (!Array.isArray(observed['client_log'])) return
  const sent = Buffer.concat(chunksOf(recorded)).toString()
  const socket = name.startsWith('http_') ? ofHttp : ofSocket
  const lines = () => linesOf(socket, names, before.lines).filter(line => isAbout(line, sent))
  const wanted = log.filter(line => isAbout(line, sent))
  await agent.until(() => lines().length >= wanted.length)
  const logs = comparableLogs(lines(), wanted)
  t.strictSame(logs.found.map(withoutPlaces), logs.wanted.map(withoutPlaces), `${name}: log`)
}

// two lanes, each conversation after the other: the log does not say whose line is whose
t.jobs = 2
const lanes = [/^(tcp|udp)_/, /^http_/].map(prefix =>
  t.test(prefix.source, { buffered: true }, async t => {
    for (const recorded of recordings.matching(prefix)) await replay(t, recorded)
  }),
)
await Promise.all(lanes)

t.test('nothing was forgotten', async t => t.strictSame(recordings.left, []))

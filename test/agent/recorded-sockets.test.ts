// Replays recorded conversations with the local sockets of Sensu 1.9 against the built agent: answers byte for byte, results except for times.
import { once } from 'node:events'
import { readdirSync, readFileSync } from 'node:fs'
import { connect, createServer } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { rabbitmq } from '../support/services.js'
import { AgentProcess } from './agent-process.js'
import { ServerSide } from './server-side.js'

const fixtures = fileURLToPath(new URL('../../../test/fixtures/client/', import.meta.url))
const configurations = fileURLToPath(new URL('../../../test/fixtures/client-config/', import.meta.url))

/** Cases that differ on purpose, or are tested elsewhere, with the reason. */
const left: Record<string, string> = {
  tcp_raw_nan: 'NaN is no JSON and is refused',
  tcp_complete_then_half_close: 'recorded in words',
  tcp_after_udp_still_works: 'recorded in words',
  tcp_large_100k: 'recorded abbreviated',
  tcp_never_sends: 'open for ever',
  http_settings_malformed_basic: 'malformed credentials are refused instead of an internal error',
  http_protect_all_endpoints: 'of another client',
  http_no_credentials_configured_settings: 'of another client',
  http_incomplete_request: 'open for ever',
}

interface Conversation {
  name: string
  chunks: Buffer[]
  gapMs: number
  end: boolean
  response: string
  /** JSON texts or documents, without the times. */
  results: unknown[]
}

function recorded(prefix: string): Conversation[] {
  return readdirSync(fixtures)
    .filter(file => file.startsWith(prefix) && left[file.replace('.json', '')] === undefined)
    .flatMap(file => {
      const { case: name, input, observed } = JSON.parse(readFileSync(fixtures + file, 'utf8'))
      const chunks = input.chunks ?? (input.raw === undefined ? [input.request] : [input.raw])
      if (chunks[0] === undefined || observed.closed === false || JSON.stringify(chunks).includes('bytes)')) return []
      return [
        {
          name,
          chunks: chunks.map((chunk: string | { base64: string }) =>
            typeof chunk === 'string' ? Buffer.from(chunk) : Buffer.from(chunk.base64, 'base64'),
          ),
          gapMs: input.gap ?? 0,
          end: input.end === true,
          response: observed.response ?? '',
          results: (observed.results ?? []).map((result: unknown) =>
            typeof result === 'string' ? JSON.parse(result) : result,
          ),
        },
      ]
    })
}

/** Sends the chunks and returns everything that came back until the other side closed. */
async function converse(port: number, { chunks, gapMs, end }: Conversation): Promise<string> {
  const socket = connect(port, '127.0.0.1')
  const received: Buffer[] = []
  socket.on('data', data => received.push(data))
  socket.on('error', () => {})
  const closed = once(socket, 'close')
  await once(socket, 'connect')
  for (const [index, chunk] of chunks.entries()) {
    // the pause between chunks is what the recording is about
    if (index > 0 && gapMs > 0) await sleep(gapMs)
    if (socket.writable) socket.write(chunk)
  }
  if (end) socket.end()
  await closed
  return Buffer.concat(received).toString()
}

function withoutTimes(result: unknown): string {
  return JSON.stringify(result).replace(/"(executed|issued)":1\d{9}/g, '"$1":0')
}

/** The broker's settings and the ports are this run's own, and so is the length of what shows them. */
function withoutPlaces(response: string): string {
  return response
    .replace(/"rabbitmq":\{[^}]*\}/, '"rabbitmq":{}')
    .replace(/"port":\d{4,5}/g, '"port":0')
    .replace(/"(messages|consumers)":\d+/g, '"$1":0')
    .replace(/Content-length: \d+/, 'Content-length: 0')
}

/** Ports that were free a moment ago. */
async function freePorts(count: number): Promise<number[]> {
  const servers = Array.from({ length: count }, () => createServer().listen(0, '127.0.0.1'))
  await Promise.all(servers.map(server => once(server, 'listening')))
  const ports = servers.map(server => {
    const address = server.address()
    return typeof address === 'object' && address ? address.port : 0
  })
  await Promise.all(servers.map(server => once(server.close(), 'close')))
  return ports
}

const [broker, [socketPort = 0, httpPort = 0]] = await Promise.all([rabbitmq(t), freePorts(2)])
const { host, port, vhost, user, password } = broker
const server = await ServerSide.open(t, broker.url)
const files = Object.fromEntries(
  readdirSync(configurations)
    .filter(file => file.startsWith('a__'))
    .map(file => [file.slice('a__'.length), JSON.parse(readFileSync(configurations + file, 'utf8'))]),
)
files['01_client.json'].client.socket.port = socketPort
files['01_client.json'].client.http_socket.port = httpPort
files['02_conn.json'].rabbitmq = { host, port, vhost, user, password }
new AgentProcess(t, { files, args: [] })
await server.keepalive('probe-a')

t.jobs = 8
for (const [prefix, target] of [
  ['tcp_', socketPort],
  ['http_', httpPort],
] as const) {
  for (const conversation of recorded(prefix)) {
    t.test(conversation.name, async t => {
      const response = await converse(target, conversation)
      t.equal(withoutPlaces(response), withoutPlaces(conversation.response))
      const counts = new Map<string, number>()
      for (const wanted of conversation.results) {
        const { check } = wanted as { check: { name: string } }
        const count = (counts.get(check.name) ?? 0) + 1
        counts.set(check.name, count)
        const { text } = await server.result(check.name, count)
        t.equal(withoutTimes(JSON.parse(text)), withoutTimes(wanted))
      }
    })
  }
}

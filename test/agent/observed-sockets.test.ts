// Conversations with the local sockets beyond the recorded ones: answers, results and log as those of Sensu 1.9.
import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { connect } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { findFreePort } from '../../scripts/services/process.js'
import type { LogLine } from '../support/service-process.js'
import { rabbitmq } from '../support/services.js'
import { AgentProcess } from './agent-process.js'
import { observed, timeless } from './observed.js'
import { ServerSide } from './server-side.js'

interface Conversation {
  /** `tcp`, `udp` or `http`, and what it is about. */
  title: string
  /** One character a byte. */
  chunks: string[]
  /** Milliseconds between chunks. */
  gap?: number
  /** The sender closes its side after the last chunk. */
  half?: boolean
  answer?: string
  results: string[]
  /** Level, message, and the error where it is Sensu's own text. */
  log: string[]
}

const conversations = observed<Conversation[]>('sockets')
const broker = await rabbitmq(t)
const server = await ServerSide.open(t, broker.url)

/** Returns the answer; `taken` resolves when the agent has so many of the chunks. */
async function converse(
  port: number,
  { chunks, gap = 0, half = false }: Conversation,
  taken: (count: number) => Promise<unknown>,
): Promise<string> {
  const socket = connect({ port, host: '127.0.0.1', allowHalfOpen: true })
  const received: Buffer[] = []
  socket.on('data', data => received.push(data))
  socket.on('end', () => socket.end())
  socket.on('error', () => {})
  const closed = once(socket, 'close')
  for (const [index, chunk] of chunks.entries()) {
    if (index > 0) await taken(index)
    if (index > 0) await sleep(gap)
    if (socket.writable) socket.write(Buffer.from(chunk, 'latin1'))
  }
  if (half) socket.end()
  await closed
  return Buffer.concat(received).toString('latin1')
}

async function sendDatagram(port: number, { chunks }: Conversation): Promise<void> {
  const socket = createSocket('udp4')
  await new Promise(resolve => socket.send(Buffer.from(chunks[0] ?? '', 'latin1'), port, '127.0.0.1', resolve))
  socket.close()
}

const logged = ({ level, message, error }: LogLine) =>
  // the words of a parser are its own
  `${level} ${message}${error === undefined || /line \d|JSON/.test(String(error)) ? '' : `: ${error}`}`

/** An agent of its own for each kind: the log does not say whose line is whose. */
async function replay(t: Test, kind: string): Promise<void> {
  const [port, httpPort] = [await findFreePort(), await findFreePort()]
  const name = `observed-${kind}`
  const client = {
    ...{ name, address: '127.0.0.1', subscriptions: [] },
    socket: { port },
    http_socket: { port: httpPort, user: 'u', password: 'p' },
  }
  const agent = new AgentProcess(t, { files: { 'c.json': { client, rabbitmq: broker.url } } })
  await server.keepalive(name)
  await agent.log('scheduling standalone checks')
  for (const conversation of conversations.filter(({ title }) => title.startsWith(kind))) {
    const { title, answer, results, log } = conversation
    const before = agent.lines.length
    const own = () => server.results.filter(({ text }) => JSON.parse(text).client === name)
    const arrived = own().length
    const lines = () => agent.lines.slice(before).filter(({ message }) => !/keepalive/.test(message))
    // only the TCP socket tells of each
    const taken = async (count: number) => kind === 'http' || agent.until(() => lines().length >= count)
    if (kind === 'udp') await sendDatagram(port, conversation)
    else t.equal(await converse(kind === 'tcp' ? port : httpPort, conversation, taken), answer, `${title}: answer`)
    await agent.until(() => lines().length >= log.length)
    t.strictSame(lines().map(logged), log, `${title}: log`)
    await server.until(() => own().length >= arrived + results.length)
    const found = own().slice(arrived)
    const wanted = results.map(text => text.replace('"client":"observed"', `"client":"${name}"`))
    t.strictSame(
      found.map(({ content }) => timeless(content.toString())),
      wanted,
      `${title}: results`,
    )
  }
}

t.jobs = 3
const running = ['tcp', 'udp', 'http'].map(kind => t.test(kind, { buffered: true }, t => replay(t, kind)))
await Promise.all(running)

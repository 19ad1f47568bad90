// Check requests beyond the recorded ones: texts, types and places that nobody would write, answered as Sensu 1.9 answers them.
import t from 'tap'
import { rabbitmq } from '../support/services.js'
import { AgentProcess } from './agent-process.js'
import { observed, timeless } from './observed.js'
import { ServerSide } from './server-side.js'

interface Requests {
  client: { name: string }
  checks: object
  cases: { request: string; result: string }[]
}

const { client, checks, cases } = observed<Requests>('requests')
const broker = await rabbitmq(t)
const server = await ServerSide.open(t, broker.url)
const files = { 'c.json': { client, checks, rabbitmq: broker.url } }
const agent = new AgentProcess(t, { files, args: [] })
await server.keepalive(client.name)

/** One character for each byte, as they were observed. */
const resultOf = (name: unknown) => {
  const found = server.results.filter(({ text }) => JSON.parse(text).check.name === name)
  return found.map(({ content }) => timeless(content.toString('latin1')))
}

t.test('each has the result that Sensu 1.9 has for it, byte for byte', async t => {
  for (const { request } of cases) await server.request(`client:${client.name}`, request)
  await server.until(() => server.results.length >= cases.length)
  for (const { request, result } of cases) {
    t.strictSame(resultOf(JSON.parse(result).check.name), [timeless(result)], request)
  }
  t.strictSame(await agent.stop(), { status: 0, signal: null })
  t.equal(server.results.length, cases.length, 'and nothing else')
})

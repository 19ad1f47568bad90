// Replays recorded check requests of Sensu 1.9 against the built agent: results and log, field by field.
import t, { type Test } from 'tap'
import { findFreePort } from '../../scripts/services/process.js'
import type { LogLine } from '../support/service-process.js'
import { rabbitmq } from '../support/services.js'
import { AgentProcess } from './agent-process.js'
import { comparableLogs, type RecordedCase, Recordings, recordedConfiguration, withoutPlace } from './recordings.js'
import { ServerSide } from './server-side.js'

const client = 'probe-a'

/** The extensions of the recorded client, in JavaScript. */
const extensions = {
  'probe_ext.mjs': `export const name = 'probe_ext', description = 'probe extension'
    export const definition = { standalone: true, interval: 9, custom: 'c' }
    export const run = check => ({ output: 'ext ran ' + check.name, status: 1 })`,
  'probe_boom.mjs': `export const name = 'probe_boom', description = 'raises'
    class RuntimeError extends Error {}
    export const run = () => { throw new RuntimeError('boom') }`,
}

const recordings = new Recordings('agent/recorded-requests')
const broker = await rabbitmq(t)
const server = await ServerSide.open(t, broker.url)
const configuration = recordedConfiguration('a__01_client')
configuration.client.socket.port = await findFreePort()
configuration.client.http_socket.port = await findFreePort()
const agent = new AgentProcess(t, {
  files: {
    '01_client.json': configuration,
    '02_conn.json': { rabbitmq: broker.url },
    '03_checks.json': recordedConfiguration('a__03_checks'),
    ...Object.fromEntries(Object.entries(extensions).map(([file, text]) => [`extensions/${file}`, text])),
  },
  args: ['-v', '-e', 'conf.d/extensions'],
})
await server.keepalive(client)

function bodyOf({ input }: RecordedCase): string | Buffer {
  if (input.raw === undefined) return JSON.stringify(input['payload'])
  return typeof input.raw === 'string' ? input.raw : Buffer.from(input.raw.base64, 'base64')
}

const checkOf = (recorded: RecordedCase) => /"name"\s*:\s*"([^"]*)"/.exec(bodyOf(recorded).toString())?.[1] ?? ''

/** What the log says of one check, from a line on. */
function linesAbout(check: string, from: number): LogLine[] {
  return agent.lines.slice(from).filter(({ check: about, payload }) => {
    const named = (about ?? (payload as { check?: unknown } | undefined)?.check) as { name?: unknown } | undefined
    return named?.name === check
  })
}

const resultsOf = (check: string) => server.results.filter(({ text }) => JSON.parse(text).check.name === check)

/** Waits for what is to come; what comes beyond it shows at the end of its group. */
async function replay(t: Test, recorded: RecordedCase) {
  const { name, input, results, log } = recorded
  const exchange = (input['exchange'] ?? { type: 'fanout', name: `client:${client}` }) as {
    type: 'fanout' | 'direct'
    name: string
  }
  const check = checkOf(recorded)
  const before = { lines: agent.lines.length, results: resultsOf(check).length }
  for (let time = 0; time < Number(input['published_times']); time++) {
    await server.request(exchange.name, bodyOf(recorded), exchange.type)
  }
  await server.until(() => resultsOf(check).length >= before.results + results.length)
  await agent.until(() => linesAbout(check, before.lines).length >= log.length)
  const found = resultsOf(check).slice(before.results)
  t.strictSame(
    found.map(({ text }) => comparableOutput(withoutPlace(text))),
    results.map(text => comparableOutput(withoutPlace(text))),
    `${name}: results`,
  )
  const logs = comparableLogs(linesAbout(check, before.lines), log)
  t.strictSame(logs.found.map(comparableOutput), logs.wanted.map(comparableOutput), `${name}: log`)
}

/** Which shell it was, and where in an extension's code. */
function comparableOutput(text: string): string {
  return text
    .replace(/"sh: (\d+: |line \d+: )?/, '"sh: ')
    .replace(/(RuntimeError: boom\\n {2}).*?","status"/, '$1…","status"')
}

/** One after the other when they are about the same check: it does not run twice at once. */
const groups = new Map<string, RecordedCase[]>()
for (const recorded of recordings.matching(/^(?!req_concurrency_limit)/)) {
  groups.set(checkOf(recorded), [...(groups.get(checkOf(recorded)) ?? []), recorded])
}
t.jobs = 8
const running = [...groups].map(([check, cases]) =>
  t.test(check, { buffered: true }, async t => {
    for (const recorded of cases) await replay(t, recorded)
  }),
)
await Promise.all(running)

t.test('req_concurrency_limit_12: no more than the limit at once, the others wait in line', async t => {
  const { input } = recordings.take('req_concurrency_limit_12')
  const count = Number(input['count'])
  const names = Array.from({ length: count }, (_, index) => `r_par_${index}`)
  // the recorded command, with the fractions of seconds that its output has
  const command = 'date +%s.%N; sleep 1; date +%s.%N'
  for (const name of names) await server.request(`client:${client}`, { name, issued: 1795317295, command })
  const results = await Promise.all(names.map(name => server.result(name)))
  const spans = results.map(({ check }) => String(check.output).trim().split('\n').map(Number))
  const atOnce = spans.map(([start = 0]) => spans.filter(([from = 0, to = 0]) => from <= start && start < to).length)
  t.ok(Math.max(...atOnce) <= 12, `at most 12 at once (${Math.max(...atOnce)})`)
  t.ok(Math.max(...atOnce) >= 9, `about as many (${Math.max(...atOnce)})`)
  t.ok(Math.max(...results.map(({ check }) => Number(check.duration))) > 1.9, 'waiting counts')
  const accepted = results.map(({ check }) => Number(check.executed))
  t.ok(Math.max(...accepted) - Math.min(...accepted) <= 1, 'all of them were accepted at once')
})

t.test('nothing was forgotten, and nothing came beyond what was recorded', async t => {
  t.strictSame(recordings.left, [])
  for (const [check, cases] of groups) {
    t.equal(resultsOf(check).length, cases.flatMap(({ results }) => results).length, check)
  }
})

// Replays recorded check requests of Sensu 1.9 against the built agent. What differs on purpose is in `deliberate`.
import { readdirSync, readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { rabbitmq } from '../support/services.js'
import { AgentProcess } from './agent-process.js'
import { ServerSide } from './server-side.js'

const fixtures = fileURLToPath(new URL('../../../test/fixtures/client/', import.meta.url))
const configurations = fileURLToPath(new URL('../../../test/fixtures/client-config/', import.meta.url))
const client = 'probe-a'

interface Recorded {
  name: string
  /** The request's body, byte for byte where it was recorded so. */
  body: string
  check: string
  exchange: { type: 'fanout' | 'direct'; name: string }
  times: number
  results: string[]
}

/** Cases whose result is meant to be another one, with the reason and the result we give. */
const deliberate: Record<string, { reason: string; result: (recorded: string) => string }> = {
  req_hook_secret_token: {
    reason: 'the published hook command must not hold the secret',
    result: recorded => recorded.replace('"command":"echo topsecret"', '"command":"echo :::password:::"'),
  },
  req_hook_warning_severity: {
    reason: 'the published hook command is the configured one',
    result: recorded => recorded.replace('"echo hooked probe-a"', '"echo hooked :::name:::"'),
  },
  req_hook_unmatched_token: {
    reason: 'the published hook command is the configured one',
    result: recorded => recorded.replace('"command":"echo "', '"command":"echo :::nope:::"'),
  },
  req_timeout_string: {
    reason: "the reference's text is a fault in its own code",
    result: recorded =>
      recorded.replace(
        /"output":"Unexpected error: .*?","status"/s,
        '"output":"Unexpected error: the timeout must be a number of seconds, not \\"5\\"","status"',
      ),
  },
  odd_unicode_escapes: { reason: 'characters beyond ASCII are kept', result: () => '' },
  odd_utf8_attr: { reason: 'characters beyond ASCII are kept', result: () => '' },
}

/** Cases tested elsewhere: by their own test, or because they need a Ruby extension. */
const elsewhere =
  /concurrency_limit|other_source|extension_(by_name|attr|raises)|no_command_unknown_name|env_cwd|stdin_true|stdin_slow|stdin_not|hook_stdin|odd_un|odd_utf8/

function recordedCases(): Recorded[] {
  return readdirSync(fixtures)
    .filter(file => /^(req|odd)_/.test(file) && !elsewhere.test(file))
    .map(file => {
      const { case: name, input, observed } = JSON.parse(readFileSync(fixtures + file, 'utf8'))
      const body = input.raw ?? JSON.stringify(input.payload)
      return {
        name,
        body,
        check: /"name"\s*:\s*"([^"]*)"/.exec(body)?.[1] ?? '',
        exchange: input.exchange ?? { type: 'fanout', name: `client:${client}` },
        times: input.published_times ?? 1,
        results: observed.raw_bodies ?? [],
      }
    })
}

/** The same text for results that differ in times only. */
function withoutTimes(result: string): string {
  return result.replace(/"executed":\d+/g, '"executed":0').replace(/"duration":\d+\.\d+/g, '"duration":0.0')
}

const broker = await rabbitmq(t)
const server = await ServerSide.open(t, broker.url)
const files = Object.fromEntries(
  readdirSync(configurations)
    .filter(file => file.startsWith('a__'))
    .map(file => [file.slice('a__'.length), JSON.parse(readFileSync(configurations + file, 'utf8'))]),
)
files['01_client.json'].client.socket.enabled = false
files['01_client.json'].client.http_socket.enabled = false
files['02_conn.json'] = { rabbitmq: broker.url }
new AgentProcess(t, { files })
await server.keepalive(client)

/** One after the other when they are about the same check: it does not run twice at once. */
const groups = new Map<string, Recorded[]>()
for (const recorded of recordedCases()) {
  groups.set(recorded.check, [...(groups.get(recorded.check) ?? []), recorded])
}
t.jobs = 8
for (const [check, cases] of groups) {
  t.test(check, async t => {
    let count = 0
    for (const { name, body, exchange, times, results } of cases) {
      for (let time = 0; time < times; time++) await server.request(exchange.name, body, exchange.type)
      for (const recorded of results) {
        const { text } = await server.result(check, ++count)
        const wanted = deliberate[name]?.result(recorded) ?? recorded
        t.equal(withoutTimes(text), withoutTimes(wanted), name)
      }
    }
  })
}

import t from 'tap'
import type { JsonObject } from '../../sensu/types.js'
import { AgentProcess } from '../agent/agent-process.js'
import { ServerProcess } from './site.js'

/** What the server says about a configuration, and with which status it ends. */
async function validity(settings: JsonObject, args: string[] = []): Promise<{ status: number | null; text: string }> {
  const server = new ServerProcess(t, settings, ['--validate_config', ...args])
  const { status } = await server.exit
  return { status, text: server.text.join('\n') }
}

t.test('a valid configuration, an empty one too, is valid', async t => {
  t.strictSame(await validity({}), { status: 0, text: 'configuration is valid' })
  const filters = { often: { attributes: { occurrences: 'eval: value == 1 || value % :::check.every|60::: == 0' } } }
  t.match(await validity({ filters }), { status: 0 })
})

t.test('everything that is wrong is told at once: definitions, the API, expressions, own settings', async t => {
  const { status, text } = await validity({
    checks: {
      broken: { command: 'true', subscribers: ['x'] },
      proxy: {
        command: 'true',
        subscribers: ['x'],
        interval: 5,
        proxy_requests: { client_attributes: { name: 'eval: value.freeze' } },
      },
    },
    api: { port: 'x' },
    sensu_kvm: { server: { prefetch: 0, prefect: 1 }, spool: { enabled: true } },
  })
  t.equal(status, 2)
  const { errors } = JSON.parse(text.replace('configuration is invalid\n', ''))
  const messages = errors.map(({ message }: { message: string }) => message)
  t.strictSame(messages, [
    'check interval must be an integer greater than 0',
    'sensu_kvm server prefect is not a known setting',
    'sensu_kvm server prefetch must be an integer not less than 1',
    'api port must be an integer',
  ])
  const expression = {
    checks: {
      proxy: {
        command: 'true',
        subscribers: ['x'],
        interval: 5,
        proxy_requests: { client_attributes: { name: 'eval: value.freeze' } },
      },
    },
  }
  t.match(await validity(expression), {
    status: 2,
    text: /check proxy: the expression of attribute proxy_requests client_attributes name is not supported: unknown method freeze at character 8/,
  })
})

t.test('without the API its settings are not looked at; alone it is the API that is validated', async t => {
  t.match(await validity({ api: { port: 'x' } }, ['--no-api']), { status: 0 })
  t.match(await validity({ api: { port: 'x' } }, ['--api-only']), { status: 2, text: /api port must be an integer/ })
})

t.test('CORS headers that cannot be sent are told', async t => {
  t.match(await validity({ api: { cors: { 'Ori gin': '*', Methods: 'GET\n' } } }), {
    status: 2,
    text: /api cors Ori gin cannot be an HTTP header.*api cors Methods cannot be an HTTP header/s,
  })
  t.match(await validity({ api: { cors: { Origin: 'https://x' } } }), { status: 0 })
})

t.test('an invalid configuration ends the start with status 2', async t => {
  const server = new ServerProcess(t, { handlers: { x: { type: 'carrier pigeon' } } }, [])
  t.strictSame(await server.exit, { status: 2, signal: null })
  t.match(server.lines.slice(-2), [
    { level: 'fatal', message: 'unknown handler type', object: { name: 'x' } },
    { level: 'fatal', message: 'SENSU NOT RUNNING!' },
  ])
})

t.test('the command line names what server and API share, and what they do not', async t => {
  const help = new ServerProcess(t, {}, ['--help'])
  t.strictSame(await help.exit, { status: 0, signal: null })
  t.match(help.text.join('\n'), /^Usage: sensu-kvm-server \[options\]\n.*--pid_file FILE.*--api-only .*--no-api /s)
  const both = new ServerProcess(t, {}, ['--api-only', '--no-api'])
  t.strictSame(await both.exit, { status: 1, signal: null })
})

t.test("the agent does not mind the server's settings in its configuration", async t => {
  const client = { name: 'x', address: 'x', subscriptions: [] }
  const files = { 'x.json': { client, sensu_kvm: { server: { prefetch: 5 } } } }
  const agent = new AgentProcess(t, { files, args: ['--validate_config'] })
  t.strictSame(await agent.exit, { status: 0, signal: null })
})

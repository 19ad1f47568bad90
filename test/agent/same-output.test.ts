import { execFile } from 'node:child_process'
import { rmSync } from 'node:fs'
import { dirname, join } from 'node:path'
import t from 'tap'
import { programs } from '../../generated/programs.js'
import { makeTemporaryDirectory } from '../../scripts/services/process.js'
import { busyGuests } from '../support/busy-guests.js'
import { libvirtd, rabbitmq } from '../support/services.js'
import { AgentProcess, agentFile } from './agent-process.js'
import { ServerSide } from './server-side.js'

// Every check that asks libvirt, inside the agent and as an executable, over the same guests: the same bytes and status.

/** What these print depends on the moment: there numbers are compared by their places alone. */
const momentary: ReadonlySet<string> = new Set([
  'check-kvm-guest-agent',
  'check-kvm-guest-time',
  'check-kvm-host-cpu',
  'check-kvm-libvirtd',
  'metrics-kvm',
])
/** Which of several clocks is furthest off changes, too. */
const moreWords: Readonly<Record<string, readonly string[]>> = { 'check-kvm-guest-time': ['--guest', 'web2'] }

const [broker, daemon] = await Promise.all([rabbitmq(t), libvirtd(t)])
const server = await ServerSide.open(t, broker.url)
const directory = dirname(agentFile)

function executable(program: string, words: readonly string[]): Promise<{ output: string; status: number }> {
  return new Promise(resolve => {
    execFile(process.execPath, [join(directory, program), ...words], (error, stdout, stderr) => {
      resolve({ output: stdout + stderr, status: typeof error?.code === 'number' ? error.code : 0 })
    })
  })
}

t.setTimeout(180_000)
t.test('a check that asks libvirt prints the same inside the agent as by itself', async t => {
  const { daemon: fake } = await busyGuests(t, 3, { names: ['web 1|"é', 'web2'] })
  const stateDirectory = makeTemporaryDirectory()
  t.teardown(() => rmSync(stateDirectory, { recursive: true }))
  const client = {
    name: 'same-output',
    address: '127.0.0.9',
    subscriptions: [],
    http_socket: { enabled: false },
    socket: { enabled: false },
  }
  new AgentProcess(t, { files: { 'agent.json': { client, rabbitmq: broker.url } } })
  await server.keepalive(client.name)
  const checks = programs.map(({ check }) => check)
  t.ok(checks.length >= 20, `${checks.length} checks`)
  for (const { name } of checks.filter(({ local }) => !local)) {
    for (const [place, uri] of [
      ['fake', fake.uri],
      ['test', `test+unix:///default?socket=${daemon.socket}`],
    ] as const) {
      const words = ['--uri', uri, '--verbose', '--state-dir', stateDirectory, ...(moreWords[name] ?? [])]
      const check = `${name}-${place}`
      // without its directory the shell could not find it: whatever comes back was made inside the agent
      await server.request(`client:${client.name}`, {
        name: check,
        command: [name, ...words.map(word => `'${word}'`)].join(' '),
      })
      const [{ check: result }, expected] = await Promise.all([server.result(check), executable(name, words)])
      const digits = (output: string) => output.replaceAll(/\d+(?:\.\d+)?/g, '#').replaceAll('# ms', '# s')
      const shown = (output: string) => (momentary.has(name) ? digits(output) : output)
      t.strictSame(
        { output: shown(String(result.output)), status: result.status },
        { output: shown(expected.output), status: expected.status },
        check,
      )
    }
  }
})

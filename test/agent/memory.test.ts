import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { rabbitmq } from '../support/services.js'
import { AgentProcess } from './agent-process.js'
import { ServerSide } from './server-side.js'

const broker = await rabbitmq(t)
const server = await ServerSide.open(t, broker.url)

function residentMiB(pid: number): number {
  const [, kibibytes = ''] = /VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8')) ?? []
  return Number(kibibytes) / 1024
}

/** What Node takes before it has anything to do. */
async function bareNodeMiB(): Promise<number> {
  const child = spawn(process.execPath, ['-e', 'console.log(1); setInterval(() => {}, 1e6)'], { stdio: 'pipe' })
  await once(child.stdout, 'data')
  const size = residentMiB(child.pid ?? 0)
  child.kill('SIGKILL')
  await once(child, 'exit')
  return size
}

t.test('a backlog of 3,000 requests is answered in full, and leaves the agent small', async t => {
  const { host, port, user, password, vhost } = broker
  const sockets = { socket: { enabled: false }, http_socket: { enabled: false } }
  const client = { name: 'small', address: '127.0.0.9', subscriptions: [], ...sockets }
  const settings = { client, rabbitmq: { host, port, user, password, vhost } }
  // its own checks inside it are another matter
  const agent = new AgentProcess(t, { files: { 'agent.json': settings }, args: ['-l', '/dev/null'] })
  const node = await bareNodeMiB()
  await server.keepalive('small')
  const idle = residentMiB(agent.pid) - node
  t.ok(idle < 18, `idle: ${idle.toFixed(1)} MiB more than Node alone`)
  await server.request('client:small', { name: 'first', command: 'true' })
  const count = 3000
  await Promise.all(
    Array.from({ length: count }, (_, n) => server.request('client:small', { name: `many-${n}`, command: 'true' })),
  )
  while (server.results.length < count + 1) await sleep(50)
  const used = residentMiB(agent.pid) - node
  t.ok(used < 30, `after ${count} checks: ${used.toFixed(1)} MiB more`)
  t.equal(new Set(server.results.map(({ text }) => JSON.parse(text).check.name)).size, count + 1)
})

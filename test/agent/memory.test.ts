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

/** What a process has in memory now, and has had at most. */
function memoryMiB(pid: number): { resident: number; peak: number } {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8')
  const value = (name: string) => Number(new RegExp(`${name}:\\s+(\\d+)`).exec(status)?.[1]) / 1024
  return { resident: value('VmRSS'), peak: value('VmHWM') }
}

/** What Node takes before it has anything to do. */
async function bareNodeMiB(): Promise<number> {
  const child = spawn(process.execPath, ['-e', 'console.log(1); setInterval(() => {}, 1e6)'], { stdio: 'pipe' })
  await once(child.stdout, 'data')
  const size = memoryMiB(child.pid ?? 0).resident
  child.kill('SIGKILL')
  await once(child, 'exit')
  return size
}

t.test('10,000 requests at once: none is dropped, and the memory they take is bounded', async t => {
  t.setTimeout(200_000)
  const { host, port, user, password, vhost } = broker
  const sockets = { socket: { enabled: false }, http_socket: { enabled: false } }
  const client = { name: 'small', address: '127.0.0.9', subscriptions: [], ...sockets }
  const settings = { client, rabbitmq: { host, port, user, password, vhost } }
  // its own checks inside it are another matter
  const agent = new AgentProcess(t, { files: { 'agent.json': settings }, args: ['-l', '/dev/null'] })
  const node = await bareNodeMiB()
  await server.keepalive('small')
  const started = memoryMiB(agent.pid).resident - node
  t.ok(started < 12, `at the start: ${started.toFixed(1)} MiB more than Node alone`)
  let idle = started
  // V8 by itself would let it wait for 8 s
  for (const soon = Date.now() + 6000; idle > started - 1 && Date.now() < soon; await sleep(50)) {
    idle = memoryMiB(agent.pid).resident - node
  }
  t.ok(idle < 8, `idle: ${idle.toFixed(1)} MiB more`)
  await server.request('client:small', { name: 'first', command: 'true' })
  const count = 10_000
  await Promise.all(
    Array.from({ length: count }, (_, n) => server.request('client:small', { name: `many-${n}`, command: 'true' })),
  )
  while (server.results.length < count + 1) await sleep(50)
  const { resident, peak } = memoryMiB(agent.pid)
  t.ok(peak - node < 45, `at most: ${(peak - node).toFixed(1)} MiB more`)
  t.ok(resident - node < 30, `after ${count} checks: ${(resident - node).toFixed(1)} MiB more`)
  t.equal(new Set(server.results.map(({ text }) => JSON.parse(text).check.name)).size, count + 1)
})

import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { waitUntil } from '../../scripts/services/process.js'
import { isAlive } from '../../scripts/services/watchdog.js'

const holder = fileURLToPath(new URL('holder.js', import.meta.url))

const ends: { how: string; services: 'all' | 'redis'; mode: string; signal?: NodeJS.Signals }[] = [
  { how: 'killed with SIGKILL', services: 'all', mode: 'wait', signal: 'SIGKILL' },
  { how: 'ended by SIGTERM', services: 'redis', mode: 'wait', signal: 'SIGTERM' },
  { how: 'interrupted', services: 'redis', mode: 'wait', signal: 'SIGINT' },
  { how: 'ended by an uncaught error', services: 'redis', mode: 'fail' },
  { how: 'at its natural end', services: 'redis', mode: 'exit' },
]

for (const { how, services, mode, signal } of ends)
  t.test(`a process that is ${how} leaves no service and no file behind`, async t => {
    const child = spawn(process.execPath, [holder, services, mode], { stdio: ['ignore', 'pipe', 'ignore'] })
    t.teardown(() => void child.kill('SIGKILL'))
    const exited = once(child, 'exit')
    const { pids, directories } = await firstLine(child)
    // redis, RabbitMQ, epmd, the keeper, libvirtd and its parent, QEMU
    t.equal(pids.filter(Number.isInteger).length, services === 'all' ? 7 : 1)

    if (signal !== undefined) child.kill(signal)
    await exited

    await waitUntil('every process is gone', () => pids.every(pid => !isAlive(pid)) || undefined, { timeoutMs: 10_000 })
    await waitUntil('every folder is gone', () => directories.every(path => !existsSync(path)) || undefined, {
      timeoutMs: 10_000,
    })
  })

/** What the holder prints when everything runs. */
async function firstLine(child: ChildProcess): Promise<{ pids: number[]; directories: string[] }> {
  if (child.stdout === null) throw new Error('no pipe')
  for await (const line of createInterface(child.stdout)) return JSON.parse(line)
  throw new Error('the holder ended without a word')
}

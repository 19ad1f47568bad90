import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { waitUntil } from '../../scripts/services/process.js'
import { isAlive } from '../../scripts/services/watchdog.js'

const holder = fileURLToPath(new URL('holder.js', import.meta.url))

const ends: { how: string; mode: string; signal?: NodeJS.Signals }[] = [
  { how: 'killed with SIGKILL', mode: 'wait', signal: 'SIGKILL' },
  { how: 'ended by SIGTERM', mode: 'wait', signal: 'SIGTERM' },
  { how: 'interrupted', mode: 'wait', signal: 'SIGINT' },
  { how: 'ended by an uncaught error', mode: 'fail' },
  { how: 'at its natural end', mode: 'exit' },
]

for (const { how, mode, signal } of ends)
  t.test(`a process that is ${how} leaves no service and no file behind`, async t => {
    const child = spawn(process.execPath, [holder, mode], { stdio: ['ignore', 'pipe', 'ignore'] })
    t.teardown(() => void child.kill('SIGKILL'))
    const exited = once(child, 'exit')
    const { pids, directories } = await firstLine(child)
    t.ok(pids.length >= 6, 'redis, epmd, RabbitMQ, the keeper, libvirtd, QEMU')

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

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync, writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import t, { type Test } from 'tap'
import { NativeStarter } from '../../sensu/native-start.js'
import { Spawner } from '../../sensu/spawn.js'

async function nativeSpawner(t: Test, limit = 12): Promise<Spawner> {
  const starter = await NativeStarter.load({ warn: message => t.fail(message) })
  const spawner = new Spawner({ limit, loadStarter: async () => starter })
  t.teardown(() => spawner.close())
  await Promise.all([spawner.run({ command: 'true' }), spawner.run({ command: 'true' })])
  return spawner
}

t.test('its commands have the usual surroundings, and nothing of its own', async t => {
  const [usual, spawner] = [new Spawner({ limit: 1 }), await nativeSpawner(t)]
  t.teardown(() => usual.close())
  const commands = [
    'readlink /proc/$$/fd/0',
    'pwd',
    'umask',
    'env | sort',
    'ulimit -a',
    'ps -o pgid= -p $$ | grep -cw $$',
  ]
  // Two signals beyond the first 28 are ignored: glibc's own, which it uses between threads.
  const signals = String.raw`sed -nE 's/^(Sig(Blk|Ign|Cgt)):.*(.{7})$/\1 \3/p' /proc/self/status`
  for (const command of [...commands, signals]) {
    const { output } = await usual.run({ command })
    t.equal((await spawner.run({ command })).output.toString(), output.toString(), command)
  }
})

t.test('a command that needs no shell is none to tell from one that has it', async t => {
  const [usual, spawner] = [new Spawner({ limit: 1 }), await nativeSpawner(t)]
  t.teardown(() => usual.close())
  const directory = t.testdir()
  writeFileSync(`${directory}/script`, '#!/bin/sh\necho "$0 $*"; env | sort; exit 3\n', { mode: 0o755 })
  writeFileSync(`${directory}/bare`, 'echo "$0 $*"; exit 4\n', { mode: 0o755 })
  writeFileSync(`${directory}/locked`, '#!/bin/sh\n', { mode: 0o644 })
  writeFileSync(`${directory}/lost`, '#!/no/such/interpreter\n', { mode: 0o755 })
  const commands = ['script a -b --c=d', 'bare x', 'locked', 'lost', 'none'].map(line => `${directory}/${line}`)
  for (const command of [...commands, 'true', 'false', 'env', 'no-such-program', 'ls -1 /', 'sleep x', 'cat']) {
    const [shells, ours] = [await usual.run({ command, stdin: 'x' }), await spawner.run({ command, stdin: 'x' })]
    const text = ({ output }: { output: Buffer }) => output.toString().split('\n').sort()
    t.same([ours.status, text(ours)], [shells.status, text(shells)], command)
  }
})

t.test('output of many commands at once stays apart', async t => {
  const spawner = await nativeSpawner(t, 40)
  const letters = [...'abcdefghijklmnopqrstuvwxyz']
  const command = (letter: string) => `for i in 1 2 3 4; do head -c 100000 /dev/zero | tr '\\0' ${letter}; done`
  const results = await Promise.all(letters.map(letter => spawner.run({ command: command(letter) })))
  for (const [index, letter] of letters.entries()) {
    t.ok(results[index]?.output.equals(Buffer.alloc(400_000, letter)), letter)
  }
})

t.test('statuses of many that end at once are all told, and no process is left', async t => {
  const spawner = await nativeSpawner(t, 100)
  const wanted = Array.from({ length: 300 }, (_, index) => index % 200)
  const results = await Promise.all(wanted.map(status => spawner.run({ command: `exit ${status}` })))
  t.same(
    results.map(({ status }) => status),
    wanted,
  )
  t.notMatch(readFileSync(`/proc/self/task/${process.pid}/children`, 'utf8'), /\d/, 'not even as a zombie')
})

t.test('it keeps no memory of commands that have ended, and no descriptors', async t => {
  const spawner = await nativeSpawner(t)
  const some = () =>
    Promise.all(Array.from({ length: 300 }, () => spawner.run({ command: 'echo x', timeoutSeconds: 9 })))
  await some()
  await spawner.run({ command: 'sleep 50', timeoutSeconds: 0.1 })
  const descriptors = async () => (await spawner.run({ command: 'ls /proc/$PPID/fd | wc -l' })).output.toString()
  const before = await descriptors()
  for (let i = 0; i < 3; i++) await some()
  t.equal(await descriptors(), before)
})

t.test('where C cannot be called, commands run without it; that is logged once', async t => {
  const warnings: string[] = []
  const loadStarter = async () => {
    warnings.push('asked')
    return undefined
  }
  const spawner = new Spawner({ limit: 12, loadStarter })
  t.teardown(() => spawner.close())
  const some = () => Promise.all(Array.from({ length: 5 }, () => spawner.run({ command: 'echo here' })))
  for (const { output } of [...(await some()), ...(await some())]) t.equal(output.toString(), 'here\n')
  t.same(warnings, ['asked'])
})

t.test('a process with nothing else to do stays for its commands, and ends after them', async t => {
  const module = (name: string) => JSON.stringify(fileURLToPath(new URL(`../../sensu/${name}.js`, import.meta.url)))
  const script = `
    import { NativeStarter } from ${module('native-start')}
    const starter = await NativeStarter.load(console)
    const { exit } = starter.start({ command: 'exec >/dev/null 2>&1; sleep 0.3; exit 7', env: process.env, maxOutputBytes: 9 })
    process.exitCode = await exit`
  const child = spawn(process.execPath, ['--input-type=module', '--eval', script], { stdio: 'inherit' })
  const [status] = await once(child, 'exit')
  t.equal(status, 7)
})

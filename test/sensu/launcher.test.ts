import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import t, { type Test } from 'tap'
import { Launcher, type LauncherOptions } from '../../sensu/launcher.js'
import { Spawner } from '../../sensu/spawn.js'
import { isAlive, readyLauncher, until } from '../support/processes.js'

/** A spawner whose launcher may be lost, and what that one warns of. */
function observed(t: Test, options: Partial<LauncherOptions> = {}) {
  const warnings: string[] = []
  const warn = (message: string, data?: object) => warnings.push(`${message}: ${JSON.stringify(data)}`)
  const launcher = new Launcher({ env: { ...process.env }, log: { warn }, ...options })
  const spawner = new Spawner({ limit: 12, launcher })
  t.teardown(() => spawner.close())
  return { launcher, spawner, warnings }
}

/** The command's process is the launcher's child, or this process's own. */
const parentOf = async (spawner: Spawner) => Number((await spawner.run({ command: 'echo $PPID' })).output.toString())

function pidOf({ pid }: Launcher): number {
  if (pid === undefined) throw new Error('there is no launcher')
  return pid
}

t.test('it is started when several commands are wanted at once, and used from then on', async t => {
  const { launcher, spawner } = observed(t)
  t.equal(await parentOf(spawner), process.pid)
  t.equal(launcher.pid, undefined, 'none for one command at a time')
  await Promise.all([spawner.run({ command: 'true' }), spawner.run({ command: 'true' })])
  await until(() => launcher.ready)
  t.equal(await parentOf(spawner), launcher.pid)
})

t.test('its commands have the usual surroundings, and nothing of its own', async t => {
  const launcher = await readyLauncher(t)
  const [usual, spawner] = [new Spawner({ limit: 1 }), new Spawner({ limit: 1, launcher })]
  t.teardown(() => usual.close())
  const print = async (command: string) => (await spawner.run({ command })).output.toString().trim()
  const commands = ['ls /proc/$$/fd', 'readlink /proc/$$/fd/0', 'pwd', 'umask', 'env | sort', 'ulimit -a']
  for (const command of [...commands, 'exec grep -E "^Sig(Blk|Ign)" /proc/self/status']) {
    const { output } = await usual.run({ command })
    t.equal(await print(command), output.toString().trim(), command)
  }
  t.match(readFileSync(`/proc/${pidOf(launcher)}/cmdline`, 'utf8'), /^sensu-kvm-launcher\0*$/, 'its name in ps')
})

t.test('a shell that cannot be started is told, for each command', async t => {
  const launcher = await readyLauncher(t, { env: { PATH: '/no/such/directory' } })
  const spawner = new Spawner({ limit: 12, launcher })
  const results = await Promise.all(Array.from({ length: 50 }, () => spawner.run({ command: 'true' })))
  for (const { output, status } of results) {
    t.equal(output.toString(), 'Unexpected error: cannot start sh: spawn sh ENOENT')
    t.equal(status, 3)
  }
})

t.test('output of many commands at once stays apart', async t => {
  const spawner = new Spawner({ limit: 40, launcher: await readyLauncher(t) })
  const letters = [...'abcdefghijklmnopqrstuvwxyz']
  const command = (letter: string) => `for i in 1 2 3 4; do head -c 100000 /dev/zero | tr '\\0' ${letter}; done`
  const results = await Promise.all(letters.map(letter => spawner.run({ command: command(letter) })))
  for (const [index, letter] of letters.entries()) {
    t.ok(results[index]?.output.equals(Buffer.alloc(400_000, letter)), letter)
  }
})

t.test('signals that go to a whole service do not end it', async t => {
  const launcher = await readyLauncher(t)
  const spawner = new Spawner({ limit: 1, launcher })
  for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const) process.kill(pidOf(launcher), signal)
  t.equal(await parentOf(spawner), launcher.pid)
})

t.test('where there is no such Perl, commands run without it; that is logged once', async t => {
  const notPerl = { PERL5OPT: '-MNo::Such::Module', PATH: process.env['PATH'] }
  for (const options of [{ perl: '/no/such/perl' }, { perl: '/bin/false' }, { env: notPerl }]) {
    const { launcher, spawner, warnings } = observed(t, options)
    const some = () => Promise.all(Array.from({ length: 5 }, () => spawner.run({ command: 'echo here' })))
    const results = await some()
    await until(() => warnings.length > 0)
    results.push(...(await some()))
    for (const { output } of results) t.equal(output.toString(), 'here\n')
    t.equal(launcher.ready, false)
    t.equal(warnings.length, 1, String(warnings))
    t.match(warnings[0], /^command launcher is gone, starting commands without it: /)
  }
})

t.test('variables that change how Perl reads and writes change nothing', async t => {
  const launcher = await readyLauncher(t, { env: { ...process.env, PERL_UNICODE: 'SDA', LC_ALL: 'no_SUCH' } })
  const spawner = new Spawner({ limit: 1, launcher })
  const { output } = await spawner.run({ command: 'printf \'ä\\377\'; printf %s "$PERL_UNICODE"' })
  t.same(output, Buffer.concat([Buffer.from('ä'), Buffer.from([0xff]), Buffer.from('SDA')]))
})

t.test('when it dies, what it ran is ended and has a result, and others run without it', async t => {
  const { launcher, spawner, warnings } = observed(t)
  launcher.start()
  await until(() => launcher.ready)
  const file = `${t.testdir()}/pid`
  const running = spawner.run({ command: `echo $$ >${file}; exec sleep 50` })
  const pid = () => Number(readFileSync(file, { encoding: 'utf8', flag: 'a+' }))
  await until(() => pid() > 0)
  process.kill(pidOf(launcher), 'SIGKILL')
  const { output, status } = await running
  t.equal(output.toString(), 'Unexpected error: the command launcher is gone: it ended with SIGKILL')
  t.equal(status, 3)
  await until(() => !isAlive(pid()))
  t.equal(await parentOf(spawner), process.pid)
  t.equal(warnings.length, 1)
  t.same([spawner.running, spawner.queued], [0, 0])
})

t.test('one that does not answer is ended', async t => {
  const { launcher, spawner, warnings } = observed(t, { patienceMs: 200 })
  launcher.start()
  await until(() => launcher.ready)
  process.kill(pidOf(launcher), 'SIGSTOP')
  const { status } = await spawner.run({ command: 'true' })
  t.equal(status, 3)
  t.equal(warnings.length, 1)
  t.equal(await parentOf(spawner), process.pid)
})

t.test('a command that runs for longer than the launcher may take to start one is left alone', async t => {
  const { launcher, spawner } = observed(t, { patienceMs: 200 })
  launcher.start()
  await until(() => launcher.ready)
  t.equal((await spawner.run({ command: 'sleep 0.5; echo late' })).output.toString(), 'late\n')
})

/** A process that has a launcher, and the launcher's pid. */
async function processWithLauncher(body: string): Promise<{ child: ChildProcess; launcherPid: number }> {
  const module = fileURLToPath(new URL('../../sensu/launcher.js', import.meta.url))
  const script = `
    import { Launcher } from ${JSON.stringify(module)}
    const launcher = new Launcher({ env: { ...process.env }, log: { warn() {} } })
    launcher.start()
    const stay = setInterval(() => {
      if (!launcher.ready) return
      clearInterval(stay)
      console.log(launcher.pid)
      ${body}
    }, 10)`
  const args = ['--input-type=module', '--eval', script]
  const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit'] })
  const [line] = await once(createInterface(child.stdout), 'line')
  return { child, launcherPid: Number(line) }
}

t.test('it ends with its process, however that ends', async t => {
  const killed = await processWithLauncher('setInterval(() => {}, 1000)')
  t.ok(isAlive(killed.launcherPid))
  killed.child.kill('SIGKILL')
  await until(() => !isAlive(killed.launcherPid))
  const done = await processWithLauncher('')
  const [status] = await once(done.child, 'exit')
  t.equal(status, 0, 'and does not keep it from ending')
  await until(() => !isAlive(done.launcherPid))
})

t.test('it keeps no memory of commands that have ended, and no descriptors', async t => {
  const launcher = await readyLauncher(t)
  const spawner = new Spawner({ limit: 12, launcher })
  const some = () =>
    Promise.all(Array.from({ length: 300 }, () => spawner.run({ command: 'echo x', timeoutSeconds: 9 })))
  await some()
  await spawner.run({ command: 'sleep 50', timeoutSeconds: 0.1 })
  const descriptors = async () => (await spawner.run({ command: 'ls /proc/$PPID/fd | wc -l' })).output.toString()
  const [before, descriptorsBefore] = [memoryKib(launcher), await descriptors()]
  for (let i = 0; i < 3; i++) await some()
  t.ok(memoryKib(launcher) <= before + 500, `${memoryKib(launcher)} KiB, ${before} before`)
  t.equal(await descriptors(), descriptorsBefore)
})

function memoryKib(launcher: Launcher): number {
  return Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pidOf(launcher)}/status`, 'utf8'))?.[1])
}

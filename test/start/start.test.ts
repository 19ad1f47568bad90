import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readdirSync, readFileSync, readlinkSync, rmSync, symlinkSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t, { type Test } from 'tap'
import { waitUntil } from '../../scripts/services/process.js'
import { ownGuest, ownLibvirtd } from '../support/services.js'

const program = fileURLToPath(new URL('../../scripts/start.js', import.meta.url))
const limits = { timeoutMs: 120_000, intervalMs: 100 }

/** `npm start` after its set-up. Everything it makes is below a folder of its own, by which its processes can be found. */
function start(t: Test, ...args: string[]) {
  const folder = mkdtempSync('/tmp/st-')
  const child = spawn(process.execPath, [program, ...args], {
    env: { ...process.env, TMPDIR: folder },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  t.teardown(() => {
    child.kill('SIGKILL')
    rmSync(folder, { recursive: true, force: true })
  })
  const text = { out: '', err: '' }
  child.stdout.on('data', data => {
    text.out += data
  })
  child.stderr.on('data', data => {
    text.err += data
  })
  const exited = once(child, 'close').then(([status]) => status)
  return { child, text, exited, processes: () => processesNaming(folder), files: () => readdirSync(folder) }
}

/** Processes that have the folder in their command line, environment or working directory. */
function processesNaming(folder: string): { pid: number; command: string }[] {
  return readdirSync('/proc')
    .filter(name => /^\d+$/.test(name))
    .flatMap(name => {
      try {
        const command = readFileSync(join('/proc', name, 'cmdline'), 'latin1').replaceAll('\0', ' ')
        const environment = readFileSync(join('/proc', name, 'environ'), 'latin1')
        const cwd = readlinkSync(join('/proc', name, 'cwd')) // redis overwrites the other two
        return `${command}${environment}${cwd}`.includes(folder) ? [{ pid: Number(name), command }] : []
      } catch {
        return [] // ended meanwhile, or not ours
      }
    })
}

t.test(
  '--once prints every check of the host and of its guest, has an alert come through and end, and leaves nothing behind',
  async t => {
    const { text, exited, processes, files } = start(t, '--once')
    t.equal(await exited, 0, text.err)
    for (const line of [
      /^GUEST \/ CLIENT +CHECK +STATUS +AGE +OUTPUT$/m,
      /^kvm-host +memory_check +OK /m,
      /^kvm-host +state_check +OK /m,
      /^web1 +memory_check +OK /m,
      /^web1 +state_check +OK .*running/m,
      /^the API at http:\/\/127\.0\.0\.1:\d+\/ knows 2 clients: kvm-host, web1$/m,
      /^web1 paused; after [\d.]+ s the handler wrote: WARNING: web1 on kvm-host: state_check: paused \(user\)/m,
      /^web1 resumed; after [\d.]+ s the handler wrote: RESOLVED: web1 on kvm-host: state_check: running/m,
    ])
      t.match(text.out, line)
    t.same(processes(), [], 'no process')
    t.same(files(), [], 'no file')
  },
)

t.test('a host with guests has those watched, and nothing is done to them', { skip: notRoot() }, async t => {
  const host = await ownLibvirtd(t)
  await ownGuest(t, host, { name: 'of-the-host', agent: false })
  const before = host.processes()
  // In its mount namespace that libvirtd is the host's own once its sockets are where the system's are.
  for (const name of ['libvirt-sock', 'libvirt-sock-ro'])
    symlinkSync(join(dirname(host.socket), name), join(host.directory, 'run', name))
  const { stdout, stderr } = await host.runInside(process.execPath, [program, '--once'], { timeoutMs: 120_000 })
  t.match(stderr, /watching this host's guests \(1\), read-only/)
  t.match(stdout, /^of-the-host +state_check +OK .*running/m)
  t.notMatch(stdout, 'web1')
  t.match(stdout, "no alert is tried: nothing is done to this host's own guests")
  t.same(host.processes(), before, 'neither more nor less runs than before')
})

t.test('Ctrl-C ends the live table and everything that was started', async t => {
  const { child, text, exited, processes, files } = start(t)
  await waitUntil('the guest is in the table', () => /^web1 +state_check/m.test(text.out) || undefined, limits)
  const commands = processes().map(({ command }) => command)
  for (const part of ['redis-server', 'beam', 'epmd', 'libvirtd', 'qemu-system', 'sensu-kvm-agent', 'sensu-kvm-server'])
    t.ok(
      commands.some(command => command.includes(part)),
      `${part} runs`,
    )
  child.kill('SIGINT')
  t.equal(await exited, 0, text.err)
  t.same(processes(), [], 'no process')
  t.same(files(), [], 'no file')
})

for (const name of ['sensu-kvm-agent', 'sensu-kvm-server'])
  t.test(`${name} that ends is a failure, told with the last lines of its log`, async t => {
    const { text, exited, processes } = start(t)
    await waitUntil('it has logged', () => /^kvm-host/m.test(text.out) || undefined, limits)
    const program = processes().find(({ command }) => new RegExp(`node \\S*${name}`).test(command))
    if (program === undefined) throw new Error(`no ${name}`)
    process.kill(program.pid, 'SIGKILL')
    t.equal(await exited, 1)
    t.match(text.err, new RegExp(`${name} ended \\(SIGKILL\\); the last lines of its log:\\n\\{"timestamp":`))
    t.same(processes(), [])
  })

t.test('an interrupted start stops what runs already', async t => {
  const { child, text, exited, processes } = start(t, '--once')
  await waitUntil('Redis runs', () => text.err.includes('Redis runs') || undefined, limits)
  child.kill('SIGTERM')
  t.equal(await exited, 130, text.err)
  await waitUntil('every process is gone', () => processes().length === 0 || undefined, limits)
})

t.test('an unknown option is refused, --help explains', async t => {
  const wrong = start(t, '--twice')
  t.equal(await wrong.exited, 2)
  t.match(wrong.text.err, /unknown option --twice/)
  const asked = start(t, '--help')
  t.equal(await asked.exited, 0)
  t.match(asked.text.out, /--once +wait until every configured check has a result/)
})

function notRoot(): string | false {
  return process.getuid?.() === 0 ? false : 'entering the mount namespace of a libvirtd of root needs root'
}

import { execFile } from 'node:child_process'
import {
  chmodSync,
  copyFileSync,
  mkdirSync,
  readdirSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { createServer } from 'node:net'
import { dirname, join } from 'node:path'
import t, { type Test } from 'tap'
import { makeTemporaryDirectory } from '../../scripts/services/process.js'
import { ServiceProcess } from '../support/service-process.js'
import { libvirtd, rabbitmq } from '../support/services.js'
import { AgentProcess, agentFile } from './agent-process.js'
import { ServerSide } from './server-side.js'

const directory = dirname(agentFile)
const programs = readdirSync(directory).filter(name => /^(?:check|metrics)-[^.]+$/.test(name))
const [broker, daemon] = await Promise.all([rabbitmq(t), libvirtd(t)])
const uri = `test+unix:///default?socket=${daemon.socket}`
const server = await ServerSide.open(t, broker.url)
let clients = 0

async function start(t: Test, own: object = {}, more: object = {}, env: Record<string, string> = {}) {
  const name = `in-process-${++clients}`
  const client = { name, address: '127.0.0.9', subscriptions: [], http_socket: { enabled: false } }
  const settings = {
    client: { ...client, socket: { enabled: false } },
    rabbitmq: broker.url,
    sensu_kvm: { libvirt: { uri }, ...own },
    ...more,
  }
  const agent = new AgentProcess(t, { files: { 'agent.json': settings }, env })
  await server.keepalive(name)
  return { agent, name }
}

/** What the executable prints and exits with. */
function executable(program: string, words: string[], more = {}): Promise<{ output: string; status: number }> {
  const env = { ...process.env, LIBVIRT_DEFAULT_URI: uri, ...more }
  return new Promise(resolve => {
    execFile(process.execPath, [join(directory, program), ...words], { env }, (error, stdout, stderr) => {
      resolve({ output: stdout + stderr, status: typeof error?.code === 'number' ? error.code : 0 })
    })
  })
}

/** Command lines that the kit answers, in the same way for every check: tried with some. */
const kitLines = [
  ['--version'],
  ['--no-such-option'],
  ['--timeout', 'never'],
  ['--uri', 'nonsense'],
  ['--uri', 'qemu+unix:///system?socket=/nowhere/libvirt-sock'],
]

const stable: [program: string, words: string[]][] = [
  ...programs.map((program): [string, string[]] => [program, ['--help']]),
  ...['check-kvm-state', 'check-kvm-guest-agent', 'check-load', 'metrics-kvm'].flatMap(program =>
    kitLines.map((words): [string, string[]] => [program, words]),
  ),
  ['check-kvm-state', []],
  ['check-kvm-state', ['--name', 'test']],
  ['check-kvm-state', ['--name', 'absent']],
  ['check-kvm-host-memory', ['--warning', '1:2:3']],
]

t.setTimeout(180_000)
t.test('a check inside the agent has the output and status of its executable', async t => {
  const { name } = await start(t)
  let number = 0
  for (const [program, words] of stable.filter(([program]) => programs.includes(program))) {
    const check = `same-${++number}`
    // without its directory the shell could not find it: whatever comes back was made inside the agent
    const command = [program, ...words.map(word => `'${word}'`)].join(' ')
    await server.request(`client:${name}`, { name: check, command })
    const [{ check: result }, expected] = await Promise.all([server.result(check), executable(program, words)])
    t.strictSame({ output: result.output, status: result.status }, expected, command)
  }
})

/** A machine that stays as it is, and command lines of the checks that look at it. */
const machine = {
  'proc/meminfo': 'MemTotal:       16384000 kB\nMemFree:         1000000 kB\nMemAvailable:    9000000 kB\n',
  'proc/loadavg': '3.00 2.50 1.33 2/345 6789\n',
  'proc/cpuinfo': 'processor\t: 0\nprocessor\t: 1\n',
  'proc/self/mounts': '/dev/vdx /not/there ext4 rw 0 0\nproc /proc proc rw 0 0\n',
  'proc/uptime': '100000.55 12345.67\n',
  'proc/9000001/stat': '9000001 (nginx) S 1 1 1 0 -1 0 1 2 3 4 50 60 7 8 20 0 4 0 900000 71680000 25\n',
  'proc/9000001/status': 'Name:\tnginx\nUid:\t0\t0\t0\t0\nVmRSS:\t 900 kB\n',
  'proc/9000001/cmdline': 'nginx: master\0-g daemon off;\0',
  'etc/passwd': 'root:x:0:0::/root:/bin/sh\n',
  'proc/stat': 'cpu  1000 200 300 8000 100 10 20 30 40 5\n',
}
const onMachine: [program: string, words: string[]][] = [
  ['check-memory-percent', []],
  ['check-memory-percent', ['-w', '40', '-c', '90', '-p']],
  ['check-memory-percent', ['--format', 'prometheus']],
  ['check-load', []],
  ['check-load', ['-w', '1,1,1', '--format', 'prometheus']],
  ['check-load', ['-w', '5']],
  ['check-cpu', ['--sleep', '0.1']],
  ['check-process', ['-p', 'nginx|apache', '-u', 'root']],
  ['check-process', ['-p', '-g daemon', '-t', 'rss', '-c', '100']],
  ['check-process', ['-f', '/nowhere', '-F']],
  ['check-ntp', ['--ntpd', '127.0.0.1:1', '--chronyd', '127.0.0.1:1']],
  ['check-http', []],
  ['check-http', ['-u', 'http://127.0.0.1:1/', '-q', 'a|b']],
  ['check-disk-usage', []],
  ['check-disk-usage', ['-x', 'ext4']],
]

t.test(
  'a check in the place of a Ruby plugin is the same inside the agent, under its own name and with .rb',
  async t => {
    // not t.testdir, which is the agent's
    const root = makeTemporaryDirectory()
    t.teardown(() => rmSync(root, { recursive: true }))
    for (const [file, text] of Object.entries(machine)) {
      mkdirSync(dirname(join(root, file)), { recursive: true })
      writeFileSync(join(root, file), text)
    }
    const folder = join(root, 'bin')
    mkdirSync(folder)
    writeFileSync(join(folder, 'check-load.rb'), '#!/bin/sh\necho "the plugin itself"\n')
    chmodSync(join(folder, 'check-load.rb'), 0o755)
    symlinkSync(join(directory, 'check-memory-percent.rb'), join(folder, 'check-memory-percent.rb'))
    symlinkSync('/bin/sh', join(folder, 'sh'))
    // no node there: what answers as our executable does was made inside the agent
    const env = { SENSU_KVM_ROOT: root, PATH: folder }
    const { name } = await start(t, {}, {}, env)
    let number = 0
    const answer = async (command: string) => {
      const check = `on-machine-${++number}`
      await server.request(`client:${name}`, { name: check, command })
      const { output, status } = (await server.result(check)).check
      return { output, status }
    }
    for (const [program, words] of onMachine) {
      const expected = await executable(program, words, { SENSU_KVM_ROOT: root })
      const rest = words.map(word => ` '${word}'`).join('')
      t.strictSame(await answer(`${program}${rest}`), expected, `${program}${rest}`)
      t.strictSame(await answer(`${directory}/${program}.rb${rest}`), expected, `${program}.rb${rest}`)
    }
    t.match(
      await answer('check-memory-percent.rb'),
      { status: 0, output: /^MEM OK - / },
      'what the shell finds is ours',
    )
    t.match(await answer('check-load.rb'), { status: 0, output: 'the plugin itself\n' }, 'what the shell finds is not')
    t.match(await answer('check-kvm-state.rb'), { status: 127 }, 'no Ruby plugin has that name')
  },
)

t.test('a libvirt that stays away gives the same words every time, as the executable does', async t => {
  const { name } = await start(t)
  const words = ['--uri', 'qemu+unix:///system?socket=/nowhere/libvirt-sock']
  const expected = await executable('check-kvm-state', words)
  for (const check of ['away-1', 'away-2', 'away-3']) {
    await server.request(`client:${name}`, { name: check, command: `check-kvm-state ${words[0]} '${words[1]}'` })
    const { output, status } = (await server.result(check)).check
    t.strictSame({ output, status }, expected)
  }
})

t.test('what the shell must see is given to the shell, and everything when switched off', async t => {
  const { name } = await start(t)
  await server.request(`client:${name}`, { name: 'shell', command: 'check-kvm-state | cat; exit 5' })
  const { check } = await server.result('shell')
  t.equal(check.status, 5)
  t.match(check.output, /not found/)
  const off = await start(t, { in_process: false })
  await server.request(`client:${off.name}`, { name: 'off', command: 'check-kvm-state' })
  t.equal((await server.result('off')).check.status, 127)
  await server.request(`client:${off.name}`, { name: 'off-path', command: `${directory}/check-kvm-state` })
  t.strictSame((await server.result('off-path')).check.output, (await executable('check-kvm-state', [])).output)
})

t.test(
  'a path is ours when it leads to the executable beside the agent, whatever else bears its name is not',
  async t => {
    // not t.testdir, which is the agent's
    const folder = makeTemporaryDirectory()
    t.teardown(() => rmSync(folder, { recursive: true }))
    for (const name of ['tools', 'other', 'linked']) mkdirSync(join(folder, name))
    // commands find a shell, but no node: an executable of ours could not run
    symlinkSync('/bin/sh', join(folder, 'tools/sh'))
    const { name } = await start(t, {}, {}, { PATH: join(folder, 'tools') })
    const other = join(folder, 'other/check-kvm-state')
    writeFileSync(other, '#!/bin/sh\necho "another check"; exit 7\n')
    chmodSync(other, 0o755)
    symlinkSync(join(directory, 'check-kvm-state'), join(folder, 'linked/check-kvm-state'))
    // a name of ours for another program of ours
    symlinkSync(join(directory, 'check-kvm-state'), join(folder, 'linked/check-kvm-memory'))
    const statusOf = async (check: string, path: string) => {
      await server.request(`client:${name}`, { name: check, command: `${path} --version` })
      return (await server.result(check)).check
    }
    for (const [check, path] of [
      ['bare', 'check-kvm-state'],
      ['beside', join(directory, 'check-kvm-state')],
      ['indirect', `${directory}/../bin/check-kvm-state`],
      ['linked', join(folder, 'linked/check-kvm-state')],
    ] as const) {
      t.match(await statusOf(check, path), { status: 3, output: /^check-kvm-state \d+\./ }, path)
    }
    t.match(await statusOf('elsewhere', other), { status: 7, output: 'another check\n' })
    t.match(await statusOf('renamed', join(folder, 'linked/check-kvm-memory')), { status: 127 })
    t.match(await statusOf('nowhere', '/nowhere/check-kvm-state'), { status: 127 })
  },
)

t.test(
  'a libvirt that does not answer: the check ends at its deadline, the others are not held up, the limit holds',
  async t => {
    const accepted: (() => void)[] = []
    const silent = createServer(socket => {
      socket.on('error', () => {})
      for (const resolve of accepted.splice(0)) resolve()
    })
    const { agent, name } = await start(t, {}, { sensu: { spawn: { limit: 2 } } })
    // a socket's path must be short
    const folder = makeTemporaryDirectory()
    const path = join(folder, 'silent')
    t.teardown(() => {
      silent.close()
      rmSync(folder, { recursive: true })
    })
    await new Promise<void>(resolve => silent.listen(path, resolve))
    const hung = `check-kvm-state --uri 'qemu+unix:///system?socket=${path}'`
    const reached = new Promise<void>(resolve => accepted.push(resolve))
    await server.request(`client:${name}`, {
      name: 'hung',
      command: hung,
      timeout: 1.5,
      hooks: { critical: { command: 'echo hooked' } },
    })
    await reached
    await server.request(`client:${name}`, { name: 'hung', command: hung, timeout: 1.5 })
    await agent.log('previous check command execution in progress')
    await server.request(`client:${name}`, { name: 'other', command: 'check-kvm-state' })
    const other = await server.result('other')
    t.match(other.check.output, /KVM_STATE|kvm-state|OK/i)
    const { check } = await server.result('hung')
    t.match(check, { output: 'Execution timed out', status: 2, hooks: { critical: { output: 'hooked\n', status: 0 } } })
    t.ok(Number(check.duration) >= 1.5 && Number(check.duration) < 3)
    t.strictSame(await agent.stop(), { status: 0, signal: null }, 'nothing that hangs keeps the agent from ending')
  },
)

t.test('--per-guest publishes a result of every guest under its own name, and one of the run', async t => {
  const { name } = await start(t)
  await server.request(`client:${name}`, { name: 'per-guest', command: 'check-kvm-state --per-guest', handlers: ['h'] })
  const guest = await server.result('per-guest', 1)
  const run = await server.result('per-guest', 2)
  t.match(guest.check, { source: 'test', handlers: ['h'], status: 0 })
  t.equal(guest.client, name)
  t.equal(run.check.source, undefined)
  t.match(run.check.output, /1 guest: 1 OK/)
})

t.test(
  'an agent whose files were replaced meanwhile loads what it has not needed yet from those it was started with',
  async t => {
    // not t.testdir, which is the agent's
    const folder = makeTemporaryDirectory()
    t.teardown(() => rmSync(folder, { recursive: true }))
    mkdirSync(join(folder, 'bin'))
    writeFileSync(join(folder, 'package.json'), '{"type":"commonjs"}')
    const file = join(folder, 'bin/sensu-kvm-agent')
    for (const end of ['', '.bundle']) copyFileSync(`${agentFile}${end}`, `${file}${end}`)
    const sockets = { socket: { enabled: false }, http_socket: { enabled: false } }
    const client = { name: 'replaced', address: '127.0.0.9', subscriptions: [], ...sockets }
    const settings = { client, rabbitmq: broker.url, sensu_kvm: { libvirt: { uri } } }
    new ServiceProcess(t, file, { files: { 'agent.json': settings } })
    await server.keepalive('replaced')
    writeFileSync(join(folder, 'new'), 'of another version')
    renameSync(join(folder, 'new'), `${file}.bundle`)
    await server.request('client:replaced', { name: 'late', command: 'check-kvm-state' })
    t.match((await server.result('late')).check, { status: 0, output: /^check-kvm-state OK/ })
  },
)

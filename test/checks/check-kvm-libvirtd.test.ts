import { chmodSync } from 'node:fs'
import t, { type Test } from 'tap'
import check, { type DaemonAnswer, type DaemonSample } from '../../checks/check-kvm-libvirtd.js'
import { Host } from '../../libvirt/host.js'
import { procedures } from '../../libvirt/procedures.js'
import { statusOf } from '../../plugin/output.js'
import { waitUntil } from '../../scripts/services/process.js'
import { checkContext, runExecutable } from '../support/checks.js'
import { FakeLibvirtd } from '../support/fake-libvirtd.js'
import { guest as healthyGuest, libvirtd, ownLibvirtd } from '../support/services.js'

const name = 'check-kvm-libvirtd'

const answer: DaemonAnswer = {
  openSeconds: 0.003,
  listSeconds: 0.001,
  libvirtVersion: '9.0.0',
  hypervisor: 'QEMU 7.2.22',
  guests: 3,
  workSeconds: 0.002,
}

function judged(change: Partial<DaemonSample>, raw: Parameters<typeof check.parseOptions>[0] = {}) {
  const sample = { uri: 'qemu:///system', patienceSeconds: 10, answer, ...change }
  const outcome = check.evaluate(sample, check.parseOptions(raw))
  const bad = outcome.findings.filter(({ status }) => status !== 'OK')
  return { status: statusOf(outcome), messages: bad.map(({ message }) => message), outcome }
}

t.test('the time to answer is judged at, below and above each limit', t => {
  for (const [openSeconds, status] of [
    [0, 'OK'],
    [0.499, 'OK'],
    [0.5, 'WARNING'],
    [1.999, 'WARNING'],
    [2, 'CRITICAL'],
  ] as const) {
    t.equal(judged({ answer: { ...answer, openSeconds } }).status, status, `${openSeconds} s and 1 ms`)
  }
  t.equal(judged({ answer: { ...answer, openSeconds: 0.499, listSeconds: 0 } }).status, 'OK')
  t.equal(judged({ answer: { ...answer, openSeconds: 0.5, listSeconds: 0 } }).status, 'OK', 'ends belong to the range')
  t.same(judged({ answer: { ...answer, openSeconds: 0.5, listSeconds: 0.25 } }).messages, [
    'answered in 750 ms (250 ms of it to list guests) (warning above 500 ms)',
  ])
  t.equal(judged({}).outcome.summary, 'libvirt 9.0.0 (QEMU 7.2.22) answered in 4 ms at qemu:///system; 3 guests')
  t.end()
})

t.test('clients are judged at, below and above each limit, when it is known how many there may be', t => {
  for (const [connected, status] of [
    [80, 'OK'],
    [81, 'WARNING'],
    [95, 'WARNING'],
    [96, 'CRITICAL'],
  ] as const) {
    t.equal(judged({ clients: { connected, waiting: 0, maximum: 100 } }).status, status, `${connected} of 100`)
    t.equal(judged({ clients: { connected, waiting: 0 } }).status, 'OK', 'it is not known')
  }
  t.same(judged({ clients: { connected: 100, waiting: 7, maximum: 100 } }).messages, [
    'clients 100 % of those it takes (100 of 100 clients, 7 more waiting) (critical above 95 %)',
  ])
  t.end()
})

t.test('a daemon that answers and has no worker thread free is CRITICAL', t => {
  t.match(judged({ answer: { ...answer, workSeconds: undefined } }), {
    status: 'CRITICAL',
    messages: [
      'no worker thread free for 10 s: its calls hang, as on a guest or a storage server that does not answer',
    ],
  })
  t.match(judged({ answer: { ...answer, listSeconds: undefined, guests: undefined } }), {
    status: 'CRITICAL',
    messages: [
      'answers, but did not list its guests within 10 s: one of them holds it up, as when its start or stop hangs',
    ],
    outcome: { metrics: [{ name: 'answer_time', value: undefined }] },
  })
  t.end()
})

t.test('a silent daemon that is full is told from one that hangs', t => {
  const silent = { hung: true, message: 'libvirt did not answer AUTH_LIST within 10.0 s' }
  t.same(judged({ answer: silent, clients: { connected: 3, waiting: 2, maximum: 5000 } }).messages, [
    'libvirt did not answer AUTH_LIST within 10.0 s: it hangs: see its log, then restart it (guests run on)',
  ])
  t.same(
    judged({ answer: silent, clients: { connected: 20, waiting: 2, maximum: 20 } }).messages[0],
    [
      'libvirt did not answer AUTH_LIST within 10.0 s: it lets in no more (20 of 20 clients, 2 more waiting): end some, or raise max_clients',
    ][0],
  )
  t.end()
})

/** A daemon that answers all that is asked, unless told otherwise. */
async function fakeDaemon(t: Test) {
  const daemon = await FakeLibvirtd.start()
  t.teardown(() => daemon.remove())
  daemon.on(procedures.getLibVersion, call => call.reply(writer => writer.u64(9_002_001)))
  daemon.on(procedures.listAllDomains, call => call.reply(writer => writer.u32(0).u32(0)))
  daemon.on(procedures.getType, call => call.reply(writer => writer.string('QEMU')))
  daemon.on(procedures.getVersion, call => call.fail(1, 'cannot find suitable emulator'))
  daemon.on(procedures.getCapabilities, call => call.reply(writer => writer.string('<capabilities/>')))
  return daemon
}

/** What the executable says, without the daemon's random path. */
async function says(daemon: Pick<FakeLibvirtd, 'uri' | 'socketPath'>, ...args: string[]) {
  const { stdout, stderr, status } = await runExecutable(name, ['--uri', daemon.uri, ...args])
  const [line = ''] = stdout.split('\n')
  return [status, line.replaceAll(daemon.uri, 'URI').replaceAll(daemon.socketPath, 'SOCKET'), stderr]
}

t.test('what is wrong with a daemon is told apart, and what is not its fault is UNKNOWN', async t => {
  const daemon = await fakeDaemon(t)
  t.match(await says(daemon), [
    0,
    /^check-kvm-libvirtd OK: libvirt 9.2.1 \(QEMU\) answered in [\d.]+ m?s at URI; 0 guests; \d clients?$/,
  ])
  const hung = ['--hung-after', '300ms']
  daemon.ignore(procedures.getCapabilities)
  t.match(await says(daemon, ...hung), [
    2,
    /^check-kvm-libvirtd CRITICAL: no worker thread free for 300 ms: its calls hang, as on a guest or/,
  ])
  daemon.ignore(procedures.listAllDomains)
  t.match(await says(daemon, ...hung), [
    2,
    /^check-kvm-libvirtd CRITICAL: answers, but did not list its guests within 300 ms: one of them holds it up, as when its start or stop hangs; 1 more$/,
  ])
  daemon.ignore(procedures.getType)
  t.match(await says(daemon, ...hung), [
    2,
    /^check-kvm-libvirtd CRITICAL: libvirt at URI did not answer CONNECT_GET_TYPE within [\d.]+ s: it hangs: see its log, then/,
  ])
  daemon.on(procedures.connectOpen, call => call.fail(5, 'no connection driver available for qemu:///system'))
  t.match(await says(daemon), [
    2,
    'check-kvm-libvirtd CRITICAL: libvirt CONNECT_OPEN: no connection driver available for qemu:///system [code 5]: its driver is not installed or does not load, or --uri is wrong',
  ])
  daemon.on(procedures.connectOpen, call => call.fail(88, 'access denied'))
  t.match(await says(daemon), [3, /^check-kvm-libvirtd UNKNOWN: libvirt CONNECT_OPEN: access denied \(this call needs/])
  daemon.on(procedures.authList, call => call.fail(39, 'Cannot find program'))
  t.match(await says(daemon), [3, /no socket of libvirt's public protocol: correct --uri$/])
  daemon.on(procedures.authList, call => call.reply(writer => writer.u32(1).i32(1)))
  t.match(await says(daemon), [
    3,
    /^check-kvm-libvirtd UNKNOWN: libvirt at URI wants SASL authentication, which is not/,
  ])
  daemon.on(procedures.authList, call => call.socket.write('HTTP/1.1 400 Bad Request\r\n\r\n'))
  t.match(await says(daemon), [3, /^check-kvm-libvirtd UNKNOWN: URI: .*libvirt/])
  daemon.on(procedures.authList, call => call.socket.destroy())
  t.match(await says(daemon), [2, /^check-kvm-libvirtd CRITICAL: libvirt at URI closed the connection/])
  daemon.ignore(procedures.authList)
  t.match(await says(daemon, ...hung), [
    2,
    /^check-kvm-libvirtd CRITICAL: libvirt at URI did not answer .* within 0.3 s: it hangs: see its log, then restart it \(guests run on\)$/,
  ])
  t.match(
    await says(daemon, '--timeout', '1'),
    [2, /did not answer .* within 0.[6-9] s: it hangs/],
    'before the run ends',
  )
})

t.test('a socket without a daemon, without a file, and one that may not be opened', async t => {
  const daemon = await fakeDaemon(t)
  chmodSync(daemon.socketPath, 0o000)
  chmodSync(daemon.directory, 0o755)
  const denied = await runExecutable(name, ['--uri', daemon.uri], process.getuid?.() === 0 ? { uid: 65_534 } : {})
  t.equal(
    denied.stdout,
    `${name} UNKNOWN: no permission for libvirt's socket ${daemon.socketPath}: run as root or as a member of group libvirt\n`,
  )
  t.equal(denied.status, 3)
  const left = Host.open(`qemu:///system?socket=${daemon.directory}/none`)
  t.teardown(() => left.close())
  t.match(await check.collect(left, check.parseOptions(), checkContext()), {
    answer: {
      hung: false,
      message: /^no libvirt daemon for .*: no socket .*\/none; is the path right and the daemon running\?$/,
    },
    clients: undefined,
  })
})

t.test('a run has a connection of its own, and closes it', async t => {
  const daemon = await fakeDaemon(t)
  const host = Host.open(daemon.uri)
  t.teardown(() => host.close())
  await host.libVersion()
  t.equal(daemon.accepted, 1)
  for (const run of [1, 2]) {
    await check.collect(host, check.parseOptions(), checkContext())
    t.equal(daemon.accepted, 1 + run)
  }
  t.notOk((await check.collect(host, check.parseOptions(), checkContext())).clients?.maximum, 'its file is not known')
})

t.test('a real daemon: answers, takes no more clients, hangs, is gone', async t => {
  const daemon = await ownLibvirtd(t, { daemonSettings: ['max_clients = 4', 'max_anonymous_clients = 4'] })
  const says = async (...args: string[]) => {
    const uri = daemon.readOnlyUri ?? daemon.uri
    const { stdout, status } = await runExecutable(name, [
      '--uri',
      uri,
      '--max-clients',
      '4',
      '-w',
      '5',
      '-c',
      '9',
      ...args,
    ])
    return [status, stdout.split('\n')[0]?.replaceAll(uri, 'URI')]
  }
  t.match(await says(), [
    0,
    /^check-kvm-libvirtd OK: libvirt \d+\.\d+\.\d+ \(QEMU [\d.]+\) answered in [\d.]+ m?s at URI; 0 guests; \d of 4 clients$/,
  ])
  const hosts = Array.from({ length: 4 }, () => Host.open(daemon.uri))
  t.teardown(() => Promise.all(hosts.map(host => host.close())).then(() => undefined))
  for (const host of hosts.slice(0, 3)) await host.libVersion()
  const near = ['--clients-warning', '70', '--hung-after', '1s']
  t.match(await says(...near, '--clients-critical', '100'), [
    1,
    /WARNING: clients 75 % of those it takes \(3 of 4 clients\)/,
  ])
  await hosts[3]?.libVersion()
  t.match(await says(...near), [
    2,
    /CRITICAL: libvirt at URI did not answer \w+ within 1.0 s: it lets in no more \(4 of 4 clients\): end some, or raise max_clients;/,
  ])
  await Promise.all(hosts.map(host => host.close()))
  const isFree = async () => (await says('--clients-critical', '~:'))[0] === 0 || undefined
  await waitUntil('the daemon has noticed that they are gone', isFree, { timeoutMs: 10_000 })
  daemon.pause()
  t.match(await says('--hung-after', '500ms', '--clients-critical', '~:'), [2, /did not answer \w+ within 0.5 s/])
  daemon.resume()
  await daemon.kill()
  t.match(await says(), [
    2,
    /CRITICAL: nobody listens on libvirt's socket [^ ]+: the daemon has stopped; start libvirtd \(or virtqemud.socket\)$/,
  ])
})

t.test('the shared daemon and the test driver, with the numbers', async t => {
  await healthyGuest(t)
  const { uri } = await libvirtd(t)
  const testDriver = uri.replace(/^qemu(.*)\/(system|session)/, 'test$1/default')
  for (const [address, line] of [
    [uri, /\(QEMU \d[\d.]+\) answered in /],
    [testDriver, /\(TEST \d[\d.]+\) answered in [\d.]+ m?s at [^ ]+; 1 guest; /],
  ] as const) {
    const { stdout, stderr, status } = await runExecutable(name, [
      '--uri',
      address,
      '-w',
      '20',
      '-c',
      '25',
      '--hung-after',
      '20',
    ])
    t.match(stdout, line)
    t.match(
      stdout.split('\n')[1],
      /^\| answer_time=[\d.]+s;20;25;0 open_time=[\d.]+s;;;0 list_time=[\d.]+s;;;0 work_time=[\d.]+s;;;0 guests=\d+;;;0 clients=\d+;;;0 clients_waiting=\d+;;;0$/,
    )
    t.same([stderr, status], ['', 0])
  }
})

import { chmodSync } from 'node:fs'
import t, { type Test } from 'tap'
import check, { type GuestState, type StateSample } from '../../checks/check-kvm-state.js'
import { domainState } from '../../libvirt/decode.js'
import { Host } from '../../libvirt/host.js'
import { procedures } from '../../libvirt/procedures.js'
import { statusOf } from '../../plugin/output.js'
import { checkContext, runExecutable } from '../support/checks.js'
import { FakeLibvirtd } from '../support/fake-libvirtd.js'
import { libvirtd, ownGuest } from '../support/services.js'

const name = 'check-kvm-state'
const uuid = '11111111-1111-1111-1111-111111111111'

function guest(stateCode: number, reasonCode: number, change: Partial<GuestState> = {}): GuestState {
  return { name: 'web1', uuid, state: domainState(stateCode, reasonCode), ...change }
}

function judged(
  guests: readonly GuestState[],
  raw: Parameters<typeof check.parseOptions>[0] = {},
  missing: string[] = [],
) {
  const sample: StateSample = { uri: 'qemu:///system', guests, missing }
  const outcome = check.evaluate(sample, check.parseOptions(raw))
  return { status: statusOf(outcome), messages: outcome.findings.map(({ message }) => message), outcome }
}

t.test('every state with every reason', t => {
  const table: [stateCode: number, reasonCode: number, status: string, message: string][] = [
    [0, 0, 'UNKNOWN', 'no state (unknown): not a state this check knows'],
    [1, 0, 'OK', 'running (unknown)'],
    [1, 1, 'OK', 'running (booted)'],
    [1, 2, 'OK', 'running (migrated)'],
    [1, 3, 'OK', 'running (restored)'],
    [1, 4, 'OK', 'running (from snapshot)'],
    [1, 5, 'OK', 'running (unpaused)'],
    [1, 6, 'OK', 'running (migration canceled)'],
    [1, 7, 'OK', 'running (save canceled)'],
    [1, 8, 'OK', 'running (event wakeup)'],
    [1, 9, 'WARNING', 'running (crashed): it was restarted after a crash'],
    [1, 10, 'OK', 'running (post-copy)'],
    [1, 11, 'CRITICAL', 'running (post-copy failed): see virsh domjobinfo on both hosts'],
    [1, 99, 'OK', 'running (reason 99)'],
    [2, 0, 'OK', 'blocked (unknown)'],
    [3, 0, 'CRITICAL', "paused (unknown): its QEMU stopped it, as after an internal error of KVM: see QEMU's log"],
    [3, 1, 'WARNING', 'paused (user): continue it with virsh resume'],
    [3, 2, 'OK', 'paused (migrating)'],
    [3, 3, 'OK', 'paused (saving)'],
    [3, 4, 'OK', 'paused (dumping)'],
    [
      3,
      5,
      'CRITICAL',
      'paused (I/O error), its disk could not be determined: make room or repair the storage, then virsh resume',
    ],
    [3, 6, 'CRITICAL', 'paused (watchdog): its watchdog ran out: see its console'],
    [3, 7, 'WARNING', 'paused (from snapshot): continue it with virsh resume'],
    [3, 8, 'OK', 'paused (shutting down)'],
    [3, 9, 'OK', 'paused (creating snapshot)'],
    [3, 10, 'CRITICAL', 'paused (crashed): see its console'],
    [3, 11, 'OK', 'paused (starting up)'],
    [3, 12, 'OK', 'paused (post-copy)'],
    [3, 13, 'CRITICAL', 'paused (post-copy failed): see virsh domjobinfo on both hosts'],
    [4, 0, 'OK', 'shutting down (unknown)'],
    [4, 1, 'OK', 'shutting down (user)'],
    [5, 0, 'OK', 'shut off (unknown)'],
    [5, 1, 'OK', 'shut off (shutdown)'],
    [5, 2, 'OK', 'shut off (destroyed)'],
    [5, 3, 'CRITICAL', "shut off (crashed): its QEMU ended by itself: see QEMU's log, then virsh start"],
    [5, 4, 'OK', 'shut off (migrated)'],
    [5, 5, 'OK', 'shut off (saved)'],
    [5, 6, 'CRITICAL', "shut off (failed): it failed to start: see QEMU's log"],
    [5, 7, 'OK', 'shut off (from snapshot)'],
    [5, 8, 'CRITICAL', "shut off (daemon): libvirt ended it when it could not reach its QEMU: see libvirt's log"],
    [6, 0, 'CRITICAL', 'crashed (unknown): see its console, then virsh destroy and start'],
    [6, 1, 'CRITICAL', 'crashed (panicked): see its console, then virsh destroy and start'],
    [7, 0, 'WARNING', 'suspended (unknown): it went to sleep: wake it with virsh dompmwakeup'],
    [42, 7, 'UNKNOWN', 'state 42 (reason 7): not a state this check knows'],
  ]
  for (const [stateCode, reasonCode, status, message] of table) {
    const found = judged([guest(stateCode, reasonCode)])
    t.same([found.status, found.messages], [status, [message]], `${stateCode}/${reasonCode}`)
  }
  t.same(judged([{ name: 'web1', uuid }]).messages, ['libvirt does not tell its state'])
  t.end()
})

t.test('a guest paused by an I/O error names its disks, what they suffer from and where they are', t => {
  const diskFaults = [
    { disk: 'vda', error: 'no space', path: '/data/web1.qcow2' },
    { disk: 'vdb', error: 'unspecified' },
  ] as const
  t.same(judged([guest(3, 5, { diskFaults })]).messages, [
    'paused (I/O error), disk vda: no space (/data/web1.qcow2), disk vdb: I/O error: make room or repair the storage, then virsh resume',
  ])
  t.end()
})

t.test('how long it has been seen so is said; what only passes is a WARNING when it lasts', t => {
  t.same(judged([guest(3, 1, { seenSeconds: 7200 })]).messages, [
    'paused (user), seen so for 2 h: continue it with virsh resume',
  ])
  for (const [seenSeconds, status] of [
    [0, 'OK'],
    [900, 'OK'],
    [901, 'WARNING'],
  ] as const) {
    t.equal(judged([guest(3, 3, { seenSeconds })]).status, status, `${seenSeconds} s`)
    t.equal(judged([guest(4, 1, { seenSeconds })]).status, status, `${seenSeconds} s`)
  }
  t.equal(judged([guest(3, 3, { seenSeconds: 61 })], { 'stuck-after': '1m' }).status, 'WARNING')
  t.end()
})

t.test('a running guest whose QEMU does not answer is CRITICAL, with how long', t => {
  t.same(judged([guest(1, 1, { notAnsweringSeconds: 12.345 })]).messages, [
    "running (booted), but its QEMU has not answered for 12.35 s: see QEMU's log and the storage",
  ])
  t.equal(judged([guest(1, 1, { notAnsweringSeconds: 1 })], { expect: ['running'] }).status, 'CRITICAL')
  t.end()
})

t.test('a guest that starts with the host and is not active is what --autostart says', t => {
  const off = guest(5, 2, { autostartInactive: true })
  t.same(judged([off]).messages, ['shut off (destroyed), though it is to start with the host: virsh start'])
  t.equal(judged([off]).status, 'CRITICAL')
  t.equal(judged([off], { autostart: 'warning' }).status, 'WARNING')
  t.equal(judged([off], { autostart: 'ignore' }).status, 'OK')
  t.equal(judged([off], { expect: ['web1=shut off'] }).status, 'OK', 'unless it is expected to be off')
  t.equal(judged([guest(1, 1, { autostartInactive: true })]).status, 'OK', 'started between the two calls')
  t.end()
})

t.test('an expectation decides between guests that are well; what is broken stays broken', t => {
  const table: [expect: string, stateCode: number, reasonCode: number, status: string][] = [
    ['running', 1, 1, 'OK'],
    ['running', 1, 9, 'OK'],
    ['running', 2, 0, 'OK'],
    ['running', 1, 11, 'CRITICAL'],
    ['running', 3, 1, 'CRITICAL'],
    ['running', 3, 3, 'OK'],
    ['running', 5, 1, 'CRITICAL'],
    ['running', 7, 0, 'CRITICAL'],
    ['running', 42, 0, 'CRITICAL'],
    ['paused', 3, 1, 'OK'],
    ['paused', 3, 5, 'CRITICAL'],
    ['paused', 1, 1, 'CRITICAL'],
    ['shut off', 5, 1, 'OK'],
    ['shut off', 5, 3, 'OK'],
    ['shut off', 1, 1, 'CRITICAL'],
    ['shut off', 4, 1, 'OK'],
    ['crashed', 6, 1, 'OK'],
    ['suspended', 7, 0, 'OK'],
  ]
  for (const [expect, stateCode, reasonCode, status] of table) {
    const { outcome } = judged([guest(stateCode, reasonCode)], { expect: [expect] })
    t.equal(statusOf(outcome), status, `${stateCode}/${reasonCode} where ${expect} is expected`)
  }
  t.same(judged([guest(5, 1)], { expect: ['running'] }).messages, ['shut off (shutdown), but expected running'])
  t.end()
})

t.test('expectations are of all guests, or of one by name or UUID', t => {
  const both = [guest(1, 1), guest(5, 1, { name: 'a=b', uuid: '22222222-2222-2222-2222-222222222222' })]
  const bad = (expect: string[]) =>
    judged(both, { expect }).outcome.findings.flatMap(found => (found.status === 'OK' ? [] : [found.guest]))
  t.same(bad(['running']), ['a=b'])
  t.same(bad(['running', 'a=b=shut off']), [])
  t.same(bad(['running', 'a=b=SHUT-OFF', 'web1=paused']), ['web1'])
  t.same(bad([`${uuid}=shutoff`]), ['web1'])
  for (const wrong of ['up', 'web1=', 'web1=up', '=running']) {
    t.throws(() => bad([wrong]), {
      message: `--expect ${wrong}: not an expectation: write NAME=WORD or WORD, with one of running, paused, shut off, crashed, suspended`,
    })
  }
  t.end()
})

t.test('a guest that is gone is CRITICAL and hides no other', t => {
  const { status, outcome } = judged([guest(3, 1)], {}, ['web9'])
  t.equal(status, 'CRITICAL')
  t.match(outcome.findings, [
    { guest: 'web1', status: 'WARNING' },
    {
      guest: 'web9',
      message: 'no such guest on qemu:///system: undefined, migrated away, or wrongly named by --guest or --expect',
    },
  ])
  t.end()
})

t.test('guests of another kind than wanted are a WARNING only when asked for', t => {
  t.same(judged([guest(1, 1, { transient: true, noAutostart: true })]).messages, [
    'running (booted)',
    'active, but not defined: it is gone when it ends; virsh define keeps it',
  ])
  t.equal(judged([guest(1, 1, { noAutostart: true })]).status, 'WARNING')
  t.end()
})

t.test('when all is well the line counts the guests, and nothing to look at is no alarm', t => {
  t.equal(judged([guest(1, 1)]).outcome.summary, 'web1 running (booted)')
  const many = [guest(1, 1), guest(1, 5, { name: 'web2' }), guest(5, 1, { name: 'web3' })]
  t.equal(judged(many).outcome.summary, '3 guests: 2 running, 1 shut off')
  t.match(judged([]), { status: 'OK', outcome: { summary: 'no guests to look at on qemu:///system' } })
  t.match(judged([], { match: '^web' }), {
    status: 'UNKNOWN',
    messages: ['no guest on qemu:///system matches --match ^web: correct it'],
  })
  t.end()
})

interface FakeGuest {
  name: string
  uuid: string
  state: readonly [state: number, reason: number]
}

/** A daemon with these guests, of which none starts with the host. */
async function fakeHost(t: Test, guests: readonly FakeGuest[]) {
  const daemon = await FakeLibvirtd.start()
  const host = Host.open(daemon.uri)
  t.teardown(async () => {
    await host.close()
    await daemon.remove()
  })
  daemon.on(procedures.listAllDomains, call => call.reply(writer => writer.u32(0).u32(0)))
  daemon.on(procedures.getAllDomainStats, call =>
    call.reply(writer =>
      writer.array(guests, (to, { name: own, uuid: id, state: [state, reason] }) => {
        to.string(own).uuid(id).i32(1).u32(2)
        to.string('state.state').i32(1).i32(state).string('state.reason').i32(1).i32(reason)
      }),
    ),
  )
  return { daemon, host }
}

function numbered(count: number): FakeGuest[] {
  return Array.from({ length: count }, (_, index) => ({
    name: `web${index + 1}`,
    uuid: `00000000-0000-0000-0000-${String(index + 1).padStart(12, '0')}`,
    state: [1, 1],
  }))
}

const calls = (daemon: FakeLibvirtd) =>
  daemon.called.filter(called => /^(DOMAIN|CONNECT_(GET_ALL|LIST))/.test(called)).sort()

t.test('two calls for any number of guests, one when autostart does not matter', async t => {
  const { daemon, host } = await fakeHost(t, numbered(3000))
  const { guests } = await check.collect(host, check.parseOptions(), checkContext())
  t.equal(guests.length, 3000)
  t.same(calls(daemon), ['CONNECT_GET_ALL_DOMAIN_STATS', 'CONNECT_LIST_ALL_DOMAINS'])
  await check.collect(host, check.parseOptions({ autostart: 'ignore' }), checkContext())
  t.equal(calls(daemon).length, 3)
})

t.test('libvirt filters the lists: inactive with autostart, active without, active and not defined', async t => {
  const { daemon, host } = await fakeHost(t, numbered(1))
  const asked: number[] = []
  daemon.on(procedures.listAllDomains, call => {
    call.arguments.i32()
    asked.push(call.arguments.u32())
    call.reply(writer => writer.u32(0).u32(0))
  })
  const raw = { 'warn-transient': true, 'warn-no-autostart': true }
  await check.collect(host, check.parseOptions(raw), checkContext())
  const [active, inactive, transient, autostart, noAutostart] = [1, 2, 8, 0x400, 0x800]
  t.same(asked, [inactive + autostart, active + transient, active + noAutostart])
})

t.test('names: --expect adds to --guest, --exclude wins, what is not there is missing', async t => {
  const { host } = await fakeHost(t, numbered(4))
  const look = async (raw: Parameters<typeof check.parseOptions>[0]) => {
    const { guests, missing } = await check.collect(host, check.parseOptions(raw), checkContext())
    return [guests.map(found => found.name), missing]
  }
  t.same(await look({}), [['web1', 'web2', 'web3', 'web4'], []])
  t.same(await look({ expect: ['web9=running'] }), [['web1', 'web2', 'web3', 'web4'], ['web9']])
  t.same(await look({ guest: ['web2', 'web8'], expect: ['web3=running', 'running'] }), [['web2', 'web3'], ['web8']])
  t.same(await look({ match: '[34]', expect: ['web1=running'] }), [['web1', 'web3', 'web4'], []])
  t.same(await look({ guest: ['web1', 'web9'], exclude: 'web[19]' }), [[], []])
})

t.test('since when is kept between runs, and starts anew when the state changes or the guest runs', async t => {
  const guests = numbered(1)
  const [web1] = guests
  if (web1 === undefined) throw new Error('no guest')
  const { host } = await fakeHost(t, guests)
  let nowMs = 1_000_000
  const context = checkContext({ now: () => nowMs })
  const seen = async (state: FakeGuest['state'], afterSeconds: number) => {
    web1.state = state
    nowMs += afterSeconds * 1000
    return (await check.collect(host, check.parseOptions(), context)).guests[0]?.seenSeconds
  }
  t.equal(await seen([3, 1], 0), 0)
  t.equal(await seen([3, 1], 60), 60)
  t.equal(await seen([3, 1], 60), 120)
  t.equal(await seen([3, 6], 60), 0, 'another reason')
  t.equal(await seen([1, 1], 60), undefined, 'runs')
  t.equal(await seen([3, 6], 60), 0, 'paused again')
  t.equal(await seen([3, 6], 3601), 0, 'nobody looked for an hour')
})

t.test('a guest that vanishes, or whose QEMU is silent, while its disks are asked for keeps its state', async t => {
  const [web1, web2] = numbered(2)
  if (web1 === undefined || web2 === undefined) throw new Error('no guests')
  const { daemon, host } = await fakeHost(t, [
    { ...web1, state: [3, 5] },
    { ...web2, state: [3, 5] },
  ])
  daemon.on(procedures.domainGetDiskErrors, call => {
    const asked = call.arguments.string()
    if (asked === 'web1') call.fail(42, 'no domain with matching uuid') // web2 is never answered
  })
  const context = checkContext({ timeLeftMs: () => 400 })
  const sample = await check.collect(host, check.parseOptions(), context)
  t.same(
    check.evaluate(sample, check.parseOptions()).findings.map(found => `${found.guest}: ${found.message}`),
    ['web1', 'web2'].map(
      own =>
        `${own}: paused (I/O error), its disk could not be determined: make room or repair the storage, then virsh resume`,
    ),
  )
})

t.test('where nothing can be kept, the state is told all the same', async t => {
  const [web1] = numbered(1)
  if (web1 === undefined) throw new Error('no guest')
  const { daemon } = await fakeHost(t, [{ ...web1, state: [3, 1] }])
  const { stdout, status } = await runExecutable(name, ['--uri', daemon.uri, '--state-dir', '/dev/null/state'])
  t.match(stdout, /^check-kvm-state WARNING: web1: paused \(user\): continue it with virsh resume\n/)
  t.equal(status, 1)
})

/** The counts at the end of the output: all are 0 but these. */
function perfdata(counts: Readonly<Record<string, number>>): string {
  const names = ['running', 'paused', 'shut_off', 'crashed', 'suspended', 'other', 'missing']
  return `| ${names.map(state => `${state}=${counts[state] ?? 0};;;0`).join(' ')}\n`
}

t.test('a real guest in every state it can be brought into', async t => {
  const daemon = await libvirtd(t)
  const uri = daemon.readOnlyUri ?? daemon.uri
  const web1 = 'state1'
  const guest1 = await ownGuest(t, daemon, { name: web1 })
  // An empty state directory each time: how long it was seen so is not what this is about.
  const prints = async (expected: string, status: number, counts: Record<string, number>, more: string[] = []) => {
    const args = ['--uri', uri, '--guest', web1, '--state-dir', t.testdir(), ...more]
    const line = `${name} ${expected}`
    const detail = status === 0 ? '' : `${expected.replace(':', '')}\n`
    t.same(
      await runExecutable(name, args),
      { stdout: `${line}\n${detail}${perfdata(counts)}`, stderr: '', status },
      expected,
    )
  }
  await prints('OK: state1 running (booted)', 0, { running: 1 })
  await prints('OK: state1 running (booted)', 0, { running: 1 }, ['--expect', 'running'])
  await prints('CRITICAL: state1: running (booted), but expected shut off', 2, { running: 1 }, [
    '--expect',
    'state1=shut off',
  ])
  await prints(
    `CRITICAL: state9: no such guest on ${uri}: undefined, migrated away, or wrongly named by --guest or --expect`,
    2,
    { running: 1, missing: 1 },
    ['--expect', 'state9=running'],
  )
  const noAutostart = 'WARNING: state1: active, but does not start with the host: virsh autostart changes that'
  await prints(noAutostart, 1, { running: 1 }, ['--warn-no-autostart', '--warn-transient'])
  await guest1.suspend()
  await prints('WARNING: state1: paused (user): continue it with virsh resume', 1, { paused: 1 })
  await prints('OK: state1 paused (user)', 0, { paused: 1 }, ['--expect', 'state1=paused'])
  await guest1.resume()
  await prints('OK: state1 running (unpaused)', 0, { running: 1 })

  // The guest's answer to its own death never comes.
  const dying = guest1.agent('guest-exec', { path: '/bin/sh', arg: ['-c', 'echo c > /proc/sysrq-trigger'] })
  dying.catch(() => undefined)
  await guest1.reaches('crashed (panicked)')
  await prints('CRITICAL: state1: crashed (panicked): see its console, then virsh destroy and start', 2, { crashed: 1 })

  await guest1.destroy()
  await prints('OK: state1 shut off (destroyed)', 0, { shut_off: 1 })
  await daemon.virsh('autostart', web1)
  const autostart = 'state1: shut off (destroyed), though it is to start with the host: virsh start'
  await prints(`CRITICAL: ${autostart}`, 2, { shut_off: 1 })
  await prints(`WARNING: ${autostart}`, 1, { shut_off: 1 }, ['--autostart', 'warning'])
  await prints('OK: state1 shut off (destroyed)', 0, { shut_off: 1 }, ['--autostart', 'ignore'])
  await daemon.virsh('autostart', '--disable', web1)

  await daemon.virsh('start', web1)
  guest1.signal('SIGKILL')
  await guest1.reaches('shut off (crashed)')
  await prints("CRITICAL: state1: shut off (crashed): its QEMU ended by itself: see QEMU's log, then virsh start", 2, {
    shut_off: 1,
  })
})

t.test('a real guest whose disk is full: the disk is named, with where it is', { skip: needsRoot() }, async t => {
  const daemon = await libvirtd(t)
  const uri = daemon.readOnlyUri ?? daemon.uri
  const full = await ownGuest(t, daemon, { name: 'state2', diskSpaceMiB: 3 })
  await full.fillDisk()
  const { stdout, status } = await runExecutable(name, ['--uri', uri, '--guest', 'state2', '--state-dir', t.testdir()])
  t.match(
    stdout,
    /^check-kvm-state CRITICAL: state2: paused \(I\/O error\), disk vda: no space \(\/[^ ]+\/disk.qcow2\): make room or repair the storage, then virsh resume\n/,
  )
  t.equal(status, 2)
})

t.test('a real guest whose QEMU hangs is named once another call has found out', async t => {
  const daemon = await libvirtd(t)
  const hung = await ownGuest(t, daemon, { name: 'state3', agent: false })
  const host = Host.open(daemon.uri, { readOnly: true })
  t.teardown(() => host.close())
  const options = check.parseOptions({ guest: ['state3'] })
  const look = async () => check.evaluate(await check.collect(host, options, checkContext()), options).findings
  hung.signal('SIGSTOP')
  try {
    t.match(await look(), [{ status: 'OK', message: 'running (booted)' }], 'for libvirt it runs')
    await host.domainStats({ groups: ['balloon'] })
    t.match(await look(), [
      {
        status: 'CRITICAL',
        guest: 'state3',
        message: /^running \(booted\), but its QEMU has not answered for [\d.]+ m?s:/,
      },
    ])
  } finally {
    hung.signal('SIGCONT')
  }
})

t.test("the test driver's guest", async t => {
  const { uri } = await libvirtd(t)
  const testDriver = uri.replace(/^qemu(.*)\/(system|session)/, 'test$1/default')
  const { stdout, status } = await runExecutable(name, ['--uri', testDriver, '--state-dir', t.testdir()])
  t.equal(stdout, `${name} OK: test running (unknown)\n${perfdata({ running: 1 })}`)
  t.equal(status, 0)
})

t.test('the executable says what is wrong, in one line, with status 3', async t => {
  const socket = 'qemu:///system?socket=/nonexistent/sock'
  for (const [args, line] of [
    [['--gest', 'web1'], 'unknown option --gest: did you mean --guest?'],
    [['web1'], 'unexpected argument "web1": options start with --'],
    [['--autostart', 'maybe'], '--autostart maybe: not one of critical, warning, ignore'],
    [
      ['--stuck-after', '1 week'],
      '--stuck-after 1 week: not a time: write 250ms, 30s, 5m, 2h or 1d (seconds without a unit)',
    ],
    [
      ['--expect', 'web1=up'],
      '--expect web1=up: not an expectation: write NAME=WORD or WORD, with one of running, paused, shut off, crashed, suspended',
    ],
    [[], `no libvirt daemon for ${socket}: no socket /nonexistent/sock; is the path right and the daemon running?`],
  ] as const) {
    const expected = { stdout: `${name} UNKNOWN: ${line}\n`, stderr: '', status: 3 }
    t.same(await runExecutable(name, ['--uri', socket, ...args]), expected, args.join(' '))
  }
  t.match(await runExecutable(name, ['--uri', socket, '--match', '[']), {
    stdout: /^check-kvm-state UNKNOWN: --match \[: not a regular expression: [^\n]*\n$/,
    status: 3,
  })
})

t.test('a socket that may not be opened is told from one that is not there', async t => {
  const { daemon } = await fakeHost(t, [])
  chmodSync(daemon.socketPath, 0o000)
  chmodSync(daemon.directory, 0o755)
  t.same(await runExecutable(name, ['--uri', daemon.uri], needsRoot() === false ? { uid: 65_534 } : {}), {
    stdout: `${name} UNKNOWN: no permission for libvirt's socket ${daemon.socketPath}: run as root or as a member of group libvirt\n`,
    stderr: '',
    status: 3,
  })
})

/** The reason to skip a test, or false. */
function needsRoot(): string | false {
  return process.getuid?.() === 0 ? false : 'needs root'
}

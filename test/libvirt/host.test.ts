import { setTimeout as pause } from 'node:timers/promises'
import t, { type Test } from 'tap'
import * as decode from '../../libvirt/decode.js'
import { Host, type HostOptions } from '../../libvirt/host.js'
import { procedures } from '../../libvirt/procedures.js'
import type { Domain, LifecycleEvent } from '../../libvirt/records.js'
import { run } from '../../scripts/services/process.js'
import { type FakeCall, FakeLibvirtd } from '../support/fake-libvirtd.js'

const web1: Domain = { name: 'web1', uuid: '11111111-1111-1111-1111-111111111111', id: 1 }
const web2: Domain = { name: 'web2', uuid: '22222222-2222-2222-2222-222222222222', id: 2 }

async function setUp(t: Test, options: HostOptions = {}): Promise<{ daemon: FakeLibvirtd; host: Host }> {
  const daemon = await FakeLibvirtd.start()
  const host = Host.open(daemon.uri, options)
  t.teardown(async () => {
    await host.close()
    await daemon.remove()
  })
  daemon.on(procedures.domainGetState, call => call.reply(writer => writer.i32(1).i32(1)))
  daemon.on(procedures.domainMemoryStats, call => call.reply(writer => writer.u32(1).i32(7).u64(1024)))
  return { daemon, host }
}

const guestOf = (call: FakeCall) => decode.readDomain(call.arguments).name

t.test('nothing is opened before the first call, and one connection serves many calls', async t => {
  const { daemon, host } = await setUp(t, { keepalive: false })
  t.equal(daemon.accepted, 0)
  await Promise.all([host.domainState(web1), host.domainState(web2), host.domainState(web1)])
  t.equal(daemon.accepted, 1)
  t.same(daemon.called.slice(0, 3), ['AUTH_LIST', 'CONNECT_OPEN', 'DOMAIN_GET_STATE'])
})

t.test('calls for different purposes use connections of their own', async t => {
  const { daemon, host } = await setUp(t)
  daemon.on(procedures.listAllStoragePools, call => call.reply(writer => writer.u32(0).u32(0)))
  await host.domainState(web1)
  await host.domainMemoryStats(web1)
  await host.storagePools()
  t.equal(daemon.accepted, 3)
})

t.test('a read-only Host refuses what needs read-write, without asking the daemon', async t => {
  const { daemon, host } = await setUp(t, { readOnly: true })
  await t.rejects(host.qemuMonitor(web1, { execute: 'query-status' }), { name: 'LibvirtError', code: 29, denied: true })
  t.equal(daemon.accepted, 0)
})

t.test('a missing socket is reported by the call, with what was looked for', async t => {
  const host = Host.open('qemu:///system?socket=/nonexistent/libvirt-sock')
  await t.rejects(host.hostname(), { kind: 'missing-socket', message: /no socket \/nonexistent\/libvirt-sock/ })
  await host.close()
})

t.test('a lost daemon is found again by the next call', async t => {
  const { daemon, host } = await setUp(t)
  await host.domainState(web1)
  daemon.ignore(procedures.domainGetInfo)
  const pending = host.domainInfo(web1)
  await daemon.untilCalled(procedures.domainGetInfo)
  const rejected = t.rejects(pending, { kind: 'closed', message: /while waiting for DOMAIN_GET_INFO of web1/ })
  await daemon.stop()
  await rejected
  await t.rejects(
    host.domainState(web1),
    { name: 'LibvirtConnectionError', kind: 'missing-socket' },
    'while it is away',
  )
  await daemon.listen()
  t.match(await host.domainState(web1), { state: 'running' }, 'after its return')
  t.equal(daemon.accepted, 2)
})

t.test('attempts to reach an absent daemon are spaced by a growing pause', async t => {
  const { daemon, host } = await setUp(t)
  await daemon.stop()
  const startedMs = performance.now()
  for (let attempt = 0; attempt < 4; attempt += 1)
    await t.rejects(host.hostname(), { name: 'LibvirtConnectionError', kind: 'missing-socket' })
  const tookMs = performance.now() - startedMs
  t.ok(tookMs > 50 + 100 + 200 - 30, `four attempts took ${Math.round(tookMs)} ms: pauses of up to 100, 200 and 400 ms`)
  await t.rejects(host.hostname({ timeoutMs: 20 }), { name: 'LibvirtTimeoutError' }, 'a pause counts to the deadline')
})

t.test('closing a Host ends pending calls, also those that wait for the connection', async t => {
  const { daemon, host } = await setUp(t)
  daemon.ignore(procedures.domainGetInfo)
  const pending = host.domainInfo(web1)
  await daemon.untilCalled(procedures.domainGetInfo)
  const rejected = t.rejects(pending, { name: 'LibvirtConnectionError', kind: 'closed' })
  await host.close()
  await rejected
  await t.rejects(host.domainState(web1), { kind: 'closed', message: /was closed/ })
  t.throws(() => host.on('lifecycle', () => undefined), { kind: 'closed', message: /was closed/ })
})

t.test('a guest that timed out is not asked again before its call has ended; others are', async t => {
  const { daemon, host } = await setUp(t)
  let answerWeb1: (() => void) | undefined
  daemon.on(procedures.domainMemoryStats, call => {
    const answer = () => call.reply(writer => writer.u32(1).i32(7).u64(1024))
    if (guestOf(call) === 'web1' && answerWeb1 === undefined) answerWeb1 = answer
    else answer()
  })
  await t.rejects(host.domainMemoryStats(web1, { timeoutMs: 50 }), {
    name: 'LibvirtTimeoutError',
    guest: 'web1',
    notAsked: false,
    message: /web1 did not answer DOMAIN_MEMORY_STATS within 0\.[01] s/,
  })
  await t.rejects(host.domainMemoryStats(web1), {
    name: 'LibvirtTimeoutError',
    guest: 'web1',
    notAsked: true,
    message: /web1 is not answering for \d+\.\d s/,
  })
  t.equal(daemon.count(procedures.domainMemoryStats), 1, 'not asked again')
  t.same(await host.domainMemoryStats(web2), { rssBytes: 1024 * 1024 })
  t.match(await host.domainState(web1), { state: 'running' }, 'what needs no QEMU is still asked')
  answerWeb1?.()
  await host.domainMemoryStats(web2)
  t.same(await host.domainMemoryStats(web1), { rssBytes: 1024 * 1024 }, 'asked again once the late answer is there')
})

t.test('hanging guests do not block the others, and how much may hang is bounded', async t => {
  const { daemon, host } = await setUp(t)
  const numbered = (index: number): Domain => ({
    name: `stuck${index}`,
    uuid: index.toString(16).padStart(32, '0'),
    id: index,
  })
  daemon.on(procedures.domainMemoryStats, call => {
    if (guestOf(call).startsWith('web')) call.reply(writer => writer.u32(0))
  })
  for (let index = 1; index <= 3; index += 1) {
    await t.rejects(host.domainMemoryStats(numbered(index), { timeoutMs: 30 }), {
      name: 'LibvirtTimeoutError',
      guest: `stuck${index}`,
    })
  }
  t.same(await host.domainMemoryStats(web1), {}, 'three hang, the fourth is answered on a fresh connection')
  t.equal(daemon.accepted, 2)
  for (let index = 4; index <= 6; index += 1) {
    await t.rejects(host.domainMemoryStats(numbered(index), { timeoutMs: 30 }), {
      name: 'LibvirtTimeoutError',
      guest: `stuck${index}`,
    })
  }
  await t.rejects(host.domainMemoryStats(web1), { kind: 'overloaded', message: /6 calls hang in libvirt/ })
})

t.test('a call that waits for places which all hang is sent on a fresh connection', async t => {
  const { daemon, host } = await setUp(t)
  daemon.on(procedures.domainMemoryStats, call => {
    if (guestOf(call) === 'web2') call.reply(writer => writer.u32(0))
  })
  const hanging = ['1', '2', '3'].map(digit =>
    t.rejects(host.domainMemoryStats({ name: `stuck${digit}`, uuid: digit.repeat(32), id: 1 }, { timeoutMs: 100 }), {
      name: 'LibvirtTimeoutError',
    }),
  )
  const waiting = host.domainMemoryStats(web2, { timeoutMs: 60_000 })
  await Promise.all(hanging)
  t.same(await waiting, {})
  t.equal(daemon.accepted, 2)
})

t.test('who asks an agent that is being asked waits his turn, and does not ask one that was found silent', async t => {
  const { daemon, host } = await setUp(t)
  const answers: (() => void)[] = []
  daemon.on(procedures.domainGetTime, call => {
    answers.push(() => call.reply(writer => writer.i64(7).u32(0)))
  })
  const limits = { timeoutMs: 60_000, answerTimeoutMs: 60_000 }
  const both = [host.domainTimeMs(web1, limits), host.domainTimeMs(web1, limits)]
  await daemon.untilCalled(procedures.domainGetTime)
  t.match(await host.domainState(web1), { state: 'running' })
  t.equal(daemon.count(procedures.domainGetTime), 1)
  answers[0]?.()
  await daemon.untilCalled(procedures.domainGetTime, 2)
  answers[1]?.()
  t.same(await Promise.all(both), [7000, 7000])

  const silent = { timeoutMs: 60_000, answerTimeoutMs: 100 }
  const outcomes = await Promise.allSettled([1, 2, 3, 4, 5].map(() => host.domainTimeMs(web1, silent)))
  t.match(
    outcomes.map(outcome => outcome.status === 'rejected' && outcome.reason),
    [false, true, true, true, true].map(notAsked => ({ name: 'LibvirtTimeoutError', guest: 'web1', notAsked })),
  )
  t.equal(daemon.count(procedures.domainGetTime), 3)
})

t.test('an agent that is slow to be found silent is left alone for a while', async t => {
  const { daemon, host } = await setUp(t)
  daemon.on(procedures.qemuAgentCommand, call => {
    setTimeout(() => call.fail(86, 'agent is not responding'), 1050)
  })
  const ping = () => host.qemuAgent(web1, { execute: 'guest-ping' })
  await t.rejects(ping(), { code: 86, agentUnavailable: true })
  await t.rejects(ping(), { code: 86, agentUnavailable: true })
  t.equal(daemon.count(procedures.qemuAgentCommand), 1)
  t.same(await host.domainMemoryStats(web1), { rssBytes: 1024 * 1024 }, 'its QEMU is asked all the same')
})

t.test('a malformed answer fails its own call only', async t => {
  const { daemon, host } = await setUp(t)
  daemon.on(procedures.listAllDomains, call => call.reply(writer => writer.u32(0xffff_ffff)))
  await t.rejects(host.domains(), { kind: 'protocol', message: /CONNECT_LIST_ALL_DOMAINS is malformed: 4294967295/ })
  daemon.on(procedures.listAllDomains, call => call.reply(writer => writer.u32(0).u32(0).u32(0)))
  await t.rejects(host.domains(), { kind: 'protocol', message: /4 bytes left over/ })
  t.match(await host.domainState(web1), { state: 'running' })
  t.equal(daemon.accepted, 1)
})

t.test('states and reasons newer than this client are unknown, not errors', async t => {
  const { daemon, host } = await setUp(t)
  const cases: [number, number, string, string][] = [
    [3, 5, 'paused', 'I/O error'],
    [6, 1, 'crashed', 'panicked'],
    [5, 3, 'shut off', 'crashed'],
    [1, 99, 'running', 'unknown'],
    [42, 1, 'unknown', 'unknown'],
    [-1, -1, 'unknown', 'unknown'],
  ]
  for (const [stateCode, reasonCode, state, reason] of cases) {
    daemon.on(procedures.domainGetState, call => call.reply(writer => writer.i32(stateCode).i32(reasonCode)))
    t.same(await host.domainState(web1), { state, reason, stateCode, reasonCode })
  }
})

t.test("QEMU's refusal of a monitor command is an error of its own", async t => {
  const { daemon, host } = await setUp(t)
  const answers: [string, object | undefined, unknown?][] = [
    ['{"return":{"status":"running"}}', undefined, { status: 'running' }],
    ['{"return":{}}', undefined, {}],
    [
      '{"error":{"class":"CommandNotFound","desc":"no such command"}}',
      { name: 'QemuMonitorError', guest: 'web1', errorClass: 'CommandNotFound' },
    ],
    ['not json', { name: 'QemuMonitorError', errorClass: 'Malformed' }],
    ['null', { name: 'QemuMonitorError', errorClass: 'Malformed' }],
    ['{"error":null}', { name: 'QemuMonitorError', message: /QEMU of web1 refused query-status/ }],
  ]
  for (const [answer, error, value] of answers) {
    daemon.on(procedures.qemuMonitorCommand, call => call.reply(writer => writer.string(answer)))
    const asked = host.qemuMonitor(web1, { execute: 'query-status' })
    if (error === undefined) t.same(await asked, value)
    else await t.rejects(asked, { name: 'QemuMonitorError', ...error }, answer)
  }
})

const lifecycle = (daemon: FakeLibvirtd, domain: Domain, event: number, detail: number) =>
  daemon.message(318, writer => {
    decode.writeDomain(writer.i32(1), domain)
    writer.i32(event).i32(detail)
  })

t.test('events are registered once, delivered to every listener, and taken back with the last', async t => {
  const { daemon, host } = await setUp(t)
  daemon.on(procedures.eventRegister, call => call.reply(writer => writer.i32(5)))
  daemon.on(procedures.eventDeregister, call => {
    t.equal(call.arguments.i32(), 5)
    call.reply()
  })
  const seen: LifecycleEvent[] = []
  const off1 = host.on('lifecycle', event => void seen.push(event))
  const both = new Promise<void>(resolve => {
    const off2 = host.on('lifecycle', () => {
      off2()
      resolve()
    })
  })
  await host.eventsReady()
  t.equal(daemon.count(procedures.eventRegister), 1)
  daemon.broadcast(lifecycle(daemon, web1, 8, 0))
  await both
  t.match(seen, [{ domain: web1, event: 'crashed', detail: 'panicked' }])
  off1()
  await daemon.untilCalled(procedures.eventDeregister)
})

t.test('after a loss events are registered anew and the listener is told to read everything again', async t => {
  const { daemon, host } = await setUp(t)
  daemon.on(procedures.eventRegister, call => call.reply(writer => writer.i32(1)))
  const notices: string[] = []
  host.onNotice('down', () => notices.push('down'))
  const resync = new Promise<void>(resolve => host.onNotice('resync', () => resolve(void notices.push('resync'))))
  const seen = new Promise<LifecycleEvent>(resolve => host.on('lifecycle', resolve))
  await host.eventsReady()
  t.same(notices, [], 'the first registration is no resync')
  await daemon.stop()
  await daemon.listen()
  await resync
  t.equal(notices[0], 'down')
  t.equal(notices.at(-1), 'resync')
  t.equal(daemon.count(procedures.eventRegister), 2)
  daemon.broadcast(lifecycle(daemon, web2, 3, 2))
  t.match(await seen, { domain: web2, event: 'suspended', detail: 'I/O error' })
})

t.test('a listener that throws hurts nobody', async t => {
  const { daemon, host } = await setUp(t)
  daemon.on(procedures.eventRegister, call => call.reply(writer => writer.i32(1)))
  const problem = new Promise(resolve => host.onNotice('listenerError', resolve))
  host.on('lifecycle', () => {
    throw new Error('listener broke')
  })
  const seen = new Promise<LifecycleEvent>(resolve => host.on('lifecycle', resolve))
  await host.eventsReady()
  daemon.broadcast(lifecycle(daemon, web1, 2, 0))
  t.match(await problem, { message: 'listener broke' })
  t.match(await seen, { event: 'started', detail: 'booted' })
})

t.test('a malformed event ends the event connection, which is opened again', async t => {
  const { daemon, host } = await setUp(t)
  daemon.on(procedures.eventRegister, call => call.reply(writer => writer.i32(1)))
  const down = new Promise<Error>(resolve => host.onNotice('down', resolve))
  const resync = new Promise(resolve => host.onNotice('resync', resolve))
  host.on('lifecycle', () => undefined)
  await host.eventsReady()
  daemon.broadcast(daemon.message(318, writer => writer.i32(1).u32(0xffff_ffff)))
  t.match(await down, { kind: 'protocol', message: /event lifecycle is malformed/ })
  await resync
})

t.test('states are read while other statistics are', async t => {
  const { daemon, host } = await setUp(t)
  const others: FakeCall[] = []
  daemon.on(procedures.getAllDomainStats, call => {
    call.arguments.array(10, 24, decode.readDomain)
    const groups = call.arguments.u32()
    if (groups === 1) call.reply(writer => writer.array([], () => undefined))
    else others.push(call)
  })
  const bulk = host.domainStats({ groups: ['state', 'block'] })
  await daemon.untilCalled(procedures.getAllDomainStats)
  t.same((await host.domainStats({ groups: ['state'] })).guests, [])
  t.equal(others.length, 1, 'not answered yet')
  others[0]?.reply(writer => writer.array([], () => undefined))
  t.same((await bulk).guests, [])
})

t.test('a bulk call that hangs on one guest is left behind, and that guest is named', async t => {
  const { daemon, host } = await setUp(t)
  const askedMs = performance.now()
  let bulkCalls = 0
  daemon.on(procedures.getAllDomainStats, call => {
    t.same(call.arguments.array(10, 24, decode.readDomain), [])
    t.equal(call.arguments.u32(), 0b111111)
    t.equal(call.arguments.u32(), 2 ** 29, 'always NOWAIT')
    bulkCalls += 1
    if (bulkCalls === 1) return
    call.reply(writer =>
      writer.array([web1, web2], (to, domain) => {
        decode.writeDomain(to, domain)
        const rss = domain === web2 ? 1 : 0
        to.u32(1 + rss)
        to.string('balloon.current').i32(4).u64(1024)
        if (rss === 1) to.string('balloon.rss').i32(4).u64(2048)
      }),
    )
  })
  daemon.on(procedures.listAllDomains, call =>
    call.reply(writer => writer.array([web1, web2], decode.writeDomain).u32(2)),
  )
  daemon.on(procedures.domainGetControlInfo, call => {
    const stuck = guestOf(call) === 'web1'
    const silentMs = Math.round(performance.now() - askedMs)
    call.reply(writer =>
      writer
        .u32(stuck ? 2 : 0)
        .u32(0)
        .u64(stuck ? silentMs : 0),
    )
  })
  const sample = await host.domainStats()
  t.match(sample.notAnswering, [{ domain: web1 }])
  t.ok((sample.notAnswering[0]?.forMs ?? 0) >= 900, 'since when it has not answered')
  t.match(sample.guests, [
    { domain: web1, monitor: { kind: 'not answering' }, balloon: { balloonBytes: 1024 * 1024 } },
    { domain: web2, monitor: undefined, balloon: { rssBytes: 2048 * 1024 } },
  ])
  t.equal(bulkCalls, 2)
  await t.rejects(
    host.domainMemoryStats(web1),
    { name: 'LibvirtTimeoutError', guest: 'web1', notAsked: true },
    'nor is it asked by other calls',
  )
})

/** A daemon with two guests, one of which is skipped by the first calls, as when another program has its lock. */
async function busyAtFirst(t: Test, busyCalls: number, lockMs: number) {
  const { host, askedAbout } = await busyDaemon(t, busyCalls, lockMs)
  const sample = await host.domainStats({ groups: ['balloon'] })
  return { askedAbout, guests: sample.guests }
}

async function busyDaemon(t: Test, busyCalls: number, lockMs: number) {
  const { daemon, host } = await setUp(t)
  const askedAbout: string[][] = []
  daemon.on(procedures.getAllDomainStats, call => {
    const named = call.arguments.array(10, 24, decode.readDomain)
    askedAbout.push(named.map(({ name }) => name))
    const busy = askedAbout.length <= busyCalls
    call.reply(writer =>
      writer.array(named.length === 0 ? [web1, web2] : named, (to, domain) => {
        decode.writeDomain(to, domain)
        const rss = domain.name === 'web1' && busy ? 0 : 1
        to.u32(1 + rss)
        to.string('balloon.current').i32(4).u64(1024)
        if (rss === 1) to.string('balloon.rss').i32(4).u64(2048)
      }),
    )
  })
  daemon.on(procedures.domainGetControlInfo, call =>
    call.reply(writer =>
      writer
        .u32(lockMs > 0 ? 1 : 0)
        .u32(0)
        .u64(lockMs),
    ),
  )
  return { daemon, host, askedAbout }
}

t.test('a guest whose lock is taken for a moment is asked again, alone', async t => {
  const { askedAbout, guests } = await busyAtFirst(t, 2, 5)
  t.same(askedAbout, [[], ['web1'], ['web1']])
  t.match(guests, [
    { domain: web1, monitor: undefined, balloon: { rssBytes: 2048 * 1024 } },
    { domain: web2, monitor: undefined, balloon: { rssBytes: 2048 * 1024 } },
  ])
})

t.test('a program that has nothing else to do lives until the busy guest has been asked again', async t => {
  const { daemon, askedAbout } = await busyDaemon(t, 2, 5)
  const script = `import { Host } from ${JSON.stringify(new URL('../../libvirt/host.js', import.meta.url).href)}
    const { guests } = await Host.open(process.argv[1]).domainStats({ groups: ['balloon'] })
    console.log(guests[0].balloon.rssBytes)`
  const { stdout } = await run(process.execPath, ['--input-type=module', '-e', script, daemon.uri])
  t.equal(stdout, `${2048 * 1024}\n`)
  t.equal(askedAbout.length, 3)
})

t.test('asking again has an end, and the guest says what it is busy with', async t => {
  const { askedAbout, guests } = await busyAtFirst(t, 100, 5)
  t.equal(askedAbout.length, 8)
  t.match(guests, [
    { domain: web1, monitor: { kind: 'busy', forMs: 5 } },
    { domain: web2, monitor: undefined },
  ])
})

t.test('a guest that is found free and yet was busy whenever it was asked has as many chances', async t => {
  const { askedAbout, guests } = await busyAtFirst(t, 7, 0)
  t.equal(askedAbout.length, 8)
  t.match(guests, [{ domain: web1, monitor: undefined, balloon: { rssBytes: 2048 * 1024 } }, { domain: web2 }])
})

t.test('a guest with a job of some length is not asked again', async t => {
  const { askedAbout, guests } = await busyAtFirst(t, 100, 5000)
  t.equal(askedAbout.length, 1)
  t.match(guests, [{ domain: web1, monitor: { kind: 'busy', forMs: 5000 } }, { domain: web2 }])
})

t.test('a daemon that does not answer at all ends a bulk call at its deadline, with one call outstanding', async t => {
  const { daemon, host } = await setUp(t)
  await t.rejects(host.domainStats({ timeoutMs: 200 }), {
    name: 'LibvirtTimeoutError',
    procedure: 'CONNECT_GET_ALL_DOMAIN_STATS',
    guest: undefined,
  })
  t.equal(daemon.count(procedures.getAllDomainStats), 1)
})

t.test('a Host that was not closed does not keep the process', async t => {
  const { daemon, host } = await setUp(t)
  await host.domainState(web1)
  await host.domainMemoryStats(web1)
  await pause(0)
  const kinds = process.getActiveResourcesInfo()
  t.equal(kinds.filter(kind => kind === 'Timeout').length, 0, 'no timer of ours is left')
  t.equal(daemon.accepted, 2)
})

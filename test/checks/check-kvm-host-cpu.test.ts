import { connect } from 'node:net'
import t, { type Test } from 'tap'
import check, { type CpuSample } from '../../checks/check-kvm-host-cpu.js'
import { Host } from '../../libvirt/host.js'
import { procedures } from '../../libvirt/procedures.js'
import { statusOf } from '../../plugin/output.js'
import { checkContext, runExecutable } from '../support/checks.js'
import { FakeLibvirtd } from '../support/fake-libvirtd.js'
import { libvirtd } from '../support/services.js'

const name = 'check-kvm-host-cpu'

/** CPU time of which this percentage was in use, in nanoseconds of which 100 are one second. */
function times(used: number, iowait = 0) {
  return { userNs: used * 0.75, kernelNs: used * 0.25, idleNs: 100 - used - iowait, iowaitNs: iowait }
}

function judged(raw: Record<string, string>, change: Partial<CpuSample> = {}) {
  const sample: CpuSample = { seconds: 60, host: times(10), cores: [], ...change }
  const outcome = check.evaluate(sample, check.parseOptions(raw))
  return {
    status: statusOf(outcome),
    messages: outcome.findings
      .filter(({ status }) => status !== 'OK')
      .map(({ device, message }) => `${device ?? 'host'}: ${message}`),
    outcome,
  }
}

t.test('the share in use is judged at, below and above each limit', async t => {
  for (const [used, status] of [
    [0, 'OK'],
    [79.99, 'OK'],
    [80, 'OK'],
    [80.01, 'WARNING'],
    [90, 'WARNING'],
    [90.01, 'CRITICAL'],
    [100, 'CRITICAL'],
  ] as const) {
    t.equal(judged({}, { host: times(used) }).status, status, `${used} %`)
  }
  t.same(judged({}, { host: times(93.1) }).messages, ['host: CPU in use 93.1 % over 60 s (critical above 90 %)'])
  t.same(judged({ critical: '95' }, { host: times(93.1) }).messages, [
    'host: CPU in use 93.1 % over 60 s (warning above 80 %)',
  ])
})

t.test('waiting for I/O is not use, and judged only when asked', async t => {
  t.equal(judged({}, { host: times(10, 90) }).status, 'OK')
  const limits = { 'iowait-warning': '20', 'iowait-critical': '50' }
  for (const [iowait, status] of [
    [20, 'OK'],
    [20.5, 'WARNING'],
    [50, 'WARNING'],
    [50.5, 'CRITICAL'],
  ] as const) {
    t.equal(judged(limits, { host: times(10, iowait) }).status, status, `${iowait} %`)
  }
  t.same(judged(limits, { host: times(10, 30) }).messages, [
    'host: CPU waiting for I/O 30 % over 60 s (warning above 20 %)',
  ])
  t.same(
    judged(limits, { host: { userNs: 10, kernelNs: 0, idleNs: 90 } }).messages,
    ['host: CPU waiting for I/O is not known here: leave out --iowait-…'],
    'a host that does not report it',
  )
})

t.test('steal is judged only when asked, and unknown where it cannot be read', async t => {
  const limits = { 'steal-warning': '5', 'steal-critical': '10' }
  for (const [stealTicks, status] of [
    [50, 'OK'],
    [51, 'WARNING'],
    [100, 'WARNING'],
    [101, 'CRITICAL'],
  ] as const) {
    t.equal(judged(limits, { steal: { stealTicks, totalTicks: 1000 } }).status, status, `${stealTicks} of 1000`)
  }
  const unknown = judged(limits)
  t.equal(unknown.status, 'UNKNOWN')
  t.same(unknown.messages, ['host: CPU stolen is not known here: run the check on the hypervisor itself'])
  t.equal(
    judged({}).outcome.metrics.some(metric => metric.name === 'steal_percent'),
    false,
    'no number made up',
  )
})

t.test('one saturated CPU is named', async t => {
  const limits = { 'core-warning': '90', 'core-critical': '99' }
  const cores = [
    { cpu: 0, time: times(90) },
    { cpu: 1, time: times(90.5) },
    { cpu: 12, time: times(99.5) },
  ]
  const { status, messages, outcome } = judged(limits, { cores })
  t.equal(status, 'CRITICAL')
  t.same(messages, [
    'cpu1: in use 90.5 % over 60 s (warning above 90 %)',
    'cpu12: in use 99.5 % over 60 s (critical above 99 %)',
  ])
  t.match(outcome.metrics.at(-1), { name: 'core_used_percent', labels: { cpu: 'cpu12' }, value: 99.5 })
})

/** A daemon of a host with CPUs 0 and 2 (1 is offline) whose counters grow by ten seconds of CPU time with each reading. */
async function fakeHost(t: Test, openHost: (daemon: FakeLibvirtd) => Host = daemon => Host.open(daemon.uri)) {
  const daemon = await FakeLibvirtd.start()
  const host = openHost(daemon)
  t.teardown(async () => {
    await host.close()
    await daemon.remove()
  })
  const counters = { readings: 0 }
  daemon.on(procedures.nodeGetCpuStats, call => {
    const [cpu, asked] = [call.arguments.i32(), call.arguments.i32()]
    if (cpu === 1) return call.fail(8, 'Invalid cpuNum')
    if (asked === 0) return call.reply(writer => writer.u32(0).i32(4))
    if (cpu === -1) counters.readings += 1
    const seconds = Object.entries({ kernel: 1, user: 3, idle: 5, iowait: 1 })
    return call.reply(writer =>
      writer.array(seconds, (to, [field, each]) => to.string(field).u64(each * 1e9 * counters.readings)).i32(4),
    )
  })
  daemon.on(procedures.nodeGetInfo, call =>
    call.reply(writer => {
      for (let index = 0; index < 32; index += 1) writer.i32(0)
      writer.u64(1024)
      for (const value of [2, 2600, 1, 1, 3, 1]) writer.i32(value)
    }),
  )
  return { daemon, host, counters }
}

t.test('the first run measures, the next one compares with it in a single reading', async t => {
  const { daemon, host } = await fakeHost(t)
  const context = checkContext()
  const first = await check.collect(host, check.parseOptions({ sample: '20ms' }), context)
  t.match(first, { host: { userNs: 3e9, kernelNs: 1e9, idleNs: 5e9, iowaitNs: 1e9 }, cores: [] })
  t.ok(first.seconds >= 0.015 && first.seconds < 5, `measured for ${first.seconds} s`)
  t.equal(daemon.count(procedures.nodeGetCpuStats), 4, 'two readings of two calls')
  const later = { ...context, now: () => Date.now() + 60_000 }
  const second = await check.collect(host, check.parseOptions({ sample: '20ms' }), later)
  t.match(second, { host: { userNs: 3e9 } })
  t.equal(Math.round(second.seconds), 60)
  t.equal(daemon.count(procedures.nodeGetCpuStats), 6, 'one reading')
})

t.test('a comparison that is too old or too young, and counters that went back, are measured anew', async t => {
  const { daemon, host, counters } = await fakeHost(t)
  const clock = { nowMs: 1_000_000_000 }
  const context = checkContext({ now: () => (clock.nowMs += 10) })
  const options = check.parseOptions({ sample: '10ms' })
  const readingsOf = async () => {
    const before = daemon.count(procedures.nodeGetCpuStats)
    const sample = await check.collect(host, options, context)
    t.equal(sample.host['userNs'], 3e9)
    return (daemon.count(procedures.nodeGetCpuStats) - before) / 2
  }
  t.equal(await readingsOf(), 2, 'nothing kept')
  clock.nowMs += 899_000
  t.equal(await readingsOf(), 1, 'a quarter of an hour old')
  clock.nowMs += 901_000
  t.equal(await readingsOf(), 2, 'older')
  clock.nowMs -= 5
  t.equal(await readingsOf(), 2, 'younger than the sample')
  clock.nowMs -= 3_600_000
  t.equal(await readingsOf(), 2, 'the clock went back')
  counters.readings = 0
  clock.nowMs += 60_000
  t.equal(await readingsOf(), 2, 'the host was restarted')
})

t.test('single CPUs are read only when asked, and one that is offline is left out', async t => {
  const { daemon, host } = await fakeHost(t)
  const options = check.parseOptions({ sample: '10ms', 'core-critical': '99' })
  const { cores } = await check.collect(host, options, checkContext())
  t.same(
    cores.map(({ cpu }) => cpu),
    [0, 2],
  )
  t.equal(daemon.count(procedures.nodeGetInfo), 2)
})

t.test('steal is that of this machine, so it is not known of another one', async t => {
  const { host } = await fakeHost(t, daemon =>
    Host.open('qemu+tls://elsewhere.example/system', { connect: async () => connect(daemon.socketPath) }),
  )
  t.equal((await check.collect(host, check.parseOptions({ sample: '10ms' }), checkContext())).steal, undefined)
})

t.test('counters that stand still are an error, not 0 %', async t => {
  const { daemon, host } = await fakeHost(t)
  daemon.on(procedures.nodeGetCpuStats, call => {
    call.arguments.i32()
    const asked = call.arguments.i32()
    return call.reply(writer =>
      asked === 0 ? writer.u32(0).i32(1) : writer.array(['idle'], (to, field) => to.string(field).u64(5)).i32(1),
    )
  })
  await t.rejects(check.collect(host, check.parseOptions({ sample: '10ms' }), checkContext()), {
    message: /^the CPU counters of qemu:.* do not move forward/,
  })
})

t.test('a real host: shares of all time that passed', async t => {
  const { uri } = await libvirtd(t)
  const host = Host.open(uri, { readOnly: true })
  t.teardown(() => host.close())
  const options = check.parseOptions({ sample: '300ms', 'core-warning': '100', 'steal-critical': '100' })
  const sample = await check.collect(host, options, checkContext({ uri }))
  t.ok(sample.cores.length > 0)
  t.ok(sample.steal !== undefined && sample.steal.totalTicks > 0)
  const { metrics } = check.evaluate(sample, options)
  const value = (metric: string) => Number(metrics.find(found => found.name === metric)?.value)
  const used = value('used_percent')
  t.ok(used >= 0 && used <= 100, `${used} % in use`)
  t.ok(Math.abs(value('user_percent') + value('system_percent') - used) < 0.001)
})

t.test('the executable prints one line and its numbers', async t => {
  const { daemon } = await fakeHost(t)
  const args = ['--uri', daemon.uri, '--state-dir', t.testdir(), '--sample', '10ms']
  const { stdout, stderr, status } = await runExecutable(name, [...args, '-w', '30', '-c', '95'])
  t.same(
    {
      stdout: stdout.replaceAll(/steal_percent=[\d.]+%/g, 'steal_percent=0%').replace(/over [\d.]+ m?s/, 'over 10 ms'),
      stderr,
      status,
    },
    {
      stdout: `${name} WARNING: CPU in use 40 % over 10 ms (warning above 30 %)
| used_percent=40%;30;95;0;100 user_percent=30%;;;0;100 system_percent=10%;;;0;100 iowait_percent=10%;;;0;100 steal_percent=0%;;;0;100
`,
      stderr: '',
      status: 1,
    },
  )
  t.match(await runExecutable(name, args), {
    stdout: new RegExp(
      `^${name} OK: CPU 40 % in use \\(user 30 %, system 10 %\\), 10 % waiting for I/O, over [\\d.]+ m?s\n`,
    ),
    status: 0,
  })
})

t.test('the executable says what is wrong, in one line, with status 3', async t => {
  const { daemon } = await fakeHost(t)
  for (const [args, line] of [
    [['--warnin', '80'], 'unknown option --warnin: did you mean --warning?'],
    [['-w', '90:80'], '--warning 90:80: start is above end: a range runs from its lower to its upper bound'],
    [['-c', '80%'], '--critical 80%: not a range: write [@][start:][end], for example 80, 10:, ~:5 or @10:20'],
    [['--sample', 'soon'], '--sample soon: not a time: write 250ms, 30s, 5m, 2h or 1d (seconds without a unit)'],
    [['--guest', 'web1'], 'unknown option --guest: see --help'],
  ] as const) {
    const expected = { stdout: `${name} UNKNOWN: ${line}\n`, stderr: '', status: 3 }
    t.same(await runExecutable(name, ['--uri', daemon.uri, ...args]), expected, args.join(' '))
  }
  const still = await runExecutable(name, ['--uri', 'qemu:///system?socket=/nonexistent/sock'])
  t.match(still, { stdout: /^check-kvm-host-cpu UNKNOWN: .*no socket \/nonexistent\/sock.*\n$/, status: 3 })
})

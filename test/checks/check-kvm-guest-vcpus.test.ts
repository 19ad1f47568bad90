import t from 'tap'
import check, { type InnerVcpus, type VcpuAnswer } from '../../checks/check-kvm-guest-vcpus.js'
import { procedures } from '../../libvirt/procedures.js'
import { statusOf } from '../../plugin/output.js'
import { waitUntil } from '../../scripts/services/process.js'
import { checkContext, runExecutable } from '../support/checks.js'
import { type FakeGuest, fakeGuests, numberedGuests, writeParams } from '../support/fake-guests.js'
import { libvirtd, ownGuest } from '../support/services.js'

const name = 'check-kvm-guest-vcpus'

function guest(answer: Partial<VcpuAnswer>, change: Partial<InnerVcpus> = {}): InnerVcpus {
  const state = { state: 'running', reason: 'booted' }
  const value = { present: [0, 1, 2, 3], online: [0, 1, 2, 3], ...answer }
  const known = { watchedSeconds: 0, startSeen: false, answeredBefore: false }
  return { name: 'web1', uuid: 'u', state, answer: { kind: 'answered', value }, ...known, ...change }
}

function judged(guests: readonly InnerVcpus[], raw: Parameters<typeof check.parseOptions>[0] = {}) {
  const outcome = check.evaluate(guests, check.parseOptions(raw))
  const bad = outcome.findings.filter(({ status }) => status !== 'OK')
  return { status: statusOf(outcome), messages: bad.map(({ message }) => message), outcome, summary: outcome.summary }
}

t.test('a vCPU that is not online inside, or not seen there, is a WARNING', t => {
  t.match(judged([guest({}, { given: 4 })]), { status: 'OK', summary: '4 vCPUs online in guests' })
  t.same(judged([guest({ online: [0, 1] }, { given: 4 })]).messages, [
    'vCPUs offline inside: 2 of 4 (number 2, 3: write 1 to /sys/devices/system/cpu/cpu2/online in it) (warning above 0)',
  ])
  t.same(judged([guest({}, { given: 6 })]).messages, [
    'vCPUs offline inside: 2 of 6 (2 unknown to its system: see its kernel log) (warning above 0)',
  ])
  t.equal(judged([guest({}, { given: 2 })]).status, 'OK', 'not yet taken away inside')
  t.equal(judged([guest({ online: [0] })], { 'offline-warning': '2', 'offline-critical': '3' }).status, 'WARNING')
  t.equal(judged([guest({ online: [0] })], { 'offline-critical': '2' }).status, 'CRITICAL')
  const present = Array.from({ length: 64 }, (_, index) => index)
  t.match(judged([guest({ present, online: [0] })]).messages, [/number 1, 2, 3, 4, 5, 6, 7, 8, …: write 1 to/])
  t.end()
})

t.test('the run queue above the vCPUs online is judged at, below and above each limit, where it is known', t => {
  for (const [load1m, status] of [
    [0, 'OK'],
    [14, 'OK'],
    [14.1, 'WARNING'],
    [24, 'WARNING'],
    [24.1, 'CRITICAL'],
  ] as const) {
    t.equal(judged([guest({ load1m })]).status, status, `load ${load1m}`)
  }
  const { messages, outcome, summary } = judged([guest({ load1m: 30 }), guest({})])
  t.same(messages, ['run queue above its vCPUs 26 (load 30, 4 online) (critical above 20)'])
  t.same(
    outcome.metrics.map(metric => [metric.name, metric.value]),
    [
      ['offline', 0],
      ['excess_load', 26],
      ['load', 30],
      ['offline', 0],
    ],
  )
  t.equal(summary, '8 vCPUs online in guests; run queue known of 1')
  t.end()
})

t.test('CPU times are shares of the time since the last run', t => {
  const growth = { seconds: 10, grown: { usedMs: 2000, idleMs: 7000, iowaitMs: 600, stealMs: 400 } }
  const { outcome } = judged([guest({}, { growth })])
  t.same(
    outcome.metrics.slice(1).map(metric => [metric.name, metric.value, metric.unit]),
    [
      ['cpu_used_percent', 20, '%'],
      ['cpu_iowait_percent', 6, '%'],
      ['cpu_steal_percent', 4, '%'],
    ],
  )
  t.end()
})

const vcpus: FakeGuest['answer'] = (procedure, call) =>
  procedure === 'DOMAIN_GET_GUEST_VCPUS'
    ? call.reply(writer => writeParams(writer, { vcpus: '0-3,8', online: '0-1,3', offlinable: '1-3' }))
    : call.reply(writer => writeParams(writer, { 'load.1m': 5.5, 'load.5m': 2.25, 'load.15m': 1.5 }))

async function collected(answer: FakeGuest['answer'], libvirt: number, raw: object, agent?: FakeGuest['agent']) {
  const guests = numberedGuests(1, () => ({
    params: { 'vcpu.current': 6 },
    ...(answer === undefined ? {} : { answer }),
    ...(agent === undefined ? {} : { agent }),
  }))
  const { host, asked, daemon } = await fakeGuests(t, guests)
  daemon.on(procedures.getLibVersion, call => call.reply(writer => writer.u64(libvirt)))
  const context = checkContext()
  const collect = () => check.collect(host, check.parseOptions({ ...raw }), context)
  const [sample] = await collect()
  return { sample, calls: asked().slice(1), collect }
}

t.test("vCPUs come from libvirt's own call, so does the load where libvirt has one", async t => {
  const seen = { present: [0, 1, 2, 3, 8], online: [0, 1, 3] }
  const old = await collected(vcpus, 9_000_000, {})
  t.match(old.sample, { given: 6, answer: { value: { ...seen, load1m: undefined } } })
  t.same(old.calls, ['DOMAIN_GET_GUEST_VCPUS'])
  const current = await collected(vcpus, 11_002_000, {})
  t.match(current.sample?.answer, { value: { ...seen, load1m: 5.5 } })
  t.same(current.calls, ['DOMAIN_GET_GUEST_VCPUS', 'DOMAIN_GET_GUEST_INFO'])
  const withoutLoad: FakeGuest['answer'] = (procedure, call) =>
    procedure === 'DOMAIN_GET_GUEST_VCPUS'
      ? vcpus?.(procedure, call)
      : call.fail(1, 'guest-get-load has not been found')
  t.match((await collected(withoutLoad, 12_000_000, {})).sample?.answer, { value: { ...seen, load1m: undefined } })
})

t.test('load and CPU times are passed through on request; agents that do not know them are quiet', async t => {
  let times = 0
  const agent: FakeGuest['agent'] = command => {
    if (command === 'guest-get-load') return { load1m: 7.5, load5m: 1, load15m: 1 }
    times += 1
    const cpu = {
      type: 'linux',
      user: 1 * times,
      nice: 0,
      system: 1 * times,
      idle: 10 * times,
      iowait: 4 * times,
      steal: 0,
    }
    return [{ ...cpu, cpu: 0 }, { ...cpu, cpu: 1 }, null, { idle: 'x' }]
  }
  const { sample, calls, collect } = await collected(vcpus, 9_000_000, { passthrough: true }, agent)
  t.match(sample, { growth: undefined, answer: { value: { load1m: 7.5, cpuTimes: { usedMs: 4, idleMs: 20 } } } })
  t.same(calls, ['DOMAIN_GET_GUEST_VCPUS', 'QEMU_AGENT_COMMAND', 'QEMU_AGENT_COMMAND'])
  const [again] = await collect()
  t.match(again?.growth, { grown: { usedMs: 4, idleMs: 20, iowaitMs: 8, stealMs: 0 } })
  const refuse: FakeGuest['agent'] = (_, call) => call.fail(1, 'not found')
  const quiet = await collected(vcpus, 9_000_000, { passthrough: true }, refuse)
  t.match(quiet.sample?.answer, { kind: 'answered', value: { load1m: undefined, cpuTimes: undefined } })
  const silent: FakeGuest['agent'] = (_, call) => call.fail(86, 'not connected')
  t.match((await collected(vcpus, 9_000_000, { passthrough: true }, silent)).sample?.answer, { kind: 'not running' })
})

t.test('a real guest to which a vCPU is added, and which brings it online', async t => {
  const daemon = await libvirtd(t)
  const guest = await ownGuest(t, daemon, { name: 'vcpus1' })
  const state = t.testdir()
  const run = (...args: string[]) =>
    runExecutable(name, ['--uri', daemon.uri, '--state-dir', state, '--guest', 'vcpus1', ...args])
  t.same(await run(), {
    stdout: `${name} OK: 1 vCPU online in guests\n| vcpus1.offline=0;0;;0\n`,
    stderr: '',
    status: 0,
  })
  t.equal((await run('--passthrough')).status, 0)
  t.match(await run('--passthrough'), {
    stdout:
      /^check-kvm-guest-vcpus OK: 1 vCPU online in guests\n\| vcpus1\.offline=0;0;;0 vcpus1\.cpu_used_percent=[\d.]+% vcpus1\.cpu_iowait_percent=[\d.]+% vcpus1\.cpu_steal_percent=[\d.]+%\n$/,
    status: 0,
  })
  await daemon.virsh('setvcpus', 'vcpus1', '2', '--live')
  const added = await waitUntil(
    'its system sees the new vCPU',
    async () => {
      const result = await run()
      return result.stdout.includes('number 1') ? result : undefined
    },
    { timeoutMs: 30_000 },
  )
  t.match(added, {
    stdout: `${name} WARNING: vcpus1: vCPUs offline inside: 1 of 2 (number 1: write 1 to /sys/devices/system/cpu/cpu1/online in it) (warning above 0)\n`,
    status: 1,
  })
  await guest.execute('echo 1 > /sys/devices/system/cpu/cpu1/online')
  t.match(await run(), { stdout: `${name} OK: 2 vCPUs online in guests\n`, status: 0 })
})

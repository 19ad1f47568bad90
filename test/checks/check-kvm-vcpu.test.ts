import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import check, { type GuestVcpus, type VcpuSample } from '../../checks/check-kvm-vcpu.js'
import { statusOf } from '../../plugin/output.js'
import { readSchedstats } from '../../plugin/schedstats.js'
import { checkContext, runExecutable } from '../support/checks.js'
import { type FakeGuest, fakeGuests, numberedGuests } from '../support/fake-guests.js'
import { guest as healthyGuest, libvirtd } from '../support/services.js'

const name = 'check-kvm-vcpu'

interface Work {
  usedPercent?: number
  /** Percent of the time, by vCPU. */
  steal?: readonly number[]
  wait?: readonly number[]
}

/** A guest whose vCPUs did this in ten seconds. */
function guest(work: Work = {}, change: Partial<GuestVcpus> = {}): GuestVcpus {
  const { steal = [0, 0], usedPercent = 0, wait = steal.map(() => 0) } = work
  const nanoseconds = (percent: number) => percent * 1e8
  const waits = steal.flatMap((percent, number) => [
    [`delay.${number}`, nanoseconds(percent)] as const,
    [`wait.${number}`, nanoseconds(wait[number] ?? 0)] as const,
  ])
  const cpu = nanoseconds(usedPercent * steal.length)
  return {
    ...{ name: 'web1', uuid: 'u', id: 1, running: true, current: steal.length, maximum: steal.length },
    vcpus: steal.map((_, number) => ({ number, state: 'running', delayNs: 5e9, waitNs: 1 })),
    cpuTimeNs: 60e9,
    growth: { seconds: 10, grown: { cpu, ...Object.fromEntries(waits) } },
    ...change,
  }
}

function judged(
  guests: readonly GuestVcpus[],
  raw: Parameters<typeof check.parseOptions>[0] = {},
  where: NonNullable<VcpuSample['schedstats']> | 'elsewhere' = 'on',
) {
  const schedstats = where === 'elsewhere' ? undefined : where
  const outcome = check.evaluate({ guests, schedstats }, check.parseOptions(raw))
  const bad = outcome.findings.filter(({ status }) => status !== 'OK')
  const metrics = Object.fromEntries(outcome.metrics.map(metric => [metric.name, metric.value]))
  return { status: statusOf(outcome), messages: bad.map(({ message }) => message), outcome, metrics }
}

t.test('CPU use, steal, wait and offline vCPUs are judged at, below and above each limit', t => {
  const table: [work: Work, status: string][] = [
    [{ usedPercent: 0 }, 'OK'],
    [{ usedPercent: 90 }, 'OK'],
    [{ usedPercent: 90.1 }, 'WARNING'],
    [{ usedPercent: 97.9 }, 'WARNING'],
    [{ usedPercent: 98.1 }, 'CRITICAL'],
    [{ usedPercent: 130 }, 'CRITICAL'],
    [{ steal: [10, 10] }, 'OK'],
    [{ steal: [0, 20.2] }, 'WARNING'],
    [{ steal: [20, 20] }, 'WARNING'],
    [{ steal: [20.1, 20.1] }, 'CRITICAL'],
    [{ wait: [90, 90] }, 'OK'],
  ]
  for (const [work, status] of table) t.equal(judged([guest(work)]).status, status, JSON.stringify(work))
  const waiting = [guest({ wait: [30, 40] })]
  t.equal(judged(waiting, { 'wait-warning': '34' }).status, 'WARNING')
  t.equal(judged(waiting, { 'wait-critical': '34' }).status, 'CRITICAL')
  t.equal(judged(waiting).metrics['wait_percent'], 35)
  t.equal(judged([guest({ usedPercent: 5 })], { warning: '10:' }).status, 'WARNING', 'an idle guest, when asked for')
  t.equal(judged([guest({ usedPercent: 95 }, { limits: { warning: '99' } })]).status, 'OK', 'own limits win')
  t.end()
})

t.test('the line names the number, its limit, and of steal the worst vCPU', t => {
  t.same(judged([guest({ usedPercent: 97, steal: [2, 44] })]).messages, [
    'CPU use 97 % of its 2 vCPUs over 10 s (warning above 90 %)',
    'steal 23 % over 10 s, most 44 % of vCPU 1 (critical above 20 %)',
  ])
  t.same(judged([guest({ usedPercent: 99, steal: [12] })]).messages, [
    'CPU use 99 % of its vCPU over 10 s (critical above 98 %)',
    'steal 12 % over 10 s (warning above 10 %)',
  ])
  t.end()
})

t.test('an offline vCPU is a WARNING; one the guest has not been given only when asked for', t => {
  const offline = guest({}, { current: 3, maximum: 8 })
  t.same(judged([offline]).messages, ['vCPUs offline: 1 of 3 (warning above 0)'])
  t.equal(judged([guest({}, { maximum: 8 })]).status, 'OK')
  t.same(judged([guest({}, { maximum: 8 })], { 'expect-vcpus': 'maximum' }).messages, [
    'vCPUs offline: 6 of 8 (warning above 0)',
  ])
  t.equal(judged([offline], { 'offline-critical': '0' }).status, 'CRITICAL')
  t.equal(judged([offline], { 'offline-warning': '1' }).status, 'OK')
  const one = { number: 0, state: 'running', delayNs: 1 } as const
  const threadless = guest({ steal: [0, 0] }, { vcpus: [one, { number: 1, state: 'offline' }] })
  t.same(judged([threadless]).messages, ['vCPUs offline: 1 of 2 (warning above 0)'])
  t.equal(judged([guest({}, { current: undefined, maximum: undefined })]).status, 'OK', 'not told, so not judged')
  t.equal(
    judged([
      guest(
        {},
        {
          vcpus: [
            { ...one, halted: true },
            { ...one, number: 1, halted: false },
          ],
        },
      ),
    ]).metrics['halted'],
    1,
  )
  t.end()
})

t.test('what is not counted is said and never judged as 0', t => {
  const idle = guest({}, { vcpus: [{ number: 0, state: 'running', delayNs: 0, waitNs: 0 }], current: 1 })
  for (const [schedstats, why] of [
    ['off', 'kernel.sched_schedstats=0'],
    ['absent', 'its kernel has no kernel.sched_schedstats'],
    ['elsewhere', 'it is 0 for all guests'],
  ] as const) {
    const { outcome, metrics } = judged([idle], {}, schedstats)
    t.equal(
      outcome.summary,
      `highest CPU use 0 % (web1, of 1 running); steal is not counted for 1; wait is not counted (${why})`,
    )
    t.same([statusOf(outcome), metrics['steal_percent'], 'wait_percent' in metrics], ['OK', undefined, false])
    t.same(judged([idle], { 'wait-warning': '10' }, schedstats).messages, [
      `wait is not counted (${why}): sysctl kernel.sched_schedstats=1 on the hypervisor, or leave out --wait-…`,
    ])
  }
  t.equal(judged([guest({ wait: [50, 50] })], { 'wait-warning': '10' }, 'off').status, 'UNKNOWN', 'left from before')
  t.equal(judged([guest()], { 'wait-warning': '10' }, 'elsewhere').status, 'OK', 'counted on the other machine')
  t.same(judged([guest({}, { cpuTimeNs: undefined, growth: undefined })]).messages, [
    'libvirt does not tell its CPU time (cpu.time): is the cpuacct controller missing on its host?',
  ])
  t.end()
})

t.test('the summary: the highest of all, who does not run, who is new', t => {
  const off = guest({}, { running: false, growth: undefined })
  const fresh = guest({}, { name: 'web3', growth: undefined })
  const guests = [guest({ usedPercent: 10, steal: [1, 1] }), guest({ usedPercent: 5, steal: [3, 1] }, { name: 'web2' })]
  t.equal(
    judged([...guests, off, fresh]).outcome.summary,
    'highest CPU use 10 % (web1, of 3 running); highest steal 2 % (web2); 1 not running; collecting 1 new',
  )
  t.equal(judged([fresh]).outcome.summary, '1 running; collecting: known from the next run on')
  t.equal(judged([off]).outcome.summary, 'no running guest to judge; 1 not running')
  t.equal(judged([]).outcome.summary, 'no running guest to judge')
  t.end()
})

t.test('whether the kernel counts waiting is read from its sysctl', async t => {
  const file = join(t.testdir(), 'sched_schedstats')
  t.equal(await readSchedstats(file), 'absent')
  for (const [text, found] of [
    ['0\n', 'off'],
    ['1\n', 'on'],
  ] as const) {
    writeFileSync(file, text)
    t.equal(await readSchedstats(file), found)
  }
})

/** Two vCPUs after so many seconds, of which each worked half and waited a tenth. */
function params(seconds: number, vcpus = 2): FakeGuest['params'] {
  const each = Array.from({ length: vcpus }, (_, number) => ({
    [`vcpu.${number}.state`]: 1,
    [`vcpu.${number}.time`]: seconds * 5e8,
    [`vcpu.${number}.wait`]: 0,
    [`vcpu.${number}.delay`]: seconds * 1e8,
  }))
  return Object.assign({ 'cpu.time': seconds * vcpus * 5e8, 'vcpu.current': vcpus, 'vcpu.maximum': 4 }, ...each)
}

t.test('one call for any number of guests; a reset, a migration and a new vCPU skip one sample', async t => {
  const guests = numberedGuests(300, () => ({ params: params(1000) }))
  const { host, asked } = await fakeGuests(t, guests)
  const context = checkContext()
  const grown = async () => {
    const sample = await check.collect(host, check.parseOptions(), context)
    return sample.guests.map(({ growth }) => growth?.grown['delay.1'])
  }
  t.ok((await grown()).every(delay => delay === undefined))
  for (const guest of guests) guest.params = params(1010)
  t.ok((await grown()).every(delay => delay === 1e9))
  t.same(asked(), ['CONNECT_GET_ALL_DOMAIN_STATS', 'CONNECT_GET_ALL_DOMAIN_STATS'])
  guests.splice(4)
  const [reset, moved, grownUp, paused] = guests
  Object.assign(reset ?? {}, { params: params(3) })
  Object.assign(moved ?? {}, { id: 999, params: params(2000) })
  Object.assign(grownUp ?? {}, { params: params(1020, 3) })
  Object.assign(paused ?? {}, { params: params(1020), state: [3, 1] })
  t.same(await grown(), [undefined, undefined, undefined, undefined])
  Object.assign(reset ?? {}, { params: params(4) })
  Object.assign(moved ?? {}, { params: params(2001) })
  Object.assign(grownUp ?? {}, { params: params(1021, 3) })
  Object.assign(paused ?? {}, { params: params(1021), state: [1, 1] })
  t.same(await grown(), [1e8, 1e8, 1e8, 11e8], 'paused for one run, so since the one before')
})

t.test("a real guest's vCPU is busy when it is made to work", async t => {
  const daemon = await libvirtd(t)
  const { guest } = await healthyGuest(t)
  const args = ['--uri', daemon.readOnlyUri ?? daemon.uri, '--state-dir', t.testdir(), '--guest', guest.name]
  const run = () =>
    runExecutable(name, [...args, '-w', '0', '-c', '~:', '--steal-warning', '~:', '--steal-critical', '~:'])
  const first = await run()
  t.match(
    first.stdout,
    /^check-kvm-vcpu OK: 1 running; (wait is not counted \([^)]+\); )?collecting: known from the next run on\n/,
  )
  t.equal(first.status, 0)
  await guest.execute('timeout 3 sh -c "while :; do :; done"')
  const busy = await run()
  t.match(
    busy.stdout,
    /^check-kvm-vcpu WARNING: healthy: CPU use [\d.]+ % of its vCPU over [\d.]+ s \(warning above 0 %\)\n/,
  )
  t.equal(busy.status, 1)
  const [, used, steal] = /used_percent=([\d.]+)%;0;;0 healthy\.steal_percent=([\d.]+)%;/.exec(busy.stdout) ?? []
  // Whatever else this machine does: a vCPU that has work runs, or waits for a CPU.
  t.ok(Number(used) + Number(steal) > 30, `${used} % used, ${steal} % steal`)
})

t.test('the executable prints exactly this', async t => {
  const { daemon } = await fakeGuests(
    t,
    numberedGuests(1, () => ({ params: { ...params(1000), 'vcpu.current': 3 } })),
  )
  const run = (...args: string[]) => runExecutable(name, ['--uri', daemon.uri, '--state-dir', t.testdir(), ...args])
  t.same(await run(), {
    stdout: `${name} WARNING: web1: vCPUs offline: 1 of 3 (warning above 0)
WARNING web1: vCPUs offline: 1 of 3 (warning above 0)
| web1.offline=1;0;;0;3
`,
    stderr: '',
    status: 1,
  })
  t.same(await run('--expect-vcpus', 'all'), {
    stdout: `${name} UNKNOWN: --expect-vcpus all: not one of current, maximum\n`,
    stderr: '',
    status: 3,
  })
})

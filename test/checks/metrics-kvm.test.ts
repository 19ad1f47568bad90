import t from 'tap'
import { InProcessChecks } from '../../agent/in-process.js'
import { SharedHosts } from '../../agent/shared-hosts.js'
import check, { fields, type GuestNumbers, type KvmSample } from '../../checks/metrics-kvm.js'
import { programs } from '../../generated/programs.js'
import { procedures } from '../../libvirt/procedures.js'
import type { ParamValue } from '../../libvirt/records.js'
import { sampleConfiguration } from '../../scripts/docs.js'
import { projectDirectory } from '../../scripts/services/process.js'
import { checkContext, runExecutable } from '../support/checks.js'
import { fakeGuests, numberedGuests } from '../support/fake-guests.js'
import { guest } from '../support/services.js'

const nothing: KvmSample = { guests: [], cpu: undefined, memory: undefined, node: undefined }

function numbers(params: Record<string, ParamValue>, change: Partial<GuestNumbers> = {}) {
  const own = { name: 'web1', uuid: 'u', id: 1, silentSeconds: 0, params: new Map(Object.entries(params)), ...change }
  const { metrics } = check.evaluate({ ...nothing, guests: [own] }, check.parseOptions())
  return metrics
    .filter(({ name }) => name !== 'host_guests' && name !== 'silent_time')
    .map(({ name, value, unit, labels = {} }) => [name, value, unit, Object.values(labels).join(' ')])
}

t.test("libvirt's parameters become numbers with names, units and devices that stay", async t => {
  for (const [own, value, expected] of [
    ['state.state', 3, ['state', 3, '', 'web1']],
    ['cpu.time', 1_500_000_000, ['cpu_seconds', 1.5, 'c', 'web1']],
    ['balloon.rss', 1024, ['memory_resident', 1_048_576, 'B', 'web1']],
    ['balloon.swap_in', 2, ['memory_swap_in_bytes', 2048, 'c', 'web1']],
    ['balloon.major_fault', 2n ** 60n - 1n, ['memory_major_faults', 2n ** 60n - 1n, 'c', 'web1']],
    ['vcpu.11.delay', 2_000_000, ['vcpu_delay_seconds', 0.002, 'c', 'web1 vcpu11']],
    ['vcpu.0.halted', true, ['vcpu_halted', 1, '', 'web1 vcpu0']],
    ['net.1.rx.pkts', 7, ['interface_received_packets', 7, 'c', 'web1 net1']],
    ['net.1.tx.drop', 7, ['interface_sent_drops', 7, 'c', 'web1 net1']],
    ['block.0.wr.times', 1_000_000, ['disk_write_seconds', 0.001, 'c', 'web1 0']],
    ['block.0.rd.bytes', 2n ** 63n, ['disk_read_bytes', 2n ** 63n, 'c', 'web1 0']],
    ['iothread.count', 2, ['iothreads', 2, '', 'web1']],
    ['iothread.1.poll-max-ns', 32_768, ['iothread_1_poll_max_seconds', 0.000032768, '', 'web1']],
    ['dirtyrate.megabytes_per_second', 3, ['dirtyrate_bytes_per_second', 3_145_728, '', 'web1']],
    ['vcpu.0.halt_wait_ns.sum', 1e9, ['vcpu_halt_wait_seconds_sum', 1, '', 'web1 vcpu0']],
    ['perf.cache_misses', 5, ['perf_cache_misses', 5, '', 'web1']],
    ['constructor', 5, ['constructor', 5, '', 'web1']],
  ] as const) {
    const [found] = numbers({ [own]: value })
    t.match(found?.slice(0, 1), [expected[0]], own)
    t.same(found?.slice(2), expected.slice(2), own)
    t.ok(Math.abs(Number(found?.[1]) - Number(expected[1])) <= 1e-15 * Math.abs(Number(expected[1])), own)
  }
})

t.test('no number is made up: not supplied, texts and positions are left out', async t => {
  const none = { 'balloon.unused': 2n ** 64n - 1n, 'dirtyrate.calc_mode': 'page-sampling', 'block.0.backingIndex': 1 }
  t.same(numbers(none), [])
  const disks = numbers({ 'block.0.name': 'vda', 'block.0.fl.reqs': 1, 'block.1.name': 'sd b', 'block.1.errors': 0 })
  t.same(disks, [
    ['disk_flush_requests', 1, 'c', 'web1 vda'],
    ['disk_errors', 0, 'c', 'web1 sd b'],
  ])
})

t.test('names are in snake case and each belongs to one parameter', async t => {
  const names = Object.values(fields).map(({ name }) => name)
  for (const name of names) t.match(name, /^[a-z][a-z0-9_]*$/)
  t.equal(new Set(names).size, names.length)
})

t.test('a guest that does not answer says for how long, one that does not run says nothing of that', async t => {
  const one = (change: Partial<GuestNumbers>) => {
    const own = { name: 'web1', uuid: 'u', id: 1, silentSeconds: 0, params: new Map(), ...change }
    const { metrics, findings } = check.evaluate({ ...nothing, guests: [own] }, check.parseOptions())
    t.same(findings, [], 'nothing is judged')
    return metrics.find(({ name }) => name === 'silent_time')?.value
  }
  t.equal(one({}), 0)
  t.equal(one({ silentSeconds: 42 }), 42)
  t.equal(one({ silentSeconds: undefined }), undefined)
})

t.test('one bulk call with all groups; what the driver does not tell of the host is left out', async t => {
  const { daemon, host, asked } = await fakeGuests(
    t,
    numberedGuests(3, () => ({ params: { 'cpu.time': 5 } })),
  )
  for (const procedure of [procedures.nodeGetCpuStats, procedures.nodeGetMemoryStats, procedures.nodeGetInfo]) {
    daemon.on(procedure, call => call.fail(3, 'not supported by this driver'))
  }
  const sample = await check.collect(host, check.parseOptions(), checkContext())
  t.same(asked(), ['CONNECT_GET_ALL_DOMAIN_STATS'])
  t.match(sample, { cpu: undefined, memory: undefined, node: undefined })
  t.same(check.evaluate(sample, check.parseOptions()).summary, '13 numbers of the host and 3 guests')
  daemon.on(procedures.nodeGetInfo, call => call.fail(1, 'broken'))
  await t.rejects(check.collect(host, check.parseOptions(), checkContext()), { message: /broken/ })
})

t.test('a real guest: the same numbers in every format, Graphite unless asked otherwise', async t => {
  const { libvirtd: daemon, guest: real } = await guest(t)
  const uri = daemon.readOnlyUri ?? daemon.uri
  const run = (...args: string[]) =>
    runExecutable('metrics-kvm', ['--uri', uri, '--guest', real.name, '--scheme', 'h', ...args])
  const plain = await run()
  t.equal(plain.status, 0)
  const paths = plain.stdout
    .trimEnd()
    .split('\n')
    .map(line => line.split(' ')[0])
  t.match(plain.stdout, /^(h\.metrics_kvm\.[\w.]+ -?\d+(\.\d+)? \d{10}\n)+$/)
  for (const path of [
    'host_cpu_idle_seconds',
    'host_memory',
    'healthy.cpu_seconds',
    'healthy.vda.disk_capacity',
    'healthy.vcpu0.vcpu_delay_seconds',
    'healthy.memory_usable',
    'healthy.silent_time',
  ]) {
    t.ok(paths.includes(`h.metrics_kvm.${path.replace('healthy', real.name)}`), path)
  }
  t.match(
    (await run('--format', 'prometheus')).stdout,
    new RegExp(`^metrics_kvm_disk_capacity_bytes{guest="${real.name}",disk="vda"} \\d+$`, 'm'),
  )
  const { metrics } = JSON.parse((await run('--format', 'json')).stdout)
  t.equal(metrics.length, paths.length)
  t.match(
    (await run('--format', 'nagios')).stdout,
    new RegExp(`^metrics-kvm OK: ${paths.length} numbers of the host and 1 guest\\n\\| `),
  )
})

t.test('it is run inside the agent, and its sample configuration is that of a metric check', async t => {
  const hosts = new SharedHosts()
  t.teardown(() => hosts.close())
  const known = new Map(programs.map(program => [program.check.name, program]))
  const checks = new InProcessChecks({
    programs: known,
    directory: `${projectDirectory()}/dist/bin`,
    hosts,
    variables: {},
  })
  t.equal(checks.resolve('metrics-kvm --format influxdb')?.program.check.name, 'metrics-kvm')
  t.match(JSON.parse(sampleConfiguration(check)), {
    checks: { 'metrics-kvm': { type: 'metric', command: 'metrics-kvm', handlers: ['graphite'] } },
  })
})

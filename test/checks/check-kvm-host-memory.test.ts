import t, { type Test } from 'tap'
import check, { type MemorySample, type NodeSample } from '../../checks/check-kvm-host-memory.js'
import { Host } from '../../libvirt/host.js'
import { procedures } from '../../libvirt/procedures.js'
import { statusOf } from '../../plugin/output.js'
import { checkContext, runExecutable } from '../support/checks.js'
import { FakeLibvirtd } from '../support/fake-libvirtd.js'
import { libvirtd } from '../support/services.js'

const name = 'check-kvm-host-memory'
const gib = 1024 ** 3

/** A host with 100 GiB of which this many are in use, and 20 GiB are buffers and cache. */
function memory(usedGib: number): MemorySample['memory'] {
  const cache = Math.min(20, 100 - usedGib)
  return {
    totalBytes: 100 * gib,
    freeBytes: (100 - usedGib - cache) * gib,
    buffersBytes: 0.25 * cache * gib,
    cachedBytes: 0.75 * cache * gib,
  }
}

function judged(raw: Record<string, string>, change: Partial<MemorySample> = {}) {
  const outcome = check.evaluate({ memory: memory(10), nodes: [], ...change }, check.parseOptions(raw))
  const bad = outcome.findings.filter(({ status }) => status !== 'OK')
  return {
    status: statusOf(outcome),
    messages: bad.map(({ device, message }) => `${device ?? 'host'}: ${message}`),
    outcome,
  }
}

t.test('the share in use is judged at, below and above each limit; cache counts as free', t => {
  for (const [used, status] of [
    [0, 'OK'],
    [79.9, 'OK'],
    [80, 'OK'],
    [80.1, 'WARNING'],
    [90, 'WARNING'],
    [90.1, 'CRITICAL'],
    [100, 'CRITICAL'],
  ] as const) {
    t.equal(judged({}, { memory: memory(used) }).status, status, `${used} %`)
  }
  t.same(judged({}, { memory: memory(93.5) }).messages, ['host: memory in use 93.5 % of 100 GiB (critical above 90 %)'])
  t.equal(judged({}).outcome.summary, 'memory 10 % in use (10 GiB of 100 GiB, cache counted as free)')
  t.end()
})

t.test('what is not told is not made up', t => {
  const { messages, outcome } = judged({}, { memory: { totalBytes: 4 * gib, freeBytes: gib } })
  t.same(messages, [])
  t.same(
    outcome.metrics.map(metric => metric.name),
    ['used_percent', 'total', 'used', 'free'],
  )
  t.throws(() => judged({}, { memory: { totalBytes: 4 * gib } }), { message: /does not tell how much memory/ })
  t.throws(() => judged({}, { memory: { totalBytes: 0, freeBytes: 0 } }), { message: /does not tell how much memory/ })
  t.end()
})

function node(number: number, freeGib: number, hugepages: NodeSample['hugepages'] = []): NodeSample {
  return { node: number, totalBytes: 50 * gib, freeBytes: freeGib * gib, hugepages }
}

t.test('a NUMA node nearly out of memory is named while the host has enough', t => {
  const limits = { 'node-free-warning': '5:', 'node-free-critical': '2:' }
  for (const [freeGib, status] of [
    [2.5, 'OK'],
    [2.45, 'WARNING'],
    [1, 'WARNING'],
    [0.95, 'CRITICAL'],
  ] as const) {
    t.equal(judged(limits, { nodes: [node(0, 40), node(1, freeGib)] }).status, status, `${freeGib} of 50 GiB`)
  }
  t.same(judged(limits, { nodes: [node(0, 40), node(1, 0.5)] }).messages, [
    'node1: free 1 % of 50 GiB (critical below 2 %)',
  ])
  t.equal(judged({}, { nodes: [node(0, 0)] }).status, 'OK', 'only when asked')
  t.end()
})

t.test('exhausted huge pages are named by node and size', t => {
  const limits = { 'hugepages-warning': '90', 'hugepages-critical': '@100:100' }
  const pages = (free: number) => [{ sizeBytes: 2 * 1024 ** 2, total: 1000, free }]
  for (const [free, status] of [
    [100, 'OK'],
    [99, 'WARNING'],
    [1, 'WARNING'],
    [0, 'CRITICAL'],
  ] as const) {
    t.equal(judged(limits, { nodes: [node(0, 40, pages(free))] }).status, status, `${free} of 1000 free`)
  }
  const { messages, outcome } = judged(limits, { nodes: [node(0, 40, pages(500)), node(1, 40, pages(0))] })
  t.same(messages, ['node1: huge pages of 2 MiB in use 100% of 1000 (critical within 100 % to 100 %)'])
  t.match(outcome.metrics.at(-1), { name: 'hugepages_used_percent', labels: { node: 'node1', size: '2MiB' } })
  t.same(judged(limits, { nodes: [node(0, 40)] }).messages, [
    'host: no huge pages are set aside on this host: set vm.nr_hugepages, or leave out --hugepages-…',
  ])
  t.end()
})

const capabilities = `<capabilities><host><topology><cells num='2'>
  <cell id='0'><memory unit='KiB'>4194304</memory><pages unit='KiB' size='4'>524288</pages>
    <pages unit='KiB' size='2048'>1024</pages><pages unit='KiB' size='1048576'>0</pages>
    <cpus num='1'><cpu id='0' socket_id='0'/></cpus></cell>
  <cell id='1'><memory unit='KiB'>2097152</memory><pages unit='KiB' size='4'>524288</pages>
    <pages unit='KiB' size='2048'>0</pages></cell>
</cells></topology></host></capabilities>`

/** A daemon of a host with two NUMA nodes; numbers in KiB, as on the wire. */
async function fakeHost(t: Test) {
  const daemon = await FakeLibvirtd.start()
  const host = Host.open(daemon.uri)
  t.teardown(async () => {
    await host.close()
    await daemon.remove()
  })
  const sizes = Object.entries({ total: 6_291_456, free: 1_048_576, buffers: 524_288, cached: 1_572_864 })
  daemon.on(procedures.nodeGetMemoryStats, call => {
    const asked = call.arguments.i32()
    call.reply(writer =>
      writer.array(asked === 0 ? [] : sizes, (to, [field, kib]) => to.string(field).u64(kib)).i32(sizes.length),
    )
  })
  daemon.on(procedures.getCapabilities, call => call.reply(writer => writer.string(capabilities)))
  daemon.on(procedures.nodeGetCellsFreeMemory, call =>
    call.reply(writer => writer.array([gib, gib / 4], (to, bytes) => to.u64(bytes))),
  )
  daemon.on(procedures.nodeGetFreePages, call => call.reply(writer => writer.array([3], (to, free) => to.u64(free))))
  return { daemon, host }
}

t.test('nodes and huge pages are read only when asked, in one call each', async t => {
  const { daemon, host } = await fakeHost(t)
  t.same((await check.collect(host, check.parseOptions(), checkContext())).nodes, [])
  const before = daemon.called.length
  const { nodes } = await check.collect(host, check.parseOptions({ 'node-free-critical': '2:' }), checkContext())
  t.same(nodes, [
    { node: 0, totalBytes: 4 * gib, freeBytes: gib, hugepages: [{ sizeBytes: 2097152, total: 1024, free: 3 }] },
    { node: 1, totalBytes: 2 * gib, freeBytes: gib / 4, hugepages: [] },
  ])
  t.same(daemon.called.slice(before), [
    'NODE_GET_MEMORY_STATS',
    'NODE_GET_MEMORY_STATS',
    'CONNECT_GET_CAPABILITIES',
    'NODE_GET_CELLS_FREE_MEMORY',
    'NODE_GET_FREE_PAGES',
  ])
})

t.test('a real host: what is used, free and cached is all there is', async t => {
  const { uri } = await libvirtd(t)
  const host = Host.open(uri, { readOnly: true })
  t.teardown(() => host.close())
  const options = check.parseOptions({ 'node-free-warning': '0:' })
  const sample = await check.collect(host, options, checkContext({ uri }))
  const { totalBytes = 0, freeBytes = 0, buffersBytes = 0, cachedBytes = 0 } = sample.memory
  t.ok(freeBytes > 0 && freeBytes + buffersBytes + cachedBytes < totalBytes)
  t.ok(sample.nodes.length > 0)
  for (const found of sample.nodes) t.ok(found.freeBytes >= 0 && found.freeBytes <= found.totalBytes)
  t.equal(statusOf(check.evaluate(sample, check.parseOptions({ warning: '~:', critical: '~:' }))), 'OK')
})

t.test('the executable prints one line and its numbers', async t => {
  const { daemon } = await fakeHost(t)
  t.same(await runExecutable(name, ['--uri', daemon.uri]), {
    stdout: `${name} OK: memory 50 % in use (3 GiB of 6 GiB, cache counted as free)
| used_percent=50%;80;90;0;100 total=6442450944B;;;0 used=3221225472B;;;0 free=1073741824B;;;0 buffers=536870912B;;;0 cached=1610612736B;;;0
`,
    stderr: '',
    status: 0,
  })
  t.same(await runExecutable(name, ['--uri', daemon.uri, '-w', '40', '--node-free-critical', '20:']), {
    stdout: `${name} CRITICAL: node1: free 12.5 % of 2 GiB (critical below 20 %); memory in use 50 % of 6 GiB (warning above 40 %)
CRITICAL node1: free 12.5 % of 2 GiB (critical below 20 %)
WARNING memory in use 50 % of 6 GiB (warning above 40 %)
| used_percent=50%;40;90;0;100 total=6442450944B;;;0 used=3221225472B;;;0 free=1073741824B;;;0 buffers=536870912B;;;0 cached=1610612736B;;;0 node0.node_free_percent=25%;;20:;0;100 node0.2MiB.hugepages_used_percent=99.707031%;;;0;100 node1.node_free_percent=12.5%;;20:;0;100
`,
    stderr: '',
    status: 2,
  })
})

t.test('the executable says what is wrong, in one line, with status 3', async t => {
  const { uri } = await libvirtd(t)
  const testDriver = uri.replace('qemu+unix:///system', 'test+unix:///default').replace('/session', '/default')
  for (const [args, line] of [
    [['-x'], 'unknown option -x: see --help'],
    [
      ['--critical', ''],
      '--critical needs a value: it takes a range: write [@][start:][end], for example 80, 10:, ~:5 or @10:20',
    ],
    [['-w', 'high'], '--warning high: not a range: write [@][start:][end], for example 80, 10:, ~:5 or @10:20'],
    [
      ['--uri', 'qemu:///system?socket=/nonexistent/sock'],
      'no libvirt daemon for qemu:///system?socket=/nonexistent/sock: no socket /nonexistent/sock; is the path right and the daemon running?',
    ],
    [
      ['--uri', testDriver],
      'libvirt NODE_GET_MEMORY_STATS: this function is not supported by the connection driver: virNodeGetMemoryStats [code 3]',
    ],
  ] as const) {
    const expected = { stdout: `${name} UNKNOWN: ${line}\n`, stderr: '', status: 3 }
    t.same(await runExecutable(name, args), expected, args.join(' '))
  }
})

import t from 'tap'
import check, { type Disk, type GuestDisks } from '../../checks/check-kvm-disk-io.js'
import { statusOf } from '../../plugin/output.js'
import { waitUntil } from '../../scripts/services/process.js'
import { checkContext, runExecutable } from '../support/checks.js'
import { type FakeGuest, fakeGuests, numberedGuests } from '../support/fake-guests.js'
import { libvirtd, ownGuest } from '../support/services.js'

const name = 'check-kvm-disk-io'

/** What a disk did in ten seconds: operations and the milliseconds each took. */
function disk(
  work: Partial<Record<'read' | 'write' | 'flush', readonly [ops: number, milliseconds: number]>>,
  change: Partial<Disk> = {},
): Disk {
  const grown = Object.entries(work).flatMap(([operation, [ops, milliseconds]]) => [
    [`${operation}Ops`, ops] as const,
    [`${operation}TimeNs`, ops * milliseconds * 1e6] as const,
    [`${operation}Bytes`, ops * 4096] as const,
  ])
  return { name: 'vda', growth: { seconds: 10, grown: Object.fromEntries(grown) }, ...change }
}

function judged(
  disks: readonly Disk[],
  raw: Parameters<typeof check.parseOptions>[0] = {},
  change: Partial<GuestDisks> = {},
) {
  const guest = { name: 'web1', uuid: 'u', id: 1, disks, ...change }
  const outcome = check.evaluate([guest], check.parseOptions(raw))
  const bad = outcome.findings.filter(({ status }) => status !== 'OK')
  const metrics = Object.fromEntries(outcome.metrics.map(metric => [metric.name, metric.value]))
  const messages = bad.map(({ device, message }) => (device === undefined ? message : `${device}: ${message}`))
  return { status: statusOf(outcome), messages, outcome, metrics }
}

t.test('the latency of each operation is judged at, below and above each limit', t => {
  for (const operation of ['read', 'write', 'flush'] as const) {
    for (const [milliseconds, status] of [
      [0, 'OK'],
      [19.9, 'OK'],
      [20, 'OK'],
      [20.1, 'WARNING'],
      [100, 'WARNING'],
      [100.1, 'CRITICAL'],
    ] as const) {
      t.equal(judged([disk({ [operation]: [100, milliseconds] })]).status, status, `${operation} ${milliseconds} ms`)
    }
  }
  t.same(judged([disk({ read: [100, 250], write: [100, 1], flush: [10, 30] })]).messages, [
    'vda: read latency 250 ms over 10 s (critical above 100 ms)',
    'vda: flush latency 30 ms over 10 s (warning above 20 ms)',
  ])
  t.end()
})

t.test('flushes may have limits of their own', t => {
  const limits = { 'flush-warning': '200', 'flush-critical': '500' }
  t.equal(judged([disk({ flush: [10, 200] })], limits).status, 'OK')
  t.equal(judged([disk({ flush: [10, 201] })], limits).status, 'WARNING')
  t.equal(judged([disk({ flush: [10, 501] })], limits).status, 'CRITICAL')
  t.equal(judged([disk({ flush: [10, 1], read: [10, 21] })], limits).status, 'WARNING')
  t.end()
})

t.test('a mean of few operations is printed but not judged', t => {
  t.equal(judged([disk({ read: [9, 500] })]).status, 'OK')
  t.equal(judged([disk({ read: [9, 500] })]).metrics['read_latency'], 0.5)
  t.equal(judged([disk({ read: [10, 500] })]).status, 'CRITICAL')
  t.equal(judged([disk({ read: [1, 500] })], { 'minimum-ops': '1' }).status, 'CRITICAL')
  t.same(judged([disk({ read: [0, 0] })]).metrics, { iops: 0, throughput: 0 }, 'none has no latency')
  t.end()
})

t.test('a latency is no alert when our own limit explains it, and that is said', t => {
  const slow = { read: [100, 500], write: [100, 1], flush: [0, 0] } as const
  for (const [ioTune, raw, status] of [
    [{ total_iops_sec: 20 }, {}, 'OK'],
    [{ total_iops_sec: 22 }, {}, 'OK'],
    [{ total_iops_sec: 23 }, {}, 'CRITICAL'],
    [{ total_iops_sec: 20 }, { throttled: '100' }, 'OK'],
    [{ total_iops_sec: 21 }, { throttled: '100' }, 'CRITICAL'],
    [{ read_iops_sec: 10 }, {}, 'OK'],
    [{ write_iops_sec: 10 }, {}, 'CRITICAL'],
    [{ total_bytes_sec: 81_920 }, {}, 'OK'],
    [{ read_bytes_sec: 40_960 }, {}, 'OK'],
    [{ read_bytes_sec: 1_000_000 }, {}, 'CRITICAL'],
    [{ total_iops_sec_max: 1 }, {}, 'CRITICAL'],
    [{}, {}, 'CRITICAL'],
  ] as const) {
    t.equal(judged([disk(slow, { ioTune })], raw).status, status, JSON.stringify([ioTune, raw]))
  }
  const { outcome, metrics } = judged([disk(slow, { ioTune: { total_iops_sec: 20 } })])
  t.equal(
    outcome.summary,
    'web1 vda: reads throttled by its own limit total_iops_sec: 20 of 20; highest latency 1 ms (web1 vda write), 1 disk of running guests',
  )
  t.match(outcome.findings[0], {
    status: 'OK',
    message: 'read latency 500 ms, throttled by its own limit total_iops_sec: 20 of 20',
  })
  t.equal(metrics['read_latency'], 0.5)
  const flushes = disk({ flush: [100, 500], read: [100, 1] }, { ioTune: { total_iops_sec: 10 } })
  t.equal(judged([flushes]).status, 'CRITICAL', 'flushes are not throttled')
  t.end()
})

t.test('operations and bytes per second are judged on request', t => {
  const busy = disk({ read: [100, 1], write: [100, 1] })
  for (const [raw, status] of [
    [{}, 'OK'],
    [{ 'iops-warning': '20' }, 'OK'],
    [{ 'iops-warning': '19' }, 'WARNING'],
    [{ 'iops-critical': '19' }, 'CRITICAL'],
    [{ 'iops-warning': '21:' }, 'WARNING'],
    [{ 'bytes-warning': '81920' }, 'OK'],
    [{ 'bytes-warning': '81919' }, 'WARNING'],
    [{ 'bytes-critical': '1000' }, 'CRITICAL'],
  ] as const) {
    t.equal(judged([busy], raw).status, status, JSON.stringify(raw))
  }
  t.same(judged([busy], { 'iops-warning': '19', 'bytes-warning': '1000' }).messages, [
    'vda: reads and writes 20 per second over 10 s (warning above 19)',
    'vda: throughput 80 KiB per second over 10 s (warning above 1000 B)',
  ])
  t.end()
})

t.test('what is new only collects; a guest that does not answer is UNKNOWN; own limits win', t => {
  const fresh = { name: 'vdb' }
  t.equal(
    judged([fresh]).outcome.summary,
    '1 disk of running guests; collecting: latencies are known from the next run on',
  )
  t.equal(
    judged([disk({ read: [100, 1] }), fresh]).outcome.summary,
    'highest latency 1 ms (web1 vda read), 2 disks of running guests; collecting 1 new',
  )
  t.same(judged([], {}, { missing: 'its QEMU has not answered for 3.0 s' }).messages, [
    'its QEMU has not answered for 3.0 s',
  ])
  t.equal(judged([disk({ read: [100, 50] })], {}, { limits: { warning: '60' } }).status, 'OK')
  t.equal(judged([disk({ read: [100, 50] })], {}, { limits: { warning: 'slow' } }).status, 'WARNING')
  t.end()
})

function params(readOps: number, readMs: number, disks = ['vda']): FakeGuest['params'] {
  const each = disks.map((target, index) => ({
    [`block.${index}.name`]: target,
    [`block.${index}.rd.reqs`]: readOps,
    [`block.${index}.rd.times`]: readOps * readMs * 1e6,
    [`block.${index}.rd.bytes`]: readOps * 4096,
    [`block.${index}.wr.reqs`]: 0,
    [`block.${index}.wr.times`]: 0,
  }))
  return Object.assign({ 'block.count': disks.length }, ...each)
}

t.test('one call for any number of guests; XML only of those with a slow disk', async t => {
  const guests = numberedGuests(500, () => ({ params: params(100, 1) }))
  const { host, asked } = await fakeGuests(t, guests)
  const context = checkContext()
  const collect = () => check.collect(host, check.parseOptions(), context)
  t.ok((await collect()).every(guest => guest.disks[0]?.growth === undefined))
  for (const guest of guests) guest.params = params(200, 1)
  t.ok((await collect()).every(guest => guest.disks[0]?.growth?.grown['readOps'] === 100))
  t.same(asked(), ['CONNECT_GET_ALL_DOMAIN_STATS', 'CONNECT_GET_ALL_DOMAIN_STATS'])

  const [limited, unlimited, vanished] = guests
  for (const guest of [limited, unlimited, vanished]) if (guest) guest.params = params(300, 100)
  const target = "<target dev='vda'/><iotune><total_iops_sec>50</total_iops_sec></iotune>"
  if (limited) limited.xml = `<devices><disk>${target}</disk></devices>`
  if (unlimited) unlimited.xml = "<devices><disk><target dev='vda'/></disk></devices>"
  const sample = await collect()
  t.equal(asked().length, 6, 'three of them are slow')
  t.same(
    sample.slice(0, 3).map(guest => guest.disks[0]?.ioTune),
    [{ total_iops_sec: 50 }, undefined, undefined],
  )
})

t.test('guests and disks come and go, and counters begin anew, without an error', async t => {
  const guests = numberedGuests(2, () => ({ params: params(100, 1) }))
  const { host } = await fakeGuests(t, guests)
  const context = checkContext()
  const [web1, web2] = guests
  if (web1 === undefined || web2 === undefined) throw new Error('two guests')
  const collect = async () => {
    const sample = await check.collect(host, check.parseOptions(), context)
    return sample.map(guest => guest.disks.map(({ name: own, growth }) => [own, growth?.grown['readOps']]))
  }
  t.same(await collect(), [[['vda', undefined]], [['vda', undefined]]])
  web1.params = params(150, 1, ['vda', 'vdb'])
  guests.pop()
  t.same(
    await collect(),
    [
      [
        ['vda', 50],
        ['vdb', undefined],
      ],
    ],
    'a disk appears, a guest vanishes',
  )
  web1.params = params(170, 1)
  guests.push(web2)
  t.same(await collect(), [[['vda', 20]], [['vda', 0]]], 'the disk is gone, the guest is back')
  web1.params = params(10, 1)
  t.same(await collect(), [[['vda', undefined]], [['vda', 0]]], 'its counters went back')
  web1.params = params(15, 1)
  web2.state = [5, 1]
  t.same(await collect(), [[['vda', 5]]], 'shut off')
  Object.assign(web1, { id: 9, params: params(500, 1) })
  t.same(await collect(), [[['vda', undefined]]], 'restarted')
})

t.test('real disk I/O of a real guest, then throttled by a limit of ours', async t => {
  const daemon = await libvirtd(t)
  const guest = await ownGuest(t, daemon, { name: 'io1' })
  const state = t.testdir()
  const run = (...args: string[]) =>
    runExecutable(name, [
      ...['--uri', daemon.readOnlyUri ?? daemon.uri, '--state-dir', state],
      ...['--guest', 'io1', '--minimum-ops', '3', ...args],
    ])
  t.same(await run('-w', '~:', '-c', '~:'), {
    stdout: `${name} OK: 1 disk of running guests; collecting: latencies are known from the next run on\n`,
    stderr: '',
    status: 0,
  })
  const readDirectly = 'echo 3 > /proc/sys/vm/drop_caches; dd if=/dev/vda of=/dev/null bs=4k count=40 iflag=direct'
  await guest.execute(`echo x > /data/x; sync; ${readDirectly}`)
  const normal = await run('-w', '~:', '-c', '~:')
  t.match(
    normal.stdout,
    /^check-kvm-disk-io OK: highest latency [\d.]+ [mu]?s \(io1 vda (read|write|flush)\), 1 disk of running guests\n\| /,
  )
  t.match(normal.stdout, /io1\.vda\.read_latency=0\.\d+s /)
  t.equal(normal.status, 0)

  t.equal((await run('-w', '0', '-c', '0')).status, 0, 'collects: these options have not been used before')
  await guest.execute(readDirectly)
  const slow = await run('-w', '0', '-c', '0')
  t.match(
    slow.stdout,
    /^check-kvm-disk-io CRITICAL: io1 vda: read latency [\d.]+ [mu]?s over [\d.]+ m?s \(critical above 0 s\)/,
  )
  t.equal(slow.status, 2)

  await daemon.virsh('blkdeviotune', 'io1', 'vda', '--total-iops-sec', '20')
  // Each of four readers waits for the others' turns as well as its own: 200 ms with 20 operations per second.
  const reader = (skip: number) => `dd if=/dev/vda of=/dev/null bs=4k count=25 skip=${skip} iflag=direct &`
  const throttled = await waitUntil(
    'a whole interval is throttled',
    async () => {
      await run('--throttled', '50')
      await guest.execute(`${[0, 100, 200, 300].map(reader).join(' ')} wait`)
      const { stdout } = await run('--throttled', '50')
      return stdout.includes('throttled by') ? stdout : undefined
    },
    { timeoutMs: 60_000 },
  )
  t.match(
    throttled,
    /^check-kvm-disk-io OK: io1 vda: reads throttled by its own limit total_iops_sec: [\d.]+ of 20; .*1 disk of running guests\n\| io1\.vda\.read_latency=0\.\d+s;0\.02;0\.1 /,
  )
  await daemon.virsh('blkdeviotune', 'io1', 'vda', '--total-iops-sec', '0')
  await guest.destroy()
  t.same(await run(), { stdout: `${name} OK: 0 disks of running guests\n`, stderr: '', status: 0 })
})

t.test('the executable prints exactly this, first and second time', async t => {
  const guests = numberedGuests(1, () => ({ params: { ...params(0, 0), 'block.0.fl.reqs': 0, 'block.0.fl.times': 0 } }))
  const { daemon } = await fakeGuests(t, guests)
  const run = (...args: string[]) => runExecutable(name, ['--uri', daemon.uri, '--state-dir', state, ...args])
  const state = t.testdir()
  const collecting = 'collecting: latencies are known from the next run on'
  const first = { stdout: `${name} OK: 1 disk of running guests; ${collecting}\n`, stderr: '', status: 0 }
  t.same(await run(), first)
  t.same(await run('-c', '200'), first, 'other options keep their own numbers')
  const flushes = { 'block.0.fl.reqs': 10, 'block.0.fl.times': 2e9 }
  for (const guest of guests) guest.params = { ...params(100, 2), ...flushes }
  const second = await run()
  // How long it was between the two runs is not ours to say.
  const seconds = / over ([\d.]+ m?s)/.exec(second.stdout)?.[1]
  const line = `web1 vda: flush latency 200 ms over ${seconds} (critical above 100 ms)`
  t.equal(
    second.stdout.replace(/iops=[\d.]+ /, 'iops=N ').replace(/throughput=[\d.]+B/, 'throughput=NB'),
    `${name} CRITICAL: ${line}
CRITICAL ${line}
| web1.vda.read_latency=0.002s;0.02;0.1 web1.vda.flush_latency=0.2s;0.02;0.1 web1.vda.iops=N web1.vda.throughput=NB
`,
  )
  t.equal(second.status, 2)
})

t.test('the executable says what is wrong, in one line, with status 3', async t => {
  const socket = 'qemu:///system?socket=/nonexistent/sock'
  for (const [args, line] of [
    [['--wanring', '9'], 'unknown option --wanring: did you mean --warning?'],
    [['-w', '20ms'], '--warning 20ms: not a range: write [@][start:][end], for example 80, 10:, ~:5 or @10:20'],
    [['--minimum-ops', '0'], '--minimum-ops 0: not a whole number of at least 1'],
    [['--throttled', '-1'], '--throttled -1: not a number from 0 to 100'],
    [
      ['--uri', socket],
      `no libvirt daemon for ${socket}: no socket /nonexistent/sock; is the path right and the daemon running?`,
    ],
  ] as const) {
    const expected = { stdout: `${name} UNKNOWN: ${line}\n`, stderr: '', status: 3 }
    t.same(await runExecutable(name, [...args, '--state-dir', t.testdir()]), expected, args.join(' '))
  }
  const { daemon } = await fakeGuests(
    t,
    numberedGuests(1, () => ({ params: params(1, 1) })),
  )
  t.match(await runExecutable(name, ['--uri', daemon.uri, '--state-dir', '/dev/null']), {
    stdout:
      /^check-kvm-disk-io UNKNOWN: cannot keep numbers between runs: [^\n]+: choose a directory with --state-dir\n$/,
    status: 3,
  })
})

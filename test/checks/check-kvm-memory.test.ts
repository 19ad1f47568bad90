import t from 'tap'
import check, { type GuestMemory } from '../../checks/check-kvm-memory.js'
import { statusOf } from '../../plugin/output.js'
import { waitUntil } from '../../scripts/services/process.js'
import { checkContext, runExecutable } from '../support/checks.js'
import { fakeGuests, numberedGuests } from '../support/fake-guests.js'
import { libvirtd, ownGuest } from '../support/services.js'

const name = 'check-kvm-memory'
const mib = 1024 ** 2
const nowMs = 1_700_000_000_000
const nowSeconds = nowMs / 1000

function until<T>(what: string, probe: () => Promise<T | undefined>): Promise<T> {
  return waitUntil(what, probe, { timeoutMs: 60_000, intervalMs: 200 })
}

/** A running guest that uses so many percent of its 1000 MiB, and reported this moment. */
function guest(usedPercent: number, change: Partial<GuestMemory> = {}): GuestMemory {
  const balloon = {
    availableBytes: 1000 * mib,
    usableBytes: (1000 - usedPercent * 10) * mib,
    unusedBytes: 0,
    balloonBytes: 1024 * mib,
    rssBytes: 1100 * mib,
  }
  return {
    name: 'web1',
    uuid: 'u',
    id: 1,
    running: true,
    ageSeconds: 0,
    ...change,
    balloon: { ...balloon, ...change.balloon },
  }
}

/** What a guest counted in ten seconds. */
function counted(grown: Record<string, number>, seconds = 10): GuestMemory['growth'] {
  return { seconds, grown: { lastUpdateSeconds: 10, swapInBytes: 0, swapOutBytes: 0, majorFaults: 0, ...grown } }
}

function judged(guests: readonly GuestMemory[], raw: Parameters<typeof check.parseOptions>[0] = {}) {
  const outcome = check.evaluate(guests, check.parseOptions(raw))
  const bad = outcome.findings.filter(({ status }) => status !== 'OK')
  const metrics = Object.fromEntries(outcome.metrics.map(metric => [metric.name, metric.value]))
  return { status: statusOf(outcome), messages: bad.map(({ message }) => message), outcome, metrics }
}

t.test('the share in use is judged at, below and above each limit', t => {
  for (const [used, status] of [
    [0, 'OK'],
    [89.9, 'OK'],
    [90, 'OK'],
    [90.1, 'WARNING'],
    [95, 'WARNING'],
    [95.1, 'CRITICAL'],
    [100, 'CRITICAL'],
  ] as const) {
    t.equal(judged([guest(used)]).status, status, `${used} %`)
  }
  t.same(judged([guest(96)]).messages, ['memory in use 96 % of 1000 MiB (critical above 95 %)'])
  t.equal(judged([guest(50)], { warning: '60:' }).status, 'WARNING')
  t.end()
})

t.test('without usable, unused is what is free; without either nothing is made up', t => {
  const old = { usableBytes: undefined, unusedBytes: 40 * mib } as unknown as GuestMemory['balloon']
  t.same(judged([guest(0, { balloon: old })]).messages, ['memory in use 96 % of 1000 MiB (critical above 95 %)'])
  const none = { usableBytes: undefined, unusedBytes: undefined } as unknown as GuestMemory['balloon']
  const { status, messages, metrics } = judged([guest(0, { balloon: none })])
  t.equal(status, 'UNKNOWN')
  t.same(messages, ['its balloon driver does not report free memory: install a newer one'])
  t.notOk('used_percent' in metrics)
  t.equal(judged([guest(0, { balloon: { usableBytes: 1001 * mib } })]).status, 'UNKNOWN', 'more free than there is')
  t.end()
})

t.test('swapping and major faults are judged only while little is free', t => {
  const quiet = { critical: '~:', warning: '~:' }
  for (const [used, grown, raw, status] of [
    [94.9, { swapInBytes: 1000 }, {}, 'OK'],
    [95, { swapInBytes: 1000 }, {}, 'OK'],
    [95.1, { swapInBytes: 1000 }, {}, 'WARNING'],
    [95.1, { swapOutBytes: 10 }, {}, 'WARNING'],
    [95.1, {}, {}, 'OK'],
    [95.1, { majorFaults: 100 }, {}, 'OK'],
    [95.1, { majorFaults: 101 }, {}, 'WARNING'],
    [95.1, { swapInBytes: 1000 }, { 'swap-critical': '100' }, 'WARNING'],
    [95.1, { swapInBytes: 1010 }, { 'swap-critical': '100' }, 'CRITICAL'],
    [95.1, { majorFaults: 201 }, { 'faults-critical': '20' }, 'CRITICAL'],
    [50.1, { swapInBytes: 1000 }, { 'low-free': '50' }, 'WARNING'],
  ] as const) {
    const label = JSON.stringify([used, grown, raw])
    t.equal(judged([guest(used, { growth: counted(grown) })], { ...quiet, ...raw }).status, status, label)
  }
  t.same(
    judged([guest(97, { growth: counted({ swapInBytes: 4 * mib, swapOutBytes: mib, majorFaults: 250 }) })], quiet)
      .messages,
    [
      'swapping 512 KiB per second with 3 % free (warning above 0 B)',
      'major page faults 25 per second with 3 % free (warning above 10)',
    ],
  )
  t.end()
})

t.test('rates are those between two reports of the guest; the first run says that it collects', t => {
  const first = judged([guest(10)])
  t.equal(
    first.outcome.summary,
    'highest memory in use 10 % (web1, of 1 running); swapping and faults: collecting, known from the next run on',
  )
  t.equal(first.metrics['swap_rate'], undefined)
  const growth = counted({ swapInBytes: 1000, lastUpdateSeconds: 5 })
  t.equal(judged([guest(10, { growth })]).metrics['swap_rate'], 200)
  t.equal(judged([guest(10, { growth })]).outcome.summary, 'highest memory in use 10 % (web1, of 1 running)')
  t.equal(judged([guest(10, { growth: counted({ lastUpdateSeconds: 0 }) })]).metrics['swap_rate'], undefined)
  t.end()
})

t.test('only fresh statistics are judged', t => {
  for (const [change, raw, status] of [
    [{ ageSeconds: 60 }, {}, 'CRITICAL'],
    [{ ageSeconds: 61 }, {}, 'UNKNOWN'],
    [{ ageSeconds: -60 }, {}, 'CRITICAL'],
    [{ ageSeconds: -61 }, {}, 'UNKNOWN'],
    [{ ageSeconds: 300, periodSeconds: 100 }, {}, 'CRITICAL'],
    [{ ageSeconds: 301, periodSeconds: 100 }, {}, 'UNKNOWN'],
    [{ ageSeconds: 7200, growth: counted({}, 900) }, {}, 'CRITICAL'],
    [{ ageSeconds: 7200, growth: counted({}, 901) }, {}, 'UNKNOWN'],
    [{ ageSeconds: 7200, growth: counted({ lastUpdateSeconds: 0 }) }, {}, 'UNKNOWN'],
    [{ ageSeconds: 10 }, { 'max-age': '10s' }, 'CRITICAL'],
    [{ ageSeconds: 11 }, { 'max-age': '10s' }, 'UNKNOWN'],
    [{ ageSeconds: 11, growth: counted({}, 11) }, { 'max-age': '10s' }, 'UNKNOWN'],
  ] as const) {
    t.equal(judged([guest(99, change)], raw).status, status, JSON.stringify([change, raw]))
  }
  t.same(
    [{ ageSeconds: 300, periodSeconds: 0 }, { ageSeconds: 300, periodSeconds: 10 }, { ageSeconds: -7200 }].flatMap(
      change => judged([guest(99, change)]).messages,
    ),
    [
      "last balloon statistics 300 s ago: set <stats period='10'/> in its <memballoon>",
      "last balloon statistics 300 s ago: look after the balloon service in it, or set <stats period='10'/> in its <memballoon>, or install the balloon service in it",
      "last balloon statistics 2 h ahead of this machine's clock: set the clocks, or look at it from its own host",
    ],
  )
  t.end()
})

t.test('a guest without statistics is UNKNOWN with the remedy, and hides no other', t => {
  const { status, messages, outcome, metrics } = judged([
    { ...guest(0), ageSeconds: undefined, balloon: { balloonBytes: 1024 * mib, rssBytes: mib } },
  ])
  t.equal(status, 'UNKNOWN')
  t.same(messages, [
    "no balloon statistics: set <stats period='10'/> in its <memballoon>, or install the balloon service in it",
  ])
  t.equal(outcome.summary, 'no running guest to judge')
  t.same(Object.keys(metrics), ['resident', 'resident_percent'])
  t.same(judged([guest(99), { ...guest(0), missing: 'its QEMU has not answered for 3.0 s', name: 'web2' }]).messages, [
    'memory in use 99 % of 1000 MiB (critical above 95 %)',
    'its QEMU has not answered for 3.0 s',
  ])
  t.end()
})

t.test('the resident size is judged against the allotment, on request', t => {
  const limits = { 'rss-warning': '120', 'rss-critical': '150' }
  for (const [rss, raw, status] of [
    [1024 * 1.2, limits, 'OK'],
    [1024 * 1.21, limits, 'WARNING'],
    [1024 * 1.51, limits, 'CRITICAL'],
    [1024 * 9, {}, 'OK'],
  ] as const) {
    t.equal(judged([guest(10, { balloon: { rssBytes: rss * mib } })], raw).status, status, `${rss} MiB`)
  }
  const { messages } = judged([guest(10, { balloon: { rssBytes: 2048 * mib } })], limits)
  t.same(messages, ['resident size of QEMU 200 % of its allotment of 1 GiB (critical above 150 %)'])
  t.equal(
    judged([{ ...guest(10, { ageSeconds: 999 }) }], { 'rss-warning': '100' }).status,
    'WARNING',
    'whatever the guest says',
  )
  t.end()
})

t.test('guests that do not run are not judged; own limits win; a bad one is UNKNOWN for its guest', t => {
  t.equal(judged([{ ...guest(99), running: false }]).outcome.summary, 'no running guest to judge; 1 not running')
  t.equal(judged([guest(99, { limits: { warning: '99', critical: '99.5' } })]).status, 'OK')
  const { status, messages } = judged([guest(50, { limits: { warnin: '99' } })])
  t.equal(status, 'UNKNOWN')
  t.match(messages, [/^its metadata sets limit "warnin", which this check does not have/])
  t.end()
})

const kib = { 'balloon.current': 262144, 'balloon.maximum': 262144, 'balloon.rss': 250000 }
const reporting = {
  ...kib,
  ...{ 'balloon.available': 200000, 'balloon.usable': 20000, 'balloon.swap_in': 0, 'balloon.swap_out': 0 },
  ...{ 'balloon.major_fault': 0, 'balloon.last-update': nowSeconds },
}

t.test('one call for any number of guests; numbers that were not supplied are none', async t => {
  const unsupplied = { 'balloon.usable': 2n ** 64n - 1n, 'balloon.swap_in': 2n ** 64n - 1n }
  const recent = { 'balloon.last-update': Math.floor(Date.now() / 1000) }
  const guests = numberedGuests(1000, index => ({
    params: { ...reporting, ...recent, ...(index === 0 ? unsupplied : {}) },
  }))
  const { host, asked } = await fakeGuests(t, guests)
  const sample = await check.collect(host, check.parseOptions(), checkContext())
  t.same(asked(), ['CONNECT_GET_ALL_DOMAIN_STATS'])
  t.equal(sample.length, 1000)
  t.equal(sample[0]?.balloon.usableBytes, undefined)
  t.equal(sample[0]?.balloon.swapInBytes, undefined)
  t.equal(sample[1]?.balloon.usableBytes, 20000 * 1024)
})

t.test('the period of guests with old statistics is looked up, unless --max-age says what is old', async t => {
  const balloon = (inside: string) => `<devices><memballoon model='virtio'>${inside}</memballoon></devices>`
  const guests = numberedGuests(3, index => ({
    params: { ...reporting, 'balloon.last-update': Math.floor(Date.now() / 1000) - (index === 0 ? 0 : 100) },
    xml: balloon(index === 1 ? `<stats period='60'/>` : ''),
  }))
  const { host, asked } = await fakeGuests(t, guests)
  const sample = await check.collect(host, check.parseOptions(), checkContext())
  t.same(
    sample.map(({ periodSeconds }) => periodSeconds),
    [undefined, 60, 0],
  )
  t.equal(asked().length, 3)
  await check.collect(host, check.parseOptions({ 'max-age': '1m' }), checkContext())
  t.equal(asked().length, 4)
})

t.test('limits come from the metadata of guests, on request and one call each', async t => {
  const own = '<check-kvm-memory warning="5" critical="97"/><check-kvm-disk-io warning="1"/>'
  const guests = numberedGuests(3, index => ({
    params: { ...reporting, 'balloon.last-update': Math.floor(Date.now() / 1000) },
    xml:
      index === 0
        ? `<metadata><sensu-kvm:limits xmlns:sensu-kvm="urn:x">${own}</sensu-kvm:limits></metadata>`
        : '<uuid/>',
  }))
  delete guests[2]?.xml
  const { host, asked } = await fakeGuests(t, guests)
  const sample = await check.collect(host, check.parseOptions({ 'guest-limits': true }), checkContext())
  t.same(
    sample.map(({ limits }) => limits),
    [{ warning: '5', critical: '97' }, undefined, undefined],
  )
  t.equal(asked().length, 4)
})

t.test('a restarted guest has no rates, a guest that goes on has', async t => {
  const [web1] = numberedGuests(1, () => ({ params: reporting }))
  const guests = web1 === undefined ? [] : [web1]
  const { host } = await fakeGuests(t, guests)
  const context = checkContext()
  const growthAfter = async (change: object, id: number) => {
    if (web1 !== undefined) Object.assign(web1, { id, params: { ...reporting, ...change } })
    const [sample] = await check.collect(host, check.parseOptions(), context)
    return sample?.growth?.grown
  }
  t.equal(await growthAfter({}, 1), undefined)
  const later = { 'balloon.last-update': nowSeconds + 10, 'balloon.swap_in': 4 }
  t.match(await growthAfter(later, 1), { lastUpdateSeconds: 10, swapInBytes: 4096 })
  t.equal(await growthAfter({ ...later, 'balloon.swap_in': 9 }, 2), undefined, 'another run of the guest')
  t.equal(await growthAfter({ ...later, 'balloon.swap_in': 1 }, 2), undefined, 'a counter that went back')
})

t.test('a real guest: with statistics, without a period, without a balloon, paused, shut off', async t => {
  const daemon = await libvirtd(t)
  const uri = daemon.readOnlyUri ?? daemon.uri
  const [web, mute, bare] = await Promise.all([
    ownGuest(t, daemon, { name: 'memory1' }),
    ownGuest(t, daemon, { name: 'memory2', transform: xml => xml.replace("<stats period='1'/>", '') }),
    ownGuest(t, daemon, {
      name: 'memory3',
      transform: xml => xml.replace(/<memballoon.*<\/memballoon>/, "<memballoon model='none'/>"),
    }),
  ])
  const state = t.testdir()
  const run = (guest: { name: string }, ...args: string[]) =>
    runExecutable(name, ['--uri', uri, '--state-dir', state, '--guest', guest.name, ...args])
  await until('the guest reports', async () => (await run(web)).status === 0 || undefined)
  t.match(
    (await run(web)).stdout,
    /^check-kvm-memory OK: highest memory in use \d+(\.\d+)? % \(memory1, of 1 running\)\n\|/,
  )
  await until('the rates are known', async () => (await run(web)).stdout.includes('swap_rate=0B') || undefined)

  await web.execute('dd if=/dev/zero of=/tmp/fill bs=1M count=90')
  const filled =
    /^check-kvm-memory CRITICAL: memory1: memory in use [4-9]\d(\.\d+)? % of 21\d\.\d+ MiB \(critical above 40 %\)\n/
  const found = await until('the filled memory is reported', async () => {
    const { stdout, status } = await run(web, '-w', '30', '-c', '40')
    return status === 2 ? stdout : undefined
  })
  t.match(found, filled)

  const silent = await until('the only report is old', async () => {
    const { stdout, status } = await run(mute, '--max-age', '1s')
    return status === 3 ? stdout : undefined
  })
  t.match(silent, /^check-kvm-memory UNKNOWN: memory2: last balloon statistics [\d.]+ s ago: /)
  await daemon.virsh('dommemstat', mute.name, '--period', '1')
  await until('it reports again', async () => (await run(mute, '--max-age', '5s')).status === 0 || undefined)

  t.match(await run(bare), {
    stdout:
      /^check-kvm-memory UNKNOWN: memory3: no balloon statistics: set <stats period='10'\/> in its <memballoon>, or install the balloon service in it\n/,
    status: 3,
  })
  await web.suspend()
  t.same(await run(web), { stdout: `${name} OK: no running guest to judge; 1 not running\n`, stderr: '', status: 0 })
  await web.resume()
  await web.destroy()
  t.same(await run(web), { stdout: `${name} OK: no running guest to judge; 1 not running\n`, stderr: '', status: 0 })
})

t.test('a real guest whose QEMU hangs is UNKNOWN, with how long, and the others are judged', async t => {
  const daemon = await libvirtd(t)
  const [hung, well] = await Promise.all([
    ownGuest(t, daemon, { name: 'memory4', agent: false }),
    ownGuest(t, daemon, { name: 'memory5', agent: false }),
  ])
  hung.signal('SIGSTOP')
  try {
    const { stdout, status } = await runExecutable(name, [
      ...['--uri', daemon.readOnlyUri ?? daemon.uri, '--state-dir', t.testdir()],
      ...['--guest', hung.name, '--guest', well.name],
    ])
    t.match(stdout, /^check-kvm-memory UNKNOWN: memory4: its QEMU has not answered for \d+\.\d s\n/)
    t.match(stdout, / memory5\.used_percent=\d/)
    t.equal(status, 3)
  } finally {
    hung.signal('SIGCONT')
  }
})

t.test('the executable prints exactly this', async t => {
  const recent = { 'balloon.last-update': Math.floor(Date.now() / 1000) }
  const [web1, web2, off] = numberedGuests(3, () => ({ params: { ...reporting, ...recent } }))
  if (web1 === undefined || web2 === undefined || off === undefined) throw new Error('three guests')
  web2.params = { ...web2.params, 'balloon.usable': 100000 }
  Object.assign(off, { state: [5, 1], params: {} })
  const { daemon } = await fakeGuests(t, [web1, web2, off])
  const run = (...args: string[]) => runExecutable(name, ['--uri', daemon.uri, '--state-dir', t.testdir(), ...args])
  const numbers = (guest: string, percent: number, used: number, limits: string) =>
    `${guest}.used_percent=${percent}%;${limits} ${guest}.used=${used}B;;;0;204800000 ${guest}.swap_rate=U ${guest}.major_fault_rate=U ${guest}.resident=256000000B ${guest}.resident_percent=95.367432%`
  t.same(await run(), {
    stdout: `${name} OK: highest memory in use 90 % (web1, of 2 running); 1 not running; swapping and faults: collecting, known from the next run on
| ${numbers('web1', 90, 184320000, '90;95')} ${numbers('web2', 50, 102400000, '90;95')}
`,
    stderr: '',
    status: 0,
  })
  t.same(await run('-w', '40', '-c', '85'), {
    stdout: `${name} CRITICAL: web1: memory in use 90 % of 195.31 MiB (critical above 85 %); web2: memory in use 50 % of 195.31 MiB (warning above 40 %)
CRITICAL web1: memory in use 90 % of 195.31 MiB (critical above 85 %)
WARNING web2: memory in use 50 % of 195.31 MiB (warning above 40 %)
| ${numbers('web1', 90, 184320000, '40;85')} ${numbers('web2', 50, 102400000, '40;85')}
`,
    stderr: '',
    status: 2,
  })
})

t.test('the executable says what is wrong, in one line, with status 3', async t => {
  const socket = 'qemu:///system?socket=/nonexistent/sock'
  const { daemon } = await fakeGuests(t, [])
  for (const [args, line] of [
    [['--warn', '9'], 'unknown option --warn: see --help'],
    [['-w', '90%'], '--warning 90%: not a range: write [@][start:][end], for example 80, 10:, ~:5 or @10:20'],
    [['-c', '9:1'], '--critical 9:1: start is above end: a range runs from its lower to its upper bound'],
    [['--low-free', '101'], '--low-free 101: not a number from 0 to 100'],
    [['--max-age', 'old'], '--max-age old: not a time: write 250ms, 30s, 5m, 2h or 1d (seconds without a unit)'],
    [
      ['--uri', daemon.uri, '--guest', 'nope'],
      `nope: no such guest on ${daemon.uri}: correct --guest\nUNKNOWN nope: no such guest on ${daemon.uri}: correct --guest`,
    ],
    [
      ['--uri', socket],
      `no libvirt daemon for ${socket}: no socket /nonexistent/sock; is the path right and the daemon running?`,
    ],
  ] as const) {
    const expected = { stdout: `${name} UNKNOWN: ${line}\n`, stderr: '', status: 3 }
    t.same(await runExecutable(name, [...args, '--state-dir', t.testdir()]), expected, args.join(' '))
  }
})

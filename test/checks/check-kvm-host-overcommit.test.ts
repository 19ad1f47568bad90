import t, { type Test } from 'tap'
import check, { type GuestShare, type OvercommitSample } from '../../checks/check-kvm-host-overcommit.js'
import { Host } from '../../libvirt/host.js'
import { procedures } from '../../libvirt/procedures.js'
import { statusOf } from '../../plugin/output.js'
import { checkContext, runExecutable } from '../support/checks.js'
import { type FakeGuest, fakeGuests, numberedGuests } from '../support/fake-guests.js'
import { guest as healthyGuest, libvirtd, ownGuest } from '../support/services.js'

const name = 'check-kvm-host-overcommit'
const gib = 1024 ** 3

function share(memoryGib: number, change: Partial<GuestShare> = {}): GuestShare {
  const bytes = memoryGib * gib
  return {
    name: 'web1',
    running: true,
    vcpus: 1,
    maximumBytes: bytes,
    currentBytes: bytes / 2,
    hugepages: false,
    ...change,
  }
}

/** A host with 10 CPUs and 100 GiB. */
function judged(guests: readonly GuestShare[], raw: Parameters<typeof check.parseOptions>[0] = {}, hugepagesGib = 0) {
  const sample: OvercommitSample = { cpus: 10, memoryBytes: 100 * gib, hugepagesBytes: hugepagesGib * gib, guests }
  const outcome = check.evaluate(sample, check.parseOptions(raw))
  const bad = outcome.findings.filter(({ status }) => status !== 'OK')
  return { status: statusOf(outcome), messages: bad.map(({ message }) => message), outcome }
}

t.test('vCPUs of running guests are judged at, below and above each limit', t => {
  for (const [vcpus, status] of [
    [0, 'OK'],
    [40, 'OK'],
    [41, 'WARNING'],
    [80, 'WARNING'],
    [81, 'CRITICAL'],
  ] as const) {
    t.equal(judged([share(1, { vcpus }), share(1, { running: false, vcpus: 100 })]).status, status, `${vcpus} on 10`)
  }
  t.same(judged([share(1, { vcpus: 41 })]).messages, [
    'vCPUs per CPU 4.1 with 41 of running guests on 10 CPUs (warning above 4)',
  ])
  t.equal(judged([share(1, { vcpus: 41 })], { warning: '5', critical: '6' }).status, 'OK')
  t.end()
})

t.test(
  'memory is judged at, below and above each limit, of running guests and with those that start with the host',
  t => {
    for (const [memoryGib, status] of [
      [90, 'OK'],
      [90.1, 'WARNING'],
      [100, 'WARNING'],
      [100.1, 'CRITICAL'],
    ] as const) {
      const limits = { 'autostart-warning': '~:', 'autostart-critical': '~:' }
      t.equal(judged([share(memoryGib)], limits).status, status, `running ${memoryGib} GiB`)
      t.equal(judged([share(1), share(memoryGib - 1, { running: false })]).status, status, `with ${memoryGib} GiB`)
    }
    t.same(judged([share(60), share(45, { running: false })]).messages, [
      'maximum memory of running and autostart guests 105 % of 100 GiB (critical above 100 %)',
    ])
    t.same(judged([share(95)], { 'autostart-warning': '99' }).messages, [
      'maximum memory of running guests 95 % of 100 GiB (warning above 90 %)',
    ])
    t.end()
  },
)

t.test('what guests have now counts only when asked for', t => {
  const guests = [share(120)]
  t.equal(judged(guests).status, 'CRITICAL')
  t.equal(judged(guests, { memory: 'current' }).status, 'OK')
  t.equal(
    judged(guests, { memory: 'current' }).outcome.summary,
    '0.1 vCPUs per CPU with 1 of running guests on 10 CPUs; current memory of running guests 60 GiB, with autostart guests 60 GiB, of 100 GiB',
  )
  t.end()
})

t.test('guests on huge pages are compared with these, all others with the rest', t => {
  const guests = [share(50), share(30, { hugepages: true }), share(11, { hugepages: true, running: false })]
  t.same(judged(guests, {}, 40).messages, [
    'maximum memory of running and autostart guests on huge pages 102.5 % of 40 GiB set aside (critical above 100 %)',
  ])
  t.same(judged([share(55), share(40, { hugepages: true })], {}, 40).messages, [
    'maximum memory of running guests 91.67 % of 60 GiB beside huge pages (warning above 90 %)',
    'maximum memory of running and autostart guests 91.67 % of 60 GiB beside huge pages (warning above 90 %)',
  ])
  t.equal(judged([share(10), share(40, { hugepages: true })], {}, 40).status, 'OK', 'all in use is what they are for')
  t.equal(judged([share(10), share(37, { hugepages: true })], { 'hugepages-warning': '90' }, 40).status, 'WARNING')
  t.notOk(
    judged(guests).outcome.metrics.some(metric => metric.name.startsWith('hugepages')),
    'none set aside',
  )
  t.end()
})

t.test('no guests at all is well, and numbers that libvirt does not tell are not made up', t => {
  t.match(judged([]), { status: 'OK', outcome: { summary: /^0 vCPUs per CPU with 0 of running guests on 10 CPUs; / } })
  t.match(judged([share(1), share(1, { name: 'web2', vcpus: undefined, maximumBytes: undefined })]), {
    status: 'UNKNOWN',
    messages: ['libvirt does not tell its vCPUs and memory: it is not counted'],
  })
  t.end()
})

const kib = 1024
const promised = (vcpus: number, maximumKib: number, currentKib = maximumKib) => ({
  'vcpu.current': vcpus,
  'vcpu.maximum': vcpus * 2,
  'balloon.current': currentKib,
  'balloon.maximum': maximumKib,
  'balloon.rss': maximumKib,
})

/** A daemon of a host with 4 CPUs and 8 GiB, of which so many 2 MiB pages are set aside. */
async function fakeHost(t: Test, guests: FakeGuest[], { autostart = [] as FakeGuest[], hugepages = 0 } = {}) {
  const fake = await fakeGuests(t, guests)
  const numbers = [8 * 1024 * kib, 4, 2000, 1, 1, 4, 1]
  fake.daemon.on(procedures.nodeGetInfo, call =>
    call.reply(writer => {
      for (let index = 0; index < 32; index += 1) writer.i32('x86_64'.charCodeAt(index) || 0)
      const [memoryKib = 0, ...counts] = numbers
      writer.u64(memoryKib)
      for (const count of counts) writer.i32(count)
    }),
  )
  fake.daemon.on(procedures.getCapabilities, call =>
    call.reply(writer =>
      writer.string(`<capabilities><host><topology><cells num='1'><cell id='0'><memory unit='KiB'>8388608</memory>
        <pages unit='KiB' size='4'>1000</pages><pages unit='KiB' size='2048'>${hugepages}</pages>
        <pages unit='KiB' size='1048576'>0</pages></cell></cells></topology></host></capabilities>`),
    ),
  )
  fake.daemon.on(procedures.listAllDomains, call =>
    call.reply(writer => {
      writer.array(autostart, (to, own) => to.string(own.name).uuid(own.uuid).i32(own.id))
      writer.u32(autostart.length)
    }),
  )
  return fake
}

t.test('four calls for any number of guests; those that neither run nor start with the host do not count', async t => {
  const guests = numberedGuests(1000, index => ({
    id: index < 10 ? index + 1 : -1,
    params: promised(2, 1024 * kib, 512 * kib),
  }))
  const { daemon, host } = await fakeHost(t, guests, { autostart: guests.slice(5, 15) })
  const sample = await check.collect(host, check.parseOptions(), checkContext())
  t.match(sample, { cpus: 4, memoryBytes: 8 * gib, hugepagesBytes: 0 })
  t.equal(sample.guests.length, 15)
  t.equal(sample.guests.filter(({ running }) => running).length, 10)
  t.match(sample.guests[14], { name: 'web15', running: false, vcpus: 2, maximumBytes: gib, currentBytes: gib / 2 })
  t.same(daemon.called.filter(called => /GET_INFO|CAPABILITIES|ALL/.test(called)).sort(), [
    'CONNECT_GET_ALL_DOMAIN_STATS',
    'CONNECT_GET_CAPABILITIES',
    'CONNECT_LIST_ALL_DOMAINS',
    'NODE_GET_INFO',
  ])
  t.notOk(daemon.called.includes('DOMAIN_GET_XML_DESC'))
})

t.test('on a host with huge pages the XML tells which guests are on them; one that vanishes is no error', async t => {
  const backing = ['<memoryBacking><hugepages/></memoryBacking>', '<description>&lt;hugepages/></description>']
  const guests = numberedGuests(3, index => ({ params: promised(1, kib), xml: backing[index] ?? '' }))
  const vanished = { name: 'web4', uuid: '00000000-0000-0000-0000-000000000004', id: 4 }
  const { daemon, host } = await fakeHost(t, [...guests, vanished], { hugepages: 1024 })
  daemon.on(procedures.domainGetInfo, call => call.fail(42, 'Domain not found'))
  const sample = await check.collect(host, check.parseOptions(), checkContext())
  t.equal(sample.hugepagesBytes, 2 * gib)
  t.same(
    sample.guests.map(own => [own.name, own.hugepages]),
    [
      ['web1', true],
      ['web2', false],
      ['web3', false],
    ],
  )
})

t.test('the executable prints one line and its numbers, or what is too much', async t => {
  const guests = numberedGuests(2, index => ({ id: index === 0 ? 1 : -1, params: promised(20, 4 * 1024 * kib) }))
  const { daemon } = await fakeHost(t, guests, { autostart: guests })
  t.same(await runExecutable(name, ['--uri', daemon.uri, '-w', '5', '--autostart-warning', '100']), {
    stdout: `${name} OK: 5 vCPUs per CPU with 20 of running guests on 4 CPUs; maximum memory of running guests 4 GiB, with autostart guests 8 GiB, of 8 GiB
| vcpus_per_cpu=5;5;8;0 vcpus=20;;;0 cpus=4;;;0 running_memory_percent=50%;90;100;0 running_memory=4294967296B;;;0 autostart_memory_percent=100%;100;100;0 autostart_memory=8589934592B;;;0
`,
    stderr: '',
    status: 0,
  })
  t.same(await runExecutable(name, ['--uri', daemon.uri, '-c', '4.9']), {
    stdout: `${name} CRITICAL: vCPUs per CPU 5 with 20 of running guests on 4 CPUs (critical above 4.9); maximum memory of running and autostart guests 100 % of 8 GiB (warning above 90 %)
CRITICAL vCPUs per CPU 5 with 20 of running guests on 4 CPUs (critical above 4.9)
WARNING maximum memory of running and autostart guests 100 % of 8 GiB (warning above 90 %)
| vcpus_per_cpu=5;4;4.9;0 vcpus=20;;;0 cpus=4;;;0 running_memory_percent=50%;90;100;0 running_memory=4294967296B;;;0 autostart_memory_percent=100%;90;100;0 autostart_memory=8589934592B;;;0
`,
    stderr: '',
    status: 2,
  })
})

t.test('a real host: a guest counts from when it is to start with the host on', async t => {
  const { libvirtd: daemon } = await healthyGuest(t)
  const own = await ownGuest(t, daemon, { name: 'overcommit1', memoryMiB: 512, start: false })
  const host = Host.open(daemon.uri, { readOnly: true })
  t.teardown(() => host.close())
  const look = async () => (await check.collect(host, check.parseOptions(), checkContext())).guests
  t.match(
    (await look()).find(found => found.name === 'healthy'),
    {
      running: true,
      vcpus: Number,
      maximumBytes: Number,
      currentBytes: Number,
    },
  )
  t.equal(
    (await look()).find(found => found.name === own.name),
    undefined,
  )
  await daemon.virsh('autostart', own.name)
  t.match(
    (await look()).find(found => found.name === own.name),
    {
      running: false,
      vcpus: 1,
      maximumBytes: 512 * kib * kib,
      currentBytes: 512 * kib * kib,
    },
  )
})

t.test("the test driver's guest, whose numbers need a call of their own", async t => {
  const { uri } = await libvirtd(t)
  const testDriver = uri.replace(/^qemu(.*)\/(system|session)/, 'test$1/default')
  const { stdout, status } = await runExecutable(name, ['--uri', testDriver])
  t.match(stdout, `${name} CRITICAL: maximum memory of running guests 266.67 % of 3 GiB (critical above 100 %); `)
  t.equal(status, 2)
})

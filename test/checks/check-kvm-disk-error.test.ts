import t from 'tap'
import check, { type GuestDiskErrors } from '../../checks/check-kvm-disk-error.js'
import { domainState } from '../../libvirt/decode.js'
import { procedures } from '../../libvirt/procedures.js'
import { statusOf } from '../../plugin/output.js'
import { checkContext, runExecutable } from '../support/checks.js'
import { type FakeGuest, fakeGuests, numberedGuests } from '../support/fake-guests.js'
import { guest as healthyGuest } from '../support/services.js'

const name = 'check-kvm-disk-error'

function judged(...guests: Partial<GuestDiskErrors>[]) {
  const whole = { name: 'web1', uuid: 'u', id: 1, state: domainState(1, 1), disks: 2, faults: [] }
  const outcome = check.evaluate(
    guests.map(guest => ({ ...whole, ...guest })),
    check.parseOptions(),
  )
  const lines = outcome.findings.map(({ guest, device, message }) => `${guest} ${device ?? '-'}: ${message}`)
  return { status: statusOf(outcome), lines, summary: outcome.summary, metrics: outcome.metrics }
}

t.test('every error is CRITICAL, with disk, cause, place and what to do', t => {
  const paused = domainState(3, 5)
  const noSpace = { disk: 'vda', error: 'no space', path: '/data/web1.qcow2' } as const
  const unspecified = { disk: 'vdb', error: 'unspecified' } as const
  const { status, lines, metrics } = judged({ state: paused, faults: [noSpace, unspecified] }, { name: 'web2' })
  t.equal(status, 'CRITICAL')
  t.same(lines, [
    'web1 vda: no space (/data/web1.qcow2), and the guest is paused: make room, then virsh resume',
    "web1 vdb: I/O error, and the guest is paused: see the host's log and repair the storage, then virsh resume",
  ])
  t.match(metrics, [{ name: 'disks_with_errors', labels: { guest: 'web1' }, value: 2 }, { value: 0 }])
  t.same(judged({ faults: [noSpace] }).lines, ['web1 vda: no space (/data/web1.qcow2): make room'])
  t.match(judged({ faults: [{ disk: 'vdz', error: 'unknown' }] }), { status: 'CRITICAL', lines: [/unknown error/] })
  t.end()
})

t.test('a guest that is not known is UNKNOWN and hides no other; the summary counts the others', t => {
  const silent = { name: 'web2', unknown: 'its QEMU has not answered for 3.0 s' }
  t.match(judged({}, silent), {
    status: 'UNKNOWN',
    lines: ['web2 -: its QEMU has not answered for 3.0 s'],
    summary: 'no I/O errors on 2 disks of 1 active guest',
    metrics: [{ value: 0 }, { value: undefined }],
  })
  t.match(judged(), { status: 'OK', summary: 'no active guest' })
  t.end()
})

const disk = { 'block.count': 1, 'block.0.name': 'vda', 'block.0.path': '/data/vda' }
/** Answers with these disks and the codes of their errors (virDomainDiskErrorCode). */
function errors(...disks: (readonly [disk: string, code: number])[]): FakeGuest['answer'] {
  return (_, call) =>
    call.reply(writer => writer.array(disks, (to, [own, code]) => to.string(own).i32(code)).i32(disks.length))
}

const working = { params: { ...disk, 'block.0.rd.reqs': 1 }, answer: errors() } satisfies Partial<FakeGuest>

t.test('100 guests, 3 of them stuck: the others are complete and on time, the stuck ones named', async t => {
  const guests = numberedGuests(100, () => working)
  const [known, broken, silent, , off, alsoSilent] = guests
  Object.assign(known ?? {}, { params: disk, silentMs: 65_000 })
  Object.assign(broken ?? {}, { answer: errors(['vda', 2]), state: [3, 5] })
  Object.assign(silent ?? {}, { answer: undefined })
  Object.assign(alsoSilent ?? {}, { answer: undefined })
  Object.assign(off ?? {}, { id: -1, state: [5, 1], params: {} })
  const { host, asked } = await fakeGuests(t, guests)
  const startedMs = performance.now()
  const sample = await check.collect(host, check.parseOptions(), checkContext())
  t.ok(performance.now() - startedMs < 4000, 'two seconds for those that do not answer')
  t.equal(sample.length, 99)
  const { findings } = check.evaluate(sample, check.parseOptions())
  t.match(
    findings.map(found => `${found.status} ${found.guest}: ${found.message}`),
    [
      'UNKNOWN web1: its QEMU has not answered for 65.0 s',
      'CRITICAL web2: no space (/data/vda), and the guest is paused: make room, then virsh resume',
      /^UNKNOWN web3: its QEMU has not answered for 2\.\d s$/,
      /^UNKNOWN web6: its QEMU has not answered for 2\.\d s$/,
    ],
  )
  t.equal(asked().filter(call => call === 'DOMAIN_GET_DISK_ERRORS').length, 98, 'not the one known to be stuck')
  t.equal(asked().filter(call => call === 'CONNECT_GET_ALL_DOMAIN_STATS').length, 1)
  const againMs = performance.now()
  await check.collect(host, check.parseOptions(), checkContext())
  t.ok(performance.now() - againMs < 1000, 'the next run leaves them alone')
})

t.test('a guest that vanishes between list and question is no error', async t => {
  const guests = numberedGuests(2, () => working)
  const { daemon, host } = await fakeGuests(t, guests)
  daemon.on(procedures.domainGetDiskErrors, call => {
    const own = call.arguments.string()
    if (own === 'web1') call.fail(42, 'no domain with matching uuid')
    else call.fail(55, 'domain is not running')
  })
  t.same(await check.collect(host, check.parseOptions(), checkContext()), [])
})

t.test('without time left nobody is asked, and that is said', async t => {
  const { host } = await fakeGuests(
    t,
    numberedGuests(2, () => working),
  )
  const sample = await check.collect(host, check.parseOptions(), checkContext({ timeLeftMs: () => 400 }))
  const text = 'not asked: other guests took all the time, allow more with --timeout'
  t.same(
    sample.map(({ unknown }) => unknown),
    [text, text],
  )
})

t.test('a healthy guest is quiet', async t => {
  const { libvirtd: daemon, guest } = await healthyGuest(t)
  t.same(await runExecutable(name, ['--uri', daemon.readOnlyUri ?? daemon.uri, '--guest', guest.name]), {
    stdout: `${name} OK: no I/O errors on 1 disk of 1 active guest\n| ${guest.name}.disks_with_errors=0;;;0\n`,
    stderr: '',
    status: 0,
  })
})

t.test('the executable prints exactly this', async t => {
  const { daemon } = await fakeGuests(
    t,
    numberedGuests(1, () => ({ ...working, answer: errors(['vda', 1]) })),
  )
  const line = "web1 vda: I/O error (/data/vda): see the host's log and repair the storage"
  t.same(await runExecutable(name, ['--uri', daemon.uri]), {
    stdout: `${name} CRITICAL: ${line}\nCRITICAL ${line}\n| web1.disks_with_errors=1;;;0\n`,
    stderr: '',
    status: 2,
  })
})

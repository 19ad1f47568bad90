import t from 'tap'
import check, { type Filesystem, type GuestMounts } from '../../checks/check-kvm-guest-filesystem.js'
import { statusOf } from '../../plugin/output.js'
import { checkContext, runExecutable } from '../support/checks.js'
import { type FakeGuest, fakeGuests, numberedGuests, writeParams } from '../support/fake-guests.js'
import { libvirtd, ownGuest } from '../support/services.js'

const name = 'check-kvm-guest-filesystem'
const gib = 1024 ** 3
const hour = 3600
type Raw = Parameters<typeof check.parseOptions>[0]

/** A file system of 100 GiB. */
function filesystem(usedPercent: number, change: Partial<Filesystem> = {}): Filesystem {
  return { mount: '/data', device: 'vdb', type: 'ext4', totalBytes: 100 * gib, usedBytes: usedPercent * gib, ...change }
}

function guest(filesystems: readonly Filesystem[], readOnly?: readonly string[] | string): GuestMounts {
  const state = { state: 'running', reason: 'booted' }
  const answer = { kind: 'answered', value: { filesystems, readOnly } } as const
  return { name: 'web1', uuid: 'u', state, answer, watchedSeconds: 0, startSeen: false, answeredBefore: false }
}

function judged(guests: readonly GuestMounts[], raw: Raw = {}) {
  const outcome = check.evaluate(guests, check.parseOptions(raw))
  const bad = outcome.findings.filter(({ status }) => status !== 'OK')
  return { status: statusOf(outcome), messages: bad.map(({ message }) => message), outcome, summary: outcome.summary }
}

t.test('the share in use is judged at, below and above each limit', t => {
  for (const [used, status] of [
    [0, 'OK'],
    [85, 'OK'],
    [85.1, 'WARNING'],
    [95, 'WARNING'],
    [95.1, 'CRITICAL'],
    [100, 'CRITICAL'],
  ] as const) {
    t.equal(judged([guest([filesystem(used)])]).status, status, `${used} %`)
  }
  const { messages, outcome, summary } = judged([guest([filesystem(96), filesystem(10, { mount: '/' })])])
  t.same(messages, ['in use 96 % of 100 GiB (critical above 95 %)'])
  t.match(outcome.findings[0], { guest: 'web1', device: '/data' })
  t.equal(summary, 'highest use 96 % (web1 /data) of 2 file systems; growth of 2: collecting for 1 h')
  t.equal(judged([{ ...guest([filesystem(80)]), limits: { warning: '75' } }]).status, 'WARNING')
  t.end()
})

t.test('when it will be full is judged by its growth, if it grows', t => {
  for (const [hoursLeft, status] of [
    [24.1, 'OK'],
    [24, 'OK'],
    [23.9, 'WARNING'],
    [4, 'WARNING'],
    [3.9, 'CRITICAL'],
  ] as const) {
    const perSecond = (50 * gib) / (hoursLeft * hour)
    t.equal(judged([guest([filesystem(50, { perSecond })])]).status, status, `${hoursLeft} h`)
  }
  const { messages, outcome, summary } = judged([guest([filesystem(50, { perSecond: (25 * gib) / hour })])])
  t.same(messages, ['full in 2 h when it grows on by 25 GiB an hour (critical below 4 h)'])
  t.match(
    outcome.metrics.find(metric => metric.name === 'full_in'),
    {
      labels: { guest: 'web1', mount: '/data' },
      value: 2 * hour,
      warning: { text: '86400:' },
      critical: { text: '14400:' },
    },
  )
  t.equal(summary, 'highest use 50 % (web1 /data) of 1 file system')
  for (const perSecond of [0, -1]) t.equal(judged([guest([filesystem(50, { perSecond })])]).status, 'OK')
  t.equal(
    judged([guest([filesystem(50, { perSecond: gib })])], { 'full-warning': '~:', 'full-critical': '~:' }).status,
    'OK',
  )
  t.end()
})

t.test('without sizes nothing is made up', t => {
  const bare: Filesystem = { mount: '/', device: 'vda1', type: 'ext4' }
  const old = judged([guest([bare, { ...bare, device: 'vda2' }])])
  t.equal(old.status, 'UNKNOWN')
  t.same(old.messages, [
    'its agent does not tell how full its file systems are: install qemu-guest-agent 3.0 or newer in it',
  ])
  t.same(judged([guest([bare, filesystem(10)])]).messages, ['its agent could not find out how full it is'])
  t.match(judged([guest([])]), { status: 'OK', summary: 'no file system to look at' })
  t.match(judged([guest([]), guest([filesystem(10)])], { mount: 'data' }), { status: 'OK' })
  t.match(judged([guest([])], { mount: 'dta', type: 'ext' }), {
    status: 'UNKNOWN',
    messages: ['no file system in any guest matches --mount dta and --type ext: correct it'],
  })
  t.end()
})

t.test('a file system that is mounted read-only is CRITICAL unless it is meant to be', t => {
  const both = [filesystem(10), filesystem(10, { mount: '/boot', device: 'vda1' })]
  const meant = { 'expect-read-only': '^/boot$' }
  t.equal(judged([guest(both, [])]).status, 'OK')
  const { status, messages, outcome } = judged([guest(both, ['/data', '/boot', '/other'])], meant)
  t.equal(status, 'CRITICAL')
  t.same(messages, [
    'mounted read-only, perhaps after an error: see its kernel log, or say that it is meant with --expect-read-only',
  ])
  t.match(outcome.findings[0], { device: '/data' })
  t.equal(judged([guest(both, ['/boot'])], meant).status, 'OK')
  t.same(judged([guest(both, 'guest-file-open has been disabled')]).messages, [
    'whether its file systems are read-only is not known, its agent refuses to read /proc/1/mounts: guest-file-open has been disabled',
  ])
  t.end()
})

type Listed = readonly [mount: string, device: string, type: string, totalBytes?: number, usedBytes?: number]

/** Answers for file systems as libvirt does. */
function tells(list: readonly Listed[]): FakeGuest['answer'] {
  const params = list.flatMap(([mount, device, type, total, used], index) => {
    const sizes = total === undefined || used === undefined ? {} : { 'total-bytes': total, 'used-bytes': used }
    const fields = { mountpoint: mount, name: device, fstype: type, ...sizes, 'disk.count': 0 }
    return Object.entries(fields).map(([key, value]) => [`fs.${index}.${key}`, value] as const)
  })
  return (_, call) =>
    call.reply(writer => writeParams(writer, { 'fs.count': list.length, ...Object.fromEntries(params) }))
}

const many: Listed[] = [
  ['/var/lib/docker', 'dm-0', 'ext4', 100, 40],
  ['/', 'dm-0', 'ext4', 100, 40],
  ['/boot', 'vda1', 'xfs', 100, 20],
  ['/snap/core', 'loop0', 'squashfs', 100, 100],
  ['/old', 'vdc', 'ext4'],
  ['C:\\', '\\\\?\\Volume{1}\\', 'NTFS', 100, 30],
]

t.test('one call for all guests and one for each; each device is looked at once, and those asked for', async t => {
  const guests = numberedGuests(3, index => (index === 2 ? { state: [5, 1] } : { answer: tells(many) }))
  const { host, asked } = await fakeGuests(t, guests)
  const mountsOf = async (raw: Raw) => {
    const [sample] = await check.collect(host, check.parseOptions(raw), checkContext())
    return sample?.answer.kind === 'answered' ? sample.answer.value.filesystems.map(({ mount }) => mount) : undefined
  }
  t.same(await mountsOf({}), ['/', '/boot', '/old', 'C:\\'])
  t.same(asked(), ['CONNECT_GET_ALL_DOMAIN_STATS', 'DOMAIN_GET_GUEST_INFO', 'DOMAIN_GET_GUEST_INFO'])
  t.same(await mountsOf({ mount: '^/var', type: 'ext' }), ['/var/lib/docker'])
  t.same(await mountsOf({ 'exclude-mount': '^/(boot|old)$', 'exclude-type': 'NTFS' }), ['/', '/snap/core'])
})

t.test('growth is followed from run to run, by guest, device and mount point', async t => {
  let used = 0
  let nowMs = 1e12
  const guests = numberedGuests(1, () => ({
    answer: (...args) => tells([['/', 'vda1', 'ext4', 1000, used]])?.(...args),
  }))
  const { host } = await fakeGuests(t, guests)
  t.teardown(t.capture(Date, 'now', () => nowMs).restore)
  const context = checkContext()
  const options = check.parseOptions()
  const run = async () => check.evaluate(await check.collect(host, options, context), options)
  t.equal((await run()).summary, 'highest use 0 % (web1 /) of 1 file system; growth of 1: collecting for 1 h')
  for (let quarter = 1; quarter <= 4; quarter += 1) {
    used += 10
    nowMs += 900_000
    if (quarter < 4) t.equal(statusOf(await run()), 'OK')
  }
  const outcome = await run()
  t.equal(outcome.metrics.find(metric => metric.name === 'full_in')?.value, ((1000 - 40) / 40) * hour)
  t.equal(outcome.summary, 'highest use 4 % (web1 /) of 1 file system')
})

t.test('/proc/1/mounts is read on request; an agent that refuses that still tells the rest', async t => {
  const mounts = '/dev/vda1 / ext4 ro,relatime,errors=remount-ro 0 0\n/dev/vdb /my\\040data ext4 rw 0 0\n'
  const files: FakeGuest['agent'] = command => {
    if (command === 'guest-file-open') return 1000
    return command === 'guest-file-read' ? { 'buf-b64': Buffer.from(mounts).toString('base64') } : {}
  }
  const answer = tells([
    ['/', 'vda1', 'ext4', 100, 40],
    ['/my data', 'vdb', 'ext4', 100, 40],
  ])
  const guests = numberedGuests(2, index => ({
    answer,
    agent: index === 0 ? files : (_, call) => call.fail(1, 'guest-file-open has been disabled'),
  }))
  const { host, asked } = await fakeGuests(t, guests)
  const sample = await check.collect(host, check.parseOptions({ 'read-only-mounts': true }), checkContext())
  t.match(
    sample.map(each => each.answer),
    [{ value: { readOnly: ['/'] } }, { value: { readOnly: 'guest-file-open has been disabled' } }],
  )
  t.equal(asked().filter(called => called === 'QEMU_AGENT_COMMAND').length, 4)
  t.equal(judged(sample).messages.length, 2)
})

t.test('a real guest: its file system filled, mounted read-only, frozen, and its agent gone', async t => {
  const daemon = await libvirtd(t)
  const guest = await ownGuest(t, daemon, { name: 'filesystem1' })
  const state = t.testdir()
  const run = (...args: string[]) =>
    runExecutable(name, ['--uri', daemon.uri, '--state-dir', state, '--guest', 'filesystem1', ...args])
  const { stdout, status } = await run()
  t.match(
    stdout,
    /^check-kvm-guest-filesystem OK: highest use 0\.01 % \(filesystem1 \/data\) of 1 file system; growth of 1: collecting for 1 h\n\| filesystem1\._x2Fdata\.used_percent=0\.\d+%;85;95 filesystem1\._x2Fdata\.used=\d+B;;;0;\d+\n$/,
  )
  t.equal(status, 0)

  await guest.execute('dd if=/dev/zero of=/data/fill bs=1M count=190; sync')
  const warning = await run()
  t.match(
    warning.stdout,
    /^check-kvm-guest-filesystem WARNING: filesystem1 \/data: in use 8\d(\.\d+)? % of 213\.11 MiB \(warning above 85 %\)\nWARNING filesystem1 \/data: /,
  )
  t.equal(warning.status, 1)
  await guest.execute('dd if=/dev/zero of=/data/more bs=1M count=100; sync')
  const critical = await run()
  t.match(
    critical.stdout,
    /^check-kvm-guest-filesystem CRITICAL: filesystem1 \/data: in use (9\d(\.\d+)?|100) % of 2\d\d\.\d+ MiB/,
  )
  t.equal(critical.status, 2)
  t.match(await daemon.virsh('dominfo', 'filesystem1'), {})

  await guest.execute('rm /data/*; sync; mount -o remount,ro /data')
  t.equal((await run()).status, 0, 'not looked at unless asked for')
  const readOnly = await run('--read-only-mounts')
  t.match(
    readOnly.stdout,
    /^check-kvm-guest-filesystem CRITICAL: filesystem1 \/data: mounted read-only, perhaps after an error: /,
  )
  t.equal(readOnly.status, 2)
  await guest.execute('mount -o remount,rw /data')
  t.equal((await run('--read-only-mounts')).status, 0)

  await guest.agent('guest-fsfreeze-freeze')
  const frozen = await run()
  t.match(
    frozen.stdout,
    /^check-kvm-guest-filesystem UNKNOWN: filesystem1: its file systems are frozen, and its agent answers nothing else /,
  )
  t.equal(frozen.status, 3)
  await guest.agent('guest-fsfreeze-thaw')

  await guest.endAgent()
  const gone = await run()
  t.match(
    gone.stdout,
    /^check-kvm-guest-filesystem UNKNOWN: filesystem1: its agent is not connected any more: install and start qemu-guest-agent in it\n/,
  )
  t.equal(gone.status, 3)
  t.equal((await run('--unanswered', 'ok', '--grace', '0')).status, 0)
})

t.test('the executable says what is wrong, in one line, with status 3', async t => {
  for (const [args, line] of [
    [['--warning', 'x'], '--warning x: not a range: write [@][start:][end], for example 80, 10:, ~:5 or @10:20'],
    [['--mount', '('], /^--mount \(: not a regular expression: /],
  ] as const) {
    const { stdout, status } = await runExecutable(name, [...args])
    t.match(stdout.replace(`${name} UNKNOWN: `, '').trim(), line)
    t.equal(status, 3)
  }
})

import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import check, { type FreezableGuest } from '../../checks/check-kvm-guest-frozen.js'
import { statusOf } from '../../plugin/output.js'
import { waitUntil } from '../../scripts/services/process.js'
import { checkContext, runExecutable } from '../support/checks.js'
import { fakeGuests, numberedGuests, writeParams } from '../support/fake-guests.js'
import { ownGuest, ownLibvirtd } from '../support/services.js'

const name = 'check-kvm-guest-frozen'

function guest(status: string, change: Partial<FreezableGuest> = {}): FreezableGuest {
  const state = { state: 'running', reason: 'booted' }
  const answer = { kind: 'answered', value: status } as const
  return {
    name: 'web1',
    uuid: 'u',
    state,
    answer,
    watchedSeconds: 0,
    startSeen: false,
    answeredBefore: false,
    ...change,
  }
}

function frozen(frozenSeconds: number, job: FreezableGuest['job'] = 'none'): FreezableGuest {
  return guest('frozen', { frozenSeconds, job })
}

function judged(guests: readonly FreezableGuest[], raw: Parameters<typeof check.parseOptions>[0] = {}) {
  const outcome = check.evaluate(guests, check.parseOptions(raw))
  return { status: statusOf(outcome), messages: outcome.findings.map(({ message }) => message), outcome }
}

t.test('how long it has been seen frozen is judged at, below and above each limit', t => {
  for (const [seconds, status] of [
    [0, 'OK'],
    [60, 'OK'],
    [61, 'WARNING'],
    [300, 'WARNING'],
    [301, 'CRITICAL'],
  ] as const) {
    t.equal(judged([frozen(seconds)]).status, status, `${seconds} s`)
  }
  t.same(judged([frozen(400)]).messages, [
    'file systems seen frozen for 400 s (no backup is running): thaw them with virsh domfsthaw (critical above 300 s)',
  ])
  t.match(judged([frozen(400, 'unknown')]).messages, [/\(whether a backup is running is not known\)/])
  t.equal(judged([{ ...frozen(20), limits: { critical: '10' } }]).status, 'CRITICAL')
  t.same(
    judged([guest('thawed'), frozen(5)]).outcome.metrics.map(({ value }) => value),
    [0, 5],
  )
  t.equal(judged([guest('thawed')]).outcome.summary, 'no file systems frozen in 1 guest')
  t.match(judged([guest('error')]), { status: 'UNKNOWN', messages: [/nor that they are not: error$/] })
  t.end()
})

t.test('while a backup or a snapshot is running it is mentioned, not judged', t => {
  for (const [job, status] of [
    ['backup', 'OK'],
    ['snapshot', 'OK'],
    ['outgoing migration', 'CRITICAL'],
    ['none', 'CRITICAL'],
  ] as const) {
    t.equal(judged([frozen(4000, job)]).status, status, job)
  }
  t.equal(
    judged([frozen(400, 'backup'), guest('thawed')]).outcome.summary,
    'web1: file systems seen frozen for 400 s (a backup is running); no file systems frozen in 1 guest',
  )
  t.end()
})

t.test(
  'time counts from the run that saw it first, through runs without an answer, and jobs of frozen guests alone are read',
  async t => {
    let nowMs = 1e12
    let answers = true
    const guests = numberedGuests(2, index => ({
      agent: (_, call) => (index === 0 ? 'thawed' : answers ? 'frozen' : call.fail(88, 'not now')),
      answer: (_, call) => call.reply(writer => writeParams(writer.i32(2), { operation: 9 })),
    }))
    const { host, asked } = await fakeGuests(t, guests)
    t.capture(Date, 'now', () => nowMs)
    const context = checkContext()
    const run = async () => {
      const sample = await check.collect(host, check.parseOptions(), context)
      nowMs += 30_000
      return sample.map(({ frozenSeconds, job }) => [frozenSeconds, job])
    }
    const nothing = [undefined, undefined]
    t.same(await run(), [nothing, [0, 'backup']])
    t.same(asked(), [
      'CONNECT_GET_ALL_DOMAIN_STATS',
      'QEMU_AGENT_COMMAND',
      'QEMU_AGENT_COMMAND',
      'DOMAIN_GET_JOB_STATS',
    ])
    t.same(await run(), [nothing, [30, 'backup']])
    answers = false
    t.same(await run(), [nothing, nothing])
    answers = true
    t.same(await run(), [nothing, [90, 'backup']])
    for (const each of guests) each.answer = (_, call) => call.fail(1, 'no')
    t.same(await run(), [nothing, [120, 'unknown']])
    for (const each of guests) each.id = 99
    t.same(await run(), [nothing, [0, 'unknown']], 'restarted')
  },
)

const pullBackup = (directory: string) => `<domainbackup mode='pull'>
  <server transport='unix' socket='${join(directory, 'backup.sock')}'/>
  <disks><disk name='vda' type='file'><scratch file='${join(directory, 'scratch.qcow2')}'/></disk></disks>
</domainbackup>`

t.test('a real guest: thawed, frozen, frozen during a backup, left frozen', async t => {
  const daemon = await ownLibvirtd(t)
  const guest = await ownGuest(t, daemon, { name: 'frozen1' })
  const state = t.testdir()
  const limits = ['--warning', '0', '--critical', '0']
  const run = () => runExecutable(name, ['--uri', daemon.uri, '--state-dir', state, ...limits])
  t.same(await run(), {
    stdout: `${name} OK: no file systems frozen in 1 guest\n| frozen1.frozen=0s\n`,
    stderr: '',
    status: 0,
  })
  await guest.agent('guest-fsfreeze-freeze')
  t.same(await run(), {
    stdout: `${name} OK: frozen1: file systems seen frozen for 0 s (no backup is running); no file systems frozen in 0 guests\n| frozen1.frozen=0s;0;0\n`,
    stderr: '',
    status: 0,
  })
  const left = await waitUntil(
    'it is seen frozen a second time',
    async () => {
      const result = await run()
      return result.status === 2 ? result : undefined
    },
    { timeoutMs: 30_000 },
  )
  t.match(
    left.stdout,
    /^check-kvm-guest-frozen CRITICAL: frozen1: file systems seen frozen for [\d.]+ m?s \(no backup is running\): thaw them with virsh domfsthaw \(critical above 0 s\)\nCRITICAL frozen1: .*\n\| frozen1\.frozen=[\d.]+s;0;0\n$/,
  )
  const backup = join(daemon.directory, 'backup.xml')
  writeFileSync(backup, pullBackup(daemon.directory))
  await daemon.virsh('backup-begin', 'frozen1', backup)
  const excused = await run()
  t.match(
    excused.stdout,
    /^check-kvm-guest-frozen OK: frozen1: file systems seen frozen for [\d.]+ m?s \(a backup is running\); /,
  )
  t.equal(excused.status, 0)
  await daemon.virsh('domjobabort', 'frozen1')
  t.equal((await run()).status, 2)
  await daemon.virsh('domfsthaw', 'frozen1')
  t.equal((await run()).status, 0)
})

import t from 'tap'
import check, { type GuestJob } from '../../checks/check-kvm-job.js'
import { domainState, jobFromParams, jobType } from '../../libvirt/decode.js'
import { statusOf } from '../../plugin/output.js'
import { waitUntil } from '../../scripts/services/process.js'
import { checkContext, runExecutable } from '../support/checks.js'
import { type FakeGuest, fakeGuests, numberedGuests, writeParams } from '../support/fake-guests.js'
import { libvirtd, ownGuest } from '../support/services.js'

const name = 'check-kvm-job'
const hour = 3_600_000
const GiB = 1024 ** 3
const outgoing = 5
const backup = 9

function guest(type: number, params: Record<string, number> = {}, change: Partial<GuestJob> = {}): GuestJob {
  const job = jobFromParams(jobType(type), new Map(Object.entries(params)))
  return { name: 'web1', uuid: 'u', id: 1, state: domainState(1, 1), job, ...change }
}

function judged(guests: readonly GuestJob[], raw: Parameters<typeof check.parseOptions>[0] = {}) {
  const outcome = check.evaluate(guests, check.parseOptions(raw))
  const bad = outcome.findings.filter(({ status }) => status !== 'OK')
  return { status: statusOf(outcome), messages: bad.map(({ message }) => message), outcome }
}

t.test('the age of a job is judged at, below and above each limit, whatever it does', t => {
  for (const [hours, status] of [
    [0.1, 'OK'],
    [1, 'OK'],
    [1.01, 'WARNING'],
    [6, 'WARNING'],
    [6.01, 'CRITICAL'],
  ] as const) {
    for (const operation of [0, 2, outgoing, 8, backup])
      t.equal(judged([guest(2, { operation, time_elapsed: hours * hour })]).status, status, `${operation} ${hours} h`)
  }
  const half = { operation: backup, time_elapsed: 7 * hour, data_total: 4 * GiB, data_remaining: GiB }
  t.same(judged([guest(1, half)]).messages, ['backup has run 7 h with 1 GiB of 4 GiB left (critical above 6 h)'])
  t.equal(judged([guest(1, half)], { critical: '10' }).status, 'WARNING')
  t.equal(judged([guest(1, half, { limits: { warning: '8', critical: '9' } })]).status, 'OK', 'own limits win')
  t.same(judged([guest(2, { time_elapsed: 2 * hour })]).messages, ['a job has run 2 h (warning above 1 h)'])
  t.same(judged([guest(2, { operation: 2 })]).messages, ['save: libvirt does not tell how long it has run'])
  t.end()
})

t.test('what has ended is no job', t => {
  for (const type of [0, 3, 4, 5]) {
    const { status, outcome } = judged([guest(type, { operation: 2, time_elapsed: 9 * hour })])
    t.same([status, outcome.summary, outcome.metrics], ['OK', 'no job on 1 active guest', []], `type ${type}`)
  }
  t.end()
})

/** A migration that transfers 100 MiB/s while the guest changes so much of its memory. */
function migration(dirtyMiB: number, change: Record<string, number> = {}): Record<string, number> {
  const speeds = { memory_bps: 100 * 1024 ** 2, memory_dirty_rate: dirtyMiB * 256, memory_page_size: 4096 }
  return { operation: outgoing, time_elapsed: 60_000, memory_iteration: 5, ...speeds, ...change }
}

t.test('a migration does not converge when the guest changes what it transfers, from the third pass on', t => {
  for (const [params, status] of [
    [migration(99), 'OK'],
    [migration(100), 'OK'],
    [migration(101), 'WARNING'],
    [migration(101, { memory_iteration: 3 }), 'WARNING'],
    [migration(500, { memory_iteration: 2 }), 'OK'],
    [migration(500, { memory_iteration: 1 }), 'OK'],
    [migration(500, { memory_postcopy_requests: 3 }), 'OK'],
    [migration(500, { memory_bps: 0 }), 'OK'],
    [migration(500, { operation: 2 }), 'OK'],
  ] as const) {
    t.equal(judged([guest(2, params)]).status, status, JSON.stringify(params))
  }
  t.equal(judged([guest(2, migration(500), { state: domainState(1, 10) })]).status, 'OK', 'post-copy')
  t.equal(judged([guest(2, migration(150))], { 'dirty-critical': '120' }).status, 'CRITICAL')
  t.equal(judged([guest(2, migration(150))], { iterations: '6' }).status, 'OK')
  t.same(judged([guest(2, migration(150, { memory_iteration: 12, auto_converge_throttle: 80 }))]).messages, [
    'memory changes 150 % of what its migration transfers (150 MiB/s of 100 MiB/s), pass 12, its CPUs throttled by 80 % (warning above 100 %)',
  ])
  t.end()
})

t.test('the summary names the oldest job; a guest that does not answer is UNKNOWN', t => {
  const guests = [
    guest(0),
    guest(2, { operation: 8, time_elapsed: 5000 }, { name: 'web2' }),
    guest(1, { operation: backup, time_elapsed: 90_000 }, { name: 'web3' }),
  ]
  t.equal(judged(guests).outcome.summary, '2 jobs on 3 active guests, oldest web3 backup 90 s')
  t.match(judged([...guests, { name: 'web4', uuid: 'u', unknown: 'its QEMU has not answered for 3.0 s' }]), {
    status: 'UNKNOWN',
    messages: ['its QEMU has not answered for 3.0 s'],
    outcome: { summary: '2 jobs on 3 active guests, oldest web3 backup 90 s' },
  })
  t.equal(judged([]).outcome.summary, 'no active guest')
  t.end()
})

const balloon = { 'balloon.current': 1, 'balloon.rss': 1 }
/** Answers with a job (virDomainJobType and parameters). */
function job(type: number, params: Record<string, number>): FakeGuest['answer'] {
  return (_, call) =>
    call.reply(writer => {
      writer.i32(type)
      writeParams(writer, params)
    })
}

const idle = { params: balloon, answer: job(0, {}) } satisfies Partial<FakeGuest>

t.test('one bulk call, one call each; the stuck and the gone spoil nothing; --operation filters', async t => {
  const guests = numberedGuests(50, () => idle)
  const [known, silent, saving, backedUp, off] = guests
  Object.assign(known ?? {}, { params: { 'balloon.current': 1 }, silentMs: 9000 })
  Object.assign(silent ?? {}, { answer: undefined })
  Object.assign(saving ?? {}, { answer: job(2, { operation: 2, time_elapsed: 1000 }), xml: '' })
  const limits = "<metadata><sensu-kvm:limits><check-kvm-job warning='9'/></sensu-kvm:limits></metadata>"
  Object.assign(backedUp ?? {}, { answer: job(1, { operation: backup, time_elapsed: 2000 }), xml: limits })
  Object.assign(off ?? {}, { id: -1, state: [5, 1], params: {} })
  const { host, asked } = await fakeGuests(t, guests)
  const look = async (raw = {}) => {
    const sample = await check.collect(host, check.parseOptions(raw), checkContext())
    return sample.flatMap(({ name: own, job, unknown, limits: set }) =>
      job?.type === 'none' ? [] : [`${own} ${job?.operation ?? unknown} ${set?.['warning'] ?? ''}`],
    )
  }
  t.match(await look({ 'guest-limits': true }), [
    'web1 its QEMU has not answered for 9.0 s ',
    /^web2 its QEMU has not answered for 2\.\d s $/,
    'web3 save ',
    'web4 backup 9',
  ])
  t.equal(asked().filter(call => call === 'CONNECT_GET_ALL_DOMAIN_STATS').length, 1)
  t.equal(asked().filter(call => call === 'DOMAIN_GET_JOB_STATS').length, 48)
  t.equal(asked().filter(call => call === 'DOMAIN_GET_XML_DESC').length, 2, 'of those with a job')
  t.match(await look({ operation: ['Backup'] }), [/^web1/, /^web2/, 'web4 backup '])
  await t.rejects(look({ operation: ['copy'] }), { message: /^--operation copy: not one of start, save, / })
})

t.test('a real guest that is backed up', async t => {
  const daemon = await libvirtd(t)
  await ownGuest(t, daemon, { name: 'job1' })
  const run = (...args: string[]) =>
    runExecutable(name, ['--uri', daemon.readOnlyUri ?? daemon.uri, '--guest', 'job1', ...args])
  t.same(await run(), { stdout: `${name} OK: no job on 1 active guest\n`, stderr: '', status: 0 })
  const patience = { timeoutMs: 20_000 }
  // Pull mode: the job lasts until somebody ends it.
  const xml = `${t.testdir({ 'backup.xml': `<domainbackup mode='pull'><server transport='unix' socket='${daemon.directory}/nbd'/></domainbackup>` })}/backup.xml`
  await daemon.virsh('backup-begin', 'job1', xml)
  const old = await waitUntil(
    'the job has an age',
    async () => {
      const found = await run('-w', '0', '-c', '0.5')
      return found.status === 1 ? found : undefined
    },
    patience,
  )
  t.match(
    old.stdout,
    /^check-kvm-job WARNING: job1: backup has run [\d.]+ m?s( with [^\n]+ left)? \(warning above 0 s\)\n/,
  )
  t.match(await run(), {
    stdout: /^check-kvm-job OK: 1 job on 1 active guest, oldest job1 backup [\d.]+ m?s\n/,
    status: 0,
  })
  await daemon.virsh('domjobabort', 'job1')
  await waitUntil('the job is gone', async () => (await run()).stdout.includes('no job') || undefined, patience)
})

t.test('the executable prints exactly this', async t => {
  const save = { operation: 2, time_elapsed: 2 * hour, data_total: 4096, data_remaining: 1024 }
  const { daemon } = await fakeGuests(
    t,
    numberedGuests(1, () => ({ ...idle, answer: job(2, save) })),
  )
  const line = 'web1: save has run 2 h with 1 KiB of 4 KiB left (warning above 1 h)'
  t.same(await runExecutable(name, ['--uri', daemon.uri]), {
    stdout: `${name} WARNING: ${line}\nWARNING ${line}\n| web1.job_time=7200s;3600;21600;0 web1.job_remaining=1024B;;;0;4096\n`,
    stderr: '',
    status: 1,
  })
})

import t from 'tap'
import check, { type GuestClock } from '../../checks/check-kvm-guest-time.js'
import { statusOf } from '../../plugin/output.js'
import { checkContext, runExecutable } from '../support/checks.js'
import { type FakeGuest, fakeGuests, numberedGuests } from '../support/fake-guests.js'
import { libvirtd, ownGuest } from '../support/services.js'

const name = 'check-kvm-guest-time'

function guest(offsetSeconds: number, roundTripSeconds = 0): GuestClock {
  const state = { state: 'running', reason: 'booted' }
  const answer = { kind: 'answered', value: { offsetSeconds, roundTripSeconds } } as const
  return { name: 'web1', uuid: 'u', state, answer, watchedSeconds: 0, startSeen: false, answeredBefore: false }
}

function judged(guests: readonly GuestClock[], raw: Parameters<typeof check.parseOptions>[0] = {}) {
  const outcome = check.evaluate(guests, check.parseOptions(raw))
  return { status: statusOf(outcome), messages: outcome.findings.map(({ message }) => message), outcome }
}

t.test('the drift is judged at, below and above each limit, ahead and behind alike', t => {
  for (const [offset, status] of [
    [0, 'OK'],
    [1, 'OK'],
    [1.01, 'WARNING'],
    [10, 'WARNING'],
    [10.01, 'CRITICAL'],
    [115_200, 'CRITICAL'],
  ] as const) {
    t.equal(judged([guest(offset)]).status, status, `${offset} s ahead`)
    t.equal(judged([guest(-offset)]).status, status, `${offset} s behind`)
  }
  t.equal(judged([{ ...guest(3), limits: { critical: '2' } }]).status, 'CRITICAL')
  t.end()
})

t.test('what the round trip leaves open is not held against the guest', t => {
  t.equal(judged([guest(-1.4, 1)]).status, 'OK')
  t.equal(judged([guest(-1.6, 1)]).status, 'WARNING')
  const { messages, outcome } = judged([guest(-32, 0.02)])
  t.same(messages, [
    'clock behind by at least 31.99 s (32 s ± 10 ms): set it with virsh domtime --now, and run a time service in it (critical above 10 s)',
  ])
  t.match(outcome.metrics, [
    { name: 'drift', value: 31.99, unit: 's', warning: { text: '1' }, critical: { text: '10' } },
    { name: 'offset', value: -32 },
    { name: 'round_trip', value: 0.02 },
  ])
  t.equal(judged([guest(0.2), guest(0.1)]).outcome.summary, 'largest certain drift 200 ms (web1, of 2 guests)')
  t.equal(judged([]).outcome.summary, 'no clock to look at')
  t.end()
})

t.test('the guest is compared with the middle of the round trip, the shorter of two if it is long', async t => {
  let nowMs = 1e12
  /** The daemon's answer takes so long; the guest is five seconds ahead when it is half over. */
  const answers = (...tookMs: number[]): FakeGuest['answer'] => {
    return (_, call) => {
      const [took = 0] = tookMs.splice(0, 1)
      const guestMs = nowMs + took / 2 + 5000
      nowMs += took
      call.reply(writer => writer.i64(Math.floor(guestMs / 1000)).u32((guestMs % 1000) * 1e6))
    }
  }
  const guests = numberedGuests(1)
  const { host, asked } = await fakeGuests(t, guests)
  t.capture(Date, 'now', () => nowMs)
  for (const [answer, roundTripSeconds, calls] of [
    [answers(100), 0.1, 1],
    [answers(600, 200), 0.2, 2],
    [answers(600, 800), 0.6, 2],
  ] as const) {
    for (const each of guests) if (answer !== undefined) each.answer = answer
    const before = asked().length
    const [sample] = await check.collect(host, check.parseOptions(), checkContext())
    t.match(sample?.answer, { kind: 'answered', value: { offsetSeconds: 5, roundTripSeconds } })
    t.equal(asked().length - before, 1 + calls)
  }
})

t.test('a real guest whose clock is right, and then wrong', async t => {
  const daemon = await libvirtd(t)
  const guest = await ownGuest(t, daemon, { name: 'time1' })
  // Without hardware KVM its clock starts a second late or two.
  const args = ['--uri', daemon.uri, '--state-dir', t.testdir(), '--guest', 'time1', '--warning', '3']
  const run = () => runExecutable(name, args)
  const right = await run()
  t.match(
    right.stdout,
    /^check-kvm-guest-time OK: largest certain drift [\d.]+ m?s \(time1, of 1 guest\)\n\| time1\.drift=[\d.]+s;3;10 time1\.offset=-?[\d.]+s time1\.round_trip=0\.\d+s\n$/,
  )
  t.equal(right.status, 0)
  await guest.execute('date -s @$(($(date +%s) - 3600))')
  const behind = await run()
  t.match(
    behind.stdout,
    /^check-kvm-guest-time CRITICAL: time1: clock behind by at least (3[56]\d\d(\.\d+)? s|1 h) \(.* ± [\d.]+ m?s\): set it with virsh domtime --now, and run a time service in it \(critical above 10 s\)\nCRITICAL time1: /,
  )
  t.equal(behind.status, 2)
  await guest.execute('date -s @$(($(date +%s) + 3607))')
  const ahead = await run()
  t.match(ahead.stdout, /^check-kvm-guest-time WARNING: time1: clock ahead by at least [3-7](\.\d+)? s /)
  t.equal(ahead.status, 1)

  // libvirt itself would wait for five seconds and more.
  await guest.stopAgent(30)
  const startedMs = performance.now()
  const silent = await run()
  t.match(
    silent.stdout,
    /^check-kvm-guest-time UNKNOWN: time1: its agent does not answer, for 1(\.\d+)? s: restart qemu-guest-agent in it\n/,
  )
  t.equal(silent.status, 3)
  t.ok(performance.now() - startedMs < 5000, 'and in time')
})

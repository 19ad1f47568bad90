import t from 'tap'
import { noteAttempt, recentAttempts } from '../../handlers/remediate/attempts.js'
import { decide, type FaultyDisk, needsDisks, permissions } from '../../handlers/remediate/decide.js'
import { findGuest, isHostOf, isListed, subjectOf } from '../../handlers/remediate/subject.js'
import { domainState } from '../../libvirt/decode.js'
import { readEvent } from '../../plugin/event.js'
import { MemoryState } from '../../plugin/state.js'
import { safeName } from '../../plugin/text.js'

const mebibyte = 1024 * 1024
const wanted = { autostart: true, expected: false }
const full: FaultyDisk = { disk: 'vda', error: 'no space', availableBytes: 10 * mebibyte, place: 'pool images' }

t.test('every state that libvirt knows is decided: only these four permit anything', async t => {
  const acted = new Map<string, string>()
  const states = [1, 2, 3, 4, 5, 6, 7, 8].map(state => [state, state === 8 ? 99 : state] as const)
  for (const [, stateCode] of states) {
    for (let reasonCode = 0; reasonCode <= 16; reasonCode += 1) {
      const state = domainState(stateCode, reasonCode)
      const { act } = decide(state, wanted, [full], mebibyte)
      if (act !== 'nothing') acted.set(`${state.state} (${state.reason})`, act)
    }
  }
  t.same(Object.fromEntries(acted), {
    'shut off (crashed)': 'start',
    'shut off (failed)': 'start',
    'shut off (daemon)': 'start',
    'paused (I/O error)': 'resume',
  })
})

t.test('the table of permissions names states as libvirt has them', async t => {
  const known = new Set<string>()
  for (let stateCode = 0; stateCode <= 7; stateCode += 1) {
    for (let reasonCode = 0; reasonCode <= 16; reasonCode += 1) {
      const { state, reason } = domainState(stateCode, reasonCode)
      known.add(state).add(`${state} (${reason})`)
    }
  }
  for (const state of Object.keys(permissions)) t.ok(known.has(state), state)
})

const crashed = domainState(5, 3)
const ioError = domainState(3, 5)

t.test('a crashed guest is started if it should run', async t => {
  t.match(crashed, { state: 'shut off', reason: 'crashed' })
  t.notOk(needsDisks(crashed))
  t.match(decide(crashed, { autostart: false, expected: true }, undefined, 1), { act: 'start' })
  t.match(decide(crashed, { autostart: false, expected: false }, undefined, 1), {
    act: 'nothing',
    why: /neither marked to start with the host nor named by should_run/,
  })
})

t.test('what an administrator, a migration or the guest itself has ended is not started', async t => {
  for (const [reasonCode, words] of [
    [0, /before libvirt started/],
    [1, /shut down/],
    [2, /administrator switched it off/],
    [4, /runs on another host/],
    [5, /saved/],
    [7, /snapshot/],
    [42, /not known here/],
  ] as const)
    t.match(decide(domainState(5, reasonCode), wanted, undefined, 1), { act: 'nothing', why: words })
})

t.test('a guest paused by a disk without space goes on once there is as much as is asked for', async t => {
  t.match(ioError, { state: 'paused', reason: 'I/O error' })
  t.ok(needsDisks(ioError))
  const withFree = (availableBytes: number) => decide(ioError, wanted, [{ ...full, availableBytes }], 10 * mebibyte)
  t.match(withFree(10 * mebibyte), { act: 'resume', why: /there is room again: vda has 10 MiB on pool images/ })
  t.match(withFree(10 * mebibyte - 1), { act: 'nothing', why: /pool images has 10 MiB free: waiting for 10 MiB/ })
  const others: [disks: FaultyDisk[] | undefined, words: RegExp][] = [
    [undefined, /could not be read/],
    [[], /QEMU names no disk/],
    [[{ disk: 'vda', error: 'unspecified', availableBytes: 1e12 }], /other than a lack of space/],
    [
      [full, { disk: 'vdb', error: 'no space', unknownBecause: 'it is no file' }],
      /disk vdb had no space.*not known: it is no file/,
    ],
  ]
  for (const [disks, words] of others) t.match(decide(ioError, wanted, disks, 1), { act: 'nothing', why: words })
})

t.test('a guest paused by a user stays paused, whatever else is true of it', async t => {
  t.match(decide(domainState(3, 1), { autostart: true, expected: true }, [full], 1), {
    act: 'nothing',
    why: /administrator paused it/,
  })
})

/** An event of a guest's own client, as results of `--per-guest` become. */
function event(changes: { client?: object; check?: object; [name: string]: unknown } = {}) {
  const { client = {}, check = {}, ...others } = changes
  return readEvent(
    JSON.stringify({
      id: '1',
      client: { name: 'web1', ...client },
      check: { name: 'state_check', status: 2, origin: 'node1', source: 'web1', output: 'x', ...check },
      action: 'create',
      silenced: false,
      ...others,
    }),
  )
}

t.test('an event names its guest by its own client or by the attribute guest, else nothing is done', async t => {
  t.same(subjectOf(event(), ['CRITICAL']), { name: 'web1', uuid: undefined, host: 'node1' })
  t.same(subjectOf(event({ check: { guest_uuid: 'ABC' } }), ['CRITICAL']), { name: 'web1', uuid: 'abc', host: 'node1' })
  const ofHost = { client: { name: 'node1' }, check: { origin: undefined, source: undefined } }
  t.match(subjectOf(event(ofHost), ['CRITICAL']), { nothing: /names no guest: run the check with --per-guest/ })
  t.same(subjectOf(event({ ...ofHost, check: { ...ofHost.check, guest: 'my vm' } }), ['CRITICAL']), {
    name: 'my vm',
    uuid: undefined,
    host: 'node1',
  })
})

t.test('resolved, flapping and silenced events, and other severities, are left alone', async t => {
  const cases: [changes: Parameters<typeof event>[0], words: string][] = [
    [{ action: 'resolve' }, 'the event is resolved'],
    [{ action: 'flapping' }, 'the event is flapping'],
    [{ silenced: true }, 'the event is silenced'],
    [{ check: { status: 1 } }, 'the event is WARNING, which severities does not name'],
    [{ check: { status: 99 } }, 'the event is UNKNOWN, which severities does not name'],
  ]
  for (const [changes, nothing] of cases) t.same(subjectOf(event(changes), ['CRITICAL']), { nothing })
})

t.test('a guest is found by its UUID, its name, or the name that its client has', async t => {
  const odd = 'my vm/ü'
  const domains = [
    { name: 'web1', uuid: '1' },
    { name: odd, uuid: '2' },
    { name: safeName(odd), uuid: '3' },
  ]
  const find = (name: string, uuid?: string) => findGuest(domains, { name, uuid, host: 'node1' })?.uuid
  t.equal(find('web1'), '1')
  t.equal(find('web1', '2'), '2')
  t.equal(find('web1', '9'), undefined, 'another guest has the name now')
  t.equal(find('gone'), undefined)
  t.equal(find(odd), '2')
  t.equal(find(safeName(odd)), '3', 'a guest that really has that name comes first')
  t.equal(findGuest(domains.slice(0, 2), { name: safeName(odd), uuid: undefined, host: '' })?.uuid, '2')
})

t.test('lists name guests exactly, by pattern or by UUID', async t => {
  const guest = { name: 'web1.example', uuid: 'ab-cd' }
  for (const entry of ['web1.example', 'web*', '*', '*1*', 'web1*.example*', 'AB-CD'])
    t.ok(isListed(['other', entry], guest), entry)
  for (const entry of ['web1', 'web1?example', 'Web*', '.*', 'web1.example.com', 'web1.*.example', 'w*x'])
    t.notOk(isListed([entry], guest), entry)
  t.notOk(isListed([], guest))
  t.notOk(isListed(['*a'.repeat(1000)], { name: 'ab'.repeat(999), uuid: '' }), 'in no time')
})

t.test('a client is the host of its name, with or without domain', async t => {
  for (const [client, hostname] of [
    ['node1', 'node1'],
    ['node1', 'node1.example'],
    ['node1.example', 'NODE1'],
  ] as const)
    t.ok(isHostOf(client, hostname), `${client} ${hostname}`)
  for (const [client, hostname] of [
    ['node1', 'node2'],
    ['node1.north', 'node1.south'],
    ['node', 'node1'],
  ] as const)
    t.notOk(isHostOf(client, hostname), `${client} ${hostname}`)
})

t.test('attempts are counted within an hour, and told when the next one may be', async t => {
  const hour = 3_600_000
  const store = new MemoryState().open({ check: 'remediate-kvm', uri: '', options: {}, directory: undefined })
  const at = (minutes: number) => noteAttempt(store, 10 * hour + minutes * 60_000, 2)
  t.same(await at(0), { number: 1 })
  t.same(await at(30), { number: 2 })
  t.same(await at(59), { exhausted: true, nextMs: 11 * hour })
  t.same(await at(60), { number: 2 }, 'the first one is an hour old')
  t.same(await at(61), { exhausted: true, nextMs: 11 * hour + 30 * 60_000 })
})

t.test('what is kept may be anything, and a clock that was set back permits nothing more', async t => {
  for (const kept of [undefined, null, 'x', {}, ['x', null, Number.NaN]]) t.same(recentAttempts(kept, 1000), [])
  t.same(recentAttempts([5_000_000, 999], 1000), [1000, 999])
})

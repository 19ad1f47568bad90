import t from 'tap'
import { askAgents, type Question } from '../../libvirt/guest-agents.js'
import type { Host } from '../../libvirt/host.js'
import { procedures } from '../../libvirt/procedures.js'
import { type FakeGuest, fakeGuests, numberedGuests } from '../support/fake-guests.js'

const well: FakeGuest['answer'] = (_, call) => call.reply(writer => writer.i64(1).u32(0))
const xml =
  "<devices><channel><target type='virtio' name='org.qemu.guest_agent.0' state='connected'/></channel></devices>"
/** Never answers, as long as libvirt waits for it. */
const stuck: Partial<FakeGuest> = { answer: () => undefined, xml }

/** Asks all guests for their time and returns the kind of answer of each, by name. */
async function askAll(host: Host, guests: readonly FakeGuest[], timeLeftMs = () => 10_000) {
  const signal = new AbortController().signal
  const answers = await askAgents(host, guests, (_, guest, limits) => host.domainTimeMs(guest, limits), {
    signal,
    timeLeftMs,
  })
  return new Map(guests.map(({ name, uuid }) => [name, answers.get(uuid)?.kind]))
}

function namesOf(kinds: ReadonlyMap<string, unknown>, wanted: string): string[] {
  return [...kinds].filter(([, kind]) => kind === wanted).map(([name]) => name)
}

t.test('100 guests, 3 whose agents hang in libvirt: the others answer in time, by five checks at once', async t => {
  const hanging = [0, 1, 60]
  const names = ['web1', 'web2', 'web61']
  const guests = numberedGuests(100, index => (hanging.includes(index) ? stuck : { answer: well }))
  const { host, daemon } = await fakeGuests(t, guests)
  const startedMs = performance.now()
  const runs = await Promise.all(Array.from({ length: 5 }, () => askAll(host, guests)))
  const seconds = (performance.now() - startedMs) / 1000
  t.ok(seconds < 4, `${seconds} s`)
  for (const kinds of runs) {
    t.same(namesOf(kinds, 'silent'), names)
    t.equal(namesOf(kinds, 'answered').length, 97)
  }
  const asked = daemon.count(procedures.domainGetTime)
  t.equal(asked, 5 * 97 + 3, 'each of those that hang is asked once')
  t.same(namesOf(await askAll(host, guests), 'silent'), names)
  t.equal(daemon.count(procedures.domainGetTime), asked + 97, 'and not again while libvirt still waits for it')
})

t.test('when more hang than may, the others wait for a place as long as there is time', async t => {
  const guests = numberedGuests(9, index => (index < 7 ? { ...stuck } : { answer: well }))
  // As libvirt does: it gives an agent up after a while.
  for (const guest of guests.slice(0, 7)) guest.answer = (_, call) => void setTimeout(() => call.fail(86, ''), 1500)
  const { host } = await fakeGuests(t, guests)
  const kinds = await askAll(host, guests, () => 60_000)
  t.same([...kinds.values()], [...Array(7).fill('silent'), 'answered', 'answered'])
})

t.test('an agent that takes too long for several calls does not take the time of the whole run', async t => {
  const guests = numberedGuests(2, index => ({
    answer: index === 0 ? (procedure, call) => void setTimeout(() => well?.(procedure, call), 600) : well,
  }))
  const { host } = await fakeGuests(t, guests)
  const endMs = performance.now() + 2000
  const threeCalls: Question<number> = async (_, guest, limits) => {
    await host.domainTimeMs(guest, limits)
    await host.domainTimeMs(guest, limits)
    return host.domainTimeMs(guest, limits)
  }
  const timeLeftMs = () => endMs - performance.now()
  const answers = await askAgents(host, guests, threeCalls, { signal: new AbortController().signal, timeLeftMs })
  t.ok(timeLeftMs() > 0)
  t.same([...answers.values()].map(({ kind }) => kind).sort(), ['answered', 'not asked'])
})

t.test('without time left nobody is asked', async t => {
  const guests = numberedGuests(2, () => ({ answer: well }))
  const { host } = await fakeGuests(t, guests)
  t.same([...(await askAll(host, guests, () => 0)).values()], ['not asked', 'not asked'])
})

import { setTimeout as sleep } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { procedures } from '../../libvirt/procedures.js'
import { startGuest } from '../../scripts/services/guest.js'
import { type FakeGuest, fakeGuests, numberedGuests, writeGuest } from '../support/fake-guests.js'
import type { FakeCall, FakeLibvirtd } from '../support/fake-libvirtd.js'
import { guestImage, ownGuest, ownLibvirtd, rabbitmq } from '../support/services.js'
import { AgentProcess } from './agent-process.js'
import { ServerSide } from './server-side.js'

const broker = await rabbitmq(t)
const server = await ServerSide.open(t, broker.url)
let clients = 0

/** A standalone check of the name; its own schedule does not come into it. */
function standalone(command: string): object {
  return {
    standalone: true,
    interval: 100 * 24 * 3600,
    command,
    handlers: ['h'],
    ttl: 300,
    hooks: { critical: { command: 'echo hooked' } },
  }
}

async function start(t: Test, checks: Record<string, object>, own: object = {}) {
  const name = `events-${++clients}`
  const sockets = { socket: { enabled: false }, http_socket: { enabled: false } }
  const client = { name, address: '127.0.0.9', subscriptions: [], ...sockets }
  const agent = new AgentProcess(t, {
    files: { 'agent.json': { client, rabbitmq: broker.url, checks, sensu_kvm: own } },
  })
  await server.keepalive(name)
  return { agent, name }
}

/** Results of a check so far. */
function resultsOf(
  check: string,
): { source?: string; output: string; status: number; handlers?: string[]; ttl?: number }[] {
  return server.results.map(({ text }) => JSON.parse(text).check).filter(({ name }) => name === check)
}

/** Waits until the results of a check are so. */
async function until(check: string, done: (results: ReturnType<typeof resultsOf>) => boolean): Promise<void> {
  while (!done(resultsOf(check))) await sleep(20)
}

t.setTimeout(120_000)

t.test('a real guest', async t => {
  t.setTimeout(90_000)
  const daemon = await ownLibvirtd(t)
  const first = await ownGuest(t, daemon, { name: 'first', autostart: false })
  const second = await startGuest(daemon, { image: await guestImage(), name: 'second', start: false })
  const command = `check-kvm-state --uri '${daemon.readOnlyUri ?? daemon.uri}'`
  const { agent } = await start(t, {
    whole: standalone(command),
    each: standalone(`${command} --per-guest`),
    elsewhere: standalone(`${command} --exclude first`),
    shell: standalone(`${command}; true`),
  })
  await agent.log('listening to libvirt events')

  await t.test('a guest whose QEMU is killed is reported at once, alone where each has its own result', async t => {
    const before = { whole: resultsOf('whole').length, each: resultsOf('each').length }
    const killedMs = Date.now()
    first.signal('SIGKILL')
    const bad = ({ status }: { status: number }) => status === 2
    await Promise.all([until('whole', list => list.some(bad)), until('each', list => list.some(bad))])
    t.comment(`results after ${Date.now() - killedMs} ms`)
    t.match(resultsOf('whole').find(bad), { output: /first: shut off \(crashed\)/, handlers: ['h'] })
    t.match(resultsOf('each').find(bad), { source: 'first', output: /shut off \(crashed\)/, handlers: ['h'] })
    t.match(resultsOf('each').find(bad), { ttl: 300, hooks: { critical: { output: 'hooked\n', status: 0 } } })
    t.ok(
      resultsOf('each')
        .slice(before.each)
        .every(({ source }) => source === 'first'),
      'nothing of others or the run',
    )
  })

  await t.test('it starts, pauses, goes on: each is a result', async t => {
    await daemon.virsh('start', 'first')
    await until('each', list => list.at(-1)?.status === 0)
    await daemon.virsh('suspend', 'first')
    await until('each', list => list.at(-1)?.status === 1)
    t.match(resultsOf('each').at(-1), { source: 'first', output: /paused \(user\)/ })
    await daemon.virsh('resume', 'first')
    await until('each', list => list.at(-1)?.status === 0)
  })

  await t.test('checks that do not look at the guest, or need a shell, do not run', async t => {
    t.strictSame(resultsOf('elsewhere'), [])
    t.strictSame(resultsOf('shell'), [])
  })

  await t.test('a guest that vanishes is resolved at once, and no further result is waited for', async t => {
    await second.stop()
    await until('each', list => list.at(-1)?.source === 'second')
    const last = resultsOf('each').at(-1)
    t.match(last, { status: 0, output: /second: no longer on/, handlers: ['h'] })
    t.equal(last?.ttl, undefined)
  })

  await t.test('what happened while libvirtd was away is seen when it is back', async t => {
    await daemon.kill()
    await agent.log('libvirt events are lost until it answers')
    first.signal('SIGKILL')
    await daemon.restart()
    await agent.log('libvirt events are back')
    await until('whole', list => list.at(-1)?.status === 2 && /first: shut off/.test(list.at(-1)?.output ?? ''))
    t.match(resultsOf('whole').at(-1), { output: /first: shut off/ })
  })

  t.strictSame(await agent.stop(), { status: 0, signal: null })
})

/** A daemon with so many guests, and what it takes to make it tell of events. */
async function manyGuests(t: Test, count: number) {
  const guests = numberedGuests(count)
  const { daemon } = await fakeGuests(t, guests)
  const registered: number[] = []
  daemon.on(procedures.eventRegister, call => {
    registered.push(call.arguments.i32())
    call.reply(writer => writer.i32(registered.length))
  })
  daemon.on(procedures.eventDeregister, call => call.reply())
  /** All guests end at the same moment (stopped, crashed). */
  const endAll = () => {
    for (const guest of guests) guest.state = [5, 3]
    daemon.broadcast(lifecycle(daemon, guests, [5, 2]))
  }
  const uri = `qemu+unix:///system?socket=${daemon.socketPath}`
  return { daemon, guests, endAll, command: `check-kvm-state --autostart ignore --uri '${uri}'` }
}

/** libvirt's events of all the guests: virDomainEventType and its detail. */
function lifecycle(
  daemon: FakeLibvirtd,
  guests: readonly FakeGuest[],
  [event, detail]: readonly [number, number],
): Buffer {
  const messages = guests.map(({ name, uuid, id }) =>
    daemon.message(318, writer => writer.i32(1).string(name).uuid(uuid).i32(id).i32(event).i32(detail)),
  )
  return Buffer.concat(messages)
}

t.test('a thousand guests that end together give two runs at most', async t => {
  const { daemon, endAll, command } = await manyGuests(t, 1000)
  const { agent } = await start(t, { storm: standalone(command) })
  await agent.log('listening to libvirt events')
  let lines = 0
  const told = async () => {
    let guests = 0
    while (guests < 1000) {
      const { count, guests: named } = await agent.log('guest events run a check', ++lines)
      t.ok((named as string[]).length <= 10, 'a line names ten at most')
      guests += Number(count ?? (named as string[]).length)
    }
  }
  endAll()
  await told()
  // the same once more
  endAll()
  await told()
  await until('storm', list => list.length === daemon.count(procedures.getAllDomainStats))
  t.match(resultsOf('storm').at(-1), { status: 2, output: /web1: shut off \(crashed\)/ })
  await agent.stop()
  t.ok(resultsOf('storm').length <= 4, `${resultsOf('storm').length} runs`)
})

t.test('the first event of a quiet time runs the check without waiting for others', async t => {
  const { daemon, endAll, command } = await manyGuests(t, 1)
  const { agent } = await start(t, { quiet: standalone(command) })
  await agent.log('listening to libvirt events')
  // a busy machine may be late, but what waits for others never takes less than that wait
  for (let round = 1, tookMs = Number.POSITIVE_INFINITY; tookMs > 40; round++) {
    const startedMs = performance.now()
    endAll()
    await daemon.untilCalled(procedures.getAllDomainStats, round)
    tookMs = performance.now() - startedMs
    await until('quiet', list => list.length === round)
    // another quiet time
    await sleep(1100)
  }
  await agent.stop()
})

t.test(
  'while events go on, no more than two runs begin within a second, and the last one sees the last state',
  async t => {
    const { daemon, endAll, guests, command } = await manyGuests(t, 2)
    const { agent } = await start(t, { flood: standalone(`${command} --per-guest`) })
    await agent.log('listening to libvirt events')
    const endMs = performance.now() + 2500
    let events = 0
    for (; performance.now() < endMs; events++) {
      endAll()
      await sleep(10)
    }
    for (const guest of guests) guest.state = [1, 1]
    daemon.broadcast(lifecycle(daemon, guests, [2, 0]))
    await until('flood', list => list.length > 1 && list.slice(-2).every(({ status }) => status === 0))
    await agent.stop()
    const runs = daemon.count(procedures.getAllDomainStats)
    t.ok(runs >= 4 && runs <= 10, `${events} times two events, ${runs} runs`)
    t.same(
      resultsOf('flood')
        .slice(-2)
        .map(({ source, status }) => [source, status]),
      guests.map(({ name }) => [name, 0]),
    )
  },
)

t.test('a guest that changes while the check looks is looked at again', async t => {
  const { daemon, endAll, guests, command } = await manyGuests(t, 1)
  const { agent } = await start(t, { again: standalone(`${command} --per-guest`) })
  await agent.log('listening to libvirt events')
  const asked: FakeCall[] = []
  daemon.on(procedures.getAllDomainStats, call => void asked.push(call))
  endAll()
  await daemon.untilCalled(procedures.getAllDomainStats)
  daemon.broadcast(lifecycle(daemon, guests, [2, 0]))
  const answer = (state: [number, number]) => {
    for (const guest of guests) guest.state = state
    asked.shift()?.reply(writer => writer.array(guests, writeGuest))
  }
  answer([5, 3])
  await daemon.untilCalled(procedures.getAllDomainStats, 2)
  answer([1, 1])
  await until('again', list => list.length === 2)
  await agent.stop()
  t.same(
    resultsOf('again').map(({ source, status }) => [source, status]),
    [
      ['web1', 2],
      ['web1', 0],
    ],
  )
})

t.test('events during a run give one more after it', async t => {
  const { daemon, endAll, command } = await manyGuests(t, 3)
  const asked: FakeCall[] = []
  const answer = (call: FakeCall | undefined) => call?.reply(writer => writer.array([], () => undefined))
  daemon.on(procedures.getAllDomainStats, call => void asked.push(call))
  const { agent, name } = await start(t, { during: standalone(command) })
  await agent.log('listening to libvirt events')
  await server.request(`client:${name}`, { name: 'during', command: 'merged' })
  await daemon.untilCalled(procedures.getAllDomainStats, 1)
  endAll()
  endAll()
  // longer than what is collected into one run
  await sleep(300)
  t.equal(asked.length, 1, 'never two at a time')
  answer(asked[0])
  await daemon.untilCalled(procedures.getAllDomainStats, 2)
  answer(asked[1])
  await until('during', list => list.length === 2)
  await agent.stop()
  t.equal(asked.length, 2)
})

t.test('switched off, nothing listens', async t => {
  const { daemon, command } = await manyGuests(t, 1)
  const { agent, name } = await start(t, { off: standalone(command) }, { libvirt: { events: false } })
  await server.request(`client:${name}`, { name: 'off', command })
  await server.result('off')
  await agent.stop()
  t.equal(daemon.count(procedures.eventRegister), 0)
})

t.test('a libvirt that is not there, or a URI that makes no sense, stops nothing', async t => {
  const { agent, name } = await start(t, {
    absent: standalone("check-kvm-state --uri 'qemu+unix:///system?socket=/nowhere/sock'"),
    nonsense: standalone('check-kvm-state --uri nonsense'),
  })
  await agent.log('libvirt events are lost until it answers', 2)
  await server.request(`client:${name}`, { name: 'alive', command: 'true' })
  t.equal((await server.result('alive')).check.status, 0)
  t.strictSame(await agent.stop(), { status: 0, signal: null })
})

import t from 'tap'
import check, { type AgentInfo, type GuestAgent } from '../../checks/check-kvm-guest-agent.js'
import { domainState } from '../../libvirt/decode.js'
import type { AgentAnswer } from '../../libvirt/guest-agents.js'
import { statusOf } from '../../plugin/output.js'
import { waitUntil } from '../../scripts/services/process.js'
import { checkContext, runExecutable } from '../support/checks.js'
import { type FakeGuest, fakeGuests, numberedGuests } from '../support/fake-guests.js'
import { libvirtd, ownGuest } from '../support/services.js'

const name = 'check-kvm-guest-agent'
const commands = { 'guest-ping': true, 'guest-fsfreeze-freeze': false }
const answered = { kind: 'answered', value: { seconds: 0.003, version: '7.2.22', commands } } as const

function guest(answer: AgentAnswer<AgentInfo>, change: Partial<GuestAgent> = {}): GuestAgent {
  const known = { watchedSeconds: 0, startSeen: false, answeredBefore: false }
  return { name: 'web1', uuid: 'u', id: 1, state: domainState(1, 1), answer, ...known, ...change }
}

function judged(guests: readonly GuestAgent[], raw: Parameters<typeof check.parseOptions>[0] = {}) {
  const outcome = check.evaluate(guests, check.parseOptions(raw))
  const messages = outcome.findings.map(({ message }) => message)
  return { status: statusOf(outcome), messages, outcome, summary: outcome.summary }
}

t.test('each answer has its own state and words', t => {
  const start = 'install and start qemu-guest-agent in it'
  const table: [answer: AgentAnswer<AgentInfo>, status: string, message: string][] = [
    [answered, 'OK', 'its agent 7.2.22 answers within 3 ms'],
    [
      { kind: 'not configured' },
      'WARNING',
      "no agent configured: add <channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>",
    ],
    [
      { kind: 'silent', seconds: 1.5 },
      'CRITICAL',
      'its agent does not answer, for 1.5 s: restart qemu-guest-agent in it',
    ],
    [
      { kind: 'refused', text: 'guest-info has been disabled' },
      'WARNING',
      'its agent refuses to answer: guest-info has been disabled',
    ],
    [{ kind: 'not asked', text: 'no permission' }, 'UNKNOWN', 'no permission'],
  ]
  for (const [answer, status, message] of table) {
    t.same([judged([guest(answer)]).status, judged([guest(answer)]).messages], [status, [message]], answer.kind)
  }
  for (const status of ['ok', 'warning', 'critical', 'unknown']) {
    const raw = { 'not-configured': status, 'not-answering': status, disabled: status }
    for (const [answer] of table.slice(1, 4)) {
      t.equal(judged([guest(answer)], raw).status, status.toUpperCase(), `${answer.kind} as ${status}`)
    }
  }
  t.match(judged([guest({ kind: 'not connected' }, { answeredBefore: true })]), {
    status: 'CRITICAL',
    messages: [`its agent is not connected any more: ${start}`],
  })
  t.end()
})

t.test(
  'not connected: booting within the grace after a start that was seen, undecided without, then not answering',
  t => {
    for (const [watchedSeconds, startSeen, status, message] of [
      [0, true, 'OK', 'still booting, for 0 s: its agent has not connected yet'],
      [299, true, 'OK', 'still booting, for 299 s: its agent has not connected yet'],
      [300, true, 'CRITICAL', 'its agent has not connected within 300 s: install and start qemu-guest-agent in it'],
      [
        0,
        false,
        'UNKNOWN',
        'its agent is not connected: still booting or not there, decided when watched for 300 s (now 0 s)',
      ],
      [300, false, 'CRITICAL', 'its agent has not connected within 300 s: install and start qemu-guest-agent in it'],
    ] as const) {
      const { status: found, messages } = judged([guest({ kind: 'not connected' }, { watchedSeconds, startSeen })])
      t.same([found, messages], [status, [message]])
    }
    const booting = guest({ kind: 'not connected' }, { watchedSeconds: 10, startSeen: true })
    t.equal(judged([booting], { grace: '10s' }).status, 'CRITICAL')
    t.equal(judged([booting], { grace: '11s' }).status, 'OK')
    t.end()
  },
)

t.test('required commands must be there and enabled', t => {
  t.equal(judged([guest(answered)], { require: ['guest-ping'] }).status, 'OK')
  const { status, messages } = judged([guest(answered)], {
    require: ['guest-ping', 'guest-fsfreeze-freeze', 'guest-get-load', 'constructor'],
  })
  t.equal(status, 'WARNING')
  t.same(messages, [
    "guest-fsfreeze-freeze is disabled in its agent: allow it in the guest's qemu-ga.conf (block-rpcs, formerly blacklist)",
    'its agent 7.2.22 does not know guest-get-load: install a newer one',
    'its agent 7.2.22 does not know constructor: install a newer one',
  ])
  t.equal(judged([guest(answered)], { require: ['x'], disabled: 'critical' }).status, 'CRITICAL')
  t.end()
})

t.test('guests that do not run are not judged; a paused one says so', t => {
  const off = guest({ kind: 'not running' }, { state: domainState(5, 1) })
  t.same(judged([off]).messages, [])
  t.equal(judged([off]).summary, 'no running guest with an agent')
  const paused = guest({ kind: 'not running' }, { state: domainState(3, 1), name: 'web2' })
  t.same(judged([paused]).messages, ['paused (user), so its agent is not asked'])
  t.equal(judged([guest(answered), paused, off]).summary, '1 guest agent answers within 3 ms; paused: web2')
  t.equal(
    judged([
      guest(answered),
      guest(answered),
      ...['a', 'b', 'c', 'd', 'e'].map(own => guest({ kind: 'not connected' }, { name: own, startSeen: true })),
    ]).summary,
    '2 guest agents answer within 3 ms; still booting: a, b, c and 2 more',
  )
  t.end()
})

const info = { version: '7.2.22', supported_commands: [{ name: 'guest-ping', enabled: true }] }
const well: FakeGuest['agent'] = command => (command === 'guest-ping' ? {} : info)
const channel = (state: string) =>
  `<devices><channel><target type='virtio' name='org.qemu.guest_agent.0' state='${state}'/></channel></devices>`

t.test('one call for all guests and two for each agent; errors are told apart by code and channel', async t => {
  const fails = (code: number) => ({
    agent: (_: string, call: { fail(code: number, text: string): void }) => call.fail(code, `error ${code}`),
  })
  const kinds: [Partial<FakeGuest>, AgentAnswer<AgentInfo>['kind']][] = [
    [{ agent: well }, 'answered'],
    [fails(74), 'not configured'],
    [{ ...fails(86), xml: channel('disconnected') }, 'not connected'],
    [{ ...fails(86), xml: channel('connected') }, 'silent'],
    [{ ...fails(97), xml: channel('connected') }, 'silent'],
    [fails(86), 'not running'],
    [fails(42), 'not running'],
    [fails(55), 'not running'],
    [fails(88), 'not asked'],
    [fails(68), 'not asked'],
    [fails(1), 'refused'],
    [{ state: [5, 1] }, 'not running'],
    [{ state: [3, 1] }, 'not running'],
  ]
  const { host, asked } = await fakeGuests(
    t,
    numberedGuests(kinds.length, index => kinds[index]?.[0] ?? {}),
  )
  const sample = await check.collect(host, check.parseOptions(), checkContext())
  t.same(
    sample.map(({ answer }) => answer.kind),
    kinds.map(([, kind]) => kind),
  )
  t.match(sample[0]?.answer, { kind: 'answered', value: { version: '7.2.22', commands: { 'guest-ping': true } } })
  t.equal(asked().filter(called => called === 'CONNECT_GET_ALL_DOMAIN_STATS').length, 1)
  t.equal(asked().filter(called => called === 'QEMU_AGENT_COMMAND').length, 12, 'two for the one that answers')
  t.equal(asked().filter(called => called === 'DOMAIN_GET_XML_DESC').length, 4)
})

t.test('what an agent says of itself may be anything', async t => {
  for (const [reply, version, known] of [
    [{}, 'of unknown version', {}],
    ['text', 'of unknown version', {}],
    [{ version: 7, supported_commands: 'all' }, 'of unknown version', {}],
    [
      { version: '1', supported_commands: [null, 5, { name: 'a' }, { name: 'b', enabled: true }] },
      '1',
      { a: false, b: true },
    ],
  ] as const) {
    const agent: FakeGuest['agent'] = command => (command === 'guest-ping' ? {} : reply)
    const { host } = await fakeGuests(
      t,
      numberedGuests(1, () => ({ agent })),
    )
    const [sample] = await check.collect(host, check.parseOptions(), checkContext())
    t.match(sample?.answer, { value: { version, commands: known } }, JSON.stringify(reply))
  }
})

t.test('no permission, or no agents at all, is one error for the whole run', async t => {
  for (const [code, message] of [
    [29, /^guest agents need libvirt's read-write socket: run as root or as a member of group libvirt, or let polkit/],
    [3, /not offered/],
  ] as const) {
    const agent: FakeGuest['agent'] = (_, call) => call.fail(code, 'not offered')
    const { host } = await fakeGuests(
      t,
      numberedGuests(3, () => ({ agent })),
    )
    await t.rejects(check.collect(host, check.parseOptions(), checkContext()), { message })
  }
})

t.test(
  '100 guests, 3 stuck: the others answer in time, the stuck ones are named, and left alone by the same host',
  async t => {
    const stuck = [7, 50, 99]
    const guests = numberedGuests(100, index =>
      // As libvirt does: it gives the agent its second, then says so.
      stuck.includes(index)
        ? { agent: (_, call) => void setTimeout(() => call.fail(86, 'not available'), 1010), xml: channel('connected') }
        : { agent: well },
    )
    const { host, asked } = await fakeGuests(t, guests)
    const context = checkContext()
    const run = async () => {
      const startedMs = performance.now()
      const sample = await check.collect(host, check.parseOptions(), context)
      return { sample, seconds: (performance.now() - startedMs) / 1000 }
    }
    const names = ['web8', 'web51', 'web100']
    const { sample, seconds } = await run()
    t.ok(seconds < 4, `${seconds} s`)
    t.equal(sample.filter(({ answer }) => answer.kind === 'answered').length, 97)
    t.same(
      sample.filter(({ answer }) => answer.kind === 'silent').map(each => each.name),
      names,
    )
    const { outcome } = judged(sample)
    t.same(
      outcome.findings.filter(({ status }) => status === 'CRITICAL').map(finding => finding.guest),
      names,
    )
    t.equal(outcome.metrics.length, 97)

    const before = asked().length
    const again = await run()
    t.ok(again.seconds < 1, `${again.seconds} s`)
    t.same(
      again.sample.filter(({ answer }) => answer.kind === 'silent').map(each => each.name),
      names,
    )
    t.equal(asked().length - before, 1 + 2 * 97 + 3, 'bulk, two commands each for those that answer, XML of the others')
  },
)

t.test('when agents take all the time, those that answered have their results and the rest is named', async t => {
  const silent: FakeGuest['agent'] = (_, call) => void setTimeout(() => call.fail(86, 'not available'), 1010)
  const guests = numberedGuests(20, index =>
    index < 12 ? { agent: silent, xml: channel('connected') } : { agent: well },
  )
  const { daemon } = await fakeGuests(t, guests)
  const state = t.testdir()
  const run = () => runExecutable(name, ['--uri', daemon.uri, '--timeout', '6', '--state-dir', state])
  const first = await run()
  t.match(first.stdout, /^check-kvm-guest-agent CRITICAL: web1: its agent does not answer, for [\d.]+ s: /)
  t.match(
    first.stdout,
    /UNKNOWN web\d+: not asked: the agents of other guests took all the time, allow more with --timeout\n/,
  )
  const second = await run()
  t.equal([...second.stdout.matchAll(/web\d+\.response_time=/g)].length, 8, 'those that were silent come last')
})

t.test('a start is seen when the check ran shortly before', async t => {
  const guests = numberedGuests(2, () => ({ agent: (_, call) => call.fail(86, ''), xml: channel('disconnected') }))
  const [web1, web2] = guests
  if (web1 === undefined || web2 === undefined) throw new Error('two guests')
  guests.pop()
  const { host } = await fakeGuests(t, guests)
  const context = checkContext()
  const collect = async () => {
    const sample = await check.collect(host, check.parseOptions(), context)
    return sample.map(({ startSeen, answeredBefore }) => [startSeen, answeredBefore])
  }
  t.same(await collect(), [[false, false]], 'it ran before the check did')
  guests.push(web2)
  t.same(
    await collect(),
    [
      [false, false],
      [true, false],
    ],
    'one was started meanwhile',
  )
  web1.id = 17
  t.same(
    await collect(),
    [
      [true, false],
      [true, false],
    ],
    'and the other anew',
  )
  web2.agent = well
  await collect()
  t.same(
    await collect(),
    [
      [true, false],
      [true, true],
    ],
    'it has answered',
  )
})

t.test('a real guest: answering, command disabled, hanging, gone, paused, shut off', async t => {
  const daemon = await libvirtd(t)
  const [guest1, bare] = await Promise.all([
    ownGuest(t, daemon, { name: 'agent1' }),
    ownGuest(t, daemon, { name: 'agent2', agent: false }),
  ])
  const state = t.testdir()
  const run = (own: string, ...args: string[]) =>
    runExecutable(name, ['--uri', daemon.uri, '--state-dir', state, '--guest', own, ...args])
  const finds = async (pattern: RegExp, status: number, own = 'agent1', ...args: string[]) => {
    const result = await run(own, ...args)
    t.match(result.stdout, pattern)
    t.equal(result.status, status)
  }
  await finds(
    /^check-kvm-guest-agent OK: 1 guest agent answers within [\d.]+ m?s\n\| agent1\.response_time=[\d.]+s\n$/,
    0,
  )
  await finds(/^check-kvm-guest-agent OK: 1 /, 0, 'agent1', '--require', 'guest-fsfreeze-freeze')
  const remedy = "add <channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>"
  t.same(await run('agent2'), {
    stdout: `${name} WARNING: agent2: no agent configured: ${remedy}\nWARNING agent2: no agent configured: ${remedy}\n`,
    stderr: '',
    status: 1,
  })
  await bare.destroy()

  const agent = 'qemu-ga -m virtio-serial -p /dev/virtio-ports/org.qemu.guest_agent.0 -t /run'
  const restart = (...blocked: string[]) =>
    guest1
      .agent('guest-exec', {
        path: '/bin/sh',
        arg: [
          '-c',
          `(touch /tmp/no-agent; kill $(pidof qemu-ga); sleep 0.5; ${agent} -b ${blocked.join(',')}) >/dev/null 2>&1 &`,
        ],
      })
      .catch(() => undefined)
  const until = (what: string, pattern: RegExp, ...args: string[]) =>
    waitUntil(what, async () => (pattern.test((await run('agent1', ...args)).stdout) ? true : undefined), {
      timeoutMs: 60_000,
    })
  await restart('guest-fsfreeze-freeze')
  await until(
    'the command is found disabled',
    /^check-kvm-guest-agent WARNING: agent1: guest-fsfreeze-freeze is disabled in its agent: allow it /,
    ...['--require', 'guest-fsfreeze-freeze'],
  )
  await finds(/^check-kvm-guest-agent OK: 1 /, 0)
  await restart('guest-info')
  await until(
    'guest-info is found disabled',
    /^check-kvm-guest-agent WARNING: agent1: its agent refuses to answer: .*guest-info/,
  )

  await guest1.stopAgent(20)
  await finds(
    /^check-kvm-guest-agent CRITICAL: agent1: its agent does not answer, for [1-3](\.\d+)? s: restart qemu-guest-agent in it\n/,
    2,
  )
  await until('it answers again', /refuses to answer/)
  await guest1.suspend()
  t.same(await run('agent1', '-v'), {
    stdout: `${name} OK: no running guest with an agent; paused: agent1\nOK agent1: paused (user), so its agent is not asked\n`,
    stderr: '',
    status: 0,
  })
  await guest1.resume()
  await guest1.endAgent()
  await finds(/^check-kvm-guest-agent CRITICAL: agent1: its agent is not connected any more: install and start /, 2)
  await finds(
    /^check-kvm-guest-agent UNKNOWN: agent1: its agent is not connected: still booting or not there, decided when watched for 600 s \(now 0 s\)\n/,
    3,
    ...(['agent1', '--grace', '10m'] as const),
  )
  await finds(
    /^check-kvm-guest-agent CRITICAL: agent1: its agent has not connected within 0 s: /,
    2,
    'agent1',
    '--grace',
    '0',
  )
  await guest1.destroy()
  t.same(await run('agent1'), { stdout: `${name} OK: no running guest with an agent\n`, stderr: '', status: 0 })

  await daemon.virsh('start', 'agent1')
  await finds(/^check-kvm-guest-agent OK: no running guest with an agent; still booting: agent1\n$/, 0)
  await until('it has booted', /^check-kvm-guest-agent OK: 1 guest agent answers /)
})

t.test('without permission for the read-write socket that is said, with the remedy', async t => {
  const daemon = await libvirtd(t)
  await ownGuest(t, daemon, { name: 'agent3' })
  const run = (uri: string, uid?: number) => {
    const args = ['--uri', uri, '--guest', 'agent3', '--state-dir', uid === undefined ? t.testdir() : '/dev/null']
    return runExecutable(name, args, uid === undefined ? {} : { uid })
  }
  if (daemon.readOnlyUri !== undefined) {
    t.same(await run(daemon.readOnlyUri), {
      stdout: `${name} UNKNOWN: guest agents need libvirt's read-write socket: run as root or as a member of group libvirt, or let polkit allow org.libvirt.unix.manage (operation forbidden: read only access prevents virDomainQemuAgentCommand)\n`,
      stderr: '',
      status: 3,
    })
  }
  if (process.getuid?.() !== 0) return
  const { stdout, status } = await run(daemon.uri, 65_534)
  t.match(
    stdout,
    /^check-kvm-guest-agent UNKNOWN: no permission for libvirt's socket \/[^ ]+: run as root or as a member of group libvirt/,
  )
  t.equal(status, 3)
})

t.test('the executable says what is wrong, in one line, with status 3', async t => {
  const socket = 'qemu:///system?socket=/nonexistent/sock'
  for (const [args, line] of [
    [['--required', 'x'], 'unknown option --required: did you mean --require?'],
    [['--grace', 'long'], '--grace long: not a time: write 250ms, 30s, 5m, 2h or 1d (seconds without a unit)'],
    [['--disabled', 'bad'], '--disabled bad: not one of ok, warning, critical, unknown'],
    [['--require'], '--require needs a value: it takes one or more texts'],
    [
      ['--uri', socket],
      `no libvirt daemon for ${socket}: no socket /nonexistent/sock; is the path right and the daemon running?`,
    ],
  ] as const) {
    const expected = { stdout: `${name} UNKNOWN: ${line}\n`, stderr: '', status: 3 }
    t.same(await runExecutable(name, [...args, '--state-dir', t.testdir()]), expected, args.join(' '))
  }
})

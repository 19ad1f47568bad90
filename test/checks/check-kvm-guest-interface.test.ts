import t from 'tap'
import check, { type InnerNetwork, type NetworkSample } from '../../checks/check-kvm-guest-interface.js'
import type { GuestInterface } from '../../libvirt/records.js'
import { statusOf } from '../../plugin/output.js'
import { checkContext, runExecutable } from '../support/checks.js'
import { type FakeGuest, fakeGuests, numberedGuests } from '../support/fake-guests.js'
import { libvirtd, ownGuest } from '../support/services.js'

const name = 'check-kvm-guest-interface'
type Raw = Parameters<typeof check.parseOptions>[0]

function device(name: string, ...addresses: string[]): GuestInterface {
  return { name, addresses: addresses.map(address => ({ type: 'unknown', address, prefix: 24 })) }
}

function guest(interfaces: readonly GuestInterface[], change: Partial<InnerNetwork> = {}): InnerNetwork {
  const state = { state: 'running', reason: 'booted' }
  const answer = { kind: 'answered', value: { interfaces } } as const
  const known = { watchedSeconds: 0, startSeen: false, answeredBefore: false, growth: new Map(), given: 1 }
  return { name: 'web1', uuid: 'u', state, answer, ...known, ...change }
}

function judged(sample: Partial<NetworkSample>, raw: Raw = {}) {
  const outcome = check.evaluate({ uri: 'qemu:///x', guests: [], missing: [], ...sample }, check.parseOptions(raw))
  const bad = outcome.findings.filter(({ status }) => status !== 'OK')
  return { status: statusOf(outcome), messages: bad.map(({ message }) => message), outcome, summary: outcome.summary }
}

const lo = device('lo', '127.0.0.1', '::1')

t.test('a guest without an address but those it gives itself is CRITICAL', t => {
  for (const [interfaces, status] of [
    [[lo, device('eth0', '10.0.0.5')], 'OK'],
    [[lo, device('eth0', 'fe80::1', '2001:db8::1')], 'OK'],
    [[lo, device('eth0', 'fe80::1', '169.254.7.7')], 'CRITICAL'],
    [[lo, device('eth0')], 'CRITICAL'],
    [[lo], 'CRITICAL'],
    [[], 'CRITICAL'],
    [[lo, device('eth0'), device('docker0', '172.17.0.1'), device('br-0a1b', '172.18.0.1')], 'CRITICAL'],
  ] as const) {
    t.equal(judged({ guests: [guest(interfaces)] }).status, status, JSON.stringify(interfaces))
  }
  const { messages, outcome } = judged({ guests: [guest([lo, device('eth0', 'fe80::1')])] })
  t.same(messages, [
    'no address but such as it gives itself (fe80::1): see its network configuration and the DHCP server',
  ])
  t.match(outcome.metrics, [{ name: 'addresses', labels: { guest: 'web1' }, value: 0 }])
  t.equal(judged({ guests: [guest([])] }, { unaddressed: 'warning' }).status, 'WARNING')
  t.equal(judged({ guests: [guest([lo], { given: 0 })] }).status, 'OK', 'it has no interface')
  t.equal(judged({ guests: [guest([lo], { given: Number.NaN })] }).status, 'CRITICAL', 'not known whether it has')
  t.equal(
    judged({ guests: [guest([device('eth0', '10.0.0.5')])] }, { 'exclude-interface': '^eth0$' }).status,
    'CRITICAL',
  )
  t.equal(
    judged({ guests: [guest([device('eth0', '10.0.0.5')]), guest([], { given: 0 })] }).summary,
    '1 of 2 guests have addresses',
  )
  t.end()
})

t.test('an expected address that is missing is CRITICAL, of the guest or of all', t => {
  const web1 = guest([lo, device('eth0', '10.0.0.5', 'fd00::5')])
  const web2 = guest([lo, device('eth0', '192.168.0.5')], { name: 'web2', uuid: 'u2' })
  const status = (...expect: string[]) => judged({ guests: [web1, web2] }, { expect }).status
  t.equal(status('web1=10.0.0.5'), 'OK')
  t.equal(status('web1=10.0.0.0/24', 'web1=fd00::/8', 'u2=192.168.0.5'), 'OK')
  t.equal(status('web1=10.0.0.6'), 'CRITICAL')
  t.equal(status('web1=10.0.0.5', 'web1=10.0.0.6'), 'CRITICAL')
  t.equal(status('0.0.0.0/0'), 'OK')
  const { messages, outcome } = judged({ guests: [web1, web2] }, { expect: ['10.0.0.0/8'] })
  t.same(messages, ['expected address 10.0.0.0/8 is missing, it has 192.168.0.5'])
  t.equal(outcome.findings.find(finding => finding.status === 'CRITICAL')?.guest, 'web2')
  t.match(judged({ missing: ['web9'] }), {
    status: 'UNKNOWN',
    messages: ['no such guest on qemu:///x: correct --expect'],
  })
  t.end()
})

t.test('errors per second are judged at, below and above each limit, drops when asked for', t => {
  const grown = (errors: number, drops = 0) => new Map([['eth0', { seconds: 10, grown: { errors, drops } }]])
  const eth0 = [device('eth0', '10.0.0.5')]
  const statusOfGrowth = (errors: number, drops = 0, raw: Raw = {}) =>
    judged({ guests: [guest(eth0, { growth: grown(errors, drops) })] }, raw).status
  t.equal(statusOfGrowth(0), 'OK')
  t.equal(statusOfGrowth(1), 'WARNING')
  t.equal(statusOfGrowth(100), 'WARNING')
  t.equal(statusOfGrowth(101), 'CRITICAL')
  t.equal(statusOfGrowth(0, 1000), 'OK')
  t.equal(statusOfGrowth(0, 1000, { 'drops-warning': '50' }), 'WARNING')
  t.equal(statusOfGrowth(0, 1000, { 'drops-critical': '50' }), 'CRITICAL')
  const { messages, outcome } = judged({ guests: [guest(eth0, { growth: grown(25, 5) })] })
  t.same(messages, ['errors 2.5 per second over 10 s (warning above 0)'])
  t.same(
    outcome.metrics.slice(1).map(({ name, labels, value }) => [name, labels, value]),
    [
      ['error_rate', { guest: 'web1', interface: 'eth0' }, 2.5],
      ['drop_rate', { guest: 'web1', interface: 'eth0' }, 0.5],
    ],
  )
  t.match(
    judged({ guests: [guest(eth0)] }, { passthrough: true }).summary,
    /; errors: collecting, known from the next run on$/,
  )
  const refused = { kind: 'answered', value: { interfaces: eth0, counters: 'disabled' } } as const
  t.match(judged({ guests: [guest(eth0, { answer: refused })] }), {
    status: 'UNKNOWN',
    messages: ['its agent refuses to tell errors of its interfaces: disabled'],
  })
  t.end()
})

const addresses: FakeGuest['answer'] = (_, call) =>
  call.reply(writer =>
    writer.array([['eth0', '10.0.0.5'] as const, ['lo', '127.0.0.1'] as const], (to, [device, address]) =>
      to.string(device).optionalString('52:54:00:00:00:01').u32(1).i32(0).string(address).u32(24),
    ),
  )

t.test('one call for all guests and one for each; errors are followed from run to run when asked for', async t => {
  let errors = 0
  const agent: FakeGuest['agent'] = () => {
    errors += 50
    const statistics = { 'rx-errs': errors, 'tx-errs': 0, 'rx-dropped': 1, 'tx-dropped': 0 }
    return [{ name: 'eth0', statistics }, { name: 'lo' }, null, { name: 'x', statistics: { 'rx-errs': 'many' } }]
  }
  const guests = numberedGuests(3, index => ({
    answer: addresses,
    agent: index === 1 ? (_, call) => call.fail(1, 'disabled') : agent,
    params: { 'net.count': 2 },
    ...(index === 2 ? { state: [5, 1] } : {}),
  }))
  const { host, asked } = await fakeGuests(t, guests)
  const plain = await check.collect(host, check.parseOptions({ expect: ['web1=10.0.0.5', 'web9=::1'] }), checkContext())
  t.same(asked(), ['CONNECT_GET_ALL_DOMAIN_STATS', 'DOMAIN_INTERFACE_ADDRESSES', 'DOMAIN_INTERFACE_ADDRESSES'])
  t.same(plain.missing, ['web9'])
  t.match(plain.guests[0], {
    given: 2,
    answer: {
      value: {
        interfaces: [
          { name: 'eth0', mac: '52:54:00:00:00:01', addresses: [{ type: 'ipv4', address: '10.0.0.5', prefix: 24 }] },
          { name: 'lo' },
        ],
        counters: undefined,
      },
    },
  })
  const context = checkContext()
  const options = check.parseOptions({ passthrough: true })
  await check.collect(host, options, context)
  const { guests: again } = await check.collect(host, options, context)
  t.same([...(again[0]?.growth.keys() ?? [])], ['eth0'])
  t.same(again[0]?.growth.get('eth0')?.grown, { errors: 50, drops: 0 })
  t.match(again[1]?.answer, { value: { counters: 'disabled' } })
})

t.test('a real guest: with its address, without the expected one, and with none', async t => {
  const daemon = await libvirtd(t)
  const guest = await ownGuest(t, daemon, { name: 'interface1' })
  const state = t.testdir()
  const run = (...args: string[]) =>
    runExecutable(name, ['--uri', daemon.uri, '--state-dir', state, '--guest', 'interface1', ...args])
  // QEMU's own network gives it IPv6 addresses as well, after a while.
  t.match(await run(), {
    stdout: /^check-kvm-guest-interface OK: 1 of 1 guest has an address\n\| interface1\.addresses=\d;;;0\n$/,
    stderr: /^$/,
    status: 0,
  })
  t.equal((await run('--expect', 'interface1=10.0.2.0/24')).status, 0)
  const expected = await run('--expect', 'interface1=10.0.2.77')
  t.match(
    expected.stdout,
    /^check-kvm-guest-interface CRITICAL: interface1: expected address 10\.0\.2\.77 is missing, it has 10\.0\.2\.15(, f[\da-f:]+)*\nCRITICAL interface1: /,
  )
  t.equal(expected.status, 2)
  await run('--passthrough')
  t.match(await run('--passthrough'), {
    stdout:
      /^check-kvm-guest-interface OK: 1 of 1 guest has an address\n\| interface1\.addresses=\d;;;0 interface1\.eth0\.error_rate=0;0;10 interface1\.eth0\.drop_rate=0\n$/,
    status: 0,
  })
  await guest.execute('ip addr flush dev eth0')
  const none = await run()
  // a link that has just come up may give itself one only now
  t.match(
    none.stdout,
    /^check-kvm-guest-interface CRITICAL: interface1: no address but such as it gives itself \((?:none|fe80::[\da-f:]+)\): see its network configuration and the DHCP server\n/,
  )
  t.equal(none.status, 2)
})

t.test('the executable says what is wrong, in one line, with status 3', async t => {
  t.same(await runExecutable(name, ['--uri', 'qemu:///system?socket=/nonexistent', '--expect', 'web1=here']), {
    stdout: `${name} UNKNOWN: --expect web1=here: not an address: write 10.0.0.5, or a network such as 10.0.0.0/24 or fd00::/8\n`,
    stderr: '',
    status: 3,
  })
})

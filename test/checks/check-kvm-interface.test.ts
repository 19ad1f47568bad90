import { execFileSync } from 'node:child_process'
import { mkdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import check, { type GuestInterfaces, type InterfaceSample } from '../../checks/check-kvm-interface.js'
import { statusOf } from '../../plugin/output.js'
import { ownBridge, whyNoBridges } from '../support/bridge.js'
import { checkContext, runExecutable } from '../support/checks.js'
import { type FakeGuest, fakeGuests, numberedGuests } from '../support/fake-guests.js'
import { guest as healthyGuest, libvirtd, ownGuest } from '../support/services.js'

const name = 'check-kvm-interface'

interface Counted {
  errors?: readonly [received: number, sent: number]
  drops?: readonly [received: number, sent: number]
}

/** A guest whose vnet0 counted this in ten seconds. */
function guest(
  { errors = [0, 0], drops = [0, 0] }: Counted = {},
  change: Partial<GuestInterfaces> = {},
): GuestInterfaces {
  const [receivedErrors, sentErrors] = errors
  const [receivedDrops, sentDrops] = drops
  const growth = { seconds: 10, grown: { receivedErrors, sentErrors, receivedDrops, sentDrops } }
  return { name: 'web1', uuid: 'u', id: 1, interfaces: [{ name: 'vnet0', growth }], configured: [], ...change }
}

function judged(
  guests: readonly GuestInterfaces[],
  raw: Parameters<typeof check.parseOptions>[0] = {},
  ports: InterfaceSample['ports'] = new Map([['vnet0', { up: true, master: 'br0' }]]),
) {
  const outcome = check.evaluate({ guests, ports }, check.parseOptions(raw))
  const bad = outcome.findings.filter(({ status }) => status !== 'OK')
  const messages = bad.map(({ device, message }) => `${device}: ${message}`)
  return { status: statusOf(outcome), messages, outcome, summary: outcome.summary }
}

t.test('errors and drops per second are judged, each for itself, at, below and above each limit', t => {
  for (const kind of ['errors', 'drops'] as const) {
    for (const [received, sent, status] of [
      [0, 0, 'OK'],
      [1, 0, 'WARNING'],
      [0, 1, 'WARNING'],
      [50, 50, 'WARNING'],
      [100, 1, 'CRITICAL'],
    ] as const) {
      t.equal(judged([guest({ [kind]: [received, sent] })]).status, status, `${kind} ${received} ${sent}`)
    }
  }
  t.same(judged([guest({ errors: [100, 21], drops: [0, 7] })]).messages, [
    'vnet0: errors 12.1 per second over 10 s: 100 received, 21 sent (critical above 10)',
    'vnet0: drops 0.7 per second over 10 s: 0 received, 7 sent (warning above 0)',
  ])
  t.equal(judged([guest({ drops: [5, 0] })], { warning: '1' }).status, 'OK')
  t.equal(judged([guest({ drops: [5, 0] }, { limits: { critical: '0.1' } })]).status, 'CRITICAL', 'own limits win')
  t.end()
})

const vnet0 = { type: 'bridge', macAddress: '52:54:00:00:00:01', device: 'vnet0', bridge: 'br0', linkUp: true }

t.test('a link that is down', t => {
  const down = guest({}, { configured: [{ ...vnet0, linkUp: false }] })
  t.match(judged([down]), {
    status: 'WARNING',
    messages: ['vnet0: link down: set so in its XML, virsh domif-setlink vnet0 up changes that'],
  })
  t.equal(judged([down], { 'link-down': 'critical' }).status, 'CRITICAL')
  t.equal(judged([down], { 'link-down': 'ok' }).status, 'OK')
  const portDown = new Map([['vnet0', { up: false, master: 'br0' }]])
  t.same(judged([guest()], {}, portDown).messages, [
    'vnet0: link down: vnet0 is down on the host, ip link set vnet0 up',
  ])
  t.equal(judged([down], {}, portDown).messages.length, 1, 'said once')
  const user = { type: 'user', macAddress: '52:54:00:00:00:02', linkUp: false }
  t.same(judged([guest({}, { interfaces: [], configured: [user] })]).messages, [
    '52:54:00:00:00:02: link down: set so in its XML, virsh domif-setlink 52:54:00:00:00:02 up changes that',
  ])
  t.end()
})

t.test('an interface that is not on its bridge; one that has none is no matter', t => {
  const wired = guest({}, { configured: [vnet0] })
  const on = (master: string | undefined) => new Map([['vnet0', { up: true, master }]])
  t.match(judged([wired], {}, on(undefined)), {
    status: 'CRITICAL',
    messages: ['vnet0: on no bridge instead of br0: ip link set vnet0 master br0'],
  })
  t.same(judged([wired], {}, on('br1')).messages, ['vnet0: on br1 instead of br0: ip link set vnet0 master br0'])
  t.equal(judged([wired], { 'off-bridge': 'warning' }, on(undefined)).status, 'WARNING')
  t.equal(judged([wired], {}, on('br0')).status, 'OK')
  for (const other of [
    { type: 'direct', device: 'vnet0', linkUp: true },
    { type: 'hostdev', linkUp: true },
    { type: 'vhostuser', linkUp: true },
  ]) {
    t.equal(judged([guest({}, { configured: [other] })], {}, on(undefined)).status, 'OK', other.type)
  }
  t.end()
})

t.test('the summary says what is most, what is not known, and who is new', t => {
  t.equal(judged([guest()]).summary, 'no errors or drops on 1 interface of running guests')
  const other = guest({ drops: [3, 0] }, { name: 'web2' })
  const fresh = guest({}, { interfaces: [{ name: 'vnet9' }] })
  t.equal(
    judged([guest(), other, fresh], { warning: '1' }).summary,
    'most drops 0.3 per second (web2 vnet0), 3 interfaces of running guests; 1 not among the network devices here, so their bridges are not known; collecting 1 new',
  )
  const outcome = check.evaluate({ guests: [guest()] }, check.parseOptions())
  t.match(outcome.summary, /; bridges are known on the hypervisor itself only$/)
  t.equal(judged([]).summary, '0 interfaces of running guests')
  t.end()
})

function params(drops: number, ...devices: string[]): FakeGuest['params'] {
  const each = devices.map((device, index) => ({
    [`net.${index}.name`]: device,
    [`net.${index}.rx.drop`]: drops,
    [`net.${index}.rx.errs`]: 0,
    [`net.${index}.tx.drop`]: 0,
  }))
  return Object.assign({ 'net.count': devices.length + 1 }, ...each)
}

/** A sysfs with these ports and their bridges. */
function sysfs(root: string, ports: Readonly<Record<string, string | undefined>>): string {
  const net = join(root, 'sys/class/net')
  rmSync(net, { recursive: true, force: true })
  for (const [port, bridge] of Object.entries(ports)) {
    mkdirSync(join(net, port), { recursive: true })
    writeFileSync(join(net, port, 'operstate'), 'unknown\n')
    if (bridge !== undefined) symlinkSync(`../../../virtual/net/${bridge}`, join(net, port, 'master'))
  }
  return root
}

function xmlOf(device: string, bridge: string, more = ''): string {
  return `<devices><interface type='bridge'><source bridge='${bridge}'/><target dev='${device}'/>${more}</interface></devices>`
}

t.test('one bulk call and the XML of running guests; it is parsed only where something may be wrong', async t => {
  const guests = numberedGuests(200, index => ({
    params: params(5, `vnet${index}`),
    // What is not parsed need not be XML.
    xml: `<devices bridge='br0'/ ${index}`,
  }))
  const [lost, moved, down, hostdev, off, vanished] = guests
  Object.assign(lost ?? {}, { xml: xmlOf('vnet0', 'br0') })
  Object.assign(moved ?? {}, { xml: xmlOf('vnet1', 'br7') })
  Object.assign(down ?? {}, { xml: xmlOf('vnet2', 'br0', "<link state='down'/>") })
  Object.assign(hostdev ?? {}, { params: { 'net.count': 1 } })
  Object.assign(off ?? {}, { state: [5, 1], params: {} })
  Object.assign(vanished ?? {}, { xml: undefined })
  const ports = Object.fromEntries(guests.map((_, index) => [`vnet${index}`, index === 0 ? undefined : 'br0']))
  const root = sysfs(t.testdir(), ports)
  const { host, asked } = await fakeGuests(t, guests)
  const context = checkContext({ path: absolute => join(root, absolute) })
  const parsed = check.parseOptions()
  const outcome = check.evaluate(await check.collect(host, parsed, context), parsed)
  t.same(
    outcome.findings.map(found => `${found.status} ${found.guest} ${found.device}: ${found.message}`),
    [
      'CRITICAL web1 vnet0: on no bridge instead of br0: ip link set vnet0 master br0',
      'CRITICAL web2 vnet1: on br0 instead of br7: ip link set vnet1 master br7',
      'WARNING web3 vnet2: link down: set so in its XML, virsh domif-setlink vnet2 up changes that',
    ],
  )
  t.equal(outcome.summary, '198 interfaces of running guests; collecting: known from the next run on')
  t.equal(asked().filter(call => call === 'CONNECT_GET_ALL_DOMAIN_STATS').length, 1)
  t.equal(asked().filter(call => call === 'DOMAIN_GET_XML_DESC').length, 199)
})

t.test('interfaces come and go, and counters begin anew, without an error', async t => {
  const guests = numberedGuests(1, () => ({ params: params(5, 'vnet0') }))
  const [web1] = guests
  const { host } = await fakeGuests(t, guests)
  const root = t.testdir()
  const context = checkContext({ path: absolute => join(root, absolute) })
  const drops = async (change: Partial<FakeGuest>) => {
    Object.assign(web1 ?? {}, change)
    const sample = await check.collect(host, check.parseOptions(), context)
    return sample.guests.map(({ interfaces }) => interfaces.map(own => own.growth?.grown['receivedDrops']))
  }
  t.same(await drops({}), [[undefined]])
  t.same(await drops({ params: params(9, 'vnet0', 'vnet1') }), [[4, undefined]], 'one is plugged in')
  t.same(await drops({ params: params(2, 'vnet0') }), [[undefined]], 'its counters went back')
  t.same(await drops({ params: params(3, 'vnet0') }), [[1]])
  t.same(await drops({ id: 7, params: params(50, 'vnet0') }), [[undefined]], 'restarted or migrated')
  t.same(await drops({ params: { 'net.count': 1 } }), [[]], 'one of type user')
})

t.test('a real guest on a real bridge, taken off it, with its link down', { skip: whyNoBridges() }, async t => {
  const bridge = ownBridge(t)
  const daemon = await libvirtd(t)
  await ownGuest(t, daemon, {
    name: 'nic1',
    transform: xml => xml.replace("<interface type='user'>", `<interface type='bridge'><source bridge='${bridge}'/>`),
  })
  const state = t.testdir()
  const run = () =>
    runExecutable(name, [
      '--uri',
      daemon.readOnlyUri ?? daemon.uri,
      '--guest',
      'nic1',
      '--state-dir',
      state,
      '-w',
      '~:',
      '-c',
      '~:',
    ])
  const collecting = 'collecting: known from the next run on'
  t.same(await run(), { stdout: `${name} OK: 1 interface of running guests; ${collecting}\n`, stderr: '', status: 0 })
  const [, device = ''] = /(vnet\d+)/.exec((await daemon.virsh('domiflist', 'nic1')).stdout) ?? []
  execFileSync('ip', ['link', 'set', device, 'nomaster'])
  await daemon.virsh('domif-setlink', 'nic1', device, 'down')
  const found = await run()
  const off = `nic1 ${device}: on no bridge instead of ${bridge}: ip link set ${device} master ${bridge}`
  const down = `nic1 ${device}: link down: set so in its XML, virsh domif-setlink ${device} up changes that`
  t.ok(
    found.stdout.startsWith(
      `${name} CRITICAL: ${off}; ${down}\nCRITICAL ${off}\nWARNING ${down}\n| nic1.${device}.error_rate=0;`,
    ),
  )
  t.equal(found.status, 2)
  execFileSync('ip', ['link', 'set', device, 'master', bridge])
  await daemon.virsh('domif-setlink', 'nic1', device, 'up')
  t.match(await run(), { stdout: /^check-kvm-interface OK: (no errors|most)/, status: 0 })
})

t.test('an interface of type user has nothing to count', async t => {
  const { libvirtd: daemon, guest: healthy } = await healthyGuest(t)
  const args = ['--uri', daemon.readOnlyUri ?? daemon.uri, '--guest', healthy.name, '--state-dir', t.testdir()]
  t.same(await runExecutable(name, args), {
    stdout: `${name} OK: 0 interfaces of running guests\n`,
    stderr: '',
    status: 0,
  })
})

t.test('the executable prints exactly this', async t => {
  const guests = numberedGuests(1, () => ({ params: params(5, 'vnet0'), xml: xmlOf('vnet0', 'br0') }))
  const { daemon } = await fakeGuests(t, guests)
  const root = sysfs(t.testdir(), { vnet0: 'br1' })
  const line = 'web1 vnet0: on br1 instead of br0: ip link set vnet0 master br0'
  t.same(
    await runExecutable(name, ['--uri', daemon.uri, '--state-dir', join(root, 'state')], {
      env: { SENSU_KVM_ROOT: root },
    }),
    {
      stdout: `${name} CRITICAL: ${line}\nCRITICAL ${line}\n`,
      stderr: '',
      status: 2,
    },
  )
  t.same(await runExecutable(name, ['--link-down', 'bad']), {
    stdout: `${name} UNKNOWN: --link-down bad: not one of ok, warning, critical\n`,
    stderr: '',
    status: 3,
  })
})

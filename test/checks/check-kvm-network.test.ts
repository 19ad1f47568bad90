import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import check, { type NetworkSample, type NetworksSample } from '../../checks/check-kvm-network.js'
import { Host } from '../../libvirt/host.js'
import { procedures } from '../../libvirt/procedures.js'
import { statusOf } from '../../plugin/output.js'
import { ownBridge, whyNoBridges } from '../support/bridge.js'
import { checkContext, runExecutable } from '../support/checks.js'
import { FakeLibvirtd } from '../support/fake-libvirtd.js'
import { libvirtd, ownLibvirtd } from '../support/services.js'

const name = 'check-kvm-network'
const bridge = { name: 'virbr0', role: 'bridge', present: true, up: true } as const

function network(change: Partial<NetworkSample> = {}): NetworkSample {
  return {
    name: 'default',
    named: false,
    autostart: true,
    active: true,
    forwardMode: 'nat',
    devices: [bridge],
    ...change,
  }
}

function judged(
  networks: readonly NetworkSample[],
  raw: Parameters<typeof check.parseOptions>[0] = {},
  change: Partial<NetworksSample> = {},
) {
  const outcome = check.evaluate({ uri: 'qemu:///system', networks, missing: [], ...change }, check.parseOptions(raw))
  const bad = outcome.findings.filter(({ status }) => status !== 'OK')
  return { status: statusOf(outcome), messages: bad.map(({ device, message }) => `${device}: ${message}`), outcome }
}

t.test('inactive is wrong for a network that starts with the host or is named, and only for that', t => {
  const inactive = network({ active: false, devices: [] })
  t.match(judged([inactive]), {
    status: 'CRITICAL',
    messages: ['default: inactive, though it is to start with the host: virsh net-start'],
  })
  t.equal(judged([inactive], { autostart: 'warning' }).status, 'WARNING')
  t.equal(judged([inactive], { autostart: 'ignore' }).status, 'OK')
  t.match(judged([{ ...inactive, named: true }], { autostart: 'ignore' }), {
    status: 'CRITICAL',
    messages: ['default: inactive, though it is asked for by name: virsh net-start'],
  })
  t.match(judged([{ ...inactive, autostart: false, name: 'b' }, network()]), {
    status: 'OK',
    outcome: { summary: '1 active; 1 inactive; default on virbr0' },
  })
  t.end()
})

t.test('a bridge or device that is missing or down is CRITICAL, with what to do', t => {
  const messages = (change: Partial<NetworkSample['devices'][number]>, forwardMode: string | undefined) =>
    judged([network({ forwardMode, devices: [{ ...bridge, ...change }] })]).messages
  for (const forwardMode of [undefined, 'nat', 'route', 'open']) {
    t.same(messages({ present: false }, forwardMode), [
      'default: active, but its bridge virbr0 is missing: virsh net-destroy and net-start make it anew',
    ])
  }
  t.same(messages({ name: 'br0', present: false }, 'bridge'), [
    'default: active, but its bridge br0 is missing: set it up on this host',
  ])
  t.same(messages({ name: 'eth9', role: 'device', present: false }, 'nat'), [
    'default: active, but its device eth9 is missing: set it up on this host',
  ])
  t.same(messages({ up: false }, 'nat'), ['default: active, but its bridge virbr0 is down: ip link set virbr0 up'])
  t.same(messages({ up: undefined }, 'nat'), [])
  t.equal(judged([network({ devices: [{ ...bridge, present: false }] })]).status, 'CRITICAL')
  t.end()
})

t.test('DHCP leases are judged at, below and above each limit, when asked for', t => {
  const limits = { 'leases-warning': '80', 'leases-critical': '95' }
  for (const [used, status] of [
    [0, 'OK'],
    [160, 'OK'],
    [161, 'WARNING'],
    [190, 'WARNING'],
    [191, 'CRITICAL'],
  ] as const) {
    t.equal(judged([network({ leases: { used, addresses: 200 } })], limits).status, status, `${used} of 200`)
  }
  t.same(judged([network({ leases: { used: 190, addresses: 200 } })], limits).messages, [
    'default: DHCP leases 95 % of 200 addresses (warning above 80 %)',
  ])
  t.end()
})

t.test('no networks at all is well; one that is named must be there', t => {
  t.match(judged([]), { status: 'OK', outcome: { summary: 'no networks on qemu:///system' } })
  t.match(judged([network()], {}, { missing: ['b'] }), {
    status: 'CRITICAL',
    messages: ['b: no such network on qemu:///system: undefined, or wrongly named by --network'],
  })
  t.equal(judged([], { match: '^x' }).status, 'UNKNOWN')
  t.end()
})

interface FakeNetwork {
  name: string
  uuid: string
  active?: boolean
  autostart?: boolean
  /** What is inside its `<network>`; it has vanished when that is absent. */
  xml?: string
}

async function fakeHost(t: Test, networks: readonly FakeNetwork[], leases: readonly string[] = []) {
  const daemon = await FakeLibvirtd.start()
  const host = Host.open(daemon.uri)
  t.teardown(async () => {
    await host.close()
    await daemon.remove()
  })
  daemon.on(procedures.listAllNetworks, call => {
    call.arguments.i32()
    const flags = call.arguments.u32()
    const listed = networks.filter(({ active = true, autostart }) => {
      return flags === 0 || (flags === 1 && !active) || (flags === 16 && autostart)
    })
    call.reply(writer => writer.array(listed, (to, own) => to.string(own.name).uuid(own.uuid)).u32(listed.length))
  })
  daemon.on(procedures.networkGetXml, call => {
    const asked = call.arguments.string()
    const xml = networks.find(own => own.name === asked)?.xml
    if (xml === undefined) call.fail(43, 'Network not found')
    else call.reply(writer => writer.string(`<network><name>${asked}</name>${xml}</network>`))
  })
  daemon.on(procedures.networkGetDhcpLeases, call =>
    call.reply(writer => {
      writer.array(leases, (to, address) => {
        to.string('virbr0').i64(2_000_000_000).i32(0).optionalString('52:54:00:00:00:01').optionalString(undefined)
        to.string(address).u32(24).optionalString(undefined).optionalString(undefined)
      })
      writer.u32(leases.length)
    }),
  )
  return { daemon, host }
}

const uuids = (count: number) =>
  Array.from({ length: count }, (_, index) => `00000000-0000-0000-0000-${String(index + 1).padStart(12, '0')}`)

t.test('devices of every kind of network are looked for, in the directory that is given', async t => {
  const xml = {
    bridged: "<forward mode='bridge'/><bridge name='br0'/>",
    gone: undefined,
    isolated: "<bridge name='virbr1'/>",
    macvtap: "<forward mode='passthrough'><interface dev='eth1'/><interface dev='../../etc'/></forward>",
    nat: "<forward mode='nat' dev='eth0'><interface dev='eth0'/></forward><bridge name='virbr0'/>",
    ovs: "<forward mode='bridge'/><bridge name='ovs0'/><virtualport type='openvswitch'/>",
    pci: "<forward mode='hostdev' managed='yes'><pf dev='eth1'/></forward>",
  }
  const ids = uuids(7)
  const networks = Object.entries(xml).map(([own, content], index) => {
    return { name: own, uuid: ids[index] ?? '', ...(content === undefined ? {} : { xml: content }) }
  })
  const { daemon, host } = await fakeHost(t, networks)
  const down = () => ({ flags: '0x1002\n' })
  const up = () => ({ flags: '0x1003\n' })
  const netRoot = t.testdir({ br0: down(), virbr0: up(), eth0: {}, eth1: up(), ovs0: down() })
  const { networks: found } = await check.collect(host, check.parseOptions({ 'net-root': netRoot }), checkContext())
  const states = found.map(({ name: own, forwardMode, devices }) => {
    return [
      own,
      forwardMode,
      ...devices.map(({ name: device, role, present, up: isUp }) => `${role} ${device} ${present} ${isUp}`),
    ]
  })
  t.same(states, [
    ['bridged', 'bridge', 'bridge br0 true false'],
    ['isolated', undefined, 'bridge virbr1 false undefined'],
    ['macvtap', 'passthrough', 'device eth1 true true', 'device ../../etc false undefined'],
    ['nat', 'nat', 'bridge virbr0 true true', 'device eth0 true undefined'],
    ['ovs', 'bridge', 'bridge ovs0 true undefined'],
    ['pci', 'hostdev', 'device eth1 true true'],
  ])
  t.equal(daemon.count(procedures.networkGetDhcpLeases), 0, 'not asked for')
  const blind = await check.collect(host, check.parseOptions({ 'libvirt-only': true }), checkContext())
  t.same(
    blind.networks.flatMap(({ devices }) => devices),
    [],
  )
  await t.rejects(check.collect(host, check.parseOptions({ 'net-root': '/nonexistent' }), checkContext()), {
    message: /^cannot see this machine's network devices: ENOENT.*: correct --net-root, or give --libvirt-only$/,
  })
})

t.test('leases in the ranges are counted, once each; a network without a range has none', async t => {
  const [one = '', two = ''] = uuids(2)
  const range = "<range start='10.0.0.250' end='10.0.1.3'/>"
  const xml = `<ip address='10.0.0.1'><dhcp>${range}</dhcp></ip><ip family='ipv6'><dhcp><range start='fd00::1' end='fd00::9'/></dhcp></ip>`
  const leases = ['10.0.0.249', '10.0.0.250', '10.0.1.0', '10.0.1.0', '10.0.1.3', '10.0.1.4', 'fd00::1']
  const { host } = await fakeHost(
    t,
    [
      { name: 'a', uuid: one, xml },
      { name: 'b', uuid: two, xml: '' },
    ],
    leases,
  )
  const options = check.parseOptions({ 'leases-warning': '80', 'libvirt-only': true })
  const { networks } = await check.collect(host, options, checkContext())
  t.same(
    networks.map(found => found.leases),
    [{ used: 3, addresses: 10 }, undefined],
  )
})

t.test('a real network and its bridge', { skip: whyNoBridges() }, async t => {
  const daemon = await ownLibvirtd(t)
  const device = ownBridge(t)
  const file = join(daemon.directory, 'network.xml')
  writeFileSync(file, `<network><name>back end</name><forward mode='bridge'/><bridge name='${device}'/></network>`)
  await daemon.virsh('net-define', file)
  const says = async (...args: string[]) => {
    const { stdout, stderr, status } = await runExecutable(name, ['--uri', daemon.readOnlyUri ?? daemon.uri, ...args])
    return [status, stdout.replaceAll(device, 'BRIDGE').replaceAll(daemon.directory, 'DIR'), stderr]
  }
  t.same(await says(), [0, `${name} OK: 0 active; 1 inactive\n| back_x20end.active=0;;;0;1\n`, ''])
  await daemon.virsh('net-autostart', 'back end')
  const inactive = 'back end: inactive, though it is to start with the host: virsh net-start'
  t.same(await says(), [2, `${name} CRITICAL: ${inactive}\nCRITICAL ${inactive}\n| back_x20end.active=0;;;0;1\n`, ''])
  await daemon.virsh('net-start', 'back end')
  t.teardown(() => daemon.virsh('net-destroy', 'back end').then(() => undefined))
  t.same(await says('--network', 'back end'), [
    0,
    `${name} OK: 1 active; back end on BRIDGE\n| back_x20end.active=1;;;0;1\n`,
    '',
  ])
  const missing = 'back end: active, but its bridge BRIDGE is missing: set it up on this host'
  t.same(await says('--net-root', t.testdir()), [
    2,
    `${name} CRITICAL: ${missing}\nCRITICAL ${missing}\n| back_x20end.active=1;;;0;1\n`,
    '',
  ])
  t.match(await says('--network', 'front'), [
    2,
    /^check-kvm-network CRITICAL: front: no such network on [^ ]+: undefined, or wrongly named by --network\n/,
  ])
})

t.test("the test driver's network, whose bridge is not on this machine", async t => {
  const { uri } = await libvirtd(t)
  const testDriver = uri.replace(/^qemu(.*)\/(system|session)/, 'test$1/default')
  t.same(await runExecutable(name, ['--uri', testDriver]), {
    stdout: `${name} OK: 1 active; default\n| default.active=1;;;0;1\n`,
    stderr: '',
    status: 0,
  })
})

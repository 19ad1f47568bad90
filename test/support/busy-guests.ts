import { readDomain } from '../../libvirt/decode.js'
import { statsGroupBits } from '../../libvirt/domain-stats.js'
import { procedures } from '../../libvirt/procedures.js'
import type { StatsGroup } from '../../libvirt/records.js'
import { XdrWriter } from '../../libvirt/xdr.js'
import { type FakeGuest, fakeGuests, numberedGuests, writeParam, writeParams } from './fake-guests.js'
import type { FakeCall, FakeLibvirtd } from './fake-libvirtd.js'
import type { Test } from './services.js'

const vcpus = 4
const interfaces = 2
const disks = ['vda', 'vdb']
const kib = 1024

type Params = Record<string, number | bigint | string>

/**
 * What QEMU's driver tells of one healthy running guest in one bulk call: 4 vCPUs, 2 interfaces, 2 disks, some 95 parameters. Counters
 * grow with `round`, as they do between two runs; `index` tells guests apart.
 */
export function busyParams(index: number, round: number): Params {
  const grown = 1_000_003 * (index + 1) + 1_000_000 * round
  const params: Params = { 'cpu.time': grown * 1000, 'cpu.user': grown * 700, 'cpu.system': grown * 300 }
  const memoryKib = 4 * kib * kib
  Object.assign(params, {
    'balloon.current': memoryKib,
    'balloon.maximum': memoryKib,
    'balloon.swap_in': 0,
    'balloon.swap_out': 0,
    'balloon.major_fault': 100,
    'balloon.minor_fault': grown,
    'balloon.available': memoryKib - 100_000,
    'balloon.usable': memoryKib / 2,
    'balloon.unused': memoryKib / 4,
    'balloon.last-update': Math.floor(Date.now() / 1000),
    'balloon.disk_caches': memoryKib / 8,
    'balloon.hugetlb_pgalloc': 0,
    'balloon.hugetlb_pgfail': 0,
    'balloon.rss': memoryKib,
    'vcpu.current': vcpus,
    'vcpu.maximum': vcpus,
  })
  for (let vcpu = 0; vcpu < vcpus; vcpu++) {
    const own = { state: 1, time: grown * 100, wait: 0, delay: grown }
    for (const [name, value] of Object.entries(own)) params[`vcpu.${vcpu}.${name}`] = value
  }
  params['net.count'] = interfaces
  for (let net = 0; net < interfaces; net++) {
    params[`net.${net}.name`] = `vnet${index * interfaces + net}`
    for (const direction of ['rx', 'tx']) {
      const own = { bytes: grown * 100, pkts: grown, errs: 0, drop: 0 }
      for (const [name, value] of Object.entries(own)) params[`net.${net}.${direction}.${name}`] = value
    }
  }
  params['block.count'] = disks.length
  for (const [number, name] of disks.entries()) {
    params[`block.${number}.name`] = name
    params[`block.${number}.path`] = diskPath(index, name)
    for (const operation of ['rd', 'wr', 'fl']) {
      params[`block.${number}.${operation}.reqs`] = grown
      params[`block.${number}.${operation}.times`] = grown * 1_000_000
      if (operation !== 'fl') params[`block.${number}.${operation}.bytes`] = grown * 4096
    }
    const own = { allocation: 5 * kib ** 3, capacity: 10 * kib ** 3, physical: 5 * kib ** 3 }
    for (const [name, value] of Object.entries(own)) params[`block.${number}.${name}`] = value
  }
  return params
}

/** What a bulk call with NOWAIT tells of a guest whose QEMU is stuck (libvirt 9.0): nothing that needs QEMU. */
function stuckParams(index: number, round: number): Params {
  const needsQemu = /^(?:balloon\.(?!current|maximum)|block\.\d+\.(?!name|path))/
  return Object.fromEntries(Object.entries(busyParams(index, round)).filter(([name]) => !needsQemu.test(name)))
}

/** In a directory that every machine has: an image is missing then, in one that is not there it may be somewhere else. */
function diskPath(index: number, disk: string): string {
  return `/guest-${index}-${disk}.qcow2`
}

function xmlOf(index: number): string {
  const disk = (name: string) =>
    `<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='${diskPath(index, name)}'/><target dev='${name}' bus='virtio'/></disk>`
  const net = (number: number) =>
    `<interface type='bridge'><source bridge='br0'/><target dev='vnet${index * interfaces + number}'/><model type='virtio'/></interface>`
  return `<memory unit='KiB'>4194304</memory><currentMemory unit='KiB'>4194304</currentMemory><vcpu>${vcpus}</vcpu><devices>${disks.map(disk).join('')}${Array.from(
    { length: interfaces },
    (_, number) => net(number),
  ).join('')}<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0' state='connected'/></channel>
<memballoon model='virtio'><stats period='10'/></memballoon></devices>`
}

/** What a healthy agent returns, by command. */
const agentReturns: Readonly<Record<string, () => unknown>> = {
  'guest-ping': () => ({}),
  'guest-info': () => ({
    version: '7.2.22',
    supported_commands: Object.keys(agentReturns).map(name => ({ name, enabled: true })),
  }),
  'guest-get-fsinfo': () => [
    { name: 'vda1', mountpoint: '/', type: 'ext4', 'used-bytes': 4 * kib ** 3, 'total-bytes': 10 * kib ** 3, disk: [] },
  ],
  'guest-fsfreeze-status': () => 'thawed',
  'guest-get-time': () => Date.now() * 1_000_000,
  'guest-get-vcpus': () =>
    Array.from({ length: vcpus }, (_, id) => ({ 'logical-id': id, online: true, 'can-offline': id > 0 })),
  'guest-get-cpustats': () => [],
  'guest-get-load': () => ({ load1m: 0.5, load5m: 0.5, load15m: 0.5 }),
  'guest-network-get-interfaces': () => [
    {
      name: 'eth0',
      'hardware-address': '52:54:00:00:00:01',
      'ip-addresses': [{ 'ip-address': '192.0.2.10', 'ip-address-type': 'ipv4', prefix: 24 }],
      statistics: Object.fromEntries(
        ['rx', 'tx'].flatMap(direction =>
          ['bytes', 'packets', 'errs', 'dropped'].map(name => [`${direction}-${name}`, 0]),
        ),
      ),
    },
  ],
}

/** What libvirt's own calls to a healthy agent, or QEMU, return. */
const answers: Readonly<Record<string, (writer: XdrWriter) => unknown>> = {
  DOMAIN_GET_JOB_STATS: writer => writer.i32(0).u32(0),
  DOMAIN_GET_DISK_ERRORS: writer => writer.u32(0).i32(0),
  DOMAIN_GET_TIME: writer => writer.i64(Math.floor(Date.now() / 1000)).u32(0),
  DOMAIN_GET_GUEST_VCPUS: writer => writeParams(writer, { vcpus: '0-3', online: '0-3', offlinable: '1-3' }),
  DOMAIN_INTERFACE_ADDRESSES: writer =>
    writer.array(['eth0'], (to, name) =>
      to
        .string(name)
        .optionalString('52:54:00:00:00:01')
        .array(['192.0.2.10'], (address, text) => address.i32(0).string(text).u32(24)),
    ),
  DOMAIN_GET_GUEST_INFO: writer =>
    writeParams(writer, {
      'fs.count': 1,
      'fs.0.mountpoint': '/',
      'fs.0.name': 'vda1',
      'fs.0.fstype': 'ext4',
      'fs.0.total-bytes': 10 * kib ** 3,
      'fs.0.used-bytes': 4 * kib ** 3,
      'fs.0.disk.count': 0,
    }),
}

/** What no group at all stands for, as virsh domstats asks. */
const everyGroup = 0xffff_ffff
/** How long libvirt waits for an agent that does not answer, and how many times as long for QEMU. */
const agentPatienceMs = 1010
const qemuPatience = 30
const stuckForMs = 12_345
const unsupported = 'this function is not supported by the connection driver'

export interface BusyGuestsOptions {
  /** Names of the first guests; the others are `web1` and on. */
  readonly names?: readonly string[]
  /** Guests, by index, whose QEMU and agent do not answer. */
  readonly stuck?: readonly number[]
  /** How long libvirt waits for a stuck guest's agent. Default: a second. */
  readonly patienceMs?: number
}

/**
 * A fake daemon with so many busy guests, which answers whatever checks of guests ask, and says of everything else that its driver does not have it.
 */
export async function busyGuests(
  t: Test,
  count: number,
  { names = [], stuck = [], patienceMs = agentPatienceMs }: BusyGuestsOptions = {},
) {
  const agent = (command: string, call: FakeCall): unknown => {
    const answer = Object.hasOwn(agentReturns, command) ? agentReturns[command]?.() : undefined
    if (answer === undefined) call.fail(1, `The command ${command} has not been found`)
    return answer
  }
  const silentAgent = (_: string, call: FakeCall) => {
    setTimeout(() => call.fail(86, 'Guest agent is not responding'), patienceMs).unref()
  }
  const answer = (procedure: string, call: FakeCall) => {
    const write = answers[procedure]
    if (write === undefined) call.fail(3, unsupported)
    else call.reply(write)
  }
  const silentAnswer = (procedure: string, call: FakeCall) => {
    if (!/^DOMAIN_GET_(?:JOB_STATS|DISK_ERRORS)$/.test(procedure)) return silentAgent(procedure, call)
    setTimeout(() => call.fail(68, 'cannot acquire state change lock'), patienceMs * qemuPatience).unref()
  }
  const guests: FakeGuest[] = numberedGuests(count, index => ({
    ...(names[index] === undefined ? {} : { name: names[index] }),
    xml: xmlOf(index),
    agent: stuck.includes(index) ? silentAgent : agent,
    answer: stuck.includes(index) ? silentAnswer : answer,
    ...(stuck.includes(index) ? { silentMs: stuckForMs } : {}),
  }))
  const fake = await fakeGuests(t, guests)
  const { daemon } = fake
  const encodeAll = (round: number) =>
    guests.map((guest, index) =>
      encode(guest, stuck.includes(index) ? stuckParams(index, round) : busyParams(index, round)),
    )
  // Before anybody asks: that takes longer than libvirt would, and a bulk call that takes a second is looked into.
  let round = 1
  let encoded = encodeAll(round)
  daemon.on(procedures.getAllDomainStats, call => {
    const named = new Set(call.arguments.array(count, 24, readDomain).map(({ uuid }) => uuid))
    const bits = call.arguments.u32() || everyGroup
    const asked = named.size === 0 ? encoded : encoded.filter(({ uuid }) => named.has(uuid))
    const reply = Buffer.concat([
      call.frame(writer => writer.u32(asked.length)),
      ...asked.flatMap(guest => inGroups(guest, bits)),
    ])
    reply.writeUInt32BE(reply.length, 0)
    call.socket.write(reply)
  })
  daemon.on(procedures.listAllDomains, call => {
    call.arguments.i32()
    const chosen = areChosen(call.arguments.u32()) ? guests : []
    call.reply(writer =>
      writer.array(chosen, (to, { name, uuid, id }) => to.string(name).uuid(uuid).i32(id)).u32(chosen.length),
    )
  })
  answerAboutHost(daemon, () => round)
  daemon.onOther(call => call.fail(3, unsupported))
  /** Lets the guests' counters grow. */
  const nextRound = () => {
    round += 1
    encoded = encodeAll(round)
  }
  return { ...fake, guests, nextRound }
}

/** What a Linux host with two CPUs and 16 GiB tells of itself. */
function answerAboutHost(daemon: FakeLibvirtd, round: () => number): void {
  const counters = (writer: XdrWriter, asked: number, values: Readonly<Record<string, number>>) => {
    const entries = asked === 0 ? [] : Object.entries(values)
    writer.array(entries, (to, [name, value]) => to.string(name).u64(value)).i32(Object.keys(values).length)
  }
  daemon.on(procedures.nodeGetInfo, call =>
    call.reply(writer => {
      for (const character of 'x86_64'.padEnd(32, '\0')) writer.i32(character.charCodeAt(0))
      writer.u64(16 * kib * kib)
      for (const number of [2, 2000, 1, 1, 2, 1]) writer.i32(number)
    }),
  )
  let readings = 0
  daemon.on(procedures.nodeGetCpuStats, call => {
    call.arguments.i32()
    const asked = call.arguments.i32()
    readings += 1
    const grown = 1e9 * (round() + readings)
    call.reply(writer => counters(writer, asked, { kernel: grown, user: 2 * grown, idle: 6 * grown, iowait: grown }))
  })
  daemon.on(procedures.nodeGetMemoryStats, call => {
    const asked = call.arguments.i32()
    const values = { total: 16 * kib * kib, free: 4 * kib * kib, buffers: kib * kib, cached: 4 * kib * kib }
    call.reply(writer => counters(writer, asked, values))
  })
  daemon.on(procedures.nodeGetFreeMemory, call => call.reply(writer => writer.u64(4 * kib ** 3)))
  daemon.on(procedures.getLibVersion, call => call.reply(writer => writer.u64(9_000_000)))
  daemon.on(procedures.getVersion, call => call.reply(writer => writer.u64(7_002_022)))
  daemon.on(procedures.getType, call => call.reply(writer => writer.string('QEMU')))
  daemon.on(procedures.getHostname, call => call.reply(writer => writer.string('hypervisor.example')))
}

/** A guest of a bulk reply, ready to be sent: its name, and its parameters by group. */
interface EncodedGuest {
  readonly uuid: string
  readonly domain: Buffer
  readonly groups: readonly { readonly bit: number; readonly count: number; readonly bytes: Buffer }[]
}

const groupOf: Readonly<Record<string, StatsGroup>> = {
  state: 'state',
  cpu: 'cpu',
  balloon: 'balloon',
  vcpu: 'vcpu',
  net: 'interface',
  block: 'block',
}

function encode({ name, uuid, id }: FakeGuest, params: Params): EncodedGuest {
  const entries = Object.entries({ 'state.state': 1, 'state.reason': 1, ...params })
  const groups = Object.entries(groupOf).map(([prefix, group]) => {
    const own = entries.filter(([key]) => key.startsWith(`${prefix}.`))
    const writer = new XdrWriter(0)
    for (const [key, value] of own) writeParam(writer, key, value)
    return { bit: statsGroupBits[group], count: own.length, bytes: writer.finish() }
  })
  return { uuid, domain: new XdrWriter(0).string(name).uuid(uuid).i32(id).finish(), groups }
}

/** The bytes of a guest with the groups that were asked for. */
function inGroups({ domain, groups }: EncodedGuest, bits: number): Buffer[] {
  const wanted = groups.filter(({ bit }) => (bit & bits) !== 0)
  const count = wanted.reduce((sum, group) => sum + group.count, 0)
  return [domain, new XdrWriter(0).u32(count).finish(), ...wanted.map(({ bytes }) => bytes)]
}

/** Whether a listing with these flags has our guests: running, defined, starting with the host, without snapshot or saved state. */
function areChosen(flags: number): boolean {
  const only = (yes: number, no: number) => (flags & no) !== 0 && (flags & yes) === 0
  return !only(1, 2) && !only(4, 8) && !only(0x400, 0x800) && !only(0x200, 0x100) && !only(0x2000, 0x1000)
}

import { setTimeout as pause } from 'node:timers/promises'
import t from 'tap'
import * as decode from '../../libvirt/decode.js'
import { DomainStatsDecoder } from '../../libvirt/domain-stats.js'
import type { ParamValue } from '../../libvirt/records.js'
import { XdrReader, XdrWriter } from '../../libvirt/xdr.js'

type Param = [name: string, type: number, value: ParamValue]

function writeParams(writer: XdrWriter, params: readonly Param[]): void {
  writer.array(params, (to, [name, type, value]) => {
    to.string(name).i32(type)
    if (type === 1) to.i32(Number(value))
    else if (type === 2) to.u32(Number(value))
    else if (type === 3) to.i64(value as number | bigint)
    else if (type === 4) to.u64(value as number | bigint)
    else if (type === 5) to.f64(Number(value))
    else if (type === 6) to.bool(value === true)
    else to.string(String(value))
  })
}

function replyBytes(guests: readonly (readonly Param[])[]): Buffer {
  const writer = new XdrWriter()
  writer.array(guests, (to, params) => {
    const id = guests.indexOf(params) + 1
    decode.writeDomain(to, { name: `guest${id}`, uuid: id.toString(16).padStart(32, '0'), id })
    writeParams(to, params)
  })
  return writer.finish()
}

function reply(guests: readonly (readonly Param[])[]): XdrReader {
  return new XdrReader(replyBytes(guests), 'BULK')
}

const full: Param[] = [
  ['state.state', 1, 3],
  ['state.reason', 1, 5],
  ['cpu.time', 4, 5_000_000_000],
  ['cpu.user', 4, 2n ** 60n],
  ['cpu.system', 4, 1],
  ['cpu.haltpoll.success.time', 4, 7],
  ['balloon.current', 4, 262_144],
  ['balloon.maximum', 4, 524_288],
  ['balloon.swap_in', 4, 0],
  ['balloon.major_fault', 4, 3],
  ['balloon.usable', 4, 100],
  ['balloon.last-update', 4, 1_795_318_286],
  ['balloon.rss', 4, 200],
  ['vcpu.current', 2, 2],
  ['vcpu.maximum', 2, 4],
  ['vcpu.0.state', 1, 1],
  ['vcpu.0.time', 4, 10],
  ['vcpu.0.wait', 4, 0],
  ['vcpu.0.delay', 4, 20],
  ['vcpu.0.halted', 6, true],
  ['vcpu.3.state', 1, 0],
  ['net.count', 2, 1],
  ['net.0.name', 7, 'vnet0'],
  ['net.0.rx.bytes', 4, 1000],
  ['net.0.rx.drop', 4, 1],
  ['net.0.tx.errs', 4, 2],
  ['block.count', 2, 1],
  ['block.0.name', 7, 'vda'],
  ['block.0.path', 7, '/images/a.qcow2'],
  ['block.0.backingIndex', 2, 1],
  ['block.0.rd.reqs', 4, 11],
  ['block.0.rd.times', 4, 2_413_742],
  ['block.0.fl.reqs', 4, 1],
  ['block.0.capacity', 4, 268_435_456],
  ['future.group.value', 5, 0.5],
]

t.test('a guest becomes a typed view, and every parameter is kept by its own name', async t => {
  const [guest] = await new DomainStatsDecoder().decode(reply([full]), true)
  t.match(guest, {
    domain: { name: 'guest1', id: 1 },
    state: { state: 'paused', reason: 'I/O error' },
    cpu: { timeNs: 5_000_000_000, userNs: 2 ** 60, systemNs: 1, haltpollSuccessNs: 7 },
    balloon: {
      balloonBytes: 262_144 * 1024,
      maximumBytes: 524_288 * 1024,
      swapInBytes: 0,
      majorFaults: 3,
      usableBytes: 102_400,
      lastUpdateSeconds: 1_795_318_286,
      rssBytes: 204_800,
    },
    currentVcpus: 2,
    maximumVcpus: 4,
    vcpus: [
      { number: 0, state: 'running', timeNs: 10, waitNs: 0, delayNs: 20, halted: true },
      { number: 3, state: 'offline' },
    ],
    interfaces: [{ name: 'vnet0', receivedBytes: 1000, receivedDrops: 1, sentErrors: 2 }],
    blocks: [
      {
        name: 'vda',
        path: '/images/a.qcow2',
        backingIndex: 1,
        readOps: 11,
        readTimeNs: 2_413_742,
        flushOps: 1,
        capacityBytes: 268_435_456,
      },
    ],
  })
  t.equal(guest?.vcpus.length, 2, 'places never sent are left out')
  t.same(guest?.raw, new Map(full.map(([name, , value]) => [name, value])), 'exact where a number would not be')
  t.equal((await new DomainStatsDecoder().decode(reply([full])))[0]?.raw, undefined, 'only when asked for')
})

t.test('groups that were not sent are absent, and guests do not leak into each other', async t => {
  const decoder = new DomainStatsDecoder()
  const guests = await decoder.decode(reply([full, [['state.state', 1, 5]], []]))
  t.match(guests[1], { state: { state: 'shut off', reason: 'unknown' }, cpu: undefined, balloon: undefined })
  t.same(guests[2]?.blocks, [])
  t.equal(guests[2]?.state, undefined)
})

t.test('a hostile place in a group is kept raw, not allocated', async t => {
  const hostile: Param[] = [
    ['vcpu.9999.time', 4, 1],
    ['block.99999999.name', 7, 'x'],
    ['net.-1.name', 7, 'x'],
    ['block.__proto__.name', 7, 'x'],
    ['__proto__', 7, 'x'],
    ['block.0.__proto__', 7, 'x'],
    ['constructor', 4, 1],
    ['balloon.rss', 7, 'many'],
    ['state.state', 7, 'good'],
  ]
  const [guest] = await new DomainStatsDecoder().decode(reply([hostile]), true)
  t.same([guest?.vcpus, guest?.interfaces], [[], []])
  t.same(guest?.blocks, [])
  t.equal(guest?.raw?.size, hostile.length)
  t.equal(guest?.balloon?.rssBytes, undefined)
  t.equal(guest?.state, undefined)
})

t.test('malformed replies are refused', async t => {
  const decoder = new DomainStatsDecoder()
  const words = (...values: number[]) => {
    const writer = new XdrWriter()
    for (const value of values) writer.u32(value)
    return new XdrReader(writer.finish(), 'BULK')
  }
  await t.rejects(decoder.decode(words(0xffff_ffff)), { kind: 'protocol', message: /4294967295 elements/ })
  await t.rejects(decoder.decode(words(0, 1)), { kind: 'protocol', message: /left over/ })
  const unknownType = new XdrWriter()
  unknownType.u32(1)
  decode.writeDomain(unknownType, { name: 'a', uuid: '0'.repeat(32) })
  unknownType.u32(1).string('x').i32(8).u32(0)
  await t.rejects(decoder.decode(new XdrReader(unknownType.finish(), 'BULK')), { message: /unknown type 8/ })
})

t.test('1,000 guests with 150 parameters each are decoded without holding the loop for more than 10 ms', async t => {
  const large: Param[] = [...full]
  for (let disk = 1; disk <= 6; disk += 1) {
    large.push([`block.${disk}.name`, 7, `vd${disk}`], [`block.${disk}.path`, 7, `/images/${disk}.qcow2`])
    for (const field of ['rd', 'wr', 'fl']) {
      for (const kind of ['reqs', 'bytes', 'times']) large.push([`block.${disk}.${field}.${kind}`, 4, 123_456_789_012])
    }
  }
  for (let cpu = 4; large.length < 150; cpu += 1) {
    large.push([`vcpu.${cpu}.state`, 1, 1], [`vcpu.${cpu}.time`, 4, 99], [`vcpu.${cpu}.delay`, 4, 9])
  }
  const guests = Array.from({ length: 1000 }, () => [...large])
  const decoder = new DomainStatsDecoder()
  const bytes = replyBytes(guests)
  let lagMs = Number.POSITIVE_INFINITY
  // A busy machine adds pauses of its own, so the calmest of several runs tells what decoding does.
  for (let run = 0; run < 60 && lagMs > 10; run += 1) {
    await pause(20)
    const stop = watchLoop()
    const startedMs = performance.now()
    const decoded = await decoder.decode(new XdrReader(bytes, 'BULK'))
    const tookMs = performance.now() - startedMs
    lagMs = Math.min(lagMs, stop())
    t.equal(decoded.length, 1000)
    t.comment(`decoded in ${tookMs.toFixed(0)} ms, longest stretch so far ${lagMs.toFixed(1)} ms`)
  }
  t.ok(lagMs <= 10, `longest stretch ${lagMs} ms`)
})

/** Measures the longest time between two turns of the event loop until the returned function is called. */
function watchLoop(): () => number {
  let longestMs = 0
  let lastMs = performance.now()
  let watching = true
  const turn = () => {
    const nowMs = performance.now()
    longestMs = Math.max(longestMs, nowMs - lastMs)
    lastMs = nowMs
    if (watching) setImmediate(turn)
  }
  setImmediate(turn)
  return () => {
    watching = false
    return longestMs
  }
}

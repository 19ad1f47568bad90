import t from 'tap'
import { Calls, type Request } from '../../libvirt/calls.js'
import { readError } from '../../libvirt/decode.js'
import { DomainStatsDecoder } from '../../libvirt/domain-stats.js'
import { eventKinds, eventNames } from '../../libvirt/events.js'
import { procedures } from '../../libvirt/procedures.js'
import type { Domain } from '../../libvirt/records.js'
import { XdrReader, XdrWriter } from '../../libvirt/xdr.js'

const guest: Domain = { name: 'web1', uuid: '11111111-1111-1111-1111-111111111111', id: 1 }
const pool = { name: 'pool', uuid: guest.uuid }
const volume = { pool: 'pool', name: 'v', key: '/v' }
const snapshot = { name: 's', domain: guest }

/** Answers every call with the same bytes. */
class FixedCalls extends Calls {
  readonly asked: Request[] = []
  #answer: Buffer

  constructor(answer: Buffer) {
    super()
    this.#answer = answer
  }

  protected override async request(request: Request): Promise<XdrReader> {
    this.asked.push(request)
    request.write?.(new XdrWriter())
    return new XdrReader(this.#answer, request.procedure.name)
  }
}

const everyCall: ((calls: Calls) => Promise<unknown>)[] = [
  c => c.driverType(),
  c => c.hypervisorVersion(),
  c => c.libVersion(),
  c => c.hostname(),
  c => c.canonicalUri(),
  c => c.capabilities(),
  c => c.nodeInfo(),
  c => c.nodeCpuStats(),
  c => c.nodeMemoryStats(),
  c => c.nodeFreeMemoryBytes(),
  c => c.nodeCellsFreeMemoryBytes(),
  c => c.nodeFreePages([4096]),
  c => c.domains(),
  c => c.domain('web1'),
  c => c.domain(guest.uuid),
  c => c.domainState(guest),
  c => c.domainInfo(guest),
  c => c.domainVcpus(guest),
  c => c.domainVcpuCount(guest, 'current'),
  c => c.domainCpuStats(guest, 'total'),
  c => c.domainCpuStats(guest, 'per cpu'),
  c => c.domainXml(guest),
  c => c.domainAutostart(guest),
  c => c.domainPersistent(guest),
  c => c.domainActive(guest),
  c => c.domainHasManagedSave(guest),
  c => c.domainMetadata(guest, 'title'),
  c => c.domainControlInfo(guest),
  c => c.domainMessages(guest),
  c => c.domainMemoryStats(guest),
  c => c.domainBlockStats(guest, 'vda'),
  c => c.domainBlockCounters(guest, 'vda'),
  c => c.domainBlockInfo(guest, 'vda'),
  c => c.domainBlockIoTune(guest, 'vda'),
  c => c.domainBlockJob(guest, 'vda'),
  c => c.domainDiskErrors(guest),
  c => c.domainInterfaceStats(guest, 'vnet0'),
  c => c.domainJob(guest),
  c => c.domainJobStats(guest),
  c => c.domainGuestInfo(guest),
  c => c.domainFilesystems(guest),
  c => c.domainTimeMs(guest),
  c => c.domainGuestVcpus(guest),
  c => c.domainGuestAddresses(guest),
  c => c.qemuMonitor(guest, { execute: 'query-status' }),
  c => c.qemuHumanMonitor(guest, 'info status'),
  c => c.qemuAgent(guest, { execute: 'guest-ping' }),
  c => c.domainSnapshots(guest),
  c => c.domainSnapshot(guest, 's'),
  c => c.domainCurrentSnapshot(guest),
  c => c.snapshotXml(snapshot),
  c => c.snapshotParent(snapshot),
  c => c.createSnapshot(guest, '<domainsnapshot/>'),
  c => c.revertToSnapshot(snapshot),
  c => c.deleteSnapshot(snapshot),
  c => c.suspendDomain(guest),
  c => c.resumeDomain(guest),
  c => c.startDomain(guest),
  c => c.storagePools(),
  c => c.storagePool('pool'),
  c => c.storagePoolInfo(pool),
  c => c.storagePoolXml(pool),
  c => c.storagePoolAutostart(pool),
  c => c.storagePoolActive(pool),
  c => c.storagePoolPersistent(pool),
  c => c.refreshStoragePool(pool),
  c => c.volumes(pool),
  c => c.volume(pool, 'v'),
  c => c.volumeByPath('/v'),
  c => c.volumeInfo(volume),
  c => c.volumeXml(volume),
  c => c.volumePath(volume),
  c => c.networks(),
  c => c.network('net'),
  c => c.networkActive(pool),
  c => c.networkPersistent(pool),
  c => c.networkAutostart(pool),
  c => c.networkBridge(pool),
  c => c.networkXml(pool),
  c => c.networkDhcpLeases(pool),
]

/** A small generator of repeatable garbage. */
function garbage(seed: number): Buffer {
  let state = seed + 1
  const next = () => {
    state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0
    return state >>> 8
  }
  const words = Array.from({ length: next() % 40 }, () => (next() % 3 === 0 ? next() * 256 : next() % 4))
  const buffer = Buffer.alloc(words.length * 4)
  for (const [index, word] of words.entries()) buffer.writeUInt32BE(word >>> 0, index * 4)
  return buffer
}

t.test('whatever an answer contains, a call resolves or rejects with an error made for it', async t => {
  const odd = new Set<string>()
  const start = performance.now()
  for (let seed = 0; seed < 300; seed += 1) {
    const calls = new FixedCalls(garbage(seed))
    for (const call of everyCall) {
      try {
        await call(calls)
      } catch (error) {
        const name = error instanceof Error ? error.name : 'nothing'
        if (name !== 'LibvirtConnectionError' && name !== 'QemuMonitorError') odd.add(`${seed} ${String(error)}`)
      }
    }
  }
  t.same([...odd], [])
  t.ok(performance.now() - start < 20_000, 'and in time')
})

t.test('sizes that would never end are refused', async t => {
  for (const size of [0, -1, 0x7fff_ffff]) {
    const answer = new XdrWriter()
    answer.u32(0).i32(size)
    const calls = new FixedCalls(answer.finish())
    for (const which of ['total', 'per cpu'] as const) {
      await t.rejects(calls.domainCpuStats(guest, which), { name: 'LibvirtConnectionError', kind: 'protocol' })
    }
  }
})

t.test('so do events, error answers and bulk answers', async t => {
  const decoder = new DomainStatsDecoder()
  const odd = new Set<string>()
  for (let seed = 0; seed < 1000; seed += 1) {
    const reader = () => new XdrReader(garbage(seed), 'TEST')
    const readers = [...eventNames.map(name => eventKinds[name].read), readError]
    for (const read of readers) {
      try {
        read(reader())
      } catch (error) {
        if (!(error instanceof Error) || error.name !== 'LibvirtConnectionError') odd.add(String(error))
      }
    }
    await decoder.decode(reader(), true).catch((error: Error) => {
      if (error.name !== 'LibvirtConnectionError') odd.add(String(error))
    })
  }
  t.same([...odd], [])
})

t.test('every call names what it is about, and only calls that may hang on a guest are guarded by it', async t => {
  const calls = new FixedCalls(Buffer.alloc(0))
  for (const call of everyCall) await call(calls).catch(() => undefined)
  for (const { procedure, guest: guarded, subject } of calls.asked) {
    t.equal(guarded === undefined, procedure.purpose !== 'monitor', `${procedure.name} of ${subject}`)
  }
})

t.test('no procedure is listed twice', async t => {
  const keys = Object.values(procedures).map(({ program, number }) => `${program} ${number}`)
  t.equal(new Set(keys).size, keys.length)
  const names = Object.values(procedures).map(({ name }) => name)
  t.equal(new Set(names).size, names.length)
  t.equal(new Set(eventNames.map(name => eventKinds[name].procedure)).size, eventNames.length)
  t.equal(new Set(eventNames.map(name => eventKinds[name].id)).size, eventNames.length)
})

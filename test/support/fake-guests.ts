import { readDomain } from '../../libvirt/decode.js'
import { Host, type HostOptions } from '../../libvirt/host.js'
import { type Procedure, procedures } from '../../libvirt/procedures.js'
import type { XdrWriter } from '../../libvirt/xdr.js'
import type { FakeCall } from './fake-libvirtd.js'
import { FakeLibvirtd } from './fake-libvirtd.js'
import type { Test } from './services.js'

/** A guest that a fake daemon speaks of. */
export interface FakeGuest {
  name: string
  uuid: string
  id: number
  /** virDomainState and reason; running (booted) unless set otherwise. */
  state?: readonly [state: number, reason: number]
  /** Bulk statistics besides the state, by libvirt's names; numbers are sent as unsigned 64-bit. */
  params?: Readonly<Record<string, number | bigint | string>>
  /** What is inside its `<domain>`; absent when it has vanished when asked for. */
  xml?: string
  /** Answers a command to its agent: with what the agent returns, or by itself on the call. */
  agent?: (command: string, call: FakeCall) => unknown
  /** Answers a command to its QEMU's monitor: with the text of the reply, or by itself on the call. */
  monitor?: (command: string, call: FakeCall) => string | undefined
  /** Answers a call of libvirt's own to its agent, and one for its job, by itself on the call; without it they are never answered. */
  answer?: (procedure: string, call: FakeCall) => void
  /** Since how many milliseconds libvirt waits for its QEMU. */
  silentMs?: number
}

const answeredByGuest: readonly Procedure[] = [
  procedures.domainGetGuestInfo,
  procedures.domainGetTime,
  procedures.domainGetGuestVcpus,
  procedures.domainInterfaceAddresses,
  procedures.domainGetJobStats,
  procedures.domainGetDiskErrors,
]

/** Also where a test has a clock of its own. */
const realNow = Date.now

/** virDomainControlState: libvirt waits for QEMU. */
const occupied = 2

/** Writes typed parameters: texts, whole numbers (unsigned 64-bit) and others (double). */
export function writeParams(writer: XdrWriter, params: Readonly<Record<string, number | string>>): void {
  writer.array(Object.entries(params), (to, [key, value]) => {
    to.string(key)
    if (typeof value === 'string') to.i32(7).string(value)
    else if (Number.isInteger(value)) to.i32(4).u64(value)
    else to.i32(5).f64(value)
  })
}

/** So many running guests, `web1` and on. */
export function numberedGuests(count: number, change: (index: number) => Partial<FakeGuest> = () => ({})): FakeGuest[] {
  return Array.from({ length: count }, (_, index) => ({
    name: `web${index + 1}`,
    uuid: `00000000-0000-0000-0000-${String(index + 1).padStart(12, '0')}`,
    id: index + 1,
    ...change(index),
  }))
}

/** A fake daemon with these guests, which may be changed between calls, and a Host connected to it. */
export async function fakeGuests(t: Test, guests: FakeGuest[], options: HostOptions = {}) {
  const daemon = await FakeLibvirtd.start()
  const host = Host.open(daemon.uri, options)
  t.teardown(async () => {
    await host.close()
    await daemon.remove()
  })
  const named = (call: FakeCall) => {
    const { uuid } = readDomain(call.arguments)
    return guests.find(guest => guest.uuid === uuid)
  }
  daemon.on(procedures.getAllDomainStats, call => {
    // as slow as a real one: between two samples there is at least a millisecond
    const askedMs = realNow()
    while (realNow() === askedMs);
    call.reply(writer => writer.array(guests, writeGuest))
  })
  daemon.on(procedures.domainGetControlInfo, call => {
    const silentMs = named(call)?.silentMs
    call.reply(writer =>
      writer
        .u32(silentMs === undefined ? 0 : occupied)
        .u32(0)
        .u64(silentMs ?? 0),
    )
  })
  daemon.on(procedures.domainGetXml, call => {
    const guest = named(call)
    if (guest?.xml === undefined) call.fail(42, 'Domain not found')
    else call.reply(writer => writer.string(`<domain><name>${guest.name}</name>${guest.xml}</domain>`))
  })
  daemon.on(procedures.qemuAgentCommand, call => {
    const guest = named(call)
    const { execute }: { execute: string } = JSON.parse(call.arguments.string())
    const answer = guest?.agent?.(execute, call)
    if (answer !== undefined) call.reply(writer => writer.optionalString(JSON.stringify({ return: answer })))
  })
  daemon.on(procedures.qemuMonitorCommand, call => {
    const guest = named(call)
    const answer = guest?.monitor?.(call.arguments.string(), call)
    if (answer !== undefined) call.reply(writer => writer.string(answer))
  })
  for (const procedure of answeredByGuest) daemon.on(procedure, call => named(call)?.answer?.(procedure.name, call))
  /** What has been asked about guests. */
  const asked = () => daemon.called.filter(name => /^(DOMAIN|QEMU|CONNECT_GET_ALL)/.test(name))
  return { daemon, host, asked }
}

/** Writes a guest's entry of bulk statistics. */
export function writeGuest(writer: XdrWriter, { name, uuid, id, state = [1, 1], params = {} }: FakeGuest): void {
  const [code, reason] = state
  const entries = Object.entries(params)
  writer
    .string(name)
    .uuid(uuid)
    .i32(id)
    .u32(entries.length + 2)
  writer.string('state.state').i32(1).i32(code).string('state.reason').i32(1).i32(reason)
  for (const [key, value] of entries) writeParam(writer, key, value)
}

/** Writes one parameter of a bulk reply: numbers as unsigned 64-bit. */
export function writeParam(writer: XdrWriter, name: string, value: number | bigint | string): void {
  writer.string(name)
  if (typeof value === 'string') writer.i32(7).string(value)
  else writer.i32(4).u64(value)
}

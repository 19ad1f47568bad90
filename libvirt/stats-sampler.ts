import type { CallOptions } from './calls.js'
import type { ConnectionCall } from './connection.js'
import * as decode from './decode.js'
import { statsGroupBits } from './domain-stats.js'
import { procedures } from './procedures.js'
import type { ControlInfo, Domain, DomainStats, DomainStatsSample, MonitorTrouble, StatsGroup } from './records.js'
import type { XdrReader } from './xdr.js'

/** What the sampler needs of a Host. */
export interface SamplerHost {
  /** Sends a call on the bulk connection, a fresh one when the last call there hangs. */
  bulk: (call: ConnectionCall) => Promise<XdrReader>
  decode: (reader: XdrReader) => Promise<DomainStats[]>
  activeDomains: (options: CallOptions) => Promise<Domain[]>
  /** Answered by libvirt without asking QEMU. */
  controlInfo: (domain: Domain, options: CallOptions) => Promise<ControlInfo>
  /** True for a guest that did not answer an earlier call. */
  isSuspect: (domain: Domain) => boolean
  /** A guest was found not answering since then (milliseconds since 1970). */
  noteStuck: (domain: Domain, sinceMs: number) => void
  noteAnswering: (domain: Domain) => void
}

export interface SampleRequest {
  timeoutMs: number
  signal?: AbortSignal
  groups?: readonly StatsGroup[]
  domains?: readonly Domain[]
  active?: boolean
  backing?: boolean
}

const defaultGroups: readonly StatsGroup[] = ['state', 'cpu', 'balloon', 'vcpu', 'interface', 'block']

const activeFlag = 1
const inactiveFlag = 2
/** Skips what needs a guest whose job lock is taken, instead of waiting for it. */
const noWaitFlag = 2 ** 29
const backingFlag = 2 ** 30

/** A bulk call is looked into when it has not been answered for this long, and again after each such time. */
const suspicionMs = 1000
/** A QEMU silent for this long is what the bulk call hangs on. */
const stuckMs = 500
/** By how much libvirt's idea of a wait may exceed ours. */
const clockSlackMs = 100
/** Why waiting ends. One for all: an error is dear to make, and this one nobody sees. */
const leftBehind = new Error('no longer of interest')
/** Pauses before a guest that was busy is asked again. */
const busyPausesMs = [10, 30, 60, 100, 200, 400, 800]
/** Guests asked about at most when looking for the stuck one. */
const maximumProbes = 2000

/**
 * One bulk call. NOWAIT makes libvirt skip guests whose job lock is taken, but the first call to meet a stuck QEMU takes
 * that lock itself and hangs. When that happens libvirt is asked, on another connection and without QEMU's help, which
 * guest it is waiting for; the hanging call is left behind, holding the lock, and the next one skips the guest.
 */
export async function sampleDomainStats(host: SamplerHost, request: SampleRequest): Promise<DomainStatsSample> {
  const deadline = performance.now() + request.timeoutMs
  for (;;) {
    const takenAtMs = Date.now()
    const takenAtMonotonicMs = performance.now()
    const found = await attempt(host, request, deadline)
    if (found === undefined) continue
    await explainMissing(host, found, deadline)
    const guests = await askBusyAgain(host, request, found, deadline)
    const notAnswering = guests.flatMap(({ domain, monitor }) =>
      monitor?.kind === 'not answering' ? [{ domain, forMs: monitor.forMs }] : [],
    )
    return { takenAtMs, takenAtMonotonicMs, guests, notAnswering }
  }
}

/**
 * Guests that were skipped because another call had their lock at that moment are asked again a little later: two programs that look at the same
 * guest at the same time, as schedulers make them, would else take turns in having no numbers. Those of a longer job stay without.
 */
async function askBusyAgain(
  host: SamplerHost,
  request: SampleRequest,
  found: readonly DomainStats[],
  deadline: number,
): Promise<DomainStats[]> {
  let guests = [...found]
  for (const pauseMs of busyPausesMs) {
    const maybe = guests.filter(guest => lacksMonitor(guest) && isShort(guest.monitor))
    if (maybe.length === 0 || deadline - performance.now() < suspicionMs) return guests
    await pause(pauseMs, request.signal)
    const domains = maybe.map(({ domain }) => domain)
    const asked = (await attempt(host, { ...request, domains }, deadline)) ?? []
    await explainMissing(host, asked, deadline)
    const answers = new Map(asked.map(guest => [guest.domain.uuid, guest]))
    guests = guests.map(guest => answers.get(guest.domain.uuid) ?? guest)
  }
  return guests
}

/** Whether a guest's lock is free again, or taken by what may be over in a moment. Found free it may have been taken again by the time it is asked. */
function isShort(trouble: MonitorTrouble | undefined): boolean {
  return trouble === undefined || (trouble.kind === 'busy' && trouble.forMs < suspicionMs)
}

/** Sends the call once. Resolves with undefined when it was left behind because a guest does not answer. */
async function attempt(
  host: SamplerHost,
  request: SampleRequest,
  deadline: number,
): Promise<DomainStats[] | undefined> {
  const leaveBehind = new AbortController()
  const answered = new AbortController()
  const { signal } = leaveBehind
  const reply = host.bulk({
    procedure: procedures.getAllDomainStats,
    timeoutMs: Math.max(1, deadline - performance.now()),
    signal: request.signal === undefined ? signal : AbortSignal.any([request.signal, signal]),
    write: writer =>
      writer
        .array(request.domains ?? [], decode.writeDomain)
        .u32(bitsOf(request.groups ?? defaultGroups))
        .u32(flagsOf(request)),
  })
  watch(host, deadline, answered.signal).then(
    found => found && leaveBehind.abort(leftBehind),
    () => undefined,
  )
  try {
    return await host.decode(await reply)
  } catch (error) {
    if (signal.aborted && performance.now() < deadline) return undefined
    throw error
  } finally {
    answered.abort(leftBehind)
  }
}

function bitsOf(groups: readonly StatsGroup[]): number {
  return groups.reduce((bits, group) => bits | statsGroupBits[group], 0)
}

function flagsOf(request: SampleRequest): number {
  const activity = request.active === undefined ? 0 : request.active ? activeFlag : inactiveFlag
  return noWaitFlag + (request.backing === true ? backingFlag : 0) + activity
}

/** Resolves with true as soon as a guest is found on which the call hangs. Rejects when `answered` aborts. */
async function watch(host: SamplerHost, deadline: number, answered: AbortSignal): Promise<boolean> {
  const startedMs = performance.now()
  for (;;) {
    const remainingMs = deadline - performance.now()
    if (remainingMs <= 0) return false
    await pause(Math.min(suspicionMs, remainingMs * 0.3), answered, false)
    if (await hangsOnGuest(host, startedMs, deadline)) return true
  }
}

/**
 * Rejects with the signal's own reason: nearly every pause of a watch ends so, and a new error for each would cost more than the call. A pause beside
 * a call that waits need not hold the process; between two calls nothing else does.
 */
function pause(milliseconds: number, signal: AbortSignal | undefined, holdsProcess = true): Promise<void> {
  return new Promise((resolve, reject) => {
    const onAbort = () => {
      clearTimeout(timer)
      reject(signal?.reason)
    }
    const timer = setTimeout(() => {
      signal?.removeEventListener('abort', onAbort)
      resolve()
    }, milliseconds)
    if (!holdsProcess) timer.unref()
    if (signal?.aborted) onAbort()
    else signal?.addEventListener('abort', onAbort, { once: true })
  })
}

/** True when libvirt is waiting for a QEMU since a moment after `startedMs`: an earlier wait would have been skipped. */
async function hangsOnGuest(host: SamplerHost, startedMs: number, deadline: number): Promise<boolean> {
  const options = { timeoutMs: Math.max(1, deadline - performance.now()) }
  const domains = (await host.activeDomains(options)).slice(0, maximumProbes)
  const troubles = await Promise.all(domains.map(domain => troubleOf(host, domain, options)))
  const ageMs = performance.now() - startedMs + clockSlackMs
  return troubles.some(trouble => trouble?.kind === 'not answering' && trouble.forMs <= ageMs)
}

/** Asks libvirt about its line to a guest's QEMU. Undefined when all is well or nothing can be said. */
async function troubleOf(host: SamplerHost, domain: Domain, options: CallOptions): Promise<MonitorTrouble | undefined> {
  const info = await host.controlInfo(domain, options).catch(() => undefined)
  if (info === undefined || info.state === 'ok' || info.state === 'unknown') return undefined
  const silent = info.state === 'error' || (info.state === 'occupied' && info.stateTimeMs >= stuckMs)
  if (silent) host.noteStuck(domain, Date.now() - info.stateTimeMs)
  return { kind: silent ? 'not answering' : 'busy', forMs: info.stateTimeMs }
}

/** Finds out why some guests came without what QEMU's monitor tells, and says so in their `monitor`. */
async function explainMissing(host: SamplerHost, guests: readonly DomainStats[], deadline: number): Promise<void> {
  const suspects: DomainStats[] = []
  for (const guest of guests) {
    if (lacksMonitor(guest)) suspects.push(guest)
    else if (host.isSuspect(guest.domain)) {
      if (showsMonitor(guest)) host.noteAnswering(guest.domain)
      else suspects.push(guest)
    }
  }
  const options = { timeoutMs: Math.max(100, deadline - performance.now()) }
  await Promise.all(
    suspects.slice(0, maximumProbes).map(async guest => {
      const trouble = await troubleOf(host, guest.domain, options)
      if (trouble !== undefined) guest.monitor = trouble
      if (trouble?.kind !== 'not answering') host.noteAnswering(guest.domain)
    }),
  )
}

/** Resident memory and disk counters come under the guest's job lock: without it they are missing (libvirt 9.0). */
function lacksMonitor(guest: DomainStats): boolean {
  if (guest.domain.id === undefined) return false
  if (guest.balloon !== undefined && guest.balloon.rssBytes === undefined) return true
  return guest.blocks.length > 0 && guest.blocks.every(block => block.readOps === undefined)
}

function showsMonitor(guest: DomainStats): boolean {
  return guest.balloon?.rssBytes !== undefined || guest.blocks.some(block => block.readOps !== undefined)
}

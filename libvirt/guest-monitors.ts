import { ErrorCode, LibvirtError, LibvirtTimeoutError, QemuMonitorError } from './errors.js'
import type { ControlInfo, Domain } from './records.js'

/** Monitors asked at a time; a Host lets no more than three such calls wait for their answers. */
const asksAtATime = 3

/** A command of QEMU's monitor: QMP with arguments, or of the human monitor. */
export type MonitorCommand =
  | { readonly kind: 'qmp'; readonly execute: string; readonly arguments?: unknown }
  | { readonly kind: 'human'; readonly text: string }

/**
 * Reads a command that only reads: `query-…` of QMP, with arguments as JSON, or `info …` of the human monitor. Throws for every other one, with
 * what is accepted.
 */
export function readMonitorCommand(text: string, argumentsText?: string): MonitorCommand {
  if (/^query-[a-z0-9-]+$/.test(text)) {
    return {
      kind: 'qmp',
      execute: text,
      ...(argumentsText === undefined ? {} : { arguments: readObject(argumentsText) }),
    }
  }
  if (/^info( [\w.,:/*=-]+)+$/.test(text)) {
    if (argumentsText === undefined) return { kind: 'human', text }
    throw new Error('arguments in JSON are for query-… commands: write those of info behind it')
  }
  throw new Error(
    `"${text.slice(0, 60)}" is refused: only what reads is sent, query-… of QMP or info … of the human monitor`,
  )
}

function readObject(text: string): object {
  try {
    const value: unknown = JSON.parse(text)
    if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value
  } catch {
    // Said below, as for a text that is no object.
  }
  throw new Error(`not a JSON object such as {"target":"vm"}: ${text.slice(0, 60)}`)
}

/** What came of asking one guest's monitor. */
export type MonitorAnswer =
  /** What a QMP command returned, or the human monitor's text. */
  | { readonly kind: 'answered'; readonly value: unknown }
  /** QEMU, or libvirt on its way there, said no. */
  | { readonly kind: 'refused'; readonly text: string }
  /** No answer for so long, by libvirt's own count if that is longer; what held the guest's lock, if libvirt told. */
  | { readonly kind: 'silent'; readonly seconds: number; readonly holder?: string | undefined }
  | { readonly kind: 'not asked'; readonly text: string }
  /** The guest has gone or stopped meanwhile. */
  | { readonly kind: 'not running' }

type Limits = { timeoutMs: number; signal: AbortSignal }

/** The calls that asking needs, as a Host makes them. */
export interface MonitorHost {
  qemuMonitor(domain: Domain, command: { execute: string; arguments?: unknown }, options: Limits): Promise<unknown>
  qemuHumanMonitor(domain: Domain, command: string, options: Limits): Promise<string>
  domainControlInfo(domain: Domain, options: Limits): Promise<ControlInfo>
}

export interface MonitorOptions {
  readonly signal: AbortSignal
  /** How long one monitor may take, in milliseconds. */
  readonly waitMs: number
  /** Milliseconds left; guests that there is no time for are not asked. */
  readonly timeLeftMs: () => number
}

/**
 * Sends one command to the monitors of running guests, a few at a time. libvirt marks every guest that is asked as tainted (custom-monitor). Rejects
 * only when nobody can be asked: no connection, no permission, a driver without monitors.
 */
export async function askMonitors(
  host: MonitorHost,
  guests: readonly Domain[],
  command: MonitorCommand,
  options: MonitorOptions,
): Promise<Map<string, MonitorAnswer>> {
  const answers = new Map<string, MonitorAnswer>()
  const queue = guests.values()
  const work = async () => {
    for (const guest of queue) {
      const timeMs = Math.min(options.waitMs, options.timeLeftMs() - reserveMs)
      answers.set(guest.uuid, timeMs > 0 ? await askOne(host, guest, command, timeMs, options.signal) : outOfTime)
    }
  }
  await Promise.all(Array.from({ length: asksAtATime }, work))
  return answers
}

/** Kept for finding out about those that were silent, and for judging. */
const reserveMs = 500
const outOfTime = {
  kind: 'not asked',
  text: 'not asked: other guests took all the time, allow more with --timeout',
} as const

async function askOne(
  host: MonitorHost,
  guest: Domain,
  command: MonitorCommand,
  timeoutMs: number,
  signal: AbortSignal,
): Promise<MonitorAnswer> {
  const limits = { timeoutMs, signal }
  const startedMs = performance.now()
  try {
    if (command.kind === 'human') return humanAnswer(await host.qemuHumanMonitor(guest, command.text, limits))
    const { execute, arguments: parameters } = command
    return { kind: 'answered', value: await host.qemuMonitor(guest, { execute, arguments: parameters }, limits) }
  } catch (error) {
    if (error instanceof QemuMonitorError) return { kind: 'refused', text: error.message }
    const holder = error instanceof LibvirtError && error.timedOutInDaemon ? error.lockHolder : undefined
    if (error instanceof LibvirtTimeoutError && error.guest === undefined) return outOfTime
    if (error instanceof LibvirtTimeoutError || holder !== undefined) {
      const seconds = await silentSeconds(host, guest, (performance.now() - startedMs) / 1000, signal)
      return { kind: 'silent', seconds, holder }
    }
    if (error instanceof LibvirtError) return refusal(error)
    throw error
  }
}

/** The human monitor's errors are text as well. */
function humanAnswer(text: string): MonitorAnswer {
  return /^(unknown command|Error):/.test(text)
    ? { kind: 'refused', text: text.trim() }
    : { kind: 'answered', value: text }
}

/** How long QEMU has been silent: libvirt counts from the first question, whoever put it. */
async function silentSeconds(host: MonitorHost, guest: Domain, least: number, signal: AbortSignal): Promise<number> {
  const info = await host.domainControlInfo(guest, { timeoutMs: reserveMs, signal }).catch(() => undefined)
  return Math.max(least, (info?.stateTimeMs ?? 0) / 1000)
}

const permissionRemedy =
  "monitor commands need libvirt's read-write socket: run as root or as a member of group libvirt, or let polkit allow org.libvirt.unix.manage"

/** What libvirt's error says about one monitor. Throws what is not one guest's matter. */
function refusal(error: LibvirtError): MonitorAnswer {
  if (error.notFound || error.operationInvalid) return { kind: 'not running' }
  if (error.code === ErrorCode.accessDenied) return { kind: 'not asked', text: error.message }
  if (error.denied) throw new Error(`${permissionRemedy} (${error.text})`, { cause: error })
  if (error.unsupported) throw error
  return { kind: 'refused', text: error.text }
}

import { setTimeout as pause } from 'node:timers/promises'
import type { CallOptions } from './calls.js'
import { ErrorCode, LibvirtConnectionError, LibvirtError, LibvirtTimeoutError } from './errors.js'
import { readGuestConfigs, type XmlSource } from './guest-configs.js'
import type { Domain } from './records.js'

/** How long libvirt waits for the answer to a command that is passed through, and we for libvirt. */
const agentTimeoutSeconds = 1
const passThroughTimeoutMs = 3000
/** Of its other calls libvirt waits five seconds and more for the agent; we do not, and leave it waiting. */
const limits = { timeoutMs: 3000, answerTimeoutMs: 1000 }
/** Between two attempts while too much hangs in libvirt. */
const pauseMs = 200
/** Agents asked at a time; a Host lets no more than three such calls wait for their answers. */
const asksAtATime = 3
/** What must be left of the time to ask one more agent, and to wait for an answer. */
const reserveMs = 3500
const lastReserveMs = 1000

/**
 * Sends one command to one guest's agent as it is and resolves with what it returned. libvirt takes note of that ("tainted: custom guest agent
 * control commands issued"), so only for what libvirt has no call of its own.
 */
export type Ask = (command: string, parameters?: Readonly<Record<string, unknown>>) => Promise<unknown>

/** Asks one guest's agent: by passing commands through, or with libvirt's own calls, which must be given the options. */
export type Question<T> = (ask: Ask, guest: Domain, options: CallOptions) => Promise<T>

/** What came of asking one guest's agent. */
export type AgentAnswer<T> =
  | { readonly kind: 'answered'; readonly value: T }
  /** The agent is there, but does not do what it was asked: the command is disabled, unknown to it, or failed. */
  | { readonly kind: 'refused'; readonly text: string }
  /** The guest has no channel for an agent. */
  | { readonly kind: 'not configured' }
  /** Nobody inside has opened the channel. */
  | { readonly kind: 'not connected' }
  /** The channel is open inside, but there has been no answer for so long. */
  | { readonly kind: 'silent'; readonly seconds: number }
  /** It could not be asked, with the reason in words. */
  | { readonly kind: 'not asked'; readonly text: string }
  /** The guest has gone, stopped or been paused meanwhile. */
  | { readonly kind: 'not running' }

/** The calls that asking needs, as a Host makes them. */
export interface AgentHost extends XmlSource {
  qemuAgent(
    domain: Domain,
    command: { execute: string; arguments?: unknown },
    options: { timeoutMs: number; agentTimeoutSeconds: number; signal: AbortSignal },
  ): Promise<unknown>
}

export interface AskOptions {
  readonly signal: AbortSignal
  /** Milliseconds left; guests that there is no time for are not asked. */
  readonly timeLeftMs: () => number
}

/**
 * Asks the agents of running guests, a few at a time in the order given; `question` may make several calls, each of which may take a second. An
 * agent that does not answer costs the others nothing but that time. Rejects only when nobody can be asked: no connection, no permission, a
 * driver without agents.
 */
export async function askAgents<T>(
  host: AgentHost,
  guests: readonly Domain[],
  question: Question<T>,
  { signal, timeLeftMs }: AskOptions,
): Promise<Map<string, AgentAnswer<T>>> {
  const answers = new Map<string, AgentAnswer<T>>()
  const reserve = Math.min(reserveMs, timeLeftMs() / 2)
  const waitMs = Math.max(1, timeLeftMs() - Math.min(lastReserveMs, timeLeftMs() / 4))
  const done = new AbortController()
  const timeIsUp = pause(waitMs, outOfTime, { ref: false, signal: done.signal })
  timeIsUp.catch(() => undefined) // ended by `done`
  const queue = guests.values()
  const askInTime = async (guest: Domain): Promise<AgentAnswer<T>> => {
    while (timeLeftMs() > reserve) {
      const answer = await Promise.race([askOne(host, guest, question, signal), timeIsUp])
      if (answer !== undefined) return answer
      await pause(pauseMs, undefined, { signal })
    }
    return outOfTime
  }
  const work = async () => {
    for (const guest of queue) answers.set(guest.uuid, await askInTime(guest))
  }
  await Promise.all(Array.from({ length: asksAtATime }, work)).finally(() => done.abort())
  await explainSilence(host, guests, answers, signal)
  return answers
}

const outOfTime = {
  kind: 'not asked',
  text: 'not asked: the agents of other guests took all the time, allow more with --timeout',
} as const

/** Undefined when nothing can be asked for the moment, since too much hangs in libvirt. */
async function askOne<T>(
  host: AgentHost,
  guest: Domain,
  question: Question<T>,
  signal: AbortSignal,
): Promise<AgentAnswer<T> | undefined> {
  const startedMs = performance.now()
  const passThrough = { timeoutMs: passThroughTimeoutMs, agentTimeoutSeconds, signal }
  try {
    const ask: Ask = (execute, parameters) => host.qemuAgent(guest, { execute, arguments: parameters }, passThrough)
    return { kind: 'answered', value: await question(ask, guest, { ...limits, signal }) }
  } catch (error) {
    if (error instanceof LibvirtConnectionError && error.kind === 'overloaded') return undefined
    if (error instanceof LibvirtError) return refusal(error, (performance.now() - startedMs) / 1000)
    if (!(error instanceof LibvirtTimeoutError)) throw error
    // Without a guest it is a call that never left our own queue.
    return error.guest === undefined ? outOfTime : { kind: 'silent', seconds: error.afterMs / 1000 }
  }
}

const permissionRemedy =
  "guest agents need libvirt's read-write socket: run as root or as a member of group libvirt, or let polkit allow org.libvirt.unix.manage"

/** What libvirt's error says about one agent. Throws what is not one guest's matter. */
function refusal(error: LibvirtError, seconds: number): AgentAnswer<never> {
  if (error.notFound || error.operationInvalid) return { kind: 'not running' }
  if (error.agentUnavailable) return { kind: 'silent', seconds }
  if (error.code === ErrorCode.argumentUnsupported) return { kind: 'not configured' }
  if (error.code === ErrorCode.accessDenied) return { kind: 'not asked', text: error.message }
  if (error.timedOutInDaemon || error.code === ErrorCode.resourceBusy)
    return { kind: 'not asked', text: 'another job of libvirt keeps its agent from being asked' }
  if (error.denied) throw new Error(`${permissionRemedy} (${error.text})`, { cause: error })
  if (error.code === ErrorCode.noSupport) throw error
  return { kind: 'refused', text: error.text }
}

/** For one call of several in a question: what the agent says of not doing it, when it is there and answers all the same. Throws anything else. */
export function refusedText(error: unknown): string {
  if (error instanceof LibvirtError && refusal(error, 0).kind === 'refused') return error.text
  throw error
}

/** libvirt has one error for an agent that is not there and one that hangs; the channel's state in the XML tells them apart. */
async function explainSilence<T>(
  host: AgentHost,
  guests: readonly Domain[],
  answers: Map<string, AgentAnswer<T>>,
  signal: AbortSignal,
): Promise<void> {
  const silent = guests.filter(({ uuid }) => answers.get(uuid)?.kind === 'silent')
  const configs = await readGuestConfigs(host, silent, { signal })
  for (const { uuid } of silent) {
    const config = configs.get(uuid)
    if (config === undefined) answers.set(uuid, { kind: 'not running' })
    else if (config.agentChannel === undefined) answers.set(uuid, { kind: 'not configured' })
    else if (config.agentChannel.state === 'disconnected') answers.set(uuid, { kind: 'not connected' })
  }
}

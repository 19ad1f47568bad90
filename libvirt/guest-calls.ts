import type { CallOptions } from './calls.js'
import { LibvirtConnectionError, LibvirtError, LibvirtTimeoutError } from './errors.js'
import type { Domain, DomainStats } from './records.js'

/** Guests asked at a time; a Host lets no more than three such calls wait for their answers. */
const asksAtATime = 3
/** A QEMU that is well answers in milliseconds. */
const callTimeoutMs = 2000
/** Kept for judging. */
const reserveMs = 500

/** What came of asking libvirt something about one guest that it must ask the guest's QEMU for. */
export type GuestAnswer<T> =
  | { readonly kind: 'answered'; readonly value: T }
  /** No answer for so long. */
  | { readonly kind: 'silent'; readonly seconds: number }
  /** libvirt said no, or it was not asked; why, in words. */
  | { readonly kind: 'refused'; readonly text: string }
  /** The guest has gone or stopped meanwhile. */
  | { readonly kind: 'not running' }

/** A guest to ask: out of a bulk sample, with what that found out about its monitor. */
export type AskedGuest = Pick<DomainStats, 'domain' | 'monitor'>

export interface GuestCallOptions {
  readonly signal: AbortSignal
  /** Milliseconds left; guests that there is no time for are not asked. */
  readonly timeLeftMs: () => number
}

/**
 * Asks one thing about each of some active guests, a few at a time, in the order given. A guest whose QEMU the bulk sample has found not
 * answering is not asked; one that does not answer now costs the others two seconds of one of three places. Rejects only when nobody can be asked.
 */
export async function askGuests<T>(
  guests: readonly AskedGuest[],
  call: (domain: Domain, options: CallOptions) => Promise<T>,
  { signal, timeLeftMs }: GuestCallOptions,
): Promise<Map<string, GuestAnswer<T>>> {
  const answers = new Map<string, GuestAnswer<T>>()
  const queue = guests.values()
  const work = async () => {
    for (const { domain, monitor } of queue) {
      const timeoutMs = Math.min(callTimeoutMs, timeLeftMs() - reserveMs)
      const silent = monitor?.kind === 'not answering' ? monitor : undefined
      if (silent !== undefined) answers.set(domain.uuid, { kind: 'silent', seconds: silent.forMs / 1000 })
      else if (timeoutMs <= 0) answers.set(domain.uuid, outOfTime)
      else answers.set(domain.uuid, await askOne(() => call(domain, { timeoutMs, signal })))
    }
  }
  await Promise.all(Array.from({ length: asksAtATime }, work))
  return answers
}

const outOfTime = {
  kind: 'refused',
  text: 'not asked: other guests took all the time, allow more with --timeout',
} as const

async function askOne<T>(call: () => Promise<T>): Promise<GuestAnswer<T>> {
  try {
    return { kind: 'answered', value: await call() }
  } catch (error) {
    if (error instanceof LibvirtTimeoutError) {
      // Without a guest it is a call that never left our own queue.
      return error.guest === undefined ? outOfTime : { kind: 'silent', seconds: error.afterMs / 1000 }
    }
    if (error instanceof LibvirtConnectionError && error.kind === 'overloaded')
      return { kind: 'refused', text: `not asked: ${error.message}` }
    if (!(error instanceof LibvirtError) || error.unsupported) throw error
    if (error.notFound || error.operationInvalid) return { kind: 'not running' }
    return {
      kind: 'refused',
      text: error.timedOutInDaemon ? `not known: another job holds it (${error.text})` : error.text,
    }
  }
}

/** Why there is no answer, in words; undefined when there is one or the guest does not run any more. */
export function unansweredBecause(answer: GuestAnswer<unknown>): string | undefined {
  if (answer.kind === 'silent') return `its QEMU has not answered for ${answer.seconds.toFixed(1)} s`
  return answer.kind === 'refused' ? answer.text : undefined
}

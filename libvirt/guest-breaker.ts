import { type LibvirtError, LibvirtTimeoutError } from './errors.js'
import type { Domain } from './records.js'

const minimumBackOffMs = 5000
const maximumBackOffMs = 60_000
/** Guests remembered at a time for either; the oldest is forgotten first. */
const maximumGuests = 16_384

/** Whom a call must wait for: the guest's QEMU, or the agent inside. */
export type Answerer = 'monitor' | 'agent'

interface Trouble {
  guest: string
  procedure: string
  /** When the first unanswered question was asked (milliseconds since 1970). */
  sinceMs: number
  /** Not asked again before this (monotonic milliseconds). */
  untilMs: number
  backOffMs: number
  /** Questions the daemon still works on. */
  outstanding: number
  /** The agent's own refusal, repeated while it lasts. */
  refusal: LibvirtError | undefined
}

/**
 * Remembers guests that did not answer, so that they are left alone until their earlier call has ended or a growing
 * pause has passed. One per Host, shared by all its callers.
 */
export class GuestBreaker {
  /** By the guest's UUID. */
  readonly #troubles: Readonly<Record<Answerer, Map<string, Trouble>>> = { monitor: new Map(), agent: new Map() }

  /** Throws LibvirtTimeoutError (`notAsked`) or the agent's own refusal while the guest is to be left alone. */
  check(domain: Domain, answerer: Answerer): void {
    const trouble = this.#troubles[answerer].get(domain.uuid)
    if (trouble === undefined) return
    if (trouble.outstanding === 0 && performance.now() >= trouble.untilMs) return
    if (trouble.refusal !== undefined) throw trouble.refusal
    throw new LibvirtTimeoutError({
      procedure: trouble.procedure,
      afterMs: Date.now() - trouble.sinceMs,
      sinceMs: trouble.sinceMs,
      guest: trouble.guest,
      notAsked: true,
    })
  }

  /** True when the guest did not answer an earlier call. */
  isSuspect(domain: Domain, answerer: Answerer): boolean {
    return this.#troubles[answerer].has(domain.uuid)
  }

  /** A call ran into its deadline; the daemon still works on it. */
  timedOut(domain: Domain, answerer: Answerer, procedure: string, sinceMs: number): void {
    this.#note(domain, answerer, procedure, sinceMs).outstanding += 1
  }

  /** libvirt says that QEMU has not answered since `sinceMs`, whoever asked. */
  observed(domain: Domain, procedure: string, sinceMs: number): void {
    this.#note(domain, 'monitor', procedure, sinceMs)
  }

  /** The agent's refusal took so long that asking again at once would only cost time. */
  refused(domain: Domain, refusal: LibvirtError): void {
    this.#note(domain, 'agent', refusal.procedure, Date.now()).refusal = refusal
  }

  /** The daemon has ended a call that had run into its deadline. */
  ended(domain: Domain, answerer: Answerer): void {
    const trouble = this.#troubles[answerer].get(domain.uuid)
    if (trouble === undefined) return
    trouble.outstanding -= 1
    this.answering(domain, answerer)
  }

  /** The guest answers again; forgotten as soon as none of its calls hangs any more. */
  answering(domain: Domain, answerer: Answerer): void {
    const troubles = this.#troubles[answerer]
    if ((troubles.get(domain.uuid)?.outstanding ?? 0) <= 0) troubles.delete(domain.uuid)
  }

  #note(domain: Domain, answerer: Answerer, procedure: string, sinceMs: number): Trouble {
    const troubles = this.#troubles[answerer]
    const earlier = troubles.get(domain.uuid)
    const backOffMs = earlier === undefined ? minimumBackOffMs : Math.min(maximumBackOffMs, earlier.backOffMs * 2)
    const trouble: Trouble = {
      guest: domain.name,
      procedure,
      sinceMs: Math.min(sinceMs, earlier?.sinceMs ?? sinceMs),
      untilMs: performance.now() + backOffMs,
      backOffMs,
      outstanding: earlier?.outstanding ?? 0,
      refusal: undefined,
    }
    troubles.delete(domain.uuid)
    troubles.set(domain.uuid, trouble)
    const [oldest] = troubles.size > maximumGuests ? troubles.keys() : []
    if (oldest !== undefined) troubles.delete(oldest)
    return trouble
  }
}

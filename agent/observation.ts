import { sensuVersion } from '../sensu/defaults.js'
import type { Transport } from '../transport/transport.js'
import type { StatusPages } from './http-socket.js'
import { LoopLag } from './loop-lag.js'
import { type Execution, Metrics } from './metrics.js'
import type { ResultSink } from './results.js'
import type { Slots } from './slots.js'

/** A loop that was late by so much a moment ago does not do its work. */
const UNHEALTHY_LAG_SECONDS = 5

export interface ObservedParts {
  slots: Slots
  sink: ResultSink
  /** Whether results have somewhere to go at the moment; the text names it. */
  destination: { name: string; connected(): boolean }
}

/** Watches the agent itself, for `/metrics` and `/healthz`. */
export class Observation implements StatusPages {
  readonly #metrics = new Metrics()
  readonly #lag = new LoopLag()
  #parts: ObservedParts | undefined

  constructor(transport: Transport) {
    transport.on('restored', () => this.#metrics.reconnected())
    this.#lag.start()
  }

  readonly onCall = (procedure: string, milliseconds: number, outcome: string): void => {
    this.#metrics.libvirtCalled(procedure, milliseconds, outcome)
  }

  readonly onExecuted = (execution: Execution): void => {
    this.#metrics.executed(execution)
  }

  /** The same sink, with what it takes counted. */
  counted(sink: ResultSink): ResultSink {
    const deliver: ResultSink['deliver'] = result => {
      this.#metrics.published()
      sink.deliver(result)
    }
    return { ...sink, deliver }
  }

  /** Until then there is nothing to tell. */
  observe(parts: ObservedParts): void {
    this.#parts = parts
  }

  metrics(): string {
    const { slots, sink, destination } = this.#parts ?? {}
    const { waiting = 0, dropped = 0, spoolBytes } = sink?.backlog() ?? {}
    return this.#metrics.text({
      version: sensuVersion,
      connected: destination?.connected() ?? false,
      inFlight: slots?.running ?? 0,
      queued: slots?.queued ?? 0,
      resultsWaiting: waiting,
      resultsDropped: dropped,
      spoolBytes,
      loopLagSeconds: this.#lag.seconds,
    })
  }

  fault(): string | undefined {
    const { destination } = this.#parts ?? {}
    if (!destination?.connected()) return `not connected to ${destination?.name ?? 'anything'}`
    const { lastSeconds } = this.#lag
    if (lastSeconds < UNHEALTHY_LAG_SECONDS) return undefined
    return `the event loop was blocked for ${lastSeconds.toFixed(1)} s`
  }

  stop(): void {
    this.#lag.stop()
  }
}

import { resultMessage } from '../sensu/results.js'
import type { CheckResult, CheckWithResult, ClientDefinition } from '../sensu/types.js'

/** What a sink has not delivered. */
export interface Backlog {
  /** Results that are not confirmed yet. */
  waiting: number
  /** Results given up since the start, because a bound was reached. */
  dropped: number
  /** Size of the spool's files; undefined without a spool. */
  spoolBytes: number | undefined
}

/** Where results go: to the transport, or into Redis. Exactly one is in use. */
export interface ResultSink {
  /** Takes the result over; never throws. */
  deliver(result: CheckResult): void
  /** Sends what waits; to be called at the first connection, those after it the sink notices by itself. */
  resume(): void
  /** Waits until everything is delivered, at most the given time. */
  drained(milliseconds: number): Promise<void>
  /** Ends deliveries; returns how many results are lost by that. */
  close(): number
  backlog(): Backlog
}

export interface ResultsLog {
  info(message: string, data?: Record<string, unknown>): void
}

/** Publishes check results in the name of this client. */
export class Results {
  readonly #settings: { readonly client: ClientDefinition }
  readonly #log: ResultsLog
  readonly #sink: ResultSink

  /** The client's definition is asked for at each result: a reload replaces it. */
  constructor(settings: { readonly client: ClientDefinition }, log: ResultsLog, sink: ResultSink) {
    this.#settings = settings
    this.#log = log
    this.#sink = sink
  }

  publish(check: CheckWithResult): void {
    const payload = resultMessage(this.#settings.client, check)
    this.#log.info('publishing check result', { payload })
    this.#sink.deliver(payload)
  }
}

import { encodeJson } from '../sensu/json.js'
import type { Logger } from '../sensu/log.js'
import type { JsonObject } from '../sensu/types.js'
import type { Transport } from '../transport/transport.js'

/** Publishes results that the server itself makes; any server may process them. */
export class ResultPublisher {
  readonly #transport: Transport
  readonly #log: Logger

  constructor(transport: Transport, log: Logger) {
    this.#transport = transport
    this.#log = log
  }

  /** Publishes one message for the pipe `results`; resolves when the broker has it. Never rejects: a failure is logged. */
  async publish(result: JsonObject): Promise<void> {
    this.#log.debug('publishing check result', { payload: result })
    try {
      await this.#transport.publish('direct', 'results', encodeJson(result))
    } catch (error) {
      this.#log.error('failed to publish check result', { payload: result, error: String(error) })
    }
  }
}

import type { Pipeline } from '../pipeline/pipeline.js'
import { parseJson } from '../sensu/json.js'
import type { Logger } from '../sensu/log.js'
import type { Json, Settings } from '../sensu/types.js'
import type { Transport } from '../transport/transport.js'

/** As much of a broken message, or of one that is too long, as a log line shows. */
const EXCERPT_CHARACTERS = 4096

export interface MessagesOptions {
  settings: Settings
  transport: Transport
  pipeline: Pipeline
  log: Logger
}

/**
 * Takes results and keepalives from the transport. A message is acknowledged when Redis has what it says, or when it cannot be used: that is logged,
 * and the message dropped.
 */
export class Messages {
  readonly #options: MessagesOptions

  constructor(options: MessagesOptions) {
    this.#options = options
  }

  /** Rejects with a TransportError. */
  async subscribe(): Promise<void> {
    const { transport, settings, pipeline } = this.#options
    const { results_pipe: results = 'results', keepalives_pipe: keepalives = 'keepalives' } =
      settings.sensu.server ?? {}
    const acknowledge = { acknowledge: true }
    await transport.subscribe(
      'direct',
      keepalives,
      'keepalives',
      message => this.#receive(message, 'keepalive', client => pipeline.processKeepalive(client)),
      acknowledge,
    )
    await transport.subscribe(
      'direct',
      results,
      'results',
      message => this.#receive(message, 'check result', result => pipeline.processResult(result)),
      acknowledge,
    )
  }

  /** Never rejects. */
  async #receive(message: Buffer, kind: string, process: (value: Json) => Promise<void>): Promise<void> {
    const { settings, log } = this.#options
    const limit = settings.sensu.server?.max_message_size
    if (limit !== undefined && message.length > limit) {
      // as in Sensu's line, the message takes the place of the line's own text
      const data = { max_message_size: limit, message_size: message.length, message: excerpt(message) }
      log.error(`${kind} message is too long`, data)
      return
    }
    let value: Json
    try {
      value = parseJson(message)
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error)
      log.error(`failed to parse the ${kind} payload`, { error: reason, payload: excerpt(message) })
      return
    }
    await process(value)
  }
}

function excerpt(message: Buffer): string {
  const text = message.toString('utf8', 0, 4 * EXCERPT_CHARACTERS)
  return text.length > EXCERPT_CHARACTERS ? `${text.slice(0, EXCERPT_CHARACTERS)}… (${message.length} bytes)` : text
}

import type { AboutMessage, Pipeline } from '../pipeline/pipeline.js'
import { parseJson } from '../sensu/json.js'
import type { Logger } from '../sensu/log.js'
import { parsePlainJson } from '../sensu/plain-json.js'
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

type Process = (value: Json, about: AboutMessage) => Promise<void>

/**
 * Takes results and keepalives from the transport. A message is acknowledged when Redis has what it says, or when it cannot be used: that is logged,
 * and the message dropped.
 */
export class Messages {
  readonly #options: MessagesOptions
  /** What is being processed; as many as the broker hands over unacknowledged. */
  readonly #underWay = new Map<Buffer, Promise<void>>()

  constructor(options: MessagesOptions) {
    this.#options = options
  }

  /** Rejects with a TransportError. */
  async subscribe(): Promise<void> {
    const { transport, settings, pipeline } = this.#options
    const { results_pipe: results = 'results', keepalives_pipe: keepalives = 'keepalives' } =
      settings.sensu.server ?? {}
    const consume = (pipe: string, funnel: string, process: Process) =>
      transport.subscribe('direct', pipe, funnel, (message, again) => this.#receive(message, again, funnel, process), {
        acknowledge: true,
      })
    await consume(keepalives, 'keepalives', client => pipeline.processKeepalive(client))
    await consume(results, 'results', (result, about) => pipeline.processResult(result, about))
  }

  /** Never rejects. */
  #receive(message: Buffer, redelivered: boolean, funnel: string, process: Process): Promise<void> {
    // one that was taken by this very process is still under way, or done
    const before = redelivered ? this.#find(message) : undefined
    if (before) return before
    const value = this.#read(message, funnel)
    if (value === undefined) return Promise.resolve()
    const done = process(value.json, { redelivered, plain: value.plain }).finally(() => this.#underWay.delete(message))
    this.#underWay.set(message, done)
    return done
  }

  #find(message: Buffer): Promise<void> | undefined {
    for (const [other, done] of this.#underWay) if (other.equals(message)) return done
    return undefined
  }

  /** Undefined, and logged, when it cannot be used. */
  #read(message: Buffer, funnel: string): { json: Json; plain: boolean } | undefined {
    const { settings, log } = this.#options
    const limit = settings.sensu.server?.max_message_size
    if (limit !== undefined && message.length > limit) {
      // as in Sensu's line, the message takes the place of the line's own text
      const data = { max_message_size: limit, message_size: message.length, message: excerpt(message) }
      log.error(`a message from ${funnel} is too long`, data)
      return undefined
    }
    const plain = parsePlainJson(message)
    if (plain !== undefined) return { json: plain, plain: true }
    try {
      return { json: parseJson(message), plain: false }
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error)
      log.error(`failed to parse a message from ${funnel}`, { error: reason, payload: excerpt(message) })
      return undefined
    }
  }
}

function excerpt(message: Buffer): string {
  const text = message.toString('utf8', 0, 4 * EXCERPT_CHARACTERS)
  return text.length > EXCERPT_CHARACTERS ? `${text.slice(0, EXCERPT_CHARACTERS)}… (${message.length} bytes)` : text
}

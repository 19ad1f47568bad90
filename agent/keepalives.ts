import type { Logger } from '../sensu/log.js'
import { redact } from '../sensu/redact.js'
import type { ClientDefinition, JsonObject } from '../sensu/types.js'

/** Sensu's fixed rhythm; servers judge clients by it (warning after 120 s). */
const INTERVAL_MS = 20_000

export interface KeepalivesOptions {
  client: ClientDefinition
  version: string
  log: Logger
  /** Sends one keepalive where it belongs. */
  publish(keepalive: JsonObject): Promise<void>
}

/** Tells the server every 20 seconds that this client lives. */
export class Keepalives {
  readonly #options: KeepalivesOptions
  #timer: NodeJS.Timeout | undefined

  constructor(options: KeepalivesOptions) {
    this.#options = options
  }

  /** Sends one now, and goes on until stop(). */
  start(): void {
    this.#options.log.debug('scheduling keepalives')
    this.stop()
    this.#timer = setInterval(() => this.#publish(), INTERVAL_MS)
    this.#publish()
  }

  stop(): void {
    clearInterval(this.#timer)
  }

  #publish(): void {
    const { log, publish } = this.#options
    const payload = this.#payload()
    log.debug('publishing keepalive', { payload })
    publish(payload).catch((error: unknown) => {
      const reason = error instanceof Error ? error.message : String(error)
      log.error('failed to publish keepalive', { payload, error: reason })
    })
  }

  /** The whole client definition; `version` and `timestamp` last, or where the definition has them already. */
  #payload(): JsonObject {
    const { client, version } = this.#options
    const keepalive: JsonObject = { ...client, version, timestamp: Math.floor(Date.now() / 1000) }
    return redact(keepalive, client.redact)
  }
}

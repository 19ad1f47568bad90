import { keepaliveIntervalSeconds } from '../sensu/defaults.js'
import type { Logger } from '../sensu/log.js'
import { keepaliveMessage } from '../sensu/results.js'
import type { ClientDefinition, JsonObject } from '../sensu/types.js'

export interface KeepalivesOptions {
  client: ClientDefinition
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
    this.#timer = setInterval(() => this.#publish(), keepaliveIntervalSeconds * 1000)
    this.#publish()
  }

  stop(): void {
    clearInterval(this.#timer)
  }

  #publish(): void {
    const { client, log, publish } = this.#options
    const payload = keepaliveMessage(client, Date.now())
    log.debug('publishing keepalive', { payload })
    publish(payload).catch((error: unknown) => {
      const reason = error instanceof Error ? error.message : String(error)
      log.error('failed to publish keepalive', { payload, error: reason })
    })
  }
}

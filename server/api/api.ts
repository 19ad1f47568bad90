import type { Logger } from '../../sensu/log.js'
import type { Settings } from '../../sensu/types.js'
import type { Store } from '../../store/store.js'
import type { Transport } from '../../transport/transport.js'
import type { CheckRequests } from '../check-requests.js'
import type { ResultPublisher } from '../result-publisher.js'
import type { Listener } from '../server.js'

/** What the API answers from. */
export interface ApiOptions {
  /** The merged settings; a reload replaces their members. */
  settings: Settings
  store: Store
  transport: Transport
  requests: CheckRequests
  results: ResultPublisher
  log: Logger
  /** Digest of the settings, for `GET /info`. */
  settingsDigest(): string
}

/** Sensu's HTTP API. */
export class Api implements Listener {
  readonly #options: ApiOptions

  constructor(options: ApiOptions) {
    this.#options = options
  }

  async open(): Promise<void> {
    this.#options.log.debug('the api is not there yet')
  }

  async close(): Promise<void> {}
}

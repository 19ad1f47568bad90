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

/** The place of Sensu's HTTP API, which this version does not answer yet: it says so. */
export class Api implements Listener {
  readonly #options: ApiOptions

  constructor(options: ApiOptions) {
    this.#options = options
  }

  async open(): Promise<void> {
    this.#options.log.warn('this version does not answer the http api yet: run sensu-api on the same redis beside it')
  }

  async close(): Promise<void> {}
}

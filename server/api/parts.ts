import type { Logger } from '../../sensu/log.js'
import type { Settings } from '../../sensu/types.js'
import type { Store } from '../../store/store.js'
import type { Transport } from '../../transport/transport.js'
import type { CheckRequests } from '../check-requests.js'
import type { ResultPublisher } from '../result-publisher.js'
import type { BackgroundWork } from './background-work.js'

/** What the API answers from. */
export interface ApiParts {
  /** The merged settings; a reload replaces their members. */
  settings: Settings
  store: Store
  transport: Transport
  requests: CheckRequests
  results: ResultPublisher
  log: Logger
  /** Digest of the settings, for `GET /info`. */
  settingsDigest(): string
  /** What goes on after the answer. */
  background: BackgroundWork
}

import { hostname } from 'node:os'
import { sensuVersion } from '../sensu/defaults.js'
import { float } from '../sensu/json-value.js'
import type { Logger } from '../sensu/log.js'
import { findAddress } from '../sensu/settings.js'
import type { JsonObject } from '../sensu/types.js'
import type { Store } from '../store/store.js'

/** Sensu 1.9: an entry is renewed every 10 s and lives for 30. */
const RENEWAL_MS = 10_000
const LIFETIME_SECONDS = 30

export interface ServerRegistryOptions {
  id: string
  store: Store
  log: Logger
  /** Names of the leader tasks that this server does at the moment. */
  tasks(): string[]
  /** Digest of the settings; servers compare theirs. */
  settingsDigest(): string
}

/** This server's entry among all servers, which `GET /info` shows. */
export class ServerRegistry {
  readonly #options: ServerRegistryOptions
  #timer: NodeJS.Timeout | undefined

  constructor(options: ServerRegistryOptions) {
    this.#options = options
  }

  start(): void {
    this.stop()
    this.#timer = setInterval(() => void this.#update(), RENEWAL_MS)
    void this.#update()
  }

  stop(): void {
    clearInterval(this.#timer)
  }

  async #update(): Promise<void> {
    const { id, store, log } = this.#options
    const server = this.#describe()
    try {
      await store.announceServer(id, server, LIFETIME_SECONDS)
      log.info('updated server registry', { server })
    } catch (error) {
      log.debug('failed to update server registry', { error: String(error) })
    }
  }

  #describe(): JsonObject {
    const { id, tasks, settingsDigest } = this.#options
    const { user, system } = process.cpuUsage()
    const address = findAddress()
    return {
      id,
      hostname: hostname(),
      address: address === 'unknown' ? null : address,
      tasks: tasks(),
      metrics: { cpu: { user: float(user / 1e6), system: float(system / 1e6) } },
      sensu: { version: sensuVersion, settings: { hexdigest: settingsDigest() } },
      tessen: { enabled: false },
      timestamp: Math.floor(Date.now() / 1000),
    }
  }
}

import { type OwnSetting, type OwnValues, readOwnSettings } from '../sensu/own-settings.js'
import type { ConfigurationError, Settings } from '../sensu/types.js'

/** Every setting of the server's own: the one source of defaults, validation, types and documentation. */
export const serverSettings = [
  {
    key: 'server.prefetch',
    type: 'integer',
    minimum: 1,
    default: 500,
    summary:
      "Results and keepalives the broker hands over before the first of them is stored. They stay the broker's until then: nothing is lost with the server. `rabbitmq.prefetch` wins where it is set.",
  },
  {
    key: 'server.handlers.max_waiting',
    type: 'integer',
    minimum: 1,
    default: 10_000,
    summary: 'Handlers that run or wait for a place (`sensu.spawn.limit`); further calls are dropped and logged.',
  },
  {
    key: 'server.api.max_connections',
    type: 'integer',
    minimum: 1,
    default: 1000,
    summary: 'Connections to the HTTP API at the same time; more are closed at once.',
  },
  {
    key: 'server.api.max_requests',
    type: 'integer',
    minimum: 1,
    default: 200,
    summary: 'Requests that the HTTP API answers at the same time; more are answered by 503.',
  },
  {
    key: 'server.api.max_body_bytes',
    type: 'integer',
    minimum: 1024,
    default: 1_048_576,
    summary: 'Longest body of a request to the HTTP API; longer ones are answered by 413.',
  },
] as const satisfies readonly OwnSetting[]

/** The server's settings by dotted key, defaults filled in. */
export type ServerSettings = OwnValues<typeof serverSettings>

/** Reads the server's part of the section. */
export function readServerSettings(settings: Settings): { values: ServerSettings; errors: ConfigurationError[] } {
  return readOwnSettings(serverSettings, settings)
}

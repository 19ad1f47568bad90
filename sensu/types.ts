import type { Float } from './json-value.js'

/**
 * A JSON value as Sensu 1.9 reads and writes it.
 * Integers are `number` (or `bigint` beyond ±2^53), numbers with a fraction are `number`, and a float without a
 * fraction (`1.0`, `1e3`) is a `Float`, so that it stays a float. A `Buffer` is a string that is not valid UTF-8.
 */
export type Json = null | boolean | number | bigint | Float | string | Buffer | Json[] | JsonObject

/**
 * A JSON object. Members that are `undefined` are not written. Parsed objects have no prototype, so that a name from
 * outside (`constructor`, `__proto__`) never finds anything that was not sent.
 */
export type JsonObject = { [key: string]: Json | undefined }

/** Name of a category whose members are definitions by name. */
export type Category = 'checks' | 'filters' | 'mutators' | 'handlers' | 'extensions'

/** Which of Sensu's three processes a configuration is read for. */
export type Service = 'client' | 'server' | 'api'

/** One hook of a check: a command that runs after the check, with its own result once it has run. */
export type HookDefinition = JsonObject & {
  command?: Json
  /** seconds; absent means 60, null or 0 means none */
  timeout?: Json
  stdin?: boolean
}

/** Days (`all`, `sunday`…`saturday`) with their windows of clock times. */
export type TimeWindows = JsonObject & { days?: JsonObject }

/** A check as configured, or as requested by a server; not validated, therefore every attribute is open. */
export type CheckDefinition = JsonObject & {
  name?: Json
  command?: Json
  extension?: Json
  source?: Json
  hooks?: Json
  /** seconds */
  timeout?: Json
  stdin?: Json
  /** seconds */
  interval?: Json
  cron?: Json
  standalone?: Json
  publish?: Json
  subscribers?: Json
  subdue?: Json
  proxy_requests?: Json
  /** epoch seconds */
  issued?: Json
  /** epoch seconds */
  executed?: Json
}

/** A check with a result, as published: `duration` in seconds, `executed` and `issued` in epoch seconds. */
export type CheckWithResult = CheckDefinition & { output?: Json; status?: Json; duration?: Json }

/** The client's own definition, valid by the rules of Sensu 1.9. */
export type ClientDefinition = JsonObject & {
  name: string
  address: string
  subscriptions: string[]
  safe_mode?: boolean
  signature?: string
  redact?: string[]
  deregister?: Json
  deregistration?: JsonObject
  registration?: JsonObject
  keepalive?: JsonObject
  socket?: SocketSettings
  http_socket?: HttpSocketSettings
}

/** `client.socket`: the local TCP and UDP socket. */
export type SocketSettings = JsonObject & { enabled?: boolean; bind?: string; port?: number }

/** `client.http_socket`: the local HTTP socket. */
export type HttpSocketSettings = SocketSettings & {
  user?: string
  password?: string
  protect_all_endpoints?: boolean
}

/** The message on the pipe `results`. */
export type CheckResult = JsonObject & { client: string; check: CheckWithResult; signature?: string }

/** `sensu`: settings of the processes themselves. */
export type SensuSettings = JsonObject & {
  spawn: JsonObject & { limit: number }
  keepalives: JsonObject & {
    thresholds?: JsonObject & { warning?: number; critical?: number }
    handler?: string
    handlers?: string[]
  }
  server?: JsonObject & { results_pipe?: string; keepalives_pipe?: string; max_message_size?: number }
  global_error_handler?: boolean
}

/** `transport`: which message transport is used. */
export type TransportSettings = JsonObject & { name: string; reconnect_on_error: boolean }

/**
 * All settings after loading. The types hold when loading reported no errors. `rabbitmq` and `redis` are validated by
 * nobody: a URL string, an object or an array of these.
 */
export type Settings = JsonObject & {
  client: ClientDefinition
  sensu: SensuSettings
  transport: TransportSettings
  checks: { [name: string]: CheckDefinition }
  filters: { [name: string]: JsonObject }
  mutators: { [name: string]: JsonObject }
  handlers: { [name: string]: JsonObject }
  extensions: { [name: string]: JsonObject }
  rabbitmq?: Json
  redis?: Json
  api?: JsonObject
}

/** An event as Sensu's server stores it and hands it to handlers. */
export type Event = JsonObject & {
  id: string
  client: JsonObject
  check: CheckWithResult
  occurrences: number
  occurrences_watermark: number
  /** epoch seconds or null */
  last_ok: number | null
  /** epoch seconds; absent when the state never changed */
  last_state_change?: number
  action: 'create' | 'resolve' | 'flapping'
  /** epoch seconds */
  timestamp: number
  silenced: boolean
  silenced_by: string[]
}

/** Levels in rising order; a logger writes its level and all above. */
export type LogLevel = 'debug' | 'info' | 'warn' | 'error' | 'fatal'

/** One line of the log before it is written. `data` follows the three standard keys and may overwrite them. */
export type LogEntry = { level: LogLevel; message: string; data: JsonObject }

/**
 * Why a configuration cannot be used: `object` when a definition breaks a rule, `file`, `directory` and `error` when
 * something could not be read. The key order is that of Sensu's own report.
 */
export type ConfigurationError = { object?: Json; message: string; file?: string; directory?: string; error?: string }

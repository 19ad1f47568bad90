import { isInteger, isObject, member } from '../sensu/json-value.js'
import type { ConfigurationError, Json, JsonObject, Settings } from '../sensu/types.js'

/** Name of the agent's own section of the configuration; Sensu ignores it. */
export const SECTION = 'sensu_kvm'

type Setting = { key: string; summary: string } & (
  | { type: 'boolean'; default: boolean }
  | { type: 'string'; default: string }
  | { type: 'integer'; default: number; minimum: number }
  | { type: 'choice'; default: string; values: readonly string[] }
)

/** Every setting of the section: the one source of defaults, validation, types and documentation. */
export const agentSettings = [
  {
    key: 'results.to',
    type: 'choice',
    values: ['transport', 'redis'],
    default: 'transport',
    summary:
      "Where results go: to the transport, for a Sensu server; or into Redis, in Sensu's layout, with events and handlers.",
  },
  {
    key: 'results.max_held_bytes',
    type: 'integer',
    minimum: 1024,
    default: 64 * 1024 * 1024,
    summary:
      'Undelivered results kept in memory while the transport is away and there is no spool, in bytes; beyond that the oldest are dropped.',
  },
  {
    key: 'spool.enabled',
    type: 'boolean',
    default: true,
    summary:
      'Keep results on disk that the transport has not taken, so that they survive the agent, and send them in order when it takes them again.',
  },
  {
    key: 'spool.directory',
    type: 'string',
    default: '',
    summary:
      'Directory for this agent alone; empty: `spool-CLIENT` in $SENSU_KVM_STATE_DIR, else in $STATE_DIRECTORY (set by systemd), else in /var/lib/sensu-kvm. When it cannot be used, results are kept in memory, and a warning says so.',
  },
  {
    key: 'spool.max_bytes',
    type: 'integer',
    minimum: 1024 * 1024,
    default: 64 * 1024 * 1024,
    summary: 'Size of the spool on disk; beyond that the oldest results are dropped, a sixteenth of it at a time.',
  },
  {
    key: 'spool.fsync_interval_ms',
    type: 'integer',
    minimum: 0,
    default: 1000,
    summary:
      'The spool is written at once while the transport is away (else after 100 ms), which survives the death of the agent; it is forced to the disk this often, which survives that of the machine.',
  },
  {
    key: 'tokens.quote',
    type: 'boolean',
    default: false,
    summary:
      "Quote the values that tokens bring into the commands of checks and hooks, so that the shell takes them for nothing but text. Off: Sensu's behaviour, which trusts whoever can change the client's definition.",
  },
  {
    key: 'in_process',
    type: 'boolean',
    default: true,
    summary:
      "Run the project's own checks inside the agent, on its open libvirt connections, when their command needs no shell.",
  },
  {
    key: 'libvirt.events',
    type: 'boolean',
    default: true,
    summary:
      'Run standalone check-kvm-state checks at once when libvirt tells that one of their guests started, stopped, crashed, paused or vanished.',
  },
  {
    key: 'libvirt.uri',
    type: 'string',
    default: '',
    summary: 'libvirt URI of checks inside the agent whose command names none; empty: what libvirt takes by default.',
  },
] as const satisfies readonly Setting[]

type Row = (typeof agentSettings)[number]
type Value<R extends Row> = R extends { values: readonly (infer V)[] }
  ? V
  : R extends { type: 'boolean' }
    ? boolean
    : R extends { type: 'integer' }
      ? number
      : string

/** The section's values by dotted key, defaults filled in. */
export type AgentSettings = { [R in Row as R['key']]: Value<R> }

/** Reads the section. The errors are in the form and style of Sensu's own; with any, the values must not be used. */
export function readAgentSettings(settings: Settings): { values: AgentSettings; errors: ConfigurationError[] } {
  const section = settings[SECTION] ?? {}
  if (!isObject(section)) {
    return { values: valuesOf({}), errors: [{ object: section, message: `${SECTION} must be a hash` }] }
  }
  const rows: readonly Setting[] = agentSettings
  const messages = [...unknownKeys(section, []), ...rows.flatMap(row => faultOf(row, lookUp(section, row.key)) ?? [])]
  return { values: valuesOf(section), errors: messages.map(message => ({ object: section, message })) }
}

function valuesOf(section: JsonObject): AgentSettings {
  const entries = agentSettings.map(row => [row.key, lookUp(section, row.key) ?? row.default])
  return Object.fromEntries(entries) as AgentSettings
}

/** Undefined when the value is right, or absent. */
function faultOf(row: Setting, value: Json | undefined): string | undefined {
  const name = `${SECTION} ${row.key.replaceAll('.', ' ')}`
  if (value === undefined || value === null) return undefined
  switch (row.type) {
    case 'boolean':
      return typeof value === 'boolean' ? undefined : `${name} must be boolean`
    case 'string':
      return typeof value === 'string' ? undefined : `${name} must be a string`
    case 'choice':
      return typeof value === 'string' && row.values.includes(value)
        ? undefined
        : `${name} must be one of: ${row.values.join(', ')}`
    case 'integer':
      return isInteger(value) && value >= row.minimum
        ? undefined
        : `${name} must be an integer not less than ${row.minimum}`
  }
}

/** A misspelt setting would be ignored in silence otherwise. */
function unknownKeys(section: JsonObject, path: string[]): string[] {
  return Object.entries(section).flatMap(([key, value]) => {
    const here = [...path, key]
    const dotted = here.join('.')
    if (agentSettings.some(row => row.key === dotted)) return []
    if (!agentSettings.some(row => row.key.startsWith(`${dotted}.`))) {
      return [`${SECTION} ${here.join(' ')} is not a known setting`]
    }
    return isObject(value) ? unknownKeys(value, here) : [`${SECTION} ${here.join(' ')} must be a hash`]
  })
}

function lookUp(section: JsonObject, key: string): Json | undefined {
  return key
    .split('.')
    .reduce<Json | undefined>((value, part) => (isObject(value) ? member(value, part) : undefined), section)
}

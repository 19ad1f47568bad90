import { type OwnSetting, type OwnValues, readOwnSettings } from '../sensu/own-settings.js'
import type { ConfigurationError, Settings } from '../sensu/types.js'

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
] as const satisfies readonly OwnSetting[]

/** The section's values by dotted key, defaults filled in. */
export type AgentSettings = OwnValues<typeof agentSettings>

/** Reads the agent's part of the section. */
export function readAgentSettings(settings: Settings): { values: AgentSettings; errors: ConfigurationError[] } {
  return readOwnSettings(agentSettings, settings)
}

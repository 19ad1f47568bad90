import { join } from 'node:path'
import type { Logger } from '../sensu/log.js'
import type { Transport } from '../transport/transport.js'
import type { ResultSink } from './results.js'
import type { AgentSettings } from './settings.js'
import { transportSink } from './sinks.js'

export interface TransportResultsOptions {
  transport: Transport
  clientName: string
  own: AgentSettings
  variables: Readonly<Record<string, string | undefined>>
  log: Logger
}

/** A sink, and how to release what it holds once it is closed. */
export interface OpenedSink {
  sink: ResultSink
  release(): Promise<void>
}

/** Results to the transport, backed by a spool on disk; by memory alone when that is switched off, or cannot be used, which is told once. */
export async function openTransportResults(options: TransportResultsOptions): Promise<OpenedSink> {
  const { transport, clientName, own, variables, log } = options
  const directory = own['spool.directory'] || spoolDirectory(clientName, variables)
  if (own['spool.enabled']) {
    const { openSpooledSink } = await import('./spooled-sink.js')
    try {
      const maxBytes = own['spool.max_bytes']
      return await openSpooledSink(transport, log, {
        directory,
        maxBytes,
        syncIntervalMs: own['spool.fsync_interval_ms'],
      })
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error)
      log.warn('undelivered check results are kept in memory only', { reason, setting: 'sensu_kvm.spool.directory' })
    }
  }
  return { sink: transportSink(transport, log, own['results.max_held_bytes']), release: async () => {} }
}

/** One for each client, below the directory for state: results must not be sent in another client's name. */
function spoolDirectory(clientName: string, variables: TransportResultsOptions['variables']): string {
  const state = variables['SENSU_KVM_STATE_DIR'] || variables['STATE_DIRECTORY']?.split(':')[0] || '/var/lib/sensu-kvm'
  return join(state, `spool-${clientName}`)
}

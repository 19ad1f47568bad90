import { encodeJson } from '../sensu/json.js'
import type { Logger } from '../sensu/log.js'
import type { Transport } from '../transport/transport.js'
import type { ResultSink } from './results.js'
import { Spool } from './spool.js'
import { SpooledResults } from './spooled-results.js'

const RETRY_DELAY_MS = 1000
const WINDOW = 500

export interface SpooledSinkOptions {
  /** The spool's own directory (see Spool). */
  directory: string
  /** Bound of the spool on disk. */
  maxBytes: number
  /** Written data is forced to the disk this often. */
  syncIntervalMs: number
}

/** A sink, and the spool behind it for those who want to count. */
export interface SpooledSink {
  sink: ResultSink
  spool: Spool
  /** After the sink was closed: writes what is left and lets the next process have it. */
  release(): Promise<void>
}

/**
 * Results to the direct exchange `results`, for a Sensu server, as transportSink, but what is not confirmed is also on disk and survives the
 * process. Throws SpoolError when the directory cannot be used.
 */
export async function openSpooledSink(
  transport: Transport,
  log: Logger,
  { directory, maxBytes, syncIntervalMs }: SpooledSinkOptions,
): Promise<SpooledSink> {
  let dropped = 0
  let droppedTotal = 0
  const spool = await Spool.open({
    directory,
    maxBytes,
    syncIntervalMs,
    onDropped: records => {
      if (dropped === 0) {
        log.error('too many undelivered check results, dropping the oldest', { directory, max_bytes: maxBytes })
      }
      dropped += records
      droppedTotal += records
    },
    onDiskTrouble: error => log.error('check results cannot be spooled', { directory, error: String(error) }),
  })
  const { recovered, damaged, foreign } = spool.report
  if (recovered > 0) log.info('undelivered check results found in the spool', { directory, results: recovered })
  if (damaged > 0) log.warn('the end of a spool file was damaged', { directory, files: damaged })
  if (foreign > 0) log.warn('files in the spool directory are not its own', { directory, files: foreign })
  const results = new SpooledResults({
    spool,
    window: WINDOW,
    retryDelayMs: RETRY_DELAY_MS,
    ready: () => transport.connected,
    send: message => transport.publish('direct', 'results', message),
    onDelivered: () => {
      if (dropped > 0) log.warn('check results were dropped while they could not be delivered', { dropped })
      dropped = 0
    },
  })
  transport.on('restored', () => results.resume())
  return {
    spool,
    sink: {
      deliver: result => results.add(encodeJson(result)),
      resume: () => results.resume(),
      drained: milliseconds => results.drained(milliseconds),
      close: () => {
        const kept = results.close()
        if (kept > 0) log.info('undelivered check results are kept in the spool', { directory, results: kept })
        return 0
      },
      backlog: () => ({ waiting: results.count, dropped: droppedTotal, spoolBytes: spool.diskBytes }),
    },
    release: async () => {
      const lost = await spool.close()
      if (lost > 0) log.error('check results were not delivered before the end', { results: lost })
    },
  }
}

import type { Site } from './site.js'
import type { StatusRow } from './status-table.js'

const readTimeoutMs = 5000

/** The newest results in Redis, of all clients. */
export async function readRows({ store }: Site): Promise<StatusRow[]> {
  const rows: StatusRow[] = []
  const limit = AbortSignal.timeout(readTimeoutMs)
  for await (const { client, check } of store.results()) {
    if (limit.aborted) throw new Error(`Redis did not answer within ${readTimeoutMs / 1000} s`)
    const name = String(check['name'] ?? '')
    // the server's own result about the client
    if (name === 'keepalive') continue
    rows.push({
      client,
      check: name,
      status: Number(check['status'] ?? 3),
      output: String(check['output'] ?? ''),
      executedSeconds: Number(check['executed'] ?? Number.NaN),
    })
  }
  return rows
}

/** Configured checks without a result yet. */
export function missingChecks({ settings }: Site, rows: readonly StatusRow[]): string[] {
  const done = new Set(rows.filter(row => row.client === settings.client.name).map(row => row.check))
  return Object.keys(settings.checks).filter(name => !done.has(name))
}

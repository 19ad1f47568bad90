import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { type Guest, startGuest } from '../scripts/services/guest.js'
import { buildGuestImage } from '../scripts/services/guest-image.js'
import { type Libvirtd, startLibvirtd } from '../scripts/services/libvirtd.js'
import { cacheDirectory } from '../scripts/services/process.js'
import { benchBulkStatistics } from './bulk-statistics.js'
import { benchCheckStart } from './check-start.js'
import { benchDomainState } from './domain-state.js'
import { benchEventLatency } from './event-latency.js'
import { benchInProcessChecks } from './in-process-checks.js'
import type { Row } from './measure.js'
import { benchSpawnedChecks } from './spawned-checks.js'
import { benchStoredResults } from './store-results.js'
import { formatTable } from './table.js'

const usage = `npm run bench [-- --json] [--only NAME] [--checks COUNT]

Compares sensu-kvm with what a user would run instead, in one run on this machine, on private services.
  --json       print the rows as JSON instead of a table
  --only NAME  run one part: domain-state, bulk-statistics, check-start, in-process-checks, store, spawned-checks, event-latency
  --checks COUNT  so many checks in spawned-checks, default 20000

With PEER_SENSU_CLIENT set to a command that starts a real sensu-client, spawned-checks measures that, too. It is given
-d DIR -l FILE -L LEVEL, must become the client (exec), and ends on TERM.
`

interface Bench {
  root: string
  socket: string
  uri: string
  guest: string
  libvirtd: Libvirtd
  realGuest: Guest
  /** How many checks spawned-checks runs. */
  checks: number
}

const parts: Readonly<Record<string, (bench: Bench) => Promise<Row[]>>> = {
  'domain-state': ({ uri, guest }) => benchDomainState(uri, guest),
  'bulk-statistics': ({ socket }) => benchBulkStatistics(socket),
  'check-start': ({ root, uri, guest }) => benchCheckStart(root, uri, guest),
  'in-process-checks': ({ root, uri, guest }) => benchInProcessChecks(root, uri, guest),
  store: () => benchStoredResults(),
  'spawned-checks': ({ root, checks }) => benchSpawnedChecks(root, checks),
  // last: it kills the guest
  'event-latency': ({ root, libvirtd, realGuest }) => benchEventLatency(root, libvirtd, realGuest),
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      json: { type: 'boolean' },
      only: { type: 'string' },
      checks: { type: 'string', default: '20000' },
      help: { type: 'boolean', short: 'h' },
    },
  })
  if (values.help) return void process.stdout.write(usage)
  const names = values.only === undefined ? Object.keys(parts) : [values.only]
  const unknown = names.find(name => parts[name] === undefined)
  if (unknown !== undefined) throw new Error(`there is no part "${unknown}"; ${usage}`)
  const rows = await measure(names, Number(values.checks))
  process.stdout.write(values.json ? `${JSON.stringify(rows, undefined, 2)}\n` : formatTable(rows))
}

async function measure(names: readonly string[], checks: number): Promise<Row[]> {
  progress('starting a private libvirtd and a guest')
  const image = await buildGuestImage({ cacheDirectory: cacheDirectory() })
  const libvirtd = await startLibvirtd({ cacheDirectory: cacheDirectory() })
  try {
    const guest = await startGuest(libvirtd, { image, name: 'bench' })
    const bench = {
      root: fileURLToPath(new URL('../..', import.meta.url)),
      socket: libvirtd.socket,
      uri: libvirtd.readOnlyUri ?? libvirtd.uri,
      guest: guest.name,
      libvirtd,
      realGuest: guest,
      checks,
    }
    const rows: Row[] = []
    for (const name of names) {
      progress(name)
      rows.push(...((await parts[name]?.(bench)) ?? []))
    }
    return rows
  } finally {
    await libvirtd.stop()
  }
}

function progress(text: string): void {
  process.stderr.write(`bench: ${text}\n`)
}

main().catch(error => {
  process.stderr.write(`bench: ${error instanceof Error ? error.message : error}\n`)
  process.exitCode = 1
})

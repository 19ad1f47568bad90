import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { optimizeHotCode } from '../agent/heap.js'
import { type Guest, startGuest } from '../scripts/services/guest.js'
import { buildGuestImage, type GuestImage } from '../scripts/services/guest-image.js'
import { type Libvirtd, startLibvirtd } from '../scripts/services/libvirtd.js'
import { cacheDirectory } from '../scripts/services/process.js'
import { benchApi } from './api.js'
import { benchBulkStatistics } from './bulk-statistics.js'
import { benchCatalogue } from './catalogue.js'
import { benchCheckStart } from './check-start.js'
import { benchDomainState } from './domain-state.js'
import { benchEventLatency } from './event-latency.js'
import { benchHandlerLatency } from './handler-latency.js'
import { benchInProcessChecks } from './in-process-checks.js'
import type { Row } from './measure.js'
import { benchServerResults } from './server-results.js'
import { benchSpawnedChecks } from './spawned-checks.js'
import { benchStoredResults } from './store-results.js'
import { formatTable } from './table.js'

/** What parts find that look at a guest. */
interface Guests {
  socket: string
  uri: string
  guest: string
  libvirtd: Libvirtd
  image: GuestImage
  realGuest: Guest
}

const root = fileURLToPath(new URL('../..', import.meta.url))

const withGuest: Readonly<Record<string, (guests: Guests) => Promise<Row[]>>> = {
  'domain-state': ({ uri, guest }) => benchDomainState(uri, guest),
  'bulk-statistics': ({ socket }) => benchBulkStatistics(socket),
  catalogue: ({ libvirtd, image, realGuest }) => benchCatalogue(root, { libvirtd, image, guest: realGuest }),
  'check-start': ({ uri, guest }) => benchCheckStart(root, uri, guest),
  'in-process-checks': ({ uri, guest }) => benchInProcessChecks(root, uri, guest),
  // last: they kill the guest
  'handler-latency': ({ libvirtd, realGuest }) => benchHandlerLatency(root, libvirtd, realGuest),
  'event-latency': ({ libvirtd, realGuest }) => benchEventLatency(root, libvirtd, realGuest),
}

/** These need neither libvirtd nor a guest. `checks`: how many spawned-checks runs. */
const withoutGuest: Readonly<Record<string, (checks: number) => Promise<Row[]>>> = {
  store: () => benchStoredResults(),
  'spawned-checks': checks => benchSpawnedChecks(root, checks),
  'server-results': () => benchServerResults(root),
  api: () => benchApi(root),
}

const names = [...Object.keys(withGuest), ...Object.keys(withoutGuest)]

const usage = `npm run bench [-- --json] [--only NAME] [--checks COUNT]

Compares sensu-kvm with what a user would run instead, in one run on this machine, on private services.
  --json       print the rows as JSON instead of a table
  --only NAME  run one part: ${names.join(', ')}
  --checks COUNT  so many checks in spawned-checks, default 100000

With PEER_SENSU_CLIENT set to a command that starts a real sensu-client, spawned-checks measures that, too; with PEER_SENSU_SERVER and a
sensu-server, server-results does; with PEER_SENSU_API and a sensu-api, api does. It is given -d DIR -l FILE -L LEVEL, must become the program (exec), and ends on TERM.
`

/** The command line is wrong: told in one line, exit status 2. */
class UsageError extends Error {}

interface Arguments {
  help: boolean
  json: boolean
  parts: readonly string[]
  checks: number
}

function readArguments(): Arguments {
  const { help = false, json = false, only, checks } = parse()
  if (only !== undefined && !names.includes(only)) {
    throw new UsageError(`there is no part "${only}"; --only takes one of: ${names.join(', ')}`)
  }
  if (!/^[1-9]\d{0,7}$/.test(checks)) {
    throw new UsageError(`--checks takes a whole number from 1 to 99999999, not "${checks}"`)
  }
  return { help, json, parts: only === undefined ? names : [only], checks: Number(checks) }
}

function parse() {
  const options = {
    json: { type: 'boolean' },
    only: { type: 'string' },
    checks: { type: 'string', default: '100000' },
    help: { type: 'boolean', short: 'h' },
  } as const
  try {
    return parseArgs({ options }).values
  } catch (error) {
    throw new UsageError(error instanceof Error ? error.message.replace(/\. .*/s, '') : String(error))
  }
}

async function main(): Promise<void> {
  const { help, json, parts, checks } = readArguments()
  if (help) return void process.stdout.write(usage)
  // What is measured in this process has the memory and the compiler of an agent that runs checks inside itself.
  optimizeHotCode()
  const rows: Row[] = []
  for (const name of parts) {
    const part = withoutGuest[name]
    if (!part) continue
    progress(name)
    rows.push(...(await part(checks)))
  }
  const lookingAtGuests = parts.filter(name => withGuest[name])
  if (lookingAtGuests.length > 0) rows.push(...(await measureGuests(lookingAtGuests)))
  process.stdout.write(json ? `${JSON.stringify(rows, undefined, 2)}\n` : formatTable(rows))
}

async function measureGuests(parts: readonly string[]): Promise<Row[]> {
  progress('starting a private libvirtd and a guest')
  const image = await buildGuestImage({ cacheDirectory: cacheDirectory() })
  const libvirtd = await startLibvirtd({ cacheDirectory: cacheDirectory() })
  try {
    const realGuest = await startGuest(libvirtd, { image, name: 'bench' })
    const { socket, readOnlyUri, uri } = libvirtd
    const guests = { socket, uri: readOnlyUri ?? uri, guest: realGuest.name, libvirtd, image, realGuest }
    const rows: Row[] = []
    for (const name of parts) {
      progress(name)
      rows.push(...((await withGuest[name]?.(guests)) ?? []))
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
  process.exitCode = error instanceof UsageError ? 2 : 1
})

import { setTimeout as delay } from 'node:timers/promises'
import { demonstrateAlert } from './start/alert.js'
import { missingChecks, readRows } from './start/results.js'
import { assertProgramsRun, intervalSeconds, lastLogLines, type Site, StartError, startSite } from './start/site.js'
import { messageOf, Started } from './start/started.js'
import { renderTable, type StatusRow } from './start/status-table.js'

// Behind `npm start`: the whole way of a check result, on this machine, with nothing set up before.

const help = `Usage: npm start [-- --once]

Watches this host's KVM guests, read-only; where there are none, a small guest of its own. Starts a private RabbitMQ and
Redis (and, without guests, a private libvirtd with a guest), server and agent with the configuration in conf.d, and shows
the results in Redis. The HTTP API and its status page are on port 4567, or the next free one. Ctrl-C stops everything
that was started.

  --once      wait until every configured check has a result and the API answers, pause the demonstration guest and resume
              it, wait for the handler's message each time, print all that, stop everything
  -h, --help  print this text
`

const refreshMs = 1000
/** From the programs' start to the last first result. */
const firstResultsTimeoutMs = 120_000
const apiTimeoutMs = 5000

async function main(argv: readonly string[]): Promise<number> {
  if (argv.includes('--help') || argv.includes('-h')) {
    process.stdout.write(help)
    return 0
  }
  const unknown = argv.find(argument => argument !== '--once')
  if (unknown !== undefined) throw new StartError(`unknown option ${unknown}; --help tells which there are`)
  const once = argv.includes('--once')
  const stopping = new AbortController()
  const { signal } = stopping
  for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(name, () => stopping.abort())

  const started = new Started(tell)
  try {
    const site = await orStopped(signal, startSite({ started, signal, tell }))
    return once ? await showOnce(site, signal) : await showLive(site, signal)
  } catch (error) {
    if (signal.aborted) return once ? 130 : 0
    throw error
  } finally {
    stopping.abort()
    tell('stopping what was started')
    await started.stop()
  }
}

/** The promise's value, unless it is asked to stop before. */
async function orStopped<T>(signal: AbortSignal, promise: Promise<T>): Promise<T> {
  const stopped = new Promise<never>((_, reject) => {
    signal.addEventListener('abort', () => reject(new StartError('stopped')), { once: true })
  })
  return Promise.race([promise, stopped])
}

/** Waits for a first result of each check, has an alert and its end come through, and prints all that. */
async function showOnce(site: Site, signal: AbortSignal): Promise<number> {
  const deadline = performance.now() + firstResultsTimeoutMs
  tell('waiting for the first result of each check')
  for (;;) {
    assertProgramsRun(site)
    const rows = await readRows(site)
    const missing = missingChecks(site, rows)
    if (missing.length === 0) break
    if (performance.now() > deadline)
      throw new StartError(
        `no result of ${missing.join(', ')} after ${firstResultsTimeoutMs / 1000} s; the last lines of the logs:\n${lastLogLines(site)}`,
      )
    await delay(200, undefined, { signal })
  }
  print(renderTable(await readRows(site), { ...tableStyle(), maximumRows: Number.POSITIVE_INFINITY }))
  print(['', `the API at ${site.apiUrl} knows ${await clientsOfApi(site, signal)}`])
  if (site.guest === undefined) {
    print(["no alert is tried: nothing is done to this host's own guests"])
    return 0
  }
  tell(`pausing and resuming ${site.guest.name}, for an alert and its end`)
  for (const { done, message, afterMs } of await demonstrateAlert(site, site.guest, signal))
    print([`${done}; after ${(afterMs / 1000).toFixed(1)} s the handler wrote: ${message}`])
  return 0
}

/** Asks the API for the clients: `2 clients: kvm-host, web1`. */
async function clientsOfApi({ apiUrl }: Site, signal: AbortSignal): Promise<string> {
  const url = new URL('clients', apiUrl)
  try {
    const limit = AbortSignal.any([signal, AbortSignal.timeout(apiTimeoutMs)])
    const clients: unknown = await (await fetch(url, { signal: limit })).json()
    if (!Array.isArray(clients)) throw new Error(`it answered ${JSON.stringify(clients)}`)
    const names = clients.map((client: { name?: unknown }) => String(client.name)).sort()
    return `${names.length} clients: ${names.join(', ')}`
  } catch (error) {
    throw new StartError(`the API does not answer at ${url}: ${messageOf(error)}`)
  }
}

/** Shows the table until it is told to stop: redrawn in place on a terminal, elsewhere printed when a status changes. */
async function showLive(site: Site, signal: AbortSignal): Promise<number> {
  const terminal = process.stdout.isTTY
  let drawnLines = 0
  let printed = ''
  if (!terminal) print([`API and status page: ${site.apiUrl}`])
  while (!signal.aborted) {
    assertProgramsRun(site)
    const rows = await readRows(site)
    if (terminal) {
      const lines = [...liveTable(site, rows), ...footer(site)]
      process.stdout.write(`${drawnLines > 0 ? `\x1b[${drawnLines}A\r\x1b[J` : ''}${lines.join('\n')}\n`)
      drawnLines = lines.length
    } else {
      const statuses = JSON.stringify(rows.map(row => [row.client, row.check, row.status]).sort())
      if (statuses !== printed) print([...liveTable(site, rows), ''])
      printed = statuses
    }
    await delay(refreshMs, undefined, { signal }).catch(() => {})
  }
  return 0
}

function liveTable(site: Site, rows: readonly StatusRow[]): string[] {
  const missing = missingChecks(site, rows)
  const waiting = missing.length === 0 ? [] : [`waiting for ${missing.join(', ')}`.slice(0, tableStyle().width)]
  return [...renderTable(rows, tableStyle()), ...waiting]
}

function footer({ description, apiUrl, eventsFile }: Site): string[] {
  const { width } = tableStyle()
  return [
    `Status page and API: ${apiUrl}  Events: ${eventsFile}`,
    `Ctrl-C stops everything. Every ${intervalSeconds} s: ${description}`,
  ].map(text => text.slice(0, width))
}

function tableStyle() {
  const { columns = 120, rows: height = 40, isTTY } = process.stdout
  return {
    width: isTTY ? columns - 1 : 160,
    maximumRows: isTTY ? Math.max(1, height - 7) : 1000,
    nowSeconds: Date.now() / 1000,
    color: isTTY === true && process.env['NO_COLOR'] === undefined,
  }
}

function print(lines: readonly string[]): void {
  process.stdout.write(`${lines.join('\n')}\n`)
}

function tell(message: string): void {
  process.stderr.write(`${message}\n`)
}

let status: number
try {
  status = await main(process.argv.slice(2))
} catch (error) {
  tell(`npm start: ${messageOf(error)}`)
  status = error instanceof StartError && error.message.startsWith('unknown option') ? 2 : 1
}
// What was still starting when all was stopped would be waited for otherwise; its watchdog stops it now.
process.exit(status)

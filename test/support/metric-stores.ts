import { readdirSync } from 'node:fs'
import { readFile, writeFile } from 'node:fs/promises'
import { connect } from 'node:net'
import { join } from 'node:path'
import {
  findFreePort,
  type ManagedProcess,
  makeTemporaryDirectory,
  run,
  startProcess,
  waitUntil,
} from '../../scripts/services/process.js'
import { Watchdog } from '../../scripts/services/watchdog.js'
import type { Test } from './services.js'

const startTimeoutMs = 30_000
const storeTimeoutMs = 30_000
const portAttempts = 3

/** One number that a store has taken in. */
export interface StoredPoint {
  readonly name: string
  readonly tags: Readonly<Record<string, string>>
  readonly value: number
}

/** Starts a daemon in a temporary directory on free ports; again when another process was quicker to take one of them. */
async function startStore(
  t: Test,
  name: string,
  ports: number,
  start: (directory: string, ports: readonly number[]) => Promise<{ command: string; args: readonly string[] }>,
): Promise<{ directory: string; ports: readonly number[] }> {
  for (let attempt = 1; ; attempt += 1) {
    const watchdog = await Watchdog.start()
    const directory = makeTemporaryDirectory()
    watchdog.removeAtEnd(directory)
    const free = await Promise.all(Array.from({ length: ports }, findFreePort))
    const { command, args } = await start(directory, free)
    const logFile = join(directory, 'log')
    const daemon = await startProcess({ name, command, args, cwd: directory, logFile })
    watchdog.watch(daemon.pid)
    try {
      await untilListening(name, free, daemon)
      t.teardown(async () => {
        await daemon.stop()
        await watchdog.end()
      })
      return { directory, ports: free }
    } catch (error) {
      await daemon.kill()
      await watchdog.end()
      if (attempt === portAttempts) throw error
    }
  }
}

async function untilListening(name: string, ports: readonly number[], daemon: ManagedProcess): Promise<void> {
  const limits = { timeoutMs: startTimeoutMs, process: daemon }
  for (const port of ports) await waitUntil(`${name} accepts connections on ${port}`, () => accepts(port), limits)
}

function accepts(port: number): Promise<true | undefined> {
  return new Promise(resolve => {
    const socket = connect(port, '127.0.0.1')
    socket.once('connect', () => resolve(true)).once('error', () => resolve(undefined))
    socket.once('connect', () => socket.destroy())
  })
}

/** Writes a text to a port and ends; resolves when the other end has read it all. */
function send(port: number, text: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const socket = connect(port, '127.0.0.1')
    socket.once('error', reject).once('close', () => resolve())
    socket.resume()
    socket.end(text)
  })
}

/** A Graphite: the real carbon-cache, which keeps one whisper file for each path. */
export async function startCarbon(t: Test) {
  const { directory, ports } = await startStore(t, 'carbon-cache', 1, async (folder, [port]) => {
    await writeFile(join(folder, 'carbon.conf'), carbonSettings(folder, port))
    await writeFile(join(folder, 'storage-schemas.conf'), '[all]\npattern = .*\nretentions = 1s:5m\n')
    const own = ['--config', join(folder, 'carbon.conf'), '--pidfile', join(folder, 'pid'), '--logdir', folder]
    return { command: '/usr/bin/carbon-cache', args: [...own, '--nodaemon', 'start'] }
  })
  return {
    /** Where it takes lines in, by TCP and by UDP. */
    port: ports[0] ?? 0,
    /** Takes lines in; resolves with what the files hold at that second, by path, when there are at least so many. */
    async store(lines: string, seconds: number, count: number): Promise<Map<string, number>> {
      await send(ports[0] ?? 0, lines)
      return this.stored(seconds, count)
    },
    /** What the files hold at that second, by path, when there are at least so many. */
    async stored(seconds: number, count: number): Promise<Map<string, number>> {
      const limits = { timeoutMs: storeTimeoutMs, intervalMs: 200 }
      await waitUntil(`${count} whisper files`, () => (countFiles(directory) >= count ? true : undefined), limits)
      const read = async () => {
        const { stdout } = await run('/usr/bin/python3', [
          '-c',
          whisperReader,
          join(directory, 'whisper'),
          String(seconds),
        ])
        const values: Record<string, number> = JSON.parse(stdout)
        return Object.keys(values).length >= count ? new Map(Object.entries(values)) : undefined
      }
      return waitUntil(`numbers in ${count} whisper files`, read, limits)
    },
    /** What carbon said, of lines that it refused for example. */
    log: () => readFile(join(directory, 'log'), 'utf8'),
  }
}

function countFiles(directory: string): number {
  return readdirSync(directory, { recursive: true, encoding: 'utf8' }).filter(name => name.endsWith('.wsp')).length
}

function carbonSettings(directory: string, port: number | undefined): string {
  return `[cache]
CONF_DIR = ${directory}
STORAGE_DIR = ${directory}
LOCAL_DATA_DIR = ${directory}/whisper/
LOG_DIR = ${directory}
PID_DIR = ${directory}
USER =
MAX_CREATES_PER_MINUTE = inf
MAX_UPDATES_PER_SECOND = inf
CARBON_METRIC_INTERVAL = 0
ENABLE_TAGS = False
LOG_CREATES = False
LOG_UPDATES = False
LINE_RECEIVER_INTERFACE = 127.0.0.1
LINE_RECEIVER_PORT = ${port}
ENABLE_UDP_LISTENER = True
UDP_RECEIVER_INTERFACE = 127.0.0.1
UDP_RECEIVER_PORT = ${port}
PICKLE_RECEIVER_PORT = 0
CACHE_QUERY_PORT = 0
ENABLE_LOGROTATION = False
WHISPER_AUTOFLUSH = True
`
}

/** Prints what every whisper file below a folder holds at one second, as JSON. */
const whisperReader = `
import json, os, sys, whisper
root, second = sys.argv[1], int(sys.argv[2])
found = {}
for folder, _, files in os.walk(root):
    for file in files:
        path = os.path.join(folder, file)
        _, values = whisper.fetch(path, second - 1, second)
        name = os.path.relpath(path, root)[:-len('.wsp')].replace('/', '.')
        if values[0] is not None: found[name] = values[0]
print(json.dumps(found))
`

/** A real InfluxDB, which reads its own line protocol and OpenTSDB's telnet commands. */
export async function startInfluxdb(t: Test) {
  const { ports } = await startStore(t, 'influxd', 3, async (folder, own) => {
    await writeFile(join(folder, 'influxdb.conf'), influxdbSettings(folder, own))
    return { command: 'influxd', args: ['-config', join(folder, 'influxdb.conf')] }
  })
  const [, http, opentsdb] = ports
  const url = `http://127.0.0.1:${http}`
  const query = async (database: string, text: string): Promise<InfluxdbAnswer> => {
    const body = new URLSearchParams({ db: database, q: text })
    const response = await fetch(`${url}/query`, { method: 'POST', body })
    return response.json() as Promise<InfluxdbAnswer>
  }
  return {
    url,
    /** Where it takes OpenTSDB's commands and requests, into the database `opentsdb`. */
    opentsdbPort: opentsdb ?? 0,
    /** Where it takes lines by UDP, into the database `udp`. */
    udpPort: http ?? 0,
    query,
    /** Takes line protocol in; rejects with InfluxDB's own words when it refuses a line. */
    async write(database: string, lines: string): Promise<void> {
      await query('', `CREATE DATABASE "${database}"`)
      const response = await fetch(`${url}/write?db=${database}`, { method: 'POST', body: lines })
      if (response.status !== 204) throw new Error(`InfluxDB answered ${response.status}: ${await response.text()}`)
    },
    /** Takes OpenTSDB's telnet commands in, into the database `opentsdb`. */
    put: (lines: string) => send(opentsdb ?? 0, lines),
    /** Every number of a database. */
    async points(database: string): Promise<StoredPoint[]> {
      const { results } = await query(database, 'SELECT * FROM /.*/ GROUP BY *')
      return (results[0]?.series ?? []).flatMap(({ name, tags, columns, values }) =>
        values.flatMap(row =>
          columns.flatMap((column, index) => {
            const value = row[index]
            return column === 'time' || typeof value !== 'number' ? [] : [{ name: `${name}.${column}`, tags, value }]
          }),
        ),
      )
    },
  }
}

interface InfluxdbAnswer {
  results: {
    series?: { name: string; tags: Record<string, string>; columns: string[]; values: (number | string | null)[][] }[]
  }[]
}

function influxdbSettings(directory: string, [rpc, http, opentsdb]: readonly number[]): string {
  return `reporting-disabled = true
bind-address = "127.0.0.1:${rpc}"
[meta]
  dir = "${directory}/meta"
[data]
  dir = "${directory}/data"
  wal-dir = "${directory}/wal"
[monitor]
  store-enabled = false
[http]
  bind-address = "127.0.0.1:${http}"
  log-enabled = false
[[opentsdb]]
  enabled = true
  bind-address = "127.0.0.1:${opentsdb}"
  database = "opentsdb"
  batch-timeout = "100ms"
[[udp]]
  enabled = true
  bind-address = "127.0.0.1:${http}"
  database = "udp"
  batch-timeout = "100ms"
[continuous_queries]
  enabled = false
`
}

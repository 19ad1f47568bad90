import { existsSync, mkdirSync, writeFileSync } from 'node:fs'
import { delimiter, join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { loadSettings } from '../sensu/settings.js'
import type { Settings } from '../sensu/types.js'
import { Store } from '../store/store.js'
import { createTransport } from '../transport/create.js'
import { hasHardwareKvm, startGuest } from './services/guest.js'
import { buildGuestImage } from './services/guest-image.js'
import { startLibvirtd } from './services/libvirtd.js'
import {
  cacheDirectory,
  type ManagedProcess,
  makeTemporaryDirectory,
  projectDirectory,
  run,
  startProcess,
} from './services/process.js'
import { startRabbitmq } from './services/rabbitmq.js'
import { startRedis } from './services/redis.js'
import { Watchdog } from './services/watchdog.js'
import { publishCheckRequests } from './start/check-requests.js'
import { renderTable, type StatusRow } from './start/status-table.js'

// Behind `npm start`: the whole way of a check result, on this machine, with nothing set up before.

const help = `Usage: npm start [-- --once]

Watches this host's KVM guests, read-only; where there are none, a small guest of its own. Starts a private RabbitMQ and
Redis (and, without guests, a private libvirtd with a guest), the agent with the configuration in conf.d, and shows the
results it stores in Redis. Ctrl-C stops everything that was started.

  --once      wait until every configured check has a result, print the table, stop everything
  -h, --help  print this text
`

/** Checks run this often here, so that there is something to see. */
const intervalSeconds = 10
const refreshMs = 1000
/** From the agent's start to the last first result. */
const firstResultsTimeoutMs = 120_000
const readTimeoutMs = 5000
/** How many lines of the agent's log are shown when something went wrong. */
const logLines = 15

/** A failure that is told by its message alone. */
class StartError extends Error {}

/** Something that was started and can be stopped. */
interface Stoppable {
  stop(): unknown
}

/** Everything that was started, to be stopped in the opposite order. What comes after the stop is stopped at once. */
class Started {
  readonly #services: Stoppable[] = []
  #stopped = false

  async add(service: Stoppable): Promise<void> {
    if (this.#stopped) await service.stop()
    else this.#services.push(service)
  }

  async stop(): Promise<void> {
    this.#stopped = true
    for (const service of this.#services.reverse()) {
      try {
        await service.stop()
      } catch (error) {
        tell(`while stopping: ${messageOf(error)}`)
      }
    }
  }
}

/** What runs when everything runs. */
interface Setup {
  settings: Settings
  store: Store
  agent: ManagedProcess
  /** What is watched, for people. */
  description: string
}

async function main(argv: readonly string[]): Promise<number> {
  if (argv.includes('--help') || argv.includes('-h')) {
    process.stdout.write(help)
    return 0
  }
  const unknown = argv.find(argument => argument !== '--once')
  if (unknown !== undefined) throw new StartError(`unknown option ${unknown}; --help tells which there are`)
  const once = argv.includes('--once')
  const stopping = new AbortController()
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => stopping.abort())

  const started = new Started()
  try {
    const setup = await orStopped(stopping.signal, startEverything(started, stopping.signal))
    return once ? await showOnce(setup, stopping.signal) : await showLive(setup, stopping.signal)
  } catch (error) {
    if (stopping.signal.aborted) return once ? 130 : 0
    throw error
  } finally {
    stopping.abort() // also ends the check requests
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

/** Starts services and agent; what runs is in `started` at any moment. */
async function startEverything(started: Started, signal: AbortSignal): Promise<Setup> {
  const watchdog = await Watchdog.start()
  const directory = makeTemporaryDirectory()
  watchdog.removeAtEnd(directory)
  await started.add({ stop: () => watchdog.end() })

  const hostGuests = await findHostGuests()
  tell(
    hostGuests > 0
      ? `watching this host's guests (${hostGuests}), read-only; starting a private RabbitMQ and Redis`
      : 'this host has no guests of its own; starting a private RabbitMQ, Redis and libvirtd with a small guest',
  )
  const [redis, rabbitmq, libvirtUri] = await Promise.all([
    timed('Redis', () => startRedis(), started),
    timed('RabbitMQ', () => startRabbitmq(), started),
    hostGuests > 0 ? 'qemu:///system' : startPrivateGuest(started),
  ])
  signal.throwIfAborted()

  const recipe = join(projectDirectory(), 'conf.d')
  const overrides = join(directory, 'conf.d')
  mkdirSync(overrides)
  const { host, port, user, password, vhosts } = rabbitmq
  const changes = {
    rabbitmq: { host, port, user, password, vhost: vhosts[0] },
    redis: { host: redis.host, port: redis.port },
    client: { socket: { enabled: false }, http_socket: { enabled: false } },
    checks: intervalChanges(loadConfiguration([recipe])),
    handlers: { default: { command: `cat >> ${join(directory, 'events.log')}` } },
    sensu_kvm: { results: { to: 'redis' }, libvirt: { uri: libvirtUri } },
  }
  writeFileSync(join(overrides, 'private-services.json'), JSON.stringify(changes, null, 2), { mode: 0o600 })
  const settings = loadConfiguration([recipe, overrides])

  const agent = await startAgent(directory, [recipe, overrides], libvirtUri)
  watchdog.watch(agent.pid)
  await started.add(agent)
  signal.throwIfAborted()
  const store = await Store.connect(settings.redis)
  await started.add({ stop: () => store.close() })
  await scheduleChecks(settings, store, started, signal)
  return { settings, store, agent, description: `guests of ${libvirtUri}` }
}

/** How many guests a libvirt of this host has; 0 without one, or without permission to ask. */
async function findHostGuests(): Promise<number> {
  const sockets = ['virtqemud-sock-ro', 'libvirt-sock-ro'].map(name => `/run/libvirt/${name}`)
  if (!sockets.some(path => existsSync(path))) return 0
  try {
    const { stdout } = await run('virsh', ['-q', '-r', '-c', 'qemu:///system', 'list', '--all', '--name'], {
      timeoutMs: 10_000,
    })
    return stdout.split('\n').filter(line => line.trim() !== '').length
  } catch (error) {
    tell(`cannot ask this host's libvirt for guests: ${messageOf(error)}`)
    return 0
  }
}

/** Starts a libvirtd with one guest; returns the URI that reads it. */
async function startPrivateGuest(started: Started): Promise<string> {
  const cache = cacheDirectory()
  const image = await buildGuestImage({ cacheDirectory: cache, report: tell })
  const daemon = await timed('libvirtd', () => startLibvirtd({ cacheDirectory: cache }), started)
  const how = hasHardwareKvm() ? '' : ' without hardware KVM'
  tell(`booting a guest${how}`)
  await timed('the guest', () => startGuest(daemon, { name: 'web1', image }), started)
  return daemon.readOnlyUri ?? daemon.uri
}

/** Starts a service, remembers it to be stopped, and tells how long it took. */
async function timed<T extends Stoppable>(name: string, start: () => Promise<T>, started: Started): Promise<T> {
  const before = performance.now()
  const service = await start()
  await started.add(service)
  tell(`${name} runs after ${((performance.now() - before) / 1000).toFixed(1)} s`)
  return service
}

function loadConfiguration(configDirectories: readonly string[]): Settings {
  const { settings, errors } = loadSettings({ service: 'client', configDirectories, environment: {} })
  if (errors.length === 0) return settings
  const texts = errors.map(({ message, ...where }) => `  ${message} ${JSON.stringify(where)}`)
  throw new StartError(`the configuration in ${configDirectories.join(', ')} is not valid:\n${texts.join('\n')}`)
}

function intervalChanges(settings: Settings): Record<string, { interval: number }> {
  return Object.fromEntries(Object.keys(settings.checks).map(name => [name, { interval: intervalSeconds }]))
}

function startAgent(directory: string, configuration: readonly string[], libvirtUri: string): Promise<ManagedProcess> {
  const bin = join(projectDirectory(), 'dist/bin')
  const inherited = Object.entries(process.env).filter(
    ([name]) => !/^(SENSU_|RABBITMQ_|REDIS_|NODE_OPTIONS$)/.test(name),
  )
  return startProcess({
    name: 'sensu-kvm-agent',
    command: process.execPath,
    args: [join(bin, 'sensu-kvm-agent'), '--config_dir', configuration.join(',')],
    cwd: directory,
    env: {
      ...Object.fromEntries(inherited),
      PATH: `${bin}${delimiter}${process.env['PATH'] ?? ''}`,
      LIBVIRT_DEFAULT_URI: libvirtUri,
      SENSU_KVM_STATE_DIR: directory,
      SENSU_LOADED_TEMPFILE_DIR: directory,
    },
    logFile: join(directory, 'agent.log'),
  })
}

/** Publishes check requests in place of a server, until everything is stopped. */
async function scheduleChecks(settings: Settings, store: Store, started: Started, signal: AbortSignal): Promise<void> {
  const transport = await createTransport(settings, { debug() {}, info() {}, warn() {}, error() {} })
  await started.add({ stop: () => transport.close() })
  await transport.connect()
  const hasResult = async (check: string) => {
    const rows = await readRows(store).catch(() => []) // asked again at the next request
    return rows.some(row => row.check === check && row.client === settings.client.name)
  }
  void publishCheckRequests(settings, transport, hasResult, signal)
}

/** The newest results in Redis, of all clients. */
async function readRows(store: Store): Promise<StatusRow[]> {
  const rows: StatusRow[] = []
  const limit = AbortSignal.timeout(readTimeoutMs)
  for await (const { client, check } of store.results()) {
    if (limit.aborted) throw new Error(`Redis did not answer within ${readTimeoutMs / 1000} s`)
    rows.push({
      client,
      check: String(check['name'] ?? ''),
      status: Number(check['status'] ?? 3),
      output: String(check['output'] ?? ''),
      executedSeconds: Number(check['executed'] ?? Number.NaN),
    })
  }
  return rows
}

/** Configured checks without a result yet. */
function missingChecks({ settings }: Setup, rows: readonly StatusRow[]): string[] {
  const done = new Set(rows.filter(row => row.client === settings.client.name).map(row => row.check))
  return Object.keys(settings.checks).filter(name => !done.has(name))
}

/** Fails when the agent has ended: nothing more would come. */
function assertAgentRuns({ agent }: Setup): void {
  if (agent.status === undefined) return
  const how = agent.status.signal ?? `status ${agent.status.code}`
  throw new StartError(`the agent ended (${how}); the last lines of its log:\n${agent.lastLines(logLines)}`)
}

/** Waits for a first result of each check, and prints the table. */
async function showOnce(setup: Setup, signal: AbortSignal): Promise<number> {
  const deadline = performance.now() + firstResultsTimeoutMs
  tell('waiting for the first result of each check')
  for (;;) {
    assertAgentRuns(setup)
    const rows = await readRows(setup.store)
    const missing = missingChecks(setup, rows)
    if (missing.length === 0) {
      print(renderTable(rows, { ...tableStyle(), maximumRows: Number.POSITIVE_INFINITY }))
      return 0
    }
    if (performance.now() > deadline) {
      const log = setup.agent.lastLines(logLines)
      throw new StartError(
        `no result of ${missing.join(', ')} after ${firstResultsTimeoutMs / 1000} s; the last lines of the agent's log:\n${log}`,
      )
    }
    await delay(200, undefined, { signal })
  }
}

/** Shows the table until it is told to stop: redrawn in place on a terminal, elsewhere printed when a status changes. */
async function showLive(setup: Setup, signal: AbortSignal): Promise<number> {
  const terminal = process.stdout.isTTY
  let drawnLines = 0
  let printed = ''
  while (!signal.aborted) {
    assertAgentRuns(setup)
    const rows = await readRows(setup.store)
    if (terminal) {
      const lines = [...liveTable(setup, rows), footer(setup)]
      process.stdout.write(`${drawnLines > 0 ? `\x1b[${drawnLines}A\r\x1b[J` : ''}${lines.join('\n')}\n`)
      drawnLines = lines.length
    } else {
      const statuses = JSON.stringify(rows.map(row => [row.client, row.check, row.status]).sort())
      if (statuses !== printed) print([...liveTable(setup, rows), ''])
      printed = statuses
    }
    await delay(refreshMs, undefined, { signal }).catch(() => {})
  }
  return 0
}

function liveTable(setup: Setup, rows: readonly StatusRow[]): string[] {
  const missing = missingChecks(setup, rows)
  const waiting = missing.length === 0 ? [] : [`waiting for ${missing.join(', ')}`.slice(0, tableStyle().width)]
  return [...renderTable(rows, tableStyle()), ...waiting]
}

function footer({ description }: Setup): string {
  const text = `Ctrl-C stops everything. Every ${intervalSeconds} s: ${description}`
  return text.slice(0, tableStyle().width)
}

function tableStyle() {
  const { columns = 120, rows: height = 40, isTTY } = process.stdout
  return {
    width: isTTY ? columns - 1 : 160,
    maximumRows: isTTY ? Math.max(1, height - 6) : 1000,
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

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
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

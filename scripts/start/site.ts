import { existsSync, mkdirSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { delimiter, join } from 'node:path'
import { loadSettings } from '../../sensu/settings.js'
import type { Settings } from '../../sensu/types.js'
import { Store } from '../../store/store.js'
import { type Guest, hasHardwareKvm, startGuest } from '../services/guest.js'
import { buildGuestImage } from '../services/guest-image.js'
import { startLibvirtd } from '../services/libvirtd.js'
import {
  cacheDirectory,
  type ManagedProcess,
  makeTemporaryDirectory,
  projectDirectory,
  run,
  startProcess,
} from '../services/process.js'
import { startRabbitmq } from '../services/rabbitmq.js'
import { startRedis } from '../services/redis.js'
import { Watchdog } from '../services/watchdog.js'
import { messageOf, type Started, type Stoppable } from './started.js'

/** A failure that is told by its message alone. */
export class StartError extends Error {}

/** Checks run this often here, so that there is something to see. */
export const intervalSeconds = 10
/** How many lines of a program's log are shown when something went wrong. */
const logLines = 15
/** How many ports from the recipe's on are tried for the API. */
const apiPortsTried = 100

/** What runs when everything runs. */
export interface Site {
  settings: Settings
  store: Store
  /** Server and agent. */
  programs: readonly ManagedProcess[]
  /** Where the API answers, with the status page at `/`. */
  apiUrl: string
  /** The file to which the handler writes each event, one line of JSON each. */
  eventsFile: string
  /** The demonstration guest; undefined where the host's own guests are watched. */
  guest: Guest | undefined
  /** What is watched, for people. */
  description: string
}

export interface SiteOptions {
  started: Started
  signal: AbortSignal
  tell(message: string): void
}

/** Starts services, server and agent with the recipe in conf.d; what runs is in `started` at any moment. */
export async function startSite(options: SiteOptions): Promise<Site> {
  const { started, signal, tell } = options
  const watchdog = await Watchdog.start()
  const directory = makeTemporaryDirectory()
  watchdog.removeAtEnd(directory)
  await started.add({ stop: () => watchdog.end() })

  const hostGuests = await findHostGuests(tell)
  tell(
    hostGuests > 0
      ? `watching this host's guests (${hostGuests}), read-only; starting a private RabbitMQ and Redis`
      : 'this host has no guests of its own; starting a private RabbitMQ, Redis and libvirtd with a small guest',
  )
  const [redis, rabbitmq, { libvirtUri, guest }] = await Promise.all([
    timed(options, 'Redis', () => startRedis()),
    timed(options, 'RabbitMQ', () => startRabbitmq()),
    hostGuests > 0 ? { libvirtUri: 'qemu:///system', guest: undefined } : startPrivateGuest(options),
  ])
  signal.throwIfAborted()

  const recipe = join(projectDirectory(), 'conf.d')
  const asShipped = loadConfiguration([recipe])
  const apiPort = await freePortFrom(Number(asShipped.api?.port ?? 4567))
  const eventsFile = join(directory, 'events.json')
  const { host, port, user, password, vhosts } = rabbitmq
  const overrides = join(directory, 'conf.d')
  mkdirSync(overrides)
  const changes = {
    rabbitmq: { host, port, user, password, vhost: vhosts[0] },
    redis: { host: redis.host, port: redis.port },
    api: { port: apiPort },
    client: { socket: { enabled: false }, http_socket: { enabled: false } },
    checks: Object.fromEntries(Object.keys(asShipped.checks).map(name => [name, { interval: intervalSeconds }])),
    'handler-log': { file: eventsFile },
    sensu_kvm: { libvirt: { uri: libvirtUri } },
  }
  writeFileSync(join(overrides, 'private-services.json'), JSON.stringify(changes, null, 2), { mode: 0o600 })
  const settings = loadConfiguration([recipe, overrides])

  const programs: ManagedProcess[] = []
  for (const name of ['sensu-kvm-server', 'sensu-kvm-agent']) {
    const program = await startProgram(name, directory, [recipe, overrides], libvirtUri)
    watchdog.watch(program.pid)
    await started.add(program)
    programs.push(program)
    signal.throwIfAborted()
  }
  const store = await Store.connect(settings.redis)
  await started.add({ stop: () => store.close() })
  const apiUrl = `http://127.0.0.1:${apiPort}/`
  return { settings, store, programs, apiUrl, eventsFile, guest, description: `guests of ${libvirtUri}` }
}

/** Fails when the server or the agent has ended: nothing more would come. */
export function assertProgramsRun({ programs }: Site): void {
  const ended = programs.find(({ status }) => status !== undefined)
  if (ended?.status === undefined) return
  const how = ended.status.signal ?? `status ${ended.status.code}`
  throw new StartError(`${ended.name} ended (${how}); the last lines of its log:\n${ended.lastLines(logLines)}`)
}

/** The last lines of both logs, for a message. */
export function lastLogLines({ programs }: Site): string {
  return programs.map(program => `${program.name}:\n${program.lastLines(logLines)}`).join('\n')
}

/** How many guests a libvirt of this host has; 0 without one, or without permission to ask. */
async function findHostGuests(tell: SiteOptions['tell']): Promise<number> {
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

/** Starts a libvirtd with one guest; returns it, and the URI that reads it. */
async function startPrivateGuest(options: SiteOptions): Promise<{ libvirtUri: string; guest: Guest }> {
  const { tell } = options
  const cache = cacheDirectory()
  const image = await buildGuestImage({ cacheDirectory: cache, report: tell })
  const daemon = await timed(options, 'libvirtd', () => startLibvirtd({ cacheDirectory: cache }))
  const how = hasHardwareKvm() ? '' : ' without hardware KVM'
  tell(`booting a guest${how}`)
  const guest = await timed(options, 'the guest', () => startGuest(daemon, { name: 'web1', image }))
  return { libvirtUri: daemon.readOnlyUri ?? daemon.uri, guest }
}

/** Starts a service, remembers it to be stopped, and tells how long it took. */
async function timed<T extends Stoppable>(
  { started, tell }: SiteOptions,
  name: string,
  start: () => Promise<T>,
): Promise<T> {
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

/** The first TCP port of 127.0.0.1 that nobody listens on, from a wished one upwards. */
async function freePortFrom(first: number): Promise<number> {
  for (let port = first; port < first + apiPortsTried; port++) if (await isFree(port)) return port
  throw new StartError(`no port from ${first} to ${first + apiPortsTried - 1} is free for the HTTP API`)
}

function isFree(port: number): Promise<boolean> {
  return new Promise(resolve => {
    const server = createServer()
    server.once('error', () => resolve(false))
    server.listen(port, '127.0.0.1', () => server.close(() => resolve(true)))
  })
}

function startProgram(
  name: string,
  directory: string,
  configuration: readonly string[],
  libvirtUri: string,
): Promise<ManagedProcess> {
  const bin = join(projectDirectory(), 'dist/bin')
  const inherited = Object.entries(process.env).filter(
    ([variable]) => !/^(SENSU_|RABBITMQ_|REDIS_|NODE_OPTIONS$)/.test(variable),
  )
  return startProcess({
    name,
    command: process.execPath,
    args: [join(bin, name), '--config_dir', configuration.join(',')],
    cwd: directory,
    env: {
      ...Object.fromEntries(inherited),
      PATH: `${bin}${delimiter}${process.env['PATH'] ?? ''}`,
      LIBVIRT_DEFAULT_URI: libvirtUri,
      SENSU_KVM_STATE_DIR: directory,
      SENSU_LOADED_TEMPFILE_DIR: directory,
    },
    logFile: join(directory, `${name}.log`),
  })
}

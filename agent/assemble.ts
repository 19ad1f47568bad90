import { isDeepStrictEqual } from 'node:util'
import { defaultHttpSocket, defaultSocket, sensuVersion } from '../sensu/defaults.js'
import { encodeJson } from '../sensu/json.js'
import type { Logger } from '../sensu/log.js'
import { NativeStarter } from '../sensu/native-start.js'
import { redact, redactUrl } from '../sensu/redact.js'
import { readRedisSettings } from '../sensu/redis-settings.js'
import { Spawner } from '../sensu/spawn.js'
import { warnWhenUnverified } from '../sensu/tls-settings.js'
import type { ClientDefinition, Json, JsonObject, Settings, SocketSettings } from '../sensu/types.js'
import { createTransport } from '../transport/create.js'
import type { Transport } from '../transport/transport.js'
import { Agent, type LocalSocket } from './agent.js'
import { CommandRunner } from './commands.js'
import { ExchangeableSocket } from './exchangeable-socket.js'
import { Executions } from './executions.js'
import type { CheckExtensions } from './extensions.js'
import { GuestEvents } from './guest-events.js'
import { HttpSocket, type StatusPages } from './http-socket.js'
import { InProcessChecks, type Programs } from './in-process.js'
import { Keepalives } from './keepalives.js'
import { Observation } from './observation.js'
import { reloadable } from './reload.js'
import { Requests } from './requests.js'
import { Results } from './results.js'
import type { AgentSettings } from './settings.js'
import { SharedHosts } from './shared-hosts.js'
import { redisSink } from './sinks.js'
import { Slots } from './slots.js'
import { Socket } from './socket.js'
import { StandaloneChecks } from './standalone.js'
import { stateChecks } from './state-checks.js'
import { type OpenedSink, openTransportResults } from './transport-results.js'

export interface AgentInput {
  settings: Settings
  own: AgentSettings
  log: Logger
  programs: Programs
  /** Where the agent's own executable is, and those of the programs. */
  directory: string
  extensions: CheckExtensions
  /** Environment of the commands. */
  environment: Readonly<Record<string, string | undefined>>
  /** Start of the process, epoch seconds; part of the queue's name. */
  startedSeconds: number
  onFatal(): void
  /** The transport was lost, or is back. */
  onConnected?(connected: boolean): void
}

/** An agent, and how to release what it holds once it has stopped. */
export interface AssembledAgent {
  agent: Agent
  /**
   * Goes on with other settings, valid ones, without disturbing what runs. Resolves with what takes effect only after a
   * restart. Rejects when a socket cannot be opened; then everything is as before.
   */
  reload(settings: Settings, own: AgentSettings): Promise<string[]>
  release(): Promise<void>
}

/** Where results and keepalives go. */
interface Destination extends OpenedSink {
  name: string
  connected(): boolean
  publishKeepalive(keepalive: JsonObject): Promise<void>
}

/** Builds the agent from its settings; nothing is connected yet but, when results go there, Redis. Throws when a transport cannot be used. */
export async function assembleAgent(input: AgentInput): Promise<AssembledAgent> {
  const { log, environment, extensions, startedSeconds, onFatal } = input
  // what a reload replaces is asked for at each use: the settings are one object whose members are exchanged
  const settings = withSocketDefaults(input.settings)
  let { own } = input
  const current = {
    get client() {
      return settings.client
    },
    get checks() {
      return settings.checks
    },
    get safeMode() {
      return settings.client.safe_mode === true
    },
  }
  const { name: clientName } = settings.client
  const { limit } = settings.sensu.spawn
  const transport = await createTransport(settings, log)
  const observation = new Observation(transport)
  transport.on('lost', () => input.onConnected?.(false))
  transport.on('restored', () => input.onConnected?.(true))
  log.debug('connecting to transport', transportData(settings))
  const spawner = new Spawner({ limit, env: { ...environment }, loadStarter: () => NativeStarter.load(log) })
  const hosts = new SharedHosts({ onCall: observation.onCall })
  const inProcess = own.in_process
    ? new InProcessChecks({ programs: input.programs, directory: input.directory, hosts, variables: environment })
    : undefined
  const slots = new Slots(limit)
  const opened = await destination(input, settings, transport, spawner)
  const { publishKeepalive, release: releaseSink } = opened
  const sink = observation.counted(opened.sink)
  observation.observe({ slots, sink, destination: opened })
  const results = new Results(settings, log, sink)
  const commands = new CommandRunner({ slots, spawner, inProcess, onExecuted: observation.onExecuted })
  const executions = new Executions(
    withLive(current, { quoteTokens: own['tokens.quote'], extensions, log, results, commands }),
  )
  const requests = new Requests(executions, log)
  const standalone = new StandaloneChecks(withLive(current, { clientName, extensions, executions, log }))
  const guestEvents = new GuestEvents({
    checks: () =>
      own['libvirt.events'] ? stateChecks({ checks: settings.checks, executions, variables: environment }) : [],
    openHost: uri => hosts.open({ uri, readOnly: true }),
    whenFree: name => executions.whenFree({ ...settings.checks[name], name }),
    run: (name, guests) => standalone.runNow(name, guests),
    log,
  })
  const makeSocket = (section: SocketSection) => localSocket(section, settings, log, results, transport, observation)
  const sockets = socketSections.map(section => new ExchangeableSocket(makeSocket(section)))
  const agent = new Agent({
    settings,
    log,
    transport,
    executions,
    results,
    sink,
    funnel: `${clientName}-${sensuVersion}-${startedSeconds}`,
    keepalives: new Keepalives(withLive(current, { log, publish: publishKeepalive })),
    standalone,
    guestEvents,
    sockets,
    worksOffline: own['results.to'] === 'redis',
    onMessage: message => requests.receive(message),
    onFatal,
  })
  const release = async () => {
    spawner.close()
    await hosts.close()
    await releaseSink()
    observation.stop()
  }
  const reload = async (newSettings: Settings, newOwn: AgentSettings) => {
    const old = { settings: { ...settings }, own }
    const { needRestart, ...loaded } = reloadable(old, { settings: withSocketDefaults(newSettings), own: newOwn })
    replaceMembers(settings, loaded.settings)
    const changed = socketSections.filter(
      section => !isDeepStrictEqual(old.settings.client[section], settings.client[section]),
    )
    const exchange = (section: SocketSection) => sockets[socketSections.indexOf(section)]?.exchange(makeSocket(section))
    const exchanged: SocketSection[] = []
    try {
      for (const section of changed) {
        await exchange(section)
        exchanged.push(section)
      }
    } catch (error) {
      replaceMembers(settings, old.settings)
      for (const section of exchanged) await exchange(section)
      throw error
    }
    own = loaded.own
    await agent.reconfigure(old.settings.client)
    return needRestart
  }
  return { agent, reload, release }
}

/** Options some of which are asked for anew at each use. */
function withLive<Live extends object, Fixed extends object>(live: Live, fixed: Fixed): Live & Fixed {
  return Object.defineProperties({ ...fixed } as Live & Fixed, Object.getOwnPropertyDescriptors(live))
}

/** Everybody who holds the object sees the new members. */
function replaceMembers(settings: Settings, members: Settings): void {
  for (const key of Object.keys(settings)) if (!(key in members)) delete settings[key]
  Object.assign(settings, members)
}

/** To the transport for a Sensu server, or into Redis without one; never both. */
async function destination(
  { own, log, environment: variables }: AgentInput,
  settings: Settings,
  transport: Transport,
  spawner: Spawner,
): Promise<Destination> {
  if (own['results.to'] === 'transport') {
    return {
      ...(await openTransportResults({ transport, clientName: settings.client.name, own, variables, log })),
      name: settings.transport.name,
      connected: () => transport.connected,
      publishKeepalive: keepalive => transport.publish('direct', 'keepalives', encodeJson(keepalive)),
    }
  }
  // loaded only when used: an agent that publishes to a server has no need of a Redis client in memory
  const [{ Store }, { Pipeline }] = await Promise.all([import('../store/store.js'), import('../pipeline/pipeline.js')])
  const { tls, host } = readRedisSettings(settings.redis).address
  warnWhenUnverified(tls, host, 'redis tls', log)
  const store = await Store.connect(settings.redis, {
    onLost: error =>
      log.warn('redis connection lost, results are kept until it is back', { error: String(error ?? '') }),
    onRestored: () => log.info('redis connection restored'),
    onOverflow: dropped => log.error('too many results wait for redis, dropping the oldest', { dropped }),
  })
  const pipeline = new Pipeline({ store, settings, spawner, logger: log })
  return {
    sink: redisSink(pipeline, store),
    release: async () => {},
    name: 'redis',
    connected: () => store.connected,
    publishKeepalive: keepalive => pipeline.processKeepalive(keepalive),
  }
}

const socketSections = ['socket', 'http_socket'] as const
type SocketSection = (typeof socketSections)[number]

function localSocket(
  section: SocketSection,
  settings: Settings,
  log: Logger,
  results: Results,
  transport: Transport,
  status: StatusPages,
): LocalSocket {
  const configured = settings.client[section] ?? {}
  if (section === 'socket') {
    if (configured.enabled === false) return disabled('client tcp/udp socket disabled per configuration', log)
    return new Socket({ ...defaultSocket, ...defined(configured), log, results })
  }
  if (configured.enabled === false) return disabled('client http socket disabled per configuration', log)
  return new HttpSocket({
    ...defaultHttpSocket,
    ...defined(configured),
    version: sensuVersion,
    settings,
    log,
    results,
    transport,
    status,
  })
}

function disabled(message: string, log: Logger): LocalSocket {
  return { open: async () => log.info(message), close: async () => {} }
}

/** Sensu writes the sockets' defaults into the client's definition, where keepalives show them, when the section exists. */
function withSocketDefaults(settings: Settings): Settings {
  const client: ClientDefinition = { ...settings.client }
  if (client.socket) client.socket = { ...client.socket, ...missing(client.socket, defaultSocket) }
  if (client.http_socket)
    client.http_socket = { ...client.http_socket, ...missing(client.http_socket, defaultHttpSocket) }
  return { ...settings, client }
}

function missing(socket: SocketSettings, defaults: { bind: string; port: number }): { bind: string; port: number } {
  return { bind: socket.bind ?? defaults.bind, port: socket.port ?? defaults.port }
}

function defined({ bind, port }: SocketSettings): { bind?: string; port?: number } {
  return { ...(bind != null && { bind }), ...(port != null && { port }) }
}

/** For the log: without passwords, also those inside URLs. */
function transportData(settings: Settings): JsonObject {
  const { name } = settings.transport
  const withoutSecret = (entry: Json) => (typeof entry === 'string' ? redactUrl(entry) : redact(entry))
  const value = settings[name] ?? null
  return { name, settings: Array.isArray(value) ? value.map(withoutSecret) : withoutSecret(value) }
}

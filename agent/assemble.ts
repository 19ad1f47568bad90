import { defaultHttpSocket, defaultSocket, sensuVersion } from '../sensu/defaults.js'
import { encodeJson } from '../sensu/json.js'
import type { Logger } from '../sensu/log.js'
import { redact, redactUrl } from '../sensu/redact.js'
import { Spawner } from '../sensu/spawn.js'
import type { ClientDefinition, Json, JsonObject, Settings, SocketSettings } from '../sensu/types.js'
import { createTransport } from '../transport/create.js'
import type { Transport } from '../transport/transport.js'
import { Agent, type LocalSocket } from './agent.js'
import { CommandRunner } from './commands.js'
import { Executions } from './executions.js'
import { GuestEvents } from './guest-events.js'
import { HttpSocket } from './http-socket.js'
import { InProcessChecks, type Programs } from './in-process.js'
import { Keepalives } from './keepalives.js'
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
  /** Environment of the commands. */
  environment: Readonly<Record<string, string | undefined>>
  /** Start of the process, epoch seconds; part of the queue's name. */
  startedSeconds: number
  onFatal(): void
}

/** An agent, and how to release what it holds once it has stopped. */
export interface AssembledAgent {
  agent: Agent
  release(): Promise<void>
}

/** Where results and keepalives go. */
interface Destination extends OpenedSink {
  publishKeepalive(keepalive: JsonObject): Promise<void>
}

/** Builds the agent from its settings; nothing is connected yet but, when results go there, Redis. Throws when a transport cannot be used. */
export async function assembleAgent(input: AgentInput): Promise<AssembledAgent> {
  const { own, log, environment, startedSeconds, onFatal } = input
  const settings = withSocketDefaults(input.settings)
  const { client, checks, sensu } = settings
  const { limit } = sensu.spawn
  const transport = await createTransport(settings, log)
  log.debug('connecting to transport', transportData(settings))
  const spawner = new Spawner({ limit, env: { ...environment } })
  const hosts = new SharedHosts()
  const inProcess = own.in_process
    ? new InProcessChecks({ programs: input.programs, directory: input.directory, hosts, variables: environment })
    : undefined
  const { sink, publishKeepalive, release: releaseSink } = await destination(input, settings, transport, spawner)
  const results = new Results(client, log, sink)
  const commands = new CommandRunner({ slots: new Slots(limit), spawner, inProcess })
  const executions = new Executions({ client, checks, safeMode: client.safe_mode === true, log, results, commands })
  const requests = new Requests(executions, log)
  const standalone = new StandaloneChecks({ clientName: client.name, checks, executions, log })
  const guestEvents = new GuestEvents({
    checks: () => stateChecks({ checks, executions, variables: environment }),
    openHost: uri => hosts.open({ uri, readOnly: true }),
    whenFree: name => executions.whenFree({ ...checks[name], name }),
    run: (name, guests) => standalone.runNow(name, guests),
    log,
  })
  const agent = new Agent({
    settings,
    log,
    transport,
    executions,
    results,
    sink,
    funnel: `${client.name}-${sensuVersion}-${startedSeconds}`,
    keepalives: new Keepalives({ client, log, publish: publishKeepalive }),
    standalone,
    guestEvents: own['libvirt.events'] ? guestEvents : undefined,
    sockets: localSockets(settings, log, results, transport),
    worksOffline: own['results.to'] === 'redis',
    onMessage: message => requests.receive(message),
    onFatal,
  })
  const release = async () => {
    spawner.close()
    await hosts.close()
    await releaseSink()
  }
  return { agent, release }
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
      publishKeepalive: keepalive => transport.publish('direct', 'keepalives', encodeJson(keepalive)),
    }
  }
  // loaded only when used: an agent that publishes to a server has no need of a Redis client in memory
  const [{ Store }, { Pipeline }] = await Promise.all([import('../store/store.js'), import('../pipeline/pipeline.js')])
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
    publishKeepalive: keepalive => pipeline.processKeepalive(keepalive),
  }
}

function localSockets(settings: Settings, log: Logger, results: Results, transport: Transport): LocalSocket[] {
  const { socket = {}, http_socket: httpSocket = {} } = settings.client
  const { bind, port } = { ...defaultSocket, ...defined(socket) }
  const http = { ...defaultHttpSocket, ...defined(httpSocket) }
  const sockets: LocalSocket[] = []
  if (socket.enabled === false) sockets.push(disabled('client tcp/udp socket disabled per configuration', log))
  else sockets.push(new Socket({ bind, port, log, results }))
  if (httpSocket.enabled === false) sockets.push(disabled('client http socket disabled per configuration', log))
  else
    sockets.push(
      new HttpSocket({ bind: http.bind, port: http.port, version: sensuVersion, settings, log, results, transport }),
    )
  return sockets
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

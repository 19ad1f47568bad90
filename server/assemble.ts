import { randomUUID } from 'node:crypto'
import { Pipeline } from '../pipeline/pipeline.js'
import type { Logger } from '../sensu/log.js'
import { NativeStarter } from '../sensu/native-start.js'
import type { AssembledService, ServiceContext } from '../sensu/service.js'
import { Spawner } from '../sensu/spawn.js'
import type { Settings } from '../sensu/types.js'
import { Store } from '../store/store.js'
import { createTransport } from '../transport/create.js'
import { Api, type ApiLimits } from './api/api.js'
import type { StatusPage } from './api/status-page.js'
import { CheckRequests } from './check-requests.js'
import { CheckScheduler } from './check-scheduler.js'
import { monitorClients } from './client-monitor.js'
import { API_ONLY, type Configuration, NO_API } from './configuration.js'
import { eventPublisher } from './event-publisher.js'
import { LeaderTasks } from './leader-tasks.js'
import { Messages } from './messages.js'
import { PeriodicTask } from './periodic-task.js'
import { reloadable } from './reload.js'
import { ResultPublisher } from './result-publisher.js'
import { Server, type ServerParts, type ServerWork } from './server.js'
import { ServerRegistry } from './server-registry.js'
import type { ServerSettings } from './settings.js'
import { settingsDigest } from './settings-digest.js'
import { monitorTtl } from './ttl-monitor.js'

/** Builds the server from its configuration; Redis is tried once. Rejects when a connection's settings cannot be used. */
export async function assembleServer(
  context: ServiceContext<Configuration>,
  statusPage: StatusPage,
): Promise<AssembledService<Configuration>> {
  const { configuration, options, log, environment, stop, onConnected } = context
  const { switches = [] } = options
  // a reload replaces the members, so that everybody who holds the object sees the new ones
  const settings: Settings = { ...configuration.settings }
  const { own } = configuration
  const digest = cachedDigest(settings)
  if (settings.sensu.global_error_handler === true) handleAllErrors(log)
  const loadStarter = () => NativeStarter.load(log)
  const spawner = new Spawner({ limit: settings.sensu.spawn.limit, env: { ...environment }, loadStarter })
  const transport = await createTransport(settings, log, { prefetch: own['server.prefetch'] })
  let server: Server | undefined
  const notices = {
    onLost: (error: Error | undefined) => server?.redisLost(error),
    onRestored: () => server?.redisRestored(),
  }
  // nothing is given up here: how much waits is limited by what the broker hands over unacknowledged
  const unlimited = { maximumWrites: Number.POSITIVE_INFINITY, maximumLength: Number.POSITIVE_INFINITY }
  const store = await Store.connect(settings.redis, notices, unlimited)
  const pipeline = new Pipeline({
    store,
    settings,
    spawner,
    logger: log,
    maximumHandlers: own['server.handlers.max_waiting'],
    publish: eventPublisher(transport),
  })
  const requests = new CheckRequests({ store, transport, log })
  const results = new ResultPublisher(transport, log)
  const shared = { settings, store, transport, pipeline, requests, results, log, settingsDigest: digest.current }
  const parts: ServerParts = {
    ...shared,
    work: switches.includes(API_ONLY) ? undefined : serverWork(shared),
    api: switches.includes(NO_API) ? undefined : new Api({ ...shared, limits: apiLimits(own), statusPage }),
    onFatal: stop,
    onConnected,
  }
  server = new Server(parts)
  if (!store.connected) server.redisLost(undefined)
  let loaded = configuration
  const running = server
  return {
    start: () => running.start(),
    stop: async () => {
      await running.stop()
      spawner.close()
    },
    reload: async newer => {
      const { needRestart, settings: members } = reloadable(loaded, newer)
      loaded = newer
      for (const key of Object.keys(settings)) if (!(key in members)) delete settings[key]
      Object.assign(settings, members)
      digest.renew()
      running.reconfigure()
      return needRestart
    },
  }
}

type Shared = Omit<ServerParts, 'work' | 'api' | 'onFatal' | 'onConnected'> & {
  requests: CheckRequests
  results: ResultPublisher
  settingsDigest(): string
}

/** Everything a server does and an API alone does not. */
function serverWork(shared: Shared): ServerWork {
  const { settings, store, transport, pipeline, requests, results, log } = shared
  const id = randomUUID()
  const tasks = new LeaderTasks({
    locks: store.taskLocks(id),
    tasks: [
      new CheckScheduler({ settings, requests, log }),
      new PeriodicTask('client_monitor', log, () => monitorClients({ settings, store, results, log })),
      new PeriodicTask('check_result_monitor', log, () => monitorTtl({ store, results, log })),
    ],
    log,
  })
  const registry = new ServerRegistry({
    id,
    store,
    log,
    tasks: () => tasks.owned,
    settingsDigest: shared.settingsDigest,
  })
  return { messages: new Messages({ settings, transport, pipeline, log }), tasks, registry }
}

function apiLimits(own: ServerSettings): ApiLimits {
  return {
    maximumConnections: own['server.api.max_connections'],
    maximumRequests: own['server.api.max_requests'],
    maximumBodyBytes: own['server.api.max_body_bytes'],
  }
}

/** The digest takes a while for large configurations, and is asked for at each request. */
function cachedDigest(settings: Settings): { current(): string; renew(): void } {
  let digest = settingsDigest(settings)
  return {
    current: () => digest,
    renew: () => {
      digest = settingsDigest(settings)
    },
  }
}

/** `sensu.global_error_handler`: what nobody caught does not end the process. */
function handleAllErrors(log: Logger): void {
  log.warn('global catch-all error handling enabled')
  process.on('uncaughtException', error => {
    log.fatal('unexpected error - please address this immediately', {
      error: error.message,
      error_class: error.constructor.name,
      backtrace: (error.stack ?? '').split('\n').slice(1).join('\n'),
    })
  })
}

import { once } from 'node:events'
import { connect } from 'node:net'
import { join } from 'node:path'
import { findFreePort, type ManagedProcess, makeTemporaryDirectory, startProcess, waitUntil } from './process.js'
import { Watchdog } from './watchdog.js'

/** How a private Redis is started. */
export interface RedisOptions {
  /** Where it keeps its files. Without it a temporary directory is made, and removed at the end. */
  directory?: string
  /** Clients must authenticate with this password. */
  password?: string
  /** Keeps the data over a restart, even after SIGKILL (append-only file, synced at every write). */
  durable?: boolean
  /** More settings as redis-server takes them: `['--maxmemory', '10mb']`. */
  settings?: readonly string[]
}

/** A private redis-server on 127.0.0.1. */
export interface Redis {
  readonly host: string
  readonly port: number
  readonly password: string | undefined
  /** `redis://…`, with the password if there is one. */
  readonly url: string
  readonly directory: string
  /** The running server's process id; undefined while it does not run. */
  pid(): number | undefined
  /** Ends it with SIGKILL; `restart` brings it back. */
  kill(): Promise<void>
  /** Stops it if it runs and starts it on the same port; the data survive only when `durable`. */
  restart(): Promise<void>
  /** Stops it for good, and removes the directory if it was made here. */
  stop(): Promise<void>
}

const host = '127.0.0.1'
const portAttempts = 5
const answerTimeoutMs = 20_000

/** Starts a private redis-server on a free port of 127.0.0.1; returns when it answers. */
export async function startRedis(options: RedisOptions = {}): Promise<Redis> {
  const watchdog = await Watchdog.start()
  const directory = options.directory ?? makeTemporaryDirectory()
  if (options.directory === undefined) watchdog.removeAtEnd(directory)

  async function startOn(port: number): Promise<ManagedProcess> {
    const server = await startProcess({
      name: 'redis-server',
      command: 'redis-server',
      args: redisArguments(port, directory, options),
      cwd: directory,
      logFile: join(directory, 'redis.log'),
    })
    watchdog.watch(server.pid)
    await waitUntil('Redis answers', () => answersPing(port), { timeoutMs: answerTimeoutMs, process: server })
    return server
  }

  async function stop(): Promise<void> {
    await server?.stop()
    server = undefined
    await watchdog.end()
  }

  let server: ManagedProcess | undefined
  let port = 0
  for (let attempt = 1; server === undefined; attempt++) {
    port = await findFreePort()
    try {
      server = await startOn(port)
    } catch (error) {
      const taken = error instanceof Error && error.message.includes('Address already in use')
      if (taken && attempt < portAttempts) continue
      await stop()
      throw error
    }
  }

  const { password } = options
  return {
    host,
    port,
    password,
    url: `redis://${password === undefined ? '' : `:${encodeURIComponent(password)}@`}${host}:${port}`,
    directory,
    pid: () => (server?.status === undefined ? server?.pid : undefined),
    kill: async () => server?.kill(),
    restart: async () => {
      await server?.stop()
      server = await startOn(port)
    },
    stop,
  }
}

function redisArguments(port: number, directory: string, options: RedisOptions): string[] {
  return [
    ...['--port', String(port), '--bind', host, '--dir', directory, '--save', ''],
    ...['--appendonly', options.durable ? 'yes' : 'no', '--appendfsync', 'always'],
    ...(options.password === undefined ? [] : ['--requirepass', options.password]),
    ...(options.settings ?? []),
  ]
}

/** Whether a Redis answers there; one that wants a password first counts too. */
async function answersPing(port: number): Promise<true | undefined> {
  const socket = connect(port, host)
  try {
    socket.write('PING\r\n')
    const [answer] = await once(socket, 'data', { signal: AbortSignal.timeout(1000) })
    return /^(\+PONG|-NOAUTH)/.test(String(answer)) ? true : undefined
  } finally {
    socket.destroy()
  }
}

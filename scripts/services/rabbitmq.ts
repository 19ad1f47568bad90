import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { cpSync, mkdirSync, readdirSync, realpathSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { connect } from 'node:net'
import { join } from 'node:path'
import { type Certificates, createCertificates } from './certificates.js'
import {
  type CommandOutput,
  findFreePort,
  type ManagedProcess,
  makeTemporaryDirectory,
  run,
  startProcess,
  waitUntil,
} from './process.js'
import { Watchdog } from './watchdog.js'

/** How a private RabbitMQ is started. */
export interface RabbitmqOptions {
  /** Where it keeps its files. Without it a temporary directory is made, and removed at the end. */
  directory?: string
  /** Virtual hosts that exist from the start; the user has all rights in each. Default: `/sensu`. */
  vhosts?: readonly string[]
  /** Listens with TLS too, with certificates made for it. */
  tls?: boolean
  /** More lines for rabbitmq.conf, e.g. `heartbeat = 5`. */
  settings?: readonly string[]
}

/** A private RabbitMQ broker on 127.0.0.1. */
export interface Rabbitmq {
  readonly host: string
  readonly port: number
  readonly user: string
  readonly password: string
  readonly vhosts: readonly string[]
  readonly tls: { readonly port: number; readonly certificates: Certificates } | undefined
  readonly directory: string
  /** `amqp://…` for one of its virtual hosts; the first one by default. */
  url(vhost?: string): string
  /** The broker's process id; undefined while it does not run. */
  pid(): number | undefined
  /** Process id of its own epmd. */
  portMapperPid(): number | undefined
  /** Ends the broker with SIGKILL; `restart` brings it back. */
  kill(): Promise<void>
  /** Stops the broker if it runs and starts it with the same ports and data. */
  restart(): Promise<void>
  /** Runs rabbitmqctl on it (0.5 to 2 s a call). */
  control(...args: string[]): Promise<CommandOutput>
  /** Stops it for good, and removes the directory if it was made here. */
  stop(): Promise<void>
}

interface Ports {
  amqp: number
  amqps: number | undefined
  distribution: number
  portMapper: number
}

/** Debian's scripts themselves; those on the PATH insist on the user rabbitmq. */
const installedServer = '/usr/lib/rabbitmq/bin/rabbitmq-server'
const host = '127.0.0.1'
const portAttempts = 3
const answerTimeoutMs = 90_000
const controlTimeoutMs = 60_000

/**
 * Starts a private broker: own node name, Erlang port mapper (epmd), cookie and directories, everything on 127.0.0.1;
 * returns when it speaks AMQP. Users and virtual hosts come from a definitions file, so no slow rabbitmqctl is needed.
 */
export async function startRabbitmq(options: RabbitmqOptions = {}): Promise<Rabbitmq> {
  const watchdog = await Watchdog.start()
  const directory = options.directory ?? makeTemporaryDirectory()
  if (options.directory === undefined) watchdog.removeAtEnd(directory)
  try {
    mkdirSync(directory, { recursive: true })
    const programs = linkInstallation(join(directory, 'home'))
    const certificates = options.tls ? await createCertificates(join(directory, 'tls')) : undefined
    for (let attempt = 1; ; attempt++) {
      const ports = await choosePorts(options.tls === true)
      const broker = new Broker({ directory, programs, ports, certificates, watchdog }, options)
      try {
        await broker.start()
        return broker
      } catch (error) {
        await broker.endProcesses()
        const taken = error instanceof Error && /eaddrinuse|address already in use/i.test(error.message)
        if (!taken || attempt >= portAttempts) throw error
      }
    }
  } catch (error) {
    await watchdog.end()
    throw error
  }
}

interface Installation {
  directory: string
  /** Folder of the scripts that are run. */
  programs: string
  ports: Ports
  certificates: Certificates | undefined
  watchdog: Watchdog
}

class Broker implements Rabbitmq {
  readonly host = host
  readonly port: number
  readonly user = 'sensu'
  readonly password = randomBytes(12).toString('hex')
  readonly vhosts: readonly string[]
  readonly tls: Rabbitmq['tls']
  readonly directory: string
  readonly #installation: Installation
  readonly #nodeName = `sk-${randomBytes(4).toString('hex')}@localhost`
  readonly #environment: NodeJS.ProcessEnv
  #portMapper: ManagedProcess | undefined
  #server: ManagedProcess | undefined

  constructor(installation: Installation, options: RabbitmqOptions) {
    const { directory, ports, certificates } = installation
    this.#installation = installation
    this.directory = directory
    this.port = ports.amqp
    this.tls = ports.amqps === undefined || certificates === undefined ? undefined : { port: ports.amqps, certificates }
    this.vhosts = options.vhosts ?? ['/sensu']
    this.#environment = brokerEnvironment(directory, this.#nodeName, ports)
    writeDefinitions(directory, this.user, this.password, this.vhosts)
    writeConfiguration(directory, ports, certificates, options.settings ?? [])
  }

  url(vhost: string = this.vhosts[0] ?? '/'): string {
    return `amqp://${this.user}:${this.password}@${this.host}:${this.port}/${encodeURIComponent(vhost)}`
  }

  pid(): number | undefined {
    return this.#server?.status === undefined ? this.#server?.pid : undefined
  }

  portMapperPid(): number | undefined {
    return this.#portMapper?.status === undefined ? this.#portMapper?.pid : undefined
  }

  async start(): Promise<void> {
    await this.#startPortMapper()
    const { directory, programs, watchdog } = this.#installation
    const server = await startProcess({
      name: 'rabbitmq-server',
      command: join(programs, 'rabbitmq-server'),
      args: [],
      env: this.#environment,
      cwd: directory,
      logFile: join(directory, 'rabbitmq.log'),
    })
    this.#server = server
    watchdog.watch(server.pid)
    const limits = { timeoutMs: answerTimeoutMs, intervalMs: 100, process: server }
    await waitUntil('RabbitMQ answers', () => speaksAmqp(this.port), limits)
  }

  async #startPortMapper(): Promise<void> {
    if (this.#portMapper !== undefined && this.#portMapper.status === undefined) return
    const { directory, ports, watchdog } = this.#installation
    const portMapper = await startProcess({
      name: 'epmd',
      command: 'epmd',
      args: ['-port', String(ports.portMapper), '-address', host],
      env: this.#environment,
      logFile: join(directory, 'epmd.log'),
    })
    this.#portMapper = portMapper
    watchdog.watch(portMapper.pid)
    await waitUntil('epmd answers', () => accepts(ports.portMapper), { timeoutMs: 10_000, process: portMapper })
  }

  async kill(): Promise<void> {
    await this.#server?.kill()
  }

  async restart(): Promise<void> {
    await this.#server?.stop(30_000)
    await this.start()
  }

  control(...args: string[]): Promise<CommandOutput> {
    return run(join(this.#installation.programs, 'rabbitmqctl'), ['--node', this.#nodeName, ...args], {
      env: this.#environment,
      timeoutMs: controlTimeoutMs,
    })
  }

  /** Kills both processes: their data are ours alone and end with them, a tidy end would only take seconds. */
  async endProcesses(): Promise<void> {
    await this.#server?.kill()
    await this.#portMapper?.kill()
  }

  async stop(): Promise<void> {
    await this.endProcesses()
    await this.#installation.watchdog.end()
  }
}

/**
 * Lays out RabbitMQ's installation once more in `home`, with links, but without the optional plugins: with all 60 on
 * Erlang's search path every module takes longer to be found, and the start 7 s instead of 4. Returns the scripts' folder.
 */
function linkInstallation(home: string): string {
  const installed = join(realpathSync(installedServer), '../..')
  const programs = join(home, 'sbin')
  rmSync(home, { recursive: true, force: true })
  mkdirSync(join(home, 'plugins'), { recursive: true })
  cpSync(join(installed, 'sbin'), programs, { recursive: true }) // the scripts find the rest from where they are
  symlinkSync(join(installed, 'escript'), join(home, 'escript'))
  for (const name of readdirSync(join(installed, 'plugins'))) {
    const optional = name.startsWith('rabbitmq_') && !name.startsWith('rabbitmq_prelaunch')
    if (!optional) symlinkSync(join(installed, 'plugins', name), join(home, 'plugins', name))
  }
  return programs
}

async function choosePorts(tls: boolean): Promise<Ports> {
  return {
    amqp: await findFreePort(),
    amqps: tls ? await findFreePort() : undefined,
    distribution: await findFreePort(),
    portMapper: await findFreePort(),
  }
}

/** Every path and port that RabbitMQ's scripts would otherwise take from the system's installation. */
function brokerEnvironment(directory: string, nodeName: string, ports: Ports): NodeJS.ProcessEnv {
  return {
    PATH: `${process.env['PATH'] ?? ''}:/usr/bin:/bin:/usr/sbin:/sbin`,
    LANG: 'C.UTF-8',
    HOME: directory, // the Erlang cookie is made there
    RUNNING_UNDER_SYSTEMD: 'true', // the script becomes the Erlang VM instead of waiting for it
    RABBITMQ_NODENAME: nodeName,
    RABBITMQ_CONF_ENV_FILE: '/dev/null',
    RABBITMQ_CONFIG_FILE: join(directory, 'rabbitmq.conf'),
    RABBITMQ_ADVANCED_CONFIG_FILE: join(directory, 'advanced.config'),
    RABBITMQ_GENERATED_CONFIG_DIR: join(directory, 'generated'),
    RABBITMQ_MNESIA_BASE: join(directory, 'data'),
    RABBITMQ_LOG_BASE: join(directory, 'log'),
    RABBITMQ_LOGS: '-',
    RABBITMQ_ENABLED_PLUGINS_FILE: join(directory, 'enabled_plugins'),
    RABBITMQ_PID_FILE: join(directory, 'rabbitmq.pid'),
    RABBITMQ_DIST_PORT: String(ports.distribution),
    RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS: '-kernel inet_dist_use_interface {127,0,0,1}',
    ERL_EPMD_PORT: String(ports.portMapper),
    ERL_EPMD_ADDRESS: host,
    ERL_INETRC: join(directory, 'inetrc'),
    ERL_CRASH_DUMP: '/dev/null',
  }
}

function writeConfiguration(
  directory: string,
  ports: Ports,
  certificates: Certificates | undefined,
  settings: readonly string[],
): void {
  const lines = [
    `listeners.tcp.local = ${host}:${ports.amqp}`,
    `load_definitions = ${join(directory, 'definitions.json')}`,
    'log.console = true',
    'log.console.level = warning',
    'disk_free_limit.absolute = 10MB',
    'loopback_users = none',
    ...settings,
  ]
  if (certificates !== undefined && ports.amqps !== undefined)
    lines.push(
      `listeners.ssl.local = ${host}:${ports.amqps}`,
      `ssl_options.cacertfile = ${certificates.authority}`,
      `ssl_options.certfile = ${certificates.server.certificate}`,
      `ssl_options.keyfile = ${certificates.server.key}`,
      'ssl_options.verify = verify_peer',
      'ssl_options.fail_if_no_peer_cert = true',
    )
  writeFileSync(join(directory, 'rabbitmq.conf'), `${lines.join('\n')}\n`)
  writeFileSync(join(directory, 'enabled_plugins'), '[].\n')
  // The node's name is found whatever the host's name resolution says.
  writeFileSync(join(directory, 'inetrc'), `{host, {127,0,0,1}, ["localhost"]}.\n{lookup, [file, native]}.\n`)
}

/** Definitions in RabbitMQ's export format, with the password as its salted SHA-256 hash. */
function writeDefinitions(directory: string, user: string, password: string, vhosts: readonly string[]): void {
  const salt = randomBytes(4)
  const hash = createHash('sha256').update(salt).update(password).digest()
  const definitions = {
    users: [
      {
        name: user,
        password_hash: Buffer.concat([salt, hash]).toString('base64'),
        hashing_algorithm: 'rabbit_password_hashing_sha256',
        tags: ['administrator'],
        limits: {},
      },
    ],
    vhosts: vhosts.map(name => ({ name })),
    permissions: vhosts.map(vhost => ({ user, vhost, configure: '.*', write: '.*', read: '.*' })),
  }
  writeFileSync(join(directory, 'definitions.json'), JSON.stringify(definitions), { mode: 0o600 })
}

/** Whether something accepts connections on a port of 127.0.0.1. */
async function accepts(port: number): Promise<true> {
  const socket = connect(port, host)
  try {
    await once(socket, 'connect', { signal: AbortSignal.timeout(1000) })
    return true
  } finally {
    socket.destroy()
  }
}

/** Whether a broker offers to begin a connection: its first frame after the protocol header is of type 1 (method). */
async function speaksAmqp(port: number): Promise<true | undefined> {
  const socket = connect(port, host)
  try {
    socket.write(Buffer.from('AMQP\0\0\x09\x01', 'latin1'))
    const [frame] = await once(socket, 'data', { signal: AbortSignal.timeout(2000) })
    return Buffer.isBuffer(frame) && frame[0] === 1 ? true : undefined
  } finally {
    socket.destroy()
  }
}

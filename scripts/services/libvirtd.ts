import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { dirname, join } from 'node:path'
import { type Certificates, createCertificates } from './certificates.js'
import {
  type CommandOutput,
  findFreePort,
  type ManagedProcess,
  makeTemporaryDirectory,
  type RunOptions,
  run,
  startProcess,
  waitUntil,
} from './process.js'
import { isAlive, Watchdog } from './watchdog.js'

/** How a private libvirtd is started. */
export interface LibvirtdOptions {
  /** Where it keeps its files; a short path (see `makeTemporaryDirectory`). Without it one is made, and removed at the end. */
  directory?: string
  /**
   * What libvirt finds out about QEMU (4 s of probing) is kept below this directory for the next start. The daemon works
   * on its own copy.
   */
  cacheDirectory?: string
  /** The unprivileged driver (qemu:///session) in a user namespace. Default: only when not root. */
  session?: boolean
  /** Listens for TLS connections too, with certificates made for it. */
  tls?: boolean
  /** More lines for libvirtd.conf and qemu.conf. */
  daemonSettings?: readonly string[]
  qemuSettings?: readonly string[]
}

/** Where a private libvirtd is: enough to use it from another process. Plain data. */
export interface LibvirtdAddress {
  readonly directory: string
  readonly session: boolean
  /** The process that holds its mount namespace. */
  readonly keeperPid: number
}

/** A private libvirtd as its users see it, perhaps in another process than the one that started it. */
export interface LibvirtdAccess extends LibvirtdAddress {
  /** `qemu+unix:///system?socket=…` (or `session`), read-write. */
  readonly uri: string
  /** The same over the read-only socket; undefined for a session daemon, which has none. */
  readonly readOnlyUri: string | undefined
  readonly socket: string
  readonly readOnlySocket: string | undefined
  /** Everything that runs in its mount namespace, so also every QEMU it started, but not its keeper. */
  processes(): number[]
  /** Runs virsh on its read-write socket. */
  virsh(...args: string[]): Promise<CommandOutput>
  /** Runs a program in its mount namespace, e.g. to mount something only its guests see. */
  runInside(command: string, args: readonly string[], options?: RunOptions): Promise<CommandOutput>
}

/** A private libvirtd with the QEMU driver (and the test driver); its guests are only its own. */
export interface Libvirtd extends LibvirtdAccess {
  readonly tls: { readonly port: number; readonly certificates: Certificates } | undefined
  /** The daemon's process id; undefined while it does not run. */
  pid(): number | undefined
  /** SIGSTOP: it accepts connections and never answers. */
  pause(): void
  /** SIGCONT. */
  resume(): void
  /** Ends the daemon alone with SIGKILL; its guests run on, `restart` finds them again. */
  kill(): Promise<void>
  /** Stops the daemon if it runs and starts it again; its guests run on. */
  restart(): Promise<void>
  /** Ends its guests and it, and removes the directory if it was made here. */
  stop(): Promise<void>
}

const answerTimeoutMs = 60_000
const virshTimeoutMs = 30_000
const farewellTimeoutMs = 5_000

/**
 * The root daemon has its directories compiled in, so it gets a mount namespace in which they are ours. /run is
 * a fresh one altogether: no D-Bus, so no systemd-machined or polkit of the host. The directories must exist to be mounted over.
 */
const systemPreparation = `
for pair in etc:/etc/libvirt lib:/var/lib/libvirt cache:/var/cache/libvirt log:/var/log/libvirt; do
  mkdir -p "\${pair#*:}"
  mount --bind "$SK_DIRECTORY/\${pair%%:*}" "\${pair#*:}"
done
for file in passwd group; do
  [ ! -e "$SK_DIRECTORY/etc/$file" ] || mount --bind "$SK_DIRECTORY/etc/$file" "/etc/$file"
done
mount -t tmpfs -o mode=755 run /run
mkdir /run/libvirt
mount --bind "$SK_DIRECTORY/run" /run/libvirt
`

/**
 * Runs a daemon and, as its parent, takes note of the end of the processes it leaves to the system, which QEMU is one of. Some machines' first process does
 * so only now and then, and libvirt waits for a QEMU that has ended until it is gone from the process table. 157: prctl on x86-64, 36: PR_SET_CHILD_SUBREAPER.
 * Perl is on every Debian (perl-base).
 */
const reaper = `
syscall(157, 36, 1, 0, 0, 0);
my $daemon = fork // die "fork: $!";
if (!$daemon) { exec { $ARGV[0] } @ARGV or die "$ARGV[0]: $!\\n" }
for my $signal (qw(TERM CONT)) { $SIG{$signal} = sub { kill $signal, $daemon } }
my $ended = 0;
while ($ended != $daemon) { $ended = wait; die "wait: $!" if $ended < 0 && $! != 4 }
exit($? >> 8 || $? & 127);
`

/** Starts a private libvirtd; returns when it answers. Nothing of a libvirt that the host may have is touched. */
export async function startLibvirtd(options: LibvirtdOptions = {}): Promise<Libvirtd> {
  const session = options.session ?? process.getuid?.() !== 0
  const directory = options.directory ?? makeTemporaryDirectory()
  const environment = { ...process.env, ...(session ? sessionEnvironment(directory) : {}), SK_DIRECTORY: directory }
  for (const folder of ['etc/qemu', 'etc/secrets', 'lib/qemu', 'lib/images', 'lib/boot', 'cache', 'log', 'run', 'sock'])
    mkdirSync(join(directory, folder), { recursive: true })
  if (!session) addDefaultUser(directory)
  const watchdog = await startKeeper(session, environment).catch(error => {
    if (options.directory === undefined) rmSync(directory, { recursive: true, force: true })
    throw error
  })
  watchdog.watchNamespace()
  if (options.directory === undefined) watchdog.removeAtEnd(directory)
  const daemon = new Daemon(directory, session, watchdog, environment)
  try {
    await daemon.configure(options)
    await daemon.start()
    return daemon
  } catch (error) {
    await daemon.stop()
    throw error
  }
}

/** Gives access to a private libvirtd that this or another process started. */
export function accessLibvirtd(address: LibvirtdAddress): LibvirtdAccess {
  return new Access(address)
}

class Access implements LibvirtdAccess {
  readonly directory: string
  readonly session: boolean
  readonly keeperPid: number
  readonly uri: string
  readonly readOnlyUri: string | undefined
  readonly socket: string
  readonly readOnlySocket: string | undefined

  constructor({ directory, session, keeperPid }: LibvirtdAddress) {
    this.directory = directory
    this.session = session
    this.keeperPid = keeperPid
    this.socket = join(directory, session ? 'run/libvirt/libvirt-sock' : 'sock/libvirt-sock')
    this.readOnlySocket = session ? undefined : `${this.socket}-ro`
    const path = session ? 'session' : 'system'
    this.uri = `qemu+unix:///${path}?socket=${this.socket}`
    this.readOnlyUri = this.readOnlySocket && `qemu+unix:///${path}?socket=${this.readOnlySocket}`
  }

  processes(): number[] {
    const namespace = mountNamespace(this.keeperPid)
    if (namespace === undefined) return []
    return readdirSync('/proc')
      .filter(name => /^\d+$/.test(name))
      .map(Number)
      .filter(pid => pid !== this.keeperPid && mountNamespace(pid) === namespace)
  }

  virsh(...args: string[]): Promise<CommandOutput> {
    const env = { ...process.env, LC_ALL: 'C.UTF-8' }
    return run('virsh', ['--quiet', '--connect', this.uri, ...args], { env, timeoutMs: virshTimeoutMs })
  }

  runInside(command: string, args: readonly string[], options: RunOptions = {}): Promise<CommandOutput> {
    return run('nsenter', [...this.enterArguments(), command, ...args], options)
  }

  /** Arguments that make nsenter enter the keeper's namespaces. */
  protected enterArguments(): string[] {
    const user = this.session ? ['--user', '--preserve-credentials'] : []
    return ['--target', String(this.keeperPid), ...user, '--mount', '--']
  }
}

class Daemon extends Access implements Libvirtd {
  tls: Libvirtd['tls']
  readonly #watchdog: Watchdog
  readonly #environment: NodeJS.ProcessEnv
  #cacheDirectory: string | undefined
  #server: ManagedProcess | undefined

  constructor(directory: string, session: boolean, watchdog: Watchdog, environment: NodeJS.ProcessEnv) {
    super({ directory, session, keeperPid: watchdog.pid })
    this.#watchdog = watchdog
    this.#environment = environment
  }

  /** Writes the configuration files and brings what is known about QEMU from the cache. */
  async configure(options: LibvirtdOptions): Promise<void> {
    const settings = [`log_level = 3`, `log_outputs = "3:stderr"`, ...(options.daemonSettings ?? [])]
    if (!this.session) settings.push(...systemDaemonSettings(dirname(this.socket)))
    if (options.tls) {
      const port = await findFreePort()
      const certificates = await createCertificates(join(this.directory, 'tls'))
      this.tls = { port, certificates }
      settings.push(...tlsSettings(port, certificates))
    }
    const folder = join(this.directory, this.session ? 'etc/libvirt' : 'etc')
    mkdirSync(folder, { recursive: true })
    writeFileSync(join(folder, 'libvirtd.conf'), `${settings.join('\n')}\n`)
    writeFileSync(join(folder, 'qemu.conf'), `${qemuSettings(this.session, options).join('\n')}\n`)
    this.#cacheDirectory = options.cacheDirectory && join(options.cacheDirectory, 'qemu-capabilities')
    if (this.#cacheDirectory !== undefined && existsSync(this.#cacheDirectory))
      cpSync(this.#cacheDirectory, this.#capabilities, { recursive: true })
  }

  /** Where libvirt keeps what it found out about QEMU. */
  get #capabilities(): string {
    return join(this.directory, this.session ? 'cache/libvirt/qemu/cache/capabilities' : 'cache/qemu/capabilities')
  }

  async start(): Promise<void> {
    const configuration = join(this.directory, this.session ? 'etc/libvirt' : 'etc', 'libvirtd.conf')
    const listen = this.tls === undefined ? [] : ['--listen']
    const command = ['libvirtd', '--config', configuration, '--pid-file', this.#pidFile, ...listen]
    const server = await startProcess({
      name: 'libvirtd',
      command: 'nsenter',
      args: [...this.enterArguments(), 'perl', '-e', reaper, ...command],
      env: this.#environment,
      logFile: join(this.directory, 'libvirtd.log'),
    })
    this.#server = server
    this.#watchdog.watch(server.pid)
    const limits = { timeoutMs: answerTimeoutMs, process: server }
    await waitUntil('libvirtd listens', () => existsSync(this.socket) || undefined, limits)
    await waitUntil('libvirtd answers', () => this.virsh('capabilities'), limits)
    this.#keepCapabilities()
  }

  /** Puts what this daemon found out about QEMU into the cache, unless another one did so already. */
  #keepCapabilities(): void {
    const cache = this.#cacheDirectory
    if (cache === undefined || existsSync(cache) || !existsSync(this.#capabilities)) return
    mkdirSync(dirname(cache), { recursive: true })
    const copy = mkdtempSync(`${cache}-`)
    cpSync(this.#capabilities, copy, { recursive: true })
    try {
      renameSync(copy, cache)
    } catch {
      rmSync(copy, { recursive: true, force: true }) // another run was first
    }
  }

  get #pidFile(): string {
    return join(this.directory, 'libvirtd.pid')
  }

  pid(): number | undefined {
    if (this.#server === undefined || this.#server.status !== undefined) return undefined
    return Number(readFileSync(this.#pidFile, 'latin1'))
  }

  pause(): void {
    this.#server?.signalGroup('SIGSTOP')
  }

  resume(): void {
    this.#server?.signalGroup('SIGCONT')
  }

  async kill(): Promise<void> {
    const pid = this.pid()
    await this.#server?.kill()
    // its parent may be gone before it
    if (pid !== undefined)
      await waitUntil('libvirtd is gone', () => !isAlive(pid) || undefined, { timeoutMs: answerTimeoutMs })
  }

  async restart(): Promise<void> {
    await this.#server?.stop()
    await this.start()
  }

  async stop(): Promise<void> {
    this.resume()
    const own = [this.#server?.pid, this.pid()]
    for (const pid of this.processes()) if (!own.includes(pid)) kill(pid)
    try {
      // while it still runs, libvirt removes the guests' control groups
      const limits = { timeoutMs: farewellTimeoutMs, process: this.#server }
      await waitUntil('libvirtd noticed its guests are gone', () => this.#hasNoGuestFiles() || undefined, limits)
    } catch {
      // a daemon that does not work any more must go too
    }
    await this.#server?.stop()
    await this.#watchdog.end()
  }

  #hasNoGuestFiles(): boolean {
    const folder = join(this.directory, this.session ? 'run/libvirt/qemu/run' : 'run/qemu')
    return !existsSync(folder) || readdirSync(folder).every(name => name === 'driver.pid' || !name.endsWith('.pid'))
  }
}

function systemDaemonSettings(socketFolder: string): string[] {
  return [
    `unix_sock_dir = "${socketFolder}"`,
    'unix_sock_ro_perms = "0777"',
    'unix_sock_rw_perms = "0700"',
    'auth_unix_ro = "none"',
    'auth_unix_rw = "none"',
  ]
}

function tlsSettings(port: number, { authority, server }: Certificates): string[] {
  return [
    'listen_tls = 1',
    'listen_tcp = 0',
    'listen_addr = "127.0.0.1"',
    `tls_port = "${port}"`,
    `ca_file = "${authority}"`,
    `cert_file = "${server.certificate}"`,
    `key_file = "${server.key}"`,
  ]
}

/**
 * QEMU's console goes straight to a file, because there is no virtlogd. As libvirt's default user, QEMU would be probed for
 * over a minute at every start; and without `dynamic_ownership = 0` the guest's files would change owner.
 */
function qemuSettings(session: boolean, options: LibvirtdOptions): string[] {
  const system = ['user = "root"', 'group = "root"', 'dynamic_ownership = 0', 'remember_owner = 0', 'namespaces = []']
  return [
    'stdio_handler = "file"',
    'security_driver = "none"',
    ...(session ? [] : system),
    ...(options.qemuSettings ?? []),
  ]
}

/** A session daemon finds all its directories by these. */
function sessionEnvironment(directory: string): NodeJS.ProcessEnv {
  return {
    HOME: directory,
    XDG_CONFIG_HOME: join(directory, 'etc'),
    XDG_CACHE_HOME: join(directory, 'cache'),
    XDG_DATA_HOME: join(directory, 'lib'),
    XDG_RUNTIME_DIR: join(directory, 'run'),
  }
}

/**
 * libvirt looks up the user and group that QEMU gets by default before it reads that they shall be others. They come with the
 * package libvirt-daemon-system, which is not needed otherwise: where they are missing, only the private daemon sees them.
 */
function addDefaultUser(directory: string): void {
  const name = 'libvirt-qemu'
  for (const [file, line] of [
    ['passwd', `${name}:x:64055:64055::/nonexistent:/usr/sbin/nologin`],
    ['group', `${name}:x:64055:`],
  ] as const) {
    const text = readFileSync(join('/etc', file), 'utf8')
    if (!new RegExp(`^${name}:`, 'm').test(text))
      writeFileSync(join(directory, 'etc', file), `${text.trimEnd()}\n${line}\n`)
  }
}

/** Starts the watchdog that holds the namespaces. */
async function startKeeper(session: boolean, environment: NodeJS.ProcessEnv): Promise<Watchdog> {
  const preparation = session ? '' : systemPreparation
  try {
    return await Watchdog.start({ wrapper: namespaceCommand(session), preparation, environment })
  } catch (error) {
    const needed = session
      ? 'user namespaces (sysctl kernel.unprivileged_userns_clone=1)'
      : 'the right to mount (CAP_SYS_ADMIN)'
    throw new Error(`a private libvirtd needs ${needed}: ${error instanceof Error ? error.message : String(error)}`)
  }
}

/**
 * The keeper's namespaces. For the session driver a user namespace (root becomes nobody in it: libvirt goes by the user id),
 * and a mount namespace only as the mark by which its processes are found.
 */
function namespaceCommand(session: boolean): string[] {
  if (!session) return ['unshare', '--mount', '--propagation', 'private']
  const own = (id: number | undefined) => String(id === undefined || id === 0 ? 65534 : id)
  const user = [`--map-user=${own(process.getuid?.())}`, `--map-group=${own(process.getgid?.())}`]
  return ['unshare', ...user, '--mount']
}

/** The identity of a process's mount namespace; undefined when it is gone or not ours to see. */
function mountNamespace(pid: number): string | undefined {
  try {
    return readlinkSync(`/proc/${pid}/ns/mnt`)
  } catch {
    return undefined
  }
}

function kill(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL')
  } catch {
    // gone already
  }
}

import { Spawner } from './spawn.js'

/** While the service waits for its first connection, systemd is asked this often for more patience. */
const PATIENCE_MS = 20_000
const SEND_TIMEOUT_SECONDS = 5

/**
 * Sends what its standard input says to $NOTIFY_SOCKET. Node has no datagram sockets of the Unix kind, so a process has to: systemd-notify
 * comes with systemd and stays until the message was read; Perl is there where only the socket is, in containers.
 */
const SEND = `if command -v systemd-notify >/dev/null; then IFS= read -r message; exec systemd-notify $message; fi
exec perl -MSocket -e '
  my $path = $ENV{NOTIFY_SOCKET}; $path =~ s/^@/\\0/; my $text = do { local $/; <STDIN> }; $text =~ s/ (?=[A-Z_]+=)/\\n/g; chomp $text;
  my $socket; socket($socket, AF_UNIX, SOCK_DGRAM, 0) && defined send($socket, $text, 0, pack_sockaddr_un($path)) or die "$path: $!\\n"'`

export interface ServiceManagerOptions {
  environment: NodeJS.ProcessEnv
  /** The service manager cannot be told; called once. */
  onFailure(reason: string): void
}

/** Tells systemd how the service is (sd_notify). Messages go one after the other; each costs one short process. */
export class ServiceManager {
  readonly #spawner: Spawner
  readonly #onFailure: (reason: string) => void
  readonly #watchdogMs: number
  readonly #timers: NodeJS.Timeout[] = []
  #sending: Promise<void> = Promise.resolve()
  #waiting = 0
  #failed = false
  #ready = false
  #stopping = false

  /** Undefined when no service manager wants to know. Takes its variables out of the environment: they are not for commands. */
  static take(options: ServiceManagerOptions): ServiceManager | undefined {
    const { environment } = options
    const { NOTIFY_SOCKET: socket, WATCHDOG_USEC: interval, WATCHDOG_PID: pid } = environment
    for (const name of ['NOTIFY_SOCKET', 'WATCHDOG_USEC', 'WATCHDOG_PID']) delete environment[name]
    if (socket === undefined || !/^[/@]./.test(socket)) return undefined
    const watched = pid === undefined || pid === String(process.pid)
    const watchdogMs = watched && /^[1-9]\d*$/.test(interval ?? '') ? Number(interval) / 1000 : 0
    return new ServiceManager({ ...options, environment: { ...environment, NOTIFY_SOCKET: socket } }, watchdogMs)
  }

  private constructor({ environment, onFailure }: ServiceManagerOptions, watchdogMs: number) {
    this.#spawner = new Spawner({ limit: 1, env: environment })
    this.#onFailure = onFailure
    this.#watchdogMs = watchdogMs
  }

  /** Starts the watchdog, and asks for patience until the service works. */
  start(): void {
    this.#send('STATUS=connecting')
    this.#every(PATIENCE_MS, () => {
      if (!this.#ready) this.#send(`EXTEND_TIMEOUT_USEC=${3 * PATIENCE_MS * 1000}`)
    })
    // a blocked loop sends nothing: that is what the watchdog is for
    if (this.#watchdogMs > 0) this.#every(this.#watchdogMs / 2, () => this.#send('WATCHDOG=1'))
  }

  ready(): void {
    if (this.#stopping) return
    this.#ready = true
    this.#send('READY=1 STATUS=working')
  }

  reloading(): void {
    this.#send('RELOADING=1 STATUS=reloading')
  }

  /** systemd takes READY=1 for the end of a reload; before the first one it would be a lie. */
  reloaded(): void {
    if (this.#ready) this.ready()
    else this.#send('STATUS=connecting')
  }

  /** One word, with what the service is at. */
  status(word: string): void {
    if (this.#ready && !this.#stopping) this.#send(`STATUS=${word}`)
  }

  stopping(): void {
    this.#stopping = true
    this.#send('STOPPING=1 STATUS=stopping')
  }

  /** Sends what waits, and ends. */
  async close(): Promise<void> {
    for (const timer of this.#timers.splice(0)) clearInterval(timer)
    await this.#sending
    this.#spawner.close()
  }

  #every(milliseconds: number, action: () => void): void {
    const timer = setInterval(action, milliseconds)
    timer.unref()
    this.#timers.push(timer)
  }

  #send(message: string): void {
    // each waits 5 s at most; more of them would only be late
    if (this.#waiting > 8) return
    this.#waiting++
    this.#sending = this.#sending.then(async () => {
      const request = { command: SEND, stdin: `${message}\n`, timeoutSeconds: SEND_TIMEOUT_SECONDS }
      const { output, status } = await this.#spawner.run(request)
      this.#waiting--
      if (status === 0 || this.#failed) return
      this.#failed = true
      this.#onFailure(output.toString().trim() || `status ${status}`)
    })
  }
}

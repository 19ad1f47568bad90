import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import type { Test } from 'tap'

/** Node has no datagram sockets of the Unix kind; Perl, which Debian always has, prints each message as a line. */
const LISTEN = `use Socket; $| = 1; socket(my $s, AF_UNIX, SOCK_DGRAM, 0) or die; bind($s, pack_sockaddr_un($ARGV[0])) or die;
print "listening\\n"; while (defined recv($s, my $text, 4096, 0)) { $text =~ s/\\n/ /g; print "$text\\n" }`

/** The service manager's end of $NOTIFY_SOCKET. */
export class NotifySocket {
  readonly path: string
  readonly messages: string[] = []
  #waiting: (() => void)[] = []

  static async open(t: Test, path: string): Promise<NotifySocket> {
    const child = spawn('perl', ['-e', LISTEN, path], { stdio: ['ignore', 'pipe', 'inherit'] })
    t.teardown(async () => {
      child.kill()
      await once(child, 'close')
    })
    const socket = new NotifySocket(path, child)
    await socket.message(/^listening$/)
    return socket
  }

  private constructor(path: string, child: ChildProcess) {
    this.path = path
    if (!child.stdout) throw new Error('perl has no output')
    createInterface(child.stdout).on('line', line => {
      this.messages.push(line)
      for (const resolve of this.#waiting.splice(0)) resolve()
    })
  }

  /** Waits for the n-th message like this. */
  async message(like: RegExp, count = 1): Promise<string> {
    for (;;) {
      const found = this.messages.filter(message => like.test(message))[count - 1]
      if (found !== undefined) return found
      await new Promise<void>(resolve => this.#waiting.push(resolve))
    }
  }
}

import type { Host, HostOptions } from '../libvirt/host.js'
import type { OpenHostOptions } from '../plugin/program.js'
import { SharedReads } from './shared-reads.js'

/** Connections unused for so long are closed. */
const IDLE_MS = 10 * 60 * 1000
/** Different hypervisors, or ways to them, that may be open at once; beyond it the longest unused is closed. */
const MAX_HOSTS = 16

interface Shared {
  host: Host
  /** The host as a check sees it: its close() gives it back instead of closing it. */
  lent: Host
  users: number
  lastUsedMs: number
}

/** One open Host per URI and access, shared by all checks inside this process. */
export class SharedHosts {
  readonly #options: HostOptions
  readonly #hosts = new Map<string, Shared>()

  constructor(options: HostOptions = {}) {
    this.#options = options
  }

  /** Lends a host; its close() returns it. Throws for a URI that cannot be used. */
  async open({ uri, readOnly }: Pick<OpenHostOptions, 'uri' | 'readOnly'>): Promise<Host> {
    // loaded only when used: an agent without checks of guests has no need of it in memory
    const { Host } = await import('../libvirt/host.js')
    const key = `${readOnly ? 'r' : 'w'} ${uri}`
    const shared = this.#hosts.get(key) ?? this.#add(key, Host.open(uri, { ...this.#options, readOnly }))
    shared.users++
    shared.lastUsedMs = Date.now()
    await this.#closeUnused()
    return shared.lent
  }

  /** Closes all, used or not. */
  async close(): Promise<void> {
    const hosts = [...this.#hosts.values()]
    this.#hosts.clear()
    await Promise.all(hosts.map(({ host }) => host.close()))
  }

  #add(key: string, host: Host): Shared {
    const shared: Shared = { host, lent: host, users: 0, lastUsedMs: 0 }
    shared.lent = lend(host, () => {
      shared.users--
    })
    this.#hosts.set(key, shared)
    return shared
  }

  async #closeUnused(): Promise<void> {
    const unused = [...this.#hosts].filter(([, { users }]) => users === 0)
    unused.sort(([, a], [, b]) => a.lastUsedMs - b.lastUsedMs)
    let surplus = this.#hosts.size - MAX_HOSTS
    for (const [key, { host, lastUsedMs }] of unused) {
      if (surplus-- <= 0 && Date.now() - lastUsedMs < IDLE_MS) continue
      this.#hosts.delete(key)
      await host.close()
    }
  }
}

/** Reads that many checks ask alike, with nothing but plain arguments and a signal. */
const sharedReads = new Set<PropertyKey>(['domains', 'domainStats'])

/**
 * A host as checks borrow it. Host keeps private fields, so the stand-in hands every method on, bound to the real one;
 * reads that several checks ask at the same time are asked of libvirt once.
 */
function lend(host: Host, giveBack: () => void): Host {
  const close = async () => giveBack()
  const reads = new SharedReads()
  return new Proxy(host, {
    get(target, key) {
      if (key === 'close') return close
      const value: unknown = Reflect.get(target, key, target)
      if (typeof value !== 'function') return value
      const method = value.bind(target)
      return sharedReads.has(key) ? sharedRead(reads, String(key), method) : method
    },
  })
}

/** The question is shared, the patience is not: each caller's own signal ends his wait only. */
function sharedRead(reads: SharedReads, name: string, method: (...args: object[]) => Promise<unknown>) {
  return (...args: { signal?: AbortSignal }[]): Promise<unknown> => {
    const signal = args.find(argument => argument.signal)?.signal
    const plain = args.map(({ signal: _, ...rest }) => rest)
    const answer = reads.ask(`${name} ${JSON.stringify(plain)}`, () => method(...plain))
    return signal === undefined ? answer : unlessAborted(answer, signal)
  }
}

function unlessAborted(answer: Promise<unknown>, signal: AbortSignal): Promise<unknown> {
  return new Promise((resolve, reject) => {
    const onAbort = () => reject(signal.reason)
    if (signal.aborted) return onAbort()
    signal.addEventListener('abort', onAbort, { once: true })
    answer.then(resolve, reject).finally(() => signal.removeEventListener('abort', onAbort))
  })
}

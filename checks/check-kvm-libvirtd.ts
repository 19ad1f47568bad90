import { type DaemonClients, readDaemonClients } from '../libvirt/daemon-clients.js'
import { LibvirtConnectionError, LibvirtError, LibvirtTimeoutError } from '../libvirt/errors.js'
import type { Host } from '../libvirt/host.js'
import { type Context, defineCheck } from '../plugin/check.js'
import type { OptionTable, OptionValues } from '../plugin/options.js'
import { Verdict } from '../plugin/outcome.js'
import { formatQuantity } from '../plugin/text.js'

/** What the daemon said, and how long it took; times in seconds. */
export interface DaemonAnswer {
  /** From the first attempt to connect to the open connection and the daemon's version. */
  readonly openSeconds: number
  /** Undefined when it did not list its guests. */
  readonly listSeconds: number | undefined
  readonly libvirtVersion: string
  /** `QEMU 7.2.22`; the driver alone when it does not tell its version. */
  readonly hypervisor: string
  readonly guests: number | undefined
  /** Until a call was answered that needs an ordinary worker thread; undefined when it was not. */
  readonly workSeconds?: number | undefined
}

/** Why there is no answer. */
export interface DaemonTrouble {
  readonly message: string
  /** It is there, and silent. */
  readonly hung: boolean
}

export interface DaemonSample {
  readonly uri: string
  /** How long was waited for an answer at most. */
  readonly patienceSeconds: number
  readonly answer: DaemonAnswer | DaemonTrouble
  /** As they were before; undefined when they cannot be counted. */
  readonly clients?: DaemonClients | undefined
}

/** The run's end must not come before the daemon's time is over. */
const patienceShare = 0.8

const options = {
  warning: { type: 'range', alias: 'w', default: '0.5', summary: 'Warn outside this range (seconds to answer).' },
  critical: { type: 'range', alias: 'c', default: '2', summary: 'Critical outside this range (seconds to answer).' },
  hungAfter: { type: 'duration', default: '10s', summary: 'Critical when there is no answer for this long.' },
  clientsWarning: {
    type: 'range',
    default: '80',
    summary: 'Warn outside this range (clients, % of those it takes).',
  },
  clientsCritical: {
    type: 'range',
    default: '95',
    summary: 'Critical outside this range (clients, % of those it takes).',
  },
  maxClients: { type: 'integer', minimum: 1, summary: 'How many clients the daemon takes (default: as configured).' },
} as const satisfies OptionTable
type Limits = OptionValues<typeof options>

export default defineCheck({
  name: 'check-kvm-libvirtd',
  summary: 'Whether the libvirt daemon answers, how fast, and whether it has room for more clients.',
  description: `Each run opens a connection of its own, also inside the agent, asks for the version and the list of guests, and judges the time all this took. The daemon has worker threads for calls
that may have to wait for a guest, and others for those that never do: one more call shows whether one of the former is free. It is not part of the time that is judged.

CRITICAL: no daemon is there (no socket, nobody listens), it closes the connection, does not answer within \`--hung-after\`, does not list its guests or has no free worker thread for as long, or does not have the driver of the URI.
UNKNOWN, since it says nothing about the daemon: no permission for its socket, authentication or TLS refused, not libvirt's protocol, a URI that cannot be used.

Clients are counted in the kernel's table of local sockets (\`/proc/net/unix\`): those of both local sockets, not those that came over TLS, and only on the daemon's own machine. How many it
takes, \`max_clients\`, is read from its file in \`/etc/libvirt\` (5000 when that does not say) if its sockets are in \`/run/libvirt\`; \`--max-clients\` says it otherwise. libvirt tells it only
over its administration socket, whose protocol is private.`,
  options,
  async collect(host: Host, { hungAfter, maxClients }, context): Promise<DaemonSample> {
    context.stage("counting the daemon's clients")
    const clients = await readDaemonClients(host.uri)
    const patienceSeconds = Math.min(hungAfter, (context.timeLeftMs() / 1000) * patienceShare)
    const answer = await askDaemon(host, patienceSeconds * 1000, context).catch(troubleOf)
    return {
      uri: context.uri,
      patienceSeconds,
      answer,
      clients: clients && { ...clients, maximum: maxClients ?? clients.maximum },
    }
  },
  evaluate({ uri, patienceSeconds, answer, clients }, limits) {
    const verdict = new Verdict()
    if ('hung' in answer) {
      const remedy = answer.hung ? `: ${hungRemedy(clients)}` : ''
      verdict.add({ status: 'CRITICAL', message: answer.message + remedy })
    } else {
      judgeAnswer(verdict, answer, patienceSeconds, limits)
      const { libvirtVersion, hypervisor, guests } = answer
      const parts = [
        ...(guests === undefined ? [] : [guests === 1 ? '1 guest' : `${guests} guests`]),
        ...(clients === undefined ? [] : [crowdOf(clients)]),
      ]
      verdict.summary = `libvirt ${libvirtVersion} (${hypervisor}) answered in ${formatQuantity(answerSeconds(answer), 's')} at ${uri}; ${parts.join('; ')}`
    }
    if (clients !== undefined) judgeClients(verdict, clients, limits)
    return verdict
  },
})

function hungRemedy(clients: DaemonClients | undefined): string {
  const full = clients?.maximum !== undefined && clients.connected >= clients.maximum
  return full
    ? `it lets in no more (${crowdOf(clients)}): end some, or raise max_clients`
    : 'it hangs: see its log, then restart it (guests run on)'
}

async function askDaemon(host: Host, patienceMs: number, { signal, stage }: Context): Promise<DaemonAnswer> {
  const startedMs = performance.now()
  const elapsedMs = () => performance.now() - startedMs
  const limited = () => ({ signal, timeoutMs: Math.max(1, patienceMs - elapsedMs()) })
  const own = host.another({ connectTimeoutMs: patienceMs })
  try {
    stage('connecting')
    const libvirtVersion = await own.libVersion(limited())
    const openSeconds = elapsedMs() / 1000
    stage('waiting for answers')
    const timed = async (work: Promise<boolean>) => {
      const beforeMs = performance.now()
      return (await work) ? (performance.now() - beforeMs) / 1000 : undefined
    }
    let guests: number | undefined
    const list = async () => {
      guests = (await own.domains({}, limited())).length
    }
    const [driver, version, listSeconds, workSeconds] = await Promise.all([
      own.driverType(limited()),
      own.hypervisorVersion(limited()).catch(unlessRefused),
      timed(list().then(() => true, isAnswer)),
      timed(own.capabilities(limited()).then(() => true, isAnswer)),
    ])
    const hypervisor = version === undefined ? driver : `${driver} ${version}`
    return { openSeconds, listSeconds, workSeconds, libvirtVersion, hypervisor, guests }
  } finally {
    await own.close()
  }
}

/** A driver need not know its hypervisor's version. */
function unlessRefused(error: unknown): undefined {
  if (!(error instanceof LibvirtError)) throw error
}

/** A refusal is an answer, too; silence is none. */
function isAnswer(error: unknown): boolean {
  if (error instanceof LibvirtTimeoutError) return false
  if (error instanceof LibvirtError) return true
  throw error
}

/** What a failed attempt says about the daemon; throws what says nothing about it. */
function troubleOf(error: unknown): DaemonTrouble {
  if (error instanceof LibvirtTimeoutError) return { hung: true, message: error.message }
  const gone =
    error instanceof LibvirtConnectionError &&
    ['missing-socket', 'refused', 'closed'].includes(error.kind) &&
    !isSshRefusal(error.message)
  if (gone) return { hung: false, message: error.message }
  if (!(error instanceof LibvirtError) || error.denied) throw error
  if (error.protocolRefused) throw new Error(`${error.message}: no socket of libvirt's public protocol: correct --uri`)
  return { hung: false, message: `${error.message}: its driver is not installed or does not load, or --uri is wrong` }
}

/** ssh was let in by nobody, so libvirt was not asked; ssh says so in English. */
function isSshRefusal(message: string): boolean {
  return /ssh to .* says: .*(Permission denied|Host key verification failed)/.test(message)
}

function answerSeconds({ openSeconds, listSeconds }: DaemonAnswer): number | undefined {
  return listSeconds === undefined ? undefined : openSeconds + listSeconds
}

function judgeAnswer(verdict: Verdict, answer: DaemonAnswer, patienceSeconds: number, limits: Limits): void {
  const { openSeconds, listSeconds, workSeconds, guests } = answer
  const { warning, critical } = limits
  const seconds = { unit: 's', min: 0 } as const
  const value = answerSeconds(answer)
  const note = `(${formatQuantity(listSeconds, 's')} of it to list guests)`
  verdict.judge({ what: 'answered in', name: 'answer_time', value, ...seconds, note, warning, critical })
  verdict.measure({ name: 'open_time', value: openSeconds, ...seconds })
  verdict.measure({ name: 'list_time', value: listSeconds, ...seconds })
  verdict.measure({ name: 'work_time', value: workSeconds, ...seconds })
  verdict.measure({ name: 'guests', value: guests, min: 0 })
  const patience = formatQuantity(patienceSeconds, 's')
  if (listSeconds === undefined) {
    const message = `answers, but did not list its guests within ${patience}: one of them holds it up, as when its start or stop hangs`
    verdict.add({ status: 'CRITICAL', message })
  }
  if (workSeconds === undefined) {
    const message = `no worker thread free for ${patience}: its calls hang, as on a guest or a storage server that does not answer`
    verdict.add({ status: 'CRITICAL', message })
  }
}

function judgeClients(verdict: Verdict, clients: DaemonClients, limits: Limits): void {
  const { connected, waiting, maximum } = clients
  verdict.measure({ name: 'clients', value: connected, min: 0, max: maximum })
  verdict.measure({ name: 'clients_waiting', value: waiting, min: 0 })
  if (maximum === undefined) return
  const { clientsWarning: warning, clientsCritical: critical } = limits
  const percent = { name: 'clients_percent', value: (connected / maximum) * 100, unit: '%', min: 0, max: 100 } as const
  const note = `of those it takes (${crowdOf(clients)})`
  verdict.judge({ what: 'clients', ...percent, note, warning, critical })
}

/** `5 of 5000 clients, 2 more waiting`. */
function crowdOf({ connected, waiting, maximum }: DaemonClients): string {
  const some = maximum === undefined ? `${connected} clients` : `${connected} of ${maximum} clients`
  return waiting === 0 ? some : `${some}, ${waiting} more waiting`
}

import { readFile } from 'node:fs/promises'
import { basename, dirname } from 'node:path'
import { systemPlaces } from './dial.js'
import { parseUri, type SocketPlaces, socketCandidates } from './uri.js'

/** Clients of a daemon on this machine, on both of its local sockets; those that came over TLS or TCP are not known. */
export interface DaemonClients {
  /** Let in by the daemon. */
  readonly connected: number
  /** Waiting to be let in: the daemon hangs, or has as many clients as it takes. */
  readonly waiting: number
  /** How many the daemon takes (`max_clients`); undefined when its configuration is not known or cannot be read. */
  readonly maximum?: number | undefined
}

export interface DaemonClientsOptions {
  places?: SocketPlaces
  /** The kernel's table of local sockets. */
  socketTable?: string
  /** Where the system daemons' configuration is. */
  configurationDirectory?: string
}

/** What `max_clients` is in a configuration that does not say (libvirt 1.1 and later). */
const defaultMaximum = 5000

/**
 * Counts the clients of the daemon that a URI leads to, without asking it: undefined when it is on another machine, or when no such socket is in the
 * table. Never rejects.
 */
export async function readDaemonClients(
  uri: string,
  {
    places = systemPlaces(),
    socketTable = '/proc/net/unix',
    configurationDirectory = '/etc/libvirt',
  }: DaemonClientsOptions = {},
): Promise<DaemonClients | undefined> {
  const target = parseUri(uri)
  if (target.carrier !== 'unix') return undefined
  const sockets = parseSocketTable(await readFile(socketTable, 'utf8').catch(() => ''))
  const used = socketCandidates(target, 'read', places).find(path =>
    sockets.some(own => own.path === path && own.listens),
  )
  if (used === undefined) return undefined
  const base = used.replace(/-ro$/, '')
  const clients = sockets.filter(({ path, listens }) => !listens && (path === base || path === `${base}-ro`))
  const connected = clients.filter(({ accepted }) => accepted).length
  return {
    connected,
    waiting: clients.length - connected,
    // A daemon with its sockets elsewhere has its configuration elsewhere, too.
    maximum:
      dirname(base) === places.systemDirectory
        ? await readMaximum(`${configurationDirectory}/${daemonOf(basename(base))}.conf`)
        : undefined,
  }
}

interface LocalSocket {
  readonly path: string
  readonly listens: boolean
  /** Taken off the listening socket's queue. */
  readonly accepted: boolean
}

/** Lines of /proc/net/unix: `address: references protocol flags type state inode path` (see proc(5) and the kernel's net/unix). */
function parseSocketTable(text: string): LocalSocket[] {
  return text.split('\n').flatMap(line => {
    const [, flags = '', state, path = ''] = /^\w+: \w+ \w+ (\w+) \w+ (\w+) +\d+ (\/.+)$/.exec(line) ?? []
    if (path === '') return []
    const listens = (Number.parseInt(flags, 16) & 0x10000) !== 0
    return [{ path: path.replace(/^\/var\/run\//, '/run/'), listens, accepted: state === '03' }]
  })
}

/** `libvirtd` of `libvirt-sock`, `virtqemud` of `virtqemud-sock`. */
function daemonOf(socket: string): string {
  const name = socket.replace(/-sock$/, '')
  return name === 'libvirt' ? 'libvirtd' : name
}

async function readMaximum(file: string): Promise<number | undefined> {
  try {
    const setting = /^\s*max_clients\s*=\s*(\d{1,9})\b/m.exec(await readFile(file, 'utf8'))
    return setting === null ? defaultMaximum : Number(setting[1])
  } catch (error) {
    return error instanceof Error && 'code' in error && error.code === 'ENOENT' ? defaultMaximum : undefined
  }
}

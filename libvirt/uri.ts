import { LibvirtConnectionError } from './errors.js'

/** How the daemon is reached. */
export type Carrier = 'unix' | 'ssh' | 'tls'

/** A libvirt URI taken apart. */
export interface Target {
  /** As given. */
  uri: string
  carrier: Carrier
  driver: string
  /** e.g. `/system`, `/session`, `/default`. */
  path: string
  /** What the daemon is told to open, e.g. `qemu:///system`. */
  remoteUri: string
  host: string
  port: number | undefined
  user: string | undefined
  /** The URI's query, decoded. */
  parameters: ReadonlyMap<string, string>
}

/** The modular daemon of each driver; other drivers live in libvirtd (or virtproxyd). */
const modularDaemons: Readonly<Record<string, string>> = {
  qemu: 'virtqemud',
  lxc: 'virtlxcd',
  xen: 'virtxend',
  ch: 'virtchd',
  vbox: 'virtvboxd',
  bhyve: 'virtbhyved',
}

/** Drivers that live in libvirt's own client library and have no daemon to speak to. */
const clientSideDrivers = ['esx', 'gsx', 'vpx', 'hyperv', 'vmwareplayer', 'vmwarews', 'vmwarefusion', 'parallels']

const refusedTransports: Readonly<Record<string, string>> = {
  tcp: 'it needs SASL authentication; use qemu+tls:// or qemu+ssh://',
  ext: 'an external program as transport; use qemu+ssh:// with ?command=',
  libssh: 'only the ssh command is used; write qemu+ssh://',
  libssh2: 'only the ssh command is used; write qemu+ssh://',
}

/** Parameters that belong to the way to the daemon and are not passed on to it. */
const carrierParameters = [
  'socket',
  'mode',
  'name',
  'command',
  'keyfile',
  'no_verify',
  'no_tty',
  'netcat',
  'proxy',
  'pkipath',
  'known_hosts',
  'known_hosts_verify',
  'tls_priority',
  'sshauth',
  'auth',
]

/**
 * The URI to use when none is given: LIBVIRT_DEFAULT_URI, else `qemu:///system`.
 */
export function defaultUri(environment: Readonly<Record<string, string | undefined>>): string {
  const uri = environment['LIBVIRT_DEFAULT_URI']
  return uri === undefined || uri === '' ? 'qemu:///system' : uri
}

function unsupported(uri: string, why: string): LibvirtConnectionError {
  return new LibvirtConnectionError('unsupported-uri', `cannot use libvirt URI ${uri}: ${why}`)
}

/** Takes a URI apart. Throws LibvirtConnectionError `unsupported-uri` with the reason. */
export function parseUri(uri: string): Target {
  let url: URL
  try {
    url = new URL(uri)
  } catch {
    throw unsupported(uri, 'it is not a URI; examples: qemu:///system, qemu+ssh://root@host/system')
  }
  const [driver = '', transport] = url.protocol.slice(0, -1).split('+')
  if (!uri.includes('://')) throw unsupported(uri, 'it is not a URI; examples: qemu:///system, test:///default')
  if (clientSideDrivers.includes(driver)) throw unsupported(uri, `libvirt has no daemon for ${driver}`)
  if (url.password !== '') throw unsupported(uri.replace(url.password, '***'), 'a password in it is not used; use keys')
  const parameters = parseQuery(uri, url.search)
  const target: Target = {
    uri,
    carrier: carrierOf(uri, transport, url.hostname),
    driver,
    path: url.pathname === '' ? '/' : url.pathname,
    remoteUri: parameters.get('name') ?? `${driver}://${url.pathname}${passedOn(parameters)}`,
    host: url.hostname.replace(/^\[(.*)\]$/, '$1'),
    port: url.port === '' ? undefined : Number(url.port),
    user: url.username === '' ? undefined : decodeURIComponent(url.username),
    parameters,
  }
  if (target.carrier === 'unix' && target.host !== '') throw unsupported(uri, 'a local socket has no host name')
  if (target.carrier !== 'unix' && target.host === '') throw unsupported(uri, 'it names no host')
  if (parameters.has('tls_priority')) throw unsupported(uri, 'tls_priority is not supported; leave it out')
  return target
}

function carrierOf(uri: string, transport: string | undefined, host: string): Carrier {
  if (transport === undefined) return host === '' ? 'unix' : 'tls'
  if (transport === 'unix' || transport === 'ssh' || transport === 'tls') return transport
  const why = refusedTransports[transport]
  throw unsupported(uri, why === undefined ? `unknown transport ${transport}` : `transport ${transport}: ${why}`)
}

/** libvirt decodes %XX in a query but leaves `+` alone, unlike URLSearchParams. */
function parseQuery(uri: string, search: string): Map<string, string> {
  const parameters = new Map<string, string>()
  for (const part of search.slice(1).split('&')) {
    if (part === '') continue
    const equals = part.indexOf('=')
    const [name, value] = equals < 0 ? [part, ''] : [part.slice(0, equals), part.slice(equals + 1)]
    try {
      parameters.set(decodeURIComponent(name), decodeURIComponent(value))
    } catch {
      throw unsupported(uri, `"${part}" is not properly percent-encoded`)
    }
  }
  return parameters
}

function passedOn(parameters: ReadonlyMap<string, string>): string {
  const rest = [...parameters].filter(([name]) => !carrierParameters.includes(name))
  if (rest.length === 0) return ''
  return `?${rest.map(([name, value]) => `${encodeURIComponent(name)}=${encodeURIComponent(value)}`).join('&')}`
}

/** Whether a URI leads to the libvirt of this machine, so that what it says of files and devices is true here. The test driver makes them up. */
export function isOnThisMachine(uri: string): boolean {
  const { carrier, driver } = parseUri(uri)
  return carrier === 'unix' && driver !== 'test'
}

/** What of the environment decides where sockets are. */
export interface SocketPlaces {
  /** Directory of the system daemons' sockets, normally `/run/libvirt`. */
  systemDirectory: string
  /** XDG_RUNTIME_DIR, if set. */
  runtimeDirectory: string | undefined
  /** Effective user id: root's session is the system daemon, as in libvirt. */
  userId: number
}

/**
 * Socket files to try for a local target, best first. An explicit `?socket=` is the only candidate. Modular daemons come
 * before libvirtd; a session has no read-only socket.
 */
export function socketCandidates(target: Target, access: 'read' | 'write', places: SocketPlaces): string[] {
  const explicit = target.parameters.get('socket')
  if (explicit !== undefined) return [explicit]
  const daemons = daemonNames(target)
  if (target.path.startsWith('/session') && places.userId !== 0) {
    if (places.runtimeDirectory === undefined) {
      throw unsupported(target.uri, 'XDG_RUNTIME_DIR is not set, so the session daemon cannot be found; use ?socket=')
    }
    return daemons.map(daemon => `${places.runtimeDirectory}/libvirt/${daemon}-sock`)
  }
  const writable = daemons.map(daemon => `${places.systemDirectory}/${daemon}-sock`)
  return access === 'write' ? writable : [...writable.map(path => `${path}-ro`), ...writable]
}

function daemonNames(target: Target): string[] {
  const modular = modularDaemons[target.driver]
  const mode = target.parameters.get('mode')
  if (modular === undefined || mode === 'legacy') return ['libvirt']
  return mode === 'direct' ? [modular] : [modular, 'libvirt']
}

import { access as checkAccess } from 'node:fs/promises'
import { createConnection } from 'node:net'
import { LibvirtConnectionError } from './errors.js'
import { type SocketPlaces, socketCandidates, type Target } from './uri.js'
import { type Wire, wireOf } from './wire.js'

export interface DialOptions {
  access: 'read' | 'write'
  timeoutMs: number
  sshCommand?: string | undefined
  places: SocketPlaces
}

/** Where this process finds libvirt's sockets. */
export function systemPlaces(): SocketPlaces {
  return {
    systemDirectory: '/run/libvirt',
    runtimeDirectory: process.env['XDG_RUNTIME_DIR'],
    userId: process.geteuid?.() ?? -1,
  }
}

/** Opens the way to a target's daemon. Rejects with LibvirtConnectionError that says what to do. */
export async function dial(target: Target, options: DialOptions): Promise<Wire> {
  switch (target.carrier) {
    case 'unix':
      return dialUnix(target, options)
    case 'ssh': {
      const { dialSsh } = await import('./ssh.js')
      return dialSsh(target, options)
    }
    case 'tls': {
      const { dialTls } = await import('./tls.js')
      return dialTls(target, options)
    }
  }
}

/** Tries the candidates in order; a file that is there but dead gives way to the next one. */
async function dialUnix(target: Target, options: DialOptions): Promise<Wire> {
  const candidates = socketCandidates(target, options.access, options.places)
  let failure: LibvirtConnectionError | undefined
  for (const path of candidates) {
    try {
      return await connectUnix(path, options)
    } catch (error) {
      if (!(error instanceof LibvirtConnectionError)) throw error
      if (failure === undefined || error.kind !== 'missing-socket') failure = error
      if (error.kind === 'permission') break
    }
  }
  if (failure !== undefined && failure.kind !== 'missing-socket') throw failure
  throw new LibvirtConnectionError(
    'missing-socket',
    `no libvirt daemon for ${target.uri}: no socket ${candidates.join(' or ')}; ${startHint(target)}`,
  )
}

function startHint(target: Target): string {
  if (target.parameters.has('socket')) return 'is the path right and the daemon running?'
  if (target.path.startsWith('/session')) return 'start it with "virsh -c qemu:///session uri"'
  return 'is it running? (systemctl start libvirtd, or virtqemud.socket)'
}

async function connectUnix(path: string, options: DialOptions): Promise<Wire> {
  const socket = createConnection({ path })
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => {
      socket.destroy()
      reject(new LibvirtConnectionError('refused', `libvirt's socket ${path} does not accept connections`))
    }, options.timeoutMs)
    const onError = (error: NodeJS.ErrnoException) => {
      clearTimeout(timer)
      socket.destroy()
      socketError(path, error, options.access).then(reject, reject)
    }
    socket.once('error', onError)
    socket.once('connect', () => {
      clearTimeout(timer)
      socket.off('error', onError)
      resolve(wireOf(socket))
    })
  })
}

async function socketError(
  path: string,
  error: NodeJS.ErrnoException,
  access: DialOptions['access'],
): Promise<LibvirtConnectionError> {
  switch (error.code) {
    case 'ENOENT':
    case 'ENOTDIR':
      return new LibvirtConnectionError('missing-socket', `libvirt's socket ${path} does not exist`, error)
    case 'ECONNREFUSED':
      return new LibvirtConnectionError(
        'refused',
        `nobody listens on libvirt's socket ${path}: the daemon has stopped; start libvirtd (or virtqemud.socket)`,
        error,
      )
    case 'EAGAIN':
      return new LibvirtConnectionError(
        'refused',
        `libvirt's socket ${path} takes no more connections: so many wait already that the daemon must hang, or be full`,
        error,
      )
    case 'EACCES':
    case 'EPERM': {
      const readOnlyHint = access === 'write' ? ', or use only what a read-only connection can do' : ''
      return new LibvirtConnectionError(
        'permission',
        `no permission for libvirt's socket ${path}: run as root or as a member of group libvirt${readOnlyHint}`,
        error,
      )
    }
    default: {
      const there = await checkAccess(path).then(
        () => 'it exists',
        () => 'it cannot be reached',
      )
      return new LibvirtConnectionError('refused', `libvirt's socket ${path}: ${error.message} (${there})`, error)
    }
  }
}

import { readFile } from 'node:fs/promises'
import { isIP } from 'node:net'
import { homedir } from 'node:os'
import { connect, type TLSSocket } from 'node:tls'
import type { DialOptions } from './dial.js'
import { LibvirtConnectionError } from './errors.js'
import type { Target } from './uri.js'
import { type Wire, wireOf } from './wire.js'

const defaultPort = 16_514

interface Credentials {
  ca: Buffer
  cert: Buffer
  key: Buffer
}

interface CredentialPaths {
  ca: string
  cert: string
  key: string
}

/** Where libvirt looks for certificates: `?pkipath=`, then the user's directory, then the system's. */
function credentialPaths(target: Target): CredentialPaths[] {
  const flat = (directory: string) => ({
    ca: `${directory}/cacert.pem`,
    cert: `${directory}/clientcert.pem`,
    key: `${directory}/clientkey.pem`,
  })
  const explicit = target.parameters.get('pkipath')
  if (explicit !== undefined) return [flat(explicit)]
  const system = {
    ca: '/etc/pki/CA/cacert.pem',
    cert: '/etc/pki/libvirt/clientcert.pem',
    key: '/etc/pki/libvirt/private/clientkey.pem',
  }
  return process.geteuid?.() === 0 ? [system] : [flat(`${homedir()}/.pki/libvirt`), system]
}

async function loadCredentials(target: Target): Promise<Credentials> {
  const places = credentialPaths(target)
  const failures: string[] = []
  for (const place of places) {
    try {
      const [ca, cert, key] = await Promise.all([readFile(place.ca), readFile(place.cert), readFile(place.key)])
      return { ca, cert, key }
    } catch (error) {
      failures.push(error instanceof Error ? error.message : String(error))
    }
  }
  throw new LibvirtConnectionError(
    'auth',
    `no client certificate for ${target.uri}: ${failures.join('; ')} (name a directory with cacert.pem, clientcert.pem and clientkey.pem by ?pkipath=)`,
  )
}

/** Opens a mutually authenticated TLS connection and waits for the byte by which libvirt accepts our certificate. */
export async function dialTls(target: Target, options: DialOptions): Promise<Wire> {
  const credentials = await loadCredentials(target)
  const socket = connect({
    host: target.host,
    port: target.port ?? defaultPort,
    ...credentials,
    ...(isIP(target.host) === 0 ? { servername: target.host } : {}),
    rejectUnauthorized: target.parameters.get('no_verify') !== '1',
    minVersion: 'TLSv1.2',
  })
  try {
    await accepted(socket, target, options.timeoutMs)
  } catch (error) {
    socket.destroy()
    throw error
  }
  return wireOf(socket)
}

function accepted(socket: TLSSocket, target: Target, timeoutMs: number): Promise<void> {
  const where = `${target.host}:${target.port ?? defaultPort}`
  return new Promise((resolve, reject) => {
    const timer = setTimeout(
      () => settle(new LibvirtConnectionError('refused', `libvirt at ${where} did not finish TLS in ${timeoutMs} ms`)),
      timeoutMs,
    )
    const settle = (error?: LibvirtConnectionError) => {
      clearTimeout(timer)
      socket.off('error', onError)
      socket.off('close', onClose)
      socket.off('readable', onReadable)
      if (error === undefined) resolve()
      else reject(error)
    }
    const refusal = () =>
      new LibvirtConnectionError('auth', `libvirt at ${where} refused our certificate (see tls_allowed_dn_list there)`)
    const onError = (error: Error) => settle(tlsError(where, error))
    const onClose = () => settle(refusal())
    const onReadable = () => {
      const byte: unknown = socket.read(1)
      if (byte !== null) settle(Buffer.isBuffer(byte) && byte[0] === 1 ? undefined : refusal())
    }
    socket.on('error', onError)
    socket.on('close', onClose)
    socket.once('secureConnect', () => socket.on('readable', onReadable))
  })
}

function tlsError(where: string, error: NodeJS.ErrnoException): LibvirtConnectionError {
  const code = error.code ?? ''
  if (code === 'ECONNREFUSED' || code === 'ENOTFOUND' || code === 'EHOSTUNREACH' || code === 'ETIMEDOUT') {
    return new LibvirtConnectionError(
      'refused',
      `libvirt's TLS port at ${where} cannot be reached: ${error.message}; is libvirtd-tls.socket (or listen_tls) on?`,
      error,
    )
  }
  return new LibvirtConnectionError('auth', `TLS with libvirt at ${where} failed: ${error.message}`, error)
}

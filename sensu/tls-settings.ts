import { readFileSync } from 'node:fs'
import type { ConnectionOptions } from 'node:tls'
import { isObject } from './json-value.js'

/**
 * Reads how to speak TLS with a broker or Redis, Sensu's `ssl` and `tls`: `true`, or a hash that names the files of the own certificate
 * (`cert_chain_file`, `private_key_file`) and of the authority that the server's certificate must come from (`ca_file`). The files are read here.
 *
 * Sensu 1.9 verifies no server, so a server that it accepts is accepted. It is verified, certificate and host name, when there is a `ca_file`,
 * or `verify_peer` is true (then with the system's authorities); `verify_peer` false takes a `ca_file`'s effect away.
 *
 * `name` is what messages call the setting, e.g. `rabbitmq ssl`. Throws an Error that names what cannot be used.
 */
export function readTlsSettings(setting: unknown, name: string): ConnectionOptions {
  if (setting === true) return { rejectUnauthorized: false }
  if (!isObject(setting)) throw new Error(`${name} must be true or a hash`)
  const content = (key: string) => fileContent(setting[key], `${name} ${key}`)
  const ca = content('ca_file')
  const cert = content('cert_chain_file')
  const key = content('private_key_file')
  const verify = setting['verify_peer'] ?? ca !== undefined
  if (typeof verify !== 'boolean') throw new Error(`${name} verify_peer must be boolean`)
  return { rejectUnauthorized: verify, ...(ca && { ca }), ...(cert && { cert }), ...(key && { key }) }
}

function fileContent(path: unknown, name: string): Buffer | undefined {
  if (path === undefined || path === null) return undefined
  if (typeof path !== 'string') throw new Error(`${name} must be a string`)
  try {
    return readFileSync(path)
  } catch (cause) {
    throw new Error(`${name} cannot be read: ${path}`, { cause })
  }
}

/** Says in the log that a server is taken for the right one whatever its certificate says; `setting` is where to change that. */
export function warnWhenUnverified(
  tls: ConnectionOptions | undefined,
  host: string,
  setting: string,
  log: { warn(message: string, data?: Record<string, unknown>): void },
): void {
  if (tls?.rejectUnauthorized !== false) return
  log.warn('the certificate of the server is not verified', { host, setting: `${setting} ca_file` })
}

/** Why TLS could not be set up, as a log line's `reason`; undefined when the error is about something else. */
export function tlsFailure(error: unknown): string | undefined {
  const code = error instanceof Error && 'code' in error ? String(error.code) : ''
  if (code === 'EPROTO' || code.startsWith('ERR_SSL_')) return 'tls handshake failed'
  if (code === 'ERR_TLS_CERT_ALTNAME_INVALID') return 'the certificate is for another host'
  // codes of OpenSSL's verification, as Node names them
  return /CERT|SIGNATURE|^INVALID_(CA|PURPOSE)$|^(PATH_LENGTH|HOSTNAME)_/.test(code)
    ? 'the certificate is not trusted'
    : undefined
}

import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { run } from './process.js'

/** A certificate with its private key, as paths of PEM files. */
export interface KeyPair {
  certificate: string
  key: string
}

/** A private certificate authority with one server and one client certificate for 127.0.0.1 / localhost. */
export interface Certificates {
  directory: string
  /** The authority's own certificate (PEM file). */
  authority: string
  server: KeyPair
  client: KeyPair
}

/** Makes certificates that are valid for two days, with openssl. */
export async function createCertificates(directory: string): Promise<Certificates> {
  mkdirSync(directory, { recursive: true })
  const authority = await issue(directory, 'authority', ['basicConstraints=critical,CA:TRUE', 'keyUsage=keyCertSign'])
  const signer = ['-CA', authority.certificate, '-CAkey', authority.key]
  const names = 'subjectAltName=DNS:localhost,IP:127.0.0.1'
  const server = await issue(directory, 'server', [names, 'extendedKeyUsage=serverAuth'], signer)
  const client = await issue(directory, 'client', [names, 'extendedKeyUsage=clientAuth'], signer)
  return { directory, authority: authority.certificate, server, client }
}

async function issue(
  directory: string,
  name: string,
  extensions: readonly string[],
  signer: readonly string[] = [],
): Promise<KeyPair> {
  const certificate = join(directory, `${name}.pem`)
  const key = join(directory, `${name}-key.pem`)
  const configuration = join(directory, 'openssl.cnf')
  writeFileSync(configuration, '[req]\ndistinguished_name = subject\n[subject]\n')
  await run('openssl', [
    ...['req', '-x509', '-config', configuration, '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1'],
    ...['-nodes', '-days', '2', '-subj', `/CN=sensu-kvm ${name}`, '-keyout', key, '-out', certificate],
    ...extensions.flatMap(extension => ['-addext', extension]),
    ...signer,
  ])
  return { certificate, key }
}

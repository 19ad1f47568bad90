import { X509Certificate } from 'node:crypto'
import { isIP } from 'node:net'
import { domainToASCII } from 'node:url'

// Rules that settings of several handlers have, and how the values are told apart. None repeats a value: it may be secret.

/** Whether a text may be the name or address of a host, without a port; an IPv6 address without brackets. */
export function isHost(text: string): boolean {
  if (isIP(text) !== 0) return true
  // A name that ends in a number is an address with a mistake in it.
  return text.length <= 253 && /^\w[\w-]*(?:\.\w[\w-]*)*\.?$/.test(text) && !/(?:^|\.)\d+\.?$/.test(text)
}

/** For the name or address of a host. */
export function hostRule(text: string): string | undefined {
  return isHost(text) || isHost(domainToASCII(text))
    ? undefined
    : 'must be the name or the address of a host, without a port'
}

/** For the path of a directory. Whether it can be used is found out by using it, as that may change. */
export function directoryRule(text: string): string | undefined {
  return isPath(text) ? undefined : 'must be a path without null characters, and not longer than Linux allows'
}

/** For the path of a file to write to, likewise. */
export function filePathRule(text: string): string | undefined {
  return isPath(text) && /^\/.*[^/]$/s.test(text) ? undefined : 'must be the absolute path of a file'
}

/** Linux takes 255 bytes for a name, and 4,095 for all of them. */
function isPath(text: string): boolean {
  const names = text.split('/')
  return !text.includes('\0') && Buffer.byteLength(text) < 4096 && names.every(name => Buffer.byteLength(name) <= 255)
}

/** For words and passwords: more than one line is the wrong file, or a mistake in it. */
export function oneLineRule(text: string): string | undefined {
  return /[\0\r\n]/.test(text) ? 'must be one line, without null characters' : undefined
}

/** For the value of an HTTP header (RFC 9110, 5.5): ISO 8859-1 and no control characters but tabs. */
export function headerValueRule(text: string): string | undefined {
  if (/^[\t\x20-\x7e\x80-\xff]*$/.test(text)) return undefined
  return 'must not have control characters, nor any that a header cannot hold (beyond ISO 8859-1)'
}

/** For a file of certificates. What OpenSSL cannot read it would leave out without a word, and then trust nobody, or everybody. */
export function certificatesRule(pem: string): string | undefined {
  const blocks = pem.match(/-----BEGIN [^-]*CERTIFICATE-----.*?(?:-----END [^-]*CERTIFICATE-----|$)/gs) ?? []
  return blocks.length > 0 && blocks.every(isCertificate)
    ? undefined
    : 'must hold certificates (PEM), and no damaged one'
}

function isCertificate(pem: string): boolean {
  try {
    new X509Certificate(pem)
    return true
  } catch {
    return false
  }
}

/** The text of the rule for URLs: `a URL that starts with http:// or https://`. */
export function urlText(protocols: readonly string[]): string {
  return `a URL that starts with ${protocols.map(protocol => `${protocol}://`).join(' or ')}`
}

/** For a URL of one of these protocols that a connection can be made to. */
export function urlRule(text: string, protocols: readonly string[]): string | undefined {
  const [, protocol = ''] = /^\s*([a-z]+):\/\//i.exec(text) ?? []
  if (!protocols.includes(protocol.toLowerCase())) return `must be ${urlText(protocols)}`
  const { hostname, port } = URL.canParse(text) ? new URL(text) : { hostname: '', port: '' }
  const isReachable = isHost(hostname.replace(/^\[(.*)\]$/, '$1')) && port !== '0'
  return isReachable ? undefined : 'must name a host that there can be, and a port from 1 to 65535 if any'
}

import { Resolver } from 'node:dns/promises'
import { readFile } from 'node:fs/promises'
import { isIP } from 'node:net'

export interface LookupOptions {
  /** How long a name server has to answer. */
  readonly timeoutSeconds: number
  /** Where a file of this machine is to be read. */
  path(absolute: string): string
}

/**
 * The address of a host: itself, that of /etc/hosts, or that of the name servers and search domains of /etc/resolv.conf, IPv4 first; undefined
 * when nobody knows one in time. Unlike the system's own lookup it holds no thread while name servers do not answer.
 */
export async function lookUp(host: string, { timeoutSeconds, path }: LookupOptions): Promise<string | undefined> {
  if (isIP(host) !== 0) return host
  const known = addressIn(await textOf(path('/etc/hosts')), host)
  if (known !== undefined) return known
  const resolvConf = await textOf(path('/etc/resolv.conf'))
  const resolver = new Resolver({ timeout: Math.max(1, Math.ceil(timeoutSeconds * 1000)), tries: 1 })
  const servers = nameServers(resolvConf)
  if (servers.length > 0) resolver.setServers(servers)
  for (const name of candidates(host, resolvConf)) {
    const answers = [() => resolver.resolve4(name), () => resolver.resolve6(name)]
    for (const ask of answers) {
      const [address] = await ask().catch(() => [])
      if (address !== undefined) return address
    }
  }
  return undefined
}

function textOf(path: string): Promise<string> {
  return readFile(path, 'utf8').catch(() => '')
}

function addressIn(hosts: string, host: string): string | undefined {
  const entries = hosts.split('\n').map(line => line.replace(/#.*/, '').trim().split(/\s+/))
  const found = entries.filter(([, ...names]) => names.some(name => name.toLowerCase() === host.toLowerCase()))
  return (found.find(([address = '']) => isIP(address) === 4) ?? found[0])?.[0]
}

/** Those with an address that can be asked; a port may follow an IPv4 one. */
function nameServers(resolvConf: string): string[] {
  const servers = [...resolvConf.matchAll(/^nameserver\s+(\S+)/gm)].map(([, server = '']) => server)
  return servers.filter(server => isIP(server) !== 0 || isIP(server.replace(/:\d{1,5}$/, '')) === 4).slice(0, 3)
}

/** The names to ask for: a name with at least `ndots` dots as it is first, any other one below the search domains first. */
function candidates(host: string, resolvConf: string): string[] {
  if (host.endsWith('.')) return [host.slice(0, -1)]
  const domains = /^(?:search|domain)\s+(.+)$/m.exec(resolvConf)?.[1]?.trim().split(/\s+/) ?? []
  const dots = Number(/^options.*\bndots:(\d+)/m.exec(resolvConf)?.[1] ?? 1)
  const below = domains.slice(0, 6).map(domain => `${host}.${domain}`)
  return host.split('.').length > dots ? [host, ...below] : [...below, host]
}

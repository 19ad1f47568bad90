import { BlockList, isIP } from 'node:net'

/** A set of IP addresses: one, or all of a network. */
export interface Network {
  /** As it was written. */
  readonly text: string
  /** False for what is no address. */
  has(address: string): boolean
}

/** Reads `10.0.0.5`, `10.0.0.0/24`, `fd00::/8`. Throws with what to write. */
export function parseNetwork(text: string): Network {
  const [address = '', prefix, ...rest] = text.split('/')
  const family = familyOf(address)
  const longest = family === 'ipv4' ? 32 : 128
  const bits = prefix === undefined ? longest : Number(prefix)
  if (family === undefined || rest.length > 0 || !/^\d{1,3}$/.test(prefix ?? '0') || bits > longest)
    throw new Error('not an address: write 10.0.0.5, or a network such as 10.0.0.0/24 or fd00::/8')
  const list = new BlockList()
  list.addSubnet(address, bits, family)
  return { text, has: candidate => familyOf(candidate) === family && list.check(withoutZone(candidate), family) }
}

function familyOf(address: string): 'ipv4' | 'ipv6' | undefined {
  const version = isIP(address)
  return version === 0 ? undefined : version === 4 ? 'ipv4' : 'ipv6'
}

function withoutZone(address: string): string {
  return address.replace(/%.*$/, '')
}

/** Where a service listens. */
export interface Address {
  readonly host: string
  readonly port: number
}

/** Reads `HOST:PORT`, an IPv6 address in brackets. Throws an Error that names `option`. */
export function parseAddress(address: string, option: string): Address {
  const [, bracketed, plain, port] = /^(?:\[([^\]]+)\]|([^:]+)):(\d{1,5})$/.exec(address) ?? []
  const host = bracketed ?? plain
  if (host === undefined || Number(port) > 65_535) {
    throw new Error(`${option} ${address}: not an address: write HOST:PORT, for example 127.0.0.1:3030`)
  }
  return { host, port: Number(port) }
}

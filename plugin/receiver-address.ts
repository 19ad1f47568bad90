import type { HandlerContext } from './handler.js'
import { lookUp } from './name-lookup.js'
import { PassingError } from './retry.js'

/**
 * The IP address of a host, looked up without holding a thread, which would keep the process from ending in time when name servers do not answer.
 * Throws a PassingError.
 */
export async function receiverAddress(
  host: string,
  { path }: Pick<HandlerContext, 'path'>,
  timeoutMs: number,
): Promise<string> {
  // Both families are asked for, one after the other.
  const address = await lookUp(host, { timeoutSeconds: timeoutMs / 2000, path })
  if (address !== undefined) return address
  throw new PassingError(`cannot find the address of ${host}: no name server knows it, or none answers`)
}

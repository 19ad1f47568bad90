/** How much one request or packet may hold. */
export interface BatchLimits {
  readonly lines: number
  readonly bytes: number
}

/** A UDP datagram that no network on the way takes apart: below 1,500 bytes of Ethernet with room for tunnels. */
export const datagram: BatchLimits = { lines: 1000, bytes: 1400 }

/**
 * Groups lines, in their order, into texts that stay within the limits, each line ended by a line break. Lines that alone are longer are left out and
 * returned.
 */
export function batchesOf(
  lines: readonly string[],
  limits: BatchLimits,
): { batches: string[][]; tooLong: readonly string[] } {
  const batches: string[][] = []
  const tooLong: string[] = []
  let bytes = 0
  for (const line of lines) {
    const size = Buffer.byteLength(line) + 1
    if (size > limits.bytes) {
      tooLong.push(line)
      continue
    }
    const current = batches.at(-1)
    if (current === undefined || current.length >= limits.lines || bytes + size > limits.bytes) {
      batches.push([line])
      bytes = size
    } else {
      current.push(line)
      bytes += size
    }
  }
  return { batches, tooLong }
}

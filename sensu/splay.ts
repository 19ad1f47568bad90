import { createHash } from 'node:crypto'

/**
 * Milliseconds until a check's first run, so that all runs fall on times where the epoch in milliseconds modulo the
 * interval equals the key's hash modulo the interval: the first 8 bytes of its MD5, unsigned, little endian (Sensu 1.9).
 * The key is `<client>:<check>` for standalone checks and `<check>` for requests by a server. The interval is a whole
 * number of seconds greater than 0.
 */
export function splayDelayMs(key: string, intervalSeconds: number | bigint, nowMs: number): number {
  const hash = createHash('md5').update(key).digest().readBigUInt64LE(0)
  const interval = BigInt(intervalSeconds) * 1000n
  const offset = (hash - BigInt(Math.floor(nowMs))) % interval
  return Number(offset < 0n ? offset + interval : offset)
}

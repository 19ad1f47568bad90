import type { Row } from './measure.js'
import { measureStore } from './store.js'

/** What the Ruby server does on a machine of this size, measured once; it does not run here. */
const rubyServerPerSecond = 1800

/** Check results per second into Redis, with history and events. */
export async function benchStoredResults(): Promise<Row[]> {
  const measurements = await measureStore()
  return measurements.map(({ name, resultsPerSecond, cpuMicroseconds, redisCpuMicroseconds }) => ({
    subject: `results stored, ${name}`,
    unit: '/s' as const,
    ours: resultsPerSecond,
    peer: 'the Ruby server, as measured once',
    theirs: rubyServerPerSecond,
    loopLagMs: undefined,
    note: `${cpuMicroseconds.toFixed(0)} µs CPU a result here, ${redisCpuMicroseconds.toFixed(0)} µs in Redis`,
  }))
}

import { readFile } from 'node:fs/promises'
import { defineLocalCheck } from '../plugin/check.js'
import { Verdict } from '../plugin/outcome.js'
import { atLeast } from '../plugin/range.js'

/** Memory of this machine in mebibytes, as `free -m` shows it: whole ones, rounded down. */
export interface MemorySample {
  readonly totalMebibytes: number
  readonly availableMebibytes: number
}

export default defineLocalCheck({
  name: 'check-memory-percent',
  summary: 'Memory in use on this machine, what programs could still get counted as free (/proc/meminfo).',
  description: `Free is \`MemAvailable\`; a kernel before 3.14 has none, and there it is what is free, in buffers or in the page cache. The share in use is a whole number, rounded up.`,
  options: {
    warning: { type: 'number', alias: 'w', default: 80, summary: 'Warn from this share in use on (%).' },
    critical: { type: 'number', alias: 'c', default: 90, summary: 'Critical from this share in use on (%).' },
    perfdata: {
      type: 'flag',
      alias: 'p',
      summary: 'Put the performance data of the Ruby plugin into the line; they say "free" of what is in use.',
    },
  },
  rubyLine: (status, text) => `MEM ${status} - ${text}`,
  async collect(_, { path, stage }): Promise<MemorySample> {
    stage('reading /proc/meminfo')
    return memoryOf(await readFile(path('/proc/meminfo'), 'latin1'))
  },
  evaluate({ totalMebibytes, availableMebibytes }, { warning, critical, perfdata }) {
    const verdict = new Verdict()
    const value = 100 - Math.floor((availableMebibytes / totalMebibytes) * 100)
    const limits = { warning: atLeast(warning), critical: atLeast(critical) }
    verdict.judge({ name: 'used_percent', what: 'system memory usage', value, unit: '%', min: 0, max: 100, ...limits })
    const data = perfdata ? ` | free memory=${value}%;${warning};${critical};0` : ''
    verdict.summary = `system memory usage: ${value}%${data}`
    return verdict
  },
})

/** Throws when the text does not say how much memory there is and how much of it could be had. */
function memoryOf(text: string): MemorySample {
  const kibibytes = new Map<string | undefined, number>(
    [...text.matchAll(/^(\w+): +(\d+) kB$/gm)].map(([, name, value]) => [name, Number(value)]),
  )
  const sum = (...names: readonly string[]) =>
    names.reduce((total, name) => total + (kibibytes.get(name) ?? Number.NaN), 0)
  const total = sum('MemTotal')
  const available = kibibytes.get('MemAvailable') ?? sum('MemFree', 'Buffers', 'Cached')
  if (!(total >= 1024 && available >= 0)) {
    throw new Error('/proc/meminfo does not say how much memory there is, and how much is available: is /proc mounted?')
  }
  return { totalMebibytes: Math.floor(total / 1024), availableMebibytes: Math.floor(available / 1024) }
}

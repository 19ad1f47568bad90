import { readFile } from 'node:fs/promises'
import { defineLocalCheck } from '../plugin/check.js'
import { Verdict } from '../plugin/outcome.js'
import { atLeast } from '../plugin/range.js'
import { pluginLine, rubyFloat, rubyRound } from '../plugin/ruby.js'

const minutes = [1, 5, 15] as const

/** Run queue lengths of this machine, means over one, five and fifteen minutes. */
export interface LoadSample {
  readonly cpus: number
  readonly loads: readonly number[]
}

export default defineLocalCheck({
  name: 'check-load',
  summary: 'Load average of this machine, per CPU (/proc/loadavg).',
  description:
    'Each of the three means (over 1, 5 and 15 minutes) is divided by the number of CPUs and judged by its own limit. All three limits must be given.',
  options: {
    warn: {
      type: 'string',
      alias: 'w',
      default: '2.75,2.5,2.0',
      summary: 'Warn from these loads per CPU on: 1, 5 and 15 minutes, joined by commas.',
    },
    crit: {
      type: 'string',
      alias: 'c',
      default: '3.5,3.25,3.0',
      summary: 'Critical from these loads per CPU on: 1, 5 and 15 minutes, joined by commas.',
    },
  },
  rubyLine: pluginLine('CheckLoad'),
  async collect(options, { path, stage }) {
    const limits = { warning: limitsOf('--warn', options.warn), critical: limitsOf('--crit', options.crit) }
    stage('reading /proc/loadavg')
    const [loads, cpus] = await Promise.all(
      ['/proc/loadavg', '/proc/cpuinfo'].map(file => readFile(path(file), 'latin1')),
    )
    return { ...sampleOf(loads ?? '', cpus ?? ''), limits }
  },
  evaluate({ cpus, loads, limits }) {
    const verdict = new Verdict()
    const perCpu = loads.map(load => rubyRound(load / cpus, 2))
    for (const [index, value] of perCpu.entries()) {
      const [warning, critical] = [limits.warning[index], limits.critical[index]].map(limit =>
        atLeast(limit ?? Number.NaN),
      )
      const name = `per_cpu_${minutes[index]}min`
      verdict.judge({ name, what: `load per CPU over ${minutes[index]} min`, value, min: 0, warning, critical })
    }
    verdict.summary = `Per core load average (${cpus} CPU): [${perCpu.map(rubyFloat).join(', ')}]`
    return verdict
  },
})

/** Throws when the text is not three numbers. */
function limitsOf(option: string, text: string): number[] {
  const limits = text.split(',').map(part => part.trim())
  if (limits.length !== minutes.length || !limits.every(limit => /^-?(?:\d+\.?\d*|\.\d+)$/.test(limit))) {
    throw new Error(`${option} ${text}: write three numbers, such as 2.75,2.5,2.0`)
  }
  return limits.map(Number)
}

function sampleOf(loadavg: string, cpuinfo: string): LoadSample {
  const [, ...loads] = /^(\d+\.\d+) (\d+\.\d+) (\d+\.\d+) /.exec(loadavg) ?? []
  const cpus = cpuinfo.match(/^processor/gm)?.length ?? 0
  if (loads.length === 0 || cpus === 0) throw new Error('Could not read load average from /proc or `uptime`')
  return { cpus, loads: loads.map(Number) }
}

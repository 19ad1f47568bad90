import { readFileSync } from 'node:fs'
import t from 'tap'
import check from '../../checks/check-load.js'
import { checkContext, runExecutable } from '../support/checks.js'
import { firstLineOf, runnerOf } from '../support/local-checks.js'

/** A machine of four CPUs with these loads. */
function machine(loads: string, cpuinfo = 'processor\t: 0\nmodel name\t: a processor\n\n'.repeat(4)) {
  return { proc: { loadavg: `${loads} 2/345 6789\n`, cpuinfo } }
}

t.test('the loads per CPU are judged at, below and above each limit, each by its own', async t => {
  const table: [loads: string, argv: string[], line: string, status: number][] = [
    ['0.00 0.04 8.05', [], 'CheckLoad WARNING: Per core load average (4 CPU): [0.0, 0.01, 2.01]', 1],
    ['0.52 0.58 0.59', [], 'CheckLoad OK: Per core load average (4 CPU): [0.13, 0.15, 0.15]', 0],
    ['10.96 0.00 0.00', [], 'CheckLoad OK: Per core load average (4 CPU): [2.74, 0.0, 0.0]', 0],
    ['11.00 0.00 0.00', [], 'CheckLoad WARNING: Per core load average (4 CPU): [2.75, 0.0, 0.0]', 1],
    ['0.00 10.00 0.00', [], 'CheckLoad WARNING: Per core load average (4 CPU): [0.0, 2.5, 0.0]', 1],
    ['14.00 0.00 0.00', [], 'CheckLoad CRITICAL: Per core load average (4 CPU): [3.5, 0.0, 0.0]', 2],
    ['0.00 0.00 12.00', [], 'CheckLoad CRITICAL: Per core load average (4 CPU): [0.0, 0.0, 3.0]', 2],
    ['4.00 4.00 4.00', ['-w', '1,2,3'], 'CheckLoad WARNING: Per core load average (4 CPU): [1.0, 1.0, 1.0]', 1],
    ['4.00 4.00 4.00', ['--crit=9, 9, 1'], 'CheckLoad CRITICAL: Per core load average (4 CPU): [1.0, 1.0, 1.0]', 2],
  ]
  for (const [loads, argv, ...expected] of table) {
    const run = await runnerOf(check, t.testdir(machine(loads)))
    t.same(firstLineOf(await run(...argv)), expected)
  }
})

t.test('limits that are not three numbers, and a machine without a load, are UNKNOWN', async t => {
  const run = await runnerOf(check, t.testdir(machine('1.00 1.00 1.00')))
  for (const limits of ['5', '5,4', '5,4,three', '1,2,3,4', ',,']) {
    const line = `CheckLoad UNKNOWN: --warn ${limits}: write three numbers, such as 2.75,2.5,2.0`
    t.same(firstLineOf(await run('-w', limits)), [line, 3])
  }
  for (const broken of [machine('1.00'), machine('1.00 1.00 1.00', '')]) {
    const line = 'CheckLoad UNKNOWN: Could not read load average from /proc or `uptime`'
    t.same(firstLineOf(await (await runnerOf(check, t.testdir(broken)))()), [line, 3])
  }
})

t.test('this machine has the load and the CPUs that the kernel tells', async t => {
  const { cpus, loads } = await check.collect(undefined, check.parseOptions(), checkContext())
  t.equal(cpus, readFileSync('/proc/cpuinfo', 'utf8').split(/^processor/m).length - 1)
  t.equal(loads.length, 3)
})

t.test('the executable prints the line of the Ruby plugin, and what it is made of', async t => {
  const env = { SENSU_KVM_ROOT: t.testdir(machine('11.00 0.60 0.40')) }
  t.same(await runExecutable('check-load.rb', [], { env }), {
    status: 1,
    stdout: `CheckLoad WARNING: Per core load average (4 CPU): [2.75, 0.15, 0.1]
| per_cpu_1min=2.75;@2.75:;@3.5:;0 per_cpu_5min=0.15;@2.5:;@3.25:;0 per_cpu_15min=0.1;@2:;@3:;0
`,
    stderr: '',
  })
})

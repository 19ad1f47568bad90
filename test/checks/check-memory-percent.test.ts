import { execFileSync } from 'node:child_process'
import t, { type Test } from 'tap'
import check from '../../checks/check-memory-percent.js'
import { statusOf } from '../../plugin/output.js'
import { checkContext, runExecutable } from '../support/checks.js'

const name = 'check-memory-percent'

/** A machine whose /proc/meminfo has these lines, in kibibytes. */
function machine(t: Test, kibibytes: Readonly<Record<string, number>>): string {
  const lines = Object.entries(kibibytes).map(([field, value]) => `${field}: ${String(value).padStart(8)} kB\n`)
  return t.testdir({ proc: { meminfo: lines.join('') } })
}

t.test('the share in use is judged at, below and above each limit', async t => {
  const judged = (availableMebibytes: number, raw = {}) => {
    const outcome = check.evaluate({ totalMebibytes: 1000, availableMebibytes }, check.parseOptions(raw))
    return [statusOf(outcome), outcome.summary]
  }
  t.same(judged(1000), ['OK', 'system memory usage: 0%'])
  t.same(judged(899), ['OK', 'system memory usage: 11%'], 'rounded up')
  t.same(judged(210), ['OK', 'system memory usage: 79%'])
  t.same(judged(209), ['WARNING', 'system memory usage: 80%'])
  t.same(judged(110), ['WARNING', 'system memory usage: 89%'])
  t.same(judged(100), ['CRITICAL', 'system memory usage: 90%'])
  t.same(judged(0), ['CRITICAL', 'system memory usage: 100%'])
  t.same(judged(100, { warning: 95, critical: 99 }), ['OK', 'system memory usage: 90%'])
  t.same(judged(890, { perfdata: true }), ['OK', 'system memory usage: 11% | free memory=11%;80;90;0'])
})

t.test('free is what programs could get; on an old kernel, what is free, in buffers or cached', async t => {
  const read = (t: Test, kibibytes: Readonly<Record<string, number>>) => {
    const root = machine(t, kibibytes)
    return check.collect(undefined, check.parseOptions(), checkContext({ path: absolute => root + absolute }))
  }
  const old = { MemTotal: 1_048_576, MemFree: 102_400, Buffers: 10_240, Cached: 1023 }
  t.same(await read(t, { ...old, MemAvailable: 512_000 }), { totalMebibytes: 1024, availableMebibytes: 500 })
  t.same(await read(t, old), { totalMebibytes: 1024, availableMebibytes: 110 }, 'whole mebibytes, as free -m shows')
  await t.rejects(read(t, { MemTotal: 1_048_576 }), {
    message: /^\/proc\/meminfo does not say how much memory there is/,
  })
  await t.rejects(read(t, { MemAvailable: 1_048_576 }), { message: /does not say/ })
})

t.test('this machine has the memory that free -m shows', async t => {
  const { totalMebibytes, availableMebibytes } = await check.collect(undefined, check.parseOptions(), checkContext())
  const [, total, ...others] =
    /^Mem:(.*)$/m.exec(execFileSync('free', ['-m'], { encoding: 'utf8' }))?.[1]?.split(/ +/) ?? []
  t.equal(totalMebibytes, Number(total))
  t.ok(Math.abs(availableMebibytes - Number(others.at(-1))) < totalMebibytes / 50)
})

t.test('the executable prints the line of the Ruby plugin, under both names', async t => {
  const env = { SENSU_KVM_ROOT: machine(t, { MemTotal: 1_048_576, MemAvailable: 943_718 }) }
  const line = 'MEM OK - system memory usage: 11%\n'
  const data = '| used_percent=11%;@80:;@90:;0;100\n'
  t.same(await runExecutable(name, [], { env }), { status: 0, stdout: line + data, stderr: '' })
  t.same(await runExecutable(`${name}.rb`, ['-w', '80', '-c', '90'], { env }), {
    status: 0,
    stdout: line + data,
    stderr: '',
  })
  t.same(await runExecutable(`${name}.rb`, ['-w5', '-c11', '-p'], { env }), {
    status: 2,
    stdout: 'MEM CRITICAL - system memory usage: 11% | free memory=11%;5;11;0\n',
    stderr: '',
  })
  t.same(await runExecutable(name, ['-w', 'lots'], { env }), {
    status: 3,
    stdout: 'MEM UNKNOWN - --warning lots: not a number\n',
    stderr: '',
  })
  t.match(await runExecutable(name, [], { env: { SENSU_KVM_ROOT: '/nowhere' } }), {
    status: 3,
    stdout: "MEM UNKNOWN - ENOENT: no such file or directory, open '/nowhere/proc/meminfo'\n",
    stderr: '',
  })
})

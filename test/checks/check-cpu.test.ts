import { lstatSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import check from '../../checks/check-cpu.js'
import { checkContext, runExecutable } from '../support/checks.js'
import { firstLineOf, runnerOf } from '../support/local-checks.js'

const stat = 'cpu  1000 200 300 8000 100 10 20 30 40 5\ncpu0 1000 200 300 8000 100 10 20 30 40 5\nintr 5\n'
const before = '[900.0, 190.0, 250.0, 7000.0, 93.0, 10.0, 17.0, 30.0, 31.0, 5.0]'
/** What the Ruby plugin makes of these two readings. */
const shares =
  'user=8.48 nice=0.85 system=4.24 idle=84.82 iowait=0.59 irq=0.0 softirq=0.25 steal=0.0 guest=0.76 guest_nice=0.0'

t.test('the total, or the kind of time asked for, is judged as the Ruby plugin judges it', async t => {
  const table: [argv: string[], line: string, status: number][] = [
    [[], `CheckCPU TOTAL OK: total=13.83 ${shares}`, 0],
    [['-w', '13.9'], `CheckCPU TOTAL OK: total=13.83 ${shares}`, 0],
    [['-w', '12'], `CheckCPU TOTAL WARNING: total=13.83 ${shares}`, 1],
    [['-c', '13.8'], `CheckCPU TOTAL CRITICAL: total=13.83 ${shares}`, 2],
    [['--iowait', '-w', '2'], `CheckCPU IOWAIT OK: total=13.83 ${shares}`, 0],
    [['--user', '--system', '-w', '1'], `CheckCPU SYSTEM WARNING: total=13.83 ${shares}`, 1],
    [['--guest_nice', '-l', '-w', '0', '-c', '-1'], `CheckCPU GUEST_NICE WARNING: total=13.83 ${shares}`, 1],
    [['--less_than', '-w', '50', '-c', '20'], `CheckCPU TOTAL CRITICAL: total=13.83 ${shares}`, 2],
    [['--idle-metrics', 'idle'], `CheckCPU TOTAL OK: total=15.18 ${shares}`, 0],
  ]
  const root = t.testdir({ proc: { stat }, cache: before })
  const run = await runnerOf(check, root)
  for (const [argv, ...expected] of table) {
    writeFileSync(join(root, 'cache'), before)
    t.same(firstLineOf(await run('--cache-file', join(root, 'cache'), ...argv)), expected, argv.join(' '))
  }
})

t.test('the file keeps the reading as the Ruby plugin does, and is replaced, not followed', async t => {
  const root = t.testdir({ proc: { stat }, cache: before, victim: 'precious' })
  const run = await runnerOf(check, root)
  await run('--cache-file', join(root, 'cache'))
  t.equal(
    readFileSync(join(root, 'cache'), 'utf8'),
    '[1000.0, 200.0, 300.0, 8000.0, 100.0, 10.0, 20.0, 30.0, 40.0, 5.0]',
  )
  symlinkSync(join(root, 'victim'), join(root, 'link'))
  await run('--cache-file', join(root, 'link'), '--sleep', '0')
  t.equal(readFileSync(join(root, 'victim'), 'utf8'), 'precious')
  t.ok(lstatSync(join(root, 'link')).isFile())
  const [line, status] = firstLineOf(await run('--cache-file', join(root, 'missing/cache'), '--sleep', '0'))
  t.match(line, /^CheckCPU TOTAL UNKNOWN: ENOENT: .*missing\/cache/)
  t.equal(status, 3)
})

t.test('without a file that can be read it measures; older kernels have fewer kinds', async t => {
  const root = t.testdir({
    proc: { stat: 'cpu  1000 200 300 8000\n' },
    cache: '[900.0, 190.0, 250.0, 7000.0]',
    bad: '[1,',
  })
  const run = await runnerOf(check, root)
  t.same(firstLineOf(await run('--cache-file', join(root, 'cache'))), [
    'CheckCPU TOTAL OK: total=13.79 user=8.62 nice=0.86 system=4.31 idle=86.21',
    0,
  ])
  const still =
    'CheckCPU TOTAL UNKNOWN: no CPU time passed between the two readings: measure longer with --sleep, or remove the file of --cache-file'
  t.same(firstLineOf(await run('--cache-file', join(root, 'bad'), '--sleep', '0.01')), [still, 3])
  t.same(firstLineOf(await run('--sleep', '0')), [still, 3])
  t.match(firstLineOf(await run('--proc-path', '/nowhere'))[0], /^CheckCPU TOTAL UNKNOWN: ENOENT: .*\/nowhere\/stat/)
  t.match(await run('--proc-path', '/'), { output: /\/stat has no line|ENOENT/, status: 3 })
})

t.test('this machine is measured for as long as asked, and others run meanwhile', async t => {
  let ticks = 0
  const timer = setInterval(() => ticks++, 5)
  const { time } = await check.collect(undefined, check.parseOptions({ sleep: 0.1 }), checkContext())
  clearInterval(timer)
  t.ok(ticks > 3, 'the wait blocks nobody')
  t.equal(time.size, 10)
  const gone = new AbortController()
  const waiting = check.collect(undefined, check.parseOptions({ sleep: 60 }), checkContext({ signal: gone.signal }))
  gone.abort()
  await t.rejects(waiting, { name: 'AbortError' }, 'a run that is stopped does not wait on')
})

t.test('the executable prints the line of the Ruby plugin', async t => {
  const cache = join(t.testdir({ cache: before, proc: { stat } }), 'cache')
  const env = { SENSU_KVM_ROOT: join(cache, '..') }
  const { stdout, status } = await runExecutable('check-cpu.rb', ['--cache-file', cache, '--sleep', '60'], { env })
  t.equal(status, 0)
  t.equal(
    stdout,
    `CheckCPU TOTAL OK: total=13.83 ${shares}
| total_percent=13.825276%;@80:;@100:;0;100 user_percent=8.481764%;;;0;100 nice_percent=0.848176%;;;0;100 system_percent=4.240882%;;;0;100 idle_percent=84.817642%;;;0;100 iowait_percent=0.593723%;;;0;100 irq_percent=0%;;;0;100 softirq_percent=0.254453%;;;0;100 steal_percent=0%;;;0;100 guest_percent=0.763359%;;;0;100 guest_nice_percent=0%;;;0;100
`,
  )
  t.match(await runExecutable('check-cpu', ['--sleep', '0.2', '-c', '101']), {
    status: /[01]/,
    stdout: /^CheckCPU TOTAL (OK|WARNING): total=\d+\.\d+ user=/,
  })
})

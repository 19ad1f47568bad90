import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import check from '../../checks/check-process.js'
import { checkContext, runExecutable } from '../support/checks.js'
import { firstLineOf, runnerOf } from '../support/local-checks.js'

interface Given {
  readonly name: string
  readonly args?: readonly string[]
  readonly state?: string
  readonly uid?: number
  readonly threads?: number
  readonly ageSeconds?: number
  readonly cpuSeconds?: number
  readonly virtualKibibytes?: number
  readonly residentKibibytes?: number
}

const uptimeSeconds = 100_000

/** A machine with these processes, numbered from 9,000,001 on (which is no process of a real one). */
function machine(t: Test, processes: readonly Given[]): string {
  const directories = processes.map((given, index) => {
    const { name, args = [], state = 'S', uid = 0, threads = 1, ageSeconds = 1000, cpuSeconds = 0 } = given
    const { virtualKibibytes = 1000, residentKibibytes = 100 } = given
    const pid = 9_000_001 + index
    const [user, system] = [Math.round(cpuSeconds * 75), Math.round(cpuSeconds * 25)]
    const started = (uptimeSeconds - ageSeconds) * 100
    const stat = `${pid} (${name}) ${state} 1 1 1 0 -1 4194560 1 2 3 4 ${user} ${system} 7 8 20 0 ${threads} 0 ${started} ${virtualKibibytes * 1024} 25 99\n`
    const status = `Name:\t${name}\nUid:\t0\t${uid}\t0\t0\nVmRSS:\t ${residentKibibytes} kB\n`
    return [pid, { stat, status, cmdline: args.map(arg => `${arg}\0`).join('') }]
  })
  const passwd = 'root:x:0:0::/root:/bin/sh\nwww-data:x:33:33::/:/bin/sh\nsystemd-network:x:998:998::/:/bin/sh\n'
  const proc = { uptime: `${uptimeSeconds}.55 12345.67\n`, stat: 'cpu', ...Object.fromEntries(directories) }
  return t.testdir({ proc, etc: { passwd }, 'web.pid': '9000002\n', 'old.pid': '77\n', 'empty.pid': '' })
}

const processes: readonly Given[] = [
  { name: 'systemd', args: ['/sbin/init', 'splash'], ageSeconds: 99_999, cpuSeconds: 500 },
  { name: 'nginx', args: ['nginx: master process', '-g daemon off;'], threads: 4, virtualKibibytes: 70_000 },
  { name: 'nginx', args: ['nginx: worker process'], uid: 33, ageSeconds: 90, residentKibibytes: 9000 },
  { name: 'a (odd) name', args: ['\u001b[2Jline\nbreak'], uid: 998, cpuSeconds: 905 },
  { name: 'kworker/0:1', state: 'D', virtualKibibytes: 0 },
  { name: 'gone', state: 'Z', ageSeconds: 5 },
]

t.test('processes are found as the Ruby plugin finds them, and told in its words', async t => {
  const root = machine(t, processes)
  const run = await runnerOf(check, root)
  const table: [argv: string[], text: string][] = [
    [[], '6 matching processes'],
    [['-p', 'nginx'], '2 matching processes; cmd /nginx/'],
    [['-p', 'nginx|init$|splash'], '3 matching processes; cmd /nginx|init$|splash/'],
    [['-p', '-g daemon'], '1 matching processes; cmd /-g daemon/'],
    [['-p', '^\\[kworker'], '1 matching processes; cmd /^\\[kworker/'],
    [['-p', '<defunct>'], '1 matching processes; cmd /<defunct>/'],
    [['-p', '\\[2Jline\\?break$'], '1 matching processes; cmd /\\[2Jline\\?break$/'],
    [['-x', 'nginx', '-p', '/|defunct'], '3 matching processes; cmd //|defunct/'],
    [['-s', 'D,Z'], '2 matching processes; state D,Z'],
    [['-u', 'www-data'], '1 matching processes; user www-data'],
    [['-u', '33,systemd+'], '2 matching processes; user 33,systemd+'],
    [['-z', '1000'], '1 matching processes; vsz > 1000'],
    [['-r', '100'], '1 matching processes; rss > 100'],
    [['-P', '90'], '1 matching processes; cpu > 90.0'],
    [['-P', '90.5'], '0 matching processes; cpu > 90.5'],
    [['-T', '3'], '1 matching processes; thcount > 3'],
    [['-E', '90'], '1 matching processes; esec < 90'],
    [['-e', '999'], '4 matching processes; esec > 999'],
    [['-e', '1000'], '1 matching processes; esec > 1000'],
    [['-i', '500'], '1 matching processes; csec > 500'],
    [['-I', '500', '-i', '-1'], '4 matching processes; csec < 500; csec > -1'],
    [['-f', join(root, 'web.pid')], `1 matching processes; pid ${join(root, 'web.pid')}`],
    [['-f', join(root, 'old.pid')], `0 matching processes; pid ${join(root, 'old.pid')}`],
    [['-f', join(root, 'empty.pid')], `0 matching processes; pid ${join(root, 'empty.pid')}`],
    [['-p', 'nginx', '-t', 'vsz'], '2 matching processes; cmd /nginx/; vsz == 71000'],
    [['-p', 'nginx', '-t', 'rss'], '2 matching processes; cmd /nginx/; rss == 9100'],
    [['-p', 'odd|break|init', '-t', 'cpu'], '2 matching processes; cmd /odd|break|init/; cpu == 90'],
    [['-t', 'thcount'], '6 matching processes; thcount == 9'],
    [['-p', 'nowhere', '-t', 'rss'], '0 matching processes; cmd /nowhere/; rss == 0'],
  ]
  for (const [argv, text] of table) {
    const [line] = firstLineOf(await run(...argv))
    t.match(line, /^CheckProcess (?:OK|CRITICAL): Found /)
    t.equal(line.replace(/^.*?Found /, ''), text, argv.join(' '))
  }
})

t.test('the number is judged at, below and above each limit', async t => {
  const run = await runnerOf(check, machine(t, processes))
  const status = async (...argv: string[]) => (await run('-p', 'nginx', ...argv)).status
  t.equal(await status(), 0)
  t.equal(await status('-C', '2', '-W', '2'), 0)
  t.equal(await status('-W', '3'), 1)
  t.equal(await status('-C', '3', '-W', '3'), 2)
  t.equal(await status('-w', '2', '-c', '2'), 0)
  t.equal(await status('-w', '1', '-c', '2'), 1)
  t.equal(await status('-w', '1', '-c', '1'), 2)
  t.equal((await run('-p', 'nowhere')).status, 2)
  t.equal((await run('-p', 'nowhere', '-C', '0')).status, 1)
  t.equal((await run('-p', 'nowhere', '-C', '0', '-W', '0')).status, 0)
  t.match((await run('-s', 'Z', '-w', '5', '-c', '10')).output, '\n| found=1;1:5;1:10;0\n')
})

t.test('what cannot be determined is UNKNOWN, a missing PID file on request CRITICAL', async t => {
  const run = await runnerOf(check, machine(t, processes))
  t.same(firstLineOf(await run('-f', '/nowhere/pid')), [
    'CheckProcess UNKNOWN: Could not read pid file /nowhere/pid',
    3,
  ])
  t.same(firstLineOf(await run('-f', '/nowhere/pid', '-F')), [
    'CheckProcess CRITICAL: Could not read pid file /nowhere/pid',
    2,
  ])
  t.same(firstLineOf(await run('-u', 'nobody-here')), [
    "CheckProcess UNKNOWN: --user nobody-here: not in /etc/passwd: give the user's number",
    3,
  ])
  t.match(firstLineOf(await run('-p', '('))[0], /^CheckProcess UNKNOWN: --pattern \(: Invalid regular expression/)
  t.same(firstLineOf(await run('-t', 'etime')), [
    'CheckProcess UNKNOWN: --metric etime: not one of vsz, rss, cpu, thcount',
    3,
  ])
  t.match(firstLineOf(await (await runnerOf(check, '/nowhere'))()), [/^CheckProcess UNKNOWN: ENOENT/, 3])
})

t.test('a real process is found with its size, age and user; the check itself and its parent are not', async t => {
  const marker = `marker-${process.pid}`
  const child = spawn(process.execPath, ['-e', 'console.log(1); setInterval(() => {}, 1000)', marker])
  t.teardown(() => child.kill())
  await once(child.stdout, 'data')
  const { pid } = child
  const found = async (raw: Record<string, string | boolean>) => {
    const sample = await check.collect(undefined, check.parseOptions(raw), checkContext())
    return 'processes' in sample ? sample.processes : []
  }
  const uid = String(process.getuid?.())
  t.match(await found({ pattern: `${marker}$`, user: uid }), [
    { pid, state: /[SR]/, uid: Number(uid), command: process.execPath },
  ])
  const [one] = await found({ pattern: marker, metric: 'rss', 'esec-under': '600' } as never)
  t.ok((one?.residentKibibytes ?? 0) > 10_000 && (one?.virtualKibibytes ?? 0) > (one?.residentKibibytes ?? 0))
  t.ok((one?.threads ?? 0) > 1 && (one?.cpuSeconds ?? 0) < 60)
  // its command line has the pattern, too
  t.match(await runExecutable('check-process.rb', ['-p', marker]), {
    status: 0,
    stdout: `CheckProcess OK: Found 1 matching processes; cmd /${marker}/\n| found=1;1:;1:;0\n`,
  })
  t.match((await runExecutable('check-process', ['-p', marker, '-m'])).stdout, /Found 2 /)
  const numbers = async (raw: Record<string, boolean>) => (await found(raw)).map(one => one.pid)
  t.notOk((await numbers({})).some(number => number === process.pid || number === process.ppid))
  t.ok((await numbers({ 'match-self': true })).includes(process.pid))
  t.ok((await numbers({ 'match-parent': true })).includes(process.ppid))
})

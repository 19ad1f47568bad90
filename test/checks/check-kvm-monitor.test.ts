import t from 'tap'
import check, { type GuestMonitor } from '../../checks/check-kvm-monitor.js'
import type { MonitorAnswer } from '../../libvirt/guest-monitors.js'
import { procedures } from '../../libvirt/procedures.js'
import type { RawValues } from '../../plugin/options.js'
import { statusOf } from '../../plugin/output.js'
import { waitUntil } from '../../scripts/services/process.js'
import { checkContext, runExecutable } from '../support/checks.js'
import { type FakeGuest, fakeGuests, numberedGuests } from '../support/fake-guests.js'
import { guest as healthyGuest, libvirtd, ownGuest } from '../support/services.js'

const name = 'check-kvm-monitor'
const healthy = { 'balloon.current': 1024, 'balloon.rss': 1024 }

function guest(answer: GuestMonitor['answer'], change: Partial<GuestMonitor> = {}): GuestMonitor {
  return { name: 'web1', uuid: 'u', id: 1, answer, ...change }
}

function judged(guests: readonly GuestMonitor[], raw: RawValues = {}) {
  const outcome = check.evaluate(guests, check.parseOptions(raw))
  const messages = outcome.findings.map(({ message }) => message)
  return { status: statusOf(outcome), messages, metrics: outcome.metrics, summary: outcome.summary }
}

const answered = (value?: unknown): MonitorAnswer => ({ kind: 'answered', value })
const silent = (seconds: number, holder?: string): MonitorAnswer => ({ kind: 'silent', seconds, holder })

t.test('a QEMU that does not answer is judged by how long, at, below and above each limit', async t => {
  for (const [seconds, status] of [
    [0.9, 'OK'],
    [1, 'OK'],
    [1.01, 'WARNING'],
    [10, 'WARNING'],
    [10.01, 'CRITICAL'],
    [86_400, 'CRITICAL'],
  ] as const) {
    t.equal(judged([guest(silent(seconds))]).status, status, `${seconds} s`)
  }
  t.equal(judged([guest(silent(5))], { 'silent-warning': '5', 'silent-critical': '60' }).status, 'OK')
  t.equal(judged([guest(silent(61))], { 'silent-critical': '60' }).status, 'CRITICAL')
  t.same(judged([guest(silent(45, 'remoteDispatchDomainSave'))]).messages, [
    'its QEMU has not answered for 45 s with its lock held by remoteDispatchDomainSave (critical above 10 s)',
  ])
  t.same(judged([guest(silent(45, ''))]).messages, [
    'its QEMU has not answered for 45 s with its lock held by a call it does not name (critical above 10 s)',
  ])
  t.match(judged([guest(silent(2))]).metrics, [{ name: 'silent_time', value: 2, unit: 's', labels: { guest: 'web1' } }])
})

t.test('a monitor that libvirt has lost is CRITICAL whatever the time', async t => {
  const control = { state: 'error', errorReason: 'monitor', stateTimeMs: 0 } as const
  t.match(judged([guest(silent(0), { control })]), {
    status: 'CRITICAL',
    messages: [/not answered for 0 s$/, "libvirt has lost its QEMU's monitor (monitor): see libvirt's and QEMU's logs"],
  })
})

t.test('busy is no alert, not asked and refused are UNKNOWN, and all well is one line', async t => {
  t.match(judged([guest(answered()), guest({ kind: 'busy', seconds: 20 })]), {
    status: 'OK',
    summary: '1 monitor answers',
    messages: ['its QEMU answers', 'another job of libvirt has held it for 20 s, so it was not asked'],
  })
  t.match(judged([guest({ kind: 'not asked', text: 'no time' })]), { status: 'UNKNOWN', messages: ['no time'] })
  t.match(judged([guest({ kind: 'refused', text: 'no such command' })]), { status: 'UNKNOWN' })
  t.equal(judged([]).summary, 'no running guest')
})

const blocks = [
  { device: 'a', inserted: { image: { 'actual-size': 385_024 }, ro: false } },
  { device: 'b', inserted: { image: { 'actual-size': 100 }, ro: true } },
]

t.test('a value found by a path is judged by ranges and by what is expected', async t => {
  const block = guest(answered(blocks))
  const path = '[0].inserted.image.actual-size'
  const query = { query: 'query-block', path }
  for (const [raw, status, messages] of [
    [{ ...query, warning: '385024' }, 'OK', ['query-block 385024']],
    [{ ...query, warning: '385023', unit: 'B' }, 'WARNING', ['query-block 385024B (warning above 376 KiB)']],
    [{ ...query, warning: '1', critical: '2' }, 'CRITICAL', ['query-block 385024 (critical above 2)']],
    [{ ...query, expect: '385024' }, 'OK', ['query-block 385024']],
    [{ query: 'query-block', path: '[0].device', expect: 'b' }, 'CRITICAL', ['query-block is a, but expected b']],
    [{ query: 'query-block', path: '[0].device', warning: '1' }, 'UNKNOWN', ['a is not a number']],
    [{ query: 'query-block', path: '[0].inserted.ro', expect: 'false', critical: '0:0' }, 'OK', ['query-block 0']],
    [
      { query: 'query-block', path: '[1].inserted.ro', critical: '0' },
      'CRITICAL',
      ['query-block 1 (critical above 0)'],
    ],
    [
      { query: 'query-block', path: '[7].device' },
      'UNKNOWN',
      [/^no \[7\]\.device in its answer to query-block: \[\{"device"/],
    ],
  ] as const) {
    const found = judged([block], raw)
    t.equal(found.status, status, JSON.stringify(raw))
    t.match(found.messages, [...messages])
  }
  const all = judged([block], {
    query: 'query-block',
    path: '[*].inserted.image.actual-size',
    warning: '1000',
    unit: 'B',
  })
  t.match(all, {
    status: 'WARNING',
    metrics: [
      { name: 'silent_time' },
      { name: 'block_actual_size', value: 385_024, labels: { guest: 'web1', path: '[0].inserted.image.actual-size' } },
      { name: 'block_actual_size', value: 100, labels: { guest: 'web1', path: '[1].inserted.image.actual-size' } },
    ],
  })
  t.equal(
    judged([guest(answered({ status: 'running' }))], { query: 'query-status', path: 'status' }).summary,
    '1 monitor answers query-status (running)',
  )
})

t.test('a pattern finds the value in the text of info, or in a text of QMP', async t => {
  const info = guest(answered('balloon: actual=256\n'))
  const raw = { query: 'info balloon', pattern: 'actual=(\\d+)', warning: '512:' }
  t.match(judged([info], raw), {
    status: 'WARNING',
    messages: ['info balloon 256 (warning below 512)'],
    summary: '1 monitor answers info balloon (256)',
  })
  t.match(judged([info], { ...raw, pattern: 'nothing' }), {
    status: 'UNKNOWN',
    messages: ['no match for nothing in its answer to info balloon: balloon: actual=256'],
  })
  t.equal(
    judged([guest(answered('VM status: running'))], { query: 'info status', pattern: 'running', expect: 'running' })
      .status,
    'OK',
  )
})

t.test('only commands that read are sent, and only to guests that are named', async t => {
  const guests = numberedGuests(1, () => ({ params: healthy, monitor: () => '{"return":{}}' }))
  const { host, asked } = await fakeGuests(t, guests)
  const named = { guest: ['web1'] }
  const refused = (raw: RawValues) => check.collect(host, check.parseOptions(raw), checkContext())
  for (const query of [
    'stop',
    'system_reset',
    'human-monitor-command',
    'query-status; quit',
    'query-status\nquit',
    'info',
    'info status\nquit',
    'info status; quit',
    'infoquit',
    'qom-set',
    'x-query-virtio',
    '{"execute":"quit"}',
    'QUERY-STATUS',
  ]) {
    await t.rejects(
      refused({ query, ...named }),
      { message: /is refused: only what reads is sent, query-… of QMP or info …/ },
      query,
    )
  }
  for (const [raw, message] of [
    [
      { query: 'query-status' },
      /--query taints every guest it is put to: name them with --guest or --match, or add --taint/,
    ],
    [{ path: 'status' }, /--query is missing/],
    [
      { query: 'query-status', warning: '1', ...named },
      /no value to judge: say where it is .* with --path or --pattern/,
    ],
    [{ query: 'info status', path: 'status', ...named }, /--path is for query-… commands/],
    [{ query: 'info status', arguments: '{}', ...named }, /arguments in JSON are for query-…/],
    [{ query: 'query-stats', arguments: '[1]', ...named }, /not a JSON object such as \{"target":"vm"\}: \[1\]/],
    [{ query: 'query-stats', arguments: '{', ...named }, /not a JSON object/],
    [{ query: 'query-status', path: 'a..b', ...named }, /not a path/],
  ] as const) {
    await t.rejects(refused(raw), { message }, JSON.stringify(raw))
  }
  t.same(asked(), [], 'libvirt was not asked anything')
  await refused({ query: 'query-status', taint: true })
  t.same(asked(), ['CONNECT_GET_ALL_DOMAIN_STATS', 'QEMU_MONITOR_COMMAND'])
})

t.test('without a query nothing that taints is asked: one bulk call, whoever is named', async t => {
  const guests = numberedGuests(50, index => ({
    params: index === 3 ? {} : healthy,
    ...(index === 4 ? { id: -1, state: [5, 1] } : {}),
  }))
  const { host, asked } = await fakeGuests(t, guests)
  const sample = await check.collect(host, check.parseOptions({ guest: ['web1'] }), checkContext())
  t.same(asked(), ['CONNECT_GET_ALL_DOMAIN_STATS'])
  t.equal(sample.length, 49, 'the one that is shut off is not judged')
  t.match(sample[3], { answer: { kind: 'not asked', text: "not known: libvirt's driver asks no monitor" } })
  t.equal(sample.filter(({ answer }) => answer.kind === 'answered').length, 48)
})

t.test('arguments go along, and each way to fail has its own words', async t => {
  const sent: unknown[] = []
  const kinds: Partial<FakeGuest>[] = [
    {
      monitor: command => {
        sent.push(JSON.parse(command))
        return '{"return":{"value":5}}'
      },
    },
    { monitor: () => '{"error":{"class":"CommandNotFound","desc":"not known"}}' },
    { monitor: (_, call) => void call.fail(55, 'domain is not running') },
    { monitor: (_, call) => void call.fail(42, 'no domain') },
    { monitor: (_, call) => void call.fail(88, 'denied by policy') },
    {
      monitor: (_, call) =>
        void call.fail(68, 'cannot acquire state change lock (held by monitor=remoteDispatchDomainSave)'),
    },
    { monitor: (_, call) => void call.fail(68, 'anders gesagt (monitor=remoteDispatchA agent=remoteDispatchB)') },
    { monitor: (_, call) => void call.fail(1, 'something else') },
    { monitor: () => 'no JSON' },
    { monitor: () => undefined },
  ]
  const { host } = await fakeGuests(
    t,
    numberedGuests(kinds.length, index => kinds[index] ?? {}),
  )
  const raw = { query: 'query-stats', arguments: '{"target":"vm"}', taint: true, wait: '100ms' }
  const sample = await check.collect(host, check.parseOptions(raw), checkContext())
  t.same(sent, [{ execute: 'query-stats', arguments: { target: 'vm' } }])
  t.match(
    sample.map(({ name: own, answer }) => [own, answer]),
    [
      ['web1', { kind: 'answered', value: { value: 5 } }],
      ['web2', { kind: 'refused', text: /refused query-stats: not known/ }],
      ['web5', { kind: 'not asked', text: /denied by policy/ }],
      ['web6', { kind: 'silent', holder: 'remoteDispatchDomainSave' }],
      ['web7', { kind: 'silent', holder: 'remoteDispatchA, remoteDispatchB' }],
      ['web8', { kind: 'refused', text: 'something else' }],
      ['web9', { kind: 'refused' }],
      ['web10', { kind: 'silent', seconds: Number }],
    ],
  )
})

t.test('no permission is one error for the whole run, with the remedy', async t => {
  const { host } = await fakeGuests(
    t,
    numberedGuests(3, () => ({ monitor: (_, call) => void call.fail(29, 'read only') })),
  )
  await t.rejects(check.collect(host, check.parseOptions({ query: 'query-status', taint: true }), checkContext()), {
    message: /^monitor commands need libvirt's read-write socket: run as root .* \(read only\)$/,
  })
})

t.test(
  '100 guests, 3 that do not answer: the others are complete and on time, those are named with their holders',
  async t => {
    const stuck = [7, 50, 99]
    const guests = numberedGuests(100, index => ({
      params: stuck.includes(index) ? { 'balloon.current': 1024 } : healthy,
    }))
    const { daemon, host } = await fakeGuests(t, guests)
    daemon.on(procedures.domainGetControlInfo, call => call.reply(writer => writer.u32(2).u32(0).u64(12_345)))
    daemon.on(procedures.domainMemoryStats, call =>
      call.fail(68, 'cannot acquire state change lock (held by monitor=remoteDispatchDomainBlockStats)'),
    )
    const startedMs = performance.now()
    const sample = await check.collect(
      host,
      check.parseOptions({ holder: true }),
      checkContext({ timeLeftMs: () => 40_000 }),
    )
    t.ok(performance.now() - startedMs < 3000)
    const { status, messages } = judged(sample)
    t.equal(status, 'CRITICAL')
    t.equal(messages.filter(message => message === 'its QEMU answers').length, 97)
    t.same(
      sample.filter(({ answer }) => answer.kind === 'silent').map(each => each.name),
      ['web8', 'web51', 'web100'],
    )
    t.equal(
      messages.filter(message =>
        /^its QEMU has not answered for 12.35 s with its lock held by remoteDispatchDomainBlockStats \(/.test(message),
      ).length,
      3,
    )
    await t.rejects(check.collect(host, check.parseOptions({ holder: true }), checkContext()), {
      message: '--holder takes 31 s: allow more with --timeout',
    })
  },
)

t.test('a healthy guest: its monitor answers, and it is not tainted by that', async t => {
  const { libvirtd: daemon, guest: real } = await healthyGuest(t)
  const uri = daemon.readOnlyUri ?? daemon.uri
  const messages = async () => (await daemon.virsh('dominfo', real.name)).stdout.match(/custom monitor/)
  const before = await messages()
  t.same(await runExecutable(name, ['--uri', uri, '--guest', real.name]), {
    stdout: `${name} OK: 1 monitor answers\n| ${real.name}.silent_time=0s\n`,
    stderr: '',
    status: 0,
  })
  t.same(await messages(), before)
  t.same(await runExecutable(name, ['--uri', uri, '--query', 'stop', '--guest', real.name]), {
    stdout: `${name} UNKNOWN: "stop" is refused: only what reads is sent, query-… of QMP or info … of the human monitor\n`,
    stderr: '',
    status: 3,
  })
})

t.test('a real guest: values by QMP and by text, then a QEMU that is stopped', async t => {
  const daemon = await libvirtd(t)
  const real = await ownGuest(t, daemon, { name: 'monitor1' })
  const run = (...args: string[]) => runExecutable(name, ['--uri', daemon.uri, '--guest', 'monitor1', ...args])
  t.same(await run('--query', 'query-status', '--path', 'status', '--expect', 'running'), {
    stdout: `${name} OK: 1 monitor answers query-status (running)\n| monitor1.silent_time=0s\n`,
    stderr: '',
    status: 0,
  })
  t.match((await daemon.virsh('dominfo', 'monitor1')).stdout, /tainted: custom monitor control/, 'as documented')
  t.same(await run('--query', 'info balloon', '--pattern', 'actual=(\\d+)', '-w', '512:'), {
    stdout: `${name} WARNING: monitor1: info balloon 256 (warning below 512)\nWARNING monitor1: info balloon 256 (warning below 512)\n| monitor1.silent_time=0s monitor1.balloon=256;512:\n`,
    stderr: '',
    status: 1,
  })
  t.match(await run('--query', 'query-block', '--path', '[0].inserted.image.actual-size', '-c', '1', '--unit', 'B'), {
    stdout: /^check-kvm-monitor CRITICAL: monitor1: query-block [\d.]+ [KM]iB \(critical above 1 B\)\n/,
    status: 2,
  })
  t.match(await run('--query', 'query-nonsense'), {
    stdout: /UNKNOWN: monitor1: QEMU of monitor1 refused query-nonsense: /,
    status: 3,
  })
  t.match(await run('--query', 'info nonsense'), {
    stdout: /UNKNOWN: monitor1: unknown command: 'info nonsense'\n/,
    status: 3,
  })
  await real.suspend()
  t.match(await run(), { stdout: /^check-kvm-monitor OK: 1 monitor answers\n/, status: 0 })
  await real.resume()

  real.signal('SIGSTOP')
  try {
    // Who asks first finds out after about one second, whoever comes while another waits earlier.
    t.match(await run('--silent-warning', '0'), {
      stdout: /^check-kvm-monitor WARNING: monitor1: its QEMU has not answered for [\d.]+ m?s \(warning above 0 s\)\n/,
      status: 1,
    })
    const limits = ['--silent-critical', '2']
    await waitUntil('silence is CRITICAL', async () => ((await run(...limits)).status === 2 ? true : undefined), {
      timeoutMs: 20_000,
    })
    const holder = await run('--holder', '--timeout', '45s', ...limits)
    t.match(
      holder.stdout,
      /its QEMU has not answered for [\d.]+ s with its lock held by remoteDispatchConnectGetAllDomainStats \(critical/,
    )
    t.equal(holder.status, 2)
  } finally {
    real.signal('SIGCONT')
  }
  await waitUntil('it answers again', async () => ((await run()).status === 0 ? true : undefined), {
    timeoutMs: 20_000,
  })
})

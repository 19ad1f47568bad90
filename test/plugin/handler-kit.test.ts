import t from 'tap'
import { readEvent } from '../../plugin/event.js'
import {
  dashboardLink,
  durationText,
  factsOf,
  fillTokens,
  firstLine,
  headline,
  historyText,
  outputText,
  stateText,
} from '../../plugin/event-text.js'
import { PassingError, retry } from '../../plugin/retry.js'
import { hideSecrets, Secret } from '../../plugin/secret.js'
import { formatSyslog, parseSyslogAddress } from '../../plugin/syslog.js'
import { guestEvent } from '../support/handlers.js'

const eventOf = (changes: Parameters<typeof guestEvent>[0] = {}) => readEvent(JSON.stringify(guestEvent(changes)))

t.test('the headline says state, who, where, which check and what it found', async t => {
  const table: [changes: Parameters<typeof guestEvent>[0], headline: string][] = [
    [{}, 'CRITICAL: web1 on kvm-host: memory_check: memory in use 95 % (critical above 90 %)'],
    [
      { action: 'resolve', check: { status: 0, output: 'OK - fine' } },
      'RESOLVED: web1 on kvm-host: memory_check: OK - fine',
    ],
    [{ action: 'flapping', check: { status: 1, output: '' } }, 'FLAPPING (WARNING): web1 on kvm-host: memory_check'],
    [{ check: { origin: 'web1', output: 'CheckMem CRITICAL - 99% | a=1' } }, 'CRITICAL: web1: memory_check: 99%'],
    [
      { check: { status: 127, output: '\n\nsh: not found\nmore' } },
      'UNKNOWN: web1 on kvm-host: memory_check: sh: not found',
    ],
    [{ check: { output: '\u001b[31mred\u202e\r\nx' } }, 'CRITICAL: web1 on kvm-host: memory_check: ?[31mred?'],
  ]
  for (const [changes, wanted] of table) t.equal(headline(eventOf(changes)), wanted)
  t.equal(headline(eventOf({ check: { output: 'x'.repeat(1_000_000) } })).length, 250)
})

t.test('the first line of a check is without its name, its state, its client and performance data', async t => {
  t.equal(firstLine(eventOf({ check: { output: 'check-kvm-state WARNING: web1: paused|running=1' } })), 'paused')
  t.equal(firstLine(eventOf({ check: { output: 'web12: other' } })), 'web12: other')
})

t.test('an output for people has no performance data and no end', async t => {
  t.equal(outputText(eventOf({ check: { output: 'a | x=1\nb\n| y=2;;\n\tc\u0007' } })), 'a\nb\n\tc?')
  t.ok(outputText(eventOf({ check: { output: 'x\n'.repeat(5_000_000) } }), 100).length <= 100)
})

t.test('the facts name guest and host, since when, how often, and what was before', async t => {
  const facts = (changes: Parameters<typeof guestEvent>[0]) => Object.fromEntries(factsOf(eventOf(changes), undefined))
  t.match(facts({}), { Guest: 'web1', Host: 'kvm-host', 'Last OK': '2026-01-05 09:40:00 UTC' })
  t.match(facts({ check: { command: 'check-http.rb' } }), { Client: 'web1', 'Checked by': 'kvm-host' })
  t.match(facts({ silenced: true, silenced_by: ['client:web1:*'] }), { 'Silenced by': 'client:web1:*' })
  t.equal(
    stateText(eventOf({ occurrences: 5, timestamp: 1_767_606_645 })),
    'CRITICAL since 2026-01-05 09:50:00 UTC (45 s), 5 times in a row',
  )
  t.equal(
    stateText(
      eventOf({ action: 'resolve', check: { status: 0, history: ['0', '2', '1', '0'] }, last_state_change: undefined }),
    ),
    'OK, was WARNING',
  )
})

t.test('histories and durations are short', async t => {
  t.equal(historyText(['0', '0', '1', '2', '3', '9', '0']), 'OK ×2, WARNING, CRITICAL, UNKNOWN ×2, OK')
  for (const [seconds, text] of [
    [5, '5 s'],
    [119, '119 s'],
    [600, '10 min'],
    [7200, '2 h'],
    [200_000, '2.31 d'],
  ] as const)
    t.equal(durationText(seconds), text)
})

t.test('tokens stand for what the event has, encoded for a URL', async t => {
  const event = eventOf({ client: { name: 'a b/\u00e9', nested: { list: [1, { x: null }] } } })
  t.equal(
    dashboardLink(event, 'http://x/:::client.name:::?c=:::check.name:::'),
    'http://x/a%20b%2F%C3%A9?c=memory_check',
  )
  const fill = (template: string) => fillTokens(template, event, value => value)
  t.equal(
    fill(':::client.nested.list::: :::client.nested.list.1.x|no::: :::__proto__.x::: :::check.status:::'),
    '[1,{"x":null}] no  2',
  )
  t.equal(fill('::: :::a b::: ::::::'), '::: :::a b::: ::::::')
})

/** A context whose clock is the test's. */
function clock(leftMs: number) {
  const startMs = performance.now()
  return {
    signal: new AbortController().signal,
    random: () => 1,
    timeLeftMs: () => leftMs - (performance.now() - startMs),
  }
}

t.test('what may pass is tried again until it works; what does not pass is not', async t => {
  let tries = 0
  const answer = await retry(clock(5000), async () => {
    if (++tries < 3) throw new PassingError('not yet', { retryAfterMs: 0 })
    return 'done'
  })
  t.same([answer, tries], ['done', 3])
  tries = 0
  const failing = retry(clock(5000), async () => {
    tries++
    throw new Error('never')
  })
  await t.rejects(failing, { message: 'never' })
  t.equal(tries, 1)
})

t.test('tries end before the time does, each with a share of it', async t => {
  const shares: number[] = []
  const context = clock(1200)
  const failing = retry(context, async timeoutMs => {
    shares.push(timeoutMs)
    throw new PassingError('busy')
  })
  await t.rejects(failing, { message: /^busy \(\d tries in \d\.\d s\)$/ })
  t.ok(context.timeLeftMs() > 0)
  t.ok(shares.length >= 2 && shares.every(share => share <= 720), `${shares}`)
  await t.rejects(
    retry(clock(1000), async () => {
      throw new PassingError('later', { retryAfterMs: 60_000 })
    }),
    { message: 'later' },
  )
})

t.test('an aborted run does not go on trying', async t => {
  const abort = new AbortController()
  const failing = retry({ ...clock(60_000), signal: abort.signal }, async () => {
    setImmediate(() => abort.abort(new Error('over')))
    throw new PassingError('busy', { retryAfterMs: 30_000 })
  })
  await t.rejects(failing, { message: 'over' })
})

t.test('a secret is hidden in all forms, and nothing else is', async t => {
  const secret = new Secret('p@ss word')
  t.equal(`${secret} ${JSON.stringify({ secret })}`, 'REDACTED {"secret":"REDACTED"}')
  const hide = hideSecrets([secret, new Secret('https://u:pw12@host/path/token?x=1'), new Secret('ab')])
  t.equal(hide('p@ss word, p%40ss%20word, cEBzcyB3b3Jk, ab'), 'REDACTED, REDACTED, REDACTED, ab')
  t.equal(
    hide('https://host answers /path/token?x=1 and /path/token and pw12'),
    'https://host answers REDACTED and REDACTED and REDACTED',
  )
})

t.test('syslog addresses and messages', async t => {
  t.same(parseSyslogAddress('udp://log.example'), { kind: 'udp', host: 'log.example', port: 514 })
  t.same(parseSyslogAddress('tcp://[::1]:6514'), { kind: 'tcp', host: '::1', port: 6514 })
  t.same(parseSyslogAddress('unix:///dev/log'), { kind: 'unix', path: '/dev/log' })
  for (const bad of [
    '',
    'udp://',
    'udp://x:0',
    'udp://x:70000',
    'unix://relative',
    'http://x',
    'udp://a b',
    'udp://[:::]',
    'tcp://1.2.3.400',
    `unix:///${'x'.repeat(107)}`,
  ])
    t.equal(parseSyslogAddress(bad), undefined, bad)
  const message = {
    facility: 'local7',
    severity: 'debug',
    timeMs: 0,
    hostname: '',
    application: 'a b',
    kind: 'k',
  } as const
  t.equal(
    formatSyslog({ ...message, text: 'plain' }, 1000).toString(),
    `<191>1 1970-01-01T00:00:00.000Z - a_b ${process.pid} k - plain`,
  )
  const long = formatSyslog({ ...message, text: 'é'.repeat(1000) }, 500)
  t.ok(long.length <= 500 && long.length >= 498)
  t.match(long.toString(), /- \ufeffé+$/u)
})

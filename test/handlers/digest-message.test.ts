import t from 'tap'
import { digestEvent } from '../../handlers/digest/message.js'
import { readEvent, type SensuEvent } from '../../plugin/event.js'

const nowMs = 1_767_607_200_000

function eventOf(client: string, changes: { check?: object; [name: string]: unknown } = {}): SensuEvent {
  const { check, ...others } = changes
  const event = {
    id: client,
    client: { name: client },
    check: {
      name: 'state_check',
      origin: 'node1',
      source: client,
      status: 2,
      output: `check-kvm-state CRITICAL: ${client}: shut off (crashed)\n| a=1\n`,
      history: ['0', '2'],
      ...check,
    },
    action: 'create',
    last_state_change: nowMs / 1000 - 60,
    timestamp: nowMs / 1000,
    ...others,
  }
  return readEvent(JSON.stringify(event))
}

const resolved = (client: string) =>
  eventOf(client, {
    action: 'resolve',
    check: { status: 0, output: `check-kvm-state OK: ${client}: running`, history: ['0', '1', '0'] },
  })

function digest(events: readonly SensuEvent[], more = 0, mostLines = 50) {
  const made = digestEvent({ host: 'node1', events, more, mostLines, nowMs, id: 'id' })
  const text = JSON.stringify(made)
  return { event: readEvent(text), output: readEvent(text).output, raw: JSON.parse(text) }
}

t.test('the message counts, then lists clients by state and check, the worst first', async t => {
  const { output, event, raw } = digest([
    eventOf('web2', { check: { name: 'memory_check', status: 1, output: 'check-kvm-memory WARNING: web2: 85 %' } }),
    eventOf('web1'),
    resolved('db1'),
    eventOf('web2', { last_state_change: nowMs / 1000 - 3600 }),
    eventOf('db2', { action: 'flapping' }),
    eventOf('node1', { check: { name: 'load', status: 3, output: 'no number', origin: undefined } }),
  ])
  t.equal(
    output,
    `6 events of 5 clients on node1: 2 CRITICAL, 1 WARNING, 1 UNKNOWN, 1 FLAPPING (CRITICAL), 1 RESOLVED
CRITICAL state_check: 2, since 2026-01-05 09:00:00 UTC
- web1: shut off (crashed)
- web2: shut off (crashed)
WARNING memory_check: 1, since 2026-01-05 09:59:00 UTC
- web2: 85 %
UNKNOWN load: 1, since 2026-01-05 09:59:00 UTC
- node1: no number
FLAPPING (CRITICAL) state_check: 1, since 2026-01-05 09:59:00 UTC
- db2: shut off (crashed)
RESOLVED state_check: 1
- db1: running
`,
  )
  t.match(event, {
    client: 'node1',
    check: 'digest',
    status: 'CRITICAL',
    action: 'create',
    origin: undefined,
    lastStateChange: nowMs / 1000 - 3600,
  })
  t.same(raw.check.digest[0], { client: 'web2', check: 'memory_check', action: 'create', status: 1 })
  t.equal(raw.client.name, 'node1', "the host's own client, since one event has it")
})

t.test('resolutions only are a resolution, of what was the worst', async t => {
  const { event, output } = digest([resolved('web1'), resolved('web2')])
  t.match(event, { action: 'resolve', status: 'OK', history: ['1', '0'] })
  t.match(output, /^2 events of 2 clients on node1: 2 RESOLVED\nRESOLVED state_check: 2\n- web1: running\n/)
})

t.test('flapping clients only are flapping', async t => {
  t.match(digest([eventOf('web1', { action: 'flapping' })]).event, { action: 'flapping', status: 'CRITICAL' })
})

t.test('of several events about the same the last one counts', async t => {
  const { output, event } = digest([eventOf('web1'), eventOf('web2'), resolved('web1')])
  t.match(output, /^2 events of 2 clients on node1: 1 CRITICAL, 1 RESOLVED\n/)
  t.equal(event.action, 'create')
})

t.test('long lists are cut, and what is left out is counted', async t => {
  const events = Array.from({ length: 30 }, (_, index) =>
    eventOf(`web${index}`, { check: { name: `check${index % 3}` } }),
  )
  const { output } = digest(events, 7, 12)
  t.match(output, /^37 events of 30 clients on node1: 30 CRITICAL, 7 more\n/)
  t.equal(output.match(/^- web/gm)?.length, 12)
  t.match(
    output,
    /CRITICAL check1: 10, .*\n- web1: .*\n- web4: .*\n- and 8 more\nCRITICAL check2: 10, [^\n]*\n- and 10 more\nand 7 more events, too many to keep/,
  )
})

t.test('very many checks do not make a very long message', async t => {
  const events = Array.from({ length: 500 }, (_, index) => eventOf('web1', { check: { name: `check${index}` } }))
  const { output, raw } = digest(events, 0, 10)
  t.ok(output.split('\n').length < 40)
  t.match(output, /and 490 more states of checks\n$/)
  t.equal(raw.check.digest.length, 500)
})

t.test('what a check printed cannot pretend to be another line', async t => {
  const { output } = digest([eventOf('web1', { check: { output: 'x\u001b[2J\r\nRESOLVED all' } }), eventOf('web2')])
  t.match(output, /^- web1: x\?\[2J$/m)
  t.notMatch(output, /^RESOLVED/m)
})

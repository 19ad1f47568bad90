import t from 'tap'
import { guestEvent, httpReceiver, resolvedEvent, runHandler, sectionFile } from '../support/handlers.js'

const name = 'handler-pagerduty'
const accepted = {
  status: 202,
  body: '{"status":"success","message":"Event processed","dedup_key":"web1/memory_check"}',
}
const routing_key = '0123456789abcdef0123456789abcdef'

t.test('a problem triggers, a changed severity updates, and its end resolves the same alert', async t => {
  t.testdir({})
  const { origin, received } = await httpReceiver(t, [accepted])
  const url = `${origin}/v2/enqueue`
  const dashboard_url = 'http://uchiwa.example/#/client/site/:::client.name:::?check=:::check.name:::'
  const argv = sectionFile(t, name, { routing_key, url, dashboard_url, severities: { warning: 'info' } })
  const run = async (event: object) => (await runHandler(name, argv, event)).stdout
  t.equal(
    await run(guestEvent()),
    `handler-pagerduty: web1/memory_check create: triggered web1/memory_check at ${origin}\n`,
  )
  await run(guestEvent({ check: { status: 1 } }))
  t.equal(
    await run(resolvedEvent()),
    `handler-pagerduty: web1/memory_check resolve: resolved web1/memory_check at ${origin}\n`,
  )
  const [critical, warning, end] = received.map(({ body }) => JSON.parse(body))
  t.same(critical, {
    routing_key,
    event_action: 'trigger',
    dedup_key: 'web1/memory_check',
    payload: {
      summary: 'CRITICAL: web1 on kvm-host: memory_check: memory in use 95 % (critical above 90 %)',
      source: 'web1',
      severity: 'critical',
      timestamp: '2026-01-05T10:00:00.000Z',
      component: 'memory_check',
      group: 'kvm-host',
      class: 'memory_check',
      custom_details: {
        guest: 'web1',
        host: 'kvm-host',
        check: 'memory_check',
        state: 'CRITICAL since 2026-01-05 09:50:00 UTC (10 min), 2 times in a row',
        last_ok: '2026-01-05 09:40:00 UTC',
        history: 'OK ×2, WARNING, CRITICAL ×2',
        output:
          'check-kvm-memory CRITICAL: web1: memory in use 95 % (critical above 90 %)\nCRITICAL web1: memory in use 95 %',
      },
    },
    links: [{ href: 'http://uchiwa.example/#/client/site/web1?check=memory_check', text: 'Dashboard' }],
    client: 'sensu-kvm',
    client_url: 'http://uchiwa.example/#/client/site/web1?check=memory_check',
  })
  t.match(warning, { event_action: 'trigger', dedup_key: 'web1/memory_check', payload: { severity: 'info' } })
  t.same(end, { routing_key, event_action: 'resolve', dedup_key: 'web1/memory_check' })
  t.equal(received[0]?.url, '/v2/enqueue')
})

t.test('too many requests are tried again, an invalid one is not', async t => {
  t.testdir({})
  const busy = await httpReceiver(t, [{ status: 429 }, { status: 500 }, accepted])
  t.match(await runHandler(name, sectionFile(t, name, { routing_key, url: busy.origin }), guestEvent()), { status: 0 })
  t.equal(busy.received.length, 3)
  const strict = await httpReceiver(t, [
    { status: 400, body: `{"status":"invalid event","errors":["${routing_key}"]}` },
  ])
  t.match(await runHandler(name, sectionFile(t, name, { routing_key, url: strict.origin }), guestEvent()), {
    stdout: '',
    stderr: `handler-pagerduty: ${strict.origin} answers 400 ({"status":"invalid event","errors":["REDACTED"]}): correct the URL or what it asks for\n`,
    status: 1,
  })
  t.equal(strict.received.length, 1)
})

t.test('a key is never longer than PagerDuty takes, and stays one for each check', async t => {
  t.testdir({})
  const { origin, received } = await httpReceiver(t, [accepted])
  const argv = sectionFile(t, name, { routing_key, url: origin, dedup_key: 'kvm-:::check.long:::' })
  for (const end of ['a', 'b', 'a'])
    await runHandler(name, argv, guestEvent({ check: { long: `${'x'.repeat(400)}${end}` } }))
  const keys = received.map(({ body }) => String(JSON.parse(body).dedup_key))
  t.same(
    keys.map(key => key.length <= 255),
    [true, true, true],
  )
  t.equal(keys[0], keys[2])
  t.not(keys[0], keys[1])
})

t.test('a dry run has the alert without the key, and without a login in the URL', async t => {
  t.testdir({})
  const dry = await runHandler(name, [...sectionFile(t, name, { routing_key }), '--dry-run'], guestEvent())
  t.match(
    dry.stdout,
    /^POST https:\/\/events\.pagerduty\.com\/v2\/enqueue\n[\s\S]*\{"routing_key":"REDACTED","event_action":"trigger"/,
  )
  t.equal(dry.status, 0)
  const url = 'https://sensu:passw0rd@example.com/v2'
  const { stdout } = await runHandler(name, [...sectionFile(t, name, { routing_key, url }), '--dry-run'], guestEvent())
  t.match(stdout, /^POST https:\/\/example\.com\/v2\n/)
  t.notMatch(stdout, 'passw0rd')
})

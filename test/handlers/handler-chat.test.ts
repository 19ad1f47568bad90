import t from 'tap'
import { guestEvent, httpReceiver, resolvedEvent, runHandler, sectionFile } from '../support/handlers.js'

const name = 'handler-chat'
const dashboard_url = 'http://uchiwa.example/#/client/site/:::client.name:::?check=:::check.name:::'

t.test('Slack gets the one line, the facts, the output and a link', async t => {
  t.testdir({})
  const { origin, received } = await httpReceiver(t, [{ status: 200, body: 'ok' }])
  const settings = { webhook_url: `${origin}/services/T0/B0/x`, dashboard_url, channel: '#kvm', mention: '<!channel>' }
  const argv = sectionFile(t, name, settings)
  t.match(await runHandler(name, argv, guestEvent()), {
    stdout: `handler-chat: web1/memory_check create: sent to ${origin}\n`,
    stderr: '',
    status: 0,
  })
  await runHandler(name, argv, resolvedEvent())
  const [problem, end] = received.map(({ body }) => JSON.parse(body))
  const headline = 'CRITICAL: web1 on kvm-host: memory_check: memory in use 95 % (critical above 90 %)'
  t.same(problem, {
    channel: '#kvm',
    text: `<!channel> ${headline}`,
    attachments: [
      {
        color: 'danger',
        fallback: headline,
        title: 'Dashboard',
        title_link: 'http://uchiwa.example/#/client/site/web1?check=memory_check',
        text: '```\ncheck-kvm-memory CRITICAL: web1: memory in use 95 % (critical above 90 %)\nCRITICAL web1: memory in use 95 %\n```',
        fields: [
          { title: 'Guest', value: 'web1', short: true },
          { title: 'Host', value: 'kvm-host', short: true },
          { title: 'Check', value: 'memory_check', short: true },
          {
            title: 'State',
            value: 'CRITICAL since 2026-01-05 09:50:00 UTC (10 min), 2 times in a row',
            short: false,
          },
          { title: 'Last OK', value: '2026-01-05 09:40:00 UTC', short: true },
          { title: 'History', value: 'OK ×2, WARNING, CRITICAL ×2', short: true },
        ],
        mrkdwn_in: ['text'],
      },
    ],
  })
  t.match(end, {
    text: 'RESOLVED: web1 on kvm-host: memory_check: memory in use 40 %',
    attachments: [
      {
        color: 'good',
        fields: [{}, {}, {}, { title: 'State', value: 'OK since 2026-01-05 10:01:00 UTC, was CRITICAL' }, {}],
      },
    ],
  })
})

t.test('what a check prints calls nobody, formats nothing and ends no block', async t => {
  t.testdir({})
  const { origin, received } = await httpReceiver(t, [{ status: 200 }])
  const output = 'x CRITICAL: <!channel> @here *b* ``` [a](http://evil) \u001b[2J\u202e & <script>\n'.padEnd(
    100_000,
    'y',
  )
  const event = guestEvent({ check: { output, name: 'c_d_e' } })
  await runHandler(name, sectionFile(t, name, { webhook_url: origin }), event)
  await runHandler(name, sectionFile(t, name, { webhook_url: origin, format: 'mattermost' }), event)
  const [slack, mattermost] = received.map(({ body }) => JSON.parse(body))
  t.match(slack.text, '&lt;!channel&gt; @here *b* ``` [a](http://evil) ?[2J? &amp; &lt;script&gt;')
  t.match(slack.attachments[0].text, /^```\n[^`]+\n```$/)
  t.notMatch(JSON.stringify(slack), '<')
  t.match(mattermost.text, '\\<\\!channel\\> @\u200bhere \\*b\\* \\`\\`\\` \\[a\\]\\(http')
  t.match(mattermost.text, 'c\\_d\\_e')
  t.match(mattermost.attachments[0].text, /^```\n[^`]+\n```$/)
  t.notMatch(JSON.stringify(mattermost), '@here')
  for (const { body } of received) t.ok(body.length < 10_000, `${body.length}`)
})

t.test('a template is any JSON, its tokens filled in', async t => {
  t.testdir({})
  const { origin, received } = await httpReceiver(t, [{ status: 200 }])
  const template = {
    body: ':::headline::: / :::link::: / :::client.environment|none::: / :::no.such:::.',
    status: ':::check.status:::',
    history: [':::check.history:::'],
    nested: { state: ':::state:::', keep: 5, subject: ':::subject:::' },
  }
  const settings = { webhook_url: origin, format: 'template', template, dashboard_url }
  await runHandler(name, sectionFile(t, name, settings), guestEvent({ check: { name: 'a"b\\' } }))
  t.same(JSON.parse(received[0]?.body ?? ''), {
    body: 'CRITICAL: web1 on kvm-host: a"b\\: memory in use 95 % (critical above 90 %) / http://uchiwa.example/#/client/site/web1?check=a%22b%5C / none / .',
    status: 2,
    history: [['0', '0', '1', '2', '2']],
    nested: { state: 'CRITICAL', keep: 5, subject: 'web1 on kvm-host' },
  })
})

t.test('the webhook is a secret: no message and no dry run has it', async t => {
  t.testdir({})
  const { origin, received } = await httpReceiver(t, [{ status: 404, body: 'no_service /services/T0/B0/topsecret' }])
  const argv = sectionFile(t, name, { webhook_url: `${origin}/services/T0/B0/topsecret` })
  const failed = await runHandler(name, argv, guestEvent())
  t.equal(
    failed.stderr,
    `handler-chat: ${origin} answers 404 (no_service REDACTED): correct the URL or what it asks for\n`,
  )
  t.equal(failed.status, 1)
  const dry = await runHandler(name, [...argv, '-n'], guestEvent())
  t.match(dry.stdout, `POST ${origin}/REDACTED\n`)
  t.notMatch(dry.stdout + dry.stderr, 'topsecret')
  t.equal(received.length, 1)
})

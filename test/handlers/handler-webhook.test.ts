import { createHmac } from 'node:crypto'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { createServer as createTlsServer } from 'node:https'
import { type AddressInfo, createServer } from 'node:net'
import t from 'tap'
import { createCertificates } from '../../scripts/services/certificates.js'
import { guestEvent, httpReceiver, runHandler, sectionFile } from '../support/handlers.js'

const name = 'handler-webhook'
const secret = 'a very secret key'

t.test('the event arrives byte for byte, signed, with the headers that are asked for', async t => {
  t.testdir({})
  const { origin, received } = await httpReceiver(t, [{ status: 204 }])
  const url = `${origin}/hooks/token?x=1`
  const headers = { 'X-Team': 'blue' }
  const argv = sectionFile(t, name, { webhook_url: url, secret, headers, authorization_env: 'TOKEN' })
  const json = `${JSON.stringify(guestEvent(), undefined, 1)}\n`
  t.match(await runHandler(name, argv, json, { TOKEN: 'Bearer abcdef' }), {
    stdout: `handler-webhook: web1/memory_check create: sent to ${origin}, which answers 204\n`,
    stderr: '',
    status: 0,
  })
  const [request] = received
  t.match(request, {
    method: 'POST',
    url: '/hooks/token?x=1',
    body: json,
    headers: {
      'content-type': 'application/json',
      'x-team': 'blue',
      authorization: 'Bearer abcdef',
      'sensu-event-id': '7c5e0e2f-1111-4222-8333-444455556666',
      'sensu-delivery': /^[0-9a-f-]{36}$/,
    },
  })
  const [, time, signature] = /^t=(\d+),v1=([0-9a-f]{64})$/.exec(String(request?.headers['sensu-signature'])) ?? []
  t.equal(signature, createHmac('sha256', secret).update(`${time}.${json}`).digest('hex'))
  t.ok(Math.abs(Number(time) - Date.now() / 1000) < 60)
})

t.test('what may pass is tried again, with the same delivery and signature', async t => {
  t.testdir({})
  const replies = ['drop', { status: 500 }, 'drop in the answer', { status: 200 }] as const
  const { origin, received } = await httpReceiver(t, replies)
  const { status, stderr } = await runHandler(name, sectionFile(t, name, { webhook_url: origin, secret }), guestEvent())
  t.same([status, stderr], [0, ''])
  t.equal(received.length, 4)
  t.equal(new Set(received.map(({ headers }) => headers['sensu-delivery'])).size, 1)
  t.equal(new Set(received.map(({ headers }) => headers['sensu-signature'])).size, 1)
})

t.test('Retry-After is kept to', async t => {
  t.testdir({})
  const { origin, received } = await httpReceiver(t, [
    { status: 429, headers: { 'Retry-After': '1' } },
    { status: 200 },
  ])
  t.match(await runHandler(name, sectionFile(t, name, { webhook_url: origin }), guestEvent()), { status: 0 })
  const [first, second] = received
  t.ok((second?.atMs ?? 0) - (first?.atMs ?? 0) >= 1000)
})

t.test('a server that asks for more patience than there is time is a failure at once', async t => {
  t.testdir({})
  const { origin } = await httpReceiver(t, [{ status: 503, headers: { 'Retry-After': '3600' }, body: 'maintenance' }])
  const { stderr, status } = await runHandler(
    name,
    sectionFile(t, name, { webhook_url: `${origin}/s3cret-path` }),
    guestEvent(),
  )
  t.equal(stderr, `handler-webhook: ${origin} answers 503 (maintenance), and to come back in 3600 s\n`)
  t.equal(status, 1)
})

t.test('a server that never answers is given up before the time is over, after more than one try', async t => {
  t.testdir({})
  const { origin, received } = await httpReceiver(t, ['hang'])
  const argv = sectionFile(t, name, { webhook_url: origin, timeout: 4 })
  const { stderr, status } = await runHandler(name, argv, guestEvent())
  t.match(stderr, /^handler-webhook: cannot send to http:\S+: no answer within \d\.\d s \(\d tries in \d\.\d s\)\n$/)
  t.equal(status, 1)
  t.ok(received.length >= 2, `${received.length}`)
})

t.test('a redirect is refused: nothing reaches the other server', async t => {
  t.testdir({})
  const other = await httpReceiver(t, [{ status: 200 }])
  const { origin, received } = await httpReceiver(t, [{ status: 307, headers: { Location: `${other.origin}/x` } }])
  const { stderr, status } = await runHandler(name, sectionFile(t, name, { webhook_url: origin, secret }), guestEvent())
  t.equal(
    stderr,
    `handler-webhook: ${origin} answers 307: it redirects to ${other.origin}, which is not followed: configure the final URL\n`,
  )
  t.same([status, received.length, other.received.length], [1, 1, 0])
})

t.test('a refusal is not repeated, and says what the server says without the secrets in it', async t => {
  t.testdir({})
  const { origin, received } = await httpReceiver(t, [{ status: 403, body: `no: ${secret}\u001b[2J /hooks/t0ken` }])
  const argv = sectionFile(t, name, { webhook_url: `${origin}/hooks/t0ken`, secret })
  const { stderr, status } = await runHandler(name, argv, guestEvent())
  t.equal(
    stderr,
    `handler-webhook: ${origin} answers 403 (no: REDACTED?[2J REDACTED): correct the URL or what it asks for\n`,
  )
  t.same([status, received.length], [1, 1])
})

t.test('a certificate is verified, by an authority of its own if one is named', async t => {
  const directory = t.testdir({})
  const { authority, server: pair } = await createCertificates(directory)
  const files = { cert: readFileSync(pair.certificate), key: readFileSync(pair.key) }
  const server = createTlsServer(files, (_, response) => response.end('fine'))
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => server.close())
  const url = `https://localhost:${(server.address() as AddressInfo).port}`
  t.match(await runHandler(name, sectionFile(t, name, { webhook_url: url, ca_file: authority }), guestEvent()), {
    status: 0,
    stderr: '',
  })
  const { stderr, status } = await runHandler(name, sectionFile(t, name, { webhook_url: url }), guestEvent())
  t.match(
    stderr,
    /^handler-webhook: cannot trust https:\/\/localhost:\d+: certificate verify failed \(.*\): name its authority in ca_file\n$/,
  )
  t.equal(status, 1)
})

t.test('a proxy is gone through, with its password', async t => {
  t.testdir({})
  const { port, received } = await httpReceiver(t, [{ status: 200 }])
  const argv = sectionFile(t, name, { webhook_url: 'http://alerts.invalid/x', proxy_env: 'http_proxy' })
  const run = await runHandler(name, argv, guestEvent(), { http_proxy: `http://me:pass%20word@127.0.0.1:${port}` })
  t.match(run, { status: 0 })
  const authorization = `Basic ${Buffer.from('me:pass word').toString('base64')}`
  t.match(received, [
    { url: 'http://alerts.invalid:80/x', headers: { host: 'alerts.invalid', 'proxy-authorization': authorization } },
  ])
})

t.test('a dry run prints the request without secrets, and sends nothing', async t => {
  t.testdir({})
  let connections = 0
  const server = createServer(() => connections++)
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => server.close())
  const origin = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  const settings = {
    webhook_url: `${origin}/hooks/t0ken`,
    secret,
    authorization: 'Bearer abcdef',
    headers: { 'X-Key': 'k-e-y-1' },
  }
  const { stdout, status } = await runHandler(name, [...sectionFile(t, name, settings), '--dry-run'], guestEvent())
  t.match(
    stdout,
    new RegExp(
      `^POST ${origin}/REDACTED\nContent-Type: application/json\nUser-Agent: sensu-kvm\nSensu-Event-Id: 7c5e\\S+\nSensu-Delivery: \\S+\nAuthorization: REDACTED\nX-Key: REDACTED\nSensu-Signature: t=\\d+,v1=\\w+\n\n\\{"id".*\\}\n$`,
    ),
  )
  for (const hidden of ['t0ken', secret, 'abcdef', 'k-e-y-1']) t.notMatch(stdout, hidden)
  t.same([status, connections], [0, 0])
})

import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { type AddressInfo, connect, createServer } from 'node:net'
import t, { type Test } from 'tap'
import { createCertificates } from '../../scripts/services/certificates.js'
import { guestEvent, resolvedEvent, runHandler, sectionFile } from '../support/handlers.js'
import { mailServer, smtpError } from '../support/mail-server.js'

const name = 'handler-mail'
const from = 'Sensu <sensu@example.com>'
const host = '127.0.0.1'

function header(mail: string | undefined, field: string): string {
  const unfolded = (mail ?? '').replace(/\r\n[ \t]+/g, ' ')
  return new RegExp(`^${field}: (.*)$`, 'm').exec(unfolded)?.[1]?.trim() ?? ''
}

t.test('a mail says in its subject what is wrong, and has the rest as text and as HTML', async t => {
  t.testdir({})
  const { port, mails } = await mailServer(t)
  const dashboard_url = 'http://uchiwa.example/#/client/site/:::client.name:::?check=:::check.name:::'
  const to = ['ops@example.com', 'Duty <duty@example.com>']
  const argv = sectionFile(t, name, { to, from, host, port, dashboard_url })
  t.match(await runHandler(name, argv, guestEvent()), {
    stdout: `handler-mail: web1/memory_check create: sent to ops@example.com, duty@example.com through 127.0.0.1:${port}\n`,
    stderr: '',
    status: 0,
  })
  const [mail] = mails
  t.match(mail, { from: 'sensu@example.com', to: ['ops@example.com', 'duty@example.com'] })
  t.equal(
    header(mail?.text, 'Subject'),
    'CRITICAL: web1 on kvm-host: memory_check: memory in use 95 % (critical above 90 %)',
  )
  t.equal(header(mail?.text, 'To'), 'ops@example.com, Duty <duty@example.com>')
  t.equal(header(mail?.text, 'Auto-Submitted'), 'auto-generated')
  const text = (mail?.text ?? '').replaceAll('=\r\n', '').replaceAll('=3D', '=').replaceAll('\r\n', '\n')
  t.match(
    text,
    'Guest:   web1\nHost:    kvm-host\nCheck:   memory_check\nState:   CRITICAL since 2026-01-05 09:50:00 UTC (10 min), 2 times in a row\nLast OK: 2026-01-05 09:40:00 UTC\n',
  )
  t.match(text, 'http://uchiwa.example/#/client/site/web1?check=memory_check\n')
  t.match(text, '<a href="http://uchiwa.example/#/client/site/web1?check=memory_check">Dashboard</a>')
  t.notMatch(text, 'used_percent')
})

t.test('the end of a problem is in the same thread, and a mail that is sent twice is the same mail', async t => {
  t.testdir({})
  const { port, mails } = await mailServer(t)
  const argv = sectionFile(t, name, { to: 'ops@example.com', from, host, port })
  for (const event of [guestEvent(), guestEvent(), resolvedEvent()]) await runHandler(name, argv, event)
  const [first, again, end] = mails.map(({ text }) => text)
  const thread = '<7c5e0e2f-1111-4222-8333-444455556666@example.com>'
  t.same(
    [first, again, end].map(mail => header(mail, 'References')),
    [thread, thread, thread],
  )
  t.same(
    [first, again, end].map(mail => header(mail, 'In-Reply-To')),
    [thread, thread, thread],
  )
  t.equal(header(first, 'Message-ID'), header(again, 'Message-ID'))
  t.not(header(first, 'Message-ID'), header(end, 'Message-ID'))
  t.equal(header(end, 'Subject'), 'RESOLVED: web1 on kvm-host: memory_check: memory in use 40 %')
})

t.test('what an event holds adds no header, no recipient and no markup', async t => {
  t.testdir({})
  const { port, mails } = await mailServer(t)
  const argv = sectionFile(t, name, { to: 'ops@example.com', from, host, port })
  const evil = 'x\r\nBcc: evil@example.com\r\n\r\n<script>alert(1)</script>\u202e\u0000'
  const event = guestEvent({
    id: evil,
    client: { name: evil },
    check: { name: evil, output: evil.repeat(100_000), origin: evil },
  })
  t.match(await runHandler(name, argv, event), { status: 0 })
  const [mail] = mails
  t.same(mail?.to, ['ops@example.com'])
  t.notMatch((mail?.text ?? '').split('\r\n\r\n')[0], /^Bcc/m)
  t.notMatch(mail?.text.split('text/html')[1], '<script')
  t.ok((mail?.text.length ?? 0) < 200_000, `${mail?.text.length}`)
})

async function secureServer(t: Test, options: { secure?: boolean; authMethods?: string[] } = {}) {
  const { authority, server } = await createCertificates(t.testdir({}))
  const receiver = await mailServer(t, {
    ...options,
    authOptional: false,
    key: readFileSync(server.key),
    cert: readFileSync(server.certificate),
    onAuth({ username, password }, _, callback) {
      if (username === 'sensu' && password === 'correct horse') callback(null, { user: username })
      else callback(smtpError(535, '5.7.8 wrong'))
    },
  })
  return { ...receiver, authority }
}

const login = { username: 'sensu', password: 'correct horse' }

t.test('with STARTTLS and with TLS from the start the server is verified, and takes the login', async t => {
  for (const tls of ['starttls', 'tls'] as const) {
    const { port, mails, authority } = await secureServer(t, { secure: tls === 'tls' })
    const settings = { to: 'ops@example.com', from, host: 'localhost', port, tls, ...login }
    t.match(await runHandler(name, sectionFile(t, name, { ...settings, ca_file: authority }), guestEvent()), {
      stderr: '',
      status: 0,
    })
    t.match(mails, [{ secure: true, user: 'sensu' }])
    const unknown = await runHandler(name, sectionFile(t, name, settings), guestEvent())
    t.match(
      unknown.stderr,
      /^handler-mail: cannot trust localhost:\d+: .*certificate.*: name its authority in ca_file, or its right name in host\n$/,
    )
    t.equal(unknown.status, 1)
    const careless = sectionFile(t, name, { ...settings, verify: false })
    t.match(await runHandler(name, careless, guestEvent()), { status: 0 })
    t.equal(mails.length, 2)
  }
})

t.test('a wrong password is a failure at once, and is not in the message', async t => {
  const { port, authority } = await secureServer(t)
  const settings = { to: 'ops@example.com', from, host: 'localhost', port, tls: 'starttls', ca_file: authority }
  const argv = sectionFile(t, name, { ...settings, username: 'sensu', password: 'battery staple' })
  const { stdout, stderr, status } = await runHandler(name, argv, guestEvent())
  t.equal(stdout, '')
  t.match(
    stderr,
    new RegExp(
      `^handler-mail: localhost:${port} refuses the login of sensu: .*535 5\\.7\\.8 wrong: correct username and password\\n$`,
    ),
  )
  t.notMatch(stderr, 'battery')
  t.equal(status, 1)
})

t.test('a server without STARTTLS is refused where it is asked for', async t => {
  t.testdir({})
  const { port, mails } = await mailServer(t, { hideSTARTTLS: true, disabledCommands: ['STARTTLS'] })
  const argv = sectionFile(t, name, { to: 'ops@example.com', from, host, port, tls: 'starttls' })
  const { stderr, status } = await runHandler(name, argv, guestEvent())
  t.match(stderr, /^handler-mail: (?:no TLS with )?127\.0\.0\.1:\d+.*\n$/)
  t.same([status, mails.length], [1, 0])
})

t.test('who is put off gets the mail later and alone, who is refused is named', async t => {
  t.testdir({})
  const seen = new Set<string>()
  const { port, mails } = await mailServer(t, {
    onRcptTo({ address }, _, callback) {
      const isNew = !seen.has(address)
      seen.add(address)
      if (address === 'grey@example.com' && isNew) callback(smtpError(450, '4.2.0 greylisted'))
      else if (address === 'nobody@example.com') callback(smtpError(550, '5.1.1 no such user'))
      else callback()
    },
  })
  const to = ['ops@example.com', 'grey@example.com', 'nobody@example.com']
  const { stderr, status } = await runHandler(name, sectionFile(t, name, { to, from, host, port }), guestEvent())
  t.match(
    stderr,
    /^handler-mail: sent to ops@example\.com, grey@example\.com only: 127\.0\.0\.1:\d+ refuses nobody@example\.com \(550 5\.1\.1 no such user\): correct the address, or what the server lets in\n$/,
  )
  t.equal(status, 1)
  t.same(
    mails.map(mail => mail.to),
    [['ops@example.com'], ['grey@example.com']],
  )
})

t.test('greylisting that passes is success', async t => {
  t.testdir({})
  let refusals = 2
  const { port, mails } = await mailServer(t, {
    onRcptTo(_, __, callback) {
      callback(refusals-- > 0 ? smtpError(451, '4.7.1 try again') : null)
    },
  })
  const argv = sectionFile(t, name, { to: 'ops@example.com', from, host, port })
  t.match(await runHandler(name, argv, guestEvent()), { stderr: '', status: 0 })
  t.equal(mails.length, 1)
})

/** A server that accepts connections and does what `serve` does with them. */
async function oddServer(t: Test, serve: (connection: number) => string | 'drop' | 'hang'): Promise<number> {
  let connections = 0
  const server = createServer(socket => {
    socket.on('error', () => undefined)
    const greeting = serve(++connections)
    if (greeting === 'drop') socket.destroy()
    else if (greeting !== 'hang') socket.write(greeting)
  })
  server.listen(0, host)
  await once(server, 'listening')
  t.teardown(() => server.close())
  return (server.address() as AddressInfo).port
}

t.test('a server that drops connections, hangs or is away is tried until the time is nearly over', async t => {
  t.testdir({})
  const cases: [port: number, message: RegExp][] = [
    [await oddServer(t, () => 'drop'), /^handler-mail: cannot send through \S+: .* \(\d tries in \d\.\d s\)\n$/],
    [await oddServer(t, () => 'hang'), /^handler-mail: no answer from \S+ within \d\.\d s \(\d tries in \d\.\d s\)\n$/],
    [
      await oddServer(t, () => '421 too busy\r\n'),
      /^handler-mail: \S+ puts us off: .*421 too busy \(\d tries in \d\.\d s\)\n$/,
    ],
    [1, /^handler-mail: cannot send through 127\.0\.0\.1:1: connect ECONNREFUSED 127\.0\.0\.1:1 \(\d tries/],
  ]
  for (const [port, message] of cases) {
    const argv = sectionFile(t, name, { to: 'ops@example.com', from, host, port, timeout: '3s' })
    const { stderr, status } = await runHandler(name, argv, guestEvent())
    t.match(stderr, message)
    t.equal(status, 1)
  }
})

/** Lets the first connection through until the mail itself comes, which it does not pass on; later ones it lets through whole. */
async function droppingProxy(t: Test, port: number): Promise<number> {
  let isFirst = true
  const proxy = createServer(socket => {
    const server = connect(port, host)
    const drops = isFirst
    isFirst = false
    for (const end of [socket, server]) end.on('error', () => undefined)
    server.pipe(socket)
    socket.on('data', chunk => {
      if (drops && chunk.includes('Subject:')) {
        socket.resetAndDestroy()
        server.destroy()
      } else server.write(chunk)
    })
    socket.on('close', () => server.end())
  })
  proxy.listen(0, host)
  await once(proxy, 'listening')
  t.teardown(() => proxy.close())
  return (proxy.address() as AddressInfo).port
}

t.test('a connection that breaks in the middle of a mail is not the end of it', async t => {
  t.testdir({})
  const { port, mails } = await mailServer(t)
  const argv = sectionFile(t, name, { to: 'ops@example.com', from, host, port: await droppingProxy(t, port) })
  t.match(await runHandler(name, argv, guestEvent()), { stderr: '', status: 0 })
  t.equal(mails.length, 1)
})

t.test('contacts hear of their severities and of the end of what they heard of; a check may name them', async t => {
  t.testdir({})
  const { port, mails } = await mailServer(t)
  const contacts = {
    ops: { to: 'ops@example.com' },
    duty: { to: 'duty@example.com', severities: 'critical' },
    db: { to: ['db@example.com', 'ops@example.com'], severities: ['warning', 'unknown'] },
  }
  const argv = sectionFile(t, name, { contacts, from, host, port })
  const event = async (changes: object) => {
    await runHandler(name, argv, guestEvent({ check: changes }))
    return mails.at(-1)?.to
  }
  t.same(await event({ status: 2 }), ['ops@example.com', 'duty@example.com'])
  t.same(await event({ status: 1 }), ['ops@example.com', 'db@example.com'])
  t.same(await event({ status: 1, contacts: ['db'] }), ['db@example.com', 'ops@example.com'])
  await runHandler(name, argv, resolvedEvent())
  t.same(mails.at(-1)?.to, ['ops@example.com', 'duty@example.com', 'db@example.com'])
  const nobody = await runHandler(name, argv, guestEvent({ check: { status: 1, contacts: 'duty' } }))
  t.match(nobody, {
    stdout: 'handler-mail: web1/memory_check create: nothing to do: no recipient is to hear of it\n',
    status: 0,
  })
})

t.test('a dry run prints the mail and connects to nobody', async t => {
  t.testdir({})
  const argv = sectionFile(t, name, { to: 'ops@example.com', from, host, port: 1, ...login })
  const { stdout, stderr, status } = await runHandler(name, [...argv, '-n'], guestEvent())
  t.match(stdout, /^Subject: CRITICAL: web1 on kvm-host: memory_check/m)
  t.match(stdout, /^To: ops@example\.com$/m)
  t.notMatch(stdout, 'correct horse')
  t.same([stderr, status], ['', 0])
})

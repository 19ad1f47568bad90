import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer, type IncomingMessage, type RequestListener, type Server } from 'node:http'
import { createServer as createTlsServer } from 'node:https'
import { type AddressInfo, connect, createServer as createPlainServer, type Server as PlainServer } from 'node:net'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import check from '../../checks/check-http.js'
import { runCheck } from '../../plugin/program.js'
import { createCertificates } from '../../scripts/services/certificates.js'
import { makeTemporaryDirectory } from '../../scripts/services/process.js'
import { exampleEnvironment, programOf } from '../plugin/example.js'
import { runExecutable } from '../support/checks.js'
import { firstLineOf } from '../support/local-checks.js'

const program = await programOf(check)

/** What a run prints, without its performance data, and its status. */
async function answer(argv: readonly string[], variables = {}): Promise<[text: string, status: number]> {
  const { output, status } = await runCheck(program, argv, { ...exampleEnvironment(), now: Date.now, variables })
  return [output.replace(/\n\| response_time=.*/, '').trimEnd(), status]
}

async function listening(t: Test, server: PlainServer): Promise<number> {
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => {
    server.close()
    if ('closeAllConnections' in server) (server as Server).closeAllConnections()
  })
  return (server.address() as AddressInfo).port
}

async function bodyOf(request: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = []
  for await (const chunk of request as AsyncIterable<Buffer>) chunks.push(chunk)
  return Buffer.concat(chunks).toString()
}

const page = 'status: OK\nusers: 12 \u00e9\n'

const site: RequestListener = async (request, response) => {
  const body = await bodyOf(request)
  const { method, url = '', headers } = request
  const [path] = url.split('?')
  if (path === '/silent') return
  if (path === '/half') return response.writeHead(200, { 'Content-Length': 100 }).write('part')
  if (path === '/gone') return request.socket.destroy()
  if (path === '/moved') return response.writeHead(301, { Location: 'http://new/place' }).end('moved')
  if (path === '/private')
    return response.writeHead(headers.authorization === 'Basic dXNlcjpwYXNz' ? 200 : 401).end('in')
  if (path === '/broken') return response.writeHead(500).end('it broke\nbadly\u001b[2J|')
  if (path === '/empty') return response.writeHead(204).end()
  if (path === '/echo') return response.end(JSON.stringify({ method, url, headers, body }))
  return response.end(page)
}

t.test('answers are judged as the Ruby plugin judges them, in its words', async t => {
  const url = `http://127.0.0.1:${await listening(t, createServer(site))}`
  const sum = createHash('sha256').update(page).digest('hex')
  const table: [path: string, argv: string[], text: string, status: number][] = [
    ['', [], 'OK: 200, 24 bytes', 0],
    ['/', ['-q', 'O[KX]|x'], 'OK: 200, found /O[KX]|x/ in 24 bytes', 0],
    ['/', ['-q', '^users: \\d+ \u00e9$'], 'OK: 200, found /^users: \\d+ \u00e9$/ in 24 bytes', 0],
    ['/', ['-q', 'nope'], `CRITICAL: 200, did not find /nope/ in 24 bytes: ${page}...`, 2],
    ['/', ['-n', 'OK'], `CRITICAL: 200, found /OK/ in 24 bytes: ${page}...`, 2],
    ['/', ['-n', 'nope'], 'OK: 200, did not find /nope/ in 24 bytes', 0],
    ['/', ['-S', sum], `OK: 200, checksum match ${sum} in 24 bytes`, 0],
    ['/', ['-S', 'abc'], `CRITICAL: 200, checksum did not match abc in 24 bytes: ${page}...`, 2],
    ['/', ['-B', '24', '-g', '24'], 'OK: 200, 24 bytes', 0],
    ['/', ['-B', '5'], 'CRITICAL: Response was 24 bytes instead of 5', 2],
    ['/', ['-g', '25'], 'CRITICAL: Response was 24 bytes instead of the indicated minimum 25', 2],
    ['/', ['--response-code', '20[01]'], 'OK: 200, 24 bytes', 0],
    ['/', ['--response-code', '201'], 'CRITICAL: 200', 2],
    ['/', ['-R', 'http://new/place'], 'CRITICAL: Expected redirect to http://new/place but got 200', 2],
    ['/moved', [], 'WARNING: 301', 1],
    ['/moved', ['-r'], 'OK: 301, 5 bytes', 0],
    ['/moved', ['-R', 'http://new/place'], 'OK: 301 found redirect to http://new/place', 0],
    [
      '/moved',
      ['-R', 'http://y/'],
      'CRITICAL: Expected redirect to http://y/ instead redirected to http://new/place',
      2,
    ],
    ['/moved', ['-r', '--response-code', '^301$'], 'OK: 301, 5 bytes', 0],
    ['/moved', ['--response-code', '301'], 'WARNING: 301', 1],
    ['/broken', [], 'CRITICAL: 500', 2],
    ['/broken', ['-w'], 'CRITICAL: 500\nit broke\nbadly?[2J|', 2],
    ['/broken', ['-b', '3'], 'CRITICAL: 500\nit b', 2],
    ['/broken', ['--response-code', '5..'], 'OK: 500, 19 bytes', 0],
    ['/private', [], 'CRITICAL: 401', 2],
    ['/private', ['-U', 'user', '-a', 'pass'], 'OK: 200, 2 bytes', 0],
    ['/empty', [], 'OK: 204, 0 bytes', 0],
    ['/', ['-m', 'HEAD'], 'OK: 200, 0 bytes', 0],
    ['/gone', [], 'CRITICAL: Request error: end of file reached', 2],
    ['/silent', ['-t', '0.2'], 'CRITICAL: Request timed out', 2],
    ['/silent', ['--read-timeout', '0.2'], 'CRITICAL: Request timed out reading data', 2],
    ['/half', ['--read-timeout', '0.2'], 'CRITICAL: Request timed out reading data', 2],
  ]
  for (const [path, argv, text, status] of table) {
    t.same(
      await answer(['-u', url + path, ...argv]),
      [`CheckHttp ${text}`.trimEnd(), status],
      `${path} ${argv.join(' ')}`,
    )
  }
})

t.test('the request is what the options say', async t => {
  const port = await listening(t, createServer(site))
  const folder = makeTemporaryDirectory()
  t.teardown(() => rmSync(folder, { recursive: true }))
  writeFileSync(join(folder, 'headers'), 'X-File: from: file\n\nuser-agent: Other\n')
  const sent = async (...argv: string[]) => {
    const [text] = await answer(['-h', '127.0.0.1', '-P', String(port), '-w', ...argv])
    return JSON.parse(text.slice(text.indexOf('\n')))
  }
  t.match(await sent('-p', '/echo?a=1&b'), {
    method: 'GET',
    url: '/echo?a=1&b',
    headers: { host: `127.0.0.1:${port}`, 'user-agent': 'Sensu-HTTP-Check', accept: '*/*', connection: 'close' },
    body: '',
  })
  t.match(
    await sent('-p', '/echo', '-m', 'POST', '-d', '{"a": "\u00e9"}', '-H', 'content-type: application/json, X-B:c:d'),
    {
      method: 'POST',
      headers: { 'content-type': 'application/json', 'x-b': 'c:d', 'content-length': '11' },
      body: '{"a": "\u00e9"}',
    },
  )
  t.match(await sent('-p/echo', '-mPUT', '-dx', '-xAgent', `--headerfile=${folder}/headers`, '-H', 'Host: virtual'), {
    method: 'PUT',
    headers: {
      host: 'virtual',
      'user-agent': 'Other',
      'x-file': 'from: file',
      'content-type': 'application/x-www-form-urlencoded',
    },
    body: 'x',
  })
})

t.test('names come from the hosts file; who is not there, or does not answer, is CRITICAL with the reason', async t => {
  const port = await listening(t, createServer(site))
  const root = t.testdir({
    etc: { hosts: '# x\n::1 web.test\n127.0.0.1\tother WEB.test # here\n', 'resolv.conf': 'nameserver 127.0.0.1:1\n' },
  })
  const variables = { SENSU_KVM_ROOT: root }
  t.same(await answer(['-u', `http://web.test:${port}/`], variables), ['CheckHttp OK: 200, 24 bytes', 0])
  const closed = createServer()
  const nobody = await listening(t, closed)
  closed.close()
  t.same(await answer(['-u', `http://web.test:${nobody}/`], variables), [
    `CheckHttp CRITICAL: Request error: Failed to open TCP connection to web.test:${nobody} (Connection refused - connect(2) for "127.0.0.1" port ${nobody})`,
    2,
  ])
  t.same(await answer(['-u', 'http://nobody.invalid/', '--dns-timeout', '0.2'], variables), [
    'CheckHttp CRITICAL: Request error: Failed to open TCP connection to nobody.invalid:80 (Hostname not known: nobody.invalid)',
    2,
  ])
  // Takes the connection, and never a word of TLS.
  const mute = await listening(t, createPlainServer())
  t.same(await answer(['-u', `https://127.0.0.1:${mute}/`, '--open-timeout', '0.2'], variables), [
    'CheckHttp CRITICAL: Request timed out opening connection',
    2,
  ])
})

t.test('what is wrong with the options is UNKNOWN', async t => {
  const table: [argv: string[], problem: string][] = [
    [[], 'No URL specified'],
    [['-h', 'web'], 'No URL specified'],
    [['-u', 'web'], '--url web: not a URL: write http://HOST/ or https://HOST/'],
    [['-u', 'ftp://web/'], '--url ftp://web/: not a URL: write http://HOST/ or https://HOST/'],
    [['-u', 'http://web/', '--proxy-url', 'web'], '--proxy-url web: not a URL: write http://HOST/'],
    [['-u', 'http://web/', '-m', 'DELETE'], '--method DELETE: not one of GET, HEAD, POST, PUT'],
    [['-u', 'http://web/', '-H', 'broken'], '--header: "broken" is no header: write Name: value'],
    [['-u', 'http://web/', '--aws-v4'], 'unknown option --aws-v4: see --help'],
  ]
  for (const [argv, problem] of table) t.same(await answer(argv), [`CheckHttp UNKNOWN: ${problem}`, 3])
  t.match(await answer(['-u', 'http://web/', '-q', '(']), [/^CheckHttp UNKNOWN: --query \(: Invalid regular/, 3])
  t.match(await answer(['-u', 'https://web/', '-C', '/nowhere.pem']), [/^CheckHttp UNKNOWN: ENOENT: .*nowhere/, 3])
})

t.test('TLS: who is trusted, client certificates, and certificates that end soon', async t => {
  const folder = makeTemporaryDirectory()
  t.teardown(() => rmSync(folder, { recursive: true }))
  const { authority, server, client } = await createCertificates(folder)
  const read = (file: string) => readFileSync(file)
  const options = { key: read(server.key), cert: read(server.certificate), ca: read(authority), requestCert: true }
  const secure = createTlsServer({ ...options, rejectUnauthorized: false }, (request, response) => {
    const { authorized } = request.socket as unknown as { authorized: boolean }
    response.writeHead(request.url === '/broken' ? 500 : 200).end(authorized ? 'known client' : 'stranger')
  })
  const url = `https://127.0.0.1:${await listening(t, secure)}/`
  writeFileSync(join(folder, 'both.pem'), Buffer.concat([read(client.certificate), read(client.key)]))
  t.match(await answer(['-u', url]), [
    /^CheckHttp CRITICAL: Request error: certificate verify failed \(self-signed /,
    2,
  ])
  t.same(await answer(['-u', url, '-k', '-q', 'stranger']), ['CheckHttp OK: 200, found /stranger/ in 8 bytes', 0])
  t.same(await answer(['-u', url, '-C', authority]), ['CheckHttp OK: 200, 8 bytes', 0])
  t.same(await answer(['-u', url], { SSL_CERT_FILE: authority }), ['CheckHttp OK: 200, 8 bytes', 0])
  t.same(await answer(['-u', url, '-C', authority, '-c', join(folder, 'both.pem'), '-q', '^known']), [
    'CheckHttp OK: 200, found /^known/ in 12 bytes',
    0,
  ])
  t.same(await answer(['-u', url, '-C', authority, '-e', '1']), ['CheckHttp OK: 200, 8 bytes', 0])
  const [ending, status] = await answer(['-u', url, '-C', authority, '-e', '3'])
  t.match(ending, /^CheckHttp WARNING: Certificate will expire \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC$/)
  t.equal(status, 1)
  const end = new Date(ending.slice('CheckHttp WARNING: Certificate will expire '.length).replace(' UTC', 'Z'))
  t.ok(Math.abs(end.getTime() - Date.now() - 2 * 86_400_000) < 3_600_000, 'in two days')
  t.same(await answer(['-u', `${url}broken`, '-k', '-e', '3']), ['CheckHttp CRITICAL: 500', 2], 'hides nothing worse')
  const root = t.testdir({ etc: { hosts: '127.0.0.1 web.test\n' } })
  const wrongName = ['-u', url.replace('127.0.0.1', 'web.test'), '-C', authority]
  t.match(await answer(wrongName, { SENSU_KVM_ROOT: root }), [/verify failed \(Hostname\/IP does not match /, 2])
  const plain = await listening(t, createServer(site))
  t.match(await answer(['-h', '127.0.0.1', '-P', String(plain), '-p', '/', '-s']), [
    'CheckHttp CRITICAL: Request error: TLS failed (wrong version number)',
    2,
  ])
})

t.test(
  'a proxy is asked instead of the server: by option, or by the environment unless it is an exception',
  async t => {
    const folder = makeTemporaryDirectory()
    t.teardown(() => rmSync(folder, { recursive: true }))
    const { authority, server } = await createCertificates(folder)
    const secure = createTlsServer({ key: readFileSync(server.key), cert: readFileSync(server.certificate) }, site)
    const securePort = await listening(t, secure)
    const asked: string[] = []
    const proxy = createServer((request, response) => {
      asked.push(`${request.method} ${request.url} ${request.headers['proxy-authorization'] ?? ''}`.trim())
      response.end('through')
    })
    proxy.on('connect', ({ url = '', headers }, socket) => {
      asked.push(`CONNECT ${url}`)
      if (headers['proxy-authorization'] === undefined)
        return socket.end('HTTP/1.1 407 Proxy Authentication Required\r\n\r\n')
      const onward = connect(securePort, '127.0.0.1', () => socket.write('HTTP/1.1 200 Connection established\r\n\r\n'))
      onward.pipe(socket).pipe(onward)
      for (const end of [socket, onward]) end.on('error', () => undefined)
      return undefined
    })
    const address = `127.0.0.1:${await listening(t, proxy)}`
    const through = ['CheckHttp OK: 200, 7 bytes', 0]
    t.same(await answer(['-u', 'http://web.test/a?b', '--proxy-url', `http://${address}`]), through)
    t.same(await answer(['-u', 'http://web.test:81/', '--proxy-url', `http://me:p%40ss@${address}`]), through)
    t.same(await answer(['-u', 'http://10.0.0.1/env'], { http_proxy: `http://${address}`, no_proxy: 'x.org' }), through)
    t.same(asked.splice(0), [
      'GET http://web.test:80/a?b',
      'GET http://web.test:81/ Basic bWU6cEBzcw==',
      'GET http://10.0.0.1:80/env',
    ])
    const direct = await listening(t, createServer(site))
    const page24 = ['CheckHttp OK: 200, 24 bytes', 0]
    t.same(await answer(['-u', `http://127.0.0.1:${direct}/`], { http_proxy: `http://${address}` }), page24)
    const root = t.testdir({ etc: { hosts: '127.0.0.1 in.web.test\n' } })
    for (const no_proxy of ['.web.test', 'other, web.test', `in.web.test:${direct}`]) {
      const variables = { SENSU_KVM_ROOT: root, http_proxy: `http://${address}`, no_proxy }
      t.same(await answer(['-u', `http://in.web.test:${direct}/`], variables), page24, no_proxy)
    }
    t.same(await answer(['-u', `http://127.0.0.1:${direct}/`, '--noproxy'], { http_proxy: 'http://x.invalid' }), page24)
    t.same(asked, [])
    const tunnel = ['-u', `https://127.0.0.1:${securePort}/`, '-C', authority, '--proxy-url']
    t.same(await answer([...tunnel, `http://me:pass@${address}`]), page24)
    t.same(await answer([...tunnel, `http://${address}`]), [
      'CheckHttp CRITICAL: Request error: 407 "Proxy Authentication Required"',
      2,
    ])
  },
)

t.test('the executable prints the line of the Ruby plugin, and how long it took', async t => {
  const url = `http://127.0.0.1:${await listening(t, createServer(site))}/`
  const { stdout, status, stderr } = await runExecutable('check-http.rb', ['-u', url, '-q', 'OK'])
  t.match(stdout, /^CheckHttp OK: 200, found \/OK\/ in 24 bytes\n\| response_time=0\.\d+s;;;0 response_size=24B;;;0\n$/)
  t.same([status, stderr], [0, ''])
  t.same(firstLineOf(await runCheck(program, ['--version'], exampleEnvironment())), ['check-http 1.2.3 (sensu-kvm)', 3])
})

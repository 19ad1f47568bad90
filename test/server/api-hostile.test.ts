import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import t from 'tap'
import { stringifyJson } from '../../sensu/json.js'
import { ask, exchange, parseAnswer } from './http.js'
import { forgetAll } from './recorded-api.js'
import { apiPort, Site, until } from './site.js'

const site = await Site.open(t)
const server = await site.serve(
  site.settings({
    api: { bind: '127.0.0.1', port: 0, user: 'admin', password: 'p:w' },
    sensu_kvm: { server: { api: { max_body_bytes: 4096, max_connections: 20, max_requests: 2 } } },
  }),
  [],
)
const port = await apiPort(server)
const authorized = { Authorization: `Basic ${Buffer.from('admin:p:w').toString('base64')}` }
const credentials = `Authorization: ${authorized.Authorization}\r\n`

t.beforeEach(() => forgetAll(site.redis))

async function status(method: string, target: string, body?: string): Promise<string> {
  const answer = await ask(port, method, target, { headers: authorized, ...(body !== undefined && { body }) })
  return answer.status_line.slice('HTTP/1.1 '.length)
}

t.test('who does not know the password gets nothing, whatever is sent instead', async t => {
  const wrong = ['admin:', 'admin:p', 'admin:P:w', ':p:w', 'admin', ''].map(
    text => `Basic ${Buffer.from(text).toString('base64')}`,
  )
  for (const header of ['', 'Basic', 'Basic ', 'basic YWRtaW46cDp3', 'Bearer x', 'Basic \xff\xfe', ...wrong]) {
    for (const path of ['/clients', '/health', '/info', '/nope']) {
      const answer = await ask(port, 'GET', path, { headers: { Authorization: header } })
      t.match(answer, { status_line: 'HTTP/1.1 401 Unauthorized', body: '' }, `${path} ${header}`)
      t.ok(answer.headers.includes('WWW-Authenticate: Basic realm="Restricted Area"'))
    }
  }
  t.equal(await status('GET', '/clients'), '200 OK', 'a password may have a colon')
  t.notMatch(stringifyJson(server.lines.map(({ message, request }) => ({ message, request }) as never)), /p:w|cDp3/)
})

t.test('a method that no one knows is answered as every other, but not without the password', async t => {
  t.match(parseAnswer(await exchange(port, 'get /clients HTTP/1.1\r\n\r\n')), {
    status_line: 'HTTP/1.1 401 Unauthorized',
  })
  t.match(parseAnswer(await exchange(port, `BREW /clients HTTP/1.1\r\n${credentials}\r\n`)), {
    status_line: 'HTTP/1.1 405 Method Not Allowed',
  })
  t.match(parseAnswer(await exchange(port, `BREW /pot HTTP/1.1\r\n${credentials}\r\n`)), {
    status_line: 'HTTP/1.1 404 Not Found',
  })
})

t.test('what is no request is refused', async t => {
  for (const text of [
    '\r\n\r\nx\r\n\r\n',
    '\x16\x03\x01\x02\x00\x01',
    'GET\r\n\r\n',
    'GET / HTTP/1.1\r\nbroken\r\n\r\n',
  ]) {
    t.equal((await exchange(port, text)).split('\r\n')[0], 'HTTP/1.1 400 Bad request', stringifyJson(text))
  }
  const huge = `GET /clients HTTP/1.1\r\nX: ${'x'.repeat(20_000)}\r\n\r\n`
  t.match(await exchange(port, huge), /^HTTP\/1\.1 431 Request Header Fields Too Large\r\n/)
})

t.test('bodies that are too long are refused by what they say of their length', async t => {
  t.equal(await status('POST', '/stashes/x', stringifyJson({ text: 'x'.repeat(5000) })), '413 Payload Too Large')
  t.match(
    await exchange(port, `POST /stashes/x HTTP/1.1\r\n${credentials}Content-Length: 99999999999\r\n\r\n{`),
    /^HTTP\/1\.1 413 /,
  )
  t.equal(await site.redis.exists('stash:x'), 0)
})

t.test('bodies that are no JSON object of the demanded kind are refused', async t => {
  const deep = `${'['.repeat(2000)}${']'.repeat(2000)}`
  for (const path of [
    '/clients',
    '/results',
    '/request',
    '/resolve',
    '/silenced',
    '/silenced/clear',
    '/stashes',
    '/stashes/x',
  ]) {
    for (const body of [
      '',
      '{',
      '[]',
      'null',
      '"x"',
      '{"a":}',
      '\0',
      `{"a":${deep}}`,
      '{"__proto__":{"name":"x"}',
      '\xff',
    ]) {
      t.equal(await status('POST', path, body), '400 Bad Request', `${path} ${body.slice(0, 20)}`)
    }
  }
  t.equal(await status('POST', '/silenced', '{"check":"x","expire":1e300}'), '400 Bad Request')
  t.equal(await status('POST', '/silenced', '{"check":"x","expire":9007199254740991}'), '400 Bad Request')
  t.equal(await status('POST', '/silenced', '{"check":"x","expire":1,"begin":9007199254740991}'), '400 Bad Request')
  t.equal(
    await status('POST', '/stashes', '{"path":"x","content":{},"expire":99999999999999999999}'),
    '400 Bad Request',
  )
  t.equal(await status('POST', '/request', '{"check":"__proto__"}'), '404 Not Found')
  t.equal(await status('POST', '/request', `{"check":"x","subscribers":[""]}`), '400 Bad Request')
  t.strictSame(await site.redis.keys('s[it]*'), [])
})

t.test('encoded names and paths are what they are', async t => {
  for (const path of [
    '/clients/%',
    '/clients/%2e%2e',
    '/clients/a%00b',
    '/clients/..%2f',
    '/silenced/ids/%zz',
    '/results/a/b/c',
  ]) {
    t.equal(await status('GET', path), '404 Not Found', path)
  }
  t.equal(await status('GET', '/stashes/%zz'), '400 Bad Request')
  t.equal(await status('GET', '/clients/__proto__'), '404 Not Found')
  t.equal(await status('GET', '/checks/constructor'), '404 Not Found')
  t.equal(await status('GET', '/clients?limit=%&filter.%zz=%E0%A4%A&&=&filter.=x&offset=-1'), '200 OK')
  t.equal(await status('GET', `/clients?limit=${'9'.repeat(400)}&offset=${'9'.repeat(400)}`), '200 OK')
  t.equal(await status('POST', '/stashes/%E2%82%AC%20%2F', '{"a":"ü"}'), '201 Created')
  t.equal(await site.redis.get('stash:€ /'), '{"a":"ü"}')
  t.match(await ask(port, 'GET', '/stash/%E2%82%AC%20%2F', { headers: authorized }), { body: '{"a":"ü"}' })
})

t.test('of several requests on a connection only the first is done', async t => {
  const remove = (name: string) => `DELETE /stashes/${name} HTTP/1.1\r\n${credentials}\r\n`
  await site.redis.mset('stash:one', '{}', 'stash:two', '{}')
  const answers = await exchange(port, remove('one') + remove('two'))
  t.equal(answers.match(/HTTP\/1\.1/g)?.length, 1)
  t.strictSame(await site.redis.mget('stash:one', 'stash:two'), [null, '{}'])
})

t.test('who sends slowly, or nothing, is dropped; meanwhile the others are answered', async t => {
  const slow = await Promise.all(
    ['', 'GET /clients HT', `POST /stashes HTTP/1.1\r\n${credentials}`].map(text => open(text)),
  )
  t.equal(await status('GET', '/clients'), '200 OK')
  const began = performance.now()
  await Promise.all(slow.map(closed))
  t.ok(performance.now() - began < 20_000)
  t.equal(await status('GET', '/clients'), '200 OK')
})

t.test('connections are bounded', async t => {
  const idle = await Promise.all(Array.from({ length: 20 }, () => open('')))
  const more = await open('GET /clients HTTP/1.1\r\n\r\n')
  await closed(more)
  t.equal(more.bytesRead, 0, 'one too many is closed without an answer')
  for (const socket of idle) socket.destroy()
  await until('a place', async () => (await exchange(port, 'GET /x HTTP/1.1\r\n\r\n').catch(() => '')) !== '')
})

t.test('requests that are answered at the same time are bounded', async t => {
  const seeding = site.redis.pipeline()
  const result = stringifyJson({ name: 'k', output: 'o'.repeat(2000) })
  for (let at = 0; at < 10_000; at++) {
    seeding.sadd('clients', `host-${at}`).sadd(`result:host-${at}`, 'k').set(`result:host-${at}:k`, result)
  }
  await seeding.exec()
  const held = await Promise.all([1, 2].map(() => open(`GET /results HTTP/1.1\r\n${credentials}\r\n`, true)))
  await Promise.all(held.map(socket => once(socket, 'readable')))
  t.equal(await status('GET', '/clients'), '503 Service Unavailable')
  for (const socket of held) socket.destroy()
  await until('a place', async () => (await status('GET', '/clients/x')) === '404 Not Found')
})

t.test('log lines of requests are bounded, and hide secrets', async t => {
  const from = server.lines.length
  await status('POST', '/stashes/secret', stringifyJson({ password: 'hunter2', nested: [{ api_key: 'hunter3' }] }))
  await status('GET', `/clients/${'x'.repeat(10_000)}`)
  await until(
    'the lines',
    () => server.lines.slice(from).filter(({ message }) => message === 'api response').length === 2,
  )
  const lines = server.lines.slice(from).map(line => JSON.stringify(line))
  t.match(lines.join('\n'), /REDACTED/)
  t.notMatch(lines.join('\n'), /hunter/)
  t.ok(lines.every(line => line.length < 6000))
  t.match(await site.redis.get('stash:secret'), /hunter2.*hunter3/, 'what is stored is what was sent')
})

t.test('the server ends although clients hang on', async t => {
  await Promise.all(['', 'GET /clients HT'].map(text => open(text)))
  t.strictSame(await server.stop(), { status: 0, signal: null })
})

/** However it ends. */
function closed(socket: Socket): Promise<void> {
  return new Promise(resolve => socket.once('close', () => resolve()))
}

/** A connection over which something is sent, and that is left so. */
async function open(text: string, unread = false): Promise<Socket> {
  const socket = connect(port, '127.0.0.1')
  socket.on('error', () => {})
  if (!unread) socket.resume()
  await once(socket, 'connect')
  socket.write(text)
  return socket
}

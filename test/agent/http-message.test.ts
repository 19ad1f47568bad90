import t from 'tap'
import { type HttpRequest, parseHttpRequest } from '../../agent/http-message.js'

const parse = (text: string) => parseHttpRequest(Buffer.from(text))
const whole = (text: string): HttpRequest => {
  const request = parse(text)
  if (typeof request === 'string') throw new Error(`${request}: ${JSON.stringify(text)}`)
  return request
}

t.test('line, query, headers and body are taken apart', async t => {
  const request = whole('post /results?a=b?c HTTP/1.1\r\nHost: x\r\nContent-LENGTH: 3\r\n\r\nabcdef')
  t.match(request, { method: 'POST', methodAsSent: 'post', path: '/results', query: 'a=b?c' })
  t.equal(request.headers.get('host'), 'x')
  t.equal(request.body.toString(), 'abc')
})

t.test('bare line feeds, HTTP/1.0 and empty lines before a request are understood', async t => {
  t.equal(whole('GET /info HTTP/1.0\n\n').path, '/info')
  t.equal(whole('GET /info HTTP/1.1\nHost: x\n\n').headers.get('host'), 'x')
  t.equal(whole('\r\n\nGET /info HTTP/1.1\r\n\r\n').path, '/info', 'empty lines before it')
  t.equal(parse('\r\n\r\n'), 'incomplete')
})

t.test('a request is incomplete until its last byte is there', async t => {
  const text = 'POST /results HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}'
  for (let length = 0; length < text.length; length++) t.equal(parse(text.slice(0, length)), 'incomplete', `${length}`)
  t.equal(whole(text).body.toString(), '{}')
})

t.test('what is no request, or too large, is refused without waiting for more', async t => {
  const bad = [
    'hello\r\n',
    'GET\r\n',
    'GET /info\r\n',
    '\r\n'.repeat(40_000),
    'GET /info HTTP/1.1 extra\r\n',
    'GET /a HTTP/1.1\r\nContent-Length: -1\r\n\r\n',
    'GET /a HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n',
    `GET /${'a'.repeat(5000)}`,
    `GET /a HTTP/1.1\r\n${'X: y\r\n'.repeat(20_000)}`,
  ]
  for (const text of bad) t.equal(parse(text), 'malformed', text.slice(0, 40))
})

import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { connect } from 'node:net'
import t, { type Test } from 'tap'
import { findFreePort } from '../../scripts/services/process.js'
import { rabbitmq } from '../support/services.js'
import { AgentProcess } from './agent-process.js'
import { ServerSide } from './server-side.js'

const broker = await rabbitmq(t)
const server = await ServerSide.open(t, broker.url)
const { host, port: brokerPort, user, password, vhost } = broker

function start(t: Test, client: object, own: object = {}, args = ['-v']): AgentProcess {
  const settings = { client, rabbitmq: { host, port: brokerPort, user, password, vhost }, sensu_kvm: own }
  return new AgentProcess(t, { files: { 'agent.json': settings }, args })
}

/** Sends bytes to a local TCP port, and waits for the end of the conversation. */
async function send(port: number, text: string): Promise<void> {
  const socket = connect(port, '127.0.0.1')
  const closed = once(socket, 'close')
  socket.resume()
  socket.write(text)
  await closed
}

t.test('no secret gets into a log line, on whichever way it comes; results keep it', async t => {
  const [port, httpPort] = [await findFreePort(), await findFreePort()]
  const agent = start(t, {
    ...{ name: 'discreet', address: '127.0.0.9', subscriptions: [], redact: ['pin'], pin: 'leak-client-pin' },
    ...{ api_key: 'leak-client-key', signature: 's', socket: { port } },
    http_socket: { port: httpPort, user: 'u', password: 'leak-http' },
  })
  await server.keepalive('discreet')
  const check = {
    ...{ name: 'd-request', password: 'leak-request', nested: [{ pin: 'leak-nested' }] },
    command: `printf '{"secret": "leak-output"}' # http://user:leak-url@host/`,
    hooks: { ok: { command: 'true', api_token: 'leak-hook' } },
  }
  await server.request('client:discreet', check)
  await server.request('client:discreet', '{"name":"d-broken","password":"leak-broken"')
  await server.request('client:discreet', { name: 'd-extension', secret: 'leak-extension' })
  await agent.log('unknown check extension')
  await send(port, '{"name":"d-tcp","output":"o","pin":"leak-tcp"}')
  await send(port, '{"name":"d-invalid","output":5,"pass":"leak-invalid"}')
  await send(port, '{"name":"d-cut","passwd":"leak-cut')
  const datagrams = createSocket('udp4')
  datagrams.send('{"name":"d-udp","output":"o","secret_key":"leak-udp"}', port, '127.0.0.1')
  const authorization = `Authorization: Basic ${btoa('u:leak-http')}`
  await send(httpPort, `GET /settings?redacted=false HTTP/1.1\r\n${authorization}\r\n\r\n`)
  await server.result('d-udp')
  datagrams.close()
  const { check: result } = await server.result('d-request')
  t.match(result, { password: 'leak-request', output: '{"secret": "leak-output"}' })
  t.strictSame(await agent.stop(), { status: 0, signal: null })
  const told = agent.lines
    .map(line => JSON.stringify(line))
    .filter(line => /leak-/.test(line) || line.includes(password))
  t.strictSame(told, [])
  const published = agent.lines.find(({ message, payload }) => {
    return message === 'publishing check result' && JSON.stringify(payload).includes('"d-request"')
  })
  t.match(published?.['payload'], { check: { password: 'REDACTED', nested: [{ pin: 'REDACTED' }] } })
})

t.test('a configuration error shows no secret', async t => {
  const agent = start(t, { name: 'with blanks', password: 'leak-config', address: 'a', subscriptions: [] })
  t.match(await agent.exit, { status: 2 })
  t.match(await agent.log('client name cannot contain spaces or special characters'), {
    object: { password: 'REDACTED' },
  })
})

t.test('token values are quoted for the shell when the site wants that, in hooks too', async t => {
  const client = {
    address: '127.0.0.9',
    subscriptions: [],
    socket: { enabled: false },
    http_socket: { enabled: false },
  }
  const evil = `x'; echo injected "$(echo substituted)"`
  const hooks = { ok: { command: `printf '%s' ":::evil:::"` } }
  const check = { name: 'quoting', command: 'printf "%s" :::evil:::', hooks }
  start(t, { ...client, name: 'careful', evil }, { tokens: { quote: true } }, [])
  await server.keepalive('careful')
  await server.request('client:careful', check)
  t.match((await server.result('quoting')).check, {
    ...{ status: 0, output: evil, command: check.command },
    hooks: { ok: { status: 0, output: evil, command: hooks.ok.command } },
  })
  await server.request('client:careful', { name: 'refused', command: 'echo `echo :::evil:::`' })
  t.match((await server.result('refused')).check, {
    status: 3,
    output: 'Unexpected error: cannot quote a token in a command with "`"',
  })

  start(t, { ...client, name: 'as-ever', evil: 'x; echo injected' }, {}, [])
  await server.keepalive('as-ever')
  await server.request('client:as-ever', { name: 'unquoted', command: 'echo :::evil:::' })
  t.match((await server.result('unquoted')).check, { status: 0, output: 'x\ninjected\n' })
})

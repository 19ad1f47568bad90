import { existsSync, renameSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import t from 'tap'
import { parseJson, stringifyJson } from '../../sensu/json.js'
import type { Json, JsonObject } from '../../sensu/types.js'
import { at, fixture, list, object } from '../support/recorded-cases.js'
import { rabbitmq } from '../support/services.js'
import { ask } from './http.js'
import { withoutTimes } from './recorded-api.js'
import { deliberateInLogs } from './recorded-differences.js'
import { apiPort, ServerProcess, Site, until } from './site.js'

/** Level and message of log lines, which may be cut off. */
function recordedMessages(lines: Json): string[] {
  return list(lines).flatMap(line => {
    const [, level, message] = /"level":"(\w+)","message":"([^"]*)"/.exec(String(line)) ?? []
    return level === undefined ? [] : [`${level} ${message}`]
  })
}

/** Level and message of recorded log lines, without the deliberate differences. */
function recordedLines(lines: Json): string[] {
  const whole = list(lines)
    .map(String)
    .filter(line => line.endsWith('}'))
  const parsed = whole.map(line => object(parseJson(line)))
  return parsed
    .filter(line => !deliberateInLogs.some(({ concerns }) => concerns(line)))
    .map(({ level, message }) => `${String(level)} ${String(message)}`)
}

/** Of what the server logged, the lines that are recorded, in its order. */
function logged(server: ServerProcess, recorded: string[]): string[] {
  const lines = server.lines.map(({ level, message }) => `${level} ${message}`)
  return lines.filter(line => recorded.includes(line))
}

function result(check: JsonObject, client = 'c1'): JsonObject {
  const now = Math.floor(Date.now() / 1000)
  return { client, check: { status: 2, output: 'out\n', issued: now, executed: now, ...check } }
}

const site = await Site.open(t, { brokerUrl: (await rabbitmq(t)).url })

t.test(
  'recorded cases malformed-results-with-global-error-handler, invalid-json-messages and max-message-size: logged and dropped; what follows is processed',
  async t => {
    const server = await site.serve(
      site.settings({ sensu: { server: { max_message_size: 600 }, global_error_handler: true } }),
    )
    const recorded = list(fixture('malformed-results-with-global-error-handler')['input'])
    const malformed = recorded.map(String).filter(text => /^[[{"n]/.test(text) && !/^no/.test(text))
    t.ok(malformed.length > 4)
    const invalid = list(fixture('invalid-json-messages')['input']).map(text => /"(.*)"/.exec(String(text))?.[1] ?? '')
    t.strictSame(invalid, ['{bad', 'not json'])
    for (const text of [...malformed, 'not json', '', '{"client":"c1","check":{"name":"x","password":"hunter2"}'])
      await site.publish('results', text)
    for (const text of ['{bad', '{"name":"nosubs","address":"x"}', '[]']) await site.publish('keepalives', text)
    const longest = object(parseJson(String(list(fixture('max-message-size')['observed'])[0])))
    const tooLong = String(longest['message'])
    await site.publish('results', tooLong)
    await site.publish('results', result({ name: 'after' }))
    await site.stored('result:c1:after')
    await until(
      'both pipes',
      () => server.lines.filter(({ level }) => level === 'error').length >= malformed.length + 7,
    )
    const errors = server.lines.filter(({ level }) => level === 'error')
    t.match(
      errors.find(({ message_size }) => message_size !== undefined),
      { message: tooLong, max_message_size: longest['max_message_size'], message_size: longest['message_size'] },
    )
    t.match(
      errors.find(({ payload }) => payload === 'not json'),
      { message: 'failed to parse a message from results' },
    )
    t.match(
      errors.find(({ payload }) => payload === '{bad'),
      { message: 'failed to parse a message from keepalives' },
    )
    t.notMatch(JSON.stringify(server.lines), 'hunter2')
    t.strictSame((await site.redis.smembers('result:c1')).sort(), ['after'])
    const { input } = fixture('server-sigterm-after-leaked-counter')
    // see recorded-differences.ts
    t.strictSame(await server.stop(), { status: 0, signal: null }, `${input}: it ends`)
    t.equal((await site.calls(1)).length, 1)
  },
)

t.test('recorded case filter-extension-check-dependencies', async t => {
  const server = await site.serve(site.settings({ handlers: { hdep: { filter: 'check_dependencies' } } }))
  for (const client of ['c1', 'c3']) {
    await site.publish('keepalives', { name: client, address: 'x', subscriptions: ['base'], timestamp: 1 })
    await site.stored(`client:${client}`)
  }
  await site.publish('results', result({ name: 'parent', handlers: [] }))
  await site.stored('result:c1:parent')
  const cases: [check: string, client: string, dependencies: Json][] = [
    ['d1', 'c1', ['parent']],
    ['d2', 'c3', ['c3/parent']],
    ['d3', 'c3', ['c1/parent']],
    ['d4', 'c3', ['subscription:base/parent']],
    ['d5', 'c3', ['nope']],
    ['d6', 'c3', 'parent'],
  ]
  for (const [name, client, dependencies] of cases) {
    await site.publish('results', result({ name, dependencies, handlers: ['hdep'] }, client))
  }
  const handled = (await site.calls(3)).map(({ stdin }) => JSON.parse(stdin).check.name)
  const { observed } = fixture('filter-extension-check-dependencies')
  t.strictSame(
    handled.sort(),
    list(at(observed, 'handled'))
      .map(call => at(call, 1))
      .sort(),
  )
  t.strictSame(await server.stop(), { status: 0, signal: null })
})

t.test('recorded case deregistration-handler: the client is gone, its events are resolved first', async t => {
  const server = await site.serve(site.settings())
  await site.publish('keepalives', { name: 'dereg1', address: '127.0.0.1', subscriptions: ['base'], timestamp: 1 })
  await site.publish('results', result({ name: 'failing' }, 'dereg1'))
  t.match(await site.calls(1), [{ handler: 'default' }])
  await site.publish('results', result({ name: 'deregistration', status: 1, handlers: ['deregistration'] }, 'dereg1'))
  await until('the removal', async () => (await site.redis.exists('client:dereg1')) === 0)
  const { observed } = fixture('deregistration-handler')
  const recorded = String(at(observed, 'log', 1))
  const { extension, output, status } = object(parseJson(recorded))
  // the second call, for the event that the removal itself resolves, is quiet here
  await server.log('handler extension output', 2)
  const [line, ...others] = server.lines.filter(
    ({ message, output: text }) => message === 'handler extension output' && text !== '',
  )
  t.match([line, others], [{ level: 'info', extension, output, status }, []])
  t.strictSame((await site.redis.keys('*dereg1*')).sort(), Object.keys(object(at(observed, 'redis_after'))))
  const [resolved] = await site.calls(1)
  t.match(JSON.parse(resolved?.stdin ?? ''), {
    action: 'resolve',
    check: { name: 'failing', output: 'Resolving on request of the API' },
  })
  t.strictSame(await server.stop(), { status: 0, signal: null })
})

t.test('recorded case mutator-ruby-hash-with-pipe-handler', async t => {
  const server = await site.serve(site.settings({ handlers: { hmutrh: { mutator: 'ruby_hash' } } }))
  await site.publish('results', result({ name: 'rh', handlers: ['hmutrh'] }))
  t.match(await server.log('handler output'), {
    level: 'error',
    handler: { name: 'hmutrh' },
    output: [/^Unexpected error: /],
  })
  await server.stop()
})

t.test('recorded case server-sigterm-with-work-in-progress: running handlers are waited for', async t => {
  const recorded = recordedLines(fixture('server-sigterm-with-work-in-progress')['observed'] ?? null)
  const server = await site.serve(
    site.settings({ handlers: { slow: { type: 'pipe', command: 'sleep 30', timeout: 1 } } }),
  )
  await site.publish('results', result({ name: 'wip', handlers: ['slow'] }))
  await server.log('processing event')
  t.strictSame(await server.stop(), { status: 0, signal: null })
  t.strictSame(logged(server, recorded), recorded)
  t.match(
    server.lines.find(({ message }) => message === 'completing work in progress'),
    { in_progress: { check_results: 0, events: 1 } },
  )
})

t.test('recorded case json-escape-roundtrip: escapes become what they stand for', async t => {
  const server = await site.serve()
  await site.publish('results', String(at(fixture('json-escape-roundtrip'), 'input', 'raw')))
  t.match(await site.stored('result:c1:slash'), '"output":"a/b </x> é"')
  t.match(await site.calls(1), [{ handler: 'default', stdin: '"output":"a/b </x> é"' }])
  await server.stop()
})

t.test('recorded case server-signals-log: TRAP switches debug lines, USR2 opens the log anew', async t => {
  const recorded = recordedMessages(fixture('server-signals-log')['observed'] ?? null)
  const sw1 = { client_attributes: { name: 'sw1' } }
  const checks = { tick: { command: 'true', subscribers: ['base'], interval: 1, proxy_requests: sw1 } }
  await site.redis.set('client:sw1', '{"name":"sw1"}')
  await site.redis.sadd('clients', 'sw1')
  const server = new ServerProcess(t, site.settings({ checks }), ['--no-api', '-L', 'info', '-l', 'log'])
  const lines = async () => (await server.file('log')).split('\n').filter(line => line.endsWith('}'))
  const last = async (count: number) => recordedMessages((await lines()).slice(-count))
  await until('a request', async () => (await last(1))[0] === 'info publishing check request')
  server.kill('SIGTRAP')
  await until('debug lines', async () => (await last(100)).some(line => line.startsWith('debug ')))
  t.ok(recorded.some(line => line.startsWith('debug ')))
  server.kill('SIGTRAP')
  renameSync(join(server.directory, 'log'), join(server.directory, 'old'))
  server.kill('SIGUSR2')
  await until('the new log', () => existsSync(join(server.directory, 'log')))
  await until('a request in it', async () => (await last(1))[0] === 'info publishing check request')
  t.notMatch(await last(100), [/^debug /], 'the second TRAP switches them off')
  t.strictSame(await server.stop(), { status: 0, signal: null })
})

t.test('recorded case task-takeover-after-sigterm: the tasks go to another server, in their order', async t => {
  const { acquired_log, servers_after_info } = object(fixture('task-takeover-after-sigterm')['observed'])
  await site.redis.flushall()
  const first = await site.serve()
  await first.log('i am now responsible for a server task', 3)
  const heir = await site.serve(site.settings({ api: { bind: '127.0.0.1', port: 0 } }), [])
  t.strictSame(await first.stop(), { status: 0, signal: null })
  await heir.log('i am now responsible for a server task', 3)
  const taken = heir.lines.filter(({ message }) => message === 'i am now responsible for a server task')
  const withoutTime = (line: JsonObject) => stringifyJson(withoutTimes(line)).replace(/"timestamp":"[^"]*"/, '')
  t.strictSame(
    taken.map(line => withoutTime(object(parseJson(JSON.stringify(line))))),
    list(acquired_log ?? null).map(line => withoutTime(object(parseJson(String(line))))),
  )
  // the entry of the one that has ended stays until it expires
  const { server: ended } = await first.log('updated server registry')
  await site.redis.del(`server:${at(parseJson(JSON.stringify(ended)), 'id')}`)
  t.equal(await site.redis.scard('servers'), 2)
  await ask(await apiPort(heir), 'GET', '/info')
  t.equal(await site.redis.scard('servers'), list(servers_after_info ?? null).length)
  t.strictSame(await heir.stop(), { status: 0, signal: null })
})

t.test(
  'recorded case task-stolen-relinquish: a server that lost a task to another one says so and stops doing it',
  async t => {
    const { input, observed } = fixture('task-stolen-relinquish')
    const server = await site.serve()
    await server.log('i am now responsible for a server task', 3)
    for (const [command, value] of Object.entries(object(input)))
      await site.redis.set(command.replace('SET ', ''), String(value))
    await server.log('relinquishing server task')
    const lines = server.lines.filter(({ level }) => level === 'warn').slice(-2)
    t.strictSame(
      lines.map(({ timestamp: _, ...line }) => JSON.stringify(line)),
      list(observed).map(text => JSON.stringify({ ...JSON.parse(String(text)), timestamp: undefined })),
    )
    t.equal(await site.redis.get('task:client_monitor:server'), 'someone-else', 'which keeps it')
    await server.stop()
    await site.redis.del('task:client_monitor:server', 'lock:task:client_monitor')
  },
)

t.test('recorded case server-sigterm-log', async t => {
  const recorded = recordedLines(fixture('server-sigterm-log')['observed'] ?? null)
  const server = await site.serve()
  t.strictSame(await server.stop(), { status: 0, signal: null })
  t.strictSame(logged(server, recorded), recorded)
  t.strictSame(await site.redis.keys('lock:task:*'), [], 'the locks are given back')
})

t.test('recorded case redis-outage: everything pauses and goes on', async t => {
  const recorded = recordedLines(at(fixture('redis-outage')['observed'] ?? null, 'server_log'))
  const server = await site.serve()
  await server.log('i am now responsible for a server task')
  await site.redisServer.kill()
  await server.log('relinquishing server task')
  await site.redisServer.restart()
  await server.log('updated server registry', 2)
  t.strictSame(logged(server, recorded), recorded)
  await server.stop()
})

t.test('handlers get the event over sockets and pipes of the transport', async t => {
  const received: string[] = []
  const receiver = createServer(socket => {
    let text = ''
    socket.on('data', data => {
      text += String(data)
    })
    socket.on('end', () => received.push(text))
  }).listen(0, '127.0.0.1')
  t.teardown(() => receiver.close())
  await until('the receiver', () => receiver.listening)
  const address = receiver.address()
  const port = typeof address === 'object' && address !== null ? address.port : 0
  const fanned = await site.listen('fanout', 'evfan')
  const metrics = await site.listen('topic', 'metrics', { durable: true })
  const events = await site.listen('direct', 'events', { durable: true })
  const handlers = {
    htcp: { type: 'tcp', socket: { host: '127.0.0.1', port } },
    htrans: { type: 'transport', pipe: { type: 'fanout', name: 'evfan' } },
    hpassive: { type: 'transport', pipe: { type: 'topic', name: 'metrics', options: { passive: 'true' } } },
    hdurable: { type: 'transport', pipe: { type: 'direct', name: 'events', options: { durable: true } } },
  }
  const server = await site.serve(site.settings({ handlers }))
  await site.publish('results', result({ name: 'types', handlers: Object.keys(handlers) }))
  await until('all', () => [received, fanned, metrics, events].every(found => found.length === 1))
  t.equal(received[0], fanned[0])
  t.strictSame([metrics, events], [received, received], "exchanges that are somebody else's")
  t.equal(await site.redis.hget('events:c1', 'types'), received[0], 'what handlers get is what Redis holds')
  await server.stop()
})

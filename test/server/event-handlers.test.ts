import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { createServer } from 'node:net'
import t from 'tap'
import { severityOf } from '../../pipeline/filter.js'
import { parseJson } from '../../sensu/json.js'
import type { Json, JsonObject } from '../../sensu/types.js'
import { at, fixture, list, object, resultOf, timeOf, withoutId } from '../support/recorded-cases.js'
import { Rig } from './rig.js'
import { type HandlerCall, until } from './site.js'

const c1: JsonObject = {
  name: 'c1',
  subscriptions: ['base'],
  environment: 'production',
  address: '127.0.0.1',
  version: '1.9.0',
  timestamp: 1,
}

function names(calls: HandlerCall[]): string[] {
  return calls.map(call => call.handler).sort()
}

function messages(rig: Rig): Json[] {
  return rig.log().map(line => line['message'] ?? null)
}

t.test('sets are expanded two levels deep, each handler is called once', async t => {
  const rig = await Rig.start(t, {
    handlers: {
      hsev: { severities: ['critical'] },
      hflap: { handle_flapping: true },
      hset: { type: 'set', handlers: ['default', 'hsev', 'nosuch', 'debug'] },
      hsetset: { type: 'set', handlers: ['hset', 'hflap', 'default'] },
      hdeep: { type: 'set', handlers: ['hsetset', 'hflap'] },
    },
  })
  await rig.keepalive(c1)
  rig.log()
  const { input, observed } = fixture('handler-set')
  const calls = await rig.result(input ?? null)
  t.same(
    names(calls),
    list(at(observed, 'handler_calls'))
      .map(call => String(at(call, 'handler')))
      .sort(),
  )
  const log = rig.log()
  t.same(
    log.filter(line => line['level'] === 'error'),
    [{ level: 'error', message: 'unknown handler', handler_name: 'nosuch' }],
  )
  t.equal(log.at(0)?.['message'], 'processing event')
  const [call] = calls
  t.match(
    log.find(line => line['message'] === 'handler extension output'),
    {
      level: 'info',
      extension: { type: 'extension', name: 'debug' },
      event: { id: at(parseJson(call?.stdin ?? ''), 'id') },
      output: call?.stdin ?? '',
      status: 0,
    },
  )
  t.match(
    log.find(line => at(line, 'handler', 'name') === 'hsev'),
    { level: 'info', message: 'handler output', output: ['captured hsev\n'] },
  )

  const once_ = fixture('handler-set-nested-once')
  t.same(
    names(await rig.result(once_['input'] ?? null)),
    list(at(once_['observed'], 'handler_calls')).map(String).sort(),
  )
  rig.log()
  t.same(names(await rig.result({ client: 'c1', check: { name: 'deep', status: 2, handlers: ['hdeep'] } })), [
    'default',
    'hflap',
  ])
  t.match(
    rig.log().filter(line => line['level'] === 'error'),
    [{ message: 'handler sets cannot be deeply nested', handler: { name: 'hset' } }],
  )
  t.same(
    await rig.result({ client: 'c1', check: { name: 'nobody', status: 2, handlers: [] } }),
    [],
    'an empty list means nobody',
  )
})

t.test('severities, at creation and at resolution', async t => {
  const rig = await Rig.start(t, {
    handlers: { hsev: { severities: ['critical'] }, hsevw: { severities: ['warning', 'unknown'] } },
  })
  const { input, observed } = fixture('handler-severities')
  const created: Json[] = []
  const send = (status: number, name: string) =>
    rig.result({ client: 'c1', check: { name, status, handlers: ['hsev', 'hsevw'] } })
  for (const status of list(at(input, 'create_status')).map(Number)) {
    for (const call of await send(status, `sev${status}`)) created.push([call.handler, `sev${status}`])
  }
  t.same(created.map(String).sort(), list(at(observed, 'create')).map(String).sort())
  const resolved: Json[] = []
  for (const name of list(at(input, 'then_resolve')).map(String)) {
    for (const call of await send(0, name)) resolved.push([call.handler, name])
  }
  t.same(resolved.map(String).sort(), list(at(observed, 'resolve')).map(String).sort())
  t.ok(messages(rig).includes('handler does not handle event severity'))
  for (const vector of list(fixture('vectors-severity')['observed']))
    t.equal(severityOf(Number(at(vector, 0))), at(vector, 1))
})

t.test('native filters: inclusive, exclusive, several, unknown', async t => {
  const production = { client: { environment: 'production' } }
  const rig = await Rig.start(t, {
    filters: { fprod: { attributes: production }, fneg: { negate: true, attributes: production } },
    handlers: {
      hfilt: { filter: 'fprod' },
      hfiltneg: { filter: 'fneg' },
      hfiltunk: { filter: 'nofilter' },
      hfiltmulti: { filters: ['fprod', 'fneg'] },
    },
  })
  const handlers = ['hfilt', 'hfiltneg', 'hfiltunk', 'hfiltmulti']
  await rig.keepalive(c1)
  await rig.keepalive({ ...c1, name: 'c3', environment: 'dev' })
  rig.log()
  t.same(names(await rig.result({ client: 'c1', check: { name: 'f', status: 1, handlers } })), ['hfilt', 'hfiltunk'])
  const log = rig.log()
  t.match(
    log.filter(line => line['message'] === 'event was filtered'),
    [
      { level: 'info', handler: { name: 'hfiltneg' }, event: { action: 'create' }, filter: 'fneg' },
      { level: 'info', handler: { name: 'hfiltmulti' }, filter: 'fneg' },
    ],
  )
  t.match(
    log.filter(line => line['level'] === 'error'),
    [{ message: 'unknown filter', filter_name: 'nofilter' }],
  )
  t.same(names(await rig.result({ client: 'c3', check: { name: 'f', status: 1, handlers } })), ['hfiltneg', 'hfiltunk'])
})

t.test('native filters with and without time windows, as recorded', async t => {
  const { input, observed } = fixture('filters-native')
  const filterOf: { [handler: string]: string } = {
    hfilt: 'fprod',
    hfiltneg: 'fneg',
    hfiltin: 'fwhenin',
    hfiltout: 'fwhenout',
    hfiltunk: 'nofilter',
  }
  const filters = Object.fromEntries(
    Object.values(filterOf)
      .filter(name => at(input, 'filters', name) !== null)
      .map(name => [name, object(at(input, 'filters', name))]),
  )
  const handlers = Object.fromEntries(Object.entries(filterOf).map(([handler, filter]) => [handler, { filter }]))
  const rig = await Rig.start(t, { filters, handlers })
  await rig.keepalive(c1)
  await rig.keepalive({ ...c1, name: 'c3', environment: 'dev' })
  const noon = new Date(2026, 10, 22, 12, 0, 0).getTime() / 1000
  for (const [client, step] of [
    ['c1', 'c1 value 11 first'],
    ['c3', 'c3 value 11 limit 20 first'],
    ['c1', 'c1 value 5 second'],
  ]) {
    const result = { client, check: { name: 'fchk', status: 1, handlers: Object.keys(handlers) } }
    const recorded = list(at(observed, String(step))).map(call => String(at(call, 0)))
    t.same(names(await rig.at(noon).result(result)), recorded.filter(name => name in filterOf).sort(), String(step))
  }
})

t.test('the built-in filter occurrences, as recorded', async t => {
  const rig = await Rig.start(t, { handlers: { hocc: { filters: ['occurrences'] } } })
  const { input, observed } = fixture('filter-extension-occurrences')
  const send = (status: number, more: JsonObject = {}) =>
    rig.result({
      client: 'c1',
      check: { name: 'occ', status, output: '', handlers: ['hocc'], ...object(input), ...more },
    })
  for (const step of list(observed).slice(0, 9)) {
    const calls = await send(at(step, 0) === 'resolve' ? 0 : 2)
    const views = calls.map(call => {
      const event = parseJson(call.stdin)
      return [call.handler, at(event, 'check', 'name'), at(event, 'action'), at(event, 'occurrences')]
    })
    t.same(views, at(step, 1), String(at(step, 0)))
  }
  t.same([await send(2), await send(0)], [[], []], 'one occurrence, then resolved')
  const second = { name: 'occ2', occurrences: '2' }
  t.same([names(await send(2, second)), names(await send(2, second))], [[], ['hocc']], 'occurrences as text')
})

t.test('mutators: configured ones, check output only, unknown and failing ones', async t => {
  const rig = await Rig.start(t, {
    mutators: {
      upper: { command: "tr a-z A-Z; printf '\\377'" },
      broken: { command: 'echo no; exit 3' },
      slow: { command: 'sleep 30', timeout: 0.2 },
    },
    handlers: {
      hupper: { mutator: 'upper' },
      hoc: { mutator: 'only_check_output' },
      hnone: { mutator: 'nomut' },
      hbroken: { mutator: 'broken' },
      hslow: { mutator: 'slow' },
    },
  })
  await rig.keepalive(c1)
  rig.log()
  const check = {
    name: 'm',
    status: 1,
    output: 'löad 1\n',
    handlers: ['hupper', 'hoc', 'hnone', 'hbroken', 'hslow', 'default'],
  }
  const calls = await rig.result({ client: 'c1', check })
  t.same(names(calls), ['default', 'hoc', 'hupper'], 'the others are not called')
  t.equal(calls.find(call => call.handler === 'hoc')?.stdin, 'löad 1\n')
  t.match(calls.find(call => call.handler === 'hupper')?.stdin, /^\{"ID":.*\ufffd$/, 'the output byte for byte')
  const errors = rig.log().filter(line => line['level'] === 'error')
  t.match(
    errors.find(line => line['message'] === 'unknown mutator'),
    { mutator_name: 'nomut' },
  )
  t.match(
    errors
      .filter(line => line['message'] === 'mutator error')
      .sort((a, b) => Number(b['status']) - Number(a['status'])),
    [
      { mutator: { name: 'broken' }, event: { check: { name: 'm' } }, output: 'no\n', status: 3 },
      { mutator: { name: 'slow' }, output: 'Execution timed out', status: 2 },
    ],
  )
})

t.test(
  'handlers of every type run independently and get the recorded event; failures are logged as recorded',
  async t => {
    const { input, observed } = fixture('handler-types')
    const tcpData: Buffer[] = []
    const tcp = createServer(socket => socket.on('data', data => tcpData.push(data)))
    const udp = createSocket('udp4')
    const unused = createServer().listen(0, '127.0.0.1')
    tcp.listen(0, '127.0.0.1')
    udp.bind(0, '127.0.0.1')
    await Promise.all([once(tcp, 'listening'), once(udp, 'listening'), once(unused, 'listening')])
    const closedPort = portOf(unused)
    unused.close()
    t.teardown(() => {
      tcp.close()
      udp.close()
    })
    const datagram = once(udp, 'message')
    const ports: { [handler: string]: number } = { htcp: portOf(tcp), htcpdown: closedPort, hudp: portOf(udp) }
    const handlers: { [name: string]: JsonObject } = {}
    for (const [name, handler] of Object.entries(object(input))) {
      const port = ports[name]
      handlers[name] = { ...object(handler), ...(port !== undefined && { socket: { host: '127.0.0.1', port } }) }
    }
    const rig = await Rig.start(t, { handlers })
    const piped = await rig.site.listen('direct', 'evpipe')
    const fanned = await rig.site.listen('fanout', 'evfan')
    const recorded = String(at(observed, 'tcp', 0))
    const result = resultOf(recorded)
    await rig.keepalive(at(parseJson(recorded), 'client'))
    const since = Number(at(parseJson(recorded), 'last_state_change'))
    await rig.at(since).result({ ...result, check: { ...object(result['check']), handlers: [] } })
    rig.log()
    const [call] = await rig.at(timeOf(recorded)).result({
      ...result,
      check: { ...object(result['check']), handlers: [...list(at(result, 'check', 'handlers')), 'default'] },
    })
    const text = call?.stdin ?? ''
    const expected = recorded.replace('"hnoread"]', '"hnoread","default"]')
    t.equal(withoutId(text), withoutId(expected), 'pipe')
    t.equal(Buffer.concat(tcpData).toString(), text, 'tcp')
    t.equal(String((await datagram)[0]), text, 'udp')
    await until('both pipes', () => piped.length + fanned.length === 2)
    t.same([piped, fanned], [[text], [text]], 'transport')
    const id = at(parseJson(text), 'id')
    const log = new Map(rig.log().map(line => [at(line, 'handler', 'name'), line]))
    t.same(log.get('htcpdown'), {
      level: 'error',
      message: 'handler error',
      handler: { ...handlers['htcpdown'], name: 'htcpdown' },
      event: { id },
      event_data: text,
      error: 'failed to connect to socket',
    })
    for (const entry of list(at(observed, 'log'))) {
      const line = object(parseJson(String(entry)))
      const { level, message, output } = line
      const name = at(line, 'handler', 'name')
      const shown = { level, message, event: { id }, ...(output === undefined ? {} : { output }) }
      t.match(log.get(name), shown, `log of ${name}`)
    }
    t.notOk(log.has('htcp') || log.has('hudp') || log.has('htrans'), 'success of sockets and transport is not logged')
  },
)

function portOf(server: { address(): unknown }): number {
  return Number(at(object(parseJson(JSON.stringify(server.address()))), 'port'))
}

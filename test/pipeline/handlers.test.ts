import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import t from 'tap'
import { attributesMatch } from '../../pipeline/attributes-match.js'
import { severityOf } from '../../pipeline/filter.js'
import { Pipeline, validatePipelineSettings } from '../../pipeline/pipeline.js'
import { parseJson } from '../../sensu/json.js'
import { Float } from '../../sensu/json-value.js'
import { Logger } from '../../sensu/log.js'
import { Spawner } from '../../sensu/spawn.js'
import type { Json, JsonObject } from '../../sensu/types.js'
import { at, fixture, type HandlerCall, list, object, type Rig, startRig } from './rig.js'

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
  const rig = await startRig(t, {
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
  const rig = await startRig(t, {
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
  const rig = await startRig(t, {
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
  const rig = await startRig(t, { filters, handlers })
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
  const rig = await startRig(t, { handlers: { hocc: { filters: ['occurrences'] } } })
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

t.test('patterns match as recorded, expressions too; what is not understood is refused at the start', async t => {
  const { input, observed } = fixture('vectors-attributes-match')
  const event = object(at(input, 'event'))
  for (const vector of list(observed)) {
    const pattern = object(at(vector, 'attributes'))
    const logged: string[] = []
    const log = { error: (message: string) => logged.push(message) }
    // the one difference: expressions assign nothing
    const assigns = JSON.stringify(pattern).includes("value = 'x'")
    const matches = attributesMatch(event, pattern, { now: new Date(), log })
    t.equal(matches, assigns ? false : at(vector, 'match'), JSON.stringify(pattern))
    const recorded = list(at(vector, 'log')).map(line => at(line, 0))
    t.same(logged, assigns ? ['attribute value eval error'] : recorded, JSON.stringify(pattern))
  }
  const quiet = { now: new Date(), log: { error: () => {} } }
  t.ok(attributesMatch({ a: { b: [1, 2n, { c: null }] } }, { a: { b: [new Float(1), 2, { c: null }] } }, quiet))
  t.notOk(attributesMatch({ a: { b: 1 } }, { a: 'b' }, quiet))
  const settings = {
    checks: {},
    handlers: {},
    mutators: {},
    filters: { feval: { attributes: { check: { status: 'eval: `reboot`' } } }, fine: { attributes: {} } },
  }
  const [problem, ...others] = validatePipelineSettings(settings)
  t.match(problem, {
    object: { name: 'feval' },
    message: 'filter feval: the expression of attribute check.status is not supported: unexpected ` at character 2',
  })
  t.same(others, [])
  const rig = await startRig(t)
  const surroundings = { store: rig.store, spawner: new Spawner({ limit: 1 }), logger: new Logger() }
  t.throws(() => new Pipeline({ ...surroundings, settings }), /feval/)
})

t.test('mutators: configured ones, check output only, unknown and failing ones', async t => {
  const rig = await startRig(t, {
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

t.test('handlers of every type run independently; failures are logged as recorded', async t => {
  const tcpData: Buffer[] = []
  const tcp = createServer(socket => socket.on('data', data => tcpData.push(data)))
  tcp.listen(0, '127.0.0.1')
  await once(tcp, 'listening')
  const silent = createServer(socket => socket.pause())
  silent.listen(0, '127.0.0.1')
  await once(silent, 'listening')
  const udp = createSocket('udp4')
  udp.bind(0, '127.0.0.1')
  await once(udp, 'listening')
  const datagram = once(udp, 'message')
  const unused = createServer().listen(0, '127.0.0.1')
  await once(unused, 'listening')
  const portOf = (server: { address(): unknown }) =>
    Number(at(object(parseJson(JSON.stringify(server.address()))), 'port'))
  const closedPort = portOf(unused)
  unused.close()
  t.teardown(() => {
    tcp.close()
    silent.close()
    udp.close()
  })
  const socket = (port: number) => ({ host: '127.0.0.1', port })
  const published: [JsonObject, string][] = []
  const handlers: { [name: string]: JsonObject } = {
    htcp: { type: 'tcp', socket: socket(portOf(tcp)), timeout: 3 },
    htcpdown: { type: 'tcp', socket: socket(closedPort) },
    hudp: { type: 'udp', socket: socket(portOf(udp)) },
    htrans: { type: 'transport', pipe: { type: 'direct', name: 'evpipe', options: {} } },
    htimeout: { type: 'pipe', command: 'sleep 30', timeout: 0.3 },
    hfail: { type: 'pipe', command: 'cat >/dev/null; echo oops; echo err >&2; exit 3' },
    hnoread: { type: 'pipe', command: 'exit 0' },
    hodd: { type: 'odd' },
  }
  const rig = await startRig(t)
  const publish = async (pipe: JsonObject, data: Buffer) => void published.push([pipe, data.toString()])
  await rig.reset({ handlers }, { publish })
  await rig.keepalive(c1)
  rig.log()
  const [call] = await rig.result({
    client: 'c1',
    check: { name: 'types', status: 2, handlers: ['default', ...Object.keys(handlers)] },
  })
  const text = call?.stdin ?? ''
  t.equal(Buffer.concat(tcpData).toString(), text, 'tcp')
  t.equal(String((await datagram)[0]), text, 'udp')
  t.same(published, [[handlers['htrans']?.['pipe'], text]], 'transport')
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
  for (const line of list(at(fixture('handler-types'), 'observed', 'log')).map(entry =>
    object(parseJson(String(entry))),
  )) {
    const { level, message, output } = line
    const name = at(line, 'handler', 'name')
    t.match(
      log.get(name),
      { level, message, event: { id }, ...(output === undefined ? {} : { output }) },
      `log of ${name}`,
    )
  }
  t.match(log.get('hodd'), { level: 'error', message: 'handler error', error: /unknown handler type odd/ })
  t.notOk(log.has('htcp') || log.has('hudp') || log.has('htrans'), 'success of sockets and transport is not logged')
})

t.test('idle waits for running handlers, and more handlers than allowed are dropped and logged', async t => {
  const rig = await startRig(t)
  const directory = t.testdir({})
  const slow = { type: 'pipe', command: `while [ ! -e ${directory}/go ]; do sleep 0.05; done; echo done` }
  await rig.reset({ handlers: { slow } }, { maximumHandlers: 1 })
  await rig.keepalive(c1)
  rig.log()
  await rig.pipeline.processResult({ client: 'c1', check: { name: 'a', status: 1, handler: 'slow' } })
  await rig.pipeline.processResult({ client: 'c1', check: { name: 'b', status: 1, handler: 'slow' } })
  let idle = false
  const waiting = rig.pipeline.idle().then(() => {
    idle = true
  })
  await rig.redis.ping()
  t.notOk(idle)
  await rig.redis.ping()
  writeFileSync(`${directory}/go`, '')
  await waiting
  const log = rig.log()
  t.match(
    log.filter(line => line['message'] === 'handler output'),
    [{ output: ['done\n'] }],
  )
  t.match(
    log.filter(line => line['message'] === 'handler dropped, too many are running'),
    [{ level: 'error', limit: 1 }],
  )
  t.equal(log.filter(line => line['message'] === 'processing event').length, 2)
})

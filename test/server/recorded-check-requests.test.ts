import t from 'tap'
import { parseJson, stringifyJson } from '../../sensu/json.js'
import type { JsonObject } from '../../sensu/types.js'
import { at, fixture, list, object } from '../support/recorded-cases.js'
import { rabbitmq } from '../support/services.js'
import { clockEnvironment } from './rig.js'
import { ServerProcess, Site, until } from './site.js'

/** When the server starts, Unix seconds: 2 s before a recorded check with a cron schedule. */
const beginning = 1795317598
/** The recorded log. */
const [logBegins, logEnds] = [1795317608, 1795317639]

function poller(name: string, address: string): JsonObject {
  const attributes = { subscriptions: ['net'], environment: 'prod', device: 'switch', keepalives: false }
  return { name, address, ...attributes, version: '1.9.0', timestamp: 1795317538 }
}

/** A request or log line without its time. */
function timeless(text: string): string {
  return text.replace(/^\{"timestamp":"[^"]*",/, '{').replace(/,"issued":\d+\}/, '}')
}

/** Unix milliseconds. */
function timeOfLine(line: JsonObject): number {
  return Date.parse(String(line['timestamp']))
}

t.test('recorded check requests: to each kind of subscriber, at their moments, with their log', async t => {
  const site = await Site.open(t, { brokerUrl: (await rabbitmq(t)).url })
  const { input, observed } = fixture('check-request-messages')
  const received: { [pipe: string]: string[] } = {
    base: await site.listen('fanout', 'base'),
    poller: await site.listen('fanout', 'poller'),
    'direct:dd': await site.listen('direct', 'direct:dd'),
    'roundrobin:rr': await site.listen('direct', 'roundrobin:rr'),
  }
  const settings = site.settings({ checks: at(input, 'checks') })
  const server = new ServerProcess(t, settings, ['--no-api'], clockEnvironment(`@${beginning}`))
  await server.log('updated server registry')
  await site.publish('keepalives', poller('sw1', '10.0.0.1'))
  for (let count = 1, time = 0; time < logEnds; count++) {
    const line = await server.log('publishing check request', count)
    time = Number(at(object(parseJson(JSON.stringify(line))), 'payload', 'issued'))
  }

  const lines = server.lines
    .filter(({ level, message }) => level !== 'debug' && message.includes('check request'))
    .map(line => object(parseJson(JSON.stringify(line))))
  const during = lines.filter(line => timeOfLine(line) >= logBegins * 1000 && timeOfLine(line) < (logEnds + 1) * 1000)
  t.strictSame(
    during.map(line => timeless(stringifyJson(line))),
    list(fixture('check-request-log')['observed']).map(line => timeless(String(line))),
    'check-request-log',
  )

  for (const [key, messages] of Object.entries(object(observed))) {
    const [pipe = '', name = '', source = ''] = key.split('|')
    const requests = received[pipe]?.map(text => object(parseJson(text))) ?? []
    const own = requests.filter(request => request['name'] === name && String(request['source'] ?? 'None') === source)
    const expected = new Set(list(messages).map(message => timeless(String(at(message, 'message')))))
    t.strictSame(new Set(own.map(request => timeless(stringifyJson(request)))), expected, key)
  }

  for (const [key, entry] of Object.entries(object(fixture('check-request-splay-phase')['observed']))) {
    const intervalMs = Number(at(entry, 'interval')) * 1000
    const published = during.filter(line => at(line, 'payload', 'name') === key.split('|')[1])
    t.ok(published.length > 2)
    for (const line of published) {
      const lateMs = (timeOfLine(line) - Number(at(entry, 'md5_le64_mod_interval_ms'))) % intervalMs
      t.ok(lateMs < 1000, `${key}: ${lateMs} ms after its moment`)
    }
  }

  const [first, second, third] = list(fixture('proxy-requests-no-splay')['observed'])
  const three = [first, second, third].map(message => timeless(String(at(message, 'msg'))))
  const seen = () => received['poller']?.map(timeless).filter(text => three.includes(text)) ?? []
  const before = seen().length
  for (const number of [2, 3]) await site.publish('keepalives', poller(`sw${number}`, `10.0.0.${number}`))
  await until('a request for each of three clients', () => seen().length >= before + 3)
  t.strictSame(seen().slice(-3).sort(), three.sort(), 'proxy-requests-no-splay')
})

import t from 'tap'
import { encodeJson, parseJson, stringifyJson } from '../../sensu/json.js'
import { fromEntries } from '../../sensu/json-value.js'
import {
  checkKey,
  deregistrationCheck,
  durationSeconds,
  hookTimeout,
  isStandalone,
  issuedNow,
  keepaliveMessage,
  mergeLocalDefinition,
  resultMessage,
  safeModeResult,
  selectHook,
  standaloneRequest,
  standardInput,
  unmatchedTokensResult,
  withHook,
  withOutcome,
  withResultDefaults,
} from '../../sensu/results.js'
import { loadSettings } from '../../sensu/settings.js'
import { inspectText, plainText } from '../../sensu/text-forms.js'
import { substituteCheck } from '../../sensu/tokens.js'
import type { CheckDefinition, ClientDefinition } from '../../sensu/types.js'
import { hash, list, recording, recordings, text } from './recordings.js'

const client: ClientDefinition = {
  name: 'c',
  address: '1.2.3.4',
  subscriptions: [],
  password: 'topsecret',
  region: 'eu',
}
const nowMs = 1795317153_999
const now = 1795317153

t.test('keepalives as recorded, from the configuration to the message', async t => {
  const machine = { hostName: 'vm', address: '192.0.2.2', environment: {} }
  const recorded = recordings('client', /^keepalive_probe-/)
  t.equal(recorded.length, 4)
  for (const { name, input, observed } of recorded) {
    const file = { client: list(hash(input)['client_config'])[0] ?? null }
    const directory = t.testdir({ 'client.json': stringifyJson(file) })
    const { settings } = loadSettings({ service: 'client', configDirectories: [directory], ...machine })
    const { client } = settings
    // What opening the sockets adds.
    if (client.socket) client.socket = { ...client.socket, bind: client.socket.bind ?? '127.0.0.1' }
    if (client.http_socket) {
      const { bind = '127.0.0.1', port = 3031 } = client.http_socket
      client.http_socket = { ...client.http_socket, bind, port }
    }
    const sent = text(hash(list(hash(observed)['messages'])[0])['raw'])
    const timestamp = Number(hash(parseJson(sent))['timestamp'])
    t.equal(stringifyJson(keepaliveMessage(client, timestamp * 1000 + 999)), sent, name)
  }
})

t.test('deregistration as recorded', async t => {
  const { input, observed } = recording('client/deregistration_custom')
  const raw = list(hash(observed)['results'])
    .map(result => text(hash(result)['raw']))
    .find(body => body.includes('"deregistration"'))
  const sent = text(raw ?? null)
  const issued = Number(hash(hash(parseJson(sent))['check'])['issued'])
  const { deregistration } = hash(input)
  const leaving: ClientDefinition = { ...client, name: 'probe-a', deregistration: hash(deregistration) }
  t.equal(stringifyJson(resultMessage(leaving, deregistrationCheck(leaving, issued * 1000))), sent)
  t.equal(
    stringifyJson(deregistrationCheck(client, nowMs)),
    `{"handler":"deregistration","status":1,"name":"deregistration","output":"client initiated deregistration","issued":${now},"executed":${now}}`,
  )
})

t.test('the result of a command', async t => {
  const check = withOutcome(
    { name: 'x', issued: 1, command: 'y' },
    { executedMs: nowMs, durationMs: 3.7, output: 'o', status: 1 },
  )
  const body =
    '{"client":"c","check":{"name":"x","issued":1,"command":"y","executed":1795317153,"duration":0.004,"output":"o","status":1}'
  t.equal(stringifyJson(resultMessage(client, check)), `${body}}`)
  t.equal(stringifyJson(resultMessage({ ...client, signature: 's' }, check)), `${body},"signature":"s"}`)
  const bytes = withOutcome(
    { name: 'x' },
    { executedMs: 0, durationMs: 0, output: Buffer.from('a\xff', 'latin1'), status: 0 },
  )
  t.match(encodeJson(bytes).toString('latin1'), '"output":"a\xff"')
  t.same(
    [0, 3.4, 1020, 2000].map(ms => stringifyJson(durationSeconds(ms))),
    ['0.0', '0.003', '1.02', '2.0'],
  )
})

t.test('results without a run', async t => {
  const check = { name: 'x', command: 'echo :::nope:::' }
  t.equal(
    stringifyJson(unmatchedTokensResult(check, ['nope', 'a.b'], nowMs)),
    '{"name":"x","command":"echo :::nope:::","executed":1795317153,"output":"Unmatched client token(s): nope, a.b","status":3,"handle":false}',
  )
  t.equal(
    stringifyJson(safeModeResult(check, nowMs)),
    '{"name":"x","command":"echo :::nope:::","output":"Check is not locally defined (safe mode)","status":3,"handle":false,"executed":1795317153}',
  )
})

t.test('a local definition lies over a request', async t => {
  const request = { name: 'x', command: 'theirs', issued: 1, handlers: ['a', 'b'], only: 'request' }
  const local = { interval: 5, command: 'ours', handlers: ['c'] }
  t.equal(
    stringifyJson(mergeLocalDefinition(request, local)),
    '{"name":"x","command":"ours","issued":1,"handlers":["c"],"only":"request","interval":5}',
  )
  t.equal(mergeLocalDefinition(request, undefined), request)
  const proxied = { ...request, proxy_requests: null }
  t.equal(mergeLocalDefinition(proxied, local), proxied, 'but not over a proxy request')
})

t.test('keys of running checks', async t => {
  t.equal(checkKey({ name: 'n' }), 'n')
  t.equal(checkKey({ name: 'n', source: ':::s:::' }), ':::s::::n')
  t.equal(checkKey({ name: 'n', source: null }), 'n')
})

t.test('standalone checks', async t => {
  t.equal(
    stringifyJson(standaloneRequest('x', { command: 'y', interval: 5 }, nowMs)),
    `{"command":"y","interval":5,"name":"x","issued":${now}}`,
  )
  const scheduled: [CheckDefinition, boolean][] = [
    [{ standalone: true, interval: 5 }, true],
    [{ standalone: true, cron: '* * * * *' }, true],
    [{ standalone: true }, false],
    [{ standalone: true, interval: 5, publish: false }, false],
    [{ standalone: false, interval: 5 }, false],
    [{ interval: 5 }, false],
    [{ standalone: true, interval: '5' }, false],
    [{ standalone: true, interval: 1.5 }, false],
  ]
  for (const [check, wanted] of scheduled) t.equal(isStandalone(check), wanted, stringifyJson(check))
})

t.test('results from local sockets', async t => {
  const written = (check: string) => stringifyJson(issuedNow(withResultDefaults(hash(parseJson(check)), nowMs), nowMs))
  t.equal(
    written('{"name":"s","output":"o"}'),
    `{"name":"s","output":"o","status":0,"executed":${now},"issued":${now}}`,
  )
  t.equal(
    written('{"issued":1,"status":false,"name":"s","executed":null}'),
    `{"issued":${now},"status":0,"name":"s","executed":${now}}`,
  )
  t.equal(written('{"status":2,"executed":0}'), `{"status":2,"executed":0,"issued":${now}}`)
})

t.test('an empty source is not published', async t => {
  const check = hash(parseJson('{"name":"x","source":"","1":"b","status":0}'))
  t.equal(
    stringifyJson(resultMessage({ name: 'c', address: 'a', subscriptions: [] }, check)),
    '{"client":"c","check":{"name":"x","1":"b","status":0}}',
  )
  t.equal(check['source'], '', 'the check is not touched')
})

t.test('which hook follows a status', async t => {
  const all = fromEntries(
    ['0', '1', '42', 'ok', 'warning', 'critical', 'unknown', 'non-zero'].map(key => [key, { key }] as const),
  )
  const severities = fromEntries(
    ['ok', 'warning', 'critical', 'unknown', 'non-zero'].map(key => [key, { key }] as const),
  )
  t.same(
    [0, 1, 2, 3, 42, 127].map(status => selectHook(all, status)),
    ['0', '1', 'critical', 'unknown', '42', 'unknown'],
  )
  t.same(
    [0, 1, 2, 3, 42].map(status => selectHook(severities, status)),
    ['ok', 'warning', 'critical', 'unknown', 'unknown'],
  )
  t.same(
    [0, 1, 127].map(status => selectHook({ 'non-zero': {} }, status)),
    [undefined, 'non-zero', 'non-zero'],
  )
  t.equal(selectHook({}, 2), undefined)
  t.equal(hookTimeout({}), 60)
  t.equal(hookTimeout({ timeout: null }), null)
  t.equal(hookTimeout({ timeout: 0.5 }), 0.5)
})

t.test('a hook result takes its place in the check', async t => {
  const check = hash(
    parseJson('{"name":"x","hooks":{"ok":{"command":"o"},"2":{"command":"a"},"1":{"command":"b","x":1}},"status":1}'),
  )
  const hook = hash(hash(check['hooks'])['1'])
  const done = withHook(check, '1', withOutcome(hook, { executedMs: nowMs, durationMs: 6, output: 'h', status: 7 }))
  t.equal(
    stringifyJson(done),
    '{"name":"x","hooks":{"ok":{"command":"o"},"2":{"command":"a"},"1":{"command":"b","x":1,"executed":1795317153,"duration":0.006,"output":"h","status":7}},"status":1}',
  )
  t.equal(stringifyJson(hook), '{"command":"b","x":1}', 'the definition is not touched')
})

t.test('substitution before a command', async t => {
  const check = hash(
    parseJson(
      '{"name":"x","command":"a :::password:::","source":":::nope|:::","hooks":{"1":{"command":"b :::password:::","note":":::region:::"}},"n":[":::region::: é"]}',
    ),
  )
  const prepared = substituteCheck(check, client)
  t.equal(prepared.command, 'a topsecret', 'what is run')
  t.same(prepared.unmatched, [])
  t.equal(
    stringifyJson(prepared.check),
    '{"name":"x","command":"a :::password:::","hooks":{"1":{"command":"b :::password:::","note":"eu"}},"n":["eu é"]}',
    'what is published: no secrets, no empty source',
  )
  t.equal(
    stringifyJson(check['hooks'] ?? null),
    '{"1":{"command":"b :::password:::","note":":::region:::"}}',
    'the definition stays',
  )
  const missing = substituteCheck(
    { x: ':::b:::', command: ':::a:::', hooks: { ok: { command: ':::b::: :::c:::' } } },
    client,
  )
  t.same(missing.unmatched, ['b', 'a', 'c'], 'in the order of the attributes, hooks included, each once')
  t.equal(stringifyJson(substituteCheck({ command: 'x', hooks: null }, client).check), '{"command":"x"}')
  for (const command of [5, null, undefined]) t.equal(substituteCheck({ command }, client).command, command)
  t.equal(substituteCheck({ command: ':::constructor.name|d:::' }, client).command, 'd', 'only what was configured')
})

t.test('what a command reads on its standard input', async t => {
  const input = stringifyJson(standardInput(client, { name: 'x' }))
  t.equal(input, `{"client":${stringifyJson(client)},"check":{"name":"x"}}`, 'the client is not redacted')
})

t.test('values as text', async t => {
  t.equal(plainText(null), '')
  t.equal(plainText(parseJson('1.0')), '1.0')
  t.equal(
    inspectText(parseJson('["x\\n\\"\\\\#{a}#b\\u0000\\u0007é",5,1.0,null,true,{"key":1,"a b":[]}]')),
    '["x\\n\\"\\\\\\#{a}#b\\u0000\\aé", 5, 1.0, nil, true, {:key=>1, :"a b"=>[]}]',
  )
})

import t from 'tap'
import { parseJson, stringifyJson } from '../../sensu/json.js'
import { Float } from '../../sensu/json-value.js'
import { isPlainJson, parsePlainJson } from '../../sensu/plain-json.js'
import type { Json } from '../../sensu/types.js'

t.test('usual documents are printed by JavaScript as Sensu prints them', async t => {
  const usual = [
    '{"client":"c1","check":{"name":"k","status":2,"output":"OK\\n","duration":0.012,"executed":1795317173}}',
    '{"a":[1,-2,0.5,123456789012345],"b":{"c":null,"d":true,"":""},"version":"1.9.0","x":"e5 1e5 web01"}',
    '{ "spaced" : [ 1 , 2 ] , "escaped\\/" : "\\u00e9\\t" }',
    '{"twice":1,"other":2,"twice":3}',
    '-0',
  ]
  for (const text of usual) {
    const value = parsePlainJson(Buffer.from(text))
    t.not(value, undefined, text)
    t.equal(JSON.stringify(value), stringifyJson(parseJson(text)), text)
  }
})

t.test('whatever JavaScript would change, or cannot read, is left to the other parser', async t => {
  const unusual = [
    '{"float":1.0}',
    '{"float":-10.000}',
    '[1e5]',
    '{"n":1.5E-7}',
    '{"n":12345678901234567890}',
    '{"n":0.00001}',
    '{"10":1,"9":2}',
    '{"__proto__":{"a":1}}',
    '{"half":"\\ud800"}',
    '// comment\n{}',
    '{"raw":"line\nend"}',
    'nonsense',
    `${'['.repeat(500)}${']'.repeat(500)}`,
    JSON.stringify('x'.repeat(70_000)),
  ]
  for (const text of unusual) t.equal(parsePlainJson(text), undefined, text.slice(0, 40))
  t.equal(parsePlainJson(Buffer.from([0x22, 0xff, 0x22])), undefined, 'no UTF-8')
})

t.test('definitions are plain when both printers agree', async t => {
  const asked = (value: Json) => isPlainJson(value, stringifyJson(value))
  t.ok(asked({ check: { interval: 60, handlers: ['default'] } }))
  t.notOk(asked({ n: new Float(1) }))
  t.notOk(asked({ n: 12345678901234567890n }))
  t.notOk(asked(parseJson('{"10":1,"9":2}')))
})

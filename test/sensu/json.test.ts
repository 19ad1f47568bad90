import t from 'tap'
import { encodeJson, JsonSyntaxError, parseJson, prettyJson, stringifyJson } from '../../sensu/json.js'
import {
  canonicalText,
  cloneJson,
  Float,
  float,
  formatFloat,
  fromEntries,
  isInteger,
  isNumeric,
  isObject,
  keysOf,
  member,
} from '../../sensu/json-value.js'
import { hash, list, recordings, text } from './recordings.js'

const again = (document: string) => stringifyJson(parseJson(document))

t.test('numbers keep their kind and their digits', async t => {
  const kinds = [
    ['1.0', '1.0'],
    ['1e3', '1000.0'],
    ['-0.0', '0.0'],
    ['-0', '0'],
    ['0.1234567890123456789', '0.12345678901234568'],
    ['123456789012345678901234567890', '123456789012345678901234567890'],
    ['9007199254740993', '9007199254740993'],
    ['1e30', '1.0e+30'],
    ['1.5e-9', '1.5e-09'],
    ['0.0001', '0.0001'],
    ['100000000000000000.0', '100000000000000000.0'],
  ] as const
  for (const [document, written] of kinds) t.equal(again(document), written, document)
  t.equal(isInteger(parseJson('1.0')), false, '1.0 is no integer')
  t.equal(isInteger(parseJson('1e0')), false, '1e0 is no integer')
  t.equal(isInteger(parseJson('12345678901234567890')), true, 'a big integer is one')
  t.equal(isNumeric(parseJson('1.0')), true, '1.0 is numeric')
  t.equal(Number(new Float(2)) + 1, 3, 'a Float calculates')
  t.equal(stringifyJson([float(1), float(0.004), 5]), '[1.0,0.004,5]')
  t.throws(() => stringifyJson({ a: Number.NaN }), RangeError)
  t.throws(() => formatFloat(Number.POSITIVE_INFINITY), RangeError)
})

t.test('keys keep their order, whatever they look like', async t => {
  const document = '{"b":1,"42":{"7":1,"a":2,"0":3},"a":2,"1":3}'
  t.equal(again(document), document)
  const parsed = hash(parseJson(document))
  t.same(keysOf(parsed), ['b', '42', 'a', '1'])
  t.equal(stringifyJson({ ...parsed, new: 5 }), document.replace(/}$/, ',"new":5}'), 'a copy keeps the order')
  t.equal(stringifyJson(cloneJson(parsed)), document, 'a deep copy too')
  t.equal(again('{"a":1,"b":2,"a":3}'), '{"a":3,"b":2}', 'the last of duplicate keys counts, at the first place')
  t.equal(again('{"1":1,"b":2,"1":3}'), '{"1":3,"b":2}')
  t.equal(stringifyJson({ a: undefined, b: 1 }), '{"b":1}', 'undefined is not written')
})

t.test('names from outside find nothing that was not sent', async t => {
  const parsed = hash(parseJson('{"__proto__":{"polluted":true},"constructor":{"prototype":{"polluted":true}}}'))
  t.equal(Reflect.get({}, 'polluted'), undefined)
  t.equal(parsed['toString'], undefined)
  t.equal(member({}, 'constructor'), undefined)
  t.equal(again('{"__proto__":{"x":1},"a":2}'), '{"__proto__":{"x":1},"a":2}', 'and it is an ordinary key')
  t.equal(stringifyJson({ ...parsed, a: 1 }), `${stringifyJson(parsed).slice(0, -1)},"a":1}`)
  t.equal(stringifyJson(fromEntries([['__proto__', 1]])), '{"__proto__":1}')
})

t.test('comments, blanks, strings', async t => {
  t.equal(again('// first\n{"a": /* in */ 1, // end\n "b":[ ]}\n \t\r\n'), '{"a":1,"b":[]}')
  t.equal(parseJson('"a\n\tb"'), 'a\n\tb', 'raw line ends and tabs')
  t.equal(parseJson('"\\u00e9\\ud83d\\ude00\\/\\b\\f\\n\\r\\t\\"\\\\"'), 'é😀/\b\f\n\r\t"\\')
  t.equal(stringifyJson('é\u2028/\u007f\u0001\b\n'), '"é\u2028/\u007f\\u0001\\b\\n"', 'only what must be is escaped')
})

t.test('what is refused, with the place', async t => {
  const refused = {
    '': 'unexpected end of the document at line 1, column 1',
    '  \n': 'unexpected end of the document at line 2, column 1',
    '{"a": 1,\n "b" 2}': 'unexpected character "2" at line 2, column 6',
    '{"a":1} x': 'unexpected characters after the JSON document at line 1, column 9',
    '{"a":1} // no': 'unexpected characters after the JSON document at line 1, column 9',
    '{"a":1}{"b":2}': 'unexpected characters after the JSON document at line 1, column 8',
    "{'a':1}": `unexpected character "'" at line 1, column 2`,
    '[1,]': 'unexpected character "]" at line 1, column 4',
    '{"a":1,}': 'unexpected character "}" at line 1, column 8',
    '[,1]': 'unexpected character "," at line 1, column 2',
    '{"v":NaN}': 'unexpected character "N" at line 1, column 6',
    '-Infinity': 'unexpected character "-" at line 1, column 1',
    '1e999': 'number out of range at line 1, column 6',
    '01': 'unexpected characters after the JSON document at line 1, column 2',
    '.5': 'unexpected character "." at line 1, column 1',
    '1.': 'unexpected characters after the JSON document at line 1, column 2',
    '"\\x"': 'invalid escape in a string at line 1, column 2',
    '"\\u12g4"': 'invalid escape in a string at line 1, column 2',
    '"a\0b"': 'unexpected character "\\u0000" at line 1, column 3',
    '"open': 'unexpected end of the document at line 1, column 6',
    '/* open': 'comment without an end at line 1, column 1',
    tru: 'unexpected character "t" at line 1, column 1',
    '\uFEFF{}': 'unexpected character "\uFEFF" at line 1, column 1',
  }
  for (const [document, message] of Object.entries(refused)) {
    t.throws(() => parseJson(document), new JsonSyntaxError(message), JSON.stringify(document))
  }
})

t.test('depth, size and digits are bounded', async t => {
  t.throws(() => parseJson('['.repeat(1_000_000)), { message: /^nested deeper than 512 levels/ })
  t.throws(() => parseJson('{"a":'.repeat(1_000_000)), { message: /^nested deeper than 512 levels/ })
  t.throws(() => parseJson(`${'['.repeat(513)}${']'.repeat(513)}`), JsonSyntaxError)
  t.doesNotThrow(() => parseJson(`${'['.repeat(512)}${']'.repeat(512)}`))
  t.throws(() => parseJson('[1]', { maxLength: 2 }), { message: 'the document is larger than 2 bytes' })
  t.throws(() => parseJson('1'.repeat(1001)), { message: /^integer of more than 1000 digits/ })
  t.throws(() => parseJson('/**/'.repeat(300_000)), JsonSyntaxError)
})

t.test('long runs are parsed, in a time that grows with their length only', async t => {
  for (const part of ['x', '\\\\', '\\u00e9', 'é', '\n']) {
    const value = parseJson(`"${part.repeat(500_000)}"`)
    t.equal(text(value).length, 500_000, JSON.stringify(part))
  }
  t.equal(list(parseJson(`[${'1,'.repeat(500_000)}1]`)).length, 500_001)
})

t.test('whatever is thrown at it, it parses or says why', async t => {
  const pieces = [
    '{',
    '}',
    '[',
    ']',
    '"',
    '\\',
    ':',
    ',',
    '1',
    '-',
    '.',
    'e5',
    'null',
    '/*',
    '*/',
    '//',
    '\n',
    '\\u00',
    'é',
  ]
  let state = 12345
  const random = (limit: number) => {
    state = (state * 1103515245 + 12345) % 2 ** 31
    return Math.floor((state / 2 ** 31) * limit)
  }
  let parsed = 0
  for (let round = 0; round < 20_000; round++) {
    const document = Array.from({ length: random(12) }, () => pieces[random(pieces.length)]).join('')
    for (const input of [document, Buffer.from(document), Buffer.from(document, 'latin1')]) {
      try {
        const value = parseJson(input)
        parsed++
        if (canonicalText(parseJson(encodeJson(value))) !== canonicalText(value)) t.fail(`not read again: ${document}`)
      } catch (error) {
        if (!(error instanceof JsonSyntaxError)) t.fail(`${document}: ${error}`)
      }
    }
  }
  t.ok(parsed > 100, `${parsed} documents were valid`)
})

t.test('bytes that are not UTF-8 go through unchanged', async t => {
  const document = Buffer.from('{"o":"caf\xe9 \\u00e9\\n","u":"\xc3\xa9","k\xff":[1.0]}', 'latin1')
  const parsed = hash(parseJson(document))
  t.ok(Buffer.isBuffer(parsed['o']), 'a string with such bytes is a Buffer')
  t.equal(parsed['u'], 'é', 'others are text')
  t.equal(encodeJson(parsed['o'] ?? null).toString('latin1'), '"caf\xe9 \xc3\xa9\\n"')
  t.equal(
    encodeJson({ a: Buffer.from('a\xff"\n', 'latin1'), b: 'é' }).toString('latin1'),
    '{"a":"a\xff\\"\\n","b":"\xc3\xa9"}',
  )
  t.equal(stringifyJson({ a: Buffer.from('a\xff', 'latin1') }), '{"a":"a\uFFFD"}', 'as text they are replaced')
  t.equal(encodeJson(Buffer.from('plain é')).toString(), '"plain é"')
})

t.test('pretty JSON', async t => {
  const value = parseJson('{"a":[1,{"b":[]},[]],"c":{},"d":1.0}')
  const wanted = '{\n  "a":[\n    1,\n    {\n      "b":[]\n    },\n    []\n  ],\n  "c":{},\n  "d":1.0\n}'
  t.equal(prettyJson(value), wanted)
  t.equal(prettyJson({}), '{}')
})

t.test('isObject tells a hash from everything else', async t => {
  for (const value of [null, 1, 'a', [], new Float(1), Buffer.from('a'), undefined]) t.equal(isObject(value), false)
  t.equal(isObject(parseJson('{}')), true)
})

t.test('every recorded result is written as the reference wrote it', async t => {
  for (const { name, observed } of recordings('client', /^(?:req|odd|malformed_request|keepalive)_/)) {
    const { raw_bodies, results_raw, messages } = hash(observed)
    const keepalives = Array.isArray(messages) ? messages.map(message => hash(message)['raw'] ?? null) : []
    for (const body of [...list(raw_bodies ?? []), ...list(results_raw ?? []), ...keepalives]) {
      // The recorder has cut the longest one; and the reference writes NaN, which is no JSON.
      if (name !== 'req_large_output' && !text(body).includes('NaN')) t.equal(again(text(body)), body, name)
    }
  }
})

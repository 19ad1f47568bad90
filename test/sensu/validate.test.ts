import t from 'tap'
import { deepMerge } from '../../sensu/deep-merge.js'
import { parseJson, stringifyJson } from '../../sensu/json.js'
import { isObject } from '../../sensu/json-value.js'
import { validateClient, validateSettings } from '../../sensu/validate.js'
import { hash } from './recordings.js'

const valid = hash(
  parseJson(`{
    "client": {"name": "c", "address": "a", "subscriptions": []},
    "sensu": {"spawn": {"limit": 12}, "keepalives": {}},
    "transport": {"name": "rabbitmq", "reconnect_on_error": true},
    "checks": {}, "filters": {}, "mutators": {}, "handlers": {}, "extensions": {}
  }`),
)

/** The messages for settings that are valid but for this JSON. */
function messages(changes: string): string[] {
  return validateSettings(deepMerge(valid, hash(parseJson(changes))), 'client').map(({ message }) => message)
}

function expectAll(name: string, wrap: (definition: string) => string, cases: Record<string, string[]>): void {
  t.test(name, async t => {
    for (const [definition, wanted] of Object.entries(cases)) t.same(messages(wrap(definition)), wanted, definition)
  })
}

expectAll('sensu', definition => `{"sensu":${definition}}`, {
  '5': ['sensu must be a hash'],
  null: ['sensu must be a hash'],
  '{"spawn":24}': ['sensu spawn must be a hash'],
  '{"spawn":{"limit":1.0}}': ['sensu spawn limit must be an integer'],
  '{"spawn":{"limit":0}}': ['sensu spawn limit must be greater than 0'],
  '{"keepalives":[]}': ['sensu keepalives must be a hash'],
  '{"keepalives":{"thresholds":5}}': ['sensu keepalives thresholds must be a hash'],
  '{"keepalives":{"thresholds":null}}': [],
  '{"keepalives":{"thresholds":{"warning":"1","critical":1.5}}}': [
    'sensu keepalives warning threshold must be an integer',
    'sensu keepalives critical threshold must be an integer',
  ],
  '{"keepalives":{"handler":1,"handlers":"x"}}': [
    'sensu keepalives handler must be a string',
    'sensu keepalives handlers must be an array',
  ],
  '{"keepalives":{"handlers":["a",""]}}': ['sensu keepalives handlers must each be a string'],
  '{"server":5}': ['sensu server must be a hash'],
  '{"server":false}': [],
  '{"server":{"results_pipe":1,"keepalives_pipe":1,"max_message_size":"1"}}': [
    'sensu server results_pipe must be a string',
    'sensu server keepalives_pipe must be a string',
    'sensu server max_message_size must be an integer',
  ],
  '{"global_error_handler":1}': ['sensu global_error_handler must be boolean'],
})

expectAll('transport', definition => `{"transport":${definition}}`, {
  '[]': ['transport must be a hash'],
  '{"name":5,"reconnect_on_error":"x"}': [
    'transport name must be a string',
    'transport reconnect_on_error must be boolean',
  ],
  '{"name":"kafka","reconnect_on_error":null}': [],
})

expectAll('categories and their members', definition => definition, {
  '{"checks":1,"filters":1,"mutators":1,"handlers":1,"extensions":1}': [
    'checks must be a hash',
    'filters must be a hash',
    'mutators must be a hash',
    'handlers must be a hash',
    'extensions must be a hash',
  ],
  '{"checks":{"a":1},"filters":{"a":1},"mutators":{"a":1},"handlers":{"a":1},"extensions":{"a":1}}': [
    'check must be a hash',
    'filter must be a hash',
    'mutator must be a hash',
    'handler must be a hash',
    'extension must be a hash',
  ],
})

expectAll('a check', definition => `{"checks":{"a":{"standalone":true,${definition}}}}`, {
  '"command":"x","interval":1': [],
  '"command":"x","extension":null,"interval":1': [],
  '"extension":"x","interval":1': [],
  '"command":5,"interval":1': ['check command must be a string'],
  '"extension":5,"interval":1': ['check extension must be a string'],
  '"command":"x","extension":"y","interval":1': ['either check command or extension must be set'],
  '"interval":1': ['either check command or extension must be set'],
})

expectAll(
  'attributes of a check',
  definition => `{"checks":{"a":{"command":"x","interval":1,"standalone":true,${definition}}}}`,
  {
    '"timeout":"5"': ['check timeout must be numeric'],
    '"timeout":0.5': [],
    '"stdin":"x"': ['check stdin must be boolean'],
    '"source":5': ['check source must be a string'],
    '"source":""': ['check source cannot contain spaces, special characters, or invalid tokens'],
    '"source":"a\\n"': ['check source cannot contain spaces, special characters, or invalid tokens'],
    '"source":":::a:::"': [],
    '"source":"a-:::b.c|d:::_e"': [],
    '"source":":::a::::::b:::"': ['check source cannot contain spaces, special characters, or invalid tokens'],
    '"source":false': [],
    '"publish":"x"': ['check publish must be boolean'],
    '"publish":false,"interval":null,"cron":5': [],
    '"cron":5': ['check cron must be a string', 'check cron string must use the cron syntax'],
    '"cron":"x"': ['check cron string must use the cron syntax'],
    '"cron":"* * * * *","interval":null': [],
    '"cron":false,"interval":null': ['check interval must be an integer greater than 0'],
    '"interval":1.0': ['check interval must be an integer greater than 0'],
    '"interval":0': ['check interval must be an integer greater than 0'],
    '"standalone":"x"': ['check standalone must be boolean'],
    '"standalone":false': ['check subscribers must be an array'],
    '"standalone":null,"subscribers":[""]': ['check subscribers must each be a string'],
    '"standalone":null,"subscribers":[]': [],
    '"proxy_requests":5': ['check proxy_requests must be a hash'],
    '"proxy_requests":{"splay":1,"splay_coverage":100}': [
      'check proxy_requests client_attributes must be a hash',
      'check proxy_requests splay must be boolean',
      'check proxy_requests splay_coverage must be an integer greater than 0 and less than 100',
    ],
    '"proxy_requests":{"client_attributes":{},"splay_coverage":99}': [],
    '"handler":[],"handlers":"x"': ['check handler must be a string', 'check handlers must be an array'],
    '"handlers":[1]': ['check handlers must each be a string'],
    '"ttl":"5","ttl_status":"2"': ['check ttl must be an integer', 'check ttl_status must be an integer'],
    '"ttl":0': ['check ttl must be greater than 0'],
    '"ttl_status":"2"': [],
    '"aggregates":"x","aggregate":5': [
      'check aggregates must be an array',
      'check aggregate must be a string (name) or boolean',
    ],
    '"aggregates":["a b"],"aggregate":"a b"': [
      'check aggregates items must be strings without spaces or special characters',
      'check aggregate cannot contain spaces or special characters',
    ],
    '"aggregates":["a.b:c|d-e"],"aggregate":true': [],
    '"low_flap_threshold":1': ['check high flap threshold must be an integer'],
    '"high_flap_threshold":1.5': [
      'check low flap threshold must be an integer',
      'check high flap threshold must be an integer',
    ],
    '"hooks":[]': ['check hooks must be a hash'],
    '"hooks":{"256":{"command":"x"},"01":{"command":"x"},"0":{"command":"x"},"255":{"command":"x"}}': [
      "check hook key must be a severity, status, or 'non-zero'",
      "check hook key must be a severity, status, or 'non-zero'",
    ],
    '"hooks":{"nope":{"timeout":"1","stdin":1},"non-zero":5}': [
      "check hook key must be a severity, status, or 'non-zero'",
      'check hook command must be a string',
      'check hook timeout must be numeric',
      'check hook stdin must be boolean',
      'check hook command must be a string',
    ],
    '"truncate_output":1,"truncate_output_length":0': [
      'check truncate_output must be boolean',
      'check truncate_output_length must be an integer greater than 0',
    ],
    '"subdue":5': ['check subdue must be a hash'],
    '"subdue":{}': ['check subdue days must be a hash'],
    '"subdue":{"days":{}}': ["check subdue days must include at least one day of the week or 'all'"],
    '"subdue":{"days":{"funday":[]}}': ["check subdue days must be valid days of the week or 'all'"],
    '"subdue":{"days":{"all":5,"monday":[]}}': [
      'check subdue days all must be in an array',
      'check subdue days monday must include at least one time window',
    ],
    '"subdue":{"days":{"all":[5,{"begin":"9AM"},{"begin":"9AM","end":"x"},{"begin":"5PM PST","end":"24:00"}]}}': [
      'check subdue day time window must be a hash',
      'check subdue day time window begin and end times must be valid',
      'check subdue day time window begin and end times must be valid',
    ],
  },
)

expectAll('the name of a check', name => `{"checks":{${name}:{"command":"x","interval":1,"standalone":true}}}`, {
  '"a.b_c-1"': [],
  '"a b"': ['check name cannot contain spaces or special characters'],
  '""': ['check name cannot contain spaces or special characters'],
  '"a\\n"': ['check name cannot contain spaces or special characters'],
  '"é"': ['check name cannot contain spaces or special characters'],
})

expectAll('filters', definition => `{"filters":{"f":${definition}}}`, {
  '{"attributes":{}}': [],
  '{"negate":1}': ['filter negate must be boolean', 'filter attributes must be a hash'],
  '{"attributes":{},"when":{"days":{"x":[]}}}': ["filter when days must be valid days of the week or 'all'"],
})

expectAll('mutators', definition => `{"mutators":{"m":${definition}}}`, {
  '{"timeout":"1"}': ['mutator command must be a string', 'mutator timeout must be numeric'],
})

expectAll('extensions', definition => `{"extensions":{"e":${definition}}}`, {
  '{"gem":1,"version":1}': ['extension gem must be a string', 'extension version must be a string'],
})

expectAll('handlers', definition => `{"handlers":{"h":${definition}}}`, {
  '{}': ['handler type must be a string', 'unknown handler type'],
  '{"type":"extension"}': ['unknown handler type'],
  '{"type":"pipe"}': ['handler command must be a string'],
  '{"type":"tcp"}': ['handler socket must be a hash'],
  '{"type":"udp","socket":{"port":"1"}}': ['handler host must be a string', 'handler port must be an integer'],
  '{"type":"transport"}': ['handler transport pipe must be a hash'],
  '{"type":"transport","pipe":{"options":5}}': [
    'handler transport pipe type must be a string',
    'handler transport pipe type is invalid',
    'handler transport pipe name must be a string',
    'handler transport pipe options must be a hash',
  ],
  '{"type":"transport","pipe":{"type":"topic","name":"n"}}': [],
  '{"type":"set"}': ['handler set handlers must be an array'],
  '{"type":"set","handlers":[""]}': ['handler set handlers must each be a string'],
  '{"type":"pipe","command":"x","filters":"f","filter":1,"severities":"ok","timeout":"1","mutator":1,"handle_flapping":1,"handle_silenced":1}':
    [
      'handler filters must be an array',
      'handler filter must be a string',
      'handler severities must be an array',
      'handler timeout must be numeric',
      'handler mutator must be a string',
      'handler handle_flapping must be boolean',
      'handler handle_silenced must be boolean',
    ],
  '{"type":"pipe","command":"x","filters":[1],"severities":["ok","bad"]}': [
    'handler filters items must be strings',
    'handler severities are invalid',
  ],
})

expectAll('the client', definition => `{"client":${definition}}`, {
  '5': ['client must be a hash'],
  '{"name":5}': ['client name must be a string', 'client name cannot contain spaces or special characters'],
  '{"address":5}': ['client address must be a string'],
  '{"safe_mode":"x"}': ['client safe_mode must be boolean'],
  '{"subscriptions":null}': ['client subscriptions must be an array'],
  '{"subscriptions":[""]}': ['client subscriptions must each be a non empty string'],
  '{"socket":5}': ['client socket must be a hash'],
  '{"socket":{"enabled":1,"bind":1,"port":"1"}}': [
    'client socket enabled must be a boolean',
    'client socket bind must be a string',
    'client socket port must be an integer',
  ],
  '{"http_socket":5}': ['client http_socket must be a hash'],
  '{"http_socket":{"enabled":1,"bind":1,"port":"1","user":"u","protect_all_endpoints":1}}': [
    'client http_socket enabled must be boolean',
    'client http_socket bind must be a string',
    'client http_socket port must be an integer',
    'client http_socket password must be a string',
    'client http_socket protect_all_endpoints must be boolean',
  ],
  '{"http_socket":{"password":"p"}}': ['client http_socket user must be a string'],
  '{"keepalives":1}': ['client keepalives must be boolean'],
  '{"keepalive":5}': ['client keepalive must be a hash'],
  '{"keepalive":{"handler":1,"handlers":[1],"thresholds":5,"source":"a b","aggregate":5,"high_flap_threshold":1}}': [
    'client keepalive handler must be a string',
    'client keepalive handlers must each be a string',
    'client keepalive thresholds must be a hash',
    'check source cannot contain spaces, special characters, or invalid tokens',
    'check aggregate must be a string (name) or boolean',
    'check low flap threshold must be an integer',
  ],
  '{"keepalive":{"handlers":1,"thresholds":{"warning":"1","critical":"1"}}}': [
    'client keepalive handlers must be an array',
    'client keepalive warning threshold must be an integer',
    'client keepalive critical threshold must be an integer',
  ],
  '{"redact":"x"}': ['client redact must be an array'],
  '{"redact":[1]}': ['client redact keys must each be a string'],
  '{"signature":1}': ['client signature must be a string'],
  '{"registration":1,"deregistration":1}': [
    'client registration must be a hash',
    'client deregistration must be a hash',
  ],
  '{"registration":{"handler":1,"handlers":1,"status":"1"},"deregistration":{"handler":1,"handlers":[1],"status":"1"}}':
    [
      'client registration handler must be a string',
      'client registration handlers must be an array',
      'client registration status must be an integer',
      'client deregistration handler must be a string',
      'client deregistration handlers must each be a string',
      'client deregistration status must be an integer',
    ],
  '{"deregister":"yes","custom":{"anything":[1]}}': [],
})

t.test('the definition concerned is named', async t => {
  const broken =
    '{"checks":{"a":{"command":5,"interval":1,"standalone":true}},"client":{"keepalive":{"handler":1,"source":5}}}'
  const violations = validateSettings(deepMerge(valid, hash(parseJson(broken))), 'client')
  const keepalive = { handler: 1, source: 5 }
  t.equal(stringifyJson(violations[0]?.object ?? null), '{"command":5,"interval":1,"standalone":true,"name":"a"}')
  t.same(violations[1]?.object, { name: 'c', address: 'a', subscriptions: [], keepalive }, 'the client')
  t.same(violations[2]?.object, keepalive, "the keepalive itself where check's rules apply")
  t.ok(violations.every(({ object }) => isObject(object)))
})

t.test('a client alone', async t => {
  t.same(validateClient({ name: 'c', address: 'a', subscriptions: [] }), [])
  t.same(validateClient([]), [{ object: [], message: 'client must be a hash' }])
})

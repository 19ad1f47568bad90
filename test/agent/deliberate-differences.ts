import type { LogLine } from '../support/service-process.js'

/** Something that this agent does otherwise than the recorded Sensu 1.9, or that the recording has wrong. */
export interface Difference {
  cases: RegExp
  reason: string
  /** What is written otherwise in the JSON texts of results and log lines. */
  replace?: readonly (readonly [from: string | RegExp, to: string])[]
  /** The same for log lines alone, after `replace`. */
  replaceInLog?: Difference['replace']
  /** A log line that follows the first one with the message `after`. */
  insert?: { after: string; line: LogLine }
  /** Log lines that are not there. */
  without?: RegExp
  /** The results instead, as JSON texts. */
  results?: readonly string[]
  /** The log lines instead. */
  log?: readonly LogLine[]
  /** Other members of the recording instead. */
  observed?: Readonly<Record<string, unknown>>
}

const original = 'the published hook command is the configured one, not its tokens, which may stand for secrets'
const hidden = 'no secret is written to a log, nor what reads like one inside of a text'
const brokenPipe = "recorded while the pipes of the recorded client's Ruby failed; the command is given what it reads"
const rawMessage =
  'the reference logs the whole body as the message, and with it secrets; here the message says what is wrong'
const sharedLists = 'the reference logs lists that later files have added to by then'
const crashed = 'the reference crashes'

/** What a command that copies its standard input prints, as in the recordings where the pipe worked. */
const copiedInput = (check: string, issued: number) =>
  JSON.stringify(
    `{"client":{"name":"probe-a","address":"127.0.0.2","subscriptions":["probe","roundrobin:probe","direct:probe","client:probe-a"],"environment":"production","mysql":{"user":"bob","port":3306,"ratio":0.5,"enabled":true,"disabled":false,"nested":{"deep":"d1"},"list":["x","y"]},"password":"topsecret","aws":{"secret_key":"k","region":"eu"},"arr":[{"api_key":"z","ok":1}],"nullish":null,"keepalive":{"thresholds":{"warning":40,"critical":60},"handlers":["none"]},"deregister":true,"deregistration":{"handler":"none","status":0,"extra":"e"},"socket":{"bind":"127.0.0.1","port":3130},"http_socket":{"bind":"127.0.0.1","port":3131,"user":"u","password":"p"}},"check":{"name":"${check}","issued":${issued},"command":"cat","stdin":true,"executed":1795317153}}`,
  )

const otherSource = {
  client: 'probe-a',
  check: {
    name: 'r_duplicate_running_other_source',
    ...{ issued: 1795317271, command: 'sleep 1; echo d', source: 's1' },
    ...{ executed: 1795317271, duration: 1, output: 'd\n', status: 0 },
  },
}

/** A configuration that is told to be wrong, in the form that Sensu has for that. */
const refused = (error: object) => ({
  exit_status: 2,
  stdout_and_stderr: [
    'configuration is invalid',
    ...JSON.stringify({ errors: [error] }, undefined, 2)
      .replaceAll('": ', '":')
      .split('\n'),
  ],
})
const noDocument = refused({ message: 'config file must be valid json', file: 'conf.d/a.json', error: '' })

/** The log of a start as far as a document `c1` gets it, then what it ends with. */
const failedStart = (...end: LogLine[]): LogLine[] => [
  { level: 'warn', message: 'loading config files from directory', directory: 'conf.d' },
  { level: 'warn', message: 'loading config file', file: 'conf.d/a.json' },
  {
    level: 'warn',
    message: 'applied sensu client overrides',
    client: { name: 'c1', address: '1.2.3.4', subscriptions: ['a', 'client:c1'] },
  },
  { level: 'info', message: 'configuring sensu spawn', settings: { limit: 12 } },
  ...end,
  { level: 'fatal', message: 'SENSU NOT RUNNING!' },
]

/** A request that is told and dropped. */
const dropped = (error: string, payload: string): LogLine[] => [
  { level: 'error', message: 'dropping an invalid check request', error, payload },
]
const unparsable = (payload: string): LogLine[] => [
  {
    level: 'error',
    message: 'failed to parse the check request payload',
    error: 'unexpected input, in the words of the parser',
    payload,
  },
]

/** A check whose hook is broken: told, and published without what the hook would have added. */
const unhooked = (client: string, name: string, hooks: unknown, error: string) => {
  const check = { name, command: 'exit 2', hooks }
  const done = { ...check, executed: 1795318094, duration: 0.1, output: '', status: 2 }
  return {
    results: [JSON.stringify({ client, check: done })],
    log: [
      { level: 'info', message: 'received check request', check },
      { level: 'error', message: error, check: done, ...(typeof hooks === 'string' ? {} : { hook: 'critical' }) },
      { level: 'info', message: 'publishing check result', payload: { client, check: done } },
    ],
  }
}

const noHash = 'check request must be a hash'
const noName = 'check name must be a string'
const noHook = 'check hook command must be a string'
const ends = 'the reference ends or leaks on an uncaught error; the request is told and dropped'
const hookEnds = 'the reference ends or leaks when a hook is broken; the check itself has a result'

/** The same broken requests were sent to a client with, and to one without the global error handler. */
const brokenRequests = [
  { prefix: 'malformed_request_', client: 'probe-crash', unrecorded: ['empty_object', 'hooks_not_hash'] },
  { prefix: 'malformed_request_global_error_handler_', client: 'probe-crashg', unrecorded: ['name_invalid_utf8'] },
].flatMap(({ prefix, client, unrecorded }): Difference[] => {
  const named = (name: string) => new RegExp(`^${prefix}${name}$`)
  const all: Difference[] = [
    { cases: named('array'), reason: ends, log: dropped(noHash, '[{"name":"x","command":"echo x"}]') },
    { cases: named('null'), reason: ends, log: dropped(noHash, 'null') },
    { cases: named('number'), reason: ends, log: dropped(noHash, '5') },
    { cases: named('empty_object'), reason: ends, log: dropped(noName, '{}') },
    { cases: named('name_integer'), reason: ends, log: dropped(noName, '{"name":5,"command":"echo x"}') },
    { cases: named('no_name'), reason: ends, log: dropped(noName, '{"command":"echo x"}') },
    {
      cases: named('name_invalid_utf8'),
      reason: ends,
      log: dropped(noName, '{"name":"r_\ufffd","command":"echo 1"}'),
    },
    {
      cases: named('nan'),
      reason: 'NaN is no JSON; other readers of the result could not parse it',
      results: [],
      log: unparsable('{"name":"nanv","command":"echo x","v":NaN}'),
    },
    { cases: named('hook_no_command'), reason: hookEnds, ...unhooked(client, 'hk2', { critical: {} }, noHook) },
    { cases: named('hook_not_hash'), reason: hookEnds, ...unhooked(client, 'hk', { critical: 'x' }, noHook) },
    {
      cases: named('hooks_not_hash'),
      reason: hookEnds,
      ...unhooked(client, 'hk3', 'abc', 'check hooks must be a hash'),
    },
  ]
  return all.filter(({ cases }) => !unrecorded.some(name => cases.test(prefix + name)))
})

const silent = 'the reference does not say that it cannot connect'
const withoutRedis = (reason: string, host: string, error: string): Difference['insert'] => ({
  after: 'connecting to transport',
  line: { level: 'error', message: 'redis connection error', reason, host, error },
})

/** Everything that differs from the recordings, and how. The tests expect what was recorded with this applied. */
export const differences: readonly Difference[] = [
  // check requests
  {
    cases: /^req_hook_secret_token$/,
    reason: original,
    replace: [['"command":"echo topsecret"', '"command":"echo :::password:::"']],
  },
  {
    cases: /^req_hook_warning_severity$/,
    reason: original,
    replace: [['"echo hooked probe-a"', '"echo hooked :::name:::"']],
  },
  {
    cases: /^req_hook_unmatched_token$/,
    reason: original,
    replace: [['"command":"echo "', '"command":"echo :::nope:::"']],
  },
  {
    cases: /^req_timeout_string$/,
    reason: "the reference's text is a fault in its own code",
    replace: [
      [
        /"Unexpected error: undefined method.*?\^"/g,
        '"Unexpected error: the timeout must be a number of seconds, not \\"5\\""',
      ],
    ],
  },
  {
    cases: /^req_large_output$/,
    reason: 'the recording lost the end of the output, and with it the status',
    replace: [[/"x+","status":\d+/g, `"${'x'.repeat(200_000)}","status":0`]],
  },
  {
    cases: /^req_stdin_true$/,
    reason: brokenPipe,
    replace: [['"Unexpected error: Broken pipe","status":3', `${copiedInput('r_stdin_true', 1795317153)},"status":0`]],
  },
  {
    cases: /^req_stdin_true_2$/,
    reason: brokenPipe,
    replace: [
      [
        '"cat: -: Resource temporarily unavailable\\n","status":1',
        `${copiedInput('r_stdin_true_2', 1795317271)},"status":0`,
      ],
    ],
  },
  {
    cases: /^req_(stdin_(true|slow)|hook_stdin)/,
    reason: hidden,
    replaceInLog: [[/(\\"(?:password|secret_key|api_key)\\":)\\"\w+\\"/g, '$1REDACTED']],
  },
  {
    cases: /^req_duplicate_running_other_source$/,
    reason: 'the recording ends before the command did',
    results: [JSON.stringify(otherSource)],
    insert: {
      after: 'attempting to execute check command',
      line: { level: 'info', message: 'publishing check result', payload: otherSource },
    },
  },
  {
    cases: /^odd_unicode_escapes$/,
    reason: 'characters beyond ASCII are kept',
    replace: [
      ['"v":"A/<>&"', '"v":"A/<>&\u2028"'],
      ['"output":"\\n"', '"output":"é 😀\\n"'],
    ],
  },
  { cases: /^odd_utf8_attr$/, reason: 'characters beyond ASCII are kept', replace: [['"v":""', '"v":"\ufffd\ufffd"']] },

  // local sockets
  {
    cases: /^tcp_raw_nan$/,
    reason: 'NaN is no JSON; other readers of the result could not parse it',
    results: [],
    observed: { response: 'invalid' },
  },
  {
    cases: /^udp_big_60k$/,
    reason: 'the reference cuts datagrams at 16 KiB; here a whole datagram is read',
    results: [
      `{"client":"probe-a","check":{"name":"u_big","output":"${'x'.repeat(60_000)}","status":0,"executed":1795317394,"issued":1795317394}}`,
    ],
  },
  {
    cases: /^http_chunked_body$/,
    reason: 'the reference logs an answer that it does not send',
    log: [
      { level: 'debug', message: 'http socket processing', http_request_method: 'POST', http_request_uri: '/results' },
      {
        level: 'debug',
        message: 'http socket endpoint found',
        http_request_uri: '/results',
        accepted_methods: ['POST'],
      },
      { level: 'debug', message: 'http socket executing handler', method_name: 'POST', http_request_uri: '/results' },
      {
        level: 'debug',
        message: 'http socket sending response',
        status: 400,
        status_string: 'Failed to parse JSON body',
        content: { response: 'Failed to parse JSON body' },
      },
      {
        level: 'error',
        message: 'http socket error while processing request',
        error: '400 Bad request',
        backtrace: [],
      },
    ],
  },
  {
    cases: /^http_settings_malformed_basic$/,
    reason: 'credentials that cannot be read are wrong ones, not an error of the agent',
    observed: {
      response:
        'HTTP/1.1 401 Unauthorized\r\nContent-length: 91\r\nContent-type: application/json\r\nWWW-Authenticate: Basic realm="Sensu Client Restricted Area"\r\n\r\n{"response":"You must be authenticated using your http_options user and password settings"}',
    },
    log: [
      { level: 'debug', message: 'http socket processing', http_request_method: 'GET', http_request_uri: '/settings' },
      {
        level: 'debug',
        message: 'http socket endpoint found',
        http_request_uri: '/settings',
        accepted_methods: ['GET'],
      },
      { level: 'debug', message: 'http socket executing handler', method_name: 'GET', http_request_uri: '/settings' },
      { level: 'warn', message: 'http socket refusing to serve unauthorized request' },
      {
        level: 'debug',
        message: 'http socket sending response',
        status: 401,
        status_string: 'Unauthorized',
        content: { response: 'You must be authenticated using your http_options user and password settings' },
      },
    ],
  },
  // command line and configuration
  { cases: /^cfg_json_array_top$/, reason: 'the reference adds meaningless keys', observed: noDocument },
  { cases: /^cfg_json_(scalar|null)_top$/, reason: crashed, observed: noDocument },
  {
    cases: /^cfg_v_client_not_hash$/,
    reason: crashed,
    observed: refused({ object: 5, message: 'client must be a hash' }),
  },
  {
    cases: /^cfg_v_check_cron_step_zero$/,
    reason: crashed,
    observed: refused({
      object: { command: 'x', standalone: true, cron: '*/0 * * * *', name: 'a' },
      message: 'check cron string must use the cron syntax',
    }),
  },
  {
    cases: /^cfg_transport_unknown$/,
    reason: 'a line instead of a stack trace',
    log: failedStart({
      level: 'fatal',
      message: 'there is no transport "kafka": transport name must be rabbitmq or redis',
    }),
    observed: { stdout_and_stderr: [] },
  },
  {
    cases: /^cfg_port_in_use$/,
    reason: 'a line instead of a stack trace, after an end in order',
    log: failedStart(
      { level: 'warn', message: 'stopping' },
      { level: 'info', message: 'completing checks in progress', checks_in_progress: [] },
      { level: 'info', message: 'closing client sockets' },
      { level: 'warn', message: 'stopping reactor' },
      { level: 'fatal', message: 'listen EADDRINUSE: address already in use 127.0.0.1:3030' },
    ),
    observed: { stdout_and_stderr: [] },
  },
  {
    cases: /^cfg_env_client(_overridden_by_file)?$/,
    reason: sharedLists,
    replaceInLog: [[/("using sensu client environment variables".*"y"),"[^\]]*/g, '$1']],
  },
  {
    cases: /^cfg_env_empty_name$/,
    reason: sharedLists,
    replaceInLog: [[/("using sensu client environment variables".*),"subscriptions":\["client:"\]/g, '$1']],
  },
  {
    cases: /^cfg_env_other$/,
    reason: 'no password of a URL is written to a log',
    replaceInLog: [[/(:\/\/\w*:)\w+@/g, '$1REDACTED@']],
  },
  {
    cases: /^cfg_merge_order_nested/,
    reason: sharedLists,
    replaceInLog: [
      ['[1,2,2,3]', '[1,2]'],
      ['["s1","s2","s1"]', '["s1"]'],
    ],
  },
  {
    cases: /^cfg_merge_order_nested_ok$/,
    reason: sharedLists,
    replaceInLog: [[/(z\.json".*"s2"),"client:m1"/g, '$1']],
  },
  // broken requests
  ...brokenRequests,
  {
    cases: /^stop_hangs_with_leaked_in_progress_key$/,
    reason: 'nothing leaks, so the agent ends',
    log: [
      { level: 'warn', message: 'received signal', signal: 'TERM' },
      { level: 'warn', message: 'stopping' },
      { level: 'info', message: 'completing checks in progress', checks_in_progress: [] },
      { level: 'info', message: 'closing client sockets' },
      { level: 'warn', message: 'stopping reactor' },
    ],
  },
  { cases: /^bad_empty$/, reason: rawMessage, log: unparsable('') },
  { cases: /^bad_single_quotes$/, reason: rawMessage, log: unparsable("{'name':'x'}") },
  {
    cases: /^bad_trailing$/,
    reason: rawMessage,
    log: unparsable('{"name":"r_trail","command":"echo t"} garbage'),
  },
  {
    cases: /^bad_two_objects$/,
    reason: rawMessage,
    log: unparsable('{"name":"r_two1","command":"echo 1"}{"name":"r_two2","command":"echo 2"}'),
  },
  { cases: /^bad_utf8$/, reason: ends, log: dropped(noName, '{"name":"r_\ufffd","command":"echo 1"}') },
  // own checks
  {
    cases: /^(standalone_hooks_state_kept_between_runs|signature_results)$/,
    reason: "the reference writes a hook's outcome, and the values of tokens, into its own configuration",
    replace: [
      [
        /"echo hide","executed":\d+,"duration":[\d.]+,"output":"hide\\n","status":0(?=\}\}.*"status":0\})/g,
        '"echo :::mykey:::"',
      ],
      ['"echo hide"', '"echo :::mykey:::"'],
    ],
  },
  {
    cases: /^(standalone_non_ascii|signature_results)$/,
    reason: 'characters beyond ASCII are kept',
    replace: [
      ['"nave"', '"naïve"'],
      ['"caf\\n"', '"café\\n"'],
    ],
  },
  // transports
  {
    cases: /^transport_wrong_password$|^stop_while_never_connected$/,
    reason: 'the reference tells of a refused connection as lost, too',
    without: /tcp connection lost/,
  },
  {
    cases: /^transport_loss_and_recovery$|^stop_while_disconnected$/,
    reason: 'no result is lost, so none is said to be',
    without: /failed to publish check result/,
  },
  {
    cases: /^stop_while_disconnected$/,
    reason: 'what could not be sent is sent after the next start',
    insert: {
      after: 'closing client sockets',
      line: {
        level: 'info',
        message: 'undelivered check results are kept in the spool',
        directory: '/state/spool-probe-t1',
        results: 1,
      },
    },
  },
  {
    cases: /^transport_(broker_(refused|late)_at_start.*|array_first_broker_dead)$/,
    reason: 'which broker it was is told, too',
    replaceInLog: [['Errno::ECONNREFUSED"', 'Errno::ECONNREFUSED","host":"127.0.0.1","port":5679']],
  },
  {
    cases: /^transport_channel_error/,
    reason: 'why the broker closed the channel is told, too',
    replaceInLog: [
      [
        '"error":"rabbitmq channel error"',
        `"error":"rabbitmq channel error","reason":${JSON.stringify("Channel closed by server: 406 (PRECONDITION-FAILED) with message \"PRECONDITION_FAILED - inequivalent arg 'type' for exchange 'amq.direct' in vhost '/sensu': received 'fanout' but current is 'direct'\"")}`,
      ],
    ],
  },
  {
    cases: /^redis_transport_array$/,
    reason: silent,
    insert: withoutRedis(
      'unable to determine redis master',
      '127.0.0.1:26999',
      'failed to connect to sentinel 127.0.0.1:26999 because Connection is closed.',
    ),
  },
  {
    cases: /^redis_transport_string$/,
    reason: silent,
    insert: withoutRedis(
      'unable to determine redis master',
      '127.0.0.1:26999',
      'failed to connect to sentinel 127.0.0.1:26999 because Connection is closed.',
    ),
  },
  {
    cases: /^redis_transport_refused$/,
    reason: silent,
    insert: withoutRedis('unable to connect to redis', '127.0.0.1:6999', 'connect ECONNREFUSED 127.0.0.1:6999'),
  },
  {
    cases: /^redis_transport_badpass$/,
    reason: `${silent}; the password of the test is hidden, its port is not the usual one`,
    replaceInLog: [['"password":"x","db":5', '"password":"REDACTED","db":5,"port":6379']],
    insert: {
      after: 'connecting to transport',
      line: {
        level: 'error',
        message: 'redis connection error',
        reason: 'unable to connect to redis',
        host: '127.0.0.1:6379',
        error: 'a password is configured, but this Redis has none',
      },
    },
  },
  {
    cases: /^redis_transport_url$/,
    reason: "the database of a URL is used; the reference's way to unsubscribe is an error",
    replaceInLog: [['transport:0:', 'transport:5:']],
    without: /unknown command|"reconnecting to transport"/,
  },
]

/** The same for rows of the recorded tables of pure functions: what is said instead, by table and row. */
export const rowDifferences: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  // the reference loses everything that is not ASCII
  tokens: { 'é:::name:::ü': 'éc1ü' },
  // values out of range, empty ranges, and lines that never come true are refused instead of skewed
  cron: {
    '* 24 * * *': 'invalid',
    '* * 0 * *': 'invalid',
    '* * 32 * *': 'invalid',
    '* * * * 8': 'invalid',
    '5-1 * * * *': 'invalid',
    '*/5/2 * * * *': 'invalid',
    '0 0 31 2 *': 'invalid',
  },
}

import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { runHandler, sectionFile } from '../support/handlers.js'

// One run of each executable has to tell every mistake in its section: of values, of names, of what is missing, of what contradicts each other, of what files and variables hold.

interface Mistakes {
  readonly section: object
  readonly variables?: Readonly<Record<string, string>>
  /** One line each, without file and section. */
  readonly told: readonly string[]
}

const seconds = (minimum = 0.1, maximum = 86_400) =>
  `must be a number of seconds, or a time such as 500ms, 8s or 5m; from ${minimum} s to ${maximum} s`
const httpUrl = 'must be a URL that starts with http:// or https://'
const unreadable = 'cannot be read from /nowhere: ENOENT: no such file or directory'
const unset = 'must be the name of an environment variable that is set, and not empty'
const headerValue = 'must not have control characters, nor any that a header cannot hold (beyond ISO 8859-1)'

const cases: Readonly<Record<string, readonly Mistakes[]>> = {
  'handler-chat': [
    {
      section: {
        webhook_url: 'hooks.example/passw0rd',
        webhook_url_file: '/nowhere',
        format: 'template',
        templat: {},
        channel: '',
        username: 'Sensu',
        mention: '@all',
        ca_file: '/nowhere',
        proxy: 'https://passw0rd:1',
        timeout: 0,
        dashboard_url: 'http://:80',
      },
      told: [
        'templat is not a known setting: did you mean template?',
        'webhook_url must be given once: as webhook_url, webhook_url_file or webhook_url_env',
        'webhook_url must be a URL that starts with https:// or http://',
        `webhook_url_file ${unreadable}`,
        'template is missing: "format": "template" needs one',
        'channel must be a text',
        'channel must be left out with "format": "template": write it into the template',
        'username must be left out with "format": "template": write it into the template',
        'mention must be left out with "format": "template": write it into the template',
        `ca_file ${unreadable}`,
        'proxy must be a URL that starts with http://',
        `timeout ${seconds()}`,
        'dashboard_url must name a host that there can be, and a port from 1 to 65535 if any',
      ],
    },
    {
      section: { template: Array(10_001).fill(0), proxy_env: 'nothing' },
      told: [
        'webhook_url is missing: give webhook_url, webhook_url_file or webhook_url_env',
        'template must not have more than 10000 values',
        `proxy_env ${unset}`,
      ],
    },
    {
      section: { webhook_url: 'https://hooks.example', format: 'slck', template: {}, channel: null },
      told: ['format must be one of: slack, mattermost, template', 'channel must be a text'],
    },
  ],
  'handler-digest': [
    {
      section: {
        deliver_to: 'handler-pagerduty',
        window: 2,
        max_lines: 0,
        max_events: '10',
        state_dir: 'x\0y',
        windw: 1,
        timeout: 2,
      },
      told: [
        'windw is not a known setting: did you mean window?',
        'deliver_to must not lead to PagerDuty: a message about several events would open and close the wrong incidents',
        'window must be at most half of timeout: the other half is for delivering',
        'max_lines must be a whole number from 1 to 1000',
        'max_events must be a whole number from 1 to 10000',
        'state_dir must be a path without null characters, and not longer than Linux allows',
        'timeout must be more than 2.5 s, which delivering may take',
      ],
    },
    {
      section: { window: '1d', timeout: 1, state_dir: 'x'.repeat(256) },
      told: [
        'deliver_to is missing: it must be a text',
        `window ${seconds(0.1, 43_200)}`,
        'state_dir must be a path without null characters, and not longer than Linux allows',
        'timeout must be more than 2.5 s, which delivering may take',
      ],
    },
    {
      section: { deliver_to: ' ' },
      told: ['deliver_to must be a command of at most 100000 bytes, without null characters'],
    },
  ],
  'handler-log': [
    {
      section: {
        fil: '/x',
        syslog: 'udp://127.0.0.1:9',
        content: 'all',
        facility: 'post',
        tag: 'a\nb',
        max_bytes: 70_000,
        timeout: 'soon',
        dashboard_url: 'ftp://x',
      },
      told: [
        'fil is not a known setting: did you mean file?',
        'content must be one of: summary, event',
        'facility must be one of: kern, user, mail, daemon, auth, syslog, lpr, news, uucp, cron, authpriv, ftp, ntp, audit, alert, clock, local0, local1, local2, local3, local4, local5, local6, local7',
        'tag must be one line, without null characters',
        'max_bytes must be at most 65000 with syslog by UDP',
        `timeout ${seconds()}`,
        `dashboard_url ${httpUrl}`,
      ],
    },
    {
      section: { fil: '/x', max_bytes: 1 },
      told: [
        'fil is not a known setting: did you mean file?',
        'file is missing: give file, syslog or both',
        'max_bytes must be a whole number from 480 to 1048576',
      ],
    },
    {
      section: { file: 'relative', syslog: 'udp://[:::]:9', max_bytes: 70_000 },
      told: [
        'file must be the absolute path of a file',
        'syslog must be udp://HOST:PORT, tcp://HOST:PORT or unix:///PATH (of at most 107 bytes)',
      ],
    },
  ],
  'handler-mail': [
    {
      section: {
        to: ['ops', 'ops@example.com', 5, 'https://sensu:passw0rd@example.com/x'],
        contacts: {
          ops: { to: [], sevrities: 'x' },
          duty: 'x',
          night: { to: ['a@b@c', 'duty@example.com'], severities: ['ok'] },
          none: {},
        },
        from: 'a@b\r\nX: y',
        host: 'mail.example.com',
        port: 0,
        tls: 'none',
        verify: 'yes',
        ca_file: '/dev/null',
        password: 'passw0rd\n',
        user: 'sensu',
      },
      told: [
        'user is not a known setting',
        'to must be a text, or a list of texts',
        'to ops must be an address such as ops@example.com',
        'to "https://REDACTED@example.com/x" must be an address such as ops@example.com',
        'contacts ops sevrities is not a known setting: did you mean severities?',
        'contacts ops to must be a text, or a list of texts',
        'contacts duty must be a hash',
        'contacts night to "a@b@c" must be an address such as ops@example.com',
        'contacts night severities must be one or a list of: warning, critical, unknown',
        'contacts none to is missing: it must be a text, or a list of texts',
        'from must be an address such as ops@example.com',
        'port must be a whole number from 1 to 65535',
        'tls must be starttls or tls with a password',
        'verify must be true or false',
        'ca_file cannot be read from /dev/null: it is no regular file',
        'password must be one line, without null characters',
        'password must go with username, and username with password',
      ],
    },
    {
      section: { host: 'mail.example.com:25', tls: 'ssl', username: 'sensu', ca_file: 'FOLDER/empty.pem' },
      told: [
        'to is missing: give to, contacts or both',
        'host must be the name or the address of a host, without a port',
        'tls must be one of: starttls, tls, opportunistic, none',
        'ca_file must hold certificates (PEM), and no damaged one',
        'password must go with username, and username with password',
      ],
    },
    // A relation does not need a right value to see that there is one; nor is a password repeated that stands where its file or variable should.
    {
      section: { to: 'a@example.com', username: 'x', password_file: 'passw0rd' },
      told: ['password_file cannot be read: ENOENT: no such file or directory'],
    },
    { section: { to: 'a@example.com', username: 'x', password_env: 'passw0rd' }, told: [`password_env ${unset}`] },
  ],
  'handler-metrics': [
    {
      section: {
        store: 'influxdb2',
        url: 'tcp://sensu:passw0rd@127.0.0.1:1',
        output_format: 'xml',
        tags: { a: 5, b: 'x' },
        password: 'passw0rd',
        token: 'passw0rd\u20ac',
        databse: 'x',
        timeout: 1e9,
      },
      told: [
        'databse is not a known setting: did you mean database?',
        'url must not hold a user or password: set user and password',
        'url must begin with http:// or https:// for influxdb2',
        'output_format must be one of: graphite, influxdb, opentsdb, nagios, json',
        'tags a must be a text',
        'user and password go together: give both or none',
        'org is missing: InfluxDB 2 needs it',
        'bucket is missing: InfluxDB 2 needs it',
        `token ${headerValue}`,
        `timeout ${seconds()}`,
      ],
    },
    {
      section: { store: 'influxdb', url: 'http://127.0.0.1:1', user: 'x', proxy: 'http://p:0' },
      told: [
        'database is missing: InfluxDB needs it over HTTP',
        'user and password go together: give both or none',
        'proxy must name a host that there can be, and a port from 1 to 65535 if any',
      ],
    },
    {
      section: { store: 'prometheus', user: '\0' },
      told: [
        'store must be one of: graphite, influxdb, influxdb2, opentsdb',
        'url is missing: it must be a URL that starts with tcp:// or udp:// or http:// or https://',
        'user must be one line, without null characters',
        'user and password go together: give both or none',
      ],
    },
  ],
  'handler-pagerduty': [
    {
      section: {
        routing_key_env: 'KEY',
        url: 'events.pagerduty.com',
        dedup_key: 5,
        severities: { warning: 'loud', bad: 'info', toString: 'x', ok: null },
        severity: 'critical',
        proxy: [],
      },
      variables: { KEY: 'passw0rd\nx' },
      told: [
        'severity is not a known setting: did you mean severities?',
        'routing_key_env leads to a value that must be one line, without null characters',
        'url must be a URL that starts with https:// or http://',
        'dedup_key must be a text',
        'severities warning must be one of: critical, error, warning, info',
        'severities bad must be one of: ok, warning, critical, unknown',
        'severities toString must be one of: ok, warning, critical, unknown',
        'severities toString must be one of: critical, error, warning, info',
        'severities ok must be a text',
        'proxy must be a URL that starts with http://',
      ],
    },
    {
      section: { severities: ['critical'] },
      told: [
        'routing_key is missing: give routing_key, routing_key_file or routing_key_env',
        'severities must be a hash of texts',
      ],
    },
  ],
  'handler-webhook': [
    {
      section: {
        webhook_url_file: 'FOLDER/url',
        secret: 5,
        secret_env: 'nothing',
        authorization_file: 'FOLDER/empty.pem',
        headers: {
          Host: 'y',
          'a b': 'passw0rd',
          'Sensu-Signature': 'forged',
          'X-Y': 'passw0rd\r\nB: c',
          'X-Z': null,
          Expect: '\0',
        },
        header: {},
      },
      told: [
        'header is not a known setting: did you mean headers?',
        `webhook_url_file leads to a value that ${httpUrl}`,
        'secret must be given once: as secret, secret_file or secret_env',
        'secret must be a text',
        `secret_env ${unset}`,
        'authorization_file must be the path of a file that is not empty',
        'headers Host must be left out: it belongs to the connection',
        'headers "a b" must be the name of a header',
        'headers Sensu-Signature must be left out: the handler sets it',
        `headers X-Y ${headerValue}`,
        'headers X-Z must be a text',
        'headers Expect must be left out: it belongs to the connection',
        `headers Expect ${headerValue}`,
      ],
    },
  ],
  'remediate-kvm': [
    {
      section: {
        act: 'yes',
        uri: 'qemu+ssh://sensu@:::check.origin:::/system',
        allow: {},
        deny: [5],
        severities: ['critical', 'ok'],
        attempts: 0,
        min_free_mib: 0.5,
        state_dir: '',
        client: 'x',
      },
      told: [
        'client is not a known setting: did you mean clients?',
        'act must be true or false',
        'clients is missing: with tokens in uri an event could name any machine',
        'allow must be a text, or a list of texts',
        'deny must be a text, or a list of texts',
        'severities must be one or a list of: warning, critical, unknown',
        'attempts must be a whole number from 1 to 60',
        'min_free_mib must be a whole number from 1 to 1000000000',
        'state_dir must be a text',
      ],
    },
    ...['qemu+ssh://sensu:passw0rd@:::check.origin:::/system', 'qemu+ssh://-x/system', 'http://x/'].map(uri => ({
      section: { uri, deny: '' },
      told: [
        'uri must be one that libvirt knows, without a password, such as qemu:///system',
        'deny must be a text, or a list of texts',
      ],
    })),
  ],
}

for (const [name, mistakes] of Object.entries(cases)) {
  t.test(`${name}: all that is wrong with its section is told at once, in the order of its settings`, async t => {
    const folder = t.testdir({ 'empty.pem': '\n', url: 'ftp://sensu:passw0rd@example.com/\n' })
    for (const { section, variables, told } of mistakes) {
      const settings = JSON.parse(JSON.stringify(section).replaceAll('FOLDER', folder))
      const argv = sectionFile(t, name, settings)
      const { stdout, stderr, status } = await runHandler(name, argv, '', variables)
      const count = `${told.length} error${told.length === 1 ? '' : 's'}`
      const [first, ...lines] = stderr.trimEnd().split('\n')
      t.equal(first, `${name}: the configuration cannot be used, nothing was sent: ${count}`)
      t.same(
        lines,
        told.map(line => `${argv[1]}: ${name} ${line}`),
      )
      t.same([stdout, status], ['', 2])
      t.notMatch(stderr, 'passw0rd')
    }
  })
}

/** Files of a configuration, and the variable that leads a handler to them. */
function filesOf(t: Test, contents: Readonly<Record<string, string>>): Record<string, string> {
  mkdirSync(t.testdirName, { recursive: true })
  const paths = Object.keys(contents).map(file => join(t.testdirName, file))
  for (const path of paths) writeFileSync(path, contents[path.slice(t.testdirName.length + 1)] ?? '')
  return { SENSU_CONFIG_FILES: paths.join(':') }
}

t.test('each line names the file that the mistake is in', async t => {
  const folder = t.testdir({})
  const variables = filesOf(t, {
    'a.json':
      '{"handler-mail": {"contacts": {"ops": {"to": ["ops", "x@example.com"]}}, "to": "a@example.com", "from": 5}}',
    'b.json': '{"handler-mail": {"contacts": {"ops": {"to": "?"}, "duty": {}}, "password_file": "/nowhere"}}',
    'c.json':
      '{"handler-mail": {"contacts": {"ops": {"severities": "critical", "x": 1}}, "to": ["duty"], "username": "x"}}',
  })
  const { stderr } = await runHandler('handler-mail', [], '', variables)
  t.equal(
    stderr,
    `handler-mail: the configuration cannot be used, nothing was sent: 6 errors
${folder}/c.json: handler-mail to duty must be an address such as ops@example.com
${folder}/c.json: handler-mail contacts ops x is not a known setting
${folder}/b.json: handler-mail contacts ops to "?" must be an address such as ops@example.com
${folder}/b.json: handler-mail contacts duty to is missing: it must be a text, or a list of texts
${folder}/a.json: handler-mail from must be a text
${folder}/b.json: handler-mail password_file ${unreadable}
`,
  )
  const lists = filesOf(t, {
    'd.json': '{"handler-mail": {"to": ["ops"]}}',
    'e.json': '{"handler-mail": {"to": ["x@example.com"]}}',
    'f.json': '{"handler-mail": []}',
  })
  const [d, e, f] = lists['SENSU_CONFIG_FILES']?.split(':') ?? []
  t.match(await runHandler('handler-mail', [], '', { SENSU_CONFIG_FILES: `${d}:${e}` }), {
    stderr: `1 error\n${d}: handler-mail to ops must be`,
  })
  t.match(await runHandler('handler-mail', [], '', { SENSU_CONFIG_FILES: `${d}:${f}` }), {
    stderr: `1 error\n${f}: handler-mail must be a hash\n`,
    status: 2,
  })
})

t.test('beside a file that cannot be read wrong values are told, and nothing is said to be missing', async t => {
  const folder = t.testdir({})
  const variables = filesOf(t, {
    'a.json': '{"handler-metrics": {"org": "", "user": "x", "xyz": 1}}',
    'b.json': '{"handler-metrics": {"store"',
  })
  const { stderr, status } = await runHandler('handler-metrics', [], '', variables)
  t.equal(
    stderr,
    `handler-metrics: the configuration cannot be used, nothing was sent: 3 errors
${folder}/b.json: config file must be valid json: unexpected end of the document at line 1, column 29
${folder}/a.json: handler-metrics xyz is not a known setting
${folder}/a.json: handler-metrics org must be a text
`,
  )
  t.equal(status, 2)
})

t.test('--validate tells the same', async t => {
  t.testdir({})
  const argv = sectionFile(t, 'handler-log', { max_bytes: 1 })
  const run = await runHandler('handler-log', argv, '')
  const { ms: _, ...validated } = await runHandler('handler-log', [...argv, '--validate'], '')
  t.match(run, validated)
  t.match(validated.stderr, '2 errors')
})

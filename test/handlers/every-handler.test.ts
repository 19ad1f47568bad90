import { spawn } from 'node:child_process'
import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { Ajv } from 'ajv'
import t from 'tap'
import { readSection } from '../../plugin/handler-section.js'
import { handlerSchema, loadHandlers } from '../../scripts/generate-handlers.js'
import { handlerDocumentation } from '../../scripts/handler-docs.js'
import { projectDirectory } from '../../scripts/services/process.js'
import { guestEvent, runHandler, sectionFile } from '../support/handlers.js'

const root = projectDirectory()
const { handlers, problems } = await loadHandlers(root)

t.test('every handler can be loaded', async t => {
  t.same(problems, [])
  t.ok(handlers.length >= 5)
})

t.test('docs/handlers is what `npm run docs` makes of the handlers', async t => {
  const wanted = handlerDocumentation(handlers.map(({ handler }) => handler))
  const folder = join(root, 'docs/handlers')
  t.same(readdirSync(folder).sort(), [...wanted.keys()].sort())
  for (const [name, text] of wanted) t.equal(readFileSync(join(folder, name), 'utf8'), text, name)
})

/** Of every type and size, and what looks like a secret in the wrong place. */
const oddValues: readonly unknown[] = [
  ...[null, true, false, 0, -1, 1.5, 1e308, '', ' ', '\n', '\0', 'x\0y', 'x', '/', '/x/', '9'.repeat(400), '9d'],
  ...[[], [[]], [null], ['x', 5, ''], Array(2000).fill('x'), 'x'.repeat(100_000)],
  ...[{}, { x: 5 }, { x: {} }, { '': '' }, { ok: 'info', toString: 'x' }, Object.fromEntries([['__proto__', 'x']])],
  ...['http://u:passw0rd@x.example/y', 'tcp://u:passw0rd@x', 'qemu+ssh://u:"passw0rd@x/system', 'udp://', 'http://x:0'],
  ...['http:x', 'tcp://h%20x:1', 'a@b@c', 'a@', 'A, B <a@b>', 'a@http://u:passw0rd@x'],
]

for (const { handler } of handlers) {
  const { name } = handler

  const validate = new Ajv({ strict: true }).compile(JSON.parse(handlerSchema(handler)))
  const problemsOf = (value: object): string[] => {
    // A secret, or the URL of one.
    const readFile = (path: string) => (/url/.test(path) ? 'https://x.example/y' : 'secret')
    const loaded = { value, fileOf: () => 'file', looked: '', errors: [] }
    return readSection(handler, name, loaded, { variables: {}, readFile }).problems
  }

  t.test(`${name}: its sample configuration is valid`, async t => {
    t.ok(validate(handler.sample), JSON.stringify(validate.errors))
    t.same(problemsOf(handler.sample), [])
  })

  t.test(`${name}: what its schema refuses, it refuses as well, in sentences that repeat no secret`, async t => {
    const { properties }: { properties: object } = JSON.parse(handlerSchema(handler))
    const sentence = new RegExp(`^file: ${name} \\S.* (?:must|is|go|cannot|leads) `)
    const accepted: string[] = []
    const odd: string[] = []
    for (const attribute of [...Object.keys(properties), 'unknown', '__proto__']) {
      const setting = attribute.replace(/_(?:file|env)$/, '')
      // A secret has one place.
      const others = Object.entries(handler.sample).filter(([other]) => other.replace(/_(?:file|env)$/, '') !== setting)
      for (const value of oddValues) {
        // Not by a literal, in which `__proto__` is no name like any other.
        const section = Object.fromEntries([...others, [attribute, value]])
        const problems = problemsOf(section)
        if (problems.length === 0 && !validate(section)) accepted.push(`${attribute} ${JSON.stringify(value)}`)
        odd.push(...problems.filter(text => !sentence.test(text) || /passw0rd|undefined|\[object/.test(text)))
      }
    }
    t.same([accepted, odd], [[], []])
  })

  t.test(`${name}: is built, says what it is, and what is wrong with its command line`, async t => {
    t.equal(statSync(join(root, 'dist/bin', name)).mode & 0o111, 0o111, 'executable')
    for (const file of [`completions/bash/${name}`, `completions/zsh/_${name}`, `schemas/${name}.json`]) {
      t.ok(statSync(join(root, 'dist', file)).size > 0, file)
    }
    const help = await runHandler(name, ['--help'], '')
    t.same([help.status, help.stderr], [0, ''])
    for (const setting of Object.keys(handler.settings)) t.match(help.stdout, `  ${setting}`)
    t.match(await runHandler(name, ['-V'], ''), {
      status: 0,
      stdout: new RegExp(`^${name} \\d+\\.\\d+\\.\\d+ \\(sensu-kvm\\)\\n$`),
      stderr: '',
    })
    t.match(await runHandler(name, ['--dry-rum'], ''), {
      status: 2,
      stdout: '',
      stderr: `${name}: unknown option --dry-rum: did you mean --dry-run?\n`,
    })
  })

  t.test(`${name}: without a section it does nothing but say so`, async t => {
    t.testdir({})
    const path = join(t.testdirName, 'empty.json')
    writeFileSync(path, '{}')
    t.match(await runHandler(name, ['-c', path], guestEvent()), {
      status: 2,
      stdout: '',
      stderr: `${name}: the configuration cannot be used, nothing was sent: 1 error\n${name}: there is no such section in ${path}: add one, see docs/handlers/${name}.md\n`,
    })
  })
}

const name = 'handler-log'

t.test('an input that is no event is a failure in one line', async t => {
  t.testdir({})
  const argv = sectionFile(t, name, { file: '/nowhere/x' })
  const lineOf = async (input: string) => {
    const { status, stdout, stderr } = await runHandler(name, argv, input)
    t.same([status, stdout], [1, ''])
    return stderr
  }
  t.equal(
    await lineOf(''),
    'handler-log: no event on standard input: a Sensu server hands it over there, as JSON; where all is well its API has no event either\n',
  )
  t.match(await lineOf('{"a"'), /^handler-log: the input is no JSON: .*\n$/)
  for (const input of ['null', '[]', '{"client":{"name":"x"},"check":{}}', '{"client":{},"check":{"name":"x"}}'])
    t.equal(await lineOf(input), 'handler-log: the input is no Sensu event: it needs client.name and check.name\n')
  t.equal(
    await lineOf(' '.repeat(17 * 1024 * 1024)),
    'handler-log: the event is larger than 16777216 bytes: nothing was sent\n',
  )
})

t.test('an event of the oddest kind is handled like any other', async t => {
  t.testdir({})
  const file = join(t.testdirName, 'x.json')
  const dashboard_url = 'http://x/:::client.name:::'
  const argv = sectionFile(t, name, { file, dashboard_url })
  const event = {
    client: { name: '\ud800', toString: 1 },
    check: { name: '__proto__', status: -1.5, output: { toString: 1 }, history: [{ toString: 1 }, null, '9'] },
    occurrences: 'many',
    last_ok: 1e300,
    last_state_change: {},
    silenced_by: [{ toString: 1 }],
    action: 'explode',
  }
  t.match(await runHandler(name, argv, event), { status: 0, stderr: '' })
  t.match(JSON.parse(readFileSync(file, 'utf8')), { check: '__proto__', status: 'UNKNOWN', action: 'create' })
})

t.test('an input that does not end does not keep it from ending in time', async t => {
  t.testdir({})
  const argv = sectionFile(t, name, { file: '/nowhere/x', timeout: '300ms' })
  const child = spawn(join(root, 'dist/bin', name), argv, { stdio: ['pipe', 'pipe', 'pipe'] })
  t.teardown(() => child.kill())
  let stderr = ''
  child.stderr.on('data', chunk => {
    stderr += chunk
  })
  const [status] = await once(child, 'close')
  t.equal(status, 1)
  t.equal(
    stderr,
    'handler-log: gave up after 0.3 s while reading the event from standard input: look at what hangs there, or allow more with the setting timeout\n',
  )
})

t.test('name servers that do not answer are a failure in time', async t => {
  const server = createSocket('udp4')
  t.teardown(() => server.close())
  server.bind(0, '127.0.0.1')
  await once(server, 'listening')
  const resolvConf = `nameserver 127.0.0.1:${server.address().port}\n`
  const SENSU_KVM_ROOT = t.testdir({ etc: { hosts: '', 'resolv.conf': resolvConf } })
  const cases = {
    'handler-mail': { to: 'ops@example.com', host: 'mail.example.com' },
    'handler-webhook': { webhook_url: 'https://mail.example.com' },
    'handler-log': { syslog: 'tcp://mail.example.com' },
  }
  for (const [handler, section] of Object.entries(cases)) {
    const argv = sectionFile(t, handler, { ...section, timeout: '1500ms' })
    const { stderr, status, ms } = await runHandler(handler, argv, guestEvent(), { SENSU_KVM_ROOT })
    t.match(stderr, new RegExp(`^${handler}: (?:cannot find the address of mail\\.example\\.com: .*|gave up .*)\\n$`))
    t.equal(status, 1)
    t.ok(ms < 20_000, `${ms}`)
  }
})

t.test('the configuration is the one that the server has read', async t => {
  const directory = t.testdir({
    conf: {
      'a.json': '{"handlers": {}, "handler-log": {"file": "/nowhere", "tag": "a"}}',
      'b.json':
        '{"handler-log": {"file": "OUT", "timeout": 8.0, "max_bytes": 1000.0}, "other": {"syslog": "udp://127.0.0.1:9"}}',
    },
  })
  const [a, b, out] = [join(directory, 'conf/a.json'), join(directory, 'conf/b.json'), join(directory, 'out.json')]
  writeFileSync(b, readFileSync(b, 'utf8').replace('OUT', out))
  writeFileSync(join(directory, 'list'), [a, b, join(directory, 'conf/deleted.json')].join(':'))
  const ways: [argv: string[], env: Record<string, string>][] = [
    [[], { SENSU_LOADED_TEMPFILE: join(directory, 'list'), SENSU_CONFIG_FILES: '/nowhere' }],
    [[], { SENSU_CONFIG_FILES: `${a}:${b}` }],
    [['-d', join(directory, 'conf')], { SENSU_CONFIG_FILES: '/nowhere' }],
  ]
  for (const [argv, env] of ways) t.match(await runHandler(name, argv, guestEvent(), env), { status: 0, stderr: '' })
  t.equal(readFileSync(out, 'utf8').trim().split('\n').length, ways.length)
  const section = ['-d', join(directory, 'conf'), '--config-section', 'other']
  t.match(await runHandler(name, section, guestEvent()), {
    stdout: 'handler-log: web1/memory_check create: sent to udp://127.0.0.1:9\n',
  })
  t.match(await runHandler(name, [...section, '--validate'], ''), {
    stdout: 'handler-log: the section other is valid\n',
    status: 0,
  })
})

t.test('an error names the file that has the attribute', async t => {
  const directory = t.testdir({
    'a.json': '{"handler-log": {"tag": 5, "file": "/nowhere"}}',
    'b.json': '{"handler-log": {"timeout": "soon"}}',
    'c.json': '{"broken"',
  })
  const [a, b, c] = ['a', 'b', 'c'].map(file => join(directory, `${file}.json`))
  const SENSU_CONFIG_FILES = `${a}:${b}`
  t.match(await runHandler(name, [], guestEvent(), { SENSU_CONFIG_FILES }), {
    stderr: `handler-log: the configuration cannot be used, nothing was sent: 2 errors
${a}: handler-log tag must be a text
${b}: handler-log timeout must be a number of seconds, or a time such as 500ms, 8s or 5m; from 0.1 s to 86400 s
`,
    status: 2,
  })
  const both = { SENSU_CONFIG_FILES: `${a}:${c}` }
  t.match(await runHandler(name, [], guestEvent(), both), {
    stderr: new RegExp(`nothing was sent: \\d errors?\\n${c}: config file must be valid json: `),
    status: 2,
  })
  t.match(await runHandler(name, ['-c', join(directory, 'no.json')], guestEvent()), {
    stderr: new RegExp(`\\n${directory}/no\\.json: there is no such file\\n`),
    status: 2,
  })
})

import { mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { stringifyJson } from '../../sensu/json.js'
import { findAddress, loadSettings, printSettings, reportValidity, writeLoadedFiles } from '../../sensu/settings.js'
import type { Service } from '../../sensu/types.js'

const machine = { hostName: 'host', address: '192.0.2.1', environment: {} }

function load(directories: string[], service: Service = 'client') {
  return loadSettings({ service, configDirectories: directories, ...machine })
}

t.test('files are found below the directory, in the order of their names', async t => {
  const linked = t.testdir({
    'conf.d': {
      'b.json': '{}',
      'a.json': '{}',
      a: { 'x.json': '{}', deep: { er: { 'y.json': '{}' } } },
      '.hidden.json': '{broken',
      '.hid': { 'h.json': '{broken' },
      'c.JSON': '{broken',
      'note.txt': '{broken',
    },
    elsewhere: { 'l.json': '{}', below: { 'm.json': '{}' } },
  })
  const directory = join(linked, 'conf.d')
  symlinkSync('../elsewhere', join(directory, 'aa'))
  symlinkSync('../../conf.d', join(linked, 'elsewhere', 'loop'))
  symlinkSync('../elsewhere/l.json', join(directory, 'z.json'))
  const { loadedFiles, errors } = load([directory])
  t.same(errors, [])
  const own = ['a/deep/er/y.json', 'a/x.json', 'a.json', 'b.json', 'z.json']
  const behindOneLink = ['aa/below/m.json', 'aa/l.json']
  t.same(
    loadedFiles,
    [...own, ...behindOneLink].map(file => `${directory}/${file}`),
  )
  t.same(load([`${directory}/`]).loadedFiles[0], `${directory}/a/deep/er/y.json`, 'one slash only')
})

t.test('a backslash in a directory is read as a slash', async t => {
  const root = t.testdir({ conf: { 'a.json': '{}' } })
  t.same(load([`${root}\\conf`]).loadedFiles, [`${root}/conf/a.json`])
})

t.test('the first thing that cannot be loaded is the only error', async t => {
  const root = t.testdir({
    array: { 'a.json': '[1,2]' },
    scalar: { 'a.json': '5' },
    broken: { 'a.json': '{"client":{"name":5}}', 'b.json': '{', 'c.json': '{"late":1}' },
    folder: { 'x.json': {} },
  })
  const directory = (name: string) => join(root, name)
  t.same(load([directory('array')]).errors, [
    {
      message: 'config file must be valid json',
      file: `${directory('array')}/a.json`,
      error: 'the document must be a hash',
    },
  ])
  t.match(load([directory('scalar')]).errors, [{ error: 'the document must be a hash' }])
  const broken = load([directory('broken'), directory('missing')])
  t.same(broken.errors, [
    {
      message: 'config file must be valid json',
      file: `${directory('broken')}/b.json`,
      error: 'unexpected end of the document at line 1, column 2',
    },
  ])
  t.equal(broken.settings['late'], undefined)
  t.equal(broken.settings.client.subscriptions, undefined, 'no override')
  t.same(load([directory('folder')]).errors, [
    { message: 'config file does not exist or is not readable', file: `${directory('folder')}/x.json` },
  ])
  for (const name of ['missing', 'broken/a.json']) {
    const wanted = [{ message: 'insufficient permissions for loading', directory: directory(name) }]
    t.same(load([directory(name)]).errors, wanted, name)
  }
})

t.test('what a file says replaces the environment, arrays are united', async t => {
  const directory = t.testdir({ 'a.json': '{"client":{"name":"file","subscriptions":["a"]},"rabbitmq":{"host":"h"}}' })
  const environment = {
    SENSU_CLIENT_NAME: 'env',
    SENSU_CLIENT_SUBSCRIPTIONS: 'x,y',
    RABBITMQ_URL: 'amqp://u:s:e/c@ret@h:5672/%2Fv',
    REDIS_SENTINEL_URLS: 'redis://:one@a:26379,redis://:two@b:26379',
    SENSU_API_PORT: '80x',
  }
  const { settings, notices } = loadSettings({
    service: 'client',
    configDirectories: [directory],
    ...machine,
    environment,
  })
  t.same(settings.client.subscriptions, ['x', 'y', 'a', 'client:file'])
  t.same(settings.rabbitmq, { host: 'h' })
  t.same(settings.redis, { sentinels: environment.REDIS_SENTINEL_URLS })
  t.same(settings.api, { port: 80 })
  const texts = notices.map(notice => stringifyJson(notice.data)).join('\n')
  t.match(texts, 'amqp://u:REDACTED@h:5672/%2Fv')
  t.match(texts, 'redis://:REDACTED@a:26379,redis://:REDACTED@b:26379')
  t.notMatch(texts, /ret@|one@|two@/, 'no notice shows a password')
})

t.test('subscriptions of the environment are split at commas; nothing follows the last one', async t => {
  const directory = t.testdir({ 'a.json': '{}' })
  const subscriptionsOf = (text: string) => {
    const environment = { SENSU_CLIENT_NAME: 'c', SENSU_CLIENT_SUBSCRIPTIONS: text }
    return loadSettings({ service: 'client', configDirectories: [directory], ...machine, environment }).settings.client
      .subscriptions
  }
  t.same(subscriptionsOf('x, y,x,,'), ['x', ' y', 'client:c'])
  t.same(subscriptionsOf('x,,y'), ['x', '', 'y', 'client:c'])
  t.same(subscriptionsOf(''), ['client:c'])
})

t.test('a server has no client of its own', async t => {
  const { settings, errors } = load([], 'server')
  t.same(errors, [])
  t.same(settings.client, {})
  t.equal(
    stringifyJson(Object.keys(settings)),
    '["client","sensu","transport","checks","filters","mutators","handlers","extensions"]',
  )
})

t.test("rules of the other services' own sections", async t => {
  const directory = t.testdir({
    'a.json': '{"api":{"port":"x","user":"u","endpoints":[5,{"url":5},{"host":"h"}]},"tessen":{"enabled":"yes"}}',
  })
  t.same(
    load([directory], 'api').errors.map(({ message }) => message),
    [
      'api port must be an integer',
      'api password must be a string',
      'api endpoint must be a hash',
      'api endpoint url must be a string',
      'api endpoint port must be an integer',
    ],
  )
  t.same(
    load([directory], 'server').errors.map(({ message }) => message),
    ['tessen enabled must be a boolean'],
  )
})

t.test('hostile names are names', async t => {
  const directory = t.testdir({
    'a.json': '{"checks":{"__proto__":{"command":"x","interval":1,"standalone":true}},"__proto__":{"a":1}}',
  })
  const { settings, errors } = load([directory])
  t.same(errors, [])
  t.equal(Reflect.get({}, 'a'), undefined)
  t.same(Object.keys(settings.checks), ['__proto__'])
})

t.test('reports', async t => {
  t.same(reportValidity([]), { text: 'configuration is valid\n', status: 0 })
  const errors = [{ object: { name: 5 }, message: 'client name must be a string' }]
  const text = `configuration is invalid
{
  "errors":[
    {
      "object":{
        "name":5
      },
      "message":"client name must be a string"
    }
  ]
}
`
  t.same(reportValidity(errors), { text, status: 2 })
  t.equal(printSettings({ redis: { password: 'x' } }), '{\n  "redis":{\n    "password":"REDACTED"\n  }\n}\n')
})

t.test('the list of loaded files', async t => {
  const directory = t.testdir({ target: 'untouched', a: {}, b: {} })
  const path = join(directory, 'a', 'sensu_client_loaded_files')
  symlinkSync('../target', path)
  const environment = { SENSU_LOADED_TEMPFILE_DIR: join(directory, 'a'), TMPDIR: join(directory, 'b') }
  t.equal(writeLoadedFiles('client', ['x.json', 'y/z.json'], environment), path)
  t.equal(readFileSync(path, 'utf8'), 'x.json:y/z.json', 'joined by colons')
  t.equal(readFileSync(join(directory, 'target'), 'utf8'), 'untouched', 'a link in its place is replaced')
  t.equal(writeLoadedFiles('api', [], { TMPDIR: join(directory, 'b') }), join(directory, 'b', 'sensu_api_loaded_files'))
  t.throws(() => writeLoadedFiles('client', [], { TMPDIR: join(directory, 'missing') }), { code: 'ENOENT' })
})

t.test('this machine', async t => {
  t.match(findAddress(), /^(?:\d+\.\d+\.\d+\.\d+|unknown)$/)
  t.notMatch(findAddress(), /^127\./)
})

t.test('more files than can be meant are refused', async t => {
  const directory = t.testdir()
  for (let part = 0; part < 10; part++) {
    mkdirSync(join(directory, `p${part}`))
    for (let i = 0; i <= 1000; i++) writeFileSync(join(directory, `p${part}`, `${i}.json`), '')
  }
  t.same(load([directory]).errors, [{ message: 'more than 10000 config files', directory }])
})

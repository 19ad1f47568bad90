import { readFileSync } from 'node:fs'
import t from 'tap'
import { certificatesRule, filePathRule, hostRule, isHost, urlRule } from '../../plugin/setting-rules.js'
import { createCertificates } from '../../scripts/services/certificates.js'

t.test('hosts are names and addresses, without a port', async t => {
  for (const host of ['localhost', 'a-b.example', 'a.example.', '_x.1st', 'node1', '127.0.0.1', '::1', 'fe80::1%eth0'])
    t.ok(isHost(host), host)
  for (const text of [
    '',
    ' ',
    '.',
    'a..b',
    '-x',
    'a.-b',
    'a b',
    'a:1',
    '[::1]',
    ':::',
    '256.1.1.1',
    '1.2.3',
    'ü',
    'x\n',
  ])
    t.notOk(isHost(text), text)
  t.notOk(isHost(`${'a.'.repeat(200)}b`))
  t.equal(hostRule('bücher.example'), undefined, 'which is looked up as xn--bcher-kva.example')
  t.match(hostRule('bücher.example:25'), /^must be the name or the address of a host/)
})

t.test('URLs have one of the protocols and lead somewhere', async t => {
  for (const url of ['http://x', 'HTTP://x', 'https://bücher.example/', 'tcp://[::1]:2003', 'tcp://u:p@x:65535/y?z'])
    t.equal(urlRule(url, ['http', 'https', 'tcp']), undefined, url)
  for (const url of ['', 'x', 'http:x', 'ftp://x', '://x', 'javascript:alert(1)'])
    t.match(urlRule(url, ['http', 'tcp']), 'must be a URL that starts with http:// or tcp://', url)
  for (const url of [
    'http://',
    'tcp://',
    'tcp:///x',
    'tcp://:5',
    'tcp://x:0',
    'http://x:99999',
    'http://.',
    'tcp://a b',
    'tcp://ü',
  ])
    t.match(urlRule(url, ['http', 'tcp']), 'must name a host', url)
})

t.test('paths of files are absolute, and not longer than there can be any', async t => {
  for (const path of ['/x', '/x/y z', `/${'x'.repeat(255)}`, '/x\n']) t.equal(filePathRule(path), undefined, path)
  for (const path of ['', 'x', './x', '/', '/x/', '/x\0y', `/${'x'.repeat(256)}`, `/${'x/'.repeat(2100)}y`])
    t.type(filePathRule(path), 'string', path)
})

t.test('certificates are there, and whole', async t => {
  const { authority, server } = await createCertificates(t.testdir({}))
  const [one, other, key] = [authority, server.certificate, server.key].map(path => readFileSync(path, 'utf8'))
  for (const pem of [one, `# a comment\n${one}\n\n# another\r\n${other}`])
    t.equal(certificatesRule(pem ?? ''), undefined)
  const broken = [
    '',
    'x',
    key,
    `${one}${other?.slice(0, 200)}`,
    `${one?.slice(0, 200)}${other}`,
    `${one}${other?.replace('MII', 'MIJ')}`,
  ]
  for (const pem of broken) t.match(certificatesRule(pem ?? ''), 'must hold certificates (PEM), and no damaged one')
})

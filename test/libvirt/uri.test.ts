import t from 'tap'
import { sshArguments } from '../../libvirt/ssh.js'
import { defaultUri, parseUri, type SocketPlaces, socketCandidates } from '../../libvirt/uri.js'

const places: SocketPlaces = { systemDirectory: '/run/libvirt', runtimeDirectory: '/run/user/1000', userId: 1000 }

t.test('a URI names the way to the daemon and what the daemon is to open', async t => {
  const cases: [string, object][] = [
    ['qemu:///system', { carrier: 'unix', driver: 'qemu', path: '/system', remoteUri: 'qemu:///system' }],
    ['qemu+unix:///system?socket=/a%20b', { carrier: 'unix', remoteUri: 'qemu:///system' }],
    ['test:///default', { carrier: 'unix', driver: 'test', remoteUri: 'test:///default' }],
    ['test:///tmp/a.xml', { remoteUri: 'test:///tmp/a.xml' }],
    ['lxc:///system?x=1+1&mode=legacy', { remoteUri: 'lxc:///system?x=1%2B1' }],
    [
      'qemu+ssh://me@host:2222/system',
      { carrier: 'ssh', host: 'host', port: 2222, user: 'me', remoteUri: 'qemu:///system' },
    ],
    ['qemu+tls://[::1]:1/system', { carrier: 'tls', host: '::1', port: 1 }],
    ['qemu://host/system', { carrier: 'tls', host: 'host' }],
    ['qemu+ssh://host/system?name=qemu:///session', { remoteUri: 'qemu:///session' }],
  ]
  for (const [uri, expected] of cases) t.match(parseUri(uri), expected, uri)
})

t.test('a URI that cannot be used is refused with the reason', async t => {
  const cases: [string, RegExp][] = [
    ['', /not a URI/],
    ['nonsense', /not a URI/],
    ['qemu:system', /not a URI/],
    ['qemu+tcp://host/system', /qemu\+tcp:\/\/host\/system: transport tcp: it needs SASL/],
    ['qemu+libssh2://host/system', /write qemu\+ssh/],
    ['qemu+carrier-pigeon://host/system', /unknown transport carrier-pigeon/],
    ['esx://host/', /no daemon for esx/],
    ['qemu+unix://host/system', /no host name/],
    ['qemu+ssh:///system', /names no host/],
    ['qemu:///system?socket=%zz', /percent-encoded/],
    ['qemu+tls://host/system?tls_priority=NONE', /tls_priority/],
  ]
  for (const [uri, message] of cases) t.throws(() => parseUri(uri), { kind: 'unsupported-uri', message }, uri)
  try {
    parseUri('qemu+ssh://me:secret@host/system')
    t.fail('accepted')
  } catch (error) {
    t.match(String(error), /password/)
    t.notMatch(String(error), /secret/, 'a password is not repeated')
  }
})

t.test('sockets are tried as libvirt does: modular daemon first, read-only first', async t => {
  const candidates = (uri: string, access: 'read' | 'write', at = places) =>
    socketCandidates(parseUri(uri), access, at).map(path => path.replace('/run/libvirt/', ''))
  t.same(candidates('qemu:///system', 'read'), [
    'virtqemud-sock-ro',
    'libvirt-sock-ro',
    'virtqemud-sock',
    'libvirt-sock',
  ])
  t.same(candidates('qemu:///system', 'write'), ['virtqemud-sock', 'libvirt-sock'])
  t.same(candidates('qemu:///system?mode=legacy', 'write'), ['libvirt-sock'])
  t.same(candidates('qemu:///system?mode=direct', 'write'), ['virtqemud-sock'])
  t.same(candidates('test:///default', 'write'), ['libvirt-sock'])
  t.same(candidates('xen:///system', 'write'), ['virtxend-sock', 'libvirt-sock'])
  t.same(candidates('qemu:///system?socket=/x', 'read'), ['/x'])
  t.same(candidates('qemu:///session', 'read'), [
    '/run/user/1000/libvirt/virtqemud-sock',
    '/run/user/1000/libvirt/libvirt-sock',
  ])
  t.same(candidates('qemu:///session', 'write', { ...places, userId: 0 }), ['virtqemud-sock', 'libvirt-sock'])
  t.throws(() => candidates('qemu:///session', 'read', { ...places, runtimeDirectory: undefined }), /XDG_RUNTIME_DIR/)
})

t.test('ssh gets an argument array in which nothing can become an option or a shell command', async t => {
  const args = (uri: string, access: 'read' | 'write' = 'read') =>
    sshArguments(parseUri(uri), { access, timeoutMs: 4500 }).join(' ')
  t.equal(
    args('qemu+ssh://me@host:2222/system'),
    '-T -e none -o BatchMode=yes -o ConnectTimeout=5 -p 2222 -l me -- host virt-ssh-helper -r qemu:///system',
  )
  t.match(args('qemu+ssh://host/system', 'write'), / -- host virt-ssh-helper qemu:\/\/\/system$/)
  t.match(args("qemu+ssh://host/x';reboot'"), /'qemu:\/\/\/x'\\'';reboot'\\'''$/)
  t.match(args('qemu+ssh://host/system?keyfile=/k&no_verify=1'), /StrictHostKeyChecking=no -i \/k/)
  t.match(args('qemu+ssh://host/system?proxy=netcat'), /-- host nc -U \/var\/run\/libvirt\/libvirt-sock-ro$/)
  t.throws(() => args('qemu+ssh://-oProxyCommand=reboot@host/system'), {
    kind: 'unsupported-uri',
    message: /is not a host or user name/,
  })
  t.throws(() => args('qemu+ssh://-host/system'), { kind: 'unsupported-uri', message: /is not a host or user name/ })
})

t.test('without a URI the environment decides', async t => {
  t.equal(defaultUri({}), 'qemu:///system')
  t.equal(defaultUri({ LIBVIRT_DEFAULT_URI: '' }), 'qemu:///system')
  t.equal(defaultUri({ LIBVIRT_DEFAULT_URI: 'test:///default' }), 'test:///default')
})

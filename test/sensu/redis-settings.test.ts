import t from 'tap'
import { readRedisSettings } from '../../sensu/redis-settings.js'
import type { Json } from '../../sensu/types.js'

const address = (settings?: Json) => readRedisSettings(settings).address

t.test('every form of the redis settings', async t => {
  const local = { host: '127.0.0.1', port: 6379, db: 0 }
  t.strictSame(address(), local)
  t.strictSame(address(null), local)
  t.strictSame(address({}), local)
  t.strictSame(address({ host: 'r', port: '1', db: 2, password: 'p', username: 'u' }), {
    ...{ host: 'r', port: 1, db: 2 },
    ...{ username: 'u', password: 'p' },
  })
  t.strictSame(address('redis://:p%40ss@r:7/3'), { host: 'r', port: 7, db: 3, password: 'p@ss' })
  t.strictSame(address('redis://me:pass@[::1]'), { ...local, host: '::1', username: 'me', password: 'pass' })
  t.strictSame(address('rediss://r/'), { ...local, host: 'r', tls: {} })
  t.equal(readRedisSettings({}).autoReconnect, true)
  t.equal(readRedisSettings({ auto_reconnect: false }).autoReconnect, false)
})

t.test('TLS: only rediss:// verifies without being told', async t => {
  t.strictSame(address({ tls: { verify_peer: true } }).tls, { rejectUnauthorized: true })
  t.strictSame(address({ ssl: {} }).tls, { rejectUnauthorized: false })
  t.strictSame(address({ tls: true }).tls, { rejectUnauthorized: false })
  t.equal(address({ tls: false }).tls, undefined)
  t.strictSame(address('rediss://r').tls, {})
})

t.test('sentinels: an array, URLs, or both; the group has two names and a default', async t => {
  t.match(address({ sentinels: [{ host: 'a' }, { host: 'b', port: 5 }, 'redis://c'] }), {
    name: 'mymaster',
    sentinels: [
      { host: 'a', port: 26379 },
      { host: 'b', port: 5 },
      { host: 'c', port: 26379 },
    ],
  })
  t.match(address({ master: 'm', sentinels: 'redis://a:1, redis://b' }), {
    name: 'm',
    sentinels: [
      { host: 'a', port: 1 },
      { host: 'b', port: 26379 },
    ],
  })
  t.match(address({ master_group: 'g', sentinels: [{}] }), { name: 'g', sentinels: [{ host: '127.0.0.1' }] })
  t.equal(address({ sentinels: [] }).sentinels, undefined)
})

t.test('sentinels have a password and TLS of their own', async t => {
  const { password, sentinelUsername, sentinelPassword, sentinelTLS, enableTLSForSentinelMode } = address({
    password: 'of redis',
    sentinels: 'rediss://x:of%20sentinels@a,rediss://b',
    tls: true,
  })
  t.strictSame(
    { password, sentinelUsername, sentinelPassword, sentinelTLS, enableTLSForSentinelMode },
    {
      password: 'of redis',
      sentinelUsername: 'x',
      sentinelPassword: 'of sentinels',
      sentinelTLS: {},
      enableTLSForSentinelMode: true,
    },
  )
})

t.test('what cannot be understood is refused with the name of the setting, and never shows a password', async t => {
  const refused: [Json, RegExp][] = [
    [5, /^redis must be an object or a URL/],
    [[], /^redis must be an object or a URL/],
    ['127.0.0.1', /^redis is not a URL/],
    ['redis://:secret@h:x', /^redis is not a URL/],
    ['http://:secret@x', /^redis has the scheme http:/],
    ['redis://:secret@x/y', /^redis names the database y/],
    ['redis://:secret%zz@x', /^redis has a user or password that is not percent-encoded/],
    [{ port: 'x' }, /^redis port must be a whole number/],
    [{ port: 70000 }, /^redis port must be a whole number up to 65535/],
    [{ db: -1 }, /^redis db must be a whole number/],
    [{ host: 5 }, /^redis host must be a string/],
    [{ tls: 'yes' }, /^redis tls must be true or a hash/],
    [{ tls: { ca_file: '/nowhere/ca' } }, /^redis tls ca_file cannot be read: \/nowhere\/ca/],
    [{ sentinels: [5] }, /^redis sentinels must be/],
    [{ sentinels: {} }, /^redis sentinels must be/],
    [{ sentinels: 'a:26379' }, /^redis sentinels has the scheme a:/],
  ]
  for (const [settings, message] of refused) {
    t.throws(() => readRedisSettings(settings), { message })
    t.throws(() => readRedisSettings(settings), { message: /^(?!.*secret)/ })
  }
})

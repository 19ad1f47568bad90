import t from 'tap'
import { redisOptions } from '../../store/redis-settings.js'

t.test('every form of the redis settings', async t => {
  t.match(redisOptions(undefined), { host: '127.0.0.1', port: 6379, db: 0 })
  t.match(redisOptions({}), { host: '127.0.0.1', port: 6379, db: 0 })
  t.match(redisOptions({ host: 'r', port: 1, db: 2, password: 'p' }), { host: 'r', port: 1, db: 2, password: 'p' })
  t.match(redisOptions('redis://:p%40ss@r:7/3'), { host: 'r', port: 7, db: 3, password: 'p@ss' })
  t.match(redisOptions('rediss://r'), { host: 'r', port: 6379, tls: {} })
  t.match(redisOptions({ tls: { verify_peer: false } }), { tls: { rejectUnauthorized: false } })
  t.match(redisOptions({ ssl: {} }), { tls: { rejectUnauthorized: true } })
  t.match(redisOptions({ sentinels: [{ host: 'a' }, { host: 'b', port: 5 }] }), {
    name: 'mymaster',
    sentinels: [
      { host: 'a', port: 26379 },
      { host: 'b', port: 5 },
    ],
  })
  t.match(redisOptions({ master: 'm', sentinels: 'redis://a:1,redis://b' }), {
    name: 'm',
    sentinels: [
      { host: 'a', port: 1 },
      { host: 'b', port: 26379 },
    ],
  })
  t.equal(redisOptions({ auto_reconnect: false }).retryStrategy?.(1), null)
  t.equal(redisOptions({}).retryStrategy?.(100), 1000)
})

t.test('what cannot be understood is refused with the name of the setting', async t => {
  t.throws(() => redisOptions(5), /redis must be an object or a URL/)
  t.throws(() => redisOptions('127.0.0.1'), /redis is not a URL/)
  t.throws(() => redisOptions('http://x'), /scheme http:/)
  t.throws(() => redisOptions('redis://x/y'), /database y/)
  t.throws(() => redisOptions({ port: 'x' }), /redis port must be a whole number/)
  t.throws(() => redisOptions({ host: 5 }), /redis host must be a string/)
  t.throws(() => redisOptions({ sentinels: [5] }), /redis sentinels/)
})

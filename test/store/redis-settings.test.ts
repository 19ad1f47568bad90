import t from 'tap'
import { redisOptions } from '../../store/redis-settings.js'

t.test('the store reconnects as Sensu does, every second, unless told not to', async t => {
  t.match(redisOptions({ host: 'r', sentinels: [{}] }), { host: 'r', name: 'mymaster' })
  t.equal(redisOptions({}).retryStrategy?.(100), 1000)
  t.equal(redisOptions({}).sentinelRetryStrategy?.(100), 1000)
  t.equal(redisOptions({ auto_reconnect: false }).retryStrategy?.(1), null)
})

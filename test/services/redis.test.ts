import { Redis as Client } from 'ioredis'
import t from 'tap'
import { redis } from '../support/services.js'

t.test('a durable redis keeps its port and its data when it is killed', async t => {
  const server = await redis(t, { durable: true })
  const before = new Client(server.url)
  await before.set('key', 'value')
  before.disconnect()
  const firstPid = server.pid()

  await server.kill()
  t.equal(server.pid(), undefined, 'it is gone')
  await server.restart()

  t.not(server.pid(), firstPid)
  const after = new Client(server.url)
  t.equal(await after.get('key'), 'value')
  after.disconnect()
})

t.test('with a password, only who knows it may ask', async t => {
  const server = await redis(t, { password: 'pass word' })
  const stranger = new Client(server.port, server.host)
  stranger.on('error', () => {}) // the refusal of its first words
  await t.rejects(stranger.get('key'), { message: /NOAUTH/ })
  stranger.disconnect()
  const friend = new Client(server.url)
  t.equal(await friend.get('key'), null)
  friend.disconnect()
})

t.test('two servers do not see each other', async t => {
  const [one, other] = await Promise.all([redis(t), redis(t)])
  t.not(one.port, other.port)
  const [oneClient, otherClient] = [new Client(one.url), new Client(other.url)]
  await oneClient.set('key', 'value')
  t.equal(await otherClient.get('key'), null)
  oneClient.disconnect()
  otherClient.disconnect()
})

t.test('a setting that redis refuses is an error with its words', async t => {
  await t.rejects(redis(t, { settings: ['--no-such-setting', 'yes'] }), { message: /no-such-setting/ })
})

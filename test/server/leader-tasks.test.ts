import t, { type Test } from 'tap'
import { type LeaderPace, LeaderTasks } from '../../server/leader-tasks.js'
import { startStore } from '../store/support.js'
import { RecordingLog } from '../transport/recording-log.js'
import { until } from './site.js'

const names = ['check_request_publisher', 'client_monitor', 'check_result_monitor']
const quick: LeaderPace = { renewalMs: 300, attemptMs: 50 }
const { store, redis } = await startStore(t)

/** Seconds ago as a lock has it. */
function lockValue(secondsAgo: number): string {
  return String(BigInt(Date.now() - secondsAgo * 1000) * 10_000n)
}

function server(t: Test, id: string, pace?: LeaderPace) {
  const log = new RecordingLog()
  const doing = new Set<string>()
  const tasks = names.map(name => ({ name, start: () => void doing.add(name), stop: () => void doing.delete(name) }))
  const leader = new LeaderTasks({ locks: store.taskLocks(id), tasks, log, ...(pace && { pace }) })
  t.teardown(() => leader.relinquish())
  return { leader, doing, log }
}

t.test('a lock is taken when it is free or 30 s old, by one of those who try', async t => {
  await redis.flushall()
  const [one, two] = [store.taskLocks('one'), store.taskLocks('two')]
  const now = Date.now()
  t.equal(await one.acquire('x', now), true)
  t.match(await redis.get('lock:task:x'), /^\d{17}$/, 'seconds times 10^7, as the reference writes it')
  t.equal(await redis.get('task:x:server'), 'one')
  t.equal(await two.acquire('x', now + 29_999), false)
  t.equal(await one.renew('x', now + 10_000), true)
  t.equal(await two.acquire('x', now + 39_999), false, 'a renewed lock is young')
  const both = await Promise.all([two.acquire('x', now + 40_000), one.acquire('x', now + 40_000)])
  t.strictSame(both.filter(Boolean).length, 1, 'of two at the same moment one has it')
  const [winner, loser] = both[0] ? [two, one] : [one, two]
  t.equal(await loser.renew('x', now + 41_000), false)
  await loser.release('x')
  t.equal(await redis.exists('lock:task:x'), 1, 'what belongs to another one is not released')
  await winner.release('x')
  t.equal(await loser.acquire('x', now + 42_000), true, 'a released lock is free at once')
})

t.test('a lone server does all tasks within seconds; a second one none, until the first hands over', async t => {
  await redis.flushall()
  const [first, second] = [server(t, 'first', quick), server(t, 'second', quick)]
  first.leader.start()
  await until('all tasks', () => first.doing.size === 3)
  t.strictSame(first.leader.owned, names)
  t.strictSame(
    first.log.lines.map(({ message, task }) => [message, task]),
    names.map(task => ['i am now responsible for a server task', task]),
  )
  second.leader.start()
  await first.leader.relinquish()
  t.strictSame([...first.doing], [])
  await until('the other one', () => second.doing.size === 3)
  t.equal(await redis.get('task:client_monitor:server'), 'second')
})

t.test('the tasks of a server that died are taken over as soon as their locks are old', async t => {
  await redis.flushall()
  for (const name of names) await redis.mset(`lock:task:${name}`, lockValue(29), `task:${name}:server`, 'dead')
  const { leader, doing } = server(t, 'heir')
  const started = Date.now()
  leader.start()
  await until('all tasks', () => doing.size === 3)
  const seconds = (Date.now() - started) / 1000
  // from the death of the owner: at most 30 s for the lock, which was renewed just before, and this
  t.ok(seconds > 1 && seconds < 10, `${seconds} s after the locks were 29 s old`)
})

t.test('a server that lost a task stops doing it', async t => {
  await redis.flushall()
  const { leader, doing, log } = server(t, 'robbed', quick)
  leader.start()
  await until('the monitor', () => doing.has('client_monitor'))
  await redis.mset('task:client_monitor:server', 'someone-else', 'lock:task:client_monitor', lockValue(-60))
  await until('the end of it', () => !doing.has('client_monitor'))
  t.strictSame(log.at('warn'), [
    { task: 'client_monitor', message: 'another sensu server is responsible for the task' },
    { task: 'client_monitor', message: 'relinquishing server task' },
  ])
})

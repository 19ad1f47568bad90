import t from 'tap'
import { rabbitmq } from '../support/services.js'
import { Site } from './site.js'

/** What is promised: from the death of a server until another one does all its tasks. */
const LIMIT_SECONDS = 40
const responsible = 'i am now responsible for a server task'

t.test('the tasks of a server that was killed are taken over by another one, the client monitor goes on', async t => {
  const site = await Site.open(t, { brokerUrl: (await rabbitmq(t)).url })
  const victim = await site.serve()
  await victim.log(responsible, 3)
  const heir = await site.serve()
  victim.kill('SIGKILL')
  t.match(await victim.exit, { signal: 'SIGKILL' })
  const died = Date.now()
  await heir.log(responsible, 3)
  const seconds = (Date.now() - died) / 1000
  t.ok(seconds < LIMIT_SECONDS, `all tasks after ${seconds} s`)
  const taken = heir.lines
    .filter(({ message }) => message === responsible)
    .map(({ task }) => task)
    .sort()
  t.strictSame(taken, ['check_request_publisher', 'check_result_monitor', 'client_monitor'])
  await heir.log('determining stale clients')
  t.strictSame(await heir.stop(), { status: 0, signal: null })
})

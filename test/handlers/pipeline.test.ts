import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { projectDirectory } from '../../scripts/services/process.js'
import { Rig } from '../server/rig.js'
import { mailServer } from '../support/mail-server.js'
import { withOwnDirectory } from '../support/own-directory.js'

t.test('a server runs the handlers: one problem, one end, each once and in the words of the event', async t => {
  const directory = withOwnDirectory(t).testdir()
  const { port, mails } = await mailServer(t)
  const file = join(directory, 'events.json')
  const configuration = join(directory, 'handlers.json')
  const mail = { to: 'ops@example.com', from: 'sensu@example.com', host: '127.0.0.1', port }
  writeFileSync(configuration, JSON.stringify({ 'handler-log': { file }, 'handler-mail': mail }))
  const handler = (name: string) => ({
    type: 'pipe',
    command: `${join(projectDirectory(), 'dist/bin', name)} -c ${configuration}`,
    timeout: 30,
  })
  const rig = await Rig.start(t, {
    handlers: {
      log: handler('handler-log'),
      mail: handler('handler-mail'),
      alerts: { type: 'set', handlers: ['log', 'mail'] },
    },
  })
  const check = {
    name: 'state_check',
    command: 'check-kvm-state --per-guest',
    source: 'web1',
    handlers: ['alerts'],
    executed: 1_795_317_100,
  }
  await rig.result({
    client: 'kvm-host',
    check: { ...check, status: 2, output: 'check-kvm-state CRITICAL: web1: crashed\n' },
  })
  rig.at(1_795_317_473)
  await rig.result({
    client: 'kvm-host',
    check: { ...check, status: 0, output: 'check-kvm-state OK: web1: running\n' },
  })
  const handled = rig.log().filter(({ message }) => message === 'handler output')
  t.same(handled.map(({ level, output }) => [level, output]).sort(), [
    ['info', [`handler-log: web1/state_check create: written to ${file}\n`]],
    ['info', [`handler-log: web1/state_check resolve: written to ${file}\n`]],
    ['info', [`handler-mail: web1/state_check create: sent to ops@example.com through 127.0.0.1:${port}\n`]],
    ['info', [`handler-mail: web1/state_check resolve: sent to ops@example.com through 127.0.0.1:${port}\n`]],
  ])
  const lines = readFileSync(file, 'utf8').trim().split('\n')
  t.match(
    lines.map(line => JSON.parse(line)),
    [
      { message: 'CRITICAL: web1 on kvm-host: state_check: crashed', client: 'web1', origin: 'kvm-host' },
      { message: 'RESOLVED: web1 on kvm-host: state_check: running', client: 'web1', origin: 'kvm-host' },
    ],
  )
  const references = mails.map(({ text }) => /^References: (.*)$/m.exec(text)?.[1])
  t.equal(references.length, 2)
  t.ok(references[0])
  t.equal(references[0], references[1], 'one thread')
})

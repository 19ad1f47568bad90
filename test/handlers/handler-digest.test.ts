import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdirSync, readdirSync, readFileSync, readlinkSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import t, { type Test } from 'tap'
import { tryLock } from '../../plugin/file-lock.js'
import { safeName } from '../../plugin/text.js'
import { projectDirectory, waitUntil } from '../../scripts/services/process.js'
import { guestEvent, type HandlerResult, resolvedEvent, runHandler, sectionFile } from '../support/handlers.js'

const name = 'handler-digest'
const patience = { timeoutMs: 20_000 }

/** A place to deliver to: each message is a file, and a file `down` makes every delivery fail. */
function siteOf(t: Test, command = 'cat') {
  const directory = t.testdir({ messages: {}, state: {} })
  const messages = join(directory, 'messages')
  const deliverTo = `test ! -e ${directory}/down && ${command} > ${messages}/$$.new && mv ${messages}/$$.new ${messages}/$$.json`
  const argvFor = (settings: object) =>
    sectionFile(
      t,
      name,
      { deliver_to: deliverTo, state_dir: join(directory, 'state'), window: 0.2, ...settings },
      `${Math.random()}.json`,
    )
  return {
    directory,
    run: (event: object | string, settings: object = {}, more: readonly string[] = []): Promise<HandlerResult> =>
      runHandler(name, [...argvFor(settings), ...more], event),
    /** Starts it, and returns when it reads its input. */
    async start(settings: object) {
      const child = spawn(join(projectDirectory(), 'dist/bin', name), argvFor(settings), {
        stdio: ['pipe', 'pipe', 'inherit'],
      })
      t.teardown(() => child.kill('SIGKILL'))
      // More than a pipe holds: blanks in front of the event.
      await new Promise(resolve => child.stdin.write(' '.repeat(200_000), resolve))
      return child
    },
    /** What was delivered, in any order. */
    messages: () =>
      readdirSync(messages)
        .filter(file => file.endsWith('.json'))
        .map(file => readFileSync(join(messages, file), 'utf8')),
    /** Where the events of a host wait. */
    spool: (host: string, command = deliverTo) => join(directory, 'state', 'digest', safeName(command), host),
  }
}

function eventOf(client: string, changes: Record<string, object> = {}): object {
  const output = `check-kvm-memory CRITICAL: ${client}: memory in use 95 % (critical above 90 %)\n`
  return guestEvent({ ...changes, client: { name: client }, check: { source: client, output, ...changes['check'] } })
}

function outputOf(message: string | undefined): string {
  return JSON.parse(message ?? '{}').check?.output
}

t.test('a lone event is handed on byte for byte', async t => {
  const site = siteOf(t)
  const json = `  ${JSON.stringify(guestEvent(), undefined, 3)}\n`
  t.match(await site.run(json), { stdout: /1 event given to/, stderr: '', status: 0 })
  t.same(site.messages(), [json])
})

t.test('fifty processes at once send one message, which names them all', async t => {
  const site = siteOf(t)
  const clients = Array.from({ length: 50 }, (_, index) => `web${index}`)
  const children = await Promise.all(clients.map(() => site.start({ window: 3, timeout: 120 })))
  const lines = await Promise.all(
    children.map(async (child, index) => {
      child.stdin.end(JSON.stringify(eventOf(clients[index] ?? '')))
      return text(child.stdout)
    }),
  )
  t.equal(lines.filter(line => line.includes('50 events in one message')).length, 1)
  t.equal(lines.filter(line => line.includes('another process collects it')).length, 49)
  const [message, ...others] = site.messages()
  t.same(others, [])
  t.match(JSON.parse(message ?? ''), {
    client: { name: 'kvm-host' },
    check: { name: 'digest', status: 2 },
    action: 'create',
  })
  const output = outputOf(message)
  t.match(output, /^50 events of 50 clients on kvm-host: 50 CRITICAL\nCRITICAL memory_check: 50, since 2026-01-05 /)
  for (const client of clients) t.match(output, `- ${client}: memory in use 95 % (critical above 90 %)\n`)
  t.same(readdirSync(site.spool('kvm-host')), ['lock'])
})

t.test('what a killed process collected is sent by the next one', async t => {
  const site = siteOf(t)
  const killed = await site.start({ window: 60, timeout: 120 })
  killed.stdin.end(JSON.stringify(eventOf('web1')))
  const collects = () => {
    const files = readdirSync(`/proc/${killed.pid}/fd`).map(file => readlinkSync(`/proc/${killed.pid}/fd/${file}`))
    const waiting = readdirSync(site.spool('kvm-host')).some(file => file.endsWith('.json'))
    return waiting && files.includes(join(site.spool('kvm-host'), 'lock')) ? true : undefined
  }
  await waitUntil('its event waits and it has the lock', collects, patience)
  const ended = once(killed, 'close')
  killed.kill('SIGKILL')
  await ended
  t.match(await site.run(eventOf('web2')), { stdout: /2 events in one message/, status: 0 })
  const [message, ...others] = site.messages()
  t.same(others, [])
  t.match(outputOf(message), /- web1: .*\n- web2: /)
})

t.test('what could not be delivered waits for the next event', async t => {
  const site = siteOf(t)
  writeFileSync(join(site.directory, 'down'), '')
  t.match(await site.run(eventOf('web1')), {
    status: 1,
    stderr: /^handler-digest: .* ended with 1: ; 1 event waits for the next one of kvm-host/,
  })
  t.same(site.messages(), [])
  rmSync(join(site.directory, 'down'))
  t.match(await site.run(eventOf('web2')), { stdout: /2 events in one message/, status: 0 })
  t.match(site.messages().map(outputOf), [/- web1: .*\n- web2: /])
})

t.test('what comes while a message is delivered is sent after it, by the same process', async t => {
  const directory = t.testdirName
  const site = siteOf(t, `touch ${directory}/busy; while test ! -e ${directory}/go; do sleep 0.05; done; cat`)
  const first = site.run(eventOf('web1'))
  await waitUntil('it delivers', () => existsSync(join(directory, 'busy')) || undefined, patience)
  t.match(await site.run(eventOf('web2')), { stdout: /another process collects it/, status: 0 })
  writeFileSync(join(directory, 'go'), '')
  t.match(await first, { stdout: /1 event given to .*; 1 event given to /, status: 0 })
  t.same(
    site
      .messages()
      .map(message => JSON.parse(message).client.name)
      .sort(),
    ['web1', 'web2'],
  )
})

t.test('hosts have messages of their own', async t => {
  const site = siteOf(t)
  await Promise.all([site.run(eventOf('web1')), site.run(eventOf('db1', { check: { origin: 'other-host' } }))])
  t.same(
    site
      .messages()
      .map(message => JSON.parse(message).client.name)
      .sort(),
    ['db1', 'web1'],
  )
})

t.test('events beyond the limit are counted, not kept', async t => {
  const site = siteOf(t)
  mkdirSync(site.spool('kvm-host'), { recursive: true, mode: 0o700 })
  const unlock = tryLock(join(site.spool('kvm-host'), 'lock'))
  for (const client of ['web1', 'web2']) await site.run(eventOf(client), { max_events: 2 })
  t.match(await site.run(eventOf('web3'), { max_events: 2 }), { stdout: /another process counts it/, status: 0 })
  unlock?.()
  t.match(await site.run(eventOf('web4'), { max_events: 2 }), { stdout: /4 events in one message/, status: 0 })
  t.match(site.messages().map(outputOf), [
    /^4 events of 2 clients on kvm-host: 2 CRITICAL, 2 more\n(.*\n)*and 2 more events, too many to keep/,
  ])
  t.same(readdirSync(site.spool('kvm-host')), ['lock'])
})

t.test('another of our handlers delivers what was collected', async t => {
  const directory = t.testdirName
  const site = siteOf(t)
  const log = join(directory, 'log')
  const settings = JSON.stringify({ 'handler-log': { file: log } })
  const deliverTo = `handler-log -c ${join(directory, 'log.json')}`
  writeFileSync(join(directory, 'log.json'), settings)
  const spool = site.spool('kvm-host', deliverTo)
  mkdirSync(spool, { recursive: true, mode: 0o700 })
  const unlock = tryLock(join(spool, 'lock'))
  await site.run(eventOf('web2'), { deliver_to: deliverTo })
  unlock?.()
  t.match(await site.run(resolvedEvent(), { deliver_to: deliverTo }), {
    stdout: /2 events in one message given to handler-log .*: handler-log: kvm-host\/digest create: written to /,
  })
  t.match(JSON.parse(readFileSync(log, 'utf8')), {
    client: 'kvm-host',
    check: 'digest',
    status: 'CRITICAL',
    message: /^CRITICAL: kvm-host: digest: /,
  })
})

t.test('with settings that are wrong nothing is kept', async t => {
  const site = siteOf(t)
  t.match(await site.run(eventOf('web1'), { window: 24 }), { status: 2 })
  t.same(readdirSync(join(site.directory, 'state')), [])
})

t.test('a dry run keeps and delivers nothing', async t => {
  const site = siteOf(t)
  t.match(await site.run(eventOf('web1'), {}, ['--dry-run']), {
    stdout: /^collect events of kvm-host until none has come for 0.2 s, then run: test /,
    status: 0,
  })
  t.same(readdirSync(join(site.directory, 'state')), [])
})

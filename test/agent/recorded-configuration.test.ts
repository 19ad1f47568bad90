// Replays recorded command lines and configurations of Sensu 1.9 against the built agent: what it prints, and how it ends.
import { spawn } from 'node:child_process'
import { existsSync, mkdirSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { dirname, join } from 'node:path'
import t, { type Test } from 'tap'
import { cleanEnvironment, type LogLine } from '../support/service-process.js'
import { rabbitmq } from '../support/services.js'
import { agentFile } from './agent-process.js'
import { comparableLogs, onRecordedMachine, type RecordedCase, Recordings } from './recordings.js'

const recordings = new Recordings('agent/recorded-configuration')
const broker = await rabbitmq(t)

function writeFiles(directory: string, files: Record<string, string | { latin1?: string }>): void {
  mkdirSync(join(directory, 'conf.d'))
  for (const [name, content] of Object.entries(files)) {
    const path = join(directory, 'conf.d', name)
    mkdirSync(dirname(path), { recursive: true })
    if (typeof content === 'string') writeFileSync(path, content)
    else if (content.latin1 !== undefined) writeFileSync(path, Buffer.from(content.latin1, 'latin1'))
    else writeFileSync(path, JSON.stringify(content))
  }
}

/** Everything the agent prints, standard output and error alike. */
async function run(directory: string, { input }: RecordedCase): Promise<{ status: number | null; lines: string[] }> {
  const child = spawn(process.execPath, [agentFile, ...(input['args'] as string[])], {
    cwd: directory,
    env: { ...cleanEnvironment(), SENSU_LOADED_TEMPFILE_DIR: directory, ...input.env },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  let text = ''
  for (const stream of [child.stdout, child.stderr]) stream.setEncoding('utf8').on('data', chunk => (text += chunk))
  const status = await new Promise<number | null>(resolve => child.once('close', resolve))
  return { status, lines: onRecordedMachine(text).trimEnd().split('\n') }
}

const isLogLine = (line: string) => line.startsWith('{"timestamp"')

/** The parser's own words in a report of --validate_config. */
const withoutWords = (line: string) => line.replace(/^(\s*"error":).*/, '$1…')

async function replay(t: Test, recorded: RecordedCase): Promise<void> {
  const { observed, log } = recorded
  const directory = t.testdir()
  writeFiles(directory, recorded.input['files'] as Record<string, string>)
  const { status, lines } = await run(directory, recorded)
  t.equal(status, observed['exit_status'], 'exit status')
  const printed = lines.filter(isLogLine).map((line): LogLine => JSON.parse(line))
  const logs = comparableLogs(printed, log, line => line)
  t.strictSame(logs.found, logs.wanted, 'log')
  const texts = (observed['stdout_and_stderr'] as unknown[]).filter(line => typeof line === 'string')
  const found = lines.filter(line => line !== '' && !isLogLine(line))
  t.strictSame(found.map(withoutWords), texts.map(withoutWords), 'other lines')
}

/** Holds the default port, if nobody else does. */
async function holdPort(t: Test, port: number): Promise<void> {
  const server = createServer()
  await new Promise<void>(resolve => {
    server.once('error', () => resolve())
    server.listen(port, '127.0.0.1', resolve)
  })
  t.teardown(() => new Promise<void>(resolve => server.close(() => resolve())))
}

t.jobs = 3
const running = recordings.matching(/./).map(recorded => {
  const { name, input } = recorded
  const skip = name === 'cfg_no_config_at_all' && existsSync('/etc/sensu') && 'this machine has a configuration'
  return t.test(name, { skip, buffered: true }, async t => {
    if (name === 'cfg_port_in_use') {
      await holdPort(t, 3030)
      const { host, port, vhost, user, password } = broker
      const [file] = Object.values(input['files'] as Record<string, { rabbitmq: object }>)
      Object.assign(file ?? {}, { rabbitmq: { host, port, vhost, user, password } })
    }
    await replay(t, recorded)
  })
})
await Promise.all(running)

t.test('nothing was forgotten', async t => t.strictSame(recordings.left, []))

import { existsSync, mkdirSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { PassThrough } from 'node:stream'
import t from 'tap'
import { parseServiceArguments } from '../../sensu/command-line.js'
import { parseJson, stringifyJson } from '../../sensu/json.js'
import { entriesOf, isObject } from '../../sensu/json-value.js'
import { Logger } from '../../sensu/log.js'
import { loadSettings, printSettings, reportValidity } from '../../sensu/settings.js'
import type { Json, JsonObject } from '../../sensu/types.js'
import { hash, list, type Recording, recordings, text } from './recordings.js'

/** What a case prints (log lines as objects, other lines as text) and how it ends; no status: it would go on. */
type Ending = { lines: Json[]; status: number | undefined }

/** Cases whose outcome differs on purpose, and why. */
const deliberate: Readonly<Record<string, { reason: string; message: string }>> = {
  cfg_json_array_top: {
    reason: 'the reference accepts an array as a document and adds meaningless keys',
    message: 'config file must be valid json',
  },
  cfg_json_scalar_top: { reason: 'the reference crashes', message: 'config file must be valid json' },
  cfg_json_null_top: { reason: 'the reference crashes', message: 'config file must be valid json' },
  cfg_v_client_not_hash: { reason: 'the reference crashes', message: 'client must be a hash' },
  cfg_v_check_cron_step_zero: {
    reason: 'the reference divides by zero',
    message: 'check cron string must use the cron syntax',
  },
}

/** Cases that go on to connect: only the lines until then are the settings' business. */
const goesOn = /^cfg_(?:port_in_use|transport_unknown|pid_unwritable)$/

/** What cannot be compared: the parser's wording, times, and arrays the reference goes on changing after noting them. */
function comparable(line: Json): Json {
  if (!isObject(line)) return line
  const { timestamp: _, ...rest } = line
  if (rest['message'] === 'config file must be valid json') rest['error'] = 'parser text'
  if (rest['changes'] !== undefined) rest['changes'] = withoutLists(rest['changes'])
  if (rest['message'] === 'using sensu client environment variables')
    rest['client'] = withoutLists(rest['client'] ?? null)
  // The reference shows the password of a URL.
  for (const [key, value] of entriesOf(rest)) {
    if (typeof value === 'string') rest[key] = value.replace(/(:\/\/[^:]*:)[^@]*@/, '$1REDACTED@')
  }
  return rest
}

/** A change is `[before, after]`; lists in it, and a client's subscriptions, are shared with what comes later. */
function withoutLists(value: Json): Json {
  if (Array.isArray(value)) return value.map(item => (Array.isArray(item) ? 'list' : withoutLists(item)))
  if (!isObject(value)) return value
  const { subscriptions: _, ...rest } = value
  return Object.fromEntries(entriesOf(rest).map(([key, item]) => [key, withoutLists(item)]))
}

function writeFiles(directory: string, files: JsonObject): void {
  mkdirSync(join(directory, 'conf.d'))
  for (const [name, content] of entriesOf(files)) {
    const path = join(directory, 'conf.d', name)
    mkdirSync(dirname(path), { recursive: true })
    const bytes =
      isObject(content) && content['latin1'] !== undefined ? Buffer.from(text(content['latin1']), 'latin1') : undefined
    writeFileSync(path, bytes ?? (typeof content === 'string' ? content : stringifyJson(content)))
  }
}

/** What a service does before it connects, from the project's parts. */
function start(input: JsonObject): Ending {
  const commandLine = parseServiceArguments(list(input['args']).map(text), { program: 'sensu-client' })
  if (commandLine.kind === 'exit') {
    return { lines: (commandLine.stdout + commandLine.stderr).trimEnd().split('\n'), status: commandLine.status }
  }
  const { options } = commandLine
  const environment = Object.fromEntries(entriesOf(hash(input['env'])).map(([key, value]) => [key, text(value)]))
  const machine = { hostName: 'vm', address: '192.0.2.2' }
  const { settings, notices, errors } = loadSettings({ service: 'client', ...options, environment, ...machine })
  if (options.validateConfig) {
    const report = reportValidity(errors)
    return { lines: report.text.trimEnd().split('\n'), status: report.status }
  }
  const stream = new PassThrough()
  const logger = new Logger({ level: options.logLevel ?? 'info', stream })
  for (const notice of notices) logger.log(notice)
  for (const { message, ...data } of errors) logger.fatal(message, data)
  if (options.printConfig) logger.warn('outputting compiled configuration and exiting')
  else if (errors.length > 0) logger.fatal('SENSU NOT RUNNING!')
  const lines: Json[] = String(stream.read() ?? '')
    .trimEnd()
    .split('\n')
    .map(line => parseJson(line))
  if (options.printConfig) lines.push(...printSettings(settings).trimEnd().split('\n'))
  return { lines, status: errors.length > 0 ? 2 : options.printConfig ? 0 : undefined }
}

function untilConnecting({ name, observed }: Recording): Ending {
  const lines = list(hash(observed)['stdout_and_stderr'])
  const status = Number(hash(observed)['exit_status'])
  if (!goesOn.test(name)) return { lines, status }
  const end = lines.findIndex(line => isObject(line) && line['message'] === 'configuring sensu spawn')
  return { lines: lines.slice(0, end), status: undefined }
}

for (const recorded of recordings('client', /^cfg_/)) {
  const { name, input } = recorded
  const skip = name === 'cfg_no_config_at_all' && existsSync('/etc/sensu') && 'this machine has a configuration'
  t.test(name, { skip }, async t => {
    const directory = t.testdir()
    const { files, ...outer } = hash(input)
    writeFiles(directory, hash(files))
    const before = process.cwd()
    process.chdir(directory)
    t.teardown(() => process.chdir(before))
    const ending = start(outer)
    const exception = deliberate[name]
    if (exception) {
      t.equal(ending.status, 2, exception.reason)
      t.match(ending.lines.join('\n'), exception.message)
      return
    }
    const wanted = untilConnecting(recorded)
    t.equal(ending.status, wanted.status, 'exit status')
    t.equal(ending.lines.map(lineText).join('\n'), wanted.lines.map(lineText).join('\n'), 'all lines')
  })
}

function lineText(line: Json): string {
  // The error text in a report of --validate_config is the parser's.
  if (typeof line === 'string') return line.replace(/^(\s*"error":).*/, '$1…')
  return stringifyJson(comparable(line))
}

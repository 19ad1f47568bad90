import { mkdirSync, readFileSync, renameSync } from 'node:fs'
import { join } from 'node:path'
import { PassThrough, Writable } from 'node:stream'
import t from 'tap'
import { parseJson } from '../../sensu/json.js'
import { formatTimestamp, Logger } from '../../sensu/log.js'
import type { JsonObject, LogLevel } from '../../sensu/types.js'
import { hash } from './recordings.js'

function logged(stream: PassThrough): JsonObject[] {
  const written = String(stream.read() ?? '')
  return written
    .split('\n')
    .filter(Boolean)
    .map(line => hash(parseJson(line)))
}

function inFile(path: string): unknown[] {
  return readFileSync(path, 'utf8')
    .trim()
    .split('\n')
    .map(line => hash(parseJson(line))['message'])
}

t.test('one JSON object a line: timestamp, level, message, data', async t => {
  const stream = new PassThrough()
  const logger = new Logger({ stream })
  logger.info('publishing check result', { payload: { client: 'c', check: { output: 'a\nb', '1': 2 } } })
  const line = String(stream.read())
  t.match(
    line,
    /^\{"timestamp":"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}[+-]\d{4}","level":"info","message":"publishing check result","payload":\{"client":"c","check":\{"1":2,"output":"a\\nb"\}\}\}\n$/,
  )
  logger.error('failed', { message: 'the raw body', error: 'why' })
  t.match(
    String(stream.read()),
    /"level":"error","message":"the raw body","error":"why"\}\n$/,
    'data overwrite the first keys',
  )
})

t.test('levels, and debug on and off', async t => {
  const levels: LogLevel[] = ['debug', 'info', 'warn', 'error', 'fatal']
  const written = (logger: Logger, stream: PassThrough) => {
    for (const level of levels) logger[level]('m')
    return logged(stream).map(({ level }) => level)
  }
  for (const [index, level] of levels.entries()) {
    const stream = new PassThrough()
    const logger = new Logger({ level, stream })
    t.same(written(logger, stream), levels.slice(index), level)
    logger.toggleDebug()
    t.same(written(logger, stream), level === 'debug' ? levels.slice(1) : levels, `${level}, toggled`)
    logger.toggleDebug()
    t.equal(logger.level, level, `${level}, toggled twice`)
    t.equal(logger.enabled('debug'), level === 'debug')
  }
})

t.test('time stamps are local time with microseconds', async t => {
  const at = Date.UTC(2026, 10, 22, 3, 4, 25) * 1000 + 378_836
  const zones = {
    UTC: '2026-11-22T03:04:25.378836+0000',
    'America/St_Johns': '2026-11-21T23:34:25.378836-0330',
    'Asia/Kathmandu': '2026-11-22T08:49:25.378836+0545',
  }
  const before = process.env['TZ']
  t.teardown(() => {
    if (before === undefined) delete process.env['TZ']
    else process.env['TZ'] = before
  })
  for (const [zone, wanted] of Object.entries(zones)) {
    process.env['TZ'] = zone
    t.equal(formatTimestamp(at), wanted, zone)
  }
  process.env['TZ'] = 'UTC'
  const stream = new PassThrough()
  const logger = new Logger({ stream })
  const start = Date.now()
  for (let i = 0; i < 200; i++) logger.info('m')
  const stamps = logged(stream).map(line => String(line['timestamp']))
  t.same(stamps, [...stamps].sort(), 'they never go back')
  t.ok(Math.abs(Date.parse(stamps[0] ?? '') - start) < 50, 'and are right')
  t.ok(new Set(stamps.map(stamp => stamp.slice(20, 26))).size > 20, 'microseconds differ')
})

t.test('a log file, and its rotation', async t => {
  const directory = t.testdir({ 'agent.log': '{"message":"old"}\n' })
  const file = join(directory, 'agent.log')
  const stream = new PassThrough()
  const logger = new Logger({ file, stream })
  t.teardown(() => logger.close())
  logger.info('one')
  renameSync(file, `${file}.1`)
  logger.info('two')
  logger.reopen()
  logger.info('three')
  t.same(inFile(`${file}.1`), ['old', 'one', 'two'], 'appended, until it is opened anew')
  t.same(inFile(file), ['three'])
  t.same(logged(stream), [], 'nothing on the stream')
})

t.test('reopening that fails goes on with the old file', async t => {
  const directory = t.testdir({ log: {} })
  const file = join(directory, 'log', 'agent.log')
  const logger = new Logger({ file, stream: new PassThrough() })
  t.teardown(() => logger.close())
  renameSync(join(directory, 'log'), join(directory, 'moved'))
  logger.reopen()
  logger.info('still here')
  t.same(inFile(join(directory, 'moved', 'agent.log')), ['log file is not writable', 'still here'])
  mkdirSync(join(directory, 'log'))
  logger.reopen()
  logger.info('back')
  t.same(inFile(file), ['back'])
})

t.test('a log file that cannot be opened: one error line, then the stream', async t => {
  const stream = new PassThrough()
  const logger = new Logger({ file: '/no/such/directory/agent.log', stream })
  logger.info('goes on')
  const lines = logged(stream)
  t.match(lines, [
    { level: 'error', message: 'log file is not writable', log_file: '/no/such/directory/agent.log' },
    { level: 'info', message: 'goes on' },
  ])
  logger.reopen()
  t.equal(logged(stream).length, 1, 'reopening tries it again')
})

t.test('a full disk is ignored', async t => {
  const logger = new Logger({ file: '/dev/full', stream: new PassThrough() })
  t.teardown(() => logger.close())
  t.doesNotThrow(() => logger.info('lost'))
})

t.test('a reader that is too slow, or gone, costs lines and not memory', async t => {
  const stuck = new Writable({ highWaterMark: 1, write() {} })
  const logger = new Logger({ stream: stuck })
  for (let i = 0; i < 100; i++) logger.info('m', { data: 'x'.repeat(1_000_000) })
  t.ok(stuck.writableLength < 10_000_000, `${stuck.writableLength} bytes wait`)
  t.ok(logger.dropped > 80)
  const gone = new PassThrough()
  const other = new Logger({ stream: gone })
  gone.destroy(new Error('EPIPE'))
  await new Promise(setImmediate)
  t.doesNotThrow(() => other.info('nobody reads it'))
})

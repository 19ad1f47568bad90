import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import {
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import t, { type Test } from 'tap'
import { Spool, type SpooledRecord, type SpoolOptions } from '../../agent/spool.js'

const names = (from: number, to: number) => Array.from({ length: to - from + 1 }, (_, index) => `${from + index}`)
const texts = (records: readonly SpooledRecord[]) => records.map(({ payload }) => payload.toString())
const segmentsOf = (directory: string) =>
  readdirSync(directory)
    .filter(name => name.endsWith('.segment'))
    .map(name => join(directory, name))

async function open(t: Test, options: Partial<SpoolOptions> = {}) {
  const directory = options.directory ?? join(t.testdir(), 'spool')
  const told = { dropped: 0, troubles: [] as string[] }
  const spool = await Spool.open({
    onDropped: records => {
      told.dropped += records
    },
    onDiskTrouble: error => told.troubles.push(String(error)),
    ...options,
    directory,
  })
  t.teardown(() => spool.close())
  return { spool, directory, told }
}

/** Everything that waits, in order, each acknowledged when asked for. */
async function takeAll(spool: Spool, acknowledge = true): Promise<string[]> {
  const all: string[] = []
  for (;;) {
    const records = await spool.take(100)
    if (records.length === 0) return all
    all.push(...texts(records))
    if (acknowledge) for (const record of records) spool.acknowledge(record)
  }
}

/** A spool that was left behind with these records. */
async function leave(directory: string, records: string[], options: Partial<SpoolOptions> = {}): Promise<void> {
  const spool = await Spool.open({ directory, ...options })
  for (const record of records) spool.append(Buffer.from(record))
  await spool.close()
}

t.test('records come out in the order they went in, from memory and from disk', async t => {
  const { spool } = await open(t)
  for (const name of names(1, 50)) spool.append(Buffer.from(name))
  t.strictSame(texts(await spool.take(20)), names(1, 20))
  await spool.flush()
  for (const name of names(51, 70)) spool.append(Buffer.from(name))
  t.strictSame(texts(await spool.take(10)), names(21, 30))
  for (const name of names(71, 80)) spool.append(Buffer.from(name))
  await spool.flush()
  t.equal(spool.waiting, 50)
  t.strictSame(await takeAll(spool), names(31, 80))
  t.equal(spool.waiting, 0)
})

t.test('what is acknowledged at once never touches the disk', async t => {
  const { spool, directory } = await open(t)
  for (const name of names(1, 10)) spool.append(Buffer.from(name))
  await takeAll(spool)
  await spool.flush()
  t.strictSame(readdirSync(directory), ['owner'])
})

t.test('what is not acknowledged comes again from the next process, what is does not', async t => {
  const directory = join(t.testdir(), 'spool')
  await leave(directory, names(1, 10))
  const second = await open(t, { directory })
  t.equal(second.spool.report.recovered, 10)
  const records = await second.spool.take(6)
  for (const record of records.slice(0, 4)) t.equal(second.spool.acknowledge(record), true)
  for (const record of records.slice(0, 4)) t.equal(second.spool.acknowledge(record), false)
  await second.spool.close()
  const third = await open(t, { directory })
  t.strictSame(await takeAll(third.spool), names(5, 10))
  await third.spool.close()
  t.strictSame(readdirSync(directory), [], 'nothing is left behind when everything is delivered')
})

t.test('records are acknowledged in any order; behind a gap they may come twice', async t => {
  const directory = join(t.testdir(), 'spool')
  await leave(directory, names(1, 5))
  const { spool } = await open(t, { directory })
  const [first, second, third] = await spool.take(3)
  for (const record of [third, second]) if (record) spool.acknowledge(record)
  await spool.close()
  const again = await open(t, { directory })
  t.strictSame(await takeAll(again.spool, false), names(1, 5))
  await again.spool.close()
  const last = await open(t, { directory })
  for (const record of await last.spool.take(3)) last.spool.acknowledge(record)
  t.equal(first?.payload.toString(), '1')
  await last.spool.close()
  t.strictSame(await takeAll((await open(t, { directory })).spool), names(4, 5))
})

t.test('what is acknowledged while it is being written is removed like everything else', async t => {
  const { spool, directory } = await open(t)
  spool.append(Buffer.from('x'))
  const [record] = await spool.take(1)
  const flushed = spool.flush()
  for (let turn = 0; turn < 20; turn++) await null
  if (record) spool.acknowledge(record)
  await flushed
  t.equal(segmentsOf(directory).length, 1)
  await spool.flush()
  t.strictSame(segmentsOf(directory), [])
})

t.test('a process killed while it writes loses nothing that it had flushed', async t => {
  const directory = join(t.testdir(), 'spool')
  for (let round = 0, before = 0; round < 3; round++) {
    const script = fileURLToPath(new URL('spool-writer.js', import.meta.url))
    const writer = spawn(process.execPath, [script, directory], { stdio: ['ignore', 'pipe', 'inherit'] })
    t.teardown(() => writer.kill('SIGKILL'))
    const exited = once(writer, 'exit')
    let safe = 0
    for await (const line of createInterface(writer.stdout)) {
      safe = Number(line)
      if (safe >= 2000) writer.kill('SIGKILL')
    }
    await exited
    const { spool } = await open(t, { directory })
    t.ok(spool.report.recovered - before >= safe, `${spool.report.recovered - before} of at least ${safe} are there`)
    const all = (await takeAll(spool, false)).map(text => Number(text.split(' ')[0]))
    const newest = all.slice(before)
    t.strictSame(newest, Array.from(newest.keys()), 'in order, without a gap')
    before = all.length
    await spool.close()
  }
})

t.test('a torn last record is counted and ignored; everything before and after it is kept', async t => {
  const directory = join(t.testdir(), 'spool')
  await leave(directory, names(1, 10))
  const [file = ''] = segmentsOf(directory)
  truncateSync(file, statSync(file).size - 1)
  const { spool } = await open(t, { directory })
  t.match(spool.report, { recovered: 9, damaged: 1 })
  spool.append(Buffer.from('new'))
  await spool.close()
  const again = await open(t, { directory })
  t.match(again.spool.report, { recovered: 10, damaged: 0 })
  t.strictSame(await takeAll(again.spool), [...names(1, 9), 'new'])
})

t.test('a file cut anywhere, and one with any byte changed, yields its first records and does no harm', async t => {
  const directory = join(t.testdir(), 'spool')
  await leave(directory, ['first', 'second', 'third'])
  const [file = ''] = segmentsOf(directory)
  const whole = readFileSync(file)
  const expected = ['first', 'second', 'third']
  const variants = [
    ...Array.from(whole.keys(), length => whole.subarray(0, length)),
    ...Array.from(whole.keys(), at =>
      Buffer.concat([whole.subarray(0, at), Buffer.from([~(whole[at] ?? 0) & 255]), whole.subarray(at + 1)]),
    ),
  ]
  for (const variant of variants) {
    writeFileSync(file, variant, { mode: 0o600 })
    const spool = await Spool.open({ directory })
    const found = await takeAll(spool, false)
    await spool.close()
    if (found.some((text, index) => text !== expected[index])) t.fail(`found ${found} in ${variant.toString('hex')}`)
  }
  t.equal(variants.length, 2 * whole.length)
})

t.test('a record that cannot be read any more costs the rest of its file only', async t => {
  const directory = join(t.testdir(), 'spool')
  await leave(directory, ['a', 'b', 'c'])
  await leave(directory, ['d'])
  const { spool, told } = await open(t, { directory })
  const [file = ''] = segmentsOf(directory)
  const content = readFileSync(file)
  content.write('!', content.length - 1)
  writeFileSync(file, content)
  t.strictSame(await takeAll(spool), ['a', 'b', 'd'])
  t.equal(told.dropped, 1)
  await spool.flush()
  t.strictSame(segmentsOf(directory), [])
})

t.test('beyond its bound the oldest go, the files stay within it, and every record is accounted for', async t => {
  const maxBytes = 64 * 1024
  const { spool, directory, told } = await open(t, { maxBytes })
  const record = (name: string) => `${name} ${'x'.repeat(500)}`
  for (const name of names(1, 1000)) {
    spool.append(Buffer.from(record(name)))
    if (Number(name) % 7 === 0) await spool.flush()
    const size = segmentsOf(directory).reduce((sum, path) => sum + statSync(path).size, 0)
    if (size > maxBytes) t.fail(`${size} bytes on disk after record ${name}`)
  }
  await spool.flush()
  t.equal(spool.waiting + told.dropped, 1000)
  t.ok(spool.waiting > 90, `${spool.waiting} of about 120 that fit are kept`)
  t.strictSame(await takeAll(spool), names(told.dropped + 1, 1000).map(record))
})

t.test('records under way when their file is dropped can still be acknowledged', async t => {
  const { spool, told } = await open(t, { maxBytes: 64 * 1024 })
  spool.append(Buffer.from('under way'))
  await spool.flush()
  const [record] = await spool.take(1)
  for (const name of names(1, 1000)) spool.append(Buffer.from(name.padEnd(500)))
  await spool.flush()
  t.ok(told.dropped > 0)
  if (record) t.equal(spool.acknowledge(record), true)
  t.equal((await takeAll(spool)).length, 1000 - told.dropped)
})

t.test('a record larger than the spool is dropped and counted, others are not touched', async t => {
  const { spool, told } = await open(t, { maxBytes: 100_000 })
  spool.append(Buffer.from('small'))
  spool.append(Buffer.alloc(200_000))
  spool.append(Buffer.alloc(60_000, 'y'))
  await spool.flush()
  t.equal(told.dropped, 1)
  t.strictSame(await takeAll(spool), ['small', 'y'.repeat(60_000)])
})

/** A small file system of its own; undefined where mounting is not allowed. */
function mountSmall(path: string): (() => void) | undefined {
  try {
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=256k,mode=700', 'tmpfs', path], { stdio: 'ignore' })
    return () => execFileSync('umount', [path])
  } catch {
    return undefined
  }
}

t.test('a full disk: told once, results wait in memory, bounded, and are written when there is room', async t => {
  const directory = t.testdir()
  const unmount = mountSmall(directory)
  if (unmount === undefined) {
    t.comment('not tested: mounting a file system is not allowed here')
    return
  }
  const filler = join(directory, 'filler')
  writeFileSync(filler, Buffer.alloc(150 * 1024))
  const { spool, told } = await open(t, { directory: join(directory, 'spool'), maxMemoryBytes: 300_000 })
  try {
    const record = (name: string) => `${name} ${'x'.repeat(1000)}`
    for (const name of names(1, 500)) {
      spool.append(Buffer.from(record(name)))
      if (Number(name) % 10 === 0) await spool.flush()
    }
    t.match(told.troubles, [/ENOSPC/])
    t.equal(told.troubles.length, 1)
    t.ok(told.dropped > 0, 'memory is bounded')
    t.equal(spool.waiting + told.dropped, 500)
    const early = await spool.take(50)
    t.strictSame(texts(early), names(1, 50).map(record), 'what is on disk can be delivered meanwhile')
    rmSync(filler)
    for (const taken of early) spool.acknowledge(taken)
    const rest: number[] = []
    while (spool.waiting > 0) {
      await spool.flush()
      rest.push(...(await takeAll(spool)).map(Number.parseFloat))
    }
    t.strictSame(
      rest,
      names(51, 500)
        .map(Number)
        .filter(name => rest.includes(name)),
      'in order, each once',
    )
    t.equal(rest.length, 450 - told.dropped)
    await spool.flush()
    t.strictSame(segmentsOf(join(directory, 'spool')), [])
  } finally {
    await spool.close()
    unmount()
  }
})

t.test(
  'a spool has one owner, who is named; one that was killed, or whose id belongs to another now, is none',
  async t => {
    const { spool, directory } = await open(t)
    await t.rejects(Spool.open({ directory }), {
      code: 'owned',
      message: new RegExp(`in use by process ${process.pid};`),
    })
    await spool.close()
    const sleeper = spawn('sleep', ['60'])
    t.teardown(() => sleeper.kill('SIGKILL'))
    await once(sleeper, 'spawn')
    for (const owner of [
      `${sleeper.pid} other-boot/1`,
      '4194304 x/1',
      'garbage',
      '',
      'x'.repeat(10_000),
      '-1 -',
      '0 -',
    ]) {
      writeFileSync(join(directory, 'owner'), owner)
      const next = await Spool.open({ directory })
      await next.close()
    }
    t.strictSame(readdirSync(directory), [])
  },
)

t.test(
  'a new owner leaves alone the files of those that want to be it as well, and removes those of the dead',
  async t => {
    const directory = join(t.testdir(), 'spool')
    await leave(directory, ['x'])
    const names = [`owner.${process.ppid}`, `owner.${process.ppid}.old`, 'owner.4194304', 'owner.4194304.old']
    for (const name of names) writeFileSync(join(directory, name), '')
    const spool = await Spool.open({ directory })
    t.equal(spool.report.foreign, 0)
    t.strictSame(
      readdirSync(directory).filter(name => names.includes(name)),
      names.slice(0, 2),
    )
    await spool.close()
  },
)

t.test('of many that want a spool left by a killed owner at once, one gets it', async t => {
  const directory = join(t.testdir(), 'spool')
  await leave(directory, ['x'])
  writeFileSync(join(directory, 'owner'), '4194304 x/1')
  const script = `import { Spool } from ${JSON.stringify(new URL('../../agent/spool.js', import.meta.url).href)}
    try { await Spool.open({ directory: process.argv[1] }); console.log('mine'); setInterval(() => {}, 1000) }
    catch (error) { console.log(error.code) }`
  const processes = names(1, 6).map(() => spawn(process.execPath, ['--input-type=module', '-e', script, directory]))
  t.teardown(() => {
    for (const each of processes) each.kill('SIGKILL')
  })
  const answers = await Promise.all(processes.map(async ({ stdout }) => String((await once(stdout, 'data'))[0]).trim()))
  t.strictSame(answers.sort(), ['mine', 'owned', 'owned', 'owned', 'owned', 'owned'])
})

t.test('the directory and its files are for this user alone; others are refused, and never changed', async t => {
  const { spool, directory } = await open(t, { directory: join(t.testdir(), 'a', 'spool') })
  spool.append(Buffer.from('secret'))
  await spool.flush()
  t.equal(statSync(directory).mode & 0o777, 0o700)
  for (const name of readdirSync(directory)) t.equal(statSync(join(directory, name)).mode & 0o777, 0o600, name)
  const refused = async (path: string, message: RegExp) =>
    t.rejects(Spool.open({ directory: path }), { name: 'SpoolError', code: 'unusable', message })
  const outside = join(t.testdirName, 'open')
  mkdirSync(outside, { mode: 0o755 })
  await refused(outside, /others have access to it \(mode 755\); chmod 700 it/)
  t.equal(statSync(outside).mode & 0o777, 0o755)
  symlinkSync(directory, join(t.testdirName, 'link'))
  await refused(join(t.testdirName, 'link'), /it is a symbolic link or a file/)
  writeFileSync(join(t.testdirName, 'file'), '')
  await refused(join(t.testdirName, 'file'), /cannot be used/)
})

t.test('what else is in the directory is left alone and does no harm', async t => {
  const directory = join(t.testdir({ outside: 'precious' }), 'spool')
  const outside = join(t.testdirName, 'outside')
  await leave(directory, ['mine'])
  const inside = (name: string) => join(directory, name)
  symlinkSync(outside, inside('000000000005.segment'))
  symlinkSync(outside, inside('owner'))
  symlinkSync(outside, inside('position'))
  mkdirSync(inside('000000000006.segment'))
  execFileSync('mkfifo', [inside('000000000007.segment')])
  writeFileSync(inside('000000000008.segment'), 'not written by a spool, and longer than its header')
  writeFileSync(inside('099999999999.segment'), Buffer.alloc(0))
  writeFileSync(inside('999999999999.segment'), 'x')
  writeFileSync(inside('notes.txt'), 'by an admin')
  const { spool, told } = await open(t, { directory })
  t.match(spool.report, { recovered: 1, damaged: 1, foreign: 6 })
  for (const name of names(1, 3)) spool.append(Buffer.from(name))
  await spool.flush()
  t.strictSame(await takeAll(spool), ['mine', '1', '2', '3'])
  await spool.close()
  t.strictSame(told.troubles, [])
  t.equal(readFileSync(outside, 'utf8'), 'precious')
  t.ok(lstatSync(inside('000000000005.segment')).isSymbolicLink())
  t.equal(readFileSync(inside('notes.txt'), 'utf8'), 'by an admin')
  t.equal(readdirSync(directory).length, 6)
})

t.test('positions that are no longer true are not believed', async t => {
  const directory = join(t.testdir(), 'spool')
  await leave(directory, names(1, 3))
  for (const position of ['', 'garbage', '000000000009 000000000000016 00000000\n', `${'9'.repeat(40)}\n`]) {
    writeFileSync(join(directory, 'position'), position)
    const { spool } = await open(t, { directory })
    t.strictSame(await takeAll(spool, false), names(1, 3))
    await spool.close()
  }
})

t.test('records of later processes are never taken for acknowledged ones of earlier processes', async t => {
  const directory = join(t.testdir(), 'spool')
  await leave(directory, names(1, 3))
  await leave(directory, names(4, 6))
  const { spool } = await open(t, { directory })
  const records = await spool.take(3)
  const more = await spool.take(2)
  for (const record of [...records, ...more]) spool.acknowledge(record)
  await spool.close()
  for (const path of segmentsOf(directory)) rmSync(path)
  await leave(directory, ['new'])
  t.strictSame(await takeAll((await open(t, { directory })).spool), ['new'])
})

t.test('tens of thousands of records pass in seconds, and do not stay in memory', async t => {
  const { spool } = await open(t)
  const count = 60_000
  const payload = (index: number) => Buffer.from(`${index} `.padEnd(600, 'x'))
  const before = process.memoryUsage()
  const started = performance.now()
  for (let index = 0; index < count; index++) {
    spool.append(payload(index))
    if (index % 500 === 0) await spool.flush()
  }
  await spool.flush()
  const written = performance.now()
  const after = process.memoryUsage()
  t.equal(spool.waiting, count)
  const grownBytes = after.arrayBuffers + after.heapUsed - before.arrayBuffers - before.heapUsed
  t.ok(grownBytes < 30 * 1024 * 1024, `${grownBytes} bytes more in memory for ${spool.diskBytes} bytes on disk`)
  let next = 0
  for (;;) {
    const records = await spool.take(500)
    if (records.length === 0) break
    for (const record of records) {
      if (Number.parseInt(record.payload.toString('latin1', 0, 8), 10) !== next++) t.fail(`${next} is out of order`)
      spool.acknowledge(record)
    }
  }
  const read = performance.now()
  t.equal(next, count)
  const perSecond = (milliseconds: number) => Math.round((count / milliseconds) * 1000)
  t.comment(`written ${perSecond(written - started)}/s, taken and acknowledged ${perSecond(read - written)}/s`)
  t.ok(perSecond(written - started) > 5000)
  t.ok(perSecond(read - written) > 5000)
})

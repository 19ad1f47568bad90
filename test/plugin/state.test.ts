import { chmod, lstat, mkdir, readdir, readFile, symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import t from 'tap'
import { growthSince } from '../../plugin/counters.js'
import { FileState, stateFileName } from '../../plugin/file-state.js'
import { MemoryState, type StateKeeper, type StateKey } from '../../plugin/state.js'

function key(changes: Partial<StateKey> = {}): StateKey {
  return { check: 'check-example', uri: 'qemu:///system', options: {}, directory: undefined, ...changes }
}

const keepers: [name: string, make: (directory: string) => StateKeeper][] = [
  ['in memory', () => new MemoryState()],
  ['in files', directory => new FileState({ SENSU_KVM_STATE_DIR: directory })],
]

for (const [name, make] of keepers) {
  t.test(`state ${name} is kept by check, URI and options`, async t => {
    const keeper = make(t.testdir())
    t.equal(await keeper.open(key()).read(), undefined, 'nothing on the first run')
    const keys = [
      key(),
      key({ check: 'check-other' }),
      key({ uri: 'test:///default' }),
      key({ options: { warning: '5' } }),
    ]
    for (const [index, one] of keys.entries()) await keeper.open(one).write({ index, name: 'é' })
    for (const [index, one] of keys.entries()) t.same(await keeper.open(one).read(), { index, name: 'é' })
    await keeper.open(key()).write('new')
    t.equal(await keeper.open(key()).read(), 'new')
    t.same(await keeper.open(key({ uri: 'test:///default' })).read(), { index: 2, name: 'é' })
  })
}

t.test('memory forgets the least recently written beyond its limit', async t => {
  const keeper = new MemoryState(2)
  for (const uri of ['a', 'b', 'a', 'c']) await keeper.open(key({ uri })).write(uri)
  t.same(await Promise.all(['a', 'b', 'c'].map(uri => keeper.open(key({ uri })).read())), ['a', undefined, 'c'])
})

t.test('a file is private, replaced as a whole, and leaves nothing beside it', async t => {
  const directory = join(t.testdir(), 'deep', 'er')
  const store = new FileState({}).open(key({ directory }))
  await Promise.all(Array.from({ length: 20 }, (_, index) => store.write({ index, filler: 'x'.repeat(10_000) })))
  t.same(await readdir(directory), [stateFileName(key())])
  t.equal((await lstat(join(directory, stateFileName(key())))).mode & 0o777, 0o600)
  t.equal((await lstat(directory)).mode & 0o777, 0o700)
  t.match(await store.read(), { filler: /^x{10000}$/ })
})

t.test('a damaged file counts as a first run', async t => {
  const directory = t.testdir()
  const store = new FileState({}).open(key({ directory }))
  for (const text of ['', '{"counters":', '\0\0\0', 'null', '5', '{"key":"another","value":1}']) {
    await writeFile(join(directory, stateFileName(key())), text)
    t.equal(await store.read(), undefined)
  }
  await store.write(1)
  t.equal(await store.read(), 1)
})

t.test("the directory is the asked one, the environment's, the XDG one or one of this user", async t => {
  const base = t.testdir({ asked: {}, chosen: {}, xdg: {}, tmp: {} })
  const at = (name: string) => join(base, name)
  const variables = { SENSU_KVM_STATE_DIR: at('chosen'), XDG_STATE_HOME: at('xdg'), TMPDIR: at('tmp') }
  await new FileState(variables).open(key({ directory: at('asked') })).write(1)
  await new FileState(variables).open(key()).write(1)
  await new FileState({ ...variables, SENSU_KVM_STATE_DIR: '' }).open(key()).write(1)
  for (const path of ['asked', 'chosen', 'xdg/sensu-kvm']) t.equal((await readdir(at(path))).length, 1, path)
})

t.test('planted links, files and loose directories are refused, in one clear line', async t => {
  const base = t.testdir({ real: {}, loose: {}, file: '', victim: 'precious' })
  const at = (name: string) => join(base, name)
  const store = (name: string) => new FileState({}).open(key({ directory: at(name) }))
  await symlink(at('real'), at('link'))
  await t.rejects(store('link').write(1), {
    message: /link is not a directory, or a symbolic link to one: choose a directory with --state-dir$/,
  })
  await chmod(at('loose'), 0o777)
  await t.rejects(store('loose').write(1), { message: /loose is writable for others/ })
  await t.rejects(store('file').write(1), { message: /choose a directory with --state-dir/ })
  const path = join(at('real'), stateFileName(key()))
  await symlink(at('victim'), path)
  await t.rejects(store('real').read(), { message: /cannot read the numbers of the last run: .*: remove / })
  await store('real').write('mine')
  t.equal(await readFile(at('victim'), 'utf8'), 'precious', 'writing replaces the link, not its target')
  t.equal(await store('real').read(), 'mine')
  await mkdir(at('dir'))
  await mkdir(join(at('dir'), stateFileName(key())))
  await t.rejects(store('dir').read(), { message: /cannot read the numbers of the last run/ })
  await t.rejects(store('dir').write(1), { message: /cannot keep numbers for the next run/ })
  t.equal((await readdir(at('dir'))).length, 1, 'what could not be put in place is removed')
})

t.test('a directory is made with those it is in, and refused where there can be none', async t => {
  const base = t.testdir({})
  const store = (directory: string) => new FileState({}).open(key({ directory }))
  await store(join(base, 'a/b/c')).write(1)
  t.equal((await lstat(join(base, 'a'))).mode & 0o777, 0o700)
  await t.rejects(store('/proc/sensu-kvm').write(1), { message: /ENOENT.*: choose a directory with --state-dir$/ })
  await t.rejects(store('/dev/null/x').write(1), { message: /ENOTDIR.*: choose a directory with --state-dir$/ })
})

t.test('counters give their growth from the second run on', async t => {
  const store = new MemoryState().open(key())
  const run = (timeMs: number, counters: Record<string, Record<string, number | bigint>>) =>
    growthSince(store, timeMs, new Map(Object.entries(counters)))
  t.equal(
    (await run(1000, { 'uuid/vda': { reads: 10, time: 2n ** 60n } })).size,
    0,
    'nothing to compare on the first run',
  )
  const second = await run(3000, { 'uuid/vda': { reads: 30, time: 2n ** 60n + 4096n }, 'uuid/vdb': { reads: 1 } })
  t.same([...second], [['uuid/vda', { seconds: 2, grown: { reads: 20, time: 4096 } }]])
  const reset = await run(4000, { 'uuid/vda': { reads: 31, time: 5 }, 'uuid/vdb': { reads: 2 } })
  t.same([...reset.keys()], ['uuid/vdb'], 'a counter that went back skips one sample of its object')
  t.same([...(await run(5000, { 'uuid/vda': { reads: 32, time: 6 } })).keys()], ['uuid/vda'])
  t.same(
    (await run(6000, { 'uuid/vdb': { reads: 12 } })).get('uuid/vdb'),
    { seconds: 2, grown: { reads: 10 } },
    'an object that was missing once keeps its sample',
  )
  t.equal((await run(6000, { 'uuid/vdb': { reads: 13 } })).size, 0, 'no time has passed')
  t.equal((await run(7000, { 'uuid/vdb': { writes: 13 } })).size, 0, 'another counter is another beginning')
  t.equal((await run(7000 + 90_000_000, {})).size, 0)
  t.same(await store.read(), { counters: {} }, 'an object not seen for a day is forgotten')
})

t.test('counters read damaged state as a first run', async t => {
  const store = new MemoryState().open(key())
  for (const damaged of [
    null,
    5,
    'x',
    [],
    { counters: 5 },
    { counters: { a: 1 } },
    { counters: { a: [1] } },
    { counters: { a: [1, { b: 'x' }] } },
  ]) {
    await store.write(damaged)
    t.equal((await growthSince(store, 1000, new Map([['a', { b: 1 }]]))).size, 0)
  }
})

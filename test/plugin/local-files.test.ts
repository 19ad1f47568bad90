import { statSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { FilesystemError, readFilesystem } from '../../plugin/filesystem.js'
import { lookAtFiles } from '../../plugin/local-files.js'
import { PendingReads } from '../../plugin/pending-reads.js'

const plenty = () => 60_000
const mounts = '/proc/self/mounts'

t.test('real files, the space they take without holes, and the file system they are on', async t => {
  const directory = t.testdir({ full: 'x'.repeat(10_000), sparse: '', folder: {} })
  const path = (name: string) => join(directory, name)
  symlinkSync(path('full'), path('link'))
  const names = ['full', 'link', 'sparse', 'folder', 'gone', 'nowhere/gone']
  const { files, spaces } = await lookAtFiles(names.map(path), {
    pending: new PendingReads(),
    timeLeftMs: plenty,
    mounts,
  })
  const { mountPoint, totalBytes, availableBytes } = await readFilesystem(directory, 5000)
  t.match(spaces, [{ mountPoint, totalBytes, availableBytes: Number }])
  t.ok(Math.abs((spaces[0]?.availableBytes ?? 0) - availableBytes) < 1024 ** 3, 'while others write')
  const file = { kind: 'file', usedBytes: statSync(path('full')).blocks * 512, mountPoint }
  t.same(
    names.map(name => files.get(path(name))),
    [
      ...[file, file, { ...file, usedBytes: 0 }],
      { kind: 'unknown', text: 'it is neither a file nor a block device' },
      { kind: 'missing' },
      { kind: 'unknown', text: `${path('nowhere')} is not here: is it mounted, or is this a container?` },
    ],
  )
})

t.test('a file system that hangs is named, and its files are not touched', async t => {
  const directory = t.testdir({ dead: { a: 'x', b: 'x' }, live: { c: 'x' } })
  const at = (name: string) => join(directory, name)
  const line = (name: string) => `server:/a ${at(name)} nfs4 rw,relatime 0 0\n`
  writeFileSync(at('mounts'), line('dead') + line('live'))
  const asked: string[] = []
  const options = {
    pending: new PendingReads(),
    timeLeftMs: plenty,
    mounts: at('mounts'),
    readFilesystem: async (path: string) => {
      asked.push(path)
      if (path.startsWith(at('dead'))) throw new FilesystemError('hung', 'it hangs')
      return { mountPoint: at('live'), totalBytes: 10, usedBytes: 4, availableBytes: 6 }
    },
  }
  const { files, spaces } = await lookAtFiles([at('dead/a'), at('dead/b'), at('live/c')], options)
  const silent = { kind: 'unknown', text: `${at('dead')} has not answered for 2 s: look at its storage` }
  t.match(Object.fromEntries(files), {
    [at('dead/a')]: silent,
    [at('dead/b')]: silent,
    [at('live/c')]: { kind: 'file', mountPoint: at('live') },
  })
  t.same(spaces, [{ mountPoint: at('live'), totalBytes: 10, availableBytes: 6 }])
  t.same(asked, [at('dead'), at('live'), at('live/c')], 'once for all its files')
})

t.test('a file that hangs although its file system answered costs two seconds, and one thread for good', async t => {
  const directory = t.testdir({ a: 'x', b: 'x' })
  const pending = new PendingReads()
  let release = () => undefined
  const stuck = new Promise<void>(resolve => {
    release = () => void resolve()
  })
  // A read of an earlier run that never came back.
  void pending.join(`stat ${join(directory, 'a')}`, () => stuck)
  const startedMs = performance.now()
  const { files } = await lookAtFiles([join(directory, 'a'), join(directory, 'b')], {
    pending,
    timeLeftMs: plenty,
    mounts,
  })
  t.ok(performance.now() - startedMs < 3500)
  const text = `${join(directory, 'a')} has not answered for 2 s: look at its storage`
  t.same(
    [...files.values()],
    [
      { kind: 'unknown', text },
      { kind: 'unknown', text },
    ],
  )
  release()
})

t.test('without time nothing is touched', async t => {
  const { files } = await lookAtFiles(['/x'], { pending: new PendingReads(), timeLeftMs: () => 0, mounts })
  t.match(files.get('/x'), { kind: 'unknown', text: 'not looked at: no time left, allow more with --timeout' })
})

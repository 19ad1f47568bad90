import { spawn } from 'node:child_process'
import { mkdtempSync, rmdirSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { readFilesystem } from '../../plugin/filesystem.js'
import { readExpectedMountPoints, readMounts } from '../../plugin/mounts.js'

t.test('the file system of a path, its size and where it is mounted', async t => {
  const found = await readFilesystem(t.testdir(), 5000)
  t.ok(found.totalBytes > 0 && found.usedBytes + found.availableBytes <= found.totalBytes)
  t.ok((await readMounts('/proc/self/mounts')).some(({ mountPoint }) => mountPoint === found.mountPoint))
})

t.test('what cannot be looked at is told apart, whatever its name', async t => {
  for (const [path, kind] of [
    ['/nonexistent/x', 'missing'],
    ['-x', 'missing'],
    ['/etc/passwd/x', 'failed'],
  ] as const) {
    await t.rejects(readFilesystem(path, 5000), { name: 'FilesystemError', kind, message: `${path}: ` }, path)
  }
})

t.test(
  'a file system that hangs ends the wait, and nothing is left that could hold this process',
  {
    skip: process.getuid?.() === 0 ? false : 'needs root',
  },
  async t => {
    const path = await mountHung(t)
    const startedMs = performance.now()
    await t.rejects(readFilesystem(path, 200), {
      kind: 'hung',
      message: `${path}: its file system did not answer within 0.2 s`,
    })
    t.ok(performance.now() - startedMs < 5000)
  },
)

/** Mounts a file system whose server never answers, until the end of the test; tells where. */
async function mountHung(t: Test): Promise<string> {
  const path = mkdtempSync(join(tmpdir(), 'hung-'))
  const options = 'fd=3,rootmode=40000,user_id=0,group_id=0'
  const script = `exec 3<>/dev/fuse; mount -i -t fuse -o ${options} hung '${path}' && echo mounted; read line; umount -l '${path}'`
  const server = spawn('sh', ['-c', script], { stdio: ['pipe', 'pipe', 'inherit'] })
  t.teardown(async () => {
    const ended = new Promise(resolve => server.once('exit', resolve))
    server.stdin.end('\n')
    await ended
    rmdirSync(path)
  })
  await new Promise(resolve => server.stdout.once('data', resolve))
  return path
}

t.test('what fstab wants mounted by itself', async t => {
  const file = join(
    t.testdir({
      fstab: `# comment /x
UUID=1 / ext4 defaults 0 1
/dev/sdb1  /mnt/my\\040vms/ ext4 defaults,nofail 0 2
/dev/sdc1	/backup	xfs	noauto,user	0 0
/dev/sdd1 none swap sw 0 0
server:/x /nfs nfs
`,
    }),
    'fstab',
  )
  t.same(await readExpectedMountPoints(file), ['/mnt/my vms', '/nfs'])
  t.same(await readExpectedMountPoints('/nonexistent'), [])
})

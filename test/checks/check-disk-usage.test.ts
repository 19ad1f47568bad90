import { execFile, spawnSync } from 'node:child_process'
import { statfsSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import check, { type FilesystemSample } from '../../checks/check-disk-usage.js'
import { statusOf } from '../../plugin/output.js'
import { projectDirectory } from '../../scripts/services/process.js'
import { checkContext } from '../support/checks.js'
import { firstLineOf, runnerOf } from '../support/local-checks.js'

const gibibyte = 2 ** 30

/** A file system of this size and use. */
function filesystem(mountPoint: string, totalBytes: number, usedShare: number, change = {}): FilesystemSample {
  const freeBytes = totalBytes * (1 - usedShare)
  const sizes = { totalBytes, freeBytes, availableBytes: freeBytes, inodes: 1000, freeInodes: 900, ...change }
  return { mountPoint, sizes }
}

function judged(filesystems: readonly FilesystemSample[], raw = {}): [status: string, summary: string | undefined] {
  const outcome = check.evaluate([...filesystems], check.parseOptions(raw))
  return [statusOf(outcome), outcome.summary]
}

t.test('space and inodes are judged at, below and above each limit', async t => {
  const ok = 'All disk usage under 85% and inode usage under 85%'
  const ten = (used: number) => [filesystem('/', 10 * gibibyte, used)]
  t.same(judged([]), ['OK', ok])
  t.same(judged(ten(0.8499)), ['OK', ok])
  t.same(judged(ten(0.85)), ['WARNING', '/ 85.0% bytes usage (8.50 GiB/10.00 GiB)'])
  t.same(judged(ten(0.9499)), ['WARNING', '/ 94.99% bytes usage (9.50 GiB/10.00 GiB)'])
  t.same(judged(ten(0.95)), ['CRITICAL', '/ 95.0% bytes usage (9.50 GiB/10.00 GiB)'])
  t.same(judged(ten(0.5), { warning: 40, critical: 60 }), ['WARNING', '/ 50.0% bytes usage (5.00 GiB/10.00 GiB)'])
  const inodes = (freeInodes: number) => [filesystem('/', gibibyte, 0, { freeInodes })]
  t.same(judged(inodes(151)), ['OK', ok])
  t.same(judged(inodes(150)), ['WARNING', '/ 85.0% inode usage'])
  t.same(judged(inodes(50)), ['CRITICAL', '/ 95.0% inode usage'])
  t.same(judged(inodes(50), { 'inodes-warning': 96, 'inodes-critical': 97 }), [
    'OK',
    'All disk usage under 85% and inode usage under 96%',
  ])
})

t.test('what is critical is named first, then what is not well, in the order of the mounts', async t => {
  const filesystems = [
    filesystem('/a', 2 ** 41, 0.9),
    filesystem('/b', 1500, 0.99, { freeInodes: 100 }),
    { mountPoint: '/mnt/gone' },
    filesystem('/c', 5 * 2 ** 20, 1),
  ]
  t.same(judged(filesystems), [
    'CRITICAL',
    '/b 99.0% bytes usage (1.45 KiB/1.46 KiB), /c 100.0% bytes usage (5.00 MiB/5.00 MiB), /a 90.0% bytes usage (1.80 TiB/2.00 TiB), /b 90.0% inode usage, /mnt/gone Unable to read.',
  ])
  const nothing = filesystem('/proc', 0, 0, { inodes: 0, freeInodes: 0 })
  t.equal(judged([nothing], { warning: 0 })[0], 'OK', 'a share of nothing is not judged')
})

t.test('what is reserved for root is left out on request, limits move with the size', async t => {
  const reserved = filesystem('/', 1000, 0.8, { availableBytes: 100 })
  t.same(judged([reserved]), ['OK', 'All disk usage under 85% and inode usage under 85%'])
  t.same(judged([reserved], { 'ignore-reserved': true }), ['WARNING', '/ 89.89% bytes usage (800.00 B/1000.00 B)'])
  // 2,000 GB with a normal size of 20 MiB: (1,907,349 / 20) ^ -0.1 = 0.3178 of 15 % may be left free
  const large = (used: number) => judged([filesystem('/', 2e12, used)], { magic: 0.9 })[0]
  t.same([large(0.95), large(0.953), large(0.984), large(0.985)], ['OK', 'WARNING', 'WARNING', 'CRITICAL'])
  t.equal(judged([filesystem('/', 99e9, 0.85)], { magic: 0.9 })[0], 'WARNING', 'small ones keep theirs')
  t.equal(judged([filesystem('/', 99e9, 0.85)], { magic: 0.9, minimum: 50 })[0], 'OK')
})

const mounts = `proc /proc proc rw,nosuid 0 0
/dev/vda1 / ext4 rw,relatime 0 0
/dev/vdb1 /srv/with\\040blank xfs ro,relatime 0 0
host:/export /mnt/nfs nfs4 rw,hard 0 0
tmpfs /run tmpfs rw,nosuid,size=1k 0 0
`

t.test('options choose among the mounts', async t => {
  const root = t.testdir({ proc: { self: { mounts } }, srv: { 'with blank': {} }, mnt: { nfs: {} }, run: {} })
  const chosen = async (raw = {}) => {
    const context = checkContext({ path: absolute => join(root, absolute) })
    return (await check.collect(undefined, check.parseOptions(raw), context))
      .map(({ mountPoint }) => mountPoint)
      .join(' ')
  }
  t.equal(await chosen(), '/proc / /srv/with blank /mnt/nfs /run')
  t.equal(await chosen({ fstype: 'ext4,xfs' }), '/ /srv/with blank')
  t.equal(await chosen({ ignoretype: 'proc,nfs4' }), '/ /srv/with blank /run')
  t.equal(await chosen({ ignoremnt: '/,/run' }), '/proc /srv/with blank /mnt/nfs')
  t.equal(await chosen({ includemnt: '/,/run,/nowhere' }), '/ /run')
  t.equal(await chosen({ ignorepathre: '^/(srv|mnt)/' }), '/proc / /run')
  t.equal(await chosen({ ignoreopt: 'hard.nosuid' }), '/ /srv/with blank')
  t.equal(await chosen({ ignoreopt: 'rw,relatime' }), '/proc /srv/with blank /mnt/nfs /run', 'all options as one text')
  t.equal(await chosen({ 'ignore-readonly': true }), '/proc / /mnt/nfs /run')
  await t.rejects(chosen({ ignorepathre: '(' }), { message: /^-p \(: / })
})

t.test('a mount that cannot be read is a WARNING, an unreadable table UNKNOWN', async t => {
  const root = t.testdir({ proc: { self: { mounts: 'x /not/there ext4 rw 0 0\n' } } })
  t.same(firstLineOf(await (await runnerOf(check, root))()), ['CheckDisk WARNING: /not/there Unable to read.', 1])
  t.match(firstLineOf(await (await runnerOf(check, '/nowhere'))())[0], /^CheckDisk UNKNOWN: ENOENT: /)
})

t.test('this machine has the sizes that statfs tells', async t => {
  const [root] = await check.collect(undefined, check.parseOptions({ includemnt: '/' }), checkContext())
  const { blocks, bsize, files } = statfsSync('/')
  t.match(root, { mountPoint: '/', sizes: { totalBytes: blocks * bsize, inodes: files } })
})

const canMount = spawnSync('unshare', ['-m', 'true']).status === 0

t.test(
  'the executable prints the line of the Ruby plugin: a full file system, and one without inodes left',
  { skip: canMount ? false : 'needs root, for mounts of its own' },
  async t => {
    const directory = t.testdir({ full: {}, 'many files': {} })
    const program = join(projectDirectory(), 'dist/bin/check-disk-usage.rb')
    const script = `set -e; cd '${directory}'
mount -t tmpfs -o size=1m none full; head -c 983040 /dev/zero > full/file
mount -t tmpfs -o size=1m,nr_inodes=10 none 'many files'; for n in 1 2 3 4 5 6 7 8; do : > "many files/$n"; done
exec '${program}' -t tmpfs -p '^(?!${directory})'`
    const [stdout, status] = await new Promise<[string, unknown]>(resolve =>
      execFile('unshare', ['-m', 'sh', '-c', script], (error, out) => resolve([out, error?.code ?? 0])),
    )
    t.equal(
      stdout.split('\n')[0],
      `CheckDisk WARNING: ${directory}/full 93.75% bytes usage (960.00 KiB/1.00 MiB), ${directory}/many files 90.0% inode usage`,
    )
    t.equal(status, 1)
    t.match(stdout.split('\n')[1], /^\| .*used_percent=93\.75%;@85:;@95:;0;100/)
  },
)

t.test(
  'a file system that hangs is named after its time, the others are judged, and the program ends',
  { skip: canMount ? false : 'needs root, for mounts of its own' },
  async t => {
    const directory = t.testdir({ hung: {}, alive: {} })
    const program = join(projectDirectory(), 'dist/bin/check-disk-usage')
    // A FUSE file system whose server takes the questions and answers none.
    const script = `set -e; cd '${directory}'
exec 5<>/dev/fuse; mount -i -t fuse -o fd=5,rootmode=40000,user_id=0,group_id=0 none hung
mount -t tmpfs -o size=1m none alive; head -c 983040 /dev/zero > alive/file
'${program}' -t tmpfs,fuse -p '^(?!${directory})' 5>&-`
    const [stdout, status] = await new Promise<[string, unknown]>(resolve =>
      execFile('unshare', ['-m', 'sh', '-c', script], { timeout: 60_000 }, (error, out) => {
        resolve([out, error?.code ?? error?.signal ?? 0])
      }),
    )
    t.equal(
      stdout.split('\n')[0],
      `CheckDisk WARNING: ${directory}/hung Unable to read., ${directory}/alive 93.75% bytes usage (960.00 KiB/1.00 MiB)`,
    )
    t.equal(status, 1)
  },
)

t.test('a network file system that answers has the sizes that statfs tells', async t => {
  const root = t.testdir({ proc: { self: { mounts } }, mnt: { nfs: {} } })
  const context = checkContext({ path: absolute => join(root, absolute) })
  const [found] = await check.collect(undefined, check.parseOptions({ fstype: 'nfs4' }), context)
  const { blocks, bsize, files } = statfsSync(root)
  t.match(found, { mountPoint: '/mnt/nfs', sizes: { totalBytes: blocks * bsize, inodes: files } })
})

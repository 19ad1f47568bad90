import { mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import check, {
  type Disk,
  type DiskSample,
  type GuestDisks,
  type Image,
  type Space,
} from '../../checks/check-kvm-disk.js'
import { type PoolSpace, poolOf } from '../../libvirt/pool-space.js'
import { procedures } from '../../libvirt/procedures.js'
import { statusOf } from '../../plugin/output.js'
import { CommandError, projectDirectory } from '../../scripts/services/process.js'
import { checkContext, type ExecutableResult, runExecutable } from '../support/checks.js'
import { type FakeGuest, fakeGuests, numberedGuests } from '../support/fake-guests.js'
import { libvirtd, ownGuest } from '../support/services.js'

const name = 'check-kvm-disk'
const GiB = 1024 ** 3

/** A disk of 100 GiB in a file on /data that takes so much. */
function disk(takenGiB: number, change: Partial<Disk> = {}, top: Partial<Image> = {}): Disk {
  const image = { kind: 'file', path: `/data/${takenGiB}.qcow2`, takenBytes: takenGiB * GiB, space: '/data' } as const
  return { name: 'vda', capacityBytes: 100 * GiB, top: { ...image, ...top }, below: [], ...change }
}

function guest(disks: readonly Disk[], change: Partial<GuestDisks> = {}): GuestDisks {
  return { name: 'web1', uuid: 'u', id: 1, disks, ...change }
}

/** A file system of 1 TiB. */
function space(freeGiB: number, change: Partial<Space> = {}): Space {
  return { name: '/data', totalBytes: 1024 * GiB, availableBytes: freeGiB * GiB, perSecond: 0, ...change }
}

const usedOff = { 'used-warning': '~:', 'used-critical': '~:' }

function judged(sample: Partial<DiskSample>, raw: Parameters<typeof check.parseOptions>[0] = {}) {
  const outcome = check.evaluate({ guests: [], others: [], spaces: [space(500)], ...sample }, check.parseOptions(raw))
  const bad = outcome.findings.filter(({ status }) => status !== 'OK')
  const messages = bad.map(({ guest: own, device, message }) => [own, device, message].filter(Boolean).join(' '))
  const metrics = Object.fromEntries(outcome.metrics.map(metric => [metric.name, metric.value]))
  return { status: statusOf(outcome), messages, outcome, summary: outcome.summary, metrics }
}

t.test('disks that together may grow by more than is free', t => {
  for (const [freeGiB, raw, status] of [
    [500, {}, 'OK'],
    [90, {}, 'OK'],
    [89, {}, 'WARNING'],
    [1, {}, 'WARNING'],
    [89, { critical: '100' }, 'CRITICAL'],
    [45, { warning: '200' }, 'OK'],
    [44, { warning: '200' }, 'WARNING'],
  ] as const) {
    const found = judged({ guests: [guest([disk(10)])], spaces: [space(freeGiB)] }, { ...usedOff, ...raw })
    t.equal(found.status, status, `${freeGiB} ${JSON.stringify(raw)}`)
  }
  const two = [guest([disk(10), disk(60, { name: 'vdb' })])]
  const others = [guest([disk(50)], { name: 'web2' })]
  t.same(judged({ guests: two, others, spaces: [space(60)] }, usedOff).messages, [
    '/data disks may grow by 300 % of the 60 GiB free there (180 GiB: 3 disks, most 90 GiB of web1 vda) (warning above 100 %)',
  ])
  t.same(judged({ guests: [guest([disk(10)])], spaces: [space(45)] }, usedOff).messages, [
    '/data disks may grow by 200 % of the 45 GiB free there (90 GiB: web1 vda) (warning above 100 %)',
  ])
  t.equal(judged({ guests: [guest([])], others: two, spaces: [space(1)] }).status, 'OK', 'not of these guests')
  t.equal(judged({ guests: [guest([disk(10)]), guest([disk(10)])], spaces: [space(90)] }).status, 'OK', 'one image')
  t.end()
})

t.test('what is fully allocated does not grow, and allocation by itself is no alarm', t => {
  t.equal(judged({ guests: [guest([disk(100)])], spaces: [space(0)] }).status, 'OK')
  t.equal(judged({ guests: [guest([disk(101)])], spaces: [space(0)] }).status, 'OK', 'with internal snapshots')
  const { status, metrics } = judged({ guests: [guest([disk(99)])] })
  t.same([status, metrics['allocated_percent'], metrics['allocated']], ['OK', 99, 99 * GiB])
  const raw = { 'allocation-warning': '80', 'allocation-critical': '95' }
  t.equal(judged({ guests: [guest([disk(80)])] }, raw).status, 'OK')
  t.same(judged({ guests: [guest([disk(81)])] }, raw).messages, [
    'web1 vda space taken 81 % of its capacity of 100 GiB (warning above 80 %)',
  ])
  t.equal(judged({ guests: [guest([disk(96)])] }, raw).status, 'CRITICAL')
  t.equal(judged({ guests: [guest([disk(96)], { limits: { 'allocation-critical': '99' } })] }, raw).status, 'WARNING')
  t.end()
})

t.test('a file system that is nearly full, where disks may grow', t => {
  const at = (usedPercent: number) => [space(0, { availableBytes: 1024 * GiB * (1 - usedPercent / 100) })]
  const enough = { warning: '~:' }
  for (const [usedPercent, status] of [
    [94.9, 'OK'],
    [95.1, 'WARNING'],
    [97.9, 'WARNING'],
    [98.1, 'CRITICAL'],
  ] as const) {
    t.equal(judged({ guests: [guest([disk(10)])], spaces: at(usedPercent) }, enough).status, status, `${usedPercent}`)
    t.equal(judged({ guests: [guest([disk(100)])], spaces: at(usedPercent) }, enough).status, 'OK', 'none may grow')
  }
  t.same(judged({ guests: [guest([disk(10)])], spaces: at(98.1) }, enough).messages, [
    '/data in use 98.1 % of 1 TiB, and web1 vda may grow (critical above 98 %)',
  ])
  t.end()
})

t.test('when a file system will be full is foretold from the trend, where disks may grow', t => {
  const perHour = (gib: number) => ({ perSecond: (gib * GiB) / 3600 })
  for (const [hours, status] of [
    [25, 'OK'],
    [23, 'WARNING'],
    [3, 'CRITICAL'],
  ] as const) {
    const filling = space(500, perHour(500 / hours))
    t.equal(judged({ guests: [guest([disk(10)])], spaces: [filling] }).status, status, `${hours} h`)
    t.equal(judged({ guests: [guest([disk(100)])], spaces: [filling] }).status, 'OK', 'none may grow')
  }
  t.same(judged({ guests: [guest([disk(10)])], spaces: [space(100, perHour(50))] }, usedOff).messages, [
    '/data full in 2 h when it grows on by 50 GiB an hour (critical below 4 h)',
  ])
  t.same(judged({ guests: [guest([disk(10)])], spaces: [space(0, perHour(50))] }).messages, [
    '/data in use 100 % of 1 TiB, and web1 vda may grow (critical above 98 %)',
  ])
  t.equal(judged({ guests: [guest([disk(10)])], spaces: [space(500, perHour(-5))] }).status, 'OK', 'shrinking')
  t.end()
})

t.test('an image that is missing is CRITICAL; one that cannot be seen is UNKNOWN', t => {
  const gone = { kind: 'missing', path: '/data/gone.qcow2', takenBytes: undefined, space: undefined } as const
  t.match(judged({ guests: [guest([disk(1, {}, gone)])] }), {
    status: 'CRITICAL',
    messages: [
      'web1 vda its image /data/gone.qcow2 is missing: QEMU still has it open, the guest will not start again: virsh blockcopy saves it',
    ],
  })
  t.same(judged({ guests: [guest([disk(1, { below: [gone] })])] }).messages, [
    'web1 vda the backing file /data/gone.qcow2 is missing: QEMU still has it open, the guest will not start again: virsh blockcopy saves it',
  ])
  const off = { name: 'web1', uuid: 'u', disks: [disk(1, { capacityBytes: undefined }, gone)] }
  t.same(judged({ guests: [off] }).messages, [
    'web1 vda its image /data/gone.qcow2 is missing: the guest does not start without it',
  ])
  const why = 'the file system at /mnt/nfs has not answered for 2.0 s'
  const hidden = { kind: 'unknown', path: '/mnt/nfs/x', takenBytes: undefined, why } as const
  const hanging = [1, 2, 3, 4, 5].map(number => guest([disk(1, {}, hidden)], { name: `web${number}` }))
  t.match(judged({ guests: hanging }), {
    status: 'UNKNOWN',
    messages: [`images of web1 vda, web2 vda, web3 vda and 2 more: ${why}`],
  })
  t.end()
})

t.test('an overlay is called one, and the chain is counted', t => {
  const below = ['e2', 'e1', 'base.qcow2'].map(file => ({
    ...({ kind: 'file', path: `/data/${file}`, takenBytes: GiB, space: '/data' } as const),
  }))
  const overlay = disk(2, { below })
  const { outcome, metrics } = judged({ guests: [guest([overlay])] })
  t.equal(
    outcome.findings[0]?.message,
    'space taken 2 % of its capacity of 100 GiB in an overlay, with 3 images below it (e2, e1, base.qcow2)',
  )
  t.same([metrics['allocated'], metrics['images']], [5 * GiB, 4])
  const network = judged({ guests: [guest([disk(2, { below: [{ kind: 'network' }] })])] })
  t.match(network.outcome.findings[0]?.message, /with 1 image below it \(a network disk\)$/)
  t.equal(network.metrics['allocated'], undefined, 'not known in full')
  t.end()
})

t.test('the summary says what is promised, what is elsewhere and what is still collected', t => {
  const network = disk(0, { name: 'sda' }, { kind: 'network', path: undefined, takenBytes: undefined })
  const device = disk(0, { name: 'sdb' }, { kind: 'device', path: '/dev/vg/x', takenBytes: undefined })
  const homeless = disk(7, { name: 'sdc' }, { space: undefined })
  const guests = [guest([disk(10), network, device, homeless])]
  t.equal(
    judged({ guests, spaces: [space(500, { perSecond: undefined })] }).summary,
    '4 disks of 1 guest may grow by at most 18 % of what is free (/data: 90 GiB of 500 GiB); 1 on block devices; 1 on the network; 1 in no storage pool, so their free space is not known; growth: collecting for 1 h',
  )
  t.equal(
    judged({ guests: [guest([network])] }).summary,
    '1 disk of 1 guest, none may grow in a file system or pool that is known; 1 on the network',
  )
  t.match(judged({ guests: [guest([], { missing: 'its QEMU has not answered for 3.0 s' })] }), {
    status: 'UNKNOWN',
    messages: ['web1 its QEMU has not answered for 3.0 s'],
  })
  t.end()
})

interface Block {
  name: string
  path?: string
  capacity?: number
  physical?: number
}

function params(...blocks: Block[]): FakeGuest['params'] {
  const each = blocks.map(({ name: target, path, capacity, physical = 4096 }, index) => ({
    [`block.${index}.name`]: target,
    [`block.${index}.rd.reqs`]: 1,
    ...(path === undefined ? {} : { [`block.${index}.path`]: path }),
    ...(capacity === undefined
      ? {}
      : {
          [`block.${index}.capacity`]: capacity,
          [`block.${index}.physical`]: physical,
          [`block.${index}.allocation`]: 0,
        }),
  }))
  return Object.assign({ 'block.count': blocks.length }, ...each)
}

t.test('one call, and the files themselves: chains, empty drives, network disks, devices, vanished images', async t => {
  const directory = t.testdir({ top: 'x'.repeat(100_000), base: 'y'.repeat(200_000) })
  const path = (file: string) => join(directory, file)
  const [web1, web2] = numberedGuests(2, () => ({
    params: params(
      { name: 'vda', path: path('top'), capacity: GiB },
      { name: 'vda', path: path('base'), capacity: GiB },
      { name: 'vdb', path: path('gone'), capacity: GiB },
      { name: 'sda', capacity: 2 * GiB },
      { name: 'hdc' },
      { name: 'vdc', path: '/nowhere/x', capacity: GiB },
    ),
  }))
  if (web1 === undefined || web2 === undefined) throw new Error('two guests')
  Object.assign(web2, {
    id: -1,
    state: [5, 1],
    params: { 'block.count': 1, 'block.0.name': 'vda', 'block.0.path': path('gone') },
  })
  const { host, asked } = await fakeGuests(t, [web1, web2])
  const sample = await check.collect(host, check.parseOptions(), checkContext())
  t.same(asked(), ['CONNECT_GET_ALL_DOMAIN_STATS'])
  const [mount] = sample.spaces
  t.equal(sample.spaces.length, 1)
  const file = (own: string) => ({
    ...{ kind: 'file', path: path(own), takenBytes: statSync(path(own)).blocks * 512, space: mount?.name },
  })
  t.match(sample.guests[0]?.disks, [
    { name: 'vda', capacityBytes: GiB, top: file('top'), below: [file('base')] },
    { name: 'vdb', top: { kind: 'missing', path: path('gone') }, below: [] },
    { name: 'sda', capacityBytes: 2 * GiB, top: { kind: 'network' } },
    { name: 'vdc', top: { kind: 'unknown', why: /^\/nowhere is not here: is it mounted, or is this a container\?$/ } },
  ])
  t.equal(sample.guests[0]?.disks.length, 4, 'no drive without a medium')
  t.match(sample.guests[1], { missing: undefined, disks: [{ top: { kind: 'missing' }, capacityBytes: undefined }] })
})

t.test('the trend of a file system is kept from run to run', async t => {
  const directory = t.testdir({ image: 'x' })
  const guests = numberedGuests(1, () => ({
    params: params({ name: 'vda', path: join(directory, 'image'), capacity: GiB }),
  }))
  const { host } = await fakeGuests(t, guests)
  const context = checkContext()
  const look = async () => (await check.collect(host, check.parseOptions({ history: '50ms' }), context)).spaces[0]
  t.equal((await look())?.perSecond, undefined)
  let found = await look()
  const deadlineMs = performance.now() + 20_000
  while (found?.perSecond === undefined && performance.now() < deadlineMs) found = await look()
  t.type(found?.perSecond, 'number')
})

t.test('storage pools tell the space when the files are elsewhere', async t => {
  const pool = (own: string, path: string): PoolSpace => ({ name: own, path, totalBytes: 1, availableBytes: 1 })
  const pools = [pool('root', '/'), pool('data', '/data'), pool('deep', '/data/deep/')]
  t.equal(poolOf('/data/deep/x', pools)?.name, 'deep')
  t.equal(poolOf('/data/x', pools)?.name, 'data')
  t.equal(poolOf('/database/x', pools)?.name, 'root')
  t.equal(poolOf('/database/x', pools.slice(1)), undefined)

  const blocks = [
    { name: 'vda', path: '/data/a', capacity: 100 * GiB, physical: 10 * GiB },
    { name: 'vdb', path: '/other/b', capacity: GiB },
    { name: 'vdc', path: '/dev/vg/c', capacity: GiB },
  ]
  const { daemon, host } = await fakeGuests(
    t,
    numberedGuests(1, () => ({ params: params(...blocks) })),
  )
  const names = ['data', 'lvm', 'silent']
  const uuid = '00000000-0000-0000-0000-000000000000'
  daemon.on(procedures.listAllStoragePools, call =>
    call.reply(writer => writer.array(names, (to, own) => to.string(own).uuid(uuid)).u32(names.length)),
  )
  daemon.on(procedures.storagePoolGetXml, call => {
    const own = call.arguments.string()
    if (own === 'silent') call.fail(49, 'Storage pool not found')
    const type = own === 'lvm' ? 'logical' : 'dir'
    call.reply(writer => writer.string(`<pool type='${type}'><target><path>/${own}</path></target></pool>`))
  })
  daemon.on(procedures.storagePoolGetInfo, call =>
    call.reply(writer =>
      writer
        .u32(2)
        .u64(200 * GiB)
        .u64(170 * GiB)
        .u64(30 * GiB),
    ),
  )
  const options = check.parseOptions({ pools: true })
  const outcome = check.evaluate(await check.collect(host, options, checkContext()), options)
  t.match(
    outcome.findings.filter(({ status }) => status !== 'OK'),
    [{ status: 'WARNING', device: 'pool data', message: /^disks may grow by 300 % of the 30 GiB free there/ }],
  )
  t.match(outcome.summary, /; 1 on block devices; 1 in no storage pool, so their free space is not known; growth:/)
})

/** Runs the executable where the daemon's guests have their disks. */
async function runInside(daemon: Awaited<ReturnType<typeof libvirtd>>, check: string, args: readonly string[]) {
  const file = join(projectDirectory(), 'dist/bin', check)
  const all = ['--uri', daemon.readOnlyUri ?? daemon.uri, ...args]
  const found = await daemon.runInside(process.execPath, [file, ...all]).catch((error: unknown) => {
    if (error instanceof CommandError) return error
    throw error
  })
  const status = found instanceof CommandError ? (found.status ?? -1) : 0
  return { stdout: found.stdout, status } satisfies Partial<ExecutableResult>
}

const needsRoot = process.getuid?.() === 0 ? false : 'mounting a small file system needs root'

t.test(
  'a real guest: a file system it can outgrow, an overlay, a lost image, no space',
  { skip: needsRoot },
  async t => {
    const daemon = await libvirtd(t)
    const full = await ownGuest(t, daemon, { name: 'disk1', diskSpaceMiB: 4 })
    const state = t.testdir()
    const run = (check = name, ...more: string[]) =>
      runInside(daemon, check, ['--guest', 'disk1', '--state-dir', state, ...more])
    const folder = '/run/small-disks/disk1'
    const size = String.raw`[\d.]+ [KMG]iB`
    const thin = await run()
    t.match(
      thin.stdout,
      new RegExp(
        `^${name} WARNING: ${folder}: disks may grow by [\\d.]+ % of the ${size} free there \\(${size}: disk1 vda\\) \\(warning above 100 %\\)\n`,
      ),
    )
    t.equal(thin.status, 1)
    t.match(await run(name, '-w', '~:'), {
      stdout: new RegExp(
        `^${name} OK: 1 disk of 1 guest may grow by at most [\\d.]+ % of what is free \\(${folder}: ${size} of ${size}\\); growth: collecting for 1 h\n`,
      ),
      status: 0,
    })

    await daemon.virsh('snapshot-create-as', 'disk1', 'e1', '--disk-only')
    const overlay = await run(name, '-w', '~:', '--allocation-warning', '0')
    t.match(
      overlay.stdout,
      new RegExp(
        `^${name} WARNING: disk1 vda: space taken [\\d.]+ % of its capacity of 256 MiB in an overlay, with 1 image below it \\(disk.qcow2\\) \\(warning above 0 %\\)\n`,
      ),
    )
    await daemon.runInside('mv', [`${folder}/disk.qcow2`, `${folder}/lost`])
    const lost = await run(name, '-w', '~:')
    t.ok(
      lost.stdout.startsWith(
        `${name} CRITICAL: disk1 vda: the backing file ${folder}/disk.qcow2 is missing: QEMU still has it open, the guest will not start again: virsh blockcopy saves it\n`,
      ),
    )
    t.equal(lost.status, 2)
    await daemon.runInside('mv', [`${folder}/lost`, `${folder}/disk.qcow2`])

    await full.fillDisk()
    const line = `disk1 vda: no space (${folder}/disk.e1), and the guest is paused: make room, then virsh resume`
    t.same(await run('check-kvm-disk-error'), {
      stdout: `check-kvm-disk-error CRITICAL: ${line}\nCRITICAL ${line}\n| disk1.disks_with_errors=1;;;0\n`,
      status: 2,
    })
    const none = await run(name, '-w', '~:', '--used-critical', '90')
    t.ok(none.stdout.includes(`CRITICAL ${folder}: in use `))
    t.match(none.stdout, / in use [\d.]+ % of 4 MiB, and disk1 vda may grow \(critical above 90 %\)\n/)
    t.equal(none.status, 2)
    await daemon.virsh('snapshot-delete', 'disk1', 'e1', '--metadata')
  },
)

t.test('the executable prints exactly this', async t => {
  // A short path: the first line is cut at 255 characters.
  const directory = mkdtempSync(join(tmpdir(), 'disk-'))
  t.teardown(() => rmSync(directory, { recursive: true }))
  const image = join(directory, 'image')
  writeFileSync(image, '')
  const vda = { name: 'vda', path: image, capacity: 4096 }
  const { daemon } = await fakeGuests(
    t,
    numberedGuests(1, () => ({ params: params(vda, { ...vda, path: join(directory, 'base') }) })),
  )
  const run = (...args: string[]) =>
    runExecutable(name, ['--uri', daemon.uri, '--state-dir', join(directory, 'state'), ...args])
  const line = `web1 vda: the backing file ${join(directory, 'base')} is missing: QEMU still has it open, the guest will not start again: virsh blockcopy saves it`
  const { stdout, status } = await run()
  const [first, second, third = ''] = stdout.split('\n')
  t.same([first, second], [`${name} CRITICAL: ${line}`, `CRITICAL ${line}`])
  t.match(third, / \S+\.growth=4096B;;;0 \S+\.growth_percent=0\.0*\d+%;100;;0 \S+\.used_percent=[\d.]+%;95;98;0;100$/)
  t.equal(status, 2)
  t.same(await run('--full-warning', '24h'), {
    stdout: `${name} UNKNOWN: --full-warning 24h: not a range: write [@][start:][end], for example 80, 10:, ~:5 or @10:20\n`,
    stderr: '',
    status: 3,
  })
})

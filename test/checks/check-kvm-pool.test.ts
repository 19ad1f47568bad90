import { cpSync, mkdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import check, { type PoolDirectory, type PoolSample, type PoolsSample } from '../../checks/check-kvm-pool.js'
import { Host } from '../../libvirt/host.js'
import { procedures } from '../../libvirt/procedures.js'
import type { StoragePoolInfo } from '../../libvirt/records.js'
import { FilesystemError } from '../../plugin/filesystem.js'
import { statusOf } from '../../plugin/output.js'
import { MemoryState } from '../../plugin/state.js'
import type { Libvirtd } from '../../scripts/services/libvirtd.js'
import { checkContext, runExecutable } from '../support/checks.js'
import { FakeLibvirtd } from '../support/fake-libvirtd.js'
import { libvirtd, ownLibvirtd } from '../support/services.js'

const name = 'check-kvm-pool'
const gib = 1024 ** 3

function info(usedGib: number, change: Partial<StoragePoolInfo> = {}): StoragePoolInfo {
  const used = usedGib * gib
  return {
    state: 'running',
    capacityBytes: 100 * gib,
    allocationBytes: used,
    availableBytes: 100 * gib - used,
    ...change,
  }
}

function directory(usedGib: number, change: Partial<PoolDirectory> = {}): PoolDirectory {
  const usedBytes = usedGib * gib
  const size = { totalBytes: 100 * gib, usedBytes, availableBytes: 100 * gib - usedBytes }
  return { path: '/vms', mountPoint: '/vms', type: 'ext4', ...size, ...change }
}

function pool(change: Partial<PoolSample> = {}): PoolSample {
  return {
    name: 'data',
    uuid: '11111111-1111-1111-1111-111111111111',
    named: false,
    autostart: true,
    type: 'dir',
    info: info(10),
    ...change,
  }
}

function judged(
  pools: readonly PoolSample[],
  raw: Parameters<typeof check.parseOptions>[0] = {},
  change: Partial<PoolsSample> = {},
) {
  const sample = { uri: 'qemu:///system', pools, missing: [], ...change }
  const outcome = check.evaluate(sample, check.parseOptions(raw))
  const bad = outcome.findings.filter(({ status }) => status !== 'OK')
  return {
    status: statusOf(outcome),
    messages: bad.map(({ device, message }) => `${device ?? 'host'}: ${message}`),
    outcome,
  }
}

t.test('used is judged at, below and above each limit, of libvirt and of the directory', t => {
  for (const [used, status] of [
    [0, 'OK'],
    [85, 'OK'],
    [85.1, 'WARNING'],
    [95, 'WARNING'],
    [95.1, 'CRITICAL'],
    [100, 'CRITICAL'],
  ] as const) {
    t.equal(judged([pool({ info: info(used) })]).status, status, `libvirt says ${used} %`)
    t.equal(judged([pool({ directory: directory(used), info: info(0) })]).status, status, `df says ${used} %`)
  }
  t.same(judged([pool({ type: 'logical', info: info(90) }), pool({ name: 'b' })]).messages, [
    'data: used 90 % of 100 GiB at its last refresh (warning above 85 %)',
  ])
  t.end()
})

t.test("what df says now is judged, and libvirt's old numbers are mentioned", t => {
  const old = pool({ directory: directory(96), info: info(40) })
  t.same(judged([old]).messages, [
    'data: used 96 % of 100 GiB (libvirt knows of 40 GiB: virsh pool-refresh) (critical above 95 %)',
  ])
  t.same(judged([pool({ directory: directory(96), info: info(95.5) })]).messages, [
    'data: used 96 % of 100 GiB (critical above 95 %)',
  ])
  const reserved = directory(90, { availableBytes: 0 })
  t.same(judged([pool({ directory: reserved, info: info(90) })]).messages, [
    'data: used 100 % of 100 GiB (critical above 95 %)',
  ])
  t.end()
})

t.test('pools of whole devices and pools without a capacity are not judged by it', t => {
  for (const type of ['iscsi', 'iscsi-direct', 'scsi', 'mpath']) {
    t.equal(judged([pool({ type, info: info(100) })]).status, 'OK', type)
  }
  const unknown = judged([pool({ type: 'gluster', info: info(0, { capacityBytes: 0, availableBytes: 0 }) })])
  t.match(unknown.outcome.findings, [{ status: 'OK', message: 'active; not judged, since its capacity is not known' }])
  t.equal(unknown.outcome.summary, '1 active; 1 not judged')
  t.equal(judged([pool({ type: 'logical', info: info(100) })]).status, 'CRITICAL', 'a full volume group')
  t.end()
})

t.test('inactive is wrong for a pool that starts with the host or is named, and only for that', t => {
  const inactive = pool({ info: info(0, { state: 'inactive', capacityBytes: 0 }) })
  t.match(judged([inactive]), {
    status: 'CRITICAL',
    messages: ['data: inactive, though it is to start with the host: virsh pool-start'],
  })
  t.equal(judged([inactive], { autostart: 'warning' }).status, 'WARNING')
  t.equal(judged([inactive], { autostart: 'ignore' }).status, 'OK')
  t.match(judged([{ ...inactive, named: true }], { autostart: 'ignore' }), {
    status: 'CRITICAL',
    messages: ['data: inactive, though it is asked for by name: virsh pool-start'],
  })
  t.match(judged([{ ...inactive, autostart: false }, pool({ name: 'b' })]), {
    status: 'OK',
    outcome: { summary: '1 active; 1 inactive; fullest b, 10 % used of 100 GiB at its last refresh' },
  })
  t.same(judged([pool({ info: info(1, { state: 'degraded' }) })]).messages, ['data: degraded: look at its storage'])
  t.equal(judged([pool({ info: info(1, { state: 'inaccessible' }) })]).status, 'CRITICAL')
  t.end()
})

t.test('a pool whose file system is not mounted is CRITICAL', t => {
  t.same(judged([pool({ directory: directory(1, { unmounted: '/vms', mountPoint: '/' }) })]).messages, [
    'data: active, but nothing is mounted on /vms: what guests write to /vms goes to /',
  ])
  const another = { totalBytes: 20 * gib, mountPoint: '/' }
  t.same(judged([pool({ directory: directory(1, another) })]).messages, [
    'data: active, but /vms is on a file system of 20 GiB (mounted on /), not on the one of 100 GiB that libvirt knew: mount that, or virsh pool-refresh if it was resized',
  ])
  t.equal(judged([pool({ directory: directory(1, { ...another, mountPoint: '/vms' }) })]).status, 'WARNING')
  t.equal(judged([pool({ directory: directory(1, { ...another, type: 'zfs' }) })]).status, 'OK', 'its size varies')
  t.equal(judged([pool({ directory: directory(1, { totalBytes: 100.9 * gib }) })]).status, 'OK', 'as good as equal')
  t.end()
})

t.test('a directory that is gone or hangs is CRITICAL; one that may not be seen leaves the numbers of libvirt', t => {
  const failing = (kind: ConstructorParameters<typeof FilesystemError>[0]) =>
    judged([pool({ directory: new FilesystemError(kind, '/vms: why') })])
  t.same(failing('missing').messages, ['data: active, but its directory is gone: /vms: why'])
  t.same(failing('hung').messages, ['data: /vms: why: look at its storage'])
  t.match(failing('permission'), { status: 'OK', outcome: { summary: /10 % used of 100 GiB at its last refresh$/ } })
  t.equal(failing('failed').status, 'OK')
  t.end()
})

t.test('what hangs is named, with since when; the others are judged', t => {
  const hung = pool({ name: 'nfs1', info: undefined, silent: { why: 'does not answer libvirt', seconds: 90 } })
  t.same(judged([pool({ info: info(90) }), hung], {}, { unlistedSeconds: 0 }).messages, [
    'data: used 90 % of 100 GiB at its last refresh (warning above 85 %)',
    'nfs1: does not answer libvirt for 90 s: it hangs: look at its storage',
    'host: libvirt does not list its storage pools: one of them hangs: look at its storage, then restart libvirtd',
  ])
  t.match(judged([pool({ info: undefined, silent: { why: 'not asked in the time of this run' } })]), {
    status: 'UNKNOWN',
    messages: ['data: not asked in the time of this run'],
  })
  t.end()
})

t.test('when a pool will be full is foretold when asked for', async t => {
  const limits = { 'full-warning': '24:', 'full-critical': '4:' }
  for (const [hours, status] of [
    [24, 'OK'],
    [23.9, 'WARNING'],
    [4, 'WARNING'],
    [3.9, 'CRITICAL'],
  ] as const) {
    const perSecond = (50 * gib) / (hours * 3600)
    t.equal(judged([pool({ info: info(50), perSecond })], limits).status, status, `full in ${hours} hours`)
  }
  t.same(judged([pool({ info: info(50), perSecond: (10 * gib) / 3600 })], { 'full-warning': '24:' }).messages, [
    'data: full in 5 h when it grows on by 10 GiB an hour (warning below 1 d)',
  ])
  let usedGib = 50
  const { daemon, host } = await fakeHost(t, numbered(1))
  daemon.on(procedures.storagePoolGetInfo, call =>
    call.reply(writer =>
      writer
        .u32(2)
        .u64(100 * gib)
        .u64(usedGib * gib)
        .u64((100 - usedGib) * gib),
    ),
  )
  const state = new MemoryState().open({ check: name, uri: '', options: {}, directory: undefined })
  const trends: (number | undefined)[] = []
  for (let minute = 0; minute <= 60; minute += 15) {
    const context = checkContext({ now: () => minute * 60_000 + 1, state })
    trends.push((await check.collect(host, check.parseOptions(limits), context)).pools[0]?.perSecond)
    usedGib += 1
  }
  t.same(trends, [undefined, undefined, undefined, undefined, (4 * gib) / 3600])
})

t.test('no pools at all is well; a pool that is named must be there', t => {
  t.match(judged([]), { status: 'OK', outcome: { summary: 'no storage pools on qemu:///system' } })
  t.match(judged([pool()], { pool: ['data', 'b'] }, { missing: ['b'] }), {
    status: 'CRITICAL',
    messages: ['b: no such pool on qemu:///system: undefined, or wrongly named by --pool'],
  })
  t.match(judged([], { match: '^x' }), { status: 'UNKNOWN' })
  t.end()
})

interface FakePool {
  name: string
  uuid: string
  autostart?: boolean
  /** Answers no question about it. */
  hung?: boolean
  gone?: boolean
}

/** A daemon with pools, 90 GiB of 100 in use, in no directory. */
async function fakeHost(t: Test, pools: readonly FakePool[]) {
  const daemon = await FakeLibvirtd.start()
  const host = Host.open(daemon.uri)
  t.teardown(async () => {
    await host.close()
    await daemon.remove()
  })
  daemon.on(procedures.getLibVersion, call => call.reply(writer => writer.u64(9_000_000)))
  daemon.on(procedures.listAllStoragePools, call => {
    if (pools.some(({ hung }) => hung)) return
    call.arguments.i32()
    const flags = call.arguments.u32()
    const listed = flags === 16 ? pools.filter(({ autostart }) => autostart) : pools
    call.reply(writer => writer.array(listed, (to, own) => to.string(own.name).uuid(own.uuid)).u32(listed.length))
  })
  const of = (text: string) => pools.find(own => own.name === text)
  daemon.on(procedures.storagePoolGetInfo, call => {
    const own = of(call.arguments.string())
    if (own?.gone) call.fail(49, 'Storage pool not found')
    else if (!own?.hung)
      call.reply(writer =>
        writer
          .u32(2)
          .u64(100 * gib)
          .u64(90 * gib)
          .u64(10 * gib),
      )
  })
  daemon.on(procedures.storagePoolGetXml, call =>
    call.reply(writer => writer.string("<pool type='logical'><target><path>/dev/vg</path></target></pool>")),
  )
  return { daemon, host }
}

function numbered(count: number): FakePool[] {
  return Array.from({ length: count }, (_, index) => ({
    name: `pool${index + 1}`,
    uuid: `00000000-0000-0000-0000-${String(index + 1).padStart(12, '0')}`,
    autostart: true,
  }))
}

t.test('pools are listed twice and asked twice each; one that goes meanwhile is no error', async t => {
  const pools = numbered(30)
  Object.assign(pools[2] ?? {}, { gone: true })
  const { daemon, host } = await fakeHost(t, pools)
  const sample = await check.collect(host, check.parseOptions(), checkContext())
  t.equal(sample.pools.length, 29)
  t.match(sample.pools[0], { name: 'pool1', autostart: true, type: 'logical', directory: undefined })
  t.equal(daemon.count(procedures.listAllStoragePools), 2)
  t.equal(daemon.count(procedures.storagePoolGetInfo), 30)
})

t.test('a pool that hangs is named, the others are complete, and it is left alone for ten minutes', async t => {
  const pools = numbered(6)
  const { daemon, host } = await fakeHost(t, pools)
  let nowMs = 1_000_000
  const state = new MemoryState().open({ check: name, uri: '', options: {}, directory: undefined })
  const context = checkContext({ now: () => nowMs, state })
  const options = check.parseOptions({ 'pool-timeout': '200ms' })
  const look = async (afterSeconds: number) => {
    nowMs += afterSeconds * 1000
    const { messages } = judged([], { warning: '95' }, await check.collect(host, options, context))
    return messages
  }
  t.same(await look(0), [])
  for (const own of pools.slice(1, 4)) own.hung = true
  const hung = ['pool2', 'pool3', 'pool4']
  const listing = 'one of them hangs: look at its storage, then restart libvirtd'
  t.same(await look(60), [
    ...hung.map(own => `${own}: does not answer libvirt: it hangs: look at its storage`),
    `host: libvirt does not list its storage pools: ${listing}`,
  ])
  const asked = daemon.count(procedures.storagePoolGetInfo)
  t.same(await look(300), [
    ...hung.map(own => `${own}: does not answer libvirt for 300 s: it hangs: look at its storage`),
    `host: libvirt does not list its storage pools for 300 s: ${listing}`,
  ])
  t.equal(daemon.count(procedures.storagePoolGetInfo) - asked, 3, 'only those that answer are asked')
  t.equal(daemon.count(procedures.listAllStoragePools), 3)
  for (const own of pools) own.hung = false
  t.equal((await look(299)).length, 4, 'not asked again yet')
  t.same(await look(1), [])
})

t.test('a directory that libvirt or fstab should have mounted is found not to be', async t => {
  const { daemon, host } = await fakeHost(t, numbered(2))
  const root = t.testdir({ etc: {}, proc: { self: {} }, vms: {} })
  cpSync('/proc/self/mounts', join(root, 'proc/self/mounts'))
  daemon.on(procedures.storagePoolGetXml, call => {
    const type = call.arguments.string() === 'pool1' ? 'netfs' : 'dir'
    call.reply(writer => writer.string(`<pool type='${type}'><target><path>${root}/vms</path></target></pool>`))
  })
  const look = async (fstab: string) => {
    writeFileSync(join(root, 'etc/fstab'), fstab)
    const context = checkContext({ path: absolute => join(root, absolute) })
    const { pools } = await check.collect(host, check.parseOptions(), context)
    return pools.map(({ directory: found }) => (found instanceof FilesystemError ? found.kind : found?.unmounted))
  }
  t.same(await look('/dev/sda1 / ext4 defaults 0 1\n'), [`${root}/vms`, undefined])
  t.same(await look(`/dev/sdb1 ${root} ext4 defaults 0 2\n`), [`${root}/vms`, root])
  t.same(await look(`/dev/sdb1 ${root} ext4 noauto 0 2\n`), [`${root}/vms`, undefined])
})

t.test('when libvirt does not list its pools at the first run already, that is all that is known', async t => {
  const [first] = numbered(1)
  const { host } = await fakeHost(t, first === undefined ? [] : [{ ...first, hung: true }])
  const sample = await check.collect(host, check.parseOptions({ 'pool-timeout': '200ms' }), checkContext())
  t.same(judged([], {}, sample).messages, [
    'host: libvirt does not list its storage pools: one of them hangs; which, no earlier run knew: look at its storage, then restart libvirtd',
  ])
})

t.test('a daemon that hangs as a whole is no hung pool', async t => {
  const { daemon, host } = await fakeHost(t, numbered(1))
  daemon.ignore(procedures.getLibVersion)
  const context = checkContext({ signal: AbortSignal.timeout(300) })
  await t.rejects(check.collect(host, check.parseOptions(), context))
})

/** Pools of type dir in a private daemon, by name, each with an empty directory. */
async function definePools(daemon: Libvirtd, ...names: string[]): Promise<string[]> {
  const paths: string[] = []
  for (const own of names) {
    const path = join(daemon.directory, 'pools', own)
    mkdirSync(path, { recursive: true })
    await daemon.virsh('pool-define-as', own, 'dir', '--target', path)
    paths.push(path)
  }
  return paths
}

t.test('real pools: inactive, active, gone, not mounted, hung', { skip: needsRoot() }, async t => {
  const daemon = await ownLibvirtd(t)
  const uri = daemon.readOnlyUri ?? daemon.uri
  const stateDirectory = t.testdir()
  const says = async (...args: string[]) => {
    const more = ['--pool-timeout', '1s', '-w', '~:', '--state-dir', stateDirectory]
    const { stdout, stderr, status } = await runExecutable(name, [
      '--uri',
      uri,
      ...more,
      ...(args.includes('-c') ? [] : ['-c', '~:']),
      ...args,
    ])
    const [line = ''] = stdout.replaceAll(daemon.directory, 'DIR').split('\n')
    return [status, line.replace(`${name} `, ''), stderr]
  }
  t.same(await says(), [0, `OK: no storage pools on ${uri.replaceAll(daemon.directory, 'DIR')}`, ''])
  const [path1 = '', path2 = '', path3 = ''] = await definePools(daemon, 'one', 'two', 'three')
  t.match(await says(), [0, 'OK: 0 active; 3 inactive', ''])
  await daemon.virsh('pool-autostart', 'one')
  t.same(await says(), [2, 'CRITICAL: one: inactive, though it is to start with the host: virsh pool-start', ''])
  for (const own of ['one', 'two', 'three']) await daemon.virsh('pool-start', own)
  t.match(await says(), [0, /^OK: 3 active; fullest \w+, [\d.]+ % used of [\d.]+ [GTP]iB$/, ''])
  t.match(await says('--libvirt-only'), [0, /^OK: 3 active; .* at its last refresh$/, ''])
  t.match(await says('-c', '@0:100', '--pool', 'two'), [2, /^CRITICAL: two: used [\d.]+ % of [^;]+$/, ''])

  rmSync(path1, { recursive: true })
  t.same(await says(), [
    2,
    'CRITICAL: one: active, but its directory is gone: DIR/pools/one: df: DIR/pools/one: No such file or directory',
    '',
  ])
  symlinkSync(path2, path1)
  t.match(await says(), [0, /^OK: 3 active/, ''], 'a link will do')

  // Mounted in the daemon's view only: here it looks as if it was unmounted after the refresh.
  await daemon.runInside('mount', ['-t', 'tmpfs', '-o', 'size=8m', 'pool-two', path2])
  await daemon.virsh('pool-refresh', 'two')
  t.match(await says(), [
    2,
    /^CRITICAL: two: active, but DIR\/pools\/two is on a file system of [\d.]+ [GTP]iB \(mounted on \/.*\), not on the one of 8 MiB that/,
    '',
  ])
  await daemon.runInside('umount', [path2])
  await daemon.virsh('pool-refresh', 'two')

  // A file system whose server never answers; it ends with the shell that has it open.
  const server = daemon.runInside('sh', [
    '-c',
    `exec 3<>/dev/fuse; mount -i -t fuse -o fd=3,rootmode=40000,user_id=0,group_id=0 pool-three '${path3}'; echo; exec sleep 300`,
  ])
  server.catch(() => undefined)
  await mountedInside(daemon, path3)
  const refresh = daemon.virsh('pool-refresh', 'three')
  refresh.catch(() => undefined)
  await hangs(uri)
  const [status, line] = await says()
  t.equal(status, 2)
  t.equal(
    line,
    'CRITICAL: three: does not answer libvirt: it hangs: look at its storage; libvirt does not list its storage pools: one of them hangs: look at its storage, then restart libvirtd',
  )
})

/** Waits until the daemon sees something mounted there. */
async function mountedInside(daemon: Libvirtd, path: string): Promise<void> {
  for (;;) {
    const { stdout } = await daemon.runInside('cat', ['/proc/self/mountinfo'])
    if (stdout.includes(` ${path} `)) return
  }
}

/** Waits until libvirt cannot list its pools. */
async function hangs(uri: string): Promise<void> {
  for (;;) {
    const host = Host.open(uri, { readOnly: true })
    try {
      await host.storagePools({}, { timeoutMs: 500 })
    } catch {
      return
    } finally {
      await host.close()
    }
  }
}

t.test("the test driver's pool, which is in no directory of this machine", async t => {
  const { uri } = await libvirtd(t)
  const testDriver = uri.replace(/^qemu(.*)\/(system|session)/, 'test$1/default')
  t.same(await runExecutable(name, ['--uri', testDriver, '--state-dir', t.testdir()]), {
    stdout: `${name} OK: 1 active; fullest default-pool, 0 % used of 100 GiB at its last refresh
| default-pool.active=1;;;0;1 default-pool.used_percent=0%;85;95;0;100 default-pool.used=0B;;;0;107374182400 default-pool.available=107374182400B;;;0;107374182400
`,
    stderr: '',
    status: 0,
  })
})

/** The reason to skip a test, or false. */
function needsRoot(): string | false {
  return process.getuid?.() === 0 ? false : 'needs root'
}

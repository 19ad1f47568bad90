import { execFile } from 'node:child_process'
import { chmodSync, copyFileSync, mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { monitorEventLoopDelay } from 'node:perf_hooks'
import { setTimeout as pause } from 'node:timers/promises'
import { promisify } from 'node:util'
import t, { type Test } from 'tap'
import { Connection } from '../../libvirt/connection.js'
import { dial } from '../../libvirt/dial.js'
import { Host, type HostOptions } from '../../libvirt/host.js'
import { procedures } from '../../libvirt/procedures.js'
import { parseUri } from '../../libvirt/uri.js'
import { type Certificates, createCertificates } from '../../scripts/services/certificates.js'
import type { LibvirtdAccess } from '../../scripts/services/libvirtd.js'
import { makeTemporaryDirectory } from '../../scripts/services/process.js'
import { libvirtd, ownLibvirtd } from '../support/services.js'

function openHost(t: Test, uri: string, options: HostOptions = {}): Host {
  const host = Host.open(uri, options)
  t.teardown(() => host.close())
  return host
}

function temporaryDirectory(t: Test): string {
  const directory = makeTemporaryDirectory()
  t.teardown(() => rmSync(directory, { recursive: true, force: true }))
  return directory
}

/**
 * What runs the remote command of the stand-in for ssh: as root libvirt's own helper, in a mount namespace where our
 * daemon's sockets are in the usual place; else a bridge to the socket.
 */
function remoteShell(daemon: LibvirtdAccess): string {
  if (process.getuid?.() !== 0 || daemon.readOnlySocket === undefined) {
    const bridge = `const s=require("net").connect(process.argv[1]);process.stdin.pipe(s);s.pipe(process.stdout)`
    return `${process.execPath} -e '${bridge}' ${daemon.socket}`
  }
  const directory = dirname(daemon.socket)
  return `unshare -m sh -ec 'mount --bind ${directory} /mnt; mount -t tmpfs run /run; mkdir /run/libvirt; mount --bind /mnt /run/libvirt; exec "$@"' sh "$@"`
}

/** A directory with certificates under the names libvirt's clients look for. */
function pkiDirectory(t: Test, certificates: Certificates): string {
  const directory = temporaryDirectory(t)
  copyFileSync(certificates.authority, join(directory, 'cacert.pem'))
  copyFileSync(certificates.client.certificate, join(directory, 'clientcert.pem'))
  copyFileSync(certificates.client.key, join(directory, 'clientkey.pem'))
  return directory
}

/** XML of the test driver with so many running guests. */
function writeTestDriver(t: Test, guests: number): string {
  const domain = (index: number) =>
    `<domain type='test'><name>guest${index}</name><uuid>${(0x10000 + index).toString(16).padStart(32, '0')}</uuid><memory>65536</memory><vcpu>1</vcpu><os><type>hvm</type></os></domain>`
  const path = join(temporaryDirectory(t), 'node.xml')
  writeFileSync(path, `<node>${Array.from({ length: guests }, (_, index) => domain(index)).join('')}</node>`)
  return path
}

t.setTimeout(120_000)

t.test('with a libvirtd', async t => {
  const daemon = await libvirtd(t)
  const readOnlyUri = daemon.readOnlyUri ?? daemon.uri
  const testUri = (path: string) => `test://${path}?socket=${daemon.socket}`

  t.test('the daemon and its host describe themselves', async t => {
    const host = openHost(t, readOnlyUri)
    t.equal(await host.driverType(), 'QEMU')
    t.match(await host.libVersion(), /^\d+\.\d+\.\d+$/)
    t.match(await host.hypervisorVersion(), /^\d+\.\d+\.\d+$/)
    t.equal(await host.hostname(), (await daemon.virsh('hostname')).stdout.trim())
    t.match(await host.canonicalUri(), /^qemu:\/\/\/s/)
    t.match(await host.capabilities(), /^<capabilities>/)
    const info = await host.nodeInfo()
    const virshInfo = (await daemon.virsh('nodeinfo')).stdout
    t.match(virshInfo, new RegExp(`CPU\\(s\\): +${info.cpus}\\n`))
    t.match(virshInfo, new RegExp(`Memory size: +${info.memoryBytes / 1024} KiB`))
    t.equal(info.model, 'x86_64')
  })

  t.test('CPU and memory of the host are what virsh says', async t => {
    const host = openHost(t, readOnlyUri)
    const before = await host.nodeCpuStats()
    const virshIdle = Number(/idle: +(\d+)/.exec((await daemon.virsh('nodecpustats')).stdout)?.[1])
    const after = await host.nodeCpuStats()
    t.ok((before.idleNs ?? 0) <= virshIdle && virshIdle <= (after.idleNs ?? 0))
    const first = await host.nodeCpuStats(0)
    t.ok((first.userNs ?? 0) > 0 && (first.userNs ?? 0) <= (after.userNs ?? 0))
    const memory = await host.nodeMemoryStats()
    const virshTotal = /total *: +(\d+) KiB/.exec((await daemon.virsh('nodememstats')).stdout)?.[1]
    t.equal((memory.totalBytes ?? 0) / 1024, Number(virshTotal))
    t.ok((memory.freeBytes ?? 0) > 0)
    t.ok(((await host.nodeMemoryStats(0)).totalBytes ?? 0) > 0, 'one NUMA cell')
    t.ok(((await host.nodeCellsFreeMemoryBytes())[0] ?? 0) > 0)
    t.ok((await host.nodeFreeMemoryBytes()) > 0)
    t.match(await host.nodeFreePages([4096]), [{ cell: 0, pageSizeBytes: 4096 }])
    await t.rejects(host.nodeMemoryStats(999), { name: 'LibvirtError', invalidArgument: true })
  })

  t.test('errors of the daemon are told apart by code', async t => {
    const host = openHost(t, readOnlyUri)
    await t.rejects(host.domain('no-such-guest'), { name: 'LibvirtError', code: 42, notFound: true })
    await t.rejects(host.domain('01234567-89ab-cdef-0123-456789abcdef'), { name: 'LibvirtError', code: 42 })
    await t.rejects(host.storagePool('no-such-pool'), { name: 'LibvirtError', code: 49, notFound: true })
    await t.rejects(host.network('no-such-network'), { name: 'LibvirtError', code: 43, notFound: true })
    await t.rejects(openHost(t, `qemu:///nonsense?socket=${daemon.socket}`).hostname(), { name: 'LibvirtError' })
  })

  t.test('an unknown procedure and truncated arguments are refused, and the connection survives', async t => {
    const wire = await dial(parseUri(readOnlyUri), {
      access: 'read',
      timeoutMs: 5000,
      places: { systemDirectory: '/run/libvirt', runtimeDirectory: undefined, userId: 0 },
    })
    const connection = await Connection.open(wire, {
      label: 'test',
      remoteUri: 'qemu:///system',
      readOnly: true,
      timeoutMs: 5000,
      keepalive: { intervalMs: 20, count: 5 },
      maximumInFlight: 4,
    })
    t.teardown(() => connection.close())
    const unknown = { ...procedures.getHostname, number: 9999, name: 'NO_SUCH' }
    const refused = { name: 'LibvirtError', code: 39, protocolRefused: true }
    await t.rejects(connection.call({ procedure: unknown, timeoutMs: 5000 }), refused)
    await t.rejects(connection.call({ procedure: procedures.domainGetState, timeoutMs: 5000 }), refused)
    await pause(200)
    t.equal((await connection.call({ procedure: procedures.getUri, timeoutMs: 5000 })).string(), 'qemu:///system')
  })

  t.test('the read-only connection refuses changes; a Host uses read-write where it must', async t => {
    if (daemon.readOnlyUri === undefined) {
      t.comment('a session daemon has no read-only socket')
      return
    }
    const host = openHost(t, testUri('/default'))
    const guest = await host.domain('test')
    const readOnly = openHost(t, `test:///default?socket=${daemon.readOnlySocket}`)
    await t.rejects(readOnly.suspendDomain(guest), { name: 'LibvirtError', code: 29, denied: true })
    await host.suspendDomain(guest)
    t.match(await readOnly.domainState(guest), { state: 'paused', reason: 'user' }, 'test:///default is shared')
    await host.resumeDomain(guest)
    t.match(await readOnly.domainState(guest), { state: 'running', reason: 'unpaused' })
  })

  t.test('guests of the test driver are listed, filtered, found and described', async t => {
    const host = openHost(t, testUri('/default'))
    const [guest] = await host.domains()
    t.match(guest, { name: 'test', uuid: /^[0-9a-f-]{36}$/, id: 1 })
    if (guest === undefined) throw new Error('the test driver has no guest')
    t.same(await host.domains({ active: false }), [])
    t.same(await host.domains({ active: true, persistent: true }), [guest])
    t.same(await host.domain('test'), guest)
    t.same(await host.domain(guest.uuid), guest)
    t.same(await host.domain(guest.uuid.replaceAll('-', '')), guest)
    t.match(await host.domainInfo(guest), { state: 'running', vcpus: 2, memoryBytes: 2 * 1024 ** 3 })
    t.match(await host.domainVcpus(guest), [{ number: 0, state: 'running' }, { number: 1 }])
    t.equal(await host.domainVcpuCount(guest, 'maximum'), 2)
    t.equal((await host.domainCpuStats(guest, 'total'))[0]?.cpu, -1)
    t.ok((await host.domainCpuStats(guest, 'per cpu')).length > 0)
    t.equal(await host.domainAutostart(guest), false)
    t.equal(await host.domainPersistent(guest), true)
    t.equal(await host.domainActive(guest), true)
    t.equal(await host.domainHasManagedSave(guest), false)
    t.equal(await host.domainMetadata(guest, 'title'), undefined)
    t.equal(await host.domainMetadata(guest, { namespace: 'urn:none' }), undefined)
    t.match(await host.domainXml(guest), /<name>test<\/name>/)
    t.match(await host.domainXml(guest, 'inactive'), /<name>test<\/name>/)
    await t.rejects(host.domainJob(guest), { name: 'LibvirtError', code: 3, unsupported: true })
    t.ok((await host.domainDiskErrors(guest)).length >= 0)
  })

  t.test('snapshots are made, listed, reverted to and deleted', async t => {
    const host = openHost(t, testUri('/default'))
    const guest = await host.domain('test')
    await t.rejects(host.domainSnapshot(guest, 'none'), { name: 'LibvirtError', code: 72, notFound: true })
    const s1 = await host.createSnapshot(guest, '<domainsnapshot><name>s1</name></domainsnapshot>')
    const s2 = await host.createSnapshot(guest, '<domainsnapshot><name>s2</name></domainsnapshot>')
    t.same((await host.domainSnapshots(guest)).map(snapshot => snapshot.name).sort(), ['s1', 's2'])
    t.equal((await host.domainCurrentSnapshot(guest))?.name, 's2')
    t.equal((await host.snapshotParent(s2)).name, 's1')
    t.match(await host.snapshotXml(s1), /<name>s1<\/name>/)
    t.equal((await host.domainSnapshot(guest, 's1')).name, 's1')
    await host.revertToSnapshot(s1)
    t.equal((await host.domainCurrentSnapshot(guest))?.name, 's1')
    await host.deleteSnapshot(s2)
    await host.deleteSnapshot(s1)
    t.equal(await host.domainCurrentSnapshot(guest), undefined)
  })

  t.test('storage pools, volumes and virtual networks are listed and described', async t => {
    const host = openHost(t, testUri('/default'))
    const [pool] = await host.storagePools()
    t.match(pool, { name: 'default-pool' })
    if (pool === undefined) throw new Error('no pool')
    t.match(await host.storagePool(pool.name), pool)
    t.match(await host.storagePoolInfo(pool), { state: 'running', capacityBytes: Number, availableBytes: Number })
    t.equal(await host.storagePoolActive(pool), true)
    t.equal(await host.storagePoolPersistent(pool), true)
    t.equal(await host.storagePoolAutostart(pool), false)
    t.match(await host.storagePoolXml(pool), /<pool/)
    t.same(await host.storagePools({ active: false }), [])
    t.same(await host.volumes(pool), [])
    await t.rejects(host.volume(pool, 'none'), { name: 'LibvirtError', code: 50, notFound: true })
    await host.refreshStoragePool(pool)
    const [network] = await host.networks()
    t.match(network, { name: 'default' })
    if (network === undefined) throw new Error('no network')
    t.equal(await host.networkActive(network), true)
    t.equal(await host.networkPersistent(network), true)
    t.equal(await host.networkAutostart(network), false)
    t.equal(await host.networkBridge(network), 'virbr0')
    t.match(await host.networkXml(network), /<network/)
    t.same(await host.networks({ active: false }), [])
  })

  t.test('volumes of a real pool are measured', async t => {
    const directory = temporaryDirectory(t)
    mkdirSync(join(directory, 'pool'))
    writeFileSync(join(directory, 'pool/disk.raw'), Buffer.alloc(1024 * 1024))
    const name = `pool${process.pid}`
    await daemon.virsh('pool-create-as', name, 'dir', '--target', join(directory, 'pool'))
    t.teardown(() => daemon.virsh('pool-destroy', name))
    const host = openHost(t, readOnlyUri)
    const pool = await host.storagePool(name)
    const [volume] = await host.volumes(pool)
    t.match(volume, { pool: name, name: 'disk.raw' })
    if (volume === undefined) throw new Error('no volume')
    t.match(await host.volumeInfo(volume), { type: 'file', capacityBytes: 1024 * 1024 })
    t.equal(await host.volumePath(volume), join(directory, 'pool/disk.raw'))
    t.match(await host.volumeXml(volume), /<volume/)
    t.match(await host.volume(pool, 'disk.raw'), volume)
    t.match(await host.volumeByPath(join(directory, 'pool/disk.raw')), volume)
  })

  t.test('events reach the listener, from a change made elsewhere', async t => {
    const host = openHost(t, testUri('/default'))
    const guest = await host.domain('test')
    const seen: string[] = []
    const both = new Promise<void>(resolve => {
      host.on('lifecycle', ({ domain, event, detail }) => {
        seen.push(`${domain.name} ${event} ${detail}`)
        if (seen.length === 2) resolve()
      })
    })
    for (const name of ['reboot', 'ioError', 'agentLifecycle', 'jobCompleted', 'blockJob', 'memoryFailure'] as const) {
      host.on(name, () => undefined)
    }
    await host.eventsReady()
    const other = openHost(t, testUri('/default'))
    await other.suspendDomain(guest)
    await other.resumeDomain(guest)
    await both
    t.same(seen, ['test suspended paused', 'test resumed unpaused'])
  })

  t.test('1,000 guests: listed, measured in bulk and one by one, with an easy event loop', async t => {
    const host = openHost(t, testUri(writeTestDriver(t, 1000)))
    const domains = await host.domains()
    t.equal(domains.length, 1000)
    await host.domainStats()
    const lag = monitorEventLoopDelay({ resolution: 1 })
    lag.enable()
    const startedMs = performance.now()
    const sample = await host.domainStats()
    const bulkMs = performance.now() - startedMs
    const states = await Promise.all(domains.map(domain => host.domainState(domain)))
    lag.disable()
    t.equal(sample.guests.length, 1000)
    t.ok(sample.guests.every(guest => guest.state?.state === 'running'))
    t.ok(states.every(state => state.state === 'running'))
    t.comment(`bulk ${bulkMs.toFixed(0)} ms, longest lag ${(lag.max / 1e6).toFixed(1)} ms`)
  })

  t.test('a process that forgets to close ends by itself', async t => {
    const script = `import { Host } from ${JSON.stringify(new URL('../../libvirt/host.js', import.meta.url).href)}
      const host = Host.open(${JSON.stringify(readOnlyUri)})
      await host.nodeInfo()
      await host.domainStats()
      console.log('done')`
    const run = promisify(execFile)
    const { stdout } = await run(process.execPath, ['--input-type=module', '-e', script], { timeout: 20_000 })
    t.equal(stdout, 'done\n')
  })

  t.test('qemu+ssh speaks through the command it starts, and says what ssh said', async t => {
    const directory = temporaryDirectory(t)
    const stand = join(directory, 'ssh')
    // Stands in for ssh: checks the arguments and runs the remote command here.
    writeFileSync(
      stand,
      `#!/bin/sh
echo "$@" >> ${directory}/arguments
while [ "$1" != -- ]; do shift; done
[ "$2" = elsewhere ] || { echo "ssh: Could not resolve hostname $2" >&2; exit 255; }
shift 2
exec ${remoteShell(daemon)}
`,
    )
    chmodSync(stand, 0o755)
    const direct = openHost(t, readOnlyUri)
    const remote = openHost(t, 'qemu+ssh://root@elsewhere/system', { sshCommand: stand })
    t.same(await remote.nodeInfo(), await direct.nodeInfo())
    t.same(await remote.domains(), await direct.domains())
    const named = openHost(t, `qemu+ssh://elsewhere/system?command=${encodeURIComponent(stand)}`)
    t.equal(await named.hostname(), await direct.hostname())
    const wrong = openHost(t, 'qemu+ssh://nowhere/system', { sshCommand: stand })
    await t.rejects(wrong.hostname(), {
      kind: 'closed',
      message: /ssh to nowhere says: ssh: Could not resolve hostname nowhere/,
    })
    const absent = openHost(t, 'qemu+ssh://elsewhere/system', { sshCommand: join(directory, 'absent') })
    await t.rejects(absent.hostname(), { kind: 'refused', message: /cannot run .*absent/ })
  })
})

t.test('qemu+tls needs certificates both ways', async t => {
  const daemon = await ownLibvirtd(t, { tls: true })
  if (daemon.tls === undefined) throw new Error('the daemon does not listen for TLS')
  const { port } = daemon.tls
  const own = pkiDirectory(t, daemon.tls.certificates)
  const empty = temporaryDirectory(t)
  const host = openHost(t, `qemu+tls://localhost:${port}/system?pkipath=${own}`)
  t.equal(await host.driverType(), 'QEMU')
  t.same(await host.domains(), [])
  const foreign = pkiDirectory(t, await createCertificates(temporaryDirectory(t)))
  await t.rejects(openHost(t, `qemu+tls://localhost:${port}/system?pkipath=${foreign}`).hostname(), {
    kind: 'auth',
    message: /TLS with libvirt at localhost:\d+ failed/,
  })
  const unchecked = `qemu+tls://localhost:${port}/system?no_verify=1&pkipath=${foreign}`
  await t.rejects(openHost(t, unchecked).hostname(), { kind: 'auth', message: /certificate|TLS/ })
  await t.rejects(openHost(t, `qemu+tls://localhost:${port}/system?pkipath=${empty}`).hostname(), {
    kind: 'auth',
    message: /no client certificate .*\?pkipath=/,
  })
  await t.rejects(openHost(t, `qemu+tls://localhost:1/system?pkipath=${own}`).hostname(), {
    kind: 'refused',
    message: /cannot be reached/,
  })
})

t.test('a session daemon has one socket, on which read-only is asked for', async t => {
  const daemon = await ownLibvirtd(t, { session: true })
  const host = openHost(t, daemon.uri)
  t.equal(await host.canonicalUri(), 'qemu:///session')
  t.same(await host.domains(), [])
  const guest = { name: 'none', uuid: '0'.repeat(32) }
  await t.rejects(host.domainState(guest), { name: 'LibvirtError', notFound: true })
  await t.rejects(host.suspendDomain(guest), { name: 'LibvirtError', notFound: true }, 'read-write where needed')
})

t.test('a daemon that hangs costs each call its deadline and nothing else', async t => {
  const daemon = await ownLibvirtd(t)
  const host = openHost(t, daemon.readOnlyUri ?? daemon.uri)
  await host.hostname()
  await host.domainStats()
  await host.storagePools()
  const fresh = openHost(t, host.uri, { connectTimeoutMs: 500 })
  daemon.pause()
  const lag = monitorEventLoopDelay({ resolution: 1 })
  lag.enable()
  const startedMs = performance.now()
  const ends = await Promise.allSettled([
    ...Array.from({ length: 20 }, () => host.hostname({ timeoutMs: 500 })),
    host.domainStats({ timeoutMs: 500 }),
    host.storagePools({}, { timeoutMs: 500 }),
    fresh.hostname(),
  ])
  const tookMs = performance.now() - startedMs
  lag.disable()
  for (const end of ends) {
    t.match(end, { status: 'rejected', reason: { name: 'LibvirtTimeoutError', guest: undefined } })
  }
  t.ok(tookMs >= 490 && tookMs < 900, `all ended after ${tookMs.toFixed(0)} ms`)
  t.ok(lag.percentile(99) / 1e6 < 50, `event loop lag ${(lag.max / 1e6).toFixed(1)} ms at most`)
  daemon.resume()
  const resumedMs = performance.now()
  t.ok(await host.hostname({ timeoutMs: 5000 }))
  t.same((await host.domainStats({ timeoutMs: 5000 })).guests, [])
  t.same(await host.storagePools({}, { timeoutMs: 5000 }), [])
  t.ok(performance.now() - resumedMs < 5000, 'works again')
})

t.test('a daemon that was restarted is found again, and events flow again', async t => {
  const daemon = await ownLibvirtd(t)
  const host = openHost(t, `test:///default?socket=${daemon.socket}`)
  const notices: string[] = []
  host.onNotice('down', () => notices.push('down'))
  const resync = new Promise<void>(resolve => host.onNotice('resync', () => resolve()))
  const suspended = new Promise<void>(resolve => {
    host.on('lifecycle', ({ event }) => event === 'suspended' && resolve())
  })
  await host.eventsReady()
  const guest = await host.domain('test')
  await daemon.kill()
  await t.rejects(host.domainState(guest), { name: 'LibvirtConnectionError' })
  await daemon.restart()
  const restartedMs = performance.now()
  const again = await host.domain('test', { timeoutMs: 5000 })
  await resync
  t.ok(performance.now() - restartedMs < 5000, 'within 5 s')
  t.match(notices, ['down'])
  await host.suspendDomain(again)
  await suspended
})

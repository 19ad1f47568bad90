import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { readDaemonClients } from '../../libvirt/daemon-clients.js'

const listening = '00000002 00000000 00010000 0001 01'
const accepted = '00000003 00000000 00000000 0001 03'
const waiting = '00000002 00000000 00000000 0001 02'

/** The table's lines as the kernel writes them. */
function table(rows: readonly (readonly [state: string, path: string])[]): string {
  const lines = rows.map(
    ([state, path]) => `00000000ff5430d3: ${state} ${state === waiting ? '    0' : '22885'} ${path}`,
  )
  return ['Num       RefCount Protocol Flags    Type St Inode Path', ...lines, ''].join('\n')
}

function machine(t: Test, rows: Parameters<typeof table>[0], files: Record<string, string> = {}) {
  const directory = t.testdir({ unix: table(rows), ...files })
  return {
    places: { systemDirectory: '/run/libvirt', runtimeDirectory: undefined, userId: 0 },
    socketTable: join(directory, 'unix'),
    configurationDirectory: directory,
  }
}

const libvirtd = [
  [listening, '/run/libvirt/libvirt-sock'],
  [listening, '/run/libvirt/libvirt-sock-ro'],
  [listening, '/run/libvirt/libvirt-admin-sock'],
  [accepted, '/run/libvirt/libvirt-sock'],
  [accepted, '/run/libvirt/libvirt-sock-ro'],
  [accepted, '/run/libvirt/libvirt-sock-ro'],
  [accepted, '/run/libvirt/libvirt-admin-sock'],
  [waiting, '/run/libvirt/libvirt-sock'],
  [accepted, '/run/libvirt/virtlogd-sock'],
  [accepted, ''],
] as const

t.test('clients on both sockets of the daemon are counted, let in and waiting', async t => {
  t.same(await readDaemonClients('qemu:///system', machine(t, libvirtd)), { connected: 3, waiting: 1, maximum: 5000 })
  t.equal(await readDaemonClients('qemu+ssh://host/system', machine(t, libvirtd)), undefined, 'another machine')
  t.equal(await readDaemonClients('qemu:///system', machine(t, [])), undefined, 'no daemon')
  t.equal(
    await readDaemonClients('qemu:///system', { ...machine(t, []), socketTable: '/nonexistent' }),
    undefined,
    'no table',
  )
})

t.test('the modular daemon comes first; one whose sockets are elsewhere has no known limit', async t => {
  const modular = [
    [listening, '/var/run/libvirt/virtqemud-sock-ro'],
    [accepted, '/var/run/libvirt/virtqemud-sock'],
  ] as const
  const files = { 'virtqemud.conf': 'max_clients = 30\n' }
  t.same(await readDaemonClients('qemu:///system', machine(t, [...libvirtd, ...modular], files)), {
    connected: 1,
    waiting: 0,
    maximum: 30,
  })
  const elsewhere = [
    [listening, '/tmp/my sock'],
    [waiting, '/tmp/my sock'],
  ] as const
  t.same(await readDaemonClients('qemu:///system?socket=/tmp/my%20sock', machine(t, elsewhere)), {
    connected: 0,
    waiting: 1,
    maximum: undefined,
  })
})

t.test('max_clients is what the file says, comments aside; a file that cannot be read says nothing', async t => {
  for (const [text, maximum] of [
    ['#max_clients = 10\n', 5000],
    ['admin_max_clients = 5\n', 5000],
    ['max_workers = 1\n  max_clients=20 # more\n', 20],
  ] as const) {
    const found = await readDaemonClients('qemu:///system', machine(t, libvirtd, { 'libvirtd.conf': text }))
    t.equal(found?.maximum, maximum, text)
  }
  const unreadable = machine(t, libvirtd)
  writeFileSync(join(unreadable.configurationDirectory, 'file'), '')
  const found = await readDaemonClients('qemu:///system', {
    ...unreadable,
    configurationDirectory: join(unreadable.configurationDirectory, 'file'),
  })
  t.equal(found?.maximum, undefined)
})

import { readdirSync } from 'node:fs'
import { hostname } from 'node:os'
import t, { type Test } from 'tap'
import type { Guest } from '../../scripts/services/guest.js'
import type { LibvirtdAccess } from '../../scripts/services/libvirtd.js'
import { guestEvent, runHandler, sectionFile } from '../support/handlers.js'
import { ownGuest, ownLibvirtd } from '../support/services.js'

const name = 'remediate-kvm'

interface Site {
  readonly daemon: LibvirtdAccess
  /** Runs the handler for an event about a guest, by default with everything permitted; one line of output, with its status. */
  remedy(guest: string, settings?: object, changes?: { check?: object }): Promise<string>
  /** How many files are kept. */
  kept(): number
}

function siteOf(t: Test, daemon: LibvirtdAccess): Site {
  const state = t.testdir({})
  return {
    daemon,
    async remedy(guest, settings = {}, { check = {}, ...changes } = {}) {
      const section = { act: true, uri: daemon.uri, state_dir: `${state}/kept`, ...settings }
      const argv = sectionFile(t, name, section, `${Math.random()}.json`)
      const event = guestEvent({
        ...changes,
        client: { name: guest },
        check: { name: 'state_check', source: guest, origin: hostname(), ...check },
      })
      const { stdout, stderr, status } = await runHandler(name, argv, event)
      const line = (stdout + stderr).trimEnd().replace(/^remediate-kvm: (\S+\/state_check create: )?/, '')
      return `${status}: ${line}`
    },
    kept: () => readdirSync(state).filter(file => file === 'kept').length,
  }
}

async function kill(guest: Guest): Promise<void> {
  guest.signal('SIGKILL')
  await guest.reaches('shut off (crashed)')
}

t.test('a guest that crashed is started, one that an administrator stopped is not', async t => {
  const daemon = await ownLibvirtd(t)
  const guest = await ownGuest(t, daemon, { name: 'web1', autostart: true, start: false })
  const site = siteOf(t, daemon)
  const { remedy } = site
  const left = async (state: string, line: string, ...how: Parameters<Site['remedy']> | []) => {
    const [which = 'web1', ...rest] = how
    t.equal(await remedy(which, ...rest), line)
    t.equal(await guest.state(), state, 'and nothing was done')
  }

  await left(
    'shut off (unknown)',
    '0: nothing to do: web1: shut off (unknown): libvirt does not know why it is off: it was so before libvirt started',
  )
  await daemon.virsh('start', 'web1')
  await left('running (booted)', '0: nothing to do: web1: running (booted): it runs')
  await guest.suspend()
  await left('paused (user)', '0: nothing to do: web1: paused (user): an administrator paused it (virsh suspend)')
  await guest.destroy()
  await left(
    'shut off (destroyed)',
    '0: nothing to do: web1: shut off (destroyed): an administrator switched it off (virsh destroy)',
  )

  await daemon.virsh('start', 'web1')
  await kill(guest)
  const why = 'shut off (crashed): its QEMU ended by itself: killed, crashed, or out of memory'
  const crashed = 'shut off (crashed)'
  await left(
    crashed,
    `0: would start web1 at ${daemon.uri}: ${why}; nothing was done, the setting act is false`,
    'web1',
    { act: false },
  )
  await left(crashed, '0: nothing to do: web1: deny names it', 'web1', { deny: ['w*1'] })
  await left(crashed, '0: nothing to do: web1: allow does not name it', 'web1', { allow: ['db*', 'web'] })
  await left(crashed, '0: nothing to do: the event is silenced', 'web1', {}, { silenced: true } as object)
  await left(
    crashed,
    `0: nothing to do: gone: no such guest at ${daemon.uri}: it is undefined or was migrated away`,
    'gone',
  )
  await left(
    crashed,
    `0: nothing to do: web1: no such guest with UUID 11111111-2222-3333-4444-555555555555 at ${daemon.uri}: it is undefined or was migrated away`,
    'web1',
    {},
    { check: { guest_uuid: '11111111-2222-3333-4444-555555555555' } },
  )
  await left(
    crashed,
    `0: nothing to do: web1: the event came from elsewhere, but ${daemon.uri} is ${hostname()}: name elsewhere in clients if that is the same machine`,
    'web1',
    {},
    { check: { origin: 'elsewhere' } },
  )
  await left(
    crashed,
    '0: nothing to do: web1: the event came from elsewhere, which clients does not name',
    'web1',
    { clients: ['node1'] },
    { check: { origin: 'elsewhere' } },
  )
  t.equal(site.kept(), 0, 'nothing was even noted')

  t.match(await remedy('web1', { state_dir: '/dev/null/x' }), /^1: cannot keep .*: choose a directory with state_dir$/)
  t.match(await remedy('web1', { uri: 'qemu+unix:///system?socket=/nowhere' }), /^1: .*\/nowhere/)
  t.equal(await guest.state(), crashed)
  const tokens = daemon.uri.replace('system', ':::check.path|none:::')
  t.match(
    await remedy('web1', { uri: tokens }),
    /^2: .*\n.* clients is missing: with tokens in uri an event could name any machine/,
  )
  await left(
    crashed,
    '0: nothing to do: web1: deny names it',
    'web1',
    { uri: tokens, clients: ['x', '*'], deny: ['web1'] },
    { check: { path: 'system', origin: 'elsewhere' } },
  )
  const readOnly = daemon.readOnlyUri ?? t.fail('the daemon has no read-only socket')
  t.match(
    await remedy('web1', { uri: readOnly }),
    /^1: .*DOMAIN_CREATE of web1: .*needs a read-write connection.*run as root or as a member of group libvirt/,
  )
  t.equal(await guest.state(), crashed)

  const both = await Promise.all([remedy('web1'), remedy('web1')])
  t.match(
    both.toSorted(),
    [
      /^0: (left alone: .*|nothing to do: .*it (runs|is being started))/,
      `0: started web1, which was ${why}; attempt 1 of 3 within an hour`,
    ],
    'two processes at once act once',
  )
  t.equal(await guest.state(), 'running (booted)')

  await daemon.virsh('autostart', '--disable', 'web1')
  await kill(guest)
  await left(
    crashed,
    `0: nothing to do: web1: ${why}; but it is neither marked to start with the host nor named by should_run`,
  )
  t.equal(
    await remedy(
      'web1',
      { should_run: ['web*'], clients: ['kvm-host'] },
      { check: { origin: 'kvm-host', guest_uuid: guest.uuid } },
    ),
    `0: started web1, which was ${why}; attempt 2 of 3 within an hour`,
  )
  await kill(guest)
  t.match(
    await remedy('web1', { should_run: ['web1'], attempts: 2 }),
    /^1: web1 was helped 2 times within an hour and is shut off \(crashed\).*: somebody has to look at it; no attempt before 20\d\d-.* UTC$/,
  )
  t.equal(await guest.state(), crashed)
})

t.test('a guest that a full disk paused goes on when there is room again, and not before', async t => {
  const daemon = await ownLibvirtd(t)
  const guest = await ownGuest(t, daemon, { name: 'full', diskSpaceMiB: 20 })
  const { remedy } = siteOf(t, daemon)
  await guest.fillDisk()
  const folder = '/run/small-disks/full'
  const paused = 'nothing to do: full: paused (I/O error)'
  const asked = { min_free_mib: 64 }
  t.equal(
    await remedy('full', asked),
    `0: ${paused}: disk vda had no space, and what is free now is not known: ${folder} is neither on this machine nor in an active storage pool`,
  )
  await daemon.virsh('pool-create-as', 'small', 'dir', '--target', folder)
  t.match(
    await remedy('full', asked),
    /^0: nothing to do: full: paused \(I\/O error\): disk vda had no space, and pool small has .* free: waiting for 64 MiB$/,
  )
  await daemon.runInside('mount', ['-o', 'remount,size=400m', folder])
  t.match(
    await remedy('full', { ...asked, act: false }),
    /waiting for 64 MiB/,
    'who may change nothing knows only what the pool knew',
  )
  await daemon.virsh('pool-refresh', 'small')
  t.match(await remedy('full', { ...asked, act: false }), /^0: would resume full at .*nothing was done/)
  t.equal(await guest.state(), 'paused (I/O error)')
  t.match(
    await remedy('full', asked),
    /^0: resumed full, which was paused \(I\/O error\): QEMU paused it because a disk had no space, and there is room again: vda has 3\d\d.* MiB on pool small; attempt 1 of 3 within an hour$/,
  )
  await guest.reaches('running (unpaused)')
})

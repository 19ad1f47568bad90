import t from 'tap'
import { run } from '../../scripts/services/process.js'
import { isAlive } from '../../scripts/services/watchdog.js'
import { libvirtd, ownGuest, ownLibvirtd } from '../support/services.js'

t.test('the read-only socket shows guests and changes nothing', { skip: notRoot() }, async t => {
  const daemon = await libvirtd(t)
  const uri = daemon.readOnlyUri
  if (uri === undefined) throw new Error('no read-only socket')
  t.match((await run('virsh', ['-q', '-r', '-c', uri, 'version'])).stdout, /Running hypervisor: QEMU/)
  await t.rejects(run('virsh', ['-q', '-c', uri, 'net-create', '/dev/null']), { name: 'CommandError' })
})

t.test('guests live through the end of their libvirtd, and it finds them again', async t => {
  const daemon = await ownLibvirtd(t)
  const guest = await ownGuest(t, daemon, { name: 'survivor', agent: false })
  const pid = guest.pid()
  t.type(pid, 'number')

  await daemon.kill()
  t.equal(daemon.pid(), undefined)
  t.same(daemon.processes(), [pid], 'only QEMU is left')
  await daemon.restart()

  t.equal(guest.pid(), pid)
  t.equal(await guest.state(), 'running (booted)')
})

t.test('a paused daemon accepts connections and never answers', async t => {
  const daemon = await ownLibvirtd(t)
  const ask = () => run('virsh', ['-q', '-c', daemon.uri, 'list'], { timeoutMs: 1000 })
  await ask()
  daemon.pause()
  await t.rejects(ask(), { message: /stopped after 1000 ms/ })
  daemon.resume()
  await ask()
})

t.test('an unprivileged daemon runs a guest too', async t => {
  const daemon = await ownLibvirtd(t, { session: true })
  t.match(daemon.uri, /^qemu\+unix:\/\/\/session\?socket=/)
  const guest = await ownGuest(t, daemon, { name: 'unprivileged' })
  t.equal((await guest.execute('hostname')).stdout, 'unprivileged\n')
})

t.test('its end leaves no process', async t => {
  const daemon = await ownLibvirtd(t)
  await ownGuest(t, daemon, { name: 'last', agent: false })
  const pids = daemon.processes()
  t.equal(pids.length, 3, 'libvirtd, its parent and one QEMU')
  await daemon.stop()
  t.same(pids.filter(isAlive), [])
})

function notRoot(): string | false {
  return process.getuid?.() === 0 ? false : 'an unprivileged daemon has no read-only socket'
}

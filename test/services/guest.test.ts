import t from 'tap'
import { guest, ownGuest } from '../support/services.js'

const { libvirtd: daemon, guest: healthy } = await guest(t)

t.test('a guest boots, answers its agent, and runs what it is told', async t => {
  t.same(await healthy.agent('guest-ping'), {})
  t.match(await healthy.execute('echo out; echo err >&2; exit 3'), { status: 3, stdout: 'out\n', stderr: 'err\n' })
  t.match((await healthy.execute('mount')).stdout, /\/dev\/vda on \/data type ext4/)
})

t.test('its memory statistics arrive', async t => {
  const { stdout } = await daemon.virsh('dommemstat', healthy.name)
  for (const name of ['actual', 'available', 'usable', 'unused', 'last_update', 'rss'])
    t.match(stdout, new RegExp(`^${name} [1-9][0-9]*$`, 'm'), name)
})

t.test('harm can be done to a guest', async t => {
  const victim = await ownGuest(t, daemon, { name: `victim-${process.pid}`, autostart: true })
  t.match((await daemon.virsh('dominfo', victim.name)).stdout, /Autostart: +enable/)

  await victim.suspend()
  t.equal(await victim.state(), 'paused (user)')
  await victim.resume()
  t.equal(await victim.state(), 'running (unpaused)')

  await victim.stopAgent(2)
  t.same(await victim.agent('guest-ping'), {}, 'a stopped agent answers when it goes on')
  await victim.endAgent()
  await t.rejects(victim.agent('guest-ping'), { message: /agent is not connected/ })

  victim.signal('SIGKILL')
  await victim.reaches('shut off (crashed)')
  t.equal(victim.pid(), undefined)
  await victim.start()
  t.same(await victim.agent('guest-ping'), {}, 'and it comes back')
})

t.test('a full disk pauses a guest with an I/O error that names the disk', { skip: notRoot() }, async t => {
  const victim = await ownGuest(t, daemon, { name: `full-${process.pid}`, diskSpaceMiB: 4 })
  await victim.fillDisk()
  t.equal((await daemon.virsh('domblkerror', victim.name)).stdout.trim(), 'vda: no space')
})

t.test('a guest without an agent boots too', async t => {
  const plain = await ownGuest(t, daemon, { name: `plain-${process.pid}`, agent: false })
  await t.rejects(plain.agent('guest-ping'), { message: /agent is not configured/ })
})

function notRoot(): string | false {
  return process.getuid?.() === 0 ? false : 'mounting a small file system needs root'
}

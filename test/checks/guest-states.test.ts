import { writeFileSync } from 'node:fs'
import { hostname } from 'node:os'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { programs } from '../../generated/programs.js'
import { Host } from '../../libvirt/host.js'
import { PendingReads } from '../../plugin/pending-reads.js'
import { runCheck } from '../../plugin/program.js'
import { MemoryState } from '../../plugin/state.js'
import type { Guest } from '../../scripts/services/guest.js'
import type { LibvirtdAccess } from '../../scripts/services/libvirtd.js'
import { ownGuest, ownLibvirtd } from '../support/services.js'

// Every check of guests over a real guest, in every state that a guest gets into: which checks notice, in which words, and that the others stay
// quiet.

/** What a check is asked besides `--guest`, where its defaults would wait longer than a test can. */
const moreOptions: Readonly<Record<string, readonly string[]>> = {
  'check-kvm-guest-frozen': ['--warning', '0'],
  // the writes of a test last too short a time to use all that a limit allows
  'check-kvm-disk-io': ['--throttled', '50'],
  // how busy and how full this machine is says nothing about the guest
  'check-kvm-disk': ['--warning', '~:', '--used-warning', '~:', '--used-critical', '~:'],
  'check-kvm-vcpu': ['--warning', '~:', '--critical', '~:', '--steal-warning', '~:', '--steal-critical', '~:'],
  'check-kvm-guest-vcpus': ['--warning', '~:', '--critical', '~:'],
}

/** Numbers that no test can foretell are written # in expected lines, milliseconds as seconds. */
const number = /(?<![\w-])\d+(\.\d+)?/g

/** The checks of one guest with what they remember of earlier runs, on a connection as in the agent. */
class GuestChecks {
  readonly #daemon: LibvirtdAccess
  readonly #guest: string
  readonly #state = new MemoryState()

  constructor(daemon: LibvirtdAccess, guest: string) {
    this.#daemon = daemon
    this.#guest = guest
  }

  /** The first lines of all checks that are not OK, by their names. */
  async notOk(): Promise<Record<string, string>> {
    const guestChecks = programs.filter(({ check }) => check.guests)
    const lines = await Promise.all(guestChecks.map(async program => [program.check.name, await this.#run(program)]))
    return Object.fromEntries(lines.filter(([, line]) => line !== undefined))
  }

  async #run(program: (typeof programs)[number]): Promise<string | undefined> {
    const options = [...(moreOptions[program.check.name] ?? []), '--uri', this.#daemon.uri, '--guest', this.#guest]
    const { output, status } = await runCheck(program, options, {
      openHost: async ({ uri, readOnly }) => Host.open(uri, { readOnly }),
      state: this.#state,
      pending: new PendingReads(),
      now: Date.now,
      hostname: hostname(),
      variables: {},
    })
    const [line = ''] = output.split('\n')
    return status === 0
      ? undefined
      : line
          .slice(program.check.name.length + 1)
          .replaceAll(number, '#')
          .replaceAll('# ms', '# s')
          // said when the last run was a second ago or more
          .replace(', seen so for # s', '')
  }
}

type Expected = Readonly<Record<string, string>>

/** Lets a guest get into a state, and looks who notices. */
type Step = [state: string, enter: () => Promise<unknown>, expected: Expected]

async function walk(t: Test, checks: GuestChecks, steps: readonly Step[]): Promise<void> {
  await checks.notOk() // rates are known from the second run on
  for (const [state, enter, expected] of steps) {
    await enter()
    t.same(await checks.notOk(), expected, state)
  }
}

const agentChecks = ['filesystem', 'frozen', 'interface', 'time', 'vcpus'].map(what => `check-kvm-guest-${what}`)

/** The same line from each of these checks. */
function all(checks: readonly string[], line: string): Expected {
  return Object.fromEntries(checks.map(name => [name, line]))
}

const nothing: Expected = {}
const noEnter = async () => undefined

t.test('a running guest', async t => {
  const daemon = await ownLibvirtd(t, { qemuSettings: ['save_image_format = "xz"'] }) // saving takes a while
  const guest = await ownGuest(t, daemon, { name: 'states' })
  const checks = new GuestChecks(daemon, guest.name)
  const frozen = 'its file systems are frozen, and its agent answers nothing else until they are thawed'
  const silent = 'UNKNOWN: states: its QEMU has not answered for # s'
  const hanging = 'its agent does not answer, for # s: restart qemu-guest-agent in it'
  const noAgent =
    "no agent configured: add <channel type='unix'><target type='virtio' name='org.qemu.guest_agent.#'/></channel>"
  const gone = 'its agent is not connected any more: install and start qemu-guest-agent in it'
  await walk(t, checks, [
    // see startAgain
    ['healthy', () => setClock(guest, 0), nothing],
    [
      'paused by a user',
      () => guest.suspend(),
      { 'check-kvm-state': 'WARNING: states: paused (user): continue it with virsh resume' },
    ],
    ['resumed', () => resume(guest), nothing],
    [
      'a file system filled from inside',
      () => inside(guest, 'fallocate -l 205M /data/fill && df -k /data'),
      { 'check-kvm-guest-filesystem': 'CRITICAL: states /data: in use # % of # MiB (critical above # %)' },
    ],
    ['room made', () => inside(guest, 'rm /data/fill; sync'), nothing],
    [
      'frozen file systems',
      async () => {
        await guest.agent('guest-fsfreeze-freeze')
        await checks.notOk() // how long is known from the second run on
      },
      {
        ...all(agentChecks, `UNKNOWN: states: ${frozen}: see check-kvm-guest-frozen`),
        'check-kvm-guest-frozen':
          'WARNING: states: file systems seen frozen for # s (no backup is running): thaw them with virsh domfsthaw (warning above # s)',
      },
    ],
    ['thawed', () => guest.agent('guest-fsfreeze-thaw'), nothing],
    [
      'a clock an hour ahead',
      () => setClock(guest, 3600),
      {
        'check-kvm-guest-time':
          'CRITICAL: states: clock ahead by at least # s (# s ± # s): set it with virsh domtime --now, and run a time service in it (critical above # s)',
      },
    ],
    ['the clock set', () => setClock(guest, 0), nothing],
    ['a throttled disk', () => throttle(daemon, guest, checks), nothing],
    ['no throttle', () => endThrottle(daemon, guest, checks), nothing],
    ['a backup running', () => beginBackup(daemon, guest), nothing],
    ['no backup', () => daemon.virsh('domjobabort', guest.name), nothing],
    ['being saved', () => beginSave(daemon, guest), nothing],
    ['no save', () => endSave(daemon, guest), nothing],
    [
      'a QEMU that does not answer',
      async () => {
        guest.signal('SIGSTOP')
        await checks.notOk() // the first question that is not answered starts the time
      },
      {
        ...all(
          ['check-kvm-disk', 'check-kvm-disk-error', 'check-kvm-disk-io', 'check-kvm-job', 'check-kvm-memory'],
          silent,
        ),
        ...all(agentChecks, `UNKNOWN: states: ${hanging}`),
        'check-kvm-guest-agent': `CRITICAL: states: ${hanging}`,
        'check-kvm-monitor': 'WARNING: states: its QEMU has not answered for # s (warning above # s)',
      },
    ],
    ['QEMU goes on', () => goOn(guest), nothing],
    [
      'an agent that hangs',
      () => guest.stopAgent(10),
      { ...all(agentChecks, `UNKNOWN: states: ${hanging}`), 'check-kvm-guest-agent': `CRITICAL: states: ${hanging}` },
    ],
    [
      'an agent that is gone',
      () => guest.endAgent(),
      { ...all(agentChecks, `UNKNOWN: states: ${gone}`), 'check-kvm-guest-agent': `CRITICAL: states: ${gone}` },
    ],
    [
      'QEMU killed',
      () => kill(guest),
      {
        'check-kvm-state':
          "CRITICAL: states: shut off (crashed): its QEMU ended by itself: see QEMU's log, then virsh start",
      },
    ],
    ['started again', () => startAgain(guest), nothing],
    [
      'panicked',
      () => panic(guest),
      { 'check-kvm-state': 'CRITICAL: states: crashed (panicked): see its console, then virsh destroy and start' },
    ],
  ])

  const full = await ownGuest(t, daemon, { name: 'full', diskSpaceMiB: 20 })
  await walk(t, new GuestChecks(daemon, full.name), [
    [
      'paused by a full disk',
      () => full.fillDisk(),
      {
        // its disk is where only its libvirtd sees it, and so in no place that this check may judge
        'check-kvm-disk':
          'UNKNOWN: images of full vda: /run/small-disks/full is not here: is it mounted, or is this a container?',
        'check-kvm-disk-error':
          'CRITICAL: full vda: no space (/run/small-disks/full/disk.qcow2), and the guest is paused: make room, then virsh resume',
        'check-kvm-state':
          'CRITICAL: full: paused (I/O error), disk vda: no space (/run/small-disks/full/disk.qcow2): make room or repair the storage, then virsh resume',
      },
    ],
  ])

  const lonely = await ownGuest(t, daemon, { name: 'lonely', agent: false })
  await walk(t, new GuestChecks(daemon, lonely.name), [
    [
      'without an agent',
      noEnter,
      {
        ...all(agentChecks, `UNKNOWN: lonely: ${noAgent}`),
        'check-kvm-guest-agent': `WARNING: lonely: ${noAgent}`,
      },
    ],
  ])

  const idle = await ownGuest(t, daemon, { name: 'idle', autostart: true, start: false })
  await walk(t, new GuestChecks(daemon, idle.name), [
    [
      'not running though it starts with the host',
      noEnter,
      {
        'check-kvm-state': 'CRITICAL: idle: shut off (unknown), though it is to start with the host: virsh start',
      },
    ],
  ])
})

async function inside(guest: Guest, command: string): Promise<void> {
  const { status, stdout, stderr } = await guest.execute(command)
  if (status !== 0) throw new Error(`"${command}" ended with ${status}: ${stdout}${stderr}`)
}

/** Sets the guest's clock, which takes whole seconds, when the host's begins one. */
async function setClock(guest: Guest, aheadSeconds: number): Promise<void> {
  const second = Math.ceil(Date.now() / 1000)
  await pause(second * 1000 - Date.now())
  await inside(guest, `date -s @${second + aheadSeconds}`)
}

/** Its clock has stood still while it was paused. */
async function resume(guest: Guest): Promise<void> {
  await guest.resume()
  await setClock(guest, 0)
}

/** Limits the disk and keeps it busy at that limit from before a run of the checks to after it. */
async function throttle(daemon: LibvirtdAccess, guest: Guest, checks: GuestChecks): Promise<void> {
  await daemon.virsh('blkdeviotune', guest.name, 'vda', '--total-iops-sec', '5')
  await inside(guest, 'dd if=/dev/zero of=/data/slow bs=4k count=40 oflag=direct >/dev/null 2>&1 &')
  await checks.notOk()
  await inside(guest, 'dd if=/dev/zero of=/data/slower bs=4k count=10 oflag=direct')
}

async function endThrottle(daemon: LibvirtdAccess, guest: Guest, checks: GuestChecks): Promise<void> {
  await daemon.virsh('blkdeviotune', guest.name, 'vda', '--total-iops-sec', '0')
  await inside(guest, 'while pidof dd; do sleep 0.1; done; sync')
  await checks.notOk() // what was slow is over
}

/** A backup that lasts: it waits for somebody to fetch it. */
async function beginBackup(daemon: LibvirtdAccess, guest: Guest): Promise<void> {
  const folder = folderOf(daemon, guest)
  const file = join(folder, 'backup.xml')
  writeFileSync(
    file,
    `<domainbackup mode='pull'><server transport='unix' socket='${folder}/backup.sock'/>
    <disks><disk name='vda' type='file'><scratch file='${folder}/scratch.qcow2'/></disk></disks></domainbackup>`,
  )
  await daemon.virsh('backup-begin', guest.name, file)
}

async function beginSave(daemon: LibvirtdAccess, guest: Guest): Promise<void> {
  daemon.virsh('save', guest.name, join(folderOf(daemon, guest), 'saved')).catch(() => undefined) // it will be aborted
  await guest.reaches('paused (saving)')
}

async function endSave(daemon: LibvirtdAccess, guest: Guest): Promise<void> {
  await daemon.virsh('domjobabort', guest.name)
  await guest.reaches('running (save canceled)')
  await setClock(guest, 0)
}

function folderOf(daemon: LibvirtdAccess, guest: Guest): string {
  return join(daemon.directory, 'guests', guest.name)
}

async function goOn(guest: Guest): Promise<void> {
  guest.signal('SIGCONT')
  await setClock(guest, 0)
}

async function kill(guest: Guest): Promise<void> {
  guest.signal('SIGKILL')
  await guest.reaches('shut off (crashed)')
}

/** Without hardware KVM a guest's clock starts up to two seconds late. */
async function startAgain(guest: Guest): Promise<void> {
  await guest.start()
  await setClock(guest, 0)
}

async function panic(guest: Guest): Promise<void> {
  await guest.execute('(sleep 0.2; echo c > /proc/sysrq-trigger) >/dev/null 2>&1 &')
  await guest.reaches('crashed (panicked)')
}

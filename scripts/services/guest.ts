import {
  accessSync,
  constants,
  copyFileSync,
  existsSync,
  mkdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import type { GuestImage } from './guest-image.js'
import type { LibvirtdAccess } from './libvirtd.js'
import { waitUntil } from './process.js'

/** What a guest is made of. */
export interface GuestOptions {
  image: GuestImage
  /** Unique in its libvirtd; letters, digits, `.`, `_` and `-`. */
  name: string
  memoryMiB?: number
  /** Marked to be started with the host. */
  autostart?: boolean
  /** Whether it has a guest agent's channel (and so the agent). Default: yes. */
  agent?: boolean
  /** Whether it is started, and its boot waited for. Default: yes. */
  start?: boolean
  /** Puts its disk on a file system of this size, so that `fillDisk` ends in an I/O error. Needs root. */
  diskSpaceMiB?: number
  /** A last change to the domain's XML before it is defined. */
  transform?: (xml: string) => string
}

/** What a program inside the guest printed. */
export interface GuestOutput {
  status: number
  stdout: string
  stderr: string
}

/** A real guest of a private libvirtd. */
export interface Guest {
  readonly name: string
  readonly uuid: string
  /** QEMU's process id; undefined when the guest does not run. */
  pid(): number | undefined
  /** State and reason as virsh prints them: `running (booted)`. */
  state(): Promise<string>
  /** Waits until `state()` is this. */
  reaches(state: string): Promise<void>
  /** Asks the guest agent; the answer's `return` member. */
  agent(command: string, parameters?: Record<string, unknown>): Promise<unknown>
  /** Runs a shell command inside the guest, through its agent. */
  execute(command: string): Promise<GuestOutput>
  /** Starts it (again) and waits until it has booted. */
  start(): Promise<void>
  /** Pauses and continues its CPUs, as `virsh suspend` and `resume`. */
  suspend(): Promise<void>
  resume(): Promise<void>
  /** Sends a signal to QEMU: SIGSTOP (its monitor does not answer), SIGCONT, SIGKILL (the guest "crashed"). */
  signal(signal: NodeJS.Signals): void
  /** The agent inside stops answering for that time although its channel stays connected. */
  stopAgent(seconds: number): Promise<void>
  /** The agent inside ends and does not come back: its channel is disconnected. */
  endAgent(): Promise<void>
  /** Writes to its disk until the host's space is used up (needs `diskSpaceMiB`): the guest pauses with an I/O error. */
  fillDisk(): Promise<void>
  /** Switches it off hard; it stays defined. */
  destroy(): Promise<void>
  /** Switches it off, undefines it and removes its files. */
  stop(): Promise<void>
}

const bootTimeoutMs = 120_000
const stateTimeoutMs = 30_000
const agentTimeoutSeconds = 10

/** Defines a guest and, by default, starts it; returns when its agent answers (4 to 12 s without hardware KVM). */
export async function startGuest(libvirtd: LibvirtdAccess, options: GuestOptions): Promise<Guest> {
  const guest = new PrivateGuest(libvirtd, options)
  try {
    await guest.define()
    if (options.start !== false) await guest.start()
    return guest
  } catch (error) {
    await guest.stop().catch(() => {}) // the first error tells more
    throw error
  }
}

/** Gives access to a guest that this or another process started in that libvirtd. */
export function accessGuest(libvirtd: LibvirtdAccess, options: GuestOptions, uuid: string): Guest {
  return new PrivateGuest(libvirtd, options, uuid)
}

/** Whether QEMU can use hardware virtualisation here. /dev/kvm alone does not say so: nested software KVM has it too. */
export function hasHardwareKvm(): boolean {
  if (!['kvm_intel', 'kvm_amd'].some(module => existsSync(`/sys/module/${module}`))) return false
  try {
    accessSync('/dev/kvm', constants.R_OK | constants.W_OK)
    return true
  } catch {
    return false
  }
}

class PrivateGuest implements Guest {
  readonly name: string
  readonly #libvirtd: LibvirtdAccess
  readonly #options: GuestOptions
  readonly #folder: string
  #uuid: string

  constructor(libvirtd: LibvirtdAccess, options: GuestOptions, uuid = '') {
    if (!/^[\w.-]+$/.test(options.name)) throw new Error(`a test guest's name needs plain letters: ${options.name}`)
    this.name = options.name
    this.#uuid = uuid
    this.#libvirtd = libvirtd
    this.#options = options
    this.#folder = join(libvirtd.directory, 'guests', options.name)
  }

  get uuid(): string {
    return this.#uuid
  }

  async define(): Promise<void> {
    const { image, diskSpaceMiB, autostart, transform = (xml: string) => xml } = this.#options
    mkdirSync(this.#folder, { recursive: true })
    const disk = join(diskSpaceMiB === undefined ? this.#folder : this.#smallFolder, 'disk.qcow2')
    if (diskSpaceMiB === undefined) copyFileSync(image.disk, disk)
    else await this.#makeSmallFolder(diskSpaceMiB, disk)
    const xml = transform(domainXml(this.#options, disk, this.#console))
    const file = join(this.#folder, 'domain.xml')
    writeFileSync(file, xml)
    await this.#virsh('define', file)
    this.#uuid = (await this.#virsh('domuuid', this.name)).trim()
    if (autostart) await this.#virsh('autostart', this.name)
  }

  get #console(): string {
    return join(this.#folder, 'console.log')
  }

  /** A folder that only the guests of this libvirtd see; it goes with their mount namespace. */
  get #smallFolder(): string {
    return `/run/small-disks/${this.name}`
  }

  async #makeSmallFolder(sizeMiB: number, disk: string): Promise<void> {
    const libvirtd = this.#libvirtd
    await libvirtd.runInside('mkdir', ['-p', this.#smallFolder])
    await libvirtd.runInside('mount', ['-t', 'tmpfs', '-o', `size=${sizeMiB}m`, 'small', this.#smallFolder])
    await libvirtd.runInside('cp', [this.#options.image.disk, disk])
  }

  async #virsh(...args: string[]): Promise<string> {
    return (await this.#libvirtd.virsh(...args)).stdout
  }

  async start(): Promise<void> {
    rmSync(this.#console, { force: true })
    await this.#virsh('start', this.name)
    const limits = { timeoutMs: bootTimeoutMs, intervalMs: 200 }
    const booted =
      this.#options.agent === false
        ? () => (readFileSync(this.#console, 'latin1').includes('INIT: ready') ? true : undefined)
        : () => this.#askAgent(2, 'guest-ping').then(() => true)
    try {
      await waitUntil(`guest ${this.name} has booted`, booted, limits)
    } catch (error) {
      const console = existsSync(this.#console) ? readFileSync(this.#console, 'latin1').slice(-1500) : ''
      throw new Error(`${error instanceof Error ? error.message : String(error)}\nits console says:\n${console}`)
    }
  }

  pid(): number | undefined {
    const folder = join(this.#libvirtd.directory, this.#libvirtd.session ? 'run/libvirt/qemu/run' : 'run/qemu')
    try {
      const pid = Number(readFileSync(join(folder, `${this.name}.pid`), 'latin1'))
      return this.#libvirtd.processes().includes(pid) ? pid : undefined
    } catch {
      return undefined
    }
  }

  async state(): Promise<string> {
    return (await this.#virsh('domstate', '--reason', this.name)).trim()
  }

  async reaches(state: string): Promise<void> {
    let seen = ''
    const probe = async () => {
      seen = await this.state()
      if (seen !== state) throw new Error(`it is ${seen}`)
      return true
    }
    await waitUntil(`guest ${this.name} is ${state}`, probe, { timeoutMs: stateTimeoutMs, intervalMs: 100 })
  }

  agent(command: string, parameters?: Record<string, unknown>): Promise<unknown> {
    return this.#askAgent(agentTimeoutSeconds, command, parameters)
  }

  async #askAgent(timeoutSeconds: number, command: string, parameters?: Record<string, unknown>): Promise<unknown> {
    const request = JSON.stringify({ execute: command, arguments: parameters })
    const limit = ['--timeout', String(timeoutSeconds)]
    const reply: unknown = JSON.parse(await this.#virsh('qemu-agent-command', ...limit, this.name, request))
    return member(reply, 'return')
  }

  async execute(command: string): Promise<GuestOutput> {
    const parameters = { path: '/bin/sh', arg: ['-c', command], 'capture-output': true }
    const pid = member(await this.agent('guest-exec', parameters), 'pid')
    const probe = async () => {
      const status = await this.agent('guest-exec-status', { pid })
      return member(status, 'exited') === true ? status : undefined
    }
    const status = await waitUntil(`"${command}" ended in guest ${this.name}`, probe, {
      timeoutMs: stateTimeoutMs,
      intervalMs: 50,
    })
    const text = (name: string) => Buffer.from(String(member(status, name) ?? ''), 'base64').toString()
    return { status: Number(member(status, 'exitcode') ?? -1), stdout: text('out-data'), stderr: text('err-data') }
  }

  async suspend(): Promise<void> {
    await this.#virsh('suspend', this.name)
  }

  async resume(): Promise<void> {
    await this.#virsh('resume', this.name)
  }

  signal(signal: NodeJS.Signals): void {
    const pid = this.pid()
    if (pid === undefined) throw new Error(`guest ${this.name} has no QEMU to send ${signal}`)
    process.kill(pid, signal)
  }

  async stopAgent(seconds: number): Promise<void> {
    // told by its console: an agent that is well may not answer in time either on a busy machine
    const mark = `agent stopped ${process.hrtime.bigint()}`
    const stop = `kill -STOP $(pidof qemu-ga); echo ${mark} >/dev/ttyS0`
    await this.#leaveInside(`${stop}; sleep ${seconds}; kill -CONT $(pidof qemu-ga)`)
    await this.#agentIs('stopped', async () => readFileSync(this.#console, 'latin1').includes(mark) || undefined)
  }

  async endAgent(): Promise<void> {
    await this.#leaveInside('touch /tmp/no-agent; kill -9 $(pidof qemu-ga)')
    const state = `name='org.qemu.guest_agent.0' state='disconnected'`
    const probe = () => this.#virsh('dumpxml', this.name).then(xml => xml.includes(state) || undefined)
    await this.#agentIs('disconnected', probe)
  }

  /** Starts commands inside that take the agent's answer away from us, perhaps before it is sent. */
  async #leaveInside(commands: string): Promise<void> {
    const parameters = { path: '/bin/sh', arg: ['-c', `(sleep 0.1; ${commands}) >/dev/null 2>&1 &`] }
    await this.agent('guest-exec', parameters).catch(() => {})
  }

  async #agentIs(state: string, probe: () => Promise<true | undefined>): Promise<void> {
    await waitUntil(`the agent of guest ${this.name} is ${state}`, probe, {
      timeoutMs: stateTimeoutMs,
      intervalMs: 100,
    })
  }

  async fillDisk(): Promise<void> {
    if (this.#options.diskSpaceMiB === undefined) throw new Error(`guest ${this.name} has a disk that cannot be filled`)
    await this.execute('(dd if=/dev/urandom of=/data/fill bs=64k count=4000; sync) >/dev/null 2>&1 &')
    await this.reaches('paused (I/O error)')
  }

  async destroy(): Promise<void> {
    await this.#virsh('destroy', this.name)
  }

  async stop(): Promise<void> {
    if (!existsSync(this.#libvirtd.socket)) return // it went with its libvirtd
    if (this.pid() !== undefined) {
      this.signal('SIGCONT')
      await this.destroy()
    }
    if (this.#uuid !== '') await this.#virsh('undefine', this.name, '--snapshots-metadata', '--managed-save')
    if (this.#options.diskSpaceMiB !== undefined) await this.#libvirtd.runInside('umount', [this.#smallFolder])
    rmSync(this.#folder, { recursive: true, force: true })
  }
}

/** One member of an answer whose shape is not ours. */
function member(value: unknown, name: string): unknown {
  if (typeof value !== 'object' || value === null) return undefined
  return Object.entries(value).find(([key]) => key === name)?.[1]
}

const kernelParameters = [
  ...['console=ttyS0', 'quiet', 'panic=1', 'random.trust_cpu=on', 'no_timer_check', 'tsc=reliable', '8250.nr_uarts=1'],
  ...['nokaslr', 'mitigations=off', 'cryptomgr.notests'], // 1.7 s less to boot without hardware KVM
]

function domainXml(options: GuestOptions, disk: string, console: string): string {
  const { name, image, memoryMiB = 256 } = options
  const hardware = hasHardwareKvm()
  const cpu = hardware
    ? `<cpu mode='host-passthrough' check='none'/>`
    : `<cpu mode='custom' match='exact' check='none'><model fallback='allow'>qemu64</model></cpu>`
  const agent =
    options.agent === false
      ? ''
      : `<controller type='virtio-serial' index='0'/>
    <channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>`
  return `<domain type='${hardware ? 'kvm' : 'qemu'}'>
  <name>${name}</name>
  <memory unit='MiB'>${memoryMiB}</memory>
  <vcpu current='1'>2</vcpu>
  <os>
    <type arch='x86_64' machine='pc'>hvm</type>
    <kernel>${escapeXml(image.kernel)}</kernel>
    <initrd>${escapeXml(image.initrd)}</initrd>
    <cmdline>${kernelParameters.join(' ')} guest_name=${name}</cmdline>
  </os>
  <features><acpi/><apic/></features>
  ${cpu}
  <clock offset='utc'/>
  <on_poweroff>destroy</on_poweroff>
  <on_reboot>restart</on_reboot>
  <on_crash>preserve</on_crash>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <disk type='file' device='disk'>
      <driver name='qemu' type='qcow2' error_policy='stop'/>
      <source file='${escapeXml(disk)}'/>
      <target dev='vda' bus='virtio'/>
    </disk>
    <interface type='user'><model type='virtio'/><rom enabled='no'/></interface>
    <controller type='usb' model='none'/>
    ${agent}
    <serial type='file'><source path='${escapeXml(console)}'/><target port='0'/></serial>
    <memballoon model='virtio'><stats period='1'/></memballoon>
    <panic model='isa'/>
    <video><model type='none'/></video>
  </devices>
</domain>
`
}

function escapeXml(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll("'", '&apos;')
}

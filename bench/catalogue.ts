import { mkdtempSync, rmSync } from 'node:fs'
import { freemem, tmpdir } from 'node:os'
import { join } from 'node:path'
import { SharedHosts } from '../agent/shared-hosts.js'
import { programs } from '../generated/programs.js'
import { PendingReads } from '../plugin/pending-reads.js'
import { type RunResult, runCheck } from '../plugin/program.js'
import { MemoryState } from '../plugin/state.js'
import { type Guest, startGuest } from '../scripts/services/guest.js'
import type { GuestImage } from '../scripts/services/guest-image.js'
import type { Libvirtd } from '../scripts/services/libvirtd.js'
import { guests as guestsText } from './bulk-statistics.js'
import { childrenCpuMs, median, type Row, runProcess, timed } from './measure.js'
import { startReplay } from './replay.js'

/** The same questions as one virsh command each; `GUEST` is asked of every guest. What is not here has no such command. */
const virshCommands: Readonly<Record<string, readonly (readonly string[])[]>> = {
  'check-kvm-state': [
    ['domstats', '--state'],
    ['list', '--all', '--autostart'],
  ],
  'check-kvm-memory': [['domstats', '--state', '--balloon']],
  'check-kvm-vcpu': [['domstats', '--state', '--vcpu', '--cpu-total']],
  'check-kvm-disk-io': [['domstats', '--state', '--block']],
  'check-kvm-monitor': [['domstats', '--state', '--balloon', '--iothread']],
  'metrics-kvm': [['domstats'], ['nodecpustats'], ['nodememstats'], ['nodeinfo']],
  'check-kvm-guest-agent': [
    ['qemu-agent-command', 'GUEST', '{"execute":"guest-ping"}'],
    ['qemu-agent-command', 'GUEST', '{"execute":"guest-info"}'],
  ],
  'check-kvm-guest-filesystem': [['guestinfo', 'GUEST', '--filesystem']],
  'check-kvm-guest-frozen': [['qemu-agent-command', 'GUEST', '{"execute":"guest-fsfreeze-status"}']],
  'check-kvm-guest-time': [['domtime', 'GUEST']],
  'check-kvm-guest-vcpus': [['guestvcpus', 'GUEST']],
  'check-kvm-disk-error': [['domblkerror', 'GUEST']],
  'check-kvm-job': [['domjobinfo', 'GUEST']],
}

/** One pass over a set of checks. */
interface Pass {
  readonly wallMs: number
  readonly cpuMs: number
  readonly calls: number
}

interface Place {
  readonly uri: string
  readonly count: number
  /** Names of the real guests; none where they are replayed. */
  readonly realGuests: readonly string[]
  nextRound(): Promise<void>
}

const passes = 5
const executablePasses = 2

/** What ten real guests need, with some room. */
const memoryForTenMiB = 4096

export interface RealGuests {
  readonly libvirtd: Libvirtd
  readonly image: GuestImage
  /** Runs already, and is the only one. */
  readonly guest: Guest
}

/**
 * Every check that asks libvirt of guests, over 1 and 10 real guests (10 replayed ones where memory is short) and 1,000 replayed ones: inside one process
 * and as executables, against virsh. The nine more guests are stopped at the end.
 */
export async function benchCatalogue(root: string, { libvirtd, image, guest }: RealGuests): Promise<Row[]> {
  const real = (guests: readonly Guest[]): Place => {
    const realGuests = guests.map(({ name }) => name)
    return { uri: libvirtd.uri, count: guests.length, realGuests, nextRound: async () => undefined }
  }
  const rows = await benchPlace(root, real([guest]))
  if (freemem() < memoryForTenMiB * 1024 ** 2) rows.push(...(await benchReplayed(root, 10)))
  else {
    const more: Guest[] = []
    try {
      for (let number = 2; number <= 10; number++)
        more.push(await startGuest(libvirtd, { image, name: `bench${number}` }))
      rows.push(...(await benchPlace(root, real([guest, ...more]))))
    } finally {
      for (const each of more) await each.stop()
    }
  }
  return [...rows, ...(await benchReplayed(root, 1000))]
}

async function benchReplayed(root: string, count: number): Promise<Row[]> {
  const { socketPath, nextRound, stop } = await startReplay(count)
  try {
    return await benchPlace(root, { uri: `qemu+unix:///system?socket=${socketPath}`, count, realGuests: [], nextRound })
  } finally {
    await stop()
  }
}

async function benchPlace(root: string, place: Place): Promise<Row[]> {
  const names = programs.flatMap(({ check }) => (check.guests ? [check.name] : []))
  // Of replayed guests virsh asks only what bulk statistics hold: for the rest it would ask each guest by a process.
  const compared = Object.entries(virshCommands)
    .filter(([name, commands]) => names.includes(name) && (place.realGuests.length > 0 || commands.every(isBulk)))
    .map(([name]) => name)
  const where = `${guestsText(place.count)}, ${place.realGuests.length === 0 ? 'replayed' : 'real'}`
  const inside = await inProcess(place, compared)
  const all = await inProcess(place, names)
  const alone = await asExecutables(root, place, compared)
  const questions = virshQuestions(place, compared)
  const virsh = await askVirsh(place, questions)
  const figures = (pass: Pass) => `${pass.cpuMs.toFixed(0)} ms CPU, ${pass.calls} libvirt calls`
  const peer = `virsh, ${questions.length} questions`
  const subject = `${compared.length} checks of guests, ${where}`
  const common = { unit: 'ms', loopLagMs: undefined } as const
  return [
    {
      ...common,
      subject: `${subject}, in one process`,
      ours: inside.wallMs,
      peer,
      theirs: virsh.wallMs,
      note: `${figures(inside)}; virsh ${virsh.cpuMs.toFixed(0)} ms CPU`,
    },
    {
      ...common,
      subject: `${subject}, as executables`,
      ours: alone.wallMs,
      peer,
      theirs: virsh.wallMs,
      note: `${alone.cpuMs.toFixed(0)} ms CPU`,
    },
    {
      ...common,
      subject: `all ${names.length} checks of guests, ${where}, CPU in one process`,
      ours: all.cpuMs,
      peer: '',
      theirs: undefined,
      ...(place.count === 1000 ? { target: '< 1 s CPU' } : {}),
      note: `${all.wallMs.toFixed(0)} ms, ${all.calls} libvirt calls; ${dearest(all.perCheck)}`,
    },
  ]
}

function isBulk([command]: readonly string[]): boolean {
  return command === 'domstats' || command === 'list'
}

/** The checks that took most, by CPU time. */
function dearest(perCheck: ReadonlyMap<string, Pass>): string {
  const sorted = [...perCheck].sort(([, a], [, b]) => b.cpuMs - a.cpuMs).slice(0, 4)
  return sorted.map(([name, { cpuMs, calls }]) => `${name} ${cpuMs.toFixed(0)} ms CPU and ${calls} calls`).join(', ')
}

/** Runs checks one after the other on one Host, as the agent does; the median pass of several, and what each check took in the last. */
async function inProcess(place: Place, names: readonly string[]): Promise<Pass & { perCheck: Map<string, Pass> }> {
  let calls = 0
  const hosts = new SharedHosts({ onCall: () => calls++ })
  const state = new MemoryState()
  const openHost = (options: Parameters<SharedHosts['open']>[0]) => hosts.open(options)
  const environment = { openHost, state, pending: new PendingReads(), now: Date.now, hostname: 'bench', variables: {} }
  const perCheck = new Map<string, Pass>()
  const pass = async (): Promise<Pass> => {
    await place.nextRound()
    for (const program of programs.filter(({ check }) => names.includes(check.name))) {
      const before = calls
      const cpu = process.cpuUsage()
      const wallMs = await timed(async () => refuseFailed(await runCheck(program, ['--uri', place.uri], environment)))
      const { user, system } = process.cpuUsage(cpu)
      perCheck.set(program.check.name, { wallMs, cpuMs: (user + system) / 1000, calls: calls - before })
    }
    const sum = (field: keyof Pass) => [...perCheck.values()].reduce((total, each) => total + each[field], 0)
    return { wallMs: sum('wallMs'), cpuMs: sum('cpuMs'), calls: sum('calls') }
  }
  try {
    for (let warmUp = 0; warmUp < 3; warmUp++) await pass()
    const taken: Pass[] = []
    for (let turn = 0; turn < passes; turn++) taken.push(await pass())
    const middle = (field: keyof Pass) => median(taken.map(each => each[field]))
    return { wallMs: middle('wallMs'), cpuMs: middle('cpuMs'), calls: middle('calls'), perCheck }
  } finally {
    await hosts.close()
  }
}

/** A check that could not ask would be quick. */
function refuseFailed({ output, status }: RunResult): void {
  if (status === 3 && /internal error|cannot |not supported/.test(output.split('\n')[0] ?? ''))
    throw new Error(output.slice(0, 300))
}

async function asExecutables(root: string, place: Place, names: readonly string[]): Promise<Pass> {
  const directory = mkdtempSync(join(tmpdir(), 'sk-bench-'))
  try {
    const run = async () => {
      for (const name of names) {
        const args = [join(root, 'dist/bin', name), '--uri', place.uri, '--state-dir', directory]
        await runProcess(process.execPath, args, [0, 1, 2, 3])
      }
    }
    return await childPass(run)
  } finally {
    rmSync(directory, { recursive: true })
  }
}

/** One command for each question; what is asked of a guest is asked of every one. */
function virshQuestions({ realGuests }: Place, names: readonly string[]): (readonly string[])[] {
  return names
    .flatMap(name => virshCommands[name] ?? [])
    .flatMap(command =>
      command.includes('GUEST')
        ? realGuests.map(guest => command.map(word => (word === 'GUEST' ? guest : word)))
        : [command],
    )
}

function askVirsh({ uri }: Place, questions: readonly (readonly string[])[]): Promise<Pass> {
  return childPass(async () => {
    for (const question of questions) await runProcess('virsh', ['-q', '-c', uri, ...question], [0, 1])
  })
}

/** The median of several runs of something that starts processes, with their CPU time. */
async function childPass(run: () => Promise<void>): Promise<Pass> {
  await run()
  const taken: Pass[] = []
  for (let turn = 0; turn < executablePasses; turn++) {
    const before = childrenCpuMs()
    const wallMs = await timed(run)
    taken.push({ wallMs, cpuMs: childrenCpuMs() - before, calls: 0 })
  }
  return {
    wallMs: median(taken.map(({ wallMs }) => wallMs)),
    cpuMs: median(taken.map(({ cpuMs }) => cpuMs)),
    calls: 0,
  }
}

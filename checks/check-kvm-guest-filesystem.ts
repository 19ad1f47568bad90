import { askAgents } from '../libvirt/guest-agents.js'
import { readGuestLimits } from '../libvirt/guest-configs.js'
import { type MountedFilesystem, mountedFilesystems, readOnlyMounts } from '../libvirt/guest-filesystems.js'
import type { Host } from '../libvirt/host.js'
import { type AskedGuest, agentOptions, judgeAnswers, surveyAgents, unansweredText } from '../plugin/agent-answers.js'
import { defineCheck } from '../plugin/check.js'
import { guestLimitsOption } from '../plugin/limits.js'
import type { OptionTable, OptionValues } from '../plugin/options.js'
import { Verdict } from '../plugin/outcome.js'
import { partOf } from '../plugin/state.js'
import { formatQuantity } from '../plugin/text.js'
import { fullIn, trendsOf } from '../plugin/trend.js'

const name = 'check-kvm-guest-filesystem'

/** What one guest's agent tells. */
interface Mounts {
  readonly filesystems: readonly Filesystem[]
  /** The mount points that are read-only, or in words why that is not known; absent when it was not asked for. */
  readonly readOnly?: readonly string[] | string | undefined
}

/** A file system and how it grows. */
export interface Filesystem extends MountedFilesystem {
  /** Growth of what is in use, in bytes per second; absent until there is enough history. */
  readonly perSecond?: number | undefined
}

/** One guest and its file systems. */
export type GuestMounts = AskedGuest<Mounts>

const options = {
  warning: { type: 'range', alias: 'w', default: '85', summary: 'Warn outside this range (% in use).' },
  critical: { type: 'range', alias: 'c', default: '95', summary: 'Critical outside this range (% in use).' },
  fullWarning: { type: 'range', default: '24:', summary: 'Warn outside this range (hours until it is full).' },
  fullCritical: { type: 'range', default: '4:', summary: 'Critical outside this range (hours until it is full).' },
  history: {
    type: 'duration',
    default: '1h',
    summary: 'Foretell when it is full from growth over at least this time.',
  },
  mount: { type: 'regex', summary: 'Look only at mount points that match.' },
  excludeMount: { type: 'regex', summary: 'Leave out mount points that match.' },
  type: { type: 'regex', summary: 'Look only at types of file systems that match, such as ^(ext4|xfs)$.' },
  excludeType: {
    type: 'regex',
    default: '^(squashfs|iso9660|udf|erofs|cramfs|romfs|tmpfs|devtmpfs|ramfs|overlay|autofs|CDFS|UDF)$',
    summary: 'Leave out types of file systems that match.',
  },
  readOnlyMounts: {
    type: 'flag',
    summary: 'Critical for file systems mounted read-only, by reading /proc/1/mounts in the guests (Linux).',
  },
  expectReadOnly: { type: 'regex', summary: 'With --read-only-mounts, mount points that are meant to be read-only.' },
  ...agentOptions,
  ...guestLimitsOption,
} as const satisfies OptionTable
type Options = OptionValues<typeof options>

export default defineCheck({
  name,
  summary:
    "File systems in the guests: how full, and when they will be, as the guests' agents report it (guest-get-fsinfo).",
  description: `In use is what df shows: of the space that unprivileged users may have. A file system that is mounted in several places is looked at once, at the shortest of them. Agents tell of what is on block devices
only: network file systems and those in memory are not among it. An agent before qemu-ga 3.0 tells no sizes; that is UNKNOWN.

When a file system will be full is foretold from its growth over the last one to two \`--history\`, and of the two halves of that time from the one in which it grew slower: a single large file is no trend. Run the
check at least four times in that time, for it keeps amounts from run to run; until then it says "collecting".

Neither libvirt nor guest-get-fsinfo tells whether a file system is mounted read-only, as Linux does after errors of a disk. With \`--read-only-mounts\` the check reads the guests' /proc/1/mounts with their
agents' file commands. libvirt has no call of its own for these and marks the guest as tainted (\`custom-ga-command\`), some distributions disable them (then UNKNOWN), and Windows has no such file.

${unansweredText}

One libvirt call for any number of guests, one for each running one (its agent's; three more with \`--read-only-mounts\`), and one more for each whose agent does not answer.`,
  guests: true,
  readWrite: true,
  options,
  async collect(host: Host, asked, context): Promise<readonly GuestMounts[]> {
    const { signal, stage, state } = context
    stage('listing guests')
    const listing = await host.domainStats({ groups: ['state'], signal })
    const guests = await surveyAgents(listing, asked.grace, context, {
      ask: running =>
        askAgents(
          host,
          running,
          async (ask, guest, limits): Promise<Mounts> => {
            const filesystems = mountedFilesystems(await host.domainGuestInfo(guest, ['filesystem'], limits))
            return {
              filesystems: wanted(filesystems, asked),
              readOnly: asked.readOnlyMounts ? await readOnlyMounts(ask) : undefined,
            }
          },
          context,
        ),
      limits: asked.guestLimits ? running => readGuestLimits(host, running, name, signal) : undefined,
    })
    const trends = await trendsOf(partOf(state, 'trends'), listing.takenAtMs, usedBytesOf(guests), asked.history)
    return guests.map(guest => withTrends(guest, trends))
  },
  evaluate(guests, asked) {
    const verdict = new Verdict()
    const seen: Seen[] = []
    const others = judgeAnswers(verdict, guests, asked, ({ name }, { filesystems, readOnly }, limits) => {
      judgeReadOnly(verdict, name, filesystems, readOnly, asked.expectReadOnly)
      seen.push(...judgeFilesystems(verdict, name, filesystems, limits))
    })
    const mistake = patternWithoutMatch(guests, asked)
    if (mistake !== undefined) verdict.add({ status: 'UNKNOWN', message: mistake })
    verdict.summary = [...summaryOf(seen, asked.history), ...others].join('; ')
    return verdict
  },
})

/** A file system that was judged, for the summary. */
interface Seen {
  readonly place: string
  readonly usedPercent: number
  readonly isCollecting: boolean
}

function summaryOf(seen: readonly Seen[], historySeconds: number): string[] {
  const [fullest] = seen.toSorted((one, other) => other.usedPercent - one.usedPercent)
  if (fullest === undefined) return ['no file system to look at']
  const number = `${seen.length} ${seen.length === 1 ? 'file system' : 'file systems'}`
  const collecting = seen.filter(({ isCollecting }) => isCollecting).length
  return [
    `highest use ${formatQuantity(fullest.usedPercent, '%')} (${fullest.place}) of ${number}`,
    ...(collecting === 0 ? [] : [`growth of ${collecting}: collecting for ${formatQuantity(historySeconds, 's')}`]),
  ]
}

/** A pattern that matches nothing is more often a typing error than a wish. */
function patternWithoutMatch(guests: readonly GuestMounts[], { mount, type }: Options): string | undefined {
  const answers = guests.flatMap(({ answer }) => (answer.kind === 'answered' ? [answer.value] : []))
  if (answers.length === 0 || answers.some(({ filesystems }) => filesystems.length > 0)) return undefined
  const asked = [...(mount ? [`--mount ${mount.source}`] : []), ...(type ? [`--type ${type.source}`] : [])]
  return asked.length === 0 ? undefined : `no file system in any guest matches ${asked.join(' and ')}: correct it`
}

/** The file systems that are asked for, each device once, at its shortest mount point. */
function wanted(filesystems: readonly MountedFilesystem[], asked: Options): MountedFilesystem[] {
  const chosen = filesystems.filter(({ mount, type }) => {
    const included = (asked.mount?.test(mount) ?? true) && (asked.type?.test(type) ?? true)
    return included && !asked.excludeMount?.test(mount) && !asked.excludeType.test(type)
  })
  const longestFirst = chosen.toSorted((one, other) => other.mount.length - one.mount.length)
  const byDevice = new Map(longestFirst.map(filesystem => [filesystem.device || filesystem.mount, filesystem]))
  return chosen.filter(filesystem => byDevice.get(filesystem.device || filesystem.mount) === filesystem)
}

function keyOf({ uuid }: { uuid: string }, { device, mount }: MountedFilesystem): string {
  return `${uuid} ${device} ${mount}`
}

function usedBytesOf(guests: readonly GuestMounts[]): Map<string, number> {
  return new Map(
    guests.flatMap(guest =>
      guest.answer.kind !== 'answered'
        ? []
        : guest.answer.value.filesystems.flatMap(filesystem =>
            filesystem.usedBytes === undefined ? [] : [[keyOf(guest, filesystem), filesystem.usedBytes] as const],
          ),
    ),
  )
}

function withTrends(guest: GuestMounts, trends: ReadonlyMap<string, number>): GuestMounts {
  if (guest.answer.kind !== 'answered') return guest
  const { filesystems, readOnly } = guest.answer.value
  const growing = filesystems.map(each => ({ ...each, perSecond: trends.get(keyOf(guest, each)) }))
  return { ...guest, answer: { kind: 'answered', value: { filesystems: growing, readOnly } } }
}

function judgeReadOnly(
  verdict: Verdict,
  guest: string,
  filesystems: readonly Filesystem[],
  readOnly: Mounts['readOnly'],
  expected: RegExp | undefined,
): void {
  if (typeof readOnly === 'string') {
    const message = `whether its file systems are read-only is not known, its agent refuses to read /proc/1/mounts: ${readOnly}`
    verdict.add({ status: 'UNKNOWN', guest, message })
    return
  }
  for (const { mount } of filesystems) {
    if (!readOnly?.includes(mount) || expected?.test(mount)) continue
    const message =
      'mounted read-only, perhaps after an error: see its kernel log, or say that it is meant with --expect-read-only'
    verdict.add({ status: 'CRITICAL', guest, device: mount, message })
  }
}

function judgeFilesystems(
  verdict: Verdict,
  guest: string,
  filesystems: readonly Filesystem[],
  limits: Options,
): Seen[] {
  if (filesystems.length === 0) verdict.add({ status: 'OK', guest, message: 'no file system to look at' })
  else if (filesystems.every(({ totalBytes }) => totalBytes === undefined)) {
    const message = 'its agent does not tell how full its file systems are: install qemu-guest-agent 3.0 or newer in it'
    verdict.add({ status: 'UNKNOWN', guest, message })
    return []
  }
  return filesystems.flatMap(filesystem => {
    const usedPercent = judgeUse(verdict, guest, filesystem, limits)
    if (usedPercent === undefined) return []
    judgeGrowth(verdict, guest, filesystem, limits)
    return [{ place: `${guest} ${filesystem.mount}`, usedPercent, isCollecting: filesystem.perSecond === undefined }]
  })
}

/** Returns how much is in use (%), if that is known. */
function judgeUse(verdict: Verdict, guest: string, filesystem: Filesystem, limits: Options): number | undefined {
  const { mount, totalBytes, usedBytes } = filesystem
  if (!totalBytes || usedBytes === undefined) {
    verdict.add({ status: 'UNKNOWN', guest, device: mount, message: 'its agent could not find out how full it is' })
    return undefined
  }
  const value = (usedBytes / totalBytes) * 100
  const { warning, critical } = limits
  const subject = { guest, device: mount, deviceLabel: 'mount', note: `of ${formatQuantity(totalBytes, 'B')}` }
  verdict.judge({ ...subject, what: 'in use', name: 'used_percent', value, unit: '%', warning, critical })
  verdict.measure({ name: 'used', labels: { guest, mount }, value: usedBytes, unit: 'B', min: 0, max: totalBytes })
  return value
}

/** When it will be full, while it grows. */
function judgeGrowth(verdict: Verdict, guest: string, filesystem: Filesystem, limits: Options): void {
  const { mount, totalBytes = 0, usedBytes = 0, perSecond = 0 } = filesystem
  const judgement = fullIn(totalBytes - usedBytes, perSecond, limits)
  if (judgement !== undefined) verdict.judge({ guest, device: mount, deviceLabel: 'mount', ...judgement })
}

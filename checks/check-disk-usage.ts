import { statfs } from 'node:fs/promises'
import { type Context, defineLocalCheck } from '../plugin/check.js'
import { type FilesystemSizes, readFilesystemSizes } from '../plugin/filesystem.js'
import { type Mount, mayHang, readMounts } from '../plugin/mounts.js'
import { Verdict } from '../plugin/outcome.js'
import { atLeast } from '../plugin/range.js'
import { pluginLine, rubyFixed, rubyFloat, rubyPattern, rubyRound } from '../plugin/ruby.js'

/** A file system that does not answer for so long cannot be read. */
const answerMs = 5000

/** Sizes of a mounted file system, as statfs tells them. */
export interface FilesystemSample {
  readonly mountPoint: string
  /** Undefined when it could not be read, or did not answer. */
  readonly sizes?: FilesystemSizes | undefined
}

export default defineLocalCheck({
  name: 'check-disk-usage',
  summary: 'Space and inodes in use on the file systems of this machine (/proc/self/mounts, statfs).',
  description: `All mounted file systems are looked at unless options leave some out; those without a size (\`proc\`, \`cgroup\`) are never too full. One that cannot be read is a WARNING, and
so is one that does not answer within five seconds: a network file system whose server is away holds up nobody.

For a file system of at least \`-l\` GB, \`-m\` and \`-n\` move both limits of its space: what may be left free is multiplied by \`(size / normal) ^ (magic - 1)\`, where the size is in
MiB. With \`-m 0.9\`, larger ones may be fuller.

\`-o\` leaves out what is mounted with one of these options; the Ruby plugin compared it with all of the mount's options as one text, which is still understood.
Those whose files are elsewhere, or served by a process, are asked through \`stat -f\`, a process that can be left behind.`,
  options: {
    fstype: { type: 'string', alias: 't', summary: 'Only file systems of these types, joined by commas.' },
    ignoretype: { type: 'string', alias: 'x', summary: 'No file systems of these types, joined by commas.' },
    ignoremnt: { type: 'string', alias: 'i', summary: 'Not these mount points, joined by commas.' },
    includemnt: { type: 'string', alias: 'I', summary: 'Only these mount points, joined by commas.' },
    ignorepathre: { type: 'string', alias: 'p', summary: 'No mount points that match this regular expression.' },
    ignoreopt: {
      type: 'string',
      alias: 'o',
      summary: 'Nothing that is mounted with one of these options, joined by dots.',
    },
    ignoreReadonly: { type: 'flag', summary: 'Nothing that is mounted read-only.' },
    ignoreReserved: {
      type: 'flag',
      alias: 'r',
      summary: 'The share of what is not reserved for root, rounded up by one.',
    },
    warning: { type: 'number', alias: 'w', default: 85, summary: 'Warn from this share of the space on (%).' },
    critical: { type: 'number', alias: 'c', default: 95, summary: 'Critical from this share of the space on (%).' },
    inodesWarning: { type: 'number', alias: 'W', default: 85, summary: 'Warn from this share of the inodes on (%).' },
    inodesCritical: {
      type: 'number',
      alias: 'K',
      default: 95,
      summary: 'Critical from this share of the inodes on (%).',
    },
    magic: {
      type: 'number',
      alias: 'm',
      default: 1,
      summary: 'How much the limits move with the size; 1 is not at all.',
    },
    normal: { type: 'number', alias: 'n', default: 20, summary: 'The size whose limits do not move (MiB).' },
    minimum: { type: 'number', alias: 'l', default: 100, summary: 'The smallest size whose limits move (GB).' },
  },
  rubyLine: pluginLine('CheckDisk'),
  async collect(options, context): Promise<FilesystemSample[]> {
    context.stage('reading /proc/self/mounts')
    const wanted = selection(options)
    const mounts = (await readMounts(context.path('/proc/self/mounts'))).filter(wanted)
    context.stage('reading the sizes of file systems')
    return await Promise.all(mounts.map(mount => readSizes(mount, context)))
  },
  evaluate(filesystems, options) {
    const verdict = new Verdict()
    const texts = { CRITICAL: [] as string[], WARNING: [] as string[], OK: [] as string[], UNKNOWN: [] as string[] }
    for (const { mountPoint, sizes } of filesystems) {
      if (sizes === undefined) {
        verdict.add({ status: 'WARNING', device: mountPoint, message: 'cannot be read, or does not answer' })
        texts.WARNING.push(`${mountPoint} Unable to read.`)
        continue
      }
      for (const { text, judgement } of judgements(mountPoint, sizes, options)) {
        texts[
          verdict.judge({ device: mountPoint, deviceLabel: 'mount', unit: '%', min: 0, max: 100, ...judgement })
        ].push(text)
      }
    }
    const allUnder = `All disk usage under ${options.warning}% and inode usage under ${options.inodesWarning}%`
    verdict.summary = [...texts.CRITICAL, ...texts.WARNING].join(', ') || allUnder
    return verdict
  },
})

interface Limits {
  readonly warning: number
  readonly critical: number
  readonly inodesWarning: number
  readonly inodesCritical: number
  readonly ignoreReserved: boolean
  readonly magic: number
  readonly normal: number
  readonly minimum: number
}

/** Inodes first, as there; a share of nothing is not judged. */
function judgements(mountPoint: string, sizes: FilesystemSizes, options: Limits) {
  const { totalBytes, freeBytes, inodes, freeInodes } = sizes
  const inodesUsed = rubyRound(100 - (100 * freeInodes) / inodes, 2)
  const used = options.ignoreReserved ? unreservedPercent(sizes) : rubyRound(100 - (100 * freeBytes) / totalBytes, 2)
  const limit = (percent: number) => atLeast(movedLimit(totalBytes, percent, options))
  const bytes = `${humanBytes(totalBytes - freeBytes)}/${humanBytes(totalBytes)}`
  return [
    {
      text: `${mountPoint} ${rubyFloat(inodesUsed)}% inode usage`,
      judgement: {
        name: 'inodes_used_percent',
        what: 'inodes in use',
        value: inodesUsed,
        warning: atLeast(options.inodesWarning),
        critical: atLeast(options.inodesCritical),
      },
    },
    {
      text: `${mountPoint} ${rubyFloat(used)}% bytes usage (${bytes})`,
      judgement: {
        name: 'used_percent',
        what: 'in use',
        value: used,
        warning: limit(options.warning),
        critical: limit(options.critical),
      },
    },
  ].filter(({ judgement }) => !Number.isNaN(judgement.value))
}

function unreservedPercent({ totalBytes, freeBytes, availableBytes }: FilesystemSizes): number {
  const used = totalBytes - freeBytes
  const usable = used + availableBytes
  if (usable === 0) return 0
  return rubyRound((used * 100) / usable + ((used * 100) % usable === 0 ? 0 : 1), 2)
}

function movedLimit(bytes: number, percent: number, { magic, normal, minimum }: Limits): number {
  if (bytes < minimum * 1e9) return percent
  const size = bytes / (1024 * 1024) / normal
  return 100 - (100 - percent) * (size ** magic / size)
}

const units = [
  [2 ** 40, 'TiB'],
  [2 ** 30, 'GiB'],
  [2 ** 20, 'MiB'],
  [2 ** 10, 'KiB'],
] as const

function humanBytes(bytes: number): string {
  const [size, unit] = units.find(([size]) => bytes >= size) ?? [1, 'B']
  return `${rubyFixed(bytes / size, 2)} ${unit}`
}

interface Selection {
  readonly [name: string]: unknown
  readonly fstype: string | undefined
  readonly ignoretype: string | undefined
  readonly ignoremnt: string | undefined
  readonly includemnt: string | undefined
  readonly ignorepathre: string | undefined
  readonly ignoreopt: string | undefined
  readonly ignoreReadonly: boolean
}

/** Throws when the regular expression is none. */
function selection(options: Selection): (mount: Mount) => boolean {
  const among = (value: string, list: string | undefined, whenAbsent: boolean) =>
    list?.split(',').includes(value) ?? whenAbsent
  const ignored = options.ignorepathre === undefined ? undefined : rubyPattern(options.ignorepathre, '-p')
  const ignoredOptions = options.ignoreopt?.split('.') ?? []
  return mount =>
    among(mount.type, options.fstype, true) &&
    !among(mount.type, options.ignoretype, false) &&
    !among(mount.mountPoint, options.ignoremnt, false) &&
    among(mount.mountPoint, options.includemnt, true) &&
    ignored?.test(mount.mountPoint) !== true &&
    ![...mount.options, mount.options.join(',')].some(option => ignoredOptions.includes(option)) &&
    !(options.ignoreReadonly && mount.options.includes('ro')) &&
    mount.type !== 'devfs'
}

async function readSizes(mount: Mount, { path }: Context): Promise<FilesystemSample> {
  const { mountPoint } = mount
  const place = path(mountPoint)
  try {
    return { mountPoint, sizes: mayHang(mount) ? await readFilesystemSizes(place, answerMs) : await statfsSizes(place) }
  } catch {
    return { mountPoint }
  }
}

async function statfsSizes(place: string): Promise<FilesystemSizes> {
  const { bsize, blocks, bfree, bavail, files, ffree } = await statfs(place)
  return {
    totalBytes: blocks * bsize,
    freeBytes: bfree * bsize,
    availableBytes: bavail * bsize,
    inodes: files,
    freeInodes: ffree,
  }
}

import { X509Certificate } from 'node:crypto'
import { readdir, readFile, stat } from 'node:fs/promises'
import { basename, dirname, join, resolve } from 'node:path'
import { type Context, defineLocalCheck } from '../plugin/check.js'
import type { OptionTable, OptionValues } from '../plugin/options.js'
import { Verdict } from '../plugin/outcome.js'
import { formatQuantity } from '../plugin/text.js'

/** Larger files hold no certificates; a bundle of all public authorities has 200 kB. */
const largestFileBytes = 4 * 1024 * 1024
const mostCertificates = 1000
const dayMs = 86_400_000
/** Clock ticks per second in /proc, the same on all machines that Linux runs guests on. */
const ticksPerSecond = 100
/** By how much a process's start may be off: the kernel tells when it was booted in whole seconds. */
const startSlackMs = 2000

/** QEMU's names in a directory of certificates. */
const ofQemu = ['ca-cert.pem', 'server-cert.pem', 'client-cert.pem']
/** Those of them that a QEMU reads for its VNC or SPICE server. */
const heldByServers = ['ca-cert.pem', 'server-cert.pem']
/** Where libvirt and its QEMUs look for certificates unless they are configured otherwise. */
const defaultFiles: readonly string[] = [
  '/etc/pki/CA/cacert.pem',
  '/etc/pki/libvirt/servercert.pem',
  '/etc/pki/libvirt/clientcert.pem',
  ...[
    'qemu',
    'libvirt-vnc',
    'libvirt-spice',
    'libvirt-chardev',
    'libvirt-migrate',
    'libvirt-nbd',
    'libvirt-backup',
  ].flatMap(directory => ofQemu.map(file => `/etc/pki/${directory}/${file}`)),
]
/** Where their configuration says otherwise. */
const configurations = ['/etc/libvirt/libvirtd.conf', '/etc/libvirt/virtproxyd.conf', '/etc/libvirt/qemu.conf']
const pidDirectory = '/run/libvirt/qemu'

/** One certificate file. */
export interface CertificateFile {
  readonly path: string
  /** When the file was written (milliseconds since 1970). */
  readonly writtenMs: number
  /** Its certificate that expires first. */
  readonly subject: string
  readonly notBeforeMs: number
  readonly notAfterMs: number
  /** How many it holds. */
  readonly count: number
}

/** A file that could not be judged, in words. */
export interface CertificateProblem {
  readonly path: string
  readonly problem: string
}

/** A guest whose QEMU has certificates of these directories in memory. */
export interface RunningQemu {
  readonly guest: string
  readonly startedMs: number
  readonly directories: readonly string[]
}

export interface CertificateSample {
  readonly nowMs: number
  readonly files: readonly CertificateFile[]
  readonly problems: readonly CertificateProblem[]
  /** Empty unless asked for. */
  readonly running: readonly RunningQemu[]
}

const options = {
  warning: {
    type: 'range',
    alias: 'w',
    default: '30:',
    summary: 'Warn outside this range (days left): 30: is fewer than 30.',
  },
  critical: {
    type: 'range',
    alias: 'c',
    default: '7:',
    summary: 'Critical outside this range (days left): 7: is fewer than 7.',
  },
  file: {
    type: 'strings',
    summary: 'Look at this PEM file, too, or at those in this directory (*.pem, *.crt, *.cer) (repeatable).',
  },
  onlyFile: { type: 'flag', summary: 'Look at what --file names and nothing else.' },
  runningGuests: {
    type: 'flag',
    summary: 'Warn of running guests whose QEMU holds a certificate that was replaced since it started.',
  },
} as const satisfies OptionTable
type Options = OptionValues<typeof options>

export default defineLocalCheck({
  name: 'check-kvm-certificate',
  summary: 'Certificates of libvirt, VNC, SPICE and migration: days left.',
  description: `Looks on this machine, without libvirt, at ${defaultFiles
    .slice(0, 3)
    .map(path => `\`${path}\``)
    .join(
      ', ',
    )}, at ${ofQemu.map(file => `\`${file}\``).join(', ')} in \`/etc/pki/qemu\` and \`/etc/pki/libvirt-…\` (vnc, spice, chardev, migrate, nbd, backup),
at what \`libvirtd.conf\`, \`virtproxyd.conf\` and \`qemu.conf\` in \`/etc/libvirt\` name instead (\`ca_file\`, \`cert_file\`, \`…_tls_x509_cert_dir\`), and at what \`--file\` names. Of a file with several certificates, the
one that expires first is judged. Expired, or not valid yet, is always CRITICAL. A file that is there and cannot be read, or holds no certificate, is UNKNOWN; no certificates at all is OK.

QEMU reads its certificates when it starts. \`--running-guests\` looks at the QEMUs of \`/run/libvirt/qemu/*.pid\`: a WARNING for one whose command line names a directory in which the CA's or the server's certificate was
written, or became valid, after it started. Certificates of migration are read when one begins, and not in question.`,
  options,
  async collect(asked, context): Promise<CertificateSample> {
    context.stage('reading certificates')
    const given = await Promise.all(asked.file.map(path => expandFile(resolve(path), context)))
    const standard = asked.onlyFile ? [] : [...defaultFiles, ...(await readConfigured(context))]
    const wanted = new Map([
      ...standard.map(path => [path, false] as const),
      ...given.flat().map(({ path, required }) => [path, required] as const),
    ])
    const read = await Promise.all([...wanted].map(([path, required]) => readCertificates(path, required, context)))
    const found = read.filter(file => file !== undefined)
    context.stage('looking at running guests')
    return {
      nowMs: context.now(),
      files: found.filter(file => 'count' in file),
      problems: found.filter(file => 'problem' in file),
      running: asked.runningGuests ? await readRunning(context) : [],
    }
  },
  evaluate({ nowMs, files, problems, running }, limits) {
    const verdict = new Verdict()
    for (const file of files) judgeFile(verdict, file, nowMs, limits)
    for (const { path, problem } of problems) verdict.add({ status: 'UNKNOWN', device: path, message: problem })
    for (const qemu of running) judgeRunning(verdict, qemu, files)
    const [first] = [...files].sort((one, other) => one.notAfterMs - other.notAfterMs)
    verdict.summary =
      first === undefined
        ? 'no certificates in the places of libvirt and QEMU'
        : `${files.length === 1 ? '1 file' : `${files.length} files`}; first to expire ${first.path} (${first.subject}) in ${formatQuantity((first.notAfterMs - nowMs) / dayMs)} days, on ${dayOf(first.notAfterMs)}`
    return verdict
  },
})

type Machine = Pick<Context, 'path'>

/** A file that is named must be a certificate; of a directory's files, those count that are. */
async function expandFile(path: string, { path: place }: Machine): Promise<{ path: string; required: boolean }[]> {
  const isDirectory = await stat(place(path)).then(
    found => found.isDirectory(),
    () => false,
  )
  if (!isDirectory) return [{ path, required: true }]
  const names = await readdir(place(path)).catch(() => undefined)
  if (names === undefined) return [{ path, required: true }]
  const fitting = names.filter(name => /\.(pem|crt|cer)$/.test(name)).sort()
  return fitting.map(name => ({ path: join(path, name), required: false }))
}

/** Certificate files that the daemons' configuration names; a configuration that cannot be read names none. */
async function readConfigured({ path: place }: Machine): Promise<string[]> {
  const texts = await Promise.all(configurations.map(file => readFile(place(file), 'utf8').catch(() => '')))
  return texts.flatMap(text => {
    const settings = text.matchAll(/^\s*(ca_file|cert_file|\w*_tls_x509_cert_dir)\s*=\s*"(\/[^"]*)"/gm)
    return [...settings].flatMap(([, name = '', value = '']) =>
      name.endsWith('_dir') ? ofQemu.map(file => join(value, file)) : [value],
    )
  })
}

/** Undefined for a file that is not there, or holds no certificate, and need not. */
async function readCertificates(
  path: string,
  required: boolean,
  { path: place }: Machine,
): Promise<CertificateFile | CertificateProblem | undefined> {
  try {
    const found = await stat(place(path))
    if (!found.isFile() || found.size > largestFileBytes) return { path, problem: 'not a file of certificates' }
    const certificates = parseCertificates(await readFile(place(path), 'latin1'))
    const [first] = certificates.sort((one, other) => one.notAfterMs - other.notAfterMs)
    if (first !== undefined) return { path, writtenMs: found.mtimeMs, count: certificates.length, ...first }
    const isKey = !required && !defaultNames.includes(basename(path))
    return isKey ? undefined : { path, problem: 'holds no certificate in PEM form' }
  } catch (error) {
    const code = codeOf(error)
    if (code === 'ENOENT' || code === 'ENOTDIR')
      return required ? { path, problem: 'is not there: correct --file' } : undefined
    const remedy = "run as root, or let the agent's user read it (a certificate is no secret)"
    return { path, problem: code === 'EACCES' ? `may not be read: ${remedy}` : `cannot be read: ${messageOf(error)}` }
  }
}

const defaultNames = defaultFiles.map(path => basename(path))

/** The certificates of a PEM text; throws when one of them cannot be read. */
function parseCertificates(text: string) {
  const blocks = text.match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g) ?? []
  return blocks.slice(0, mostCertificates).map(block => {
    const { subject, validFrom, validTo } = new X509Certificate(block)
    const [notBeforeMs, notAfterMs] = [Date.parse(validFrom), Date.parse(validTo)]
    if (Number.isNaN(notBeforeMs + notAfterMs)) throw new Error(`its validity, ${validFrom} to ${validTo}, is no date`)
    return { subject: /^CN=.*$/m.exec(subject)?.[0] ?? subject?.replaceAll('\n', ', ') ?? '', notBeforeMs, notAfterMs }
  })
}

function judgeFile(verdict: Verdict, file: CertificateFile, nowMs: number, { warning, critical }: Options): void {
  const { path, count, notBeforeMs, notAfterMs } = file
  const subject = count === 1 ? file.subject : `${file.subject}, one of ${count} in it`
  const days = { name: 'days_left', value: (notAfterMs - nowMs) / dayMs, warning, critical } as const
  const ageDays = formatQuantity(Math.abs(nowMs < notBeforeMs ? notBeforeMs - nowMs : nowMs - notAfterMs) / dayMs)
  const problem =
    nowMs < notBeforeMs
      ? `not valid before ${dayOf(notBeforeMs)}, in ${ageDays} days: look at this machine's clock`
      : nowMs > notAfterMs
        ? `expired ${ageDays} days ago, on ${dayOf(notAfterMs)}: renew it`
        : undefined
  if (problem === undefined) {
    const note = `(${subject}, until ${dayOf(notAfterMs)})`
    verdict.judge({ device: path, deviceLabel: 'file', what: 'days left', note, ...days })
    return
  }
  verdict.add({ status: 'CRITICAL', device: path, message: `${problem} (${subject})` })
  verdict.measure({ ...days, labels: { file: path } })
}

function judgeRunning(verdict: Verdict, qemu: RunningQemu, files: readonly CertificateFile[]): void {
  const { guest, startedMs, directories } = qemu
  const replaced = files.find(({ path, writtenMs, notBeforeMs }) => {
    const held = directories.includes(dirname(path)) && heldByServers.includes(basename(path))
    return held && Math.max(writtenMs, notBeforeMs) > startedMs + startSlackMs
  })
  if (replaced === undefined) return
  const message = `its QEMU, started on ${dayOf(startedMs)}, still holds what ${replaced.path} was before it was replaced: migrate or restart it`
  verdict.add({ status: 'WARNING', guest, message })
}

function dayOf(timeMs: number): string {
  return new Date(timeMs).toISOString().slice(0, 10)
}

/** The QEMUs that libvirt runs here, with the directories of certificates that their command lines name. */
async function readRunning({ path: place }: Machine): Promise<RunningQemu[]> {
  const names = await readdir(place(pidDirectory)).catch((error: unknown): string[] => {
    if (codeOf(error) === 'ENOENT') return []
    throw new Error(`cannot see which guests run: ${messageOf(error)}: run as root, or leave out --running-guests`)
  })
  const bootMs = await readBootMs(place)
  const running: RunningQemu[] = []
  for (const name of names.filter(own => own.endsWith('.pid') && own !== 'driver.pid').sort()) {
    const qemu = await readQemu(join(pidDirectory, name), bootMs, place)
    if (qemu !== undefined) running.push({ guest: basename(name, '.pid'), ...qemu })
  }
  return running
}

async function readBootMs(place: Machine['path']): Promise<number> {
  const seconds = /^btime (\d+)$/m.exec(await readFile(place('/proc/stat'), 'latin1'))?.[1]
  if (seconds === undefined) throw new Error('/proc/stat does not tell when this machine was booted')
  return Number(seconds) * 1000
}

/** Undefined for a process that has ended, or has no certificates. */
async function readQemu(
  pidFile: string,
  bootMs: number,
  place: Machine['path'],
): Promise<Omit<RunningQemu, 'guest'> | undefined> {
  try {
    const pid = /^\d+/.exec(await readFile(place(pidFile), 'latin1'))?.[0]
    if (pid === undefined) return undefined
    const command = await readFile(place(`/proc/${pid}/cmdline`), 'utf8')
    // "dir" of a tls-creds-x509 object, as JSON or as key=value; x509-dir of -spice.
    const named = command.matchAll(/"dir":"([^"]+)"|(?:tls-creds-x509,[^\0]*?\bdir|x509-dir)=([^,\0]+)/g)
    const directories = [...named].flatMap(([, json, plain]) => resolve(json ?? plain ?? ''))
    // Fields after the name, which may hold anything: starttime is the 22nd of all.
    const fields = (await readFile(place(`/proc/${pid}/stat`), 'latin1')).replace(/^.*\) /s, '').split(' ')
    const startedMs = bootMs + (Number(fields[19]) / ticksPerSecond) * 1000
    return directories.length === 0 || Number.isNaN(startedMs) ? undefined : { startedMs, directories }
  } catch (error) {
    if (['ENOENT', 'ESRCH'].includes(codeOf(error) ?? '')) return undefined
    throw error
  }
}

function codeOf(error: unknown): string | undefined {
  return error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : undefined
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}

import { spawn } from 'node:child_process'
import {
  chmodSync,
  cpSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import t, { type Test } from 'tap'
import check, { type CertificateFile, type CertificateSample } from '../../checks/check-kvm-certificate.js'
import { statusOf } from '../../plugin/output.js'
import { run } from '../../scripts/services/process.js'
import { checkContext, runExecutable } from '../support/checks.js'

const name = 'check-kvm-certificate'
const dayMs = 86_400_000
const nowMs = Date.UTC(2026, 5, 15, 12)

function file(daysLeft: number, change: Partial<CertificateFile> = {}): CertificateFile {
  return {
    path: '/etc/pki/libvirt/servercert.pem',
    writtenMs: nowMs - 100 * dayMs,
    subject: 'CN=host1',
    notBeforeMs: nowMs - 100 * dayMs,
    notAfterMs: nowMs + daysLeft * dayMs,
    count: 1,
    ...change,
  }
}

function judged(files: readonly CertificateFile[], raw = {}, change: Partial<CertificateSample> = {}) {
  const outcome = check.evaluate({ nowMs, files, problems: [], running: [], ...change }, check.parseOptions(raw))
  const bad = outcome.findings.filter(({ status }) => status !== 'OK')
  return {
    status: statusOf(outcome),
    messages: bad.map(({ guest, device, message }) => `${guest ?? device}: ${message}`),
    outcome,
  }
}

t.test('days left are judged at, below and above each limit', t => {
  for (const [days, status] of [
    [365, 'OK'],
    [30, 'OK'],
    [29.9, 'WARNING'],
    [7, 'WARNING'],
    [6.9, 'CRITICAL'],
    [0, 'CRITICAL'],
    [-1, 'CRITICAL'],
  ] as const) {
    t.equal(judged([file(days)]).status, status, `${days} days`)
  }
  t.same(judged([file(5)]).messages, [
    '/etc/pki/libvirt/servercert.pem: days left 5 (CN=host1, until 2026-06-20) (critical below 7)',
  ])
  t.equal(judged([file(20)], { warning: '14:', critical: '3:' }).status, 'OK')
  t.end()
})

t.test('expired and not yet valid are CRITICAL whatever the limits are', t => {
  const never = { warning: '~:', critical: '~:' }
  t.match(judged([file(-3, { count: 2 })], never), {
    status: 'CRITICAL',
    messages: [
      '/etc/pki/libvirt/servercert.pem: expired 3 days ago, on 2026-06-12: renew it (CN=host1, one of 2 in it)',
    ],
    outcome: { metrics: [{ name: 'days_left', value: -3 }] },
  })
  t.match(judged([file(300, { notBeforeMs: nowMs + 2.5 * dayMs })], never), {
    status: 'CRITICAL',
    messages: [
      "/etc/pki/libvirt/servercert.pem: not valid before 2026-06-18, in 2.5 days: look at this machine's clock (CN=host1)",
    ],
  })
  t.equal(judged([file(-3)], never).outcome.metrics.length, 1)
  t.end()
})

t.test('what cannot be judged is UNKNOWN, no certificates at all are OK, and the line says so', t => {
  const problems = [{ path: '/etc/pki/qemu/server-cert.pem', problem: 'may not be read: run as root' }]
  t.match(judged([file(50)], {}, { problems }), {
    status: 'UNKNOWN',
    messages: ['/etc/pki/qemu/server-cert.pem: may not be read: run as root'],
  })
  t.match(judged([]), {
    status: 'OK',
    outcome: { summary: 'no certificates in the places of libvirt and QEMU' },
  })
  t.equal(
    judged([file(90), file(40, { path: '/etc/pki/CA/cacert.pem', subject: 'CN=CA' })]).outcome.summary,
    '2 files; first to expire /etc/pki/CA/cacert.pem (CN=CA) in 40 days, on 2026-07-25',
  )
  t.end()
})

t.test('a running guest that holds a replaced certificate is named', t => {
  const path = '/etc/pki/libvirt-vnc/server-cert.pem'
  const directories = ['/etc/pki/libvirt-vnc']
  const look = (startedMs: number, change: Partial<CertificateFile>) =>
    judged([file(300, { path, ...change })], {}, { running: [{ guest: 'web1', startedMs, directories }] }).messages
  const holds = `web1: its QEMU, started on 2026-06-05, still holds what ${path} was before it was replaced: migrate or restart it`
  const startedMs = nowMs - 10 * dayMs
  t.same(look(startedMs, {}), [], 'written before')
  t.same(look(startedMs, { writtenMs: startedMs + 60_000 }), [holds])
  t.same(look(startedMs, { notBeforeMs: startedMs + 60_000 }), [holds], 'copied with its old date')
  t.same(look(startedMs, { writtenMs: startedMs + 1500 }), [], 'the start is known to the second only')
  t.same(look(startedMs, { writtenMs: nowMs, path: '/etc/pki/qemu/server-cert.pem' }), [], 'not its own')
  t.same(
    look(startedMs, { writtenMs: nowMs, path: '/etc/pki/libvirt-vnc/client-cert.pem' }),
    [],
    'not held by a server',
  )
  t.end()
})

/** Makes a certificate that is valid for so many days. */
async function certificate(path: string, days: number): Promise<void> {
  mkdirSync(dirname(path), { recursive: true })
  const configuration = join(dirname(path), 'openssl.cnf')
  writeFileSync(configuration, '[req]\ndistinguished_name = subject\n[subject]\n')
  await run('openssl', [
    ...[
      'req',
      '-x509',
      '-config',
      configuration,
      '-newkey',
      'ec',
      '-pkeyopt',
      'ec_paramgen_curve:prime256v1',
      '-nodes',
    ],
    ...['-days', String(days), '-subj', `/CN=valid ${days} | days`, '-keyout', `${path}.key`, '-out', path],
  ])
}

/** A machine with certificates of 400 and 20 days for libvirt and VNC, and of 3 days where qemu.conf says. */
async function machine(t: Test): Promise<string> {
  const root = mkdtempSync(join(tmpdir(), 'machine-'))
  t.teardown(() => rmSync(root, { recursive: true }))
  // Others must be able to see it.
  chmodSync(root, 0o755)
  for (const directory of ['etc/libvirt', 'run/libvirt/qemu']) mkdirSync(join(root, directory), { recursive: true })
  writeFileSync(
    join(root, 'etc/libvirt/qemu.conf'),
    '#spice_tls_x509_cert_dir = "/nowhere"\nmigrate_tls_x509_cert_dir = "/srv/pki"\n',
  )
  writeFileSync(
    join(root, 'etc/libvirt/libvirtd.conf'),
    'key_file = "/srv/pki/key.pem"\ncert_file = "/srv/pki/missing.pem"\n',
  )
  writeFileSync(join(root, 'run/libvirt/qemu/driver.pid'), '1')
  symlinkSync('/proc', join(root, 'proc'))
  await certificate(join(root, 'etc/pki/libvirt/servercert.pem'), 400)
  await certificate(join(root, 'etc/pki/libvirt-vnc/server-cert.pem'), 20)
  await certificate(join(root, 'srv/pki/server-cert.pem'), 3)
  return root
}

t.test('the places of libvirt and QEMU, those that they are configured for, and those that are named', async t => {
  const root = await machine(t)
  const context = checkContext({ path: absolute => join(root, absolute) })
  const look = async (raw: Parameters<typeof check.parseOptions>[0] = {}) => {
    const { files, problems } = await check.collect(async () => undefined, check.parseOptions(raw), context)
    return [files.map(({ path }) => path).sort(), problems.map(({ path, problem }) => `${path}: ${problem}`)]
  }
  const own = ['/etc/pki/libvirt-vnc/server-cert.pem', '/etc/pki/libvirt/servercert.pem', '/srv/pki/server-cert.pem']
  t.same(await look(), [own, []])
  t.same(await look({ 'only-file': true }), [[], []])
  cpSync(join(root, own[0] ?? ''), join(root, 'srv/more.pem'))
  writeFileSync(join(root, 'srv/key.pem'), 'no certificate')
  t.same(await look({ 'only-file': true, file: ['/srv'] }), [['/srv/more.pem'], []], 'a key beside them is no problem')
  t.same(await look({ 'only-file': true, file: ['/srv/more.pem', '/srv/key.pem', '/srv/none.pem'] }), [
    ['/srv/more.pem'],
    ['/srv/key.pem: holds no certificate in PEM form', '/srv/none.pem: is not there: correct --file'],
  ])
  writeFileSync(join(root, 'srv/bad.pem'), '-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n')
  t.match(await look({ 'only-file': true, file: ['/srv/bad.pem'] }), [[], [/^\/srv\/bad.pem: cannot be read: /]])
  const bundle = own.map(path => readFileSync(join(root, path), 'utf8')).join('# comment\n')
  writeFileSync(join(root, 'srv/bundle.pem'), bundle)
  const options = check.parseOptions({ 'only-file': true, file: ['/srv/bundle.pem'] })
  const { files } = await check.collect(async () => undefined, options, context)
  t.match(files, [{ subject: 'CN=valid 3 | days', count: 3 }])
})

t.test('a real process that names the directory counts from its start', async t => {
  const root = await machine(t)
  const argv0 =
    'qemu-system-x86_64 -object {"qom-type":"tls-creds-x509","id":"vnc","dir":"/etc/pki/libvirt-vnc","endpoint":"server"}'
  const qemu = spawn('sleep', ['300'], { argv0, stdio: 'ignore' })
  t.teardown(() => void qemu.kill())
  await new Promise(resolve => qemu.once('spawn', resolve))
  writeFileSync(join(root, 'run/libvirt/qemu/web1.pid'), `${qemu.pid}\n`)
  writeFileSync(join(root, 'run/libvirt/qemu/gone.pid'), '4194305\n')
  writeFileSync(join(root, 'run/libvirt/qemu/no-tls.pid'), `${process.pid}\n`)
  const says = async () => {
    const { stdout, status } = await runExecutable(name, ['-w', '2:', '-c', '1:', '--running-guests'], {
      env: { SENSU_KVM_ROOT: root },
    })
    return [status, stdout.split('\n')[0]]
  }
  const setAge = (seconds: number) => {
    const time = Date.now() / 1000 + seconds
    utimesSync(join(root, 'etc/pki/libvirt-vnc/server-cert.pem'), time, time)
  }
  setAge(-3600)
  t.match(await says(), [0, /^check-kvm-certificate OK: 3 files; /])
  setAge(3600)
  t.match(await says(), [
    1,
    /WARNING: web1: its QEMU, started on [-\d]{10}, still holds what \/etc\/pki\/libvirt-vnc\/server-cert.pem was before it was replaced: migrate or restart it$/,
  ])
})

t.test('the executable prints one line and its numbers, or what is the matter', async t => {
  const root = await machine(t)
  const says = (...args: string[]) => runExecutable(name, args, { env: { SENSU_KVM_ROOT: root } })
  const bad = await says()
  t.equal(bad.status, 2)
  t.match(
    bad.stdout,
    /^check-kvm-certificate CRITICAL: \/srv\/pki\/server-cert.pem: days left [23][.\d]* \(CN=valid 3 \/ days, until [-\d]{10}\) \(critical below 7\); .*\nCRITICAL .*\nWARNING \/etc\/pki\/libvirt-vnc\/server-cert.pem: days left 20 .*\n\| /,
  )
  t.match(bad.stdout, / _x2Fsrv_x2Fpki_x2Fserver-cert.pem.days_left=[23][.\d]*;30:;7:\n$/)
  t.match(await says('-w', '2:', '-c', '1:'), {
    status: 0,
    stdout:
      /^check-kvm-certificate OK: 3 files; first to expire \/srv\/pki\/server-cert.pem \(CN=valid 3 \/ days\) in [23][.\d]* days, on [-\d]{10}\n\| /,
  })
  t.same(await runExecutable(name, [], { env: { SENSU_KVM_ROOT: t.testdir() } }), {
    stdout: `${name} OK: no certificates in the places of libvirt and QEMU\n`,
    stderr: '',
    status: 0,
  })
})

t.test('a file that may not be read is UNKNOWN, with what to do', { skip: needsRoot() }, async t => {
  const root = await machine(t)
  chmodSync(join(root, 'srv/pki/server-cert.pem'), 0o600)
  const env = { SENSU_KVM_ROOT: root }
  const { stdout, status } = await runExecutable(name, ['-w', '2:', '-c', '1:'], { env, uid: 65_534 })
  t.equal(status, 3)
  t.match(
    stdout,
    "check-kvm-certificate UNKNOWN: /srv/pki/server-cert.pem: may not be read: run as root, or let the agent's user read it (a certificate is no secret)\n",
  )
})

/** The reason to skip a test, or false. */
function needsRoot(): string | false {
  return process.getuid?.() === 0 ? false : 'needs root'
}

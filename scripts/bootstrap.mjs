// Behind `npm start`, `npm test` and `npm run bench`: makes a fresh clone on a fresh Debian 12 ready (Debian packages, npm packages,
// build) and then runs what was asked for. Plain JavaScript without dependencies, because nothing else is there yet.
// Says nothing when there is nothing to do.
import { spawn, spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { chmodSync, existsSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { createConnection } from 'node:net'
import { delimiter, join } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'

const root = fileURLToPath(new URL('..', import.meta.url))
const isRoot = process.getuid?.() === 0

/** A problem that is the machine's or the user's, not a defect: reported by its message alone. */
class SetupError extends Error {
  /**
   * @param {string} message
   * @param {number} [status] exit status
   */
  constructor(message, status = 1) {
    super(message)
    this.status = status
  }
}

/**
 * What the commands need from the system: a Debian package, a program or file that shows it is there, and what for.
 * @typedef {{ package: string, shownBy: string[], why: string }} Requirement
 */

/** @type {Requirement[]} */
const brokers = [
  { package: 'redis-server', shownBy: ['redis-server'], why: 'a private Redis, which keeps the results' },
  {
    package: 'rabbitmq-server',
    shownBy: ['/usr/lib/rabbitmq/bin/rabbitmq-server'],
    why: 'a private RabbitMQ, which carries check requests and results',
  },
]

/** @type {Requirement} */
const virsh = { package: 'libvirt-clients', shownBy: ['virsh'], why: 'virsh, to set up guests' }

/** @type {Requirement[]} */
const hypervisor = [
  virsh,
  { package: 'libvirt-daemon', shownBy: ['libvirtd'], why: 'a private libvirtd' },
  {
    package: 'libvirt-daemon-driver-qemu',
    shownBy: ['/usr/lib/x86_64-linux-gnu/libvirt/connection-driver/libvirt_driver_qemu.so'],
    why: "libvirt's QEMU driver",
  },
  { package: 'qemu-system-x86', shownBy: ['qemu-system-x86_64'], why: 'runs the guest' },
  { package: 'qemu-utils', shownBy: ['qemu-img'], why: "makes the guest's disk" },
  { package: 'e2fsprogs', shownBy: ['mkfs.ext4'], why: "makes the guest's file system" },
  { package: 'lz4', shownBy: ['lz4'], why: "unpacks the guest's kernel" },
]

/** @type {Requirement[]} */
const testTools = [
  { package: 'chromium', shownBy: ['chromium'], why: 'shows the status page, without a screen' },
  {
    package: 'libfaketime',
    shownBy: ['/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1'],
    why: 'gives a server under test the clock of a recording',
  },
  { package: 'openssl', shownBy: ['openssl'], why: 'makes certificates for tests of TLS' },
  { package: 'prometheus', shownBy: ['promtool'], why: "its promtool reads the checks' metrics (not started)" },
  { package: 'influxdb', shownBy: ['influxd'], why: "reads the checks' line protocol and OpenTSDB commands" },
  { package: 'graphite-carbon', shownBy: ['/usr/bin/carbon-cache'], why: "stores the checks' Graphite metrics" },
  {
    package: 'libmonitoring-plugin-perl',
    shownBy: ['/usr/share/perl5/Monitoring/Plugin/Performance.pm'],
    why: "reads the checks' performance data",
  },
]

/** @type {Record<string, { module: string, requirements: () => Promise<Requirement[]> }>} */
const commands = {
  start: {
    module: 'build/scripts/start.js',
    requirements: async () => [...brokers, ...(await startNeeds())],
  },
  test: { module: 'build/scripts/test.js', requirements: async () => [...brokers, ...hypervisor, ...testTools] },
  bench: { module: 'build/bench/main.js', requirements: async () => [...brokers, ...hypervisor] },
}

/** @param {string[]} argv */
async function main(argv) {
  const [name = '', ...rest] = argv
  const command = commands[name]
  if (command === undefined)
    throw new SetupError(`usage: node scripts/bootstrap.mjs ${Object.keys(commands).join('|')}`, 2)
  if (Number(process.versions.node.split('.')[0]) < 20)
    throw new SetupError(`Node.js 20 or newer is needed; this is ${process.version}`, 2)
  // Asking for help must not install anything.
  const onlyHelp = rest.includes('--help') || rest.includes('-h')
  // What is needed may depend on what could only be asked after the first installation.
  for (let round = 0; round < 2 && !onlyHelp; round++) await installSystemPackages(name, await command.requirements())
  await installNodePackages()
  await buildProject()
  const module = join(root, command.module)
  if (!existsSync(module))
    throw new SetupError(`${command.module} is missing: nothing runs \`${name}\` in this version`)
  process.once('exit', returnToOwner)
  process.argv.splice(1, 2, module)
  await import(pathToFileURL(module).href)
}

/** `npm start` watches the host's guests; where there are none, it makes one. */
async function startNeeds() {
  if (!(await hostHasLibvirt())) return hypervisor
  if (!isThere(virsh)) return [virsh]
  const { stdout } = spawnSync('virsh', ['-q', '-r', 'list', '--all', '--name'], { encoding: 'utf8', timeout: 10_000 })
  return (stdout ?? '').trim() === '' ? hypervisor : []
}

/** Whether this host runs a libvirt of its own: something accepts connections on its socket. */
async function hostHasLibvirt() {
  const sockets = ['virtqemud-sock-ro', 'libvirt-sock-ro'].map(name => `/run/libvirt/${name}`)
  const accepting = await Promise.all(
    sockets.map(
      path =>
        new Promise(resolve => {
          const socket = createConnection(path)
          socket.setTimeout(1000, () => socket.destroy())
          socket
            .once('connect', () => resolve(true))
            .once('close', () => resolve(false))
            .once('error', () => {})
          socket.once('connect', () => socket.destroy())
        }),
    ),
  )
  return accepting.includes(true)
}

// --- Debian packages ---

const searchPath = [...(process.env['PATH'] ?? '').split(delimiter), '/usr/sbin', '/sbin', '/usr/bin', '/bin']

/** @param {Requirement} requirement */
function isThere(requirement) {
  return requirement.shownBy.every(thing =>
    thing.startsWith('/') ? existsSync(thing) : searchPath.some(folder => existsSync(join(folder, thing))),
  )
}

/**
 * Installs what is missing, when allowed to.
 * @param {string} name
 * @param {Requirement[]} requirements
 */
async function installSystemPackages(name, requirements) {
  const missing = requirements.filter(requirement => !isThere(requirement))
  if (missing.length === 0) return
  const packages = missing.map(requirement => requirement.package)
  const width = Math.max(...packages.map(text => text.length))
  const list = missing.map(({ package: text, why }) => `  ${text.padEnd(width)}  ${why}`).join('\n')
  const install = `apt-get install --no-install-recommends ${packages.join(' ')}`
  if (!existsSync('/usr/bin/apt-get'))
    throw new SetupError(
      `\`npm run ${name}\` needs the programs of these Debian packages; install them your system's way:\n${list}`,
      2,
    )
  if (!isRoot)
    throw new SetupError(
      `\`npm run ${name}\` needs these Debian packages:\n${list}\nInstall them with:\n  sudo ${install}`,
      2,
    )
  say(`installing Debian packages, without starting any service:\n${list}`)
  const removePolicy = forbidServices()
  try {
    await aptInstall(packages)
  } finally {
    removePolicy()
  }
  const absent = missing.filter(requirement => !isThere(requirement))
  if (absent.length > 0)
    throw new SetupError(`installed, but still not found: ${absent.flatMap(({ shownBy }) => shownBy).join(', ')}`)
}

const policyFile = '/usr/sbin/policy-rc.d'
const policyMark = '# made by sensu-kvm for the time of one installation'

/** Keeps the packages' services from being started while they are installed; returns what ends that. */
function forbidServices() {
  // One that says it is ours was left by an installation that was killed.
  const ours = existsSync(policyFile) && readFileSync(policyFile, 'utf8').includes(policyMark)
  if (existsSync(policyFile) && !ours) return () => {} // the host has a policy of its own
  writeFileSync(policyFile, `#!/bin/sh\n${policyMark}\nexit 101\n`)
  chmodSync(policyFile, 0o755)
  return () => rmSync(policyFile, { force: true })
}

/** @param {string[]} packages */
async function aptInstall(packages) {
  const options = ['-q', '-y', '-o', 'DPkg::Lock::Timeout=120']
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' }
  const install = () => run('apt-get', [...options, 'install', '--no-install-recommends', ...packages], { env })
  if (!hasPackageLists()) await run('apt-get', [...options, 'update'], { env })
  try {
    await install()
  } catch (error) {
    // Lists that are too old name packages that the mirrors no longer have.
    if (!(error instanceof SetupError) || !/Unable to (locate|fetch)|404|Not Found/.test(error.message)) throw error
    say('updating the package lists')
    await run('apt-get', [...options, 'update'], { env })
    await install()
  }
}

function hasPackageLists() {
  const folder = '/var/lib/apt/lists'
  return existsSync(folder) && readdirSync(folder).some(name => name.includes('_Packages'))
}

// --- npm packages and build ---

/** Runs `npm ci` when the packages are missing or older than the lock file. */
async function installNodePackages() {
  const lock = join(root, 'package-lock.json')
  const installed = join(root, 'node_modules/.package-lock.json')
  if (existsSync(installed) && statSync(installed).mtimeMs >= statSync(lock).mtimeMs) return
  say('installing npm packages (npm ci)')
  await run('npm', ['ci', '--no-audit', '--no-fund'], asOwner())
}

/** Files that decide what the build makes. */
const buildInputs = [
  'package.json',
  'package-lock.json',
  'libvirt',
  'sensu',
  'plugin',
  'checks',
  'handlers',
  'transport',
]
buildInputs.push('store', 'pipeline', 'agent', 'server', 'scripts', 'bench', 'test', 'conf.d')

/** Builds when a source file was added, removed or changed since the last build. */
async function buildProject() {
  const stamp = join(root, 'build/.inputs')
  const inputs = digestOfInputs()
  if (existsSync(stamp) && readFileSync(stamp, 'utf8') === inputs && existsSync(join(root, 'dist/bin'))) return
  say('building')
  await run(process.execPath, [join(root, 'scripts/build.mjs')], asOwner())
  writeFileSync(stamp, inputs)
  returnToOwner()
}

function digestOfInputs() {
  const hash = createHash('sha256')
  for (const input of buildInputs) {
    for (const file of filesOf(join(root, input))) {
      const { mtimeMs, size } = statSync(file)
      hash.update(`${file}\0${mtimeMs}\0${size}\n`)
    }
  }
  return hash.digest('hex')
}

/**
 * A file, or every file below a folder except the tests' data.
 * @param {string} path
 * @returns {string[]}
 */
function filesOf(path) {
  if (!existsSync(path)) return []
  if (statSync(path).isFile()) return [path]
  return readdirSync(path, { withFileTypes: true })
    .filter(entry => entry.name !== 'fixtures')
    .flatMap(entry => filesOf(join(path, entry.name)))
    .sort()
}

/** With sudo, what is written below the project shall belong to the project's owner, not to root. */
function asOwner() {
  const owner = foreignOwner()
  if (owner === undefined) return {}
  const entry = readFileSync('/etc/passwd', 'utf8')
    .split('\n')
    .map(line => line.split(':'))
    .find(fields => fields[2] === String(owner.uid))
  // npm tells its children its own settings, e.g. where root's cache is.
  const environment = Object.entries(process.env).filter(([name]) => !/^npm_/i.test(name))
  return { ...owner, env: { ...Object.fromEntries(environment), HOME: entry?.[5] ?? '/tmp' } }
}

/** Who owns the project, when this is root and the owner is not. */
function foreignOwner() {
  const { uid, gid } = statSync(root)
  return isRoot && uid !== 0 ? { uid, gid } : undefined
}

/** Gives the owner what root has written, else neither npm nor the next build could replace it. */
function returnToOwner() {
  const owner = foreignOwner()
  if (owner === undefined) return
  const written = ['build', '.cache', '.tap', 'node_modules/@tapjs/test']
    .map(path => join(root, path))
    .filter(existsSync)
  spawnSync('chown', ['-R', '-h', `${owner.uid}:${owner.gid}`, ...written], { stdio: 'ignore' })
}

// --- helpers ---

const stopSignals = ['SIGINT', 'SIGTERM', 'SIGHUP']

/** @param {string} message */
function say(message) {
  process.stderr.write(`sensu-kvm: ${message}\n`)
}

/**
 * Runs a program quietly; its last lines are shown when it fails. Asked to stop, this process stops the program first and
 * then fails, so that what must be undone after it is undone.
 * @param {string} command
 * @param {string[]} args
 * @param {{ env?: NodeJS.ProcessEnv, uid?: number, gid?: number }} [options]
 * @returns {Promise<void>}
 */
function run(command, args, options = {}) {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { cwd: root, stdio: ['ignore', 'pipe', 'pipe'], ...options })
    let output = ''
    for (const stream of [child.stdout, child.stderr])
      stream.on('data', data => {
        output = (output + data).slice(-20_000)
      })
    let interrupted = false
    const interrupt = () => {
      interrupted = true
      child.kill('SIGINT')
    }
    for (const signal of stopSignals) process.on(signal, interrupt)
    child.once('error', error => reject(new SetupError(`cannot run ${command}: ${error.message}`)))
    child.once('close', (status, signal) => {
      for (const name of stopSignals) process.removeListener(name, interrupt)
      if (interrupted) return reject(new SetupError(`interrupted: ${command}`, 130))
      if (status === 0) return resolve()
      const failure = `${[command, ...args].join(' ')} failed (${signal ?? `status ${status}`})`
      reject(new SetupError(`${failure}:\n${shorten(output)}`))
    })
  })
}

/**
 * The beginning and the end of a long text: some programs name the cause first, some last.
 * @param {string} text
 */
function shorten(text) {
  const lines = text.trimEnd().split('\n')
  return lines.length <= 30 ? lines.join('\n') : [...lines.slice(0, 15), '…', ...lines.slice(-14)].join('\n')
}

try {
  await main(process.argv.slice(2))
} catch (error) {
  if (!(error instanceof SetupError)) throw error
  say(error.message)
  process.exitCode = error.status
}

import { type ChildProcess, spawn } from 'node:child_process'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { cpus } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { type SharedServices, sharedServicesVariable } from '../test/support/services.js'
import { startGuest } from './services/guest.js'
import { buildGuestImage } from './services/guest-image.js'
import { startLibvirtd } from './services/libvirtd.js'
import { CommandError, cacheDirectory, makeTemporaryDirectory, projectDirectory, run } from './services/process.js'
import { startRabbitmq } from './services/rabbitmq.js'
import { Watchdog } from './services/watchdog.js'

// Behind `npm test [-- FILE|FOLDER…]`: type check and lint, the services that the test files share, the compiled tests with tap.
// How it ends does not matter for what it started: watchdogs stop that in every case.

const help = `Usage: npm test [-- FILE|FOLDER...]

Type check, lint and all tests, against private services; or only the test files named, e.g. test/sensu or
test/libvirt/uri.test.ts, without type check and lint.
`

/** More than a full run on two slow cores takes; a run that gets here hangs. */
const wholeRunTimeoutMs = 30 * 60_000
/** How many test files may want a RabbitMQ virtual host of their own. */
const virtualHosts = 48

const tap = join(projectDirectory(), 'node_modules/.bin/tap')

/** Counts of what was checked. */
interface Count {
  passed: number
  failed: number
}

/** Runs a static check; its findings are printed when there are any. */
async function check(name: string, command: string, args: readonly string[]): Promise<Count> {
  try {
    await run(join(projectDirectory(), 'node_modules/.bin', command), args, {
      cwd: projectDirectory(),
      timeoutMs: 300_000,
    })
    print(`ok    ${name}`)
    return { passed: 1, failed: 0 }
  } catch (error) {
    if (!(error instanceof CommandError)) throw error
    print(`FAIL  ${name}\n${error.stdout}${error.stderr}`)
    return { passed: 0, failed: 1 }
  }
}

/** The compiled test files, of all or of the files and folders named by their source. */
function findTests(wanted: readonly string[]): string[] {
  const folder = join(projectDirectory(), 'build')
  const all = readdirSync(join(folder, 'test'), { recursive: true, encoding: 'utf8' })
    .filter(name => name.endsWith('.test.js'))
    .map(name => `test/${name}`)
    .sort()
  const patterns = wanted.map(path => path.replace(/^\.\//, '').replace(/\/$/, '').replace(/\.ts$/, '.js'))
  const chosen = all.filter(
    name => patterns.length === 0 || patterns.some(pattern => name === pattern || name.startsWith(`${pattern}/`)),
  )
  if (chosen.length === 0) throw new Error(`no test files in ${wanted.join(', ')}`)
  return chosen.map(name => join('build', name))
}

/** Whether a test file asks for any of the shared services, by what it imports. */
function wantsServices(file: string): boolean {
  const text = readFileSync(join(projectDirectory(), file), 'utf8')
  const imported = /import \{([^}]*)\} from "[./]*support\/services\.js"/.exec(text)?.[1] ?? ''
  return /\b(rabbitmq|libvirtd|guest)\b/.test(imported)
}

/** tap is compiled with its plugins when they are configured otherwise than delivered (.taprc), once after each `npm ci`. */
async function prepareTap(): Promise<void> {
  const built = join(projectDirectory(), 'node_modules/@tapjs/test/test-built')
  const delivered = readFileSync(join(built, 'dist/esm/index.js'), 'utf8').includes('@tapjs/typescript')
  if (!delivered && existsSync(join(built, 'node_modules'))) return
  print('preparing tap')
  await run(tap, ['build'], { cwd: projectDirectory(), timeoutMs: 300_000 })
}

/** Starts what the test files share. */
async function startServices(): Promise<{ services: SharedServices; stop: () => Promise<unknown> }> {
  const started = performance.now()
  const watchdog = await Watchdog.start()
  const directory = makeTemporaryDirectory()
  watchdog.removeAtEnd(directory)
  const vhosts = Array.from({ length: virtualHosts }, (_, index) => `test-${index}`)
  const [broker, { daemon, image, guest }] = await Promise.all([startRabbitmq({ vhosts }), startHealthyGuest()])
  print(`ok    services started in ${((performance.now() - started) / 1000).toFixed(1)} s`)
  const { host, port, user, password } = broker
  const { session, keeperPid } = daemon
  const services = {
    directory,
    rabbitmq: { host, port, user, password, vhosts },
    libvirtd: { directory: daemon.directory, session, keeperPid },
    image,
    guest: { name: guest.name, uuid: guest.uuid },
  }
  return { services, stop: () => Promise.all([broker.stop(), daemon.stop(), watchdog.end()]) }
}

async function startHealthyGuest() {
  const image = await buildGuestImage({ cacheDirectory: cacheDirectory(), report: print })
  const daemon = await startLibvirtd({ cacheDirectory: cacheDirectory() })
  return { daemon, image, guest: await startGuest(daemon, { name: 'healthy', image }) }
}

/** Runs test files with tap; one line for each, and what went wrong in it. */
async function runTests(files: readonly string[], services: SharedServices | undefined): Promise<Count> {
  const jobs = Math.max(1, Math.min(4, cpus().length))
  await prepareTap()
  const child = spawn(tap, ['run', `--jobs=${jobs}`, '--reporter=tap', '--no-color', ...files], {
    cwd: projectDirectory(),
    detached: true, // a process group, which the watchdog can kill as a whole
    stdio: ['ignore', 'pipe', 'inherit'],
    env: { ...process.env, ...(services && { [sharedServicesVariable]: JSON.stringify(services) }) },
  })
  const watchdog = await Watchdog.start()
  if (child.pid !== undefined) watchdog.watch(child.pid)
  const limit = setTimeout(() => {
    print(`FAIL  the run took longer than ${wholeRunTimeoutMs / 60_000} minutes and was stopped`)
    if (child.pid !== undefined) process.kill(-child.pid, 'SIGKILL')
  }, wholeRunTimeoutMs)
  const count = await readTap(child)
  clearTimeout(limit)
  await watchdog.end()
  return count
}

/**
 * Prints one line for each test file while tap's output comes in, and the whole of a failed file's output except what passed.
 * The counts are those of tap's last line: `# { total: 3, pass: 2, fail: 1 }`.
 */
async function readTap(child: ChildProcess): Promise<Count> {
  if (child.stdout === null) throw new Error('tap has no output')
  const exited = new Promise<number | null>((resolve, reject) => child.once('exit', resolve).once('error', reject))
  let details: string[] = []
  let count: Count | undefined
  for await (const line of createInterface(child.stdout)) {
    const file = /^(not ok|ok) \d+ - (?:build\/)?(\S+) # (?:time=([\d.]+)ms|(.*))/.exec(line)
    const totals = /^# \{ total: (\d+)(?:, pass: (\d+))?(?:, fail: (\d+))?/.exec(line)
    if (file !== null) {
      const [, verdict, name = '', milliseconds] = file
      const time = milliseconds === undefined ? '' : `  ${(Number(milliseconds) / 1000).toFixed(1)} s`
      print(`${verdict === 'ok' ? 'ok  ' : 'FAIL'}  ${name.replace(/\.js$/, '.ts')}${time}`)
      if (verdict !== 'ok') print(details.filter(text => !/^ *(ok \d|1\.\.\d|$)/.test(text)).join('\n'))
      details = []
    } else if (totals !== null) {
      count = { passed: Number(totals[2] ?? 0), failed: Number(totals[3] ?? 0) }
    } else {
      details.push(line)
    }
  }
  const status = await exited
  if (count === undefined) return { passed: 0, failed: 1 }
  return status !== 0 && count.failed === 0 ? { ...count, failed: 1 } : count
}

function print(line: string): void {
  process.stdout.write(`${line}\n`)
}

async function main(wanted: readonly string[]): Promise<void> {
  if (wanted.some(argument => argument === '--help' || argument === '-h')) return print(help.trimEnd())
  const files = findTests(wanted)
  const counts: Count[] = []
  if (wanted.length === 0) {
    counts.push(await check('types (tsc)', 'tsc', ['--noEmit']))
    counts.push(await check('types of the status page (tsc)', 'tsc', ['--noEmit', '-p', 'server/status-page']))
    counts.push(await check('format and lint (biome)', 'biome', ['ci', '--colors=off', '--error-on-warnings', '.']))
  }
  const shared = files.some(wantsServices) ? await startServices() : undefined
  counts.push(await runTests(files, shared?.services))
  await shared?.stop()
  const passed = counts.reduce((sum, count) => sum + count.passed, 0)
  const failed = counts.reduce((sum, count) => sum + count.failed, 0)
  print(`${passed} passed, ${failed} failed`)
  process.exitCode = failed === 0 ? 0 : 1
}

try {
  await main(process.argv.slice(2))
} catch (error) {
  process.stderr.write(`npm test: ${error instanceof Error ? error.message : String(error)}\n`)
  process.exitCode = 1
}

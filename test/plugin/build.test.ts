import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { access, readdir, stat } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { promisify } from 'node:util'
import t from 'tap'
import { commandLineOptions } from '../../plugin/command-line.js'
import { bashCompletion, zshCompletion } from '../../scripts/completion.js'
import { documentation } from '../../scripts/docs.js'
import { loadChecks, validatorText } from '../../scripts/generate.js'
import { exampleCheck, readText } from './example.js'

const root = fileURLToPath(new URL('../../..', import.meta.url))
const built = fileURLToPath(new URL('../..', import.meta.url))
const run = promisify(execFile)

/** Runs a program to its end, whatever its status. */
async function outputOf(
  command: string,
  ...argv: string[]
): Promise<{ status: number; stdout: string; stderr: string }> {
  try {
    return { status: 0, ...(await run(command, argv)) }
  } catch (error) {
    const { code, stdout, stderr } = error as { code: number; stdout: string; stderr: string }
    return { status: code, stdout, stderr }
  }
}

/** An executable of the example check whose host behaves as the given code says. */
function executable(openHost: string): string {
  const module = (path: string) => JSON.stringify(pathToFileURL(join(built, path)).href)
  return `import { main } from ${module('plugin/main.js')}
import { exampleCheck, programOf } from ${module('test/plugin/example.js')}
const program = await programOf(exampleCheck)
await main(program, ${openHost})
`
}

/** The bundle within an executable, which carries its compiled code besides. */
async function sourceOf(path: string): Promise<string> {
  return Buffer.from((await readText(path)).split('\n//=')[1] ?? '', 'base64').toString()
}

const calm = `async () => ({ guests: async () => [{ name: 'web01', usedPercent: 95 }], close: async () => undefined })`

t.test('a program writes its output once and exits with its status', async t => {
  const directory = t.testdir({ 'run.mjs': executable(calm) })
  const result = await outputOf(process.execPath, join(directory, 'run.mjs'), '--scheme', 'x')
  t.same(result, {
    status: 2,
    stdout:
      'check-example CRITICAL: web01: in use 95 % (critical above 90 %)\nCRITICAL web01: in use 95 % (critical above 90 %)\n| web01.used_percent=95%;80;90\n',
    stderr: '',
  })
})

t.test('an error outside of all promises is UNKNOWN and one line as well', async t => {
  const openHost = `() => new Promise(() => setImmediate(() => { throw new Error('fell over') }))`
  const directory = t.testdir({ 'run.mjs': executable(openHost) })
  const result = await outputOf(process.execPath, join(directory, 'run.mjs'))
  t.same(result, { status: 3, stdout: 'check-example UNKNOWN: fell over\n', stderr: '' })
})

t.test('a program ends after its timeout though something is left open', async t => {
  const openHost = `() => { setInterval(() => undefined, 1000); return new Promise(() => undefined) }`
  const directory = t.testdir({ 'run.mjs': executable(openHost) })
  const { status, stdout } = await outputOf(process.execPath, join(directory, 'run.mjs'), '-t', '50ms')
  t.equal(status, 3)
  t.match(stdout, /no answer within 0\.05 s while connecting to qemu:\/\/\/system/)
})

t.test('a reader that has gone changes neither the status nor prints a stack', async t => {
  const directory = t.testdir({ 'run.mjs': executable(calm) })
  const child = spawn(process.execPath, [join(directory, 'run.mjs')], { stdio: ['ignore', 'pipe', 'pipe'] })
  child.stdout.destroy()
  let errors = ''
  child.stderr.on('data', chunk => {
    errors += chunk
  })
  const [status] = await once(child, 'exit')
  t.same([status, errors], [2, ''])
})

t.test('a precompiled validator needs nothing at run time', async t => {
  const text = validatorText(exampleCheck)
  t.notMatch(text, /\b(?:require|import)\b/)
})

t.test('completion names every option and the words of a choice', async t => {
  const program = { name: exampleCheck.name, options: commandLineOptions(exampleCheck) }
  const bash = bashCompletion(program)
  for (const option of ['--warning', '--minimum-ops', '--per-guest', '--timeout']) t.ok(bash.includes(option), option)
  const directory = t.testdir({ bash, zsh: zshCompletion(program) })
  t.same(await outputOf('bash', '-n', join(directory, 'bash')), { status: 0, stdout: '', stderr: '' })
  const ask = `source ${join(directory, 'bash')}; COMP_WORDS=(check-example --mode s); COMP_CWORD=2; _check_example; echo "\${COMPREPLY[@]}"`
  t.same(await outputOf('bash', '-c', ask), { status: 0, stdout: 'slow\n', stderr: '' })
  t.match(zshCompletion(program), "'--mode[A word.]:mode:(fast slow)'")
})

t.test('documentation shows every option, and its sample is a valid Sensu definition', async t => {
  const pages = documentation([exampleCheck])
  const page = pages.get('check-example.md') ?? ''
  for (const text of ['# check-example', '`-w, --warning RANGE`', '`--grace TIME`', '`2m`', '`fast`, `slow`'])
    t.ok(page.includes(text), text)
  t.same(JSON.parse(pages.get('check-example.json') ?? ''), {
    checks: {
      example: {
        command: 'check-example --warning 80 --critical 90',
        subscribers: ['kvm'],
        interval: 60,
        timeout: 40,
        handlers: ['default'],
      },
    },
  })
})

const { checks, problems } = await loadChecks(root)

t.test('every check can be loaded', async t => {
  t.same(problems, [])
})

t.test('docs/checks is what `npm run docs` makes of the checks', async t => {
  const wanted = documentation(checks.map(({ check }) => check))
  t.same((await readdir(join(root, 'docs/checks'))).sort(), [...wanted.keys()].sort())
  for (const [name, text] of wanted) t.equal(await readText(join(root, 'docs/checks', name)), text, name)
})

for (const { check } of checks) {
  const path = join(root, 'dist/bin', check.name)
  t.test(`${basename(path)} is built, and fails in one clear line`, async t => {
    await access(path)
    t.equal((await stat(path)).mode & 0o111, 0o111, 'executable')
    const unknown = (text: string) => check.rubyLine?.('UNKNOWN', text, undefined) ?? `${check.name} UNKNOWN: ${text}`
    const help = await outputOf(path, '--help')
    t.equal(help.status, 3)
    t.match(help.stdout, check.summary.split(' ')[0] ?? '')
    const version = await outputOf(path, '-V')
    t.match(version, {
      status: 3,
      stdout: new RegExp(`^${check.name} \\d+\\.\\d+\\.\\d+ \\(sensu-kvm\\)\\n$`),
      stderr: '',
    })
    const typo = await outputOf(path, '--timeuot', '5')
    t.same(typo, {
      status: 3,
      stdout: `${unknown('unknown option --timeuot: did you mean --timeout?')}\n`,
      stderr: '',
    })
    const uri = 'qemu:///system?socket=/nonexistent/socket'
    const nowhere = await outputOf(path, `--uri=${uri}`)
    // A daemon that cannot be reached is what that one looks for.
    if (check.name === 'check-kvm-libvirtd') t.equal(nowhere.status, 2)
    else t.ok(nowhere.status === 3 && nowhere.stdout.startsWith(unknown('')))
    t.equal(nowhere.stdout.split('\n').length, 2, 'one line')
    t.equal(nowhere.stdout.includes('unknown option --uri'), check.local)
    t.equal(nowhere.stderr, '')
    t.equal((await sourceOf(path)).includes('libvirt-sock'), !check.local, 'has the code for libvirt if it needs it')
  })
}

// Command lines, files and environments beyond the recorded ones: what is printed, logged, and how it ends, as with Sensu 1.9.
import { spawn } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import t, { type Test } from 'tap'
import { cleanEnvironment } from '../support/service-process.js'
import { agentFile } from './agent-process.js'
import { observed } from './observed.js'

interface Start {
  title: string
  /** By path: text, a document, a symbolic link, or null for a directory. */
  files: Record<string, string | { link: string } | object | null>
  args: string[]
  env?: Record<string, string>
  exit: number
  /** Lines of both outputs, of the log file after `LOG`, of the list of loaded files after `LOADED`; without times and parsers' words. */
  output: string[]
}

function write(directory: string, files: Start['files']): void {
  for (const [name, content] of Object.entries(files)) {
    const path = join(directory, name)
    mkdirSync(dirname(path), { recursive: true })
    if (content === null) mkdirSync(path)
    else if (typeof content === 'string') writeFileSync(path, content)
    else if ('link' in content) symlinkSync(content.link, path)
    else writeFileSync(path, JSON.stringify(content))
  }
}

async function start(t: Test, { files, args, env }: Start): Promise<Pick<Start, 'exit' | 'output'>> {
  const directory = t.testdir()
  write(directory, files)
  const child = spawn(process.execPath, [agentFile, ...args], {
    cwd: directory,
    env: { ...cleanEnvironment(), SENSU_LOADED_TEMPFILE_DIR: directory, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  const printed: Record<'out' | 'error', string> = { out: '', error: '' }
  child.stdout.setEncoding('latin1').on('data', chunk => (printed.out += chunk))
  child.stderr.setEncoding('latin1').on('data', chunk => (printed.error += chunk))
  const exit = await new Promise<number>(resolve => child.once('close', code => resolve(code ?? -1)))
  const written = (title: string, name: string) => {
    const path = join(directory, name)
    return existsSync(path) ? `\n${title} ${readFileSync(path, 'latin1')}` : ''
  }
  const all = printed.out + printed.error + written('LOG', 'log') + written('LOADED', 'sensu_client_loaded_files')
  const output = all
    .replace(/"timestamp":"[^"]*",/g, '')
    .replace(/"error":"(?:[^"\\]|\\.)*"/g, '"error":"E"')
    .split('\n')
  return { exit, output: output.filter(line => line !== '') }
}

t.jobs = 3
const running = observed<Start[]>('configuration').map(wanted =>
  t.test(wanted.title, { buffered: true }, async t => {
    const { exit, output } = wanted
    t.strictSame(await start(t, wanted), { exit, output })
  }),
)
await Promise.all(running)

import t, { type Test } from 'tap'
import { rabbitmq } from '../support/services.js'
import { AgentProcess } from './agent-process.js'
import { ServerSide } from './server-side.js'

const broker = await rabbitmq(t)
const server = await ServerSide.open(t, broker.url)
let clients = 0
/** Whether this Node takes the types away from TypeScript by itself; it then refuses what is more than types. */
const takesTypesAway = 'typescript' in process.features && Boolean(process.features['typescript'])

/** An agent with these extension files; names with a slash are below the directory. */
async function start(t: Test, files: Record<string, string>, client: object = {}) {
  const name = `extensions-${++clients}`
  const sockets = { socket: { enabled: false }, http_socket: { enabled: false } }
  const definition = { name, address: '127.0.0.9', subscriptions: [], ...sockets, ...client }
  const agent = new AgentProcess(t, {
    files: {
      'agent.json': { client: definition, rabbitmq: broker.url },
      ...Object.fromEntries(Object.entries(files).map(([file, text]) => [`extensions/${file}`, text])),
    },
    args: ['-v', '-e', 'conf.d/extensions'],
  })
  await server.keepalive(name)
  const ask = async (request: { name: string; [key: string]: unknown }) => {
    await server.request(`client:${name}`, request)
    return server.result(request.name)
  }
  return { agent, name, ask }
}

/** The notices about extensions, as `message: what`. */
function notices({ lines }: AgentProcess): string[] {
  return lines
    .filter(({ level, message }) => level === 'warn' && /extension/.test(message))
    .map(({ message, file, name }) => `${message}: ${String(file ?? name ?? '').replace(/^.*extensions\//, '')}`)
}

t.setTimeout(40_000)

t.test('extensions of every kind of module are loaded and told as Sensu does; helpers below are theirs', async t => {
  const { agent, ask } = await start(t, {
    'a.mjs': `import { text } from './lib/helper.mjs'
      export const name = 'named', description = 'named exports'
      export const run = async check => ({ output: text(check), status: 1 })`,
    'b.cjs': `module.exports = { name: 'common', run: check => ({ output: check.nested.a + check.big, status: 0 }) }`,
    'c.js': `export const name = 'plain', run = () => ({ output: 'plain', status: 3 })`,
    'd.mjs': `export default { name: 'object', prefix: 'own ', run(check) { check.changed = 1; return { output: this.prefix, status: 0 } } }`,
    'e.rb': 'class Check; end',
    'f.mts': `export const name: string = 'typed'; export const run = () => ({ output: 'typed', status: 0 })`,
    'types.d.ts': 'export {}',
    'notes.txt': 'not an extension',
    'lib/helper.mjs': `export const text = check => 'helped ' + check.name + ' ' + check.executed`,
  })
  t.strictSame(notices(agent), [
    'loading extension files from directory: ',
    ...['a.mjs', 'b.cjs', 'c.js', 'd.mjs', 'e.rb'].map(file => `loading extension file: ${file}`),
    'failed to require extension: e.rb',
    'ignoring extension: e.rb',
    'loading extension file: f.mts',
    ...['named', 'common', 'plain', 'object', 'typed'].map(name => `loaded extension: ${name}`),
  ])
  t.match(
    agent.lines.find(({ message }) => message === 'loaded extension'),
    {
      level: 'warn',
      type: 'check',
      name: 'named',
      description: 'named exports',
    },
  )
  const { text, check } = await ask({ name: 'by-attribute', issued: 7, extension: 'named', custom: [1, ':::name:::'] })
  t.match(check, { output: `helped by-attribute ${check.executed}`, status: 1 })
  t.match(
    text,
    /"check":\{"name":"by-attribute","issued":7,"extension":"named","custom":\[1,":::name:::"\],"executed":\d+,"duration":\d+\.\d+,"output":"[^"]*","status":1\}\}$/,
    'key order, and no token substituted',
  )
  t.match((await ask({ name: 'common', nested: { a: ':::x:::' }, big: 5 })).check, { output: ':::x:::5', status: 0 })
  t.match((await ask({ name: 'plain', extension: null })).check, { output: 'plain', status: 3 })
  const object = (await ask({ name: 'object' })).check
  t.match(object, { output: 'own ', status: 0 })
  t.notOk('changed' in object, 'what is published is not what the extension got')
  t.match((await ask({ name: 'both', command: 'echo command', extension: 'named' })).check, { output: 'command\n' })
})

t.test(
  'extensions in TypeScript are loaded as they are, with the TypeScript they import; places keep their lines',
  async t => {
    const { agent, ask } = await start(t, {
      'a.ts': `import { readFile } from 'node:fs/promises'
import { type Answer, count } from './lib/count.ts'
import { word } from './lib/word.cjs'

interface Check { name: string; fail?: boolean }

export const name: string = 'typed'
export const definition = { handlers: ['default'] as const } satisfies object
export async function run<C extends Check>(check: C): Promise<Answer> {
  if (check.fail) throw new TypeError('failed' as string)
  await readFile('/dev/null')
  return { output: word + count(), status: 0 }
}`,
      'b.ts': `import { type Answer, count } from './lib/count.ts'
abstract class Base { abstract run(check: object): Answer }
class Counting extends Base {
  readonly name = 'class'
  private text!: string
  override run(): Answer { this.text ??= 'class '; return { output: this.text + count(), status: 1 } }
}
export default new Counting()`,
      'c.cts': `const { count } = require('./lib/count.ts')
module.exports = { name: 'required', run: (): object => ({ output: 'required ' + count(), status: 2 }) }`,
      'lib/count.ts': `import { first } from './first.ts'
export interface Answer { output: string; status: number }
export let step = 1
let calls: number | undefined
export const count = (): number => (calls = calls === undefined ? first() : calls + step)`,
      'lib/first.ts': `import { step } from './count.ts'
export const first = () => 10 * step`,
      'lib/word.cjs': `exports.word = 'word '`,
    })
    t.notOk(agent.lines.find(({ message }) => message === 'failed to require extension'))
    t.match((await ask({ name: 'typed' })).check, { output: 'word 10', status: 0 })
    t.match((await ask({ name: 'class' })).check, { output: 'class 11', status: 1 }, 'the same module for all')
    t.match((await ask({ name: 'required' })).check, { output: 'required 12', status: 2 })
    const failed = (await ask({ name: 'again', extension: 'typed', fail: true })).check
    t.match(failed, { status: 2, output: /^TypeError: failed\n {2}at \S*run \(.*a\.ts:10:\d+\)\n/ })
  },
)

t.test(
  'TypeScript that is more than types is compiled; what cannot be is told with file and line',
  {
    skip: takesTypesAway && 'Node takes types away itself',
  },
  async t => {
    const broken: Record<string, [text: string, error: RegExp]> = {
      'a.ts': [
        `export const name = 'a'\nexport const run = (check: ) => 5`,
        /extensions\/a\.ts: Unexpected token \(2:/,
      ],
      'b.ts': [
        `export const name: string = 'b'\n\nconst name = 5`,
        /extensions\/b\.ts:3: Identifier 'name' has already/,
      ],
      'c.ts': [`import './lib/bad.ts'`, /extensions\/lib\/bad\.ts: Unexpected token, expected ";" \(2:/],
      'd.mts': [`export const name = 'd'\nawait 5`, /extensions\/d\.mts:2: await is only valid/],
      'e.ts': [`import { gone } from './gone.ts'\nexport const name = gone`, /^Cannot find module '\.\/gone\.ts'/],
      'f.ts': [`throw new Error('at load' as string)`, /^at load$/],
    }
    const { agent, ask } = await start(t, {
      ...Object.fromEntries(Object.entries(broken).map(([file, [text]]) => [file, text])),
      'lib/bad.ts': `\ntype = 5 5`,
      'enum.ts': `enum Status { Ok, Warning, Critical }
const enum Word { Bad = 'bad' }
class Check {
  constructor(readonly name: string, private readonly status: Status) {}
  run() { return { output: Word.Bad + ' ' + Status[this.status], status: this.status } }
}
export default new Check('enum', Status.Warning)`,
    })
    const failures = agent.lines.filter(({ message }) => message === 'failed to require extension')
    t.strictSame(
      failures.map(({ file }) => String(file).replace(/^.*\//, '')),
      Object.keys(broken),
    )
    for (const [index, [, [, error]]] of Object.entries(broken).entries()) t.match(failures[index]?.['error'], error)
    t.match((await ask({ name: 'enum' })).check, { output: 'bad Warning', status: 1 })
  },
)

t.test('hooks follow an extension as they follow a command; safe mode does not concern it', async t => {
  const { ask } = await start(
    t,
    { 'bad.cjs': `module.exports = { name: 'bad', run: () => ({ output: 'bad', status: 2 }) }` },
    { safe_mode: true },
  )
  const { check } = await ask({ name: 'bad', hooks: { critical: { command: 'echo hooked' } } })
  t.match(check, { output: 'bad', status: 2, hooks: { critical: { output: 'hooked\n', status: 0 } } })
})

t.test('one that raises is CRITICAL with class, text and places; one that answers nonsense as well', async t => {
  const { ask } = await start(t, {
    'boom.mjs': `class DiskError extends Error {}
export const name = 'boom'
export function run() { throw new DiskError('no\\ndisk') }`,
    'late.mjs': `export const name = 'late'; export const run = async () => { await null; throw new TypeError('late') }`,
    'word.mjs': `export const name = 'word'; export const run = async () => { throw 'a word' }`,
    'nonsense.mjs': `export const name = 'nonsense'; export const run = check => check.answer`,
  })
  const boom = (await ask({ name: 'boom' })).check
  t.equal(boom.status, 2)
  t.match(boom.output, /^DiskError: no\ndisk\n {2}at \S*run \(file:\/\/.*boom\.mjs:3:\d+\)\n {2}at /)
  t.match((await ask({ name: 'late' })).check, { status: 2, output: /^TypeError: late\n {2}at / })
  t.match((await ask({ name: 'word' })).check, { status: 2, output: 'Error: a word' })
  for (const [index, answer] of [null, {}, 5, { output: 5, status: 0 }, { output: 'x', status: '0' }, []].entries()) {
    const { check } = await ask({ name: `nonsense-${index}`, extension: 'nonsense', answer })
    t.match(check, { status: 2, output: /^TypeError: nonsense must return \{output: string, status: integer\}/ })
  }
})

t.test('one that still runs is not started again, and the agent waits for it at its end', async t => {
  const { agent, name } = await start(t, {
    'slow.mjs': `import { existsSync } from 'node:fs'
export const name = 'slow'
export async function run() {
  while (!existsSync('done')) await new Promise(resolve => setTimeout(resolve, 20))
  return { output: 'ended', status: 0 }
}`,
  })
  await server.request(`client:${name}`, { name: 'slow' })
  await agent.log('attempting to run check extension')
  await server.request(`client:${name}`, { name: 'slow' })
  t.match(await agent.log('previous check extension execution in progress'), { level: 'warn', check: { name: 'slow' } })
  agent.kill('SIGTERM')
  t.match(await agent.log('completing checks in progress'), { checks_in_progress: ['slow'] })
  agent.touch('done')
  t.match((await server.result('slow')).check, { output: 'ended', status: 0 })
  t.strictSame(await agent.exit, { status: 0, signal: null })
})

t.test('an extension schedules itself by its definition', async t => {
  await start(t, {
    'tick.mjs': `export const name = 'tick'
export const definition = { standalone: true, interval: 1, custom: 'c' }
let runs = 0
export const run = check => ({ output: 'run ' + ++runs + check.custom, status: 0 })`,
  })
  const { text } = await server.result('tick', 2)
  t.match(
    text,
    /"check":\{"type":"check","name":"tick","standalone":true,"interval":1,"custom":"c","issued":\d+,"executed":\d+,"duration":[\d.]+,"output":"run 2c","status":0\}\}$/,
  )
})

t.test('broken extensions are told and ignored, whatever is wrong; the agent goes on, and ends', async t => {
  const broken: Record<string, [text: string, error: RegExp]> = {
    'a.mjs': ['export const name = ', /Unexpected/],
    'b.mjs': [`throw new Error('at load')`, /^at load$/],
    'c.mjs': [`export const run = () => {}`, /must export "name"/],
    'd.mjs': [`export const name = 'no spaces'; export const run = () => {}`, /must export "name"/],
    'e.mjs': [`export const name = 'x'`, /must export a function "run"/],
    'f.cjs': [`require('no-such-module')`, /Cannot find module/],
    'g.mjs': [`export const name = 'g', definition = 5; export const run = () => {}`, /"definition" must be an object/],
    'h.mjs': [
      `export const name = 'h', definition = { standalone: true, cron: '*/0 * * * *' }; export const run = () => {}`,
      /check cron string must use the cron syntax/,
    ],
    'j.mjs': [`export const name = 'i'; export const run = () => {}`, /there is an extension i already/],
  }
  const { agent, name, ask } = await start(t, {
    ...Object.fromEntries(Object.entries(broken).map(([file, [text]]) => [file, text])),
    'i.mjs': `export const name = 'i'
setInterval(() => {}, 1000)
export const run = () => { setTimeout(() => { throw new Error('afterwards') }); return { output: 'fine', status: 0 } }`,
  })
  const failures = agent.lines.filter(({ message }) => message === 'failed to require extension')
  t.strictSame(
    failures.map(({ file }) => String(file).replace(/^.*\//, '')),
    Object.keys(broken),
  )
  for (const [index, [, [, error]]] of Object.entries(broken).entries()) t.match(failures[index]?.['error'], error)
  t.match((await ask({ name: 'i' })).check, { output: 'fine', status: 0 })
  t.match(await agent.log('unexpected error - please address this immediately'), {
    level: 'fatal',
    error: 'Error: afterwards',
    error_class: 'Error',
  })
  await server.request(`client:${name}`, { name: 'h' })
  t.match(await agent.log('unknown check extension'), { level: 'warn', check: { name: 'h' } })
  t.strictSame(await agent.stop(), { status: 0, signal: null }, 'a timer left behind does not hold the process')
})

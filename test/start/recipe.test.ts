import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { projectDirectory, run } from '../../scripts/services/process.js'
import { loadSettings } from '../../sensu/settings.js'

const recipe = join(projectDirectory(), 'conf.d')
const bin = join(projectDirectory(), 'dist/bin')

for (const service of ['client', 'server', 'api'] as const)
  t.test(`conf.d is valid for the ${service}`, async t => {
    const { settings, errors } = loadSettings({ service, configDirectories: [recipe], environment: {} })
    t.same(errors, [])
    t.equal(settings.transport.name, 'rabbitmq')
    t.match(settings, { rabbitmq: { vhost: '/sensu' }, redis: { port: 6379 }, api: { port: 4567 } })
  })

for (const [name, option] of [
  ['sensu-kvm-agent', '--validate_config'],
  ['sensu-kvm-server', '--validate_config'],
  ['handler-log', '--validate'],
] as const)
  t.test(`${name} takes it as it is`, async t => {
    const { stdout } = await run(process.execPath, [join(bin, name), '-d', recipe, option])
    t.match(stdout, /valid/)
  })

const { settings } = loadSettings({ service: 'client', configDirectories: [recipe], environment: {} })

t.test('it has a scheduled check of memory, a standalone check of state, and the handlers they name', async t => {
  const { memory_check: memory, state_check: state } = settings.checks
  t.match(memory, { command: /^check-kvm-memory /, subscribers: ['base'] })
  t.match(state, { command: /^check-kvm-state /, standalone: true })
  t.ok(settings.client.subscriptions.includes('base'), 'the client subscribes to what the scheduled check is sent to')
  for (const check of [memory, state]) t.match(check?.['handlers'], ['default'])
  t.match(settings.handlers['default'], { type: 'pipe' })
})

for (const [name, check] of Object.entries(settings.checks))
  t.test(`${name} is a check of ours with options it knows`, async t => {
    const [program = '', ...options] = String(check.command).split(' ')
    t.ok(readdirSync(bin).includes(program), program)
    // Without a libvirt to ask it must get as far as missing it.
    const uri = ['--uri', 'qemu+unix:///system?socket=/nonexistent/socket']
    const failure = await run(join(bin, program), [...options, ...uri]).catch((error: unknown) => error)
    t.match(failure, { status: 3, stdout: /\/nonexistent\/socket/ })
    const limit = /(?:-t|--timeout) (\d+)/.exec(String(check.command))?.[1] ?? '30'
    t.ok(Number(limit) < Number(check.timeout), 'its own deadline comes before the one that would kill it')
  })

t.test('the files are plain JSON of one top-level key each', async t => {
  for (const file of readdirSync(recipe))
    t.equal(Object.keys(JSON.parse(readFileSync(join(recipe, file), 'utf8'))).length, 1, file)
})

import t from 'tap'
import { agentSettings, readAgentSettings } from '../../agent/settings.js'
import type { Json, Settings } from '../../sensu/types.js'

function read(section: Json | undefined) {
  const settings: Settings = {
    client: { name: 'x', address: 'x', subscriptions: [] },
    sensu: { spawn: { limit: 12 }, keepalives: {} },
    transport: { name: 'rabbitmq', reconnect_on_error: true },
    checks: {},
    filters: {},
    mutators: {},
    handlers: {},
    extensions: {},
    sensu_kvm: section,
  }
  const { values, errors } = readAgentSettings(settings)
  return { values, messages: errors.map(({ message }) => message) }
}

t.test('without a section everything has its default', async t => {
  const { values, messages } = read(undefined)
  t.strictSame(messages, [])
  t.strictSame(values, Object.fromEntries(agentSettings.map(row => [row.key, row.default])))
})

t.test('what is set replaces the default', async t => {
  const { values, messages } = read({
    results: { to: 'redis' },
    in_process: false,
    libvirt: { uri: 'test:///default' },
  })
  t.strictSame(messages, [])
  t.match(values, { 'results.to': 'redis', in_process: false, 'libvirt.uri': 'test:///default' })
})

t.test('everything that is wrong is told at once, by name and rule', async t => {
  const { messages } = read({
    results: { to: 'both', max_held_bytes: 5, tu: 1 },
    in_process: 'yes',
    libvirt: [],
    colour: 1,
  })
  t.strictSame(messages.sort(), [
    'sensu_kvm colour is not a known setting',
    'sensu_kvm in_process must be boolean',
    'sensu_kvm libvirt must be a hash',
    'sensu_kvm results max_held_bytes must be an integer not less than 1024',
    'sensu_kvm results to must be one of: transport, redis',
    'sensu_kvm results tu is not a known setting',
  ])
  t.strictSame(read('x').messages, ['sensu_kvm must be a hash'])
})

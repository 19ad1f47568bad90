import t from 'tap'
import { duration, firstLine, silencedThing, silenceTerms } from '../../server/status-page/format.js'
import { readClients, readEvents, readResults, readSilences, readTroubles } from '../../server/status-page/shapes.js'
import { filterGroups, groupsOf, problemsOf, type Site, WITHOUT_HOST } from '../../server/status-page/site.js'

const NOW = 1_795_317_173

function site({
  clients = [],
  events = [],
  silences = [],
}: {
  clients?: object[]
  events?: object[]
  silences?: object[]
}): Site {
  return { clients: readClients(clients), events: readEvents(events), silences: readSilences(silences) }
}

function event(
  client: string,
  status: number,
  { subscriptions = [], ...more }: { [key: string]: unknown } = {},
): object {
  const check = { name: 'state', status, output: '', history: ['0', String(status)], ...more }
  return { client: { name: client, subscriptions }, check, occurrences: 1, action: 'create', ...more }
}

function groups(known: Site) {
  return groupsOf(known, problemsOf(known, NOW), NOW)
}

function names(known: Site): Record<string, string[]> {
  return Object.fromEntries(groups(known).map(({ host, guests }) => [host.name, guests.map(({ name }) => name)]))
}

t.test('problems come by how bad they are, then by how new, then by name', async t => {
  const events = [
    event('a', 3),
    event('b', 1),
    event('old', 2, { last_state_change: NOW - 100 }),
    event('web10', 2, { last_state_change: NOW }),
    event('web2', 2, { last_state_change: NOW }),
    event('c', 127),
  ]
  const order = problemsOf(site({ events }), NOW).map(problem => problem.event.client)
  t.strictSame(order, ['web2', 'web10', 'old', 'b', 'a', 'c'])
})

t.test('an event is silenced by what the server would silence it by, from when that begins', async t => {
  const events = [event('web1', 2, { subscriptions: ['base'] })]
  const silencing = (id: string, begin: number | null = null) =>
    problemsOf(site({ events, silences: [{ id, begin, expire: -1 }] }), NOW)[0]?.silences.length
  for (const id of ['client:web1:*', 'client:web1:state', 'base:*', 'base:state', '*:state'])
    t.equal(silencing(id), 1, id)
  for (const id of ['client:web2:*', 'client:web1:other', 'other:*', '*:other']) t.equal(silencing(id), 0, id)
  t.equal(silencing('*:state', NOW), 1)
  t.equal(silencing('*:state', NOW + 1), 0)
})

t.test('guests stand with the host that sends their results, by the newest word on it', async t => {
  const clients = [
    { name: 'kvm1' },
    { name: 'kvm2' },
    { name: 'web1', type: 'proxy', host: 'kvm1' },
    { name: 'moved', type: 'proxy', host: 'kvm1' },
    { name: 'with-agent', host: 'kvm2', timestamp: NOW },
    { name: 'switch', type: 'proxy', host: null },
    { name: 'itself', host: 'itself' },
  ]
  const events = [event('moved', 1, { origin: 'kvm2' }), event('new', 2, { origin: 'kvm3' })]
  t.strictSame(names(site({ clients, events })), {
    kvm3: ['new'],
    kvm2: ['moved', 'with-agent'],
    itself: [],
    kvm1: ['web1'],
    [WITHOUT_HOST]: ['switch'],
  })
})

t.test('a host that is a guest stands in both places', async t => {
  const clients = [{ name: 'outer' }, { name: 'inner', host: 'outer' }, { name: 'leaf', type: 'proxy', host: 'inner' }]
  t.strictSame(names(site({ clients })), { inner: ['leaf'], outer: ['inner'] })
  const circle = [
    { name: 'a', host: 'b' },
    { name: 'b', host: 'a' },
  ]
  t.strictSame(names(site({ clients: circle })), { a: ['b'], b: ['a'] })
})

t.test('silenced events do not make a client bad, but it is marked', async t => {
  const silences = [{ id: 'client:web1:*' }, { id: 'client:idle:*' }]
  const clients = [{ name: 'web1' }, { name: 'idle' }, { name: 'other' }]
  const known = site({ clients, events: [event('web1', 2), event('other', 1)], silences })
  const states = Object.fromEntries(groups(known).map(({ host }) => [host.name, host]))
  t.match(states, {
    web1: { status: 0, problems: 0, hasSilenced: true },
    idle: { status: 0, hasSilenced: true },
    other: { status: 1, problems: 1, hasSilenced: false },
  })
})

t.test('a filter leaves a host with all guests, or with those it fits', async t => {
  const clients = [
    { name: 'kvm1', address: '10.0.0.5' },
    { name: 'web1', type: 'proxy', host: 'kvm1' },
    { name: 'db1', type: 'proxy', host: 'kvm1' },
  ]
  const left = (filter: string) => filterGroups(groups(site({ clients })), filter).map(group => group.guests.length)
  t.strictSame(left(''), [2])
  t.strictSame(left('KVM1'), [2])
  t.strictSame(left('10.0.0.5'), [2])
  t.strictSame(left('kvm1 web'), [1])
  t.strictSame(left('nothing'), [])
})

t.test('what has an unexpected form is left out or empty', async t => {
  const shapeless = [null, 5, 'x', [], {}, { client: 5 }, { client: { name: 'a' }, check: 'b' }, { name: {}, id: [] }]
  t.strictSame(
    [readEvents, readSilences, readClients, readResults].map(read => read(shapeless)),
    [[], [], [], []],
  )
  for (const value of [undefined, null, {}, 'x', 5]) t.strictSame(readEvents(value), [])
  const [odd] = readEvents([
    {
      client: { name: 'a', subscriptions: 5 },
      check: { name: 'b', status: '2', output: 7, history: 'x' },
      last_ok: 'x',
    },
  ])
  t.match(odd, { status: 2, output: '7', history: [], subscriptions: [], since: undefined, occurrences: 1 })
  t.strictSame(readEvents([event('a', 0, { status: 'bad', history: [-1, '1', null] })])[0]?.history, [3, 1, 3])
})

t.test('what the server lacks is told', async t => {
  const info = (redis: unknown, transport: unknown, servers: unknown) => readTroubles({ redis, transport, servers })
  const up = { connected: true }
  t.strictSame(info(up, up, [{}]), [])
  t.match(info(up, up, []), [/No server is at work/])
  t.match(info(up, { connected: false }, []), [/not connected to the transport/])
  t.match(info(null, up, []), [/not connected to Redis/])
})

t.test('durations, first lines and silences in words', async t => {
  const durations = [-5, 0, 59, 60, 3599, 3600, 12_000, 86_400, 100_000, 8_640_000]
  t.strictSame(durations.map(duration), [
    '0 s',
    '0 s',
    '59 s',
    '1 min',
    '59 min',
    '1 h',
    '3 h 20 min',
    '1 d',
    '1 d 3 h',
    '100 d',
  ])
  t.strictSame(
    ['', '\n \n', '\nx\ny', 'x'.repeat(600)].map(output => firstLine(output).slice(0, 12)),
    ['(no output)', '(no output)', 'x', 'x'.repeat(12)],
  )
  t.strictSame(['client:web1:*', 'client:web1:state', '*:state', 'base:*'].map(silencedThing), [
    'everything on web1',
    'state on web1',
    'state everywhere',
    'everything on subscription base',
  ])
  const terms = (entry: object) => readSilences([{ id: 'x:*', ...entry }]).map(silence => silenceTerms(silence, NOW))
  t.strictSame(terms({ expire: -1, begin: NOW + 60, reason: 'move', creator: 'anna' }), [
    'begins in 1 min · without end · “move” · by anna',
  ])
  t.strictSame(terms({ expire: 3600, expire_on_resolve: true }), ['1 h left or until it is resolved'])
})

import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { createServer } from 'node:https'
import { type AddressInfo, createServer as createTcpServer } from 'node:net'
import { text } from 'node:stream/consumers'
import t, { type Test } from 'tap'
import { createCertificates } from '../../scripts/services/certificates.js'
import { waitUntil } from '../../scripts/services/process.js'
import { guestEvent, httpReceiver, runHandler, sectionFile } from '../support/handlers.js'
import { startCarbon, startInfluxdb } from '../support/metric-stores.js'

const name = 'handler-metrics'
const seconds = Math.floor(Date.now() / 1000)

/** An event of a metric check of the host that printed this. */
function metricEvent(output: string, check: object = {}): object {
  return guestEvent({
    client: { name: 'kvm-host' },
    check: {
      name: 'metrics-kvm',
      type: 'metric',
      status: 0,
      output,
      executed: seconds,
      origin: undefined,
      source: undefined,
      ...check,
    },
    action: 'create',
  })
}

function run(t: Test, settings: object, output: string, { check = {}, options = [] as string[] } = {}) {
  const argv = sectionFile(t, name, settings, `${Math.random()}.json`)
  return runHandler(name, [...argv, ...options], metricEvent(output, check))
}

/** Numbers in our checks' format for InfluxDB. */
function influxLines(count: number, measurement = 'kvm'): string {
  return Array.from(
    { length: count },
    (_, index) => `${measurement},host=kvm-host,guest=web${index} used=${index} ${seconds}000000000\n`,
  ).join('')
}

const patience = { timeoutMs: 20_000, intervalMs: 200 }

t.test('carbon stores what was sent by TCP and by UDP, whatever format it came in', async t => {
  t.testdir({})
  const carbon = await startCarbon(t)
  const tcp = { store: 'graphite', url: `tcp://127.0.0.1:${carbon.port}`, prefix: 'site.:::client.name:::' }
  const sent = (count: number, protocol: string) =>
    `handler-metrics: kvm-host/metrics-kvm create: sent ${count} numbers to graphite at ${protocol}://127.0.0.1:${carbon.port}\n`
  t.match(await run(t, tcp, influxLines(3)), { stdout: sent(3, 'tcp'), stderr: '', status: 0 })
  t.match(await run(t, tcp, `a.b 1.5 ${seconds}\na.c 2 ${seconds}\n`), { stdout: sent(2, 'tcp'), status: 0 })
  const udp = { store: 'graphite', url: `udp://127.0.0.1:${carbon.port}` }
  t.match(await run(t, udp, "OK: fine | 'in use'=5%;80;90 free=7B"), { stdout: sent(2, 'udp'), status: 0 })
  t.match(await run(t, udp, influxLines(100, 'many')), { stdout: sent(100, 'udp'), status: 0 })
  const stored = await carbon.stored(seconds, 107)
  t.match(Object.fromEntries(stored), {
    'site.kvm-host.kvm-host.kvm.web2.used': 2,
    'site.kvm-host.a.b': 1.5,
    'site.kvm-host.a.c': 2,
    'kvm-host.metrics_kvm.in_x20use': 5,
    'kvm-host.metrics_kvm.free': 7,
    'kvm-host.many.web99.used': 99,
  })
  t.equal(stored.size, 107)
})

t.test('InfluxDB stores what was sent over HTTP, by UDP, and as OpenTSDB sends it', async t => {
  t.testdir({})
  const influxdb = await startInfluxdb(t)
  await influxdb.query('', 'CREATE DATABASE "sensu"')
  const http = {
    store: 'influxdb',
    url: influxdb.url,
    database: 'sensu',
    tags: { client: ':::client.name:::', dc: ':::client.dc|north:::', none: ':::nothing:::' },
  }
  t.match(await run(t, http, influxLines(12_000)), {
    stdout: /sent 12000 numbers to influxdb at http:/,
    stderr: '',
    status: 0,
  })
  const points = await influxdb.points('sensu')
  t.equal(points.length, 12_000)
  t.match(
    points.find(({ tags }) => tags['guest'] === 'web7'),
    { name: 'kvm.used', tags: { host: 'kvm-host', client: 'kvm-host', dc: 'north' }, value: 7 },
  )

  const wrongType = `kvm,host=kvm-host,guest=web1 used="text" ${seconds}000000000\nother,host=kvm-host value=1 ${seconds}000000000\n`
  t.match(await run(t, http, wrongType), {
    status: 1,
    stderr: /sent 1 of 2 numbers to influxdb at .*: .* answers 400 .*partial write: field type conflict.*dropped=1/,
  })
  t.ok(
    (await influxdb.points('sensu')).some(point => point.name === 'other.value'),
    'the other number is there',
  )
  t.match(await run(t, { ...http, database: 'missing' }, influxLines(1)), {
    status: 1,
    stderr: /sent 0 of 1 numbers .*answers 404 .*database not found/,
  })

  const udp = { store: 'influxdb', url: `udp://127.0.0.1:${influxdb.udpPort}` }
  t.match(await run(t, udp, influxLines(60)), { stdout: /sent 60 numbers to influxdb at udp:/, status: 0 })
  const telnet = { store: 'opentsdb', url: `tcp://127.0.0.1:${influxdb.opentsdbPort}` }
  t.match(await run(t, telnet, influxLines(60, 'telnet')), { stdout: /sent 60 numbers to opentsdb at tcp:/, status: 0 })
  const put = { store: 'opentsdb', url: `http://127.0.0.1:${influxdb.opentsdbPort}/` }
  t.match(await run(t, put, influxLines(120, 'http')), { stdout: /sent 120 numbers to opentsdb at http:/, status: 0 })
  const counts: [database: string, pattern: RegExp, count: number][] = [
    ['udp', /^kvm\.used$/, 60],
    ['opentsdb', /^telnet\.used\.value$/, 60],
    ['opentsdb', /^http\.used\.value$/, 120],
  ]
  for (const [database, pattern, count] of counts) {
    const arrived = async () => {
      const found = (await influxdb.points(database)).filter(point => pattern.test(point.name))
      return found.length === count ? found : undefined
    }
    t.equal((await waitUntil(`${count} numbers like ${pattern}`, arrived, patience)).length, count)
  }
})

t.test('InfluxDB 2 gets organisation, bucket and token, 5,000 lines a request', async t => {
  t.testdir({ token: 'very-secret\n' })
  const { origin, received } = await httpReceiver(t, [{ status: 204 }])
  const settings = {
    store: 'influxdb2',
    url: `${origin}/influx/`,
    org: 'my org',
    bucket: 'b&1',
    token_file: `${t.testdirName}/token`,
  }
  t.match(await run(t, settings, influxLines(12_001)), { stdout: /sent 12001 numbers to influxdb2/, status: 0 })
  t.same(
    received.map(({ body }) => body.trimEnd().split('\n').length),
    [5000, 5000, 2001],
  )
  t.match(received[0], {
    method: 'POST',
    url: '/influx/api/v2/write?org=my+org&bucket=b%261&precision=ns',
    headers: { authorization: 'Token very-secret', 'content-type': 'text/plain; charset=utf-8' },
  })
  const { stdout } = await run(t, settings, influxLines(2), { options: ['--dry-run'] })
  t.equal(stdout, influxLines(2), 'a dry run prints the lines')
  t.equal(received.length, 3, 'and sends nothing')
})

t.test('a store that is busy or drops the connection is tried again', async t => {
  t.testdir({})
  const { origin, received } = await httpReceiver(t, [
    { status: 503, body: 'busy' },
    'drop',
    { status: 429 },
    { status: 204 },
  ])
  const settings = { store: 'influxdb', url: origin, database: 'sensu', user: 'sensu', password: 'secret' }
  t.match(await run(t, settings, influxLines(1)), { stdout: /sent 1 numbers/, status: 0 })
  t.equal(received.length, 4)
  t.equal(received[3]?.headers.authorization, `Basic ${Buffer.from('sensu:secret').toString('base64')}`)
})

t.test('a store that stays away is named in time, with what was sent before', async t => {
  t.testdir({})
  const { origin } = await httpReceiver(t, [{ status: 204 }, 'hang'])
  const settings = { store: 'influxdb', url: origin, database: 'sensu', timeout: 2 }
  const result = await run(t, settings, influxLines(7000))
  t.match(result, {
    status: 1,
    stderr:
      /(sent 5000 of 7000 numbers to influxdb at .*cannot send to http:|gave up after 2 s while sending 7000 numbers)/,
  })
  t.ok(result.ms < 10_000)
  const nobody = { store: 'graphite', url: 'tcp://127.0.0.1:1', timeout: 1 }
  t.match(await run(t, nobody, influxLines(1)), {
    status: 1,
    stderr: /sent 0 of 1 numbers to graphite at tcp:\/\/127.0.0.1:1: cannot send to .*ECONNREFUSED/,
  })
  const unheard = { store: 'graphite', url: 'udp://127.0.0.1:1', timeout: 1 }
  t.match(await run(t, unheard, influxLines(200)), {
    status: 1,
    stderr: /of 200 numbers to graphite at udp:\/\/127.0.0.1:1: cannot send to .*ECONNREFUSED/,
  })
})

t.test('a store over https is trusted by its authority only', async t => {
  const { authority, server: pair } = await createCertificates(t.testdir())
  const [key, cert] = [pair.key, pair.certificate].map(path => readFileSync(path))
  const bodies: string[] = []
  const server = createServer({ key, cert }, async (request, response) => {
    bodies.push(await text(request))
    response.writeHead(204).end()
  })
  await once(server.listen(0, '127.0.0.1'), 'listening')
  t.teardown(() => server.close())
  const { port } = server.address() as AddressInfo
  const settings = { store: 'influxdb', url: `https://localhost:${port}`, database: 'sensu' }
  t.match(await run(t, { ...settings, ca_file: authority }, influxLines(1)), { status: 0, stdout: /sent 1 numbers/ })
  t.match(await run(t, settings, influxLines(1)), {
    status: 1,
    stderr: /cannot trust https:\/\/localhost:\d+: .*ca_file/,
  })
  t.same(bodies, [influxLines(1)])
})

t.test('OpenTSDB says which numbers it refuses, and the others count', async t => {
  t.testdir({})
  const refusal = {
    failed: 1,
    success: 49,
    errors: [{ datapoint: { metric: 'kvm.used' }, error: 'Unable to parse value' }],
  }
  const { origin, received } = await httpReceiver(t, [
    { status: 200, body: '{}' },
    { status: 400, body: JSON.stringify(refusal) },
    { status: 204 },
  ])
  t.match(await run(t, { store: 'opentsdb', url: origin }, influxLines(120)), {
    status: 1,
    stderr: /sent 119 of 120 numbers to opentsdb at .* answers 400 .*Unable to parse value/,
  })
  t.same(
    received.map(({ url, body }) => [url, JSON.parse(body).length]),
    [50, 50, 20].map(count => ['/api/put?details=', count]),
  )
  t.same(JSON.parse(received[0]?.body ?? '')[1], {
    metric: 'kvm.used',
    timestamp: seconds,
    value: 1,
    tags: { host: 'kvm-host', guest: 'web1' },
  })

  const complaining = createTcpServer(socket => {
    socket.setEncoding('utf8').on('data', () => socket.write('put: illegal argument: no such metric\n'))
  })
  await once(complaining.listen(0, '127.0.0.1'), 'listening')
  t.teardown(() => complaining.close())
  const { port } = complaining.address() as AddressInfo
  t.match(await run(t, { store: 'opentsdb', url: `tcp://127.0.0.1:${port}` }, influxLines(3)), {
    status: 1,
    stderr: /sent 2 of 3 numbers to opentsdb at .*: put: illegal argument: no such metric/,
  })
})

t.test('no datagram is longer than 1,400 bytes, and a line that would be is named', async t => {
  t.testdir({})
  const receiver = createSocket('udp4')
  const sizes: number[] = []
  let lines = 0
  receiver.on('message', message => {
    sizes.push(message.length)
    lines += message.toString().trimEnd().split('\n').length
  })
  receiver.bind(0, '127.0.0.1')
  await once(receiver, 'listening')
  t.teardown(() => receiver.close())
  const settings = { store: 'influxdb', url: `udp://127.0.0.1:${receiver.address().port}` }
  const long = `kvm,${Array.from({ length: 20 }, (_, index) => `t${index}=${'x'.repeat(100)}`).join(',')} used=1\n`
  t.match(await run(t, settings, influxLines(200) + long), {
    status: 1,
    stderr: /sent 200 of 201 numbers .*: 1 longer than one packet or request may be/,
  })
  await waitUntil('all lines have come', () => (lines === 200 ? true : undefined), patience)
  t.ok(sizes.every(size => size <= 1400))
  t.ok(sizes.length < 20, 'they are filled')
})

t.test('lines that are no numbers are counted and named, and the others sent', async t => {
  t.testdir({})
  const { origin, received } = await httpReceiver(t, [{ status: 204 }])
  const settings = { store: 'influxdb', url: origin, database: 'sensu' }
  t.match(await run(t, settings, `a warning | with a bar\n${influxLines(2)}x\u001b[31m y=\n`), {
    status: 1,
    stderr:
      /sent 2 of 2 numbers .*: 2 lines are not influxdb, the first ones: "a warning \/ with a bar", "x\?\[31m y="/,
  })
  t.equal(received[0]?.body, influxLines(2))
  t.match(await run(t, { ...settings, output_format: 'graphite' }, influxLines(1)), {
    status: 1,
    stderr: /1 line is not graphite: "kvm,/,
  })
  t.match(await run(t, settings, `a 1 ${seconds}\n`, { check: { output_format: 'influxdb' } }), {
    status: 1,
    stderr: /1 line is not influxdb/,
  })
  t.match(await run(t, settings, 'nothing of the kind'), {
    status: 1,
    stderr: /no line of a known format .*: "nothing of the kind": set output_format, or correct the check/,
  })
  const failed = { check: { status: 3 } }
  t.match(await run(t, settings, 'metrics-kvm UNKNOWN: cannot reach libvirt', failed), {
    status: 0,
    stdout: /nothing to do: the check failed, the output has no line of a known format/,
  })
  t.match(await run(t, settings, ''), { status: 0, stdout: /nothing to do: the output has no numbers/ })
})

t.test('texts that only InfluxDB stores are left out elsewhere', async t => {
  t.testdir({})
  const { origin, received } = await httpReceiver(t, [{ status: 204 }])
  const result = await run(
    t,
    { store: 'opentsdb', url: origin },
    `kvm,host=a state="running",up=t,used=5i ${seconds}000000000`,
  )
  t.match(result, {
    status: 0,
    stdout: /sent 1 numbers to opentsdb at .*; 2 texts and truth values, which only InfluxDB stores, were left out/,
  })
  t.equal(JSON.parse(received[0]?.body ?? '[]').length, 1)
})

t.test('a path of Graphite goes elsewhere with its host as tag', async t => {
  t.testdir({})
  const { origin, received } = await httpReceiver(t, [{ status: 204 }])
  await run(t, { store: 'influxdb', url: origin, database: 'sensu' }, `kvm-host.load.one 0.5 ${seconds}`)
  t.equal(received[0]?.body, `kvm-host.load.one,host=kvm-host value=0.5 ${seconds}000000000\n`)
})

t.test('over UDP InfluxDB needs no database', async t => {
  t.testdir({})
  const settings = { store: 'influxdb', url: 'udp://127.0.0.1:1' }
  t.match(await run(t, settings, '', { options: ['--validate'] }), { stderr: '', status: 0 })
})

import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { lookUp } from '../../plugin/name-lookup.js'

const types = { A: 1, AAAA: 28 } as const

/** A name server that knows these names, and what it was asked; without names it answers nothing. */
async function nameServer(t: Test, names?: Readonly<Record<string, Partial<Record<keyof typeof types, string>>>>) {
  const socket = createSocket('udp4')
  const asked: string[] = []
  socket.on('message', (query, { port, address }) => {
    const labels: string[] = []
    let at = 12
    for (let length = query[at] ?? 0; length > 0; length = query[at] ?? 0) {
      labels.push(query.toString('latin1', at + 1, at + 1 + length))
      at += 1 + length
    }
    const type = query.readUInt16BE(at + 1) === types.A ? 'A' : 'AAAA'
    const name = labels.join('.')
    asked.push(`${name} ${type}`)
    if (names === undefined) return
    const value = names[name]?.[type]
    const head = Buffer.from(query.subarray(0, at + 5))
    head.writeUInt16BE(names[name] === undefined ? 0x8183 : 0x8180, 2)
    head.writeUInt16BE(value === undefined ? 0 : 1, 6)
    head.fill(0, 8, 12)
    socket.send(value === undefined ? head : Buffer.concat([head, record(types[type], value)]), port, address)
  })
  socket.bind(0, '127.0.0.1')
  await once(socket, 'listening')
  t.teardown(() => socket.close())
  return { server: `127.0.0.1:${socket.address().port}`, asked }
}

/** A resource record of the name that was asked for: 60 seconds, class internet. Data in hexadecimal. */
function record(type: number, data: string): Buffer {
  const head = Buffer.from('c00c000000010000003c0000', 'hex')
  head.writeUInt16BE(type, 2)
  head.writeUInt16BE(data.length / 2, 10)
  return Buffer.concat([head, Buffer.from(data, 'hex')])
}

function machine(t: Test, resolvConf: string, hosts = '') {
  const root = t.testdir({ etc: { 'resolv.conf': resolvConf, hosts } })
  return (host: string, timeoutSeconds = 5) => lookUp(host, { timeoutSeconds, path: absolute => join(root, absolute) })
}

t.test('an address is itself, then the hosts file counts, then the name servers, IPv4 first', async t => {
  const { server, asked } = await nameServer(t, {
    'both.test': { A: '7f000002', AAAA: `${'0'.repeat(30)}02` },
    'six.test': { AAAA: `${'0'.repeat(30)}01` },
  })
  const find = machine(t, `nameserver ${server}\n`, '10.0.0.1 one.test alias # 10.0.0.2 both.test\nfe80::1 six\n')
  t.equal(await find('192.0.2.1'), '192.0.2.1')
  t.equal(await find('::1'), '::1')
  t.equal(await find('ALIAS'), '10.0.0.1')
  t.equal(await find('six'), 'fe80::1')
  t.same(asked, [])
  t.equal(await find('both.test'), '127.0.0.2')
  t.equal(await find('six.test'), '::1')
  t.equal(await find('nobody.test'), undefined)
})

t.test('a short name is looked for below the search domains, a longer one first as it is', async t => {
  const { server, asked } = await nameServer(t, { 'web.in.test': { A: '7f000003' } })
  const find = machine(t, `search out.test in.test\nnameserver ${server}\noptions timeout:1 ndots:1\n`)
  t.equal(await find('web'), '127.0.0.3')
  t.same(asked.splice(0), ['web.out.test A', 'web.out.test AAAA', 'web.in.test A'])
  t.equal(await find('web.in.test'), '127.0.0.3')
  t.same(asked.splice(0), ['web.in.test A'])
  t.equal(await find('web.in.test.'), '127.0.0.3')
  t.equal(await find('x.'), undefined)
  t.same(asked.splice(0), ['web.in.test A', 'x A', 'x AAAA'])
})

t.test('a name server that is silent costs the time it is given, one that is not there none', async t => {
  const { server, asked } = await nameServer(t)
  const startedMs = performance.now()
  t.equal(await machine(t, `nameserver ${server}\n`)('web.test', 0.1), undefined)
  t.ok(performance.now() - startedMs < 5000)
  t.ok(asked.includes('web.test A'))
  t.equal(await machine(t, 'nameserver 127.0.0.1:1\nnameserver nonsense\n')('web.test', 30), undefined)
})

import { createSocket, type Socket } from 'node:dgram'
import { once } from 'node:events'
import t, { type Test } from 'tap'
import check from '../../checks/check-ntp.js'
import { runExecutable } from '../support/checks.js'
import { firstLineOf, runnerOf } from '../support/local-checks.js'

/** What an ntpd 1.2.2 of NTPsec without a source answered; the system's status, stratum and offset are put in. */
function ntpdReply(status: number, text: string): Buffer {
  const head = Buffer.from('d6820001c01600000000001d', 'hex')
  head.writeUInt16BE(status, 4)
  head.writeUInt16BE(text.length, 10)
  return Buffer.concat([head, Buffer.from(text)])
}
const followsNtp = 0x0615
const followsNothing = 0xc016

/** What a chronyd 4.3 that follows another one answered: stratum 8, 1.17 microseconds off. */
const chronydReply = Buffer.from(
  '06020000002100050000000000000000736b766d00000000000000007f0000017f0000010000000000000000000000000001000000080000000000006b02fda12f501754dd62ec0bca8bbd99d2a748e0f9587f96e8f5fb59fa85df92e0af2775dcbfc5420081c5c8',
  'hex',
)
function chronyd({ leap = 0, stratum = 8, correction = 0xdd62ec0b, status = 0 }): Buffer {
  const reply = Buffer.from(chronydReply)
  reply.writeUInt16BE(status, 8)
  reply.writeUInt16BE(stratum, 52)
  reply.writeUInt16BE(leap, 54)
  reply.writeUInt32BE(correction, 68)
  return reply
}

/** A daemon that answers each request so: with one datagram, several, or none. Returns its address. */
async function daemon(t: Test, answer: (request: Buffer, count: number) => readonly Buffer[]): Promise<string> {
  const socket: Socket = createSocket('udp4')
  let count = 0
  socket.on('message', (request, { port, address }) => {
    for (const reply of answer(request, ++count)) socket.send(reply, port, address)
  })
  socket.bind(0, '127.0.0.1')
  await once(socket, 'listening')
  t.teardown(() => socket.close())
  return `127.0.0.1:${socket.address().port}`
}

/** A port nobody listens on. */
async function closedPort(): Promise<string> {
  const socket = createSocket('udp4')
  socket.bind(0, '127.0.0.1')
  await once(socket, 'listening')
  const { port } = socket.address()
  socket.close()
  await once(socket, 'close')
  return `127.0.0.1:${port}`
}

t.test('offset and stratum of ntpd are judged at, below and above each limit', async t => {
  const run = await runnerOf(check)
  const nobody = await closedPort()
  const table: [status: number, text: string, argv: string[], line: string, exit: number][] = [
    [followsNtp, 'stratum=3, offset=0.123456', [], 'OK: NTP offset by 0.123456ms', 0],
    [followsNtp, 'stratum=3, offset=-9.999', [], 'OK: NTP offset by 9.999ms', 0],
    [followsNtp, 'stratum=3, offset=10', [], 'WARNING: NTP offset by 10.0ms', 1],
    [followsNtp, 'stratum=3, offset=-10.000', [], 'WARNING: NTP offset by 10.0ms', 1],
    [followsNtp, 'stratum=3, offset=99.9', [], 'WARNING: NTP offset by 99.9ms', 1],
    [followsNtp, 'stratum=3, offset=-100.0', [], 'CRITICAL: NTP offset by 100.0ms', 2],
    [followsNtp, 'stratum=3, offset=0.00002', [], 'OK: NTP offset by 2.0e-05ms', 0],
    [followsNtp, 'stratum=3, offset=5', ['-w', '1', '-c', '5.5'], 'WARNING: NTP offset by 5.0ms', 1],
    [followsNtp, 'stratum=15, offset=1', [], 'OK: NTP offset by 1.0ms', 0],
    [followsNtp, 'stratum=16, offset=1', [], 'CRITICAL: NTP not synced', 2],
    [followsNtp, 'stratum=4, offset=1', ['-s', '3'], 'CRITICAL: NTP stratum (4) above limit (3)', 2],
    [followsNothing, 'stratum=3, offset=1', [], 'UNKNOWN: NTP state unsynced', 3],
    [followsNothing, 'stratum=3, offset=1', ['-u', 'WARN'], 'WARNING: NTP state unsynced', 1],
    [followsNothing, 'stratum=3, offset=1', ['-u', 'crit'], 'CRITICAL: NTP state unsynced', 2],
    [followsNothing, 'stratum=3, offset=1', ['-u', 'ok'], 'OK: NTP offset by 1.0ms', 0],
    [followsNothing, 'stratum=16, offset=0', ['-u', 'ok'], 'CRITICAL: NTP not synced', 2],
  ]
  for (const [status, text, argv, line, exit] of table) {
    const ntpd = await daemon(t, () => [ntpdReply(status, `${text}\r\n`)])
    t.same(firstLineOf(await run('--ntpd', ntpd, '--chronyd', nobody, ...argv)), [`CheckNTP ${line}`, exit])
  }
})

t.test('ntpd is asked as ntpq asks; what is no answer to that is not taken for one', async t => {
  const requests: Buffer[] = []
  const ntpd = await daemon(t, request => {
    requests.push(request)
    const other = ntpdReply(followsNtp, 'stratum=1, offset=0')
    other.writeUInt16BE(7, 2)
    return [Buffer.from('x'), Buffer.alloc(48), other, ntpdReply(followsNtp, 'offset=1.5, stratum=2')]
  })
  const run = await runnerOf(check)
  const { output } = await run('--ntpd', ntpd, '--chronyd', await closedPort())
  t.equal(output, 'CheckNTP OK: NTP offset by 1.5ms\n| stratum=2;;~:15 offset_milliseconds=1.5;@10:;@100:\n')
  t.same(requests, [Buffer.from(`16020001000000000000000e${Buffer.from('stratum,offset').toString('hex')}0000`, 'hex')])
})

t.test('chronyd is asked for its tracking', async t => {
  const run = await runnerOf(check)
  const nobody = await closedPort()
  const table: [reply: Buffer, argv: string[], line: string, exit: number][] = [
    [chronyd({}), [], 'OK: NTP offset by 0.00117ms', 0],
    // 0.0625 s: coefficient 2^20, exponent 1; and the same in the other direction
    [chronyd({ correction: 0x02100000 }), [], 'WARNING: NTP offset by 62.5ms', 1],
    [chronyd({ correction: 0x03f00000 }), [], 'WARNING: NTP offset by 62.5ms', 1],
    [chronyd({ stratum: 8 }), ['-s', '7'], 'CRITICAL: NTP stratum (8) above limit (7)', 2],
    [chronyd({ leap: 3, stratum: 0 }), [], 'UNKNOWN: NTP state unsynced', 3],
    [chronyd({ leap: 3, stratum: 0 }), ['-u', 'crit'], 'CRITICAL: NTP state unsynced', 2],
  ]
  for (const [reply, argv, line, exit] of table) {
    const address = await daemon(t, request => {
      reply.writeUInt32BE(request.readUInt32BE(8), 16)
      return request.length >= reply.length ? [reply] : []
    })
    t.same(firstLineOf(await run('--ntpd', nobody, '--chronyd', address, ...argv)), [`CheckNTP ${line}`, exit])
  }
})

t.test('a datagram that is lost is sent again', async t => {
  const run = await runnerOf(check)
  const ntpd = await daemon(t, (_, count) => (count < 2 ? [] : [ntpdReply(followsNtp, 'stratum=2, offset=1')]))
  t.same(firstLineOf(await run('--ntpd', ntpd, '--chronyd', await closedPort())), [
    'CheckNTP OK: NTP offset by 1.0ms',
    0,
  ])
})

t.test('without an answer it is UNKNOWN, with what was asked', async t => {
  const [ntpd, refusing] = [await closedPort(), await daemon(t, () => [chronyd({ status: 2 })])]
  const run = await runnerOf(check)
  const nobody = 'CheckNTP UNKNOWN: NTP command Failed: neither ntpd (recvmsg ECONNREFUSED) nor chronyd'
  t.same(firstLineOf(await run('--ntpd', ntpd, '--chronyd', refusing)), [
    `${nobody} (chronyd does not tell how it tracks (status 2)) tells: start one of them`,
    3,
  ])
  t.match(await runExecutable('check-ntp.rb', ['--ntpd', ntpd, '--chronyd', ntpd]), {
    status: 3,
    stdout: `${nobody} (recvmsg ECONNREFUSED) tells: start one of them\n`,
  })
  const silent = await daemon(t, () => [])
  const { output } = await run('--ntpd', silent, '--chronyd', ntpd, '-t', '0.2')
  t.match(output, /^CheckNTP UNKNOWN: no answer within 0\.2 s while asking ntpd at 127/)
  t.same(firstLineOf(await run('-u', 'maybe')), ['CheckNTP UNKNOWN: -u maybe: write one of ok, warn, crit, unknown', 3])
  t.match(firstLineOf(await run('--ntpd', 'here')), [/^CheckNTP UNKNOWN: --ntpd here: not an address/, 3])
})

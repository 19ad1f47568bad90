import t from 'tap'
import { parseNetwork } from '../../plugin/addresses.js'

t.test('a network has its addresses and no others, and none of what is no address', t => {
  for (const [text, inside, outside] of [
    ['10.0.0.5', ['10.0.0.5'], ['10.0.0.6', '::a00:5', '10.0.0.5/24', '', 'x']],
    ['10.0.0.0/24', ['10.0.0.0', '10.0.0.255'], ['10.0.1.0', 'fe80::1']],
    ['0.0.0.0/0', ['1.2.3.4'], ['::1']],
    ['fd00::/8', ['fd12::1', 'fd00:0:0::7'], ['fe80::1', '10.0.0.1']],
    ['fe80::/10', ['fe80::1%eth0', 'fe80::1'], ['2001:db8::1']],
    ['::1', ['::1', '0:0:0:0:0:0:0:1'], ['::2', '127.0.0.1']],
  ] as const) {
    const network = parseNetwork(text)
    for (const address of inside) t.ok(network.has(address), `${address} in ${text}`)
    for (const address of outside) t.notOk(network.has(address), `${address} not in ${text}`)
  }
  t.end()
})

t.test('what is no address is refused, with what to write', t => {
  for (const text of [
    '',
    'x',
    '10.0.0',
    '10.0.0.0/33',
    '10.0.0.0/',
    '10.0.0.0/x',
    '10.0.0.0/8/8',
    'fd00::/129',
    '/8',
  ]) {
    t.throws(() => parseNetwork(text), { message: /^not an address: write 10\.0\.0\.5, or a network/ }, text)
  }
  t.end()
})

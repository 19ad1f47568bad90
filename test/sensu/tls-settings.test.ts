import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { readTlsSettings, tlsFailure, warnWhenUnverified } from '../../sensu/tls-settings.js'

t.test('the server is verified when there is an authority, or when asked for, and not otherwise', async t => {
  const directory = t.testdir()
  const file = (name: string) => {
    writeFileSync(join(directory, name), name)
    return join(directory, name)
  }
  const ca_file = file('ca')
  const own = { cert_chain_file: file('cert'), private_key_file: file('key') }
  const files = { cert: Buffer.from('cert'), key: Buffer.from('key') }
  const read = (setting: unknown) => readTlsSettings(setting, 'rabbitmq ssl')
  t.strictSame(read(true), { rejectUnauthorized: false })
  t.strictSame(read({}), { rejectUnauthorized: false })
  t.strictSame(read(own), { rejectUnauthorized: false, ...files })
  t.strictSame(read({ ...own, ca_file }), { rejectUnauthorized: true, ca: Buffer.from('ca'), ...files })
  t.strictSame(read({ verify_peer: true }), { rejectUnauthorized: true })
  t.strictSame(read({ ca_file, verify_peer: false }), { rejectUnauthorized: false, ca: Buffer.from('ca') })
  t.strictSame(read({ ca_file: null, verify_peer: null }), { rejectUnauthorized: false })
})

t.test('what cannot be used is refused by its name', async t => {
  const refuses = (setting: unknown, message: string) =>
    t.throws(() => readTlsSettings(setting, 'redis tls'), { message })
  refuses('yes', 'redis tls must be true or a hash')
  refuses([], 'redis tls must be true or a hash')
  refuses({ ca_file: 5 }, 'redis tls ca_file must be a string')
  refuses({ ca_file: '/nowhere/ca' }, 'redis tls ca_file cannot be read: /nowhere/ca')
  refuses({ verify_peer: 'yes' }, 'redis tls verify_peer must be boolean')
})

t.test('a server that is not verified is told, with where to change it', async t => {
  const told: unknown[] = []
  const log = { warn: (message: string, data?: object) => told.push({ message, ...data }) }
  for (const tls of [undefined, {}, { rejectUnauthorized: true }]) warnWhenUnverified(tls, 'h', 'redis tls', log)
  t.strictSame(told, [])
  warnWhenUnverified({ rejectUnauthorized: false }, 'h', 'redis tls', log)
  t.strictSame(told, [
    { message: 'the certificate of the server is not verified', host: 'h', setting: 'redis tls ca_file' },
  ])
})

t.test('failures of TLS are told apart by their codes', async t => {
  const reason = (code: string) => tlsFailure(Object.assign(new Error('x'), { code }))
  for (const code of ['SELF_SIGNED_CERT_IN_CHAIN', 'UNABLE_TO_VERIFY_LEAF_SIGNATURE', 'CERT_HAS_EXPIRED', 'INVALID_CA'])
    t.equal(reason(code), 'the certificate is not trusted')
  t.equal(reason('ERR_TLS_CERT_ALTNAME_INVALID'), 'the certificate is for another host')
  for (const code of ['EPROTO', 'ERR_SSL_TLSV13_ALERT_CERTIFICATE_REQUIRED'])
    t.equal(reason(code), 'tls handshake failed')
  for (const code of ['ECONNREFUSED', 'ENOTFOUND']) t.equal(reason(code), undefined)
  t.equal(tlsFailure('x'), undefined)
})

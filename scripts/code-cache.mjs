// Gives an executable V8's compiled code along with its source: reading that back is 10 ms and more quicker than compiling.
import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

/** Node's own wrapper of a CommonJS file. */
const head = '(function (exports, require, module, __filename, __dirname) {'
const tail = '\n})'

/**
 * What the executable begins with. Two comments follow, of base64: the source, and the compiled code. Node of another version than
 * the one that built it refuses the latter and compiles the source.
 */
const loader = `#!/usr/bin/env node
// Made by the build from one bundle: its source in the first comment below, and what V8 compiled of it in the second.
const [, source, cachedData] = require('node:fs').readFileSync(__filename, 'latin1').split('\\n//=').map(text => Buffer.from(text, 'base64'))
const script = new (require('node:vm').Script)(source.toString(), { filename: __filename, cachedData })
script.runInThisContext()(exports, require, module, __filename, __dirname)`

/**
 * Runs a wrapped bundle (argv[1]) once as a check, and writes what V8 compiled for that to argv[2]. Its arguments follow; without
 * any, it asks a daemon, a socket that answers everything in libvirt's framing with "nothing there": so the whole way to an answer and back is
 * compiled, not only that to an error.
 */
const warmUp = `
const { readFileSync, writeFileSync } = require('node:fs')
const { createServer } = require('node:net')
const { Script } = require('node:vm')
const [, file, cache, ...words] = process.argv
const headerBytes = 28
const bulkStatistics = 344
function answer(frame) {
  const reply = Buffer.alloc(headerBytes + (frame.readInt32BE(12) === bulkStatistics ? 4 : 8))
  frame.copy(reply, 0, 0, headerBytes)
  reply.writeUInt32BE(reply.length, 0)
  reply.writeUInt32BE(1, 16)
  return reply
}
const daemon = createServer(socket => socket.on('data', data => {
  for (let at = 0; at + headerBytes <= data.length; at += data.readUInt32BE(at)) socket.write(answer(data.subarray(at)))
}))
daemon.listen(cache + '.sock', () => {
  daemon.unref()
  const script = new Script(readFileSync(file, 'utf8'), { filename: file })
  const libvirt = ['--uri', 'qemu:///system?socket=' + cache + '.sock', '--timeout', '5']
  process.argv = [process.argv[0], file, ...(words.length > 0 ? words : libvirt)]
  process.once('exit', () => {
    writeFileSync(cache, script.createCachedData())
    process.exitCode = 0
  })
  script.runInThisContext()(exports, require, module, file, '.')
})
`
const warmUpTimeoutMs = 30_000

/**
 * Replaces a bundle by one that carries its compiled code. Its first line, which names the interpreter, is replaced too.
 * @param {string} file path of the bundle
 * @param {string[]} words arguments of the run; none for a check that asks libvirt
 * @param {string} [input] what a handler finds on its standard input; it may well say that it cannot use its configuration
 */
export function addCodeCache(file, words, input) {
  const directory = mkdtempSync(join(tmpdir(), 'sensu-kvm-build-'))
  try {
    const wrapped = join(directory, 'bundle.cjs')
    const cache = join(directory, 'cache')
    const source = head + readFileSync(file, 'utf8').replace(/^#!.*/, '') + tail
    writeFileSync(wrapped, source)
    const env = { ...process.env, SENSU_KVM_STATE_DIR: directory }
    execFileSync(process.execPath, ['-e', warmUp, '--', wrapped, cache, ...words], {
      env,
      ...(input === undefined ? {} : { input }),
      stdio: input === undefined ? ['ignore', 'ignore', 'inherit'] : ['pipe', 'ignore', 'ignore'],
      timeout: warmUpTimeoutMs,
    })
    const comments = [Buffer.from(source), readFileSync(cache)].map(data => `\n//=${data.toString('base64')}`)
    writeFileSync(file, `${loader}${comments.join('')}\n`)
  } finally {
    rmSync(directory, { recursive: true })
  }
}

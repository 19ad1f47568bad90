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

/** Runs a wrapped bundle (argv[2]) once as a check that finds no libvirt, and writes what V8 compiled for that to argv[3]. */
const warmUp = `
const { readFileSync, writeFileSync } = require('node:fs')
const [, file, cache] = process.argv
const script = new (require('node:vm').Script)(readFileSync(file, 'utf8'), { filename: file })
process.argv.splice(1, 2, file, '--uri', 'qemu:///system?socket=' + cache)
process.once('exit', () => {
  writeFileSync(cache, script.createCachedData())
  process.exitCode = 0
})
script.runInThisContext()(exports, require, module, file, '.')
`

/**
 * Replaces a bundle by one that carries its compiled code. Its first line, which names the interpreter, is replaced too.
 * @param {string} file path of the bundle
 */
export function addCodeCache(file) {
  const directory = mkdtempSync(join(tmpdir(), 'sensu-kvm-build-'))
  try {
    const wrapped = join(directory, 'bundle.cjs')
    const cache = join(directory, 'cache')
    const source = head + readFileSync(file, 'utf8').replace(/^#!.*/, '') + tail
    writeFileSync(wrapped, source)
    const env = { ...process.env, SENSU_KVM_STATE_DIR: directory }
    execFileSync(process.execPath, ['-e', warmUp, wrapped, cache], { env, stdio: ['ignore', 'ignore', 'inherit'] })
    const comments = [Buffer.from(source), readFileSync(cache)].map(data => `\n//=${data.toString('base64')}`)
    writeFileSync(file, `${loader}${comments.join('')}\n`)
  } finally {
    rmSync(directory, { recursive: true })
  }
}

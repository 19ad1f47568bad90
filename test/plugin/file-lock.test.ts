import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, statSync, symlinkSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t, { type Test } from 'tap'
import { tryLock } from '../../plugin/file-lock.js'

/** Another process that has tried to take the lock, and what it said. */
async function another(t: Test, path: string): Promise<{ child: ChildProcess; said: string }> {
  const script = fileURLToPath(new URL('./locking-process.js', import.meta.url))
  const child = spawn(process.execPath, [script, path], { stdio: ['ignore', 'pipe', 'inherit'] })
  t.teardown(() => child.kill('SIGKILL'))
  const [said] = await once(child.stdout, 'data')
  return { child, said: String(said).trim() }
}

t.test('a lock is had by one process at a time, and given up', async t => {
  const path = join(t.testdir(), 'lock')
  const unlock = tryLock(path)
  t.equal((await another(t, path)).said, 'taken')
  t.equal(tryLock(path), undefined, 'not even a second time by the same process')
  unlock?.()
  t.equal((await another(t, path)).said, 'locked')
  t.equal(tryLock(path), undefined)
  t.equal(statSync(path).mode & 0o777, 0o600)
})

t.test('a lock ends with its process, however that ends', async t => {
  const path = join(t.testdir(), 'lock')
  const { child, said } = await another(t, path)
  t.equal(said, 'locked')
  child.kill('SIGKILL')
  await once(child, 'close')
  t.type(tryLock(path), 'function')
})

t.test('a lock is not made elsewhere through a link, and where there can be none that is an error', async t => {
  const directory = t.testdir()
  const elsewhere = join(directory, 'elsewhere')
  symlinkSync(elsewhere, join(directory, 'link'))
  t.throws(() => tryLock(join(directory, 'link')), { code: 'ELOOP' })
  t.notOk(existsSync(elsewhere))
  t.throws(() => tryLock(join(directory, 'missing', 'lock')), { code: 'ENOENT' })
  const { PATH } = process.env
  t.teardown(() => {
    process.env['PATH'] = PATH
  })
  process.env['PATH'] = directory
  t.throws(() => tryLock(join(directory, 'lock')), {
    message: /cannot lock .*\/lock with flock \(util-linux\): .*ENOENT/,
  })
})

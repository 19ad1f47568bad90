import { existsSync, readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { differences } from './deliberate-differences.js'
import { allCases, suites } from './recordings.js'

const tests = fileURLToPath(new URL('../../../test/', import.meta.url))

// each suite fails for itself when it has not taken all of its cases
t.test('every recorded case is replayed by exactly one suite', async t => {
  t.equal(allCases().length, 388)
  for (const name of allCases()) {
    const owners = Object.entries(suites).filter(([, pattern]) => pattern.test(name))
    t.equal(owners.length, 1, `${name}: ${owners.map(([suite]) => suite).join(', ')}`)
  }
  for (const suite of Object.keys(suites)) {
    const file = `${tests}${suite}.test.ts`
    t.ok(existsSync(file), `${suite} is there`)
    t.match(readFileSync(file, 'utf8'), /nothing was forgotten/, `${suite} says what it has not replayed`)
  }
})

t.test('a difference is about cases that exist, and says why', async t => {
  for (const { cases, reason } of differences) {
    t.ok(
      allCases().some(name => cases.test(name)),
      cases.source,
    )
    t.ok(reason.length > 10, `${cases.source}: ${reason}`)
  }
})

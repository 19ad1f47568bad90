import { readdirSync, readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { at, fixture } from '../pipeline/rig.js'

const tests = new URL('../', import.meta.url)
const fixtures = new URL('../../../test/fixtures/server/', import.meta.url)

/** The test files, all in one text. */
function testTexts(): string {
  const files = readdirSync(fileURLToPath(tests), { recursive: true, encoding: 'utf8' })
  return files
    .filter(file => file.endsWith('.test.js'))
    .map(file => readFileSync(new URL(file, tests), 'utf8'))
    .join('\n')
}

/** Those with one request and its answer are replayed by recorded-api.test.ts, whatever they are called. */
function isRequest(name: string): boolean {
  return name.startsWith('api-') && typeof at(fixture(name), 'input', 'method') === 'string'
}

t.test('every recorded case of the server is replayed by some test, which names it', async t => {
  const names = readdirSync(fileURLToPath(fixtures)).map(file => file.replace('.json', ''))
  const text = testTexts()
  const forgotten = names.filter(name => !isRequest(name) && !new RegExp(`(?<![\\w-])${name}(?![\\w-])`).test(text))
  t.ok(names.length > 250)
  t.strictSame(forgotten, [])
})

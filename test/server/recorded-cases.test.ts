import { readdirSync, readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { at, fixture } from '../support/recorded-cases.js'

const tests = new URL('../', import.meta.url)
const fixtures = new URL('../../../test/fixtures/server/', import.meta.url)

/** The test files, each as its text. */
function testTexts(): string[] {
  const files = readdirSync(fileURLToPath(tests), { recursive: true, encoding: 'utf8' })
  return files.filter(file => file.endsWith('.test.js')).map(file => readFileSync(new URL(file, tests), 'utf8'))
}

/** Whether a test file starts the built server, on RabbitMQ and Redis. */
function startsServer(text: string): boolean {
  return /from "[./]*(server\/)?(site|rig)\.js"/.test(text)
}

/** Those with one request and its answer are replayed by recorded-api.test.ts, whatever they are called. */
function isRequest(name: string): boolean {
  return name.startsWith('api-') && typeof at(fixture(name), 'input', 'method') === 'string'
}

t.test(
  'every recorded case is replayed against the built server by some test, which names it; vectors go to their function',
  async t => {
    const names = readdirSync(fileURLToPath(fixtures)).map(file => file.replace('.json', ''))
    const texts = testTexts()
    const replayed = (name: string) => {
      const named = new RegExp(`(?<![\\w-])${name}(?![\\w-])`)
      return texts.some(text => (name.startsWith('vectors-') || startsServer(text)) && named.test(text))
    }
    t.ok(names.length > 250)
    const forgotten = names.filter(name => !isRequest(name) && !replayed(name))
    t.strictSame(forgotten, [])
  },
)

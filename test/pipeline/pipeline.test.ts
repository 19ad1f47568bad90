import { writeFileSync } from 'node:fs'
import { Writable } from 'node:stream'
import t from 'tap'
import { attributesMatch } from '../../pipeline/attributes-match.js'
import { Pipeline, validatePipelineSettings } from '../../pipeline/pipeline.js'
import { Float } from '../../sensu/json-value.js'
import { Logger } from '../../sensu/log.js'
import { Spawner } from '../../sensu/spawn.js'
import { startStore } from '../store/support.js'
import { at, fixture, list, object } from '../support/recorded-cases.js'

t.test('patterns match as recorded, expressions too; what is not understood is refused at the start', async t => {
  const { input, observed } = fixture('vectors-attributes-match')
  const event = object(at(input, 'event'))
  for (const vector of list(observed)) {
    const pattern = object(at(vector, 'attributes'))
    const logged: string[] = []
    const log = { error: (message: string) => logged.push(message) }
    // the one difference: expressions assign nothing
    const assigns = JSON.stringify(pattern).includes("value = 'x'")
    const matches = attributesMatch(event, pattern, { now: new Date(), log })
    t.equal(matches, assigns ? false : at(vector, 'match'), JSON.stringify(pattern))
    const recorded = list(at(vector, 'log')).map(line => at(line, 0))
    t.same(logged, assigns ? ['attribute value eval error'] : recorded, JSON.stringify(pattern))
  }
  const quiet = { now: new Date(), log: { error: () => {} } }
  t.ok(attributesMatch({ a: { b: [1, 2n, { c: null }] } }, { a: { b: [new Float(1), 2, { c: null }] } }, quiet))
  t.notOk(attributesMatch({ a: { b: 1 } }, { a: 'b' }, quiet))
  const settings = {
    checks: {},
    handlers: {},
    mutators: {},
    filters: { feval: { attributes: { check: { status: 'eval: `reboot`' } } }, fine: { attributes: {} } },
  }
  const [problem, ...others] = validatePipelineSettings(settings)
  t.match(problem, {
    object: { name: 'feval' },
    message: 'filter feval: the expression of attribute check.status is not supported: unexpected ` at character 2',
  })
  t.same(others, [])
  const { store } = await startStore(t)
  const surroundings = { store, spawner: new Spawner({ limit: 1 }), logger: new Logger() }
  t.throws(() => new Pipeline({ ...surroundings, settings }), /feval/)
})

t.test('idle waits for running handlers, and more handlers than allowed are dropped and logged', async t => {
  const { store } = await startStore(t)
  const directory = t.testdir({})
  const slow = { type: 'pipe', command: `while [ ! -e ${directory}/go ]; do sleep 0.05; done; echo done` }
  const settings = { checks: {}, filters: {}, mutators: {}, handlers: { slow } }
  const spawner = new Spawner({ limit: 4 })
  t.teardown(() => spawner.close())
  const lines: { [name: string]: unknown }[] = []
  const logged = (message: string) => lines.filter(line => line['message'] === message)
  const stream = new Writable({
    write(chunk, _encoding, done) {
      lines.push(JSON.parse(String(chunk)))
      done()
    },
  })
  const pipeline = new Pipeline({ store, spawner, settings, maximumHandlers: 1, logger: new Logger({ stream }) })
  for (const name of ['a', 'b'])
    await pipeline.processResult({ client: 'c1', check: { name, status: 1, handler: 'slow' } })
  const waiting = pipeline.idle().then(() => 'idle')
  t.equal(await Promise.race([waiting, store.hasEvent('c1', 'a').then(() => 'busy')]), 'busy')
  writeFileSync(`${directory}/go`, '')
  await waiting
  t.match(logged('handler output'), [{ output: ['done\n'] }])
  t.match(logged('handler dropped, too many are running'), [{ level: 'error', limit: 1 }])
  t.equal(logged('processing event').length, 2)
})

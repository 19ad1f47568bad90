import t from 'tap'
import { type Answer, type AskedGuest, agentOptions, judgeAnswers, surveyAgents } from '../../plugin/agent-answers.js'
import { type RawValues, readOptions } from '../../plugin/options.js'
import { Verdict } from '../../plugin/outcome.js'
import { MemoryState, partOf } from '../../plugin/state.js'
import { checkContext } from '../support/checks.js'

function guest(answer: Answer<string>, change: Partial<AskedGuest<string>> = {}): AskedGuest<string> {
  const state = { state: 'running', reason: 'booted' }
  return {
    name: 'web1',
    uuid: 'u',
    state,
    answer,
    watchedSeconds: 10,
    startSeen: false,
    answeredBefore: false,
    ...change,
  }
}

function judged(guests: readonly AskedGuest<string>[], raw: RawValues = {}) {
  const verdict = new Verdict()
  const values: string[] = []
  const others = judgeAnswers(verdict, guests, readOptions(agentOptions, raw, []), (_, value) => values.push(value))
  return { values, others, findings: verdict.findings.map(({ status, message }) => `${status} ${message}`) }
}

t.test('an answer is judged by the check, everything else is a finding of the guest', t => {
  const table: [AskedGuest<string>, finding: RegExp, others: string[]][] = [
    [guest({ kind: 'not configured' }), /^UNKNOWN no agent configured: add <channel /, ['without an agent: web1']],
    [guest({ kind: 'silent', seconds: 2 }), /^UNKNOWN its agent does not answer, for 2 s: /, ['no answer: web1']],
    [guest({ kind: 'refused', text: 'no' }), /^UNKNOWN its agent refuses to answer: no$/, ['no answer: web1']],
    [
      guest({ kind: 'refused', text: 'Command x has been disabled: the agent is in frozen state' }),
      /^UNKNOWN its file systems are frozen, .*: see check-kvm-guest-frozen$/,
      ['no answer: web1'],
    ],
    [guest({ kind: 'not asked', text: 'no time' }), /^UNKNOWN no time$/, ['no answer: web1']],
    [
      guest({ kind: 'not connected' }),
      /^UNKNOWN its agent is not connected: still booting or not there, /,
      ['no answer: web1'],
    ],
    [guest({ kind: 'not connected' }, { startSeen: true }), /^OK still booting, for 10 s: /, ['still booting: web1']],
    [
      guest({ kind: 'not connected' }, { answeredBefore: true }),
      /^UNKNOWN its agent is not connected any more: /,
      ['no answer: web1'],
    ],
    [
      guest({ kind: 'not running' }, { state: { state: 'paused', reason: 'user' } }),
      /^OK paused \(user\), so its agent is not asked$/,
      ['paused: web1'],
    ],
  ]
  for (const [asked, finding, others] of table) {
    const { findings, ...rest } = judged([asked])
    t.match(findings, [finding])
    t.same(rest, { values: [], others })
  }
  t.same(judged([guest({ kind: 'answered', value: 'x' })]), { values: ['x'], others: [], findings: [] })
  t.same(judged([guest({ kind: 'not running' }, { state: { state: 'shut off', reason: '' } })]), {
    values: [],
    others: [],
    findings: [],
  })
  t.end()
})

t.test('--unanswered sets the state of an agent that is at fault, not of what is not known yet', t => {
  const statusOf = (asked: AskedGuest<string>) => judged([asked], { unanswered: 'warning' }).findings[0]?.split(' ')[0]
  t.equal(statusOf(guest({ kind: 'not configured' })), 'WARNING')
  t.equal(statusOf(guest({ kind: 'silent', seconds: 2 })), 'WARNING')
  t.equal(statusOf(guest({ kind: 'refused', text: '' })), 'WARNING')
  t.equal(statusOf(guest({ kind: 'not connected' }, { watchedSeconds: 300 })), 'WARNING')
  t.equal(statusOf(guest({ kind: 'not connected' })), 'UNKNOWN')
  t.equal(statusOf(guest({ kind: 'not asked', text: '' })), 'UNKNOWN')
  t.end()
})

t.test('parts of a state do not disturb each other', async t => {
  const store = new MemoryState().open({ check: 'c', uri: '', options: {}, directory: undefined })
  const [one, other] = [partOf(store, 'one'), partOf(store, 'other')]
  t.equal(await one.read(), undefined)
  await one.write(1)
  await other.write([2])
  t.same([await one.read(), await other.read()], [1, [2]])
  await store.write('something else')
  t.equal(await one.read(), undefined)
  t.equal(await partOf(store, 'constructor').read(), undefined)
})

t.test('guests there was no time for come first the next time, silent ones at the end', async t => {
  const guests = ['a', 'b', 'c'].map((uuid, index) => ({
    domain: { name: uuid, uuid, id: index },
    state: { state: 'running', reason: 'booted' },
  }))
  const context = checkContext()
  const asked: string[][] = []
  const survey = (answers: Readonly<Record<string, Answer<string>>>) =>
    surveyAgents({ takenAtMs: Date.now(), guests }, 300, context, {
      ask: async those => {
        asked.push(those.map(({ uuid }) => uuid))
        return new Map(Object.entries(answers))
      },
    })
  const answer = { kind: 'answered', value: '' } as const
  await survey({ a: { kind: 'silent', seconds: 1 }, b: answer, c: { kind: 'not asked', text: 'no time' } })
  await survey({ a: answer, b: answer, c: answer })
  await survey({ a: answer, b: answer, c: answer })
  t.same(asked, [
    ['a', 'b', 'c'],
    ['c', 'b', 'a'],
    ['a', 'b', 'c'],
  ])
})

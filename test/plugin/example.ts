import { readFile } from 'node:fs/promises'
import { defineCheck } from '../../plugin/check.js'
import type { Validate } from '../../plugin/command-line.js'
import { Verdict } from '../../plugin/outcome.js'
import { PendingReads } from '../../plugin/pending-reads.js'
import type { CheckProgram, Environment } from '../../plugin/program.js'
import { MemoryState } from '../../plugin/state.js'
import { validatorText } from '../../scripts/generate.js'
import { helpText } from '../../scripts/help.js'

/** What the example check asks of its host. */
export interface ExampleHost {
  guests(): Promise<ExampleGuest[]>
}

export interface ExampleGuest {
  name: string
  usedPercent?: number
  limits?: Record<string, string>
}

/** A check as small as a check can be, with an option of every type. */
export const exampleCheck = defineCheck({
  name: 'check-example',
  summary: 'Use of an example resource.',
  guests: true,
  options: {
    warning: { type: 'range', alias: 'w', default: '80', summary: 'Warn outside this range (% in use).' },
    critical: { type: 'range', alias: 'c', default: '90', summary: 'Critical outside this range (% in use).' },
    factor: { type: 'number', default: 1, minimum: 0, maximum: 10, summary: 'Multiply by this.' },
    minimumOps: { type: 'integer', minimum: 0, summary: 'Judge only from this many operations on.' },
    title: { type: 'string', summary: 'A title.' },
    only: { type: 'strings', summary: 'Several texts.' },
    name: { type: 'regex', default: '.', summary: 'A pattern.' },
    strict: { type: 'flag', summary: 'A switch.' },
    grace: { type: 'duration', default: '2m', summary: 'A time.' },
    mode: { type: 'choice', choices: ['fast', 'slow'], default: 'fast', summary: 'A word.' },
  },
  async collect(host: ExampleHost, options, context) {
    context.stage('reading guests')
    const guests = context.selectGuests(await host.guests())
    return guests.map(guest => ({ ...guest, usedPercent: (guest.usedPercent ?? 0) * options.factor }))
  },
  evaluate(guests, options) {
    const verdict = new Verdict()
    for (const guest of guests) {
      const { warning, critical } = verdict.limitsOf(options, guest)
      const value = guest.usedPercent
      verdict.judge({ guest: guest.name, what: 'in use', name: 'used_percent', value, unit: '%', warning, critical })
    }
    verdict.summary = `${guests.length} guests`
    return verdict
  },
})

/** A program as the build makes it: its validator is the generated module's text. */
export async function programOf<Host>(check: CheckProgram<Host>['check']): Promise<CheckProgram<Host>> {
  const source = `data:text/javascript,${encodeURIComponent(validatorText(check))}`
  const { validate }: { validate: Validate } = await import(source)
  return { check, validate, version: '1.2.3', help: await helpText(check) }
}

/** A host with these guests, and an environment to reach it in. */
export function exampleEnvironment(
  guests: readonly ExampleGuest[] = [],
  changes: Partial<Environment<ExampleHost>> = {},
): Environment<ExampleHost> {
  return {
    openHost: async () => ({ guests: async () => [...guests], close: async () => undefined }),
    state: new MemoryState(),
    pending: new PendingReads(),
    now: () => 1_700_000_000_000,
    hostname: 'hypervisor.example',
    variables: {},
    ...changes,
  }
}

/** Names that foreign guests may carry to do harm. */
export const hostileNames: readonly string[] = [
  'line\nbreak',
  'carriage\rreturn',
  'pipe|a=1',
  "quote'd",
  'double"quote',
  'equals=1',
  'with blank',
  'comma,name',
  'back\\slash',
  '\u001b]0;owned\u0007\u001b[2J',
  '\u009b31m',
  'bidi\u202edrow',
  'zero\u200bwidth',
  'émoji😀',
  '-dash',
  '#hash',
  '{brace}',
  'semi;colon',
  'dot.ted',
  'x'.repeat(4096),
  '😀'.repeat(1024),
  ' ',
]

/** A file's text. */
export function readText(path: string): Promise<string> {
  return readFile(path, 'utf8')
}

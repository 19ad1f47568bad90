import { type Ask, askAgents } from '../libvirt/guest-agents.js'
import type { Host } from '../libvirt/host.js'
import {
  type AskedGuest,
  askingText,
  graceOption,
  statusOfTrouble,
  surveyAgents,
  troubleOf,
  withoutAnswer,
} from '../plugin/agent-answers.js'
import { defineCheck } from '../plugin/check.js'
import type { OptionTable, OptionValues } from '../plugin/options.js'
import { type Finding, Verdict } from '../plugin/outcome.js'
import { statusChoices, statusOfChoice } from '../plugin/status.js'
import { formatQuantity } from '../plugin/text.js'

/** Commands of an agent that are looked at. */
const mostCommands = 1000

/** What an agent says of itself. */
export interface AgentInfo {
  readonly seconds: number
  readonly version: string
  /** Whether each command it knows is enabled. */
  readonly commands: Readonly<Record<string, boolean>>
}

/** One guest and its agent. */
export type GuestAgent = AskedGuest<AgentInfo>

const options = {
  ...graceOption,
  require: { type: 'strings', summary: 'A command that must be enabled, such as guest-fsfreeze-freeze (repeatable).' },
  notConfigured: {
    type: 'choice',
    choices: statusChoices,
    default: 'warning',
    summary: 'State of a guest without a channel for an agent.',
  },
  notAnswering: {
    type: 'choice',
    choices: statusChoices,
    default: 'critical',
    summary: 'State of a guest whose agent does not answer.',
  },
  disabled: {
    type: 'choice',
    choices: statusChoices,
    default: 'warning',
    summary: 'State of a guest whose agent refuses a command that is needed.',
  },
} as const satisfies OptionTable
type Options = OptionValues<typeof options>

export default defineCheck({
  name: 'check-kvm-guest-agent',
  summary: 'Whether the QEMU guest agents answer (guest-ping, guest-info).',
  description: `Four cases are told apart: the guest has no channel for an agent (\`--not-configured\`), it is still booting (OK), its agent does not answer
(\`--not-answering\`), or it answers but a needed command is disabled (\`--disabled\`; guest-ping and guest-info always are needed, others with \`--require\`).

Still booting is a guest whose start the check has witnessed no longer than \`--grace\` ago, and whose agent has not connected yet. libvirt does not tell when a guest was started: for a
guest that was already running when the check first looked, an agent that is not connected is UNKNOWN until \`--grace\` has passed.

${askingText}

One libvirt call for any number of guests, two for each running one (its agent's), and one more for each whose agent does not answer.`,
  guests: true,
  readWrite: true,
  options,
  async collect(host: Host, { grace }, context): Promise<readonly GuestAgent[]> {
    context.stage('listing guests')
    const listing = await host.domainStats({ groups: ['state'], signal: context.signal })
    return surveyAgents(listing, grace, context, { ask: guests => askAgents(host, guests, interview, context) })
  },
  evaluate(guests, asked) {
    const verdict = new Verdict()
    for (const guest of guests) {
      for (const finding of findingsOf(guest, asked)) verdict.add({ ...finding, guest: guest.name })
      if (guest.answer.kind !== 'answered') continue
      const labels = { guest: guest.name }
      verdict.measure({ name: 'response_time', labels, value: guest.answer.value.seconds, unit: 's' })
    }
    verdict.summary = summaryOf(guests, asked.grace)
    return verdict
  },
})

async function interview(ask: Ask): Promise<AgentInfo> {
  const startedMs = performance.now()
  await ask('guest-ping')
  const seconds = (performance.now() - startedMs) / 1000
  return { seconds, ...agentInfo(await ask('guest-info')) }
}

/** Version and commands out of guest-info's answer, which comes from inside the guest: nothing in it is certain. */
function agentInfo(info: unknown): Omit<AgentInfo, 'seconds'> {
  const fields = record(info)
  const version = typeof fields['version'] === 'string' ? fields['version'] : 'of unknown version'
  const listed: unknown[] = Array.isArray(fields['supported_commands']) ? fields['supported_commands'] : []
  const commands = listed.slice(0, mostCommands).map(record)
  return {
    version,
    commands: Object.fromEntries(commands.map(each => [String(each['name']), each['enabled'] === true])),
  }
}

function record(value: unknown): Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null ? { ...value } : {}
}

function findingsOf(guest: GuestAgent, asked: Options): Finding[] {
  if (guest.answer.kind === 'answered') return commandFindings(guest.answer.value, asked)
  const trouble = troubleOf(guest, asked.grace)
  if (trouble === undefined) return []
  const { notConfigured, disabled, notAnswering } = asked
  const choice = { 'not configured': notConfigured, refused: disabled }[String(trouble.kind)] ?? notAnswering
  return [{ status: statusOfTrouble(trouble, statusOfChoice[choice]), message: trouble.message }]
}

/** Whether the commands that are needed are there. */
function commandFindings({ seconds, version, commands }: AgentInfo, asked: Options): Finding[] {
  const problems = asked.require.flatMap((command): Finding[] => {
    const enabled = Object.hasOwn(commands, command) ? commands[command] : undefined
    if (enabled) return []
    const message =
      enabled === undefined
        ? `its agent ${version} does not know ${command}: install a newer one`
        : `${command} is disabled in its agent: allow it in the guest's qemu-ga.conf (block-rpcs, formerly blacklist)`
    return [{ status: statusOfChoice[asked.disabled], message }]
  })
  const message = `its agent ${version} answers within ${formatQuantity(seconds, 's')}`
  return problems.length > 0 ? problems : [{ status: 'OK', message }]
}

/** What there is to say when all is well: how many answer, and which guests were not asked. */
function summaryOf(guests: readonly GuestAgent[], graceSeconds: number): string {
  const answered = guests.flatMap(({ answer }) => (answer.kind === 'answered' ? [answer.value.seconds] : []))
  return [
    answered.length === 0
      ? 'no running guest with an agent'
      : `${answered.length} guest ${answered.length === 1 ? 'agent answers' : 'agents answer'} within ${formatQuantity(Math.max(...answered), 's')}`,
    ...withoutAnswer(guests, graceSeconds),
  ].join('; ')
}

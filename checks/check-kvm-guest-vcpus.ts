import { askAgents } from '../libvirt/guest-agents.js'
import { readGuestLimits } from '../libvirt/guest-configs.js'
import {
  askGuestCpuTimes,
  askGuestLoad,
  type GuestCpuTimes,
  hasGuestLoad,
  readGuestLoad,
} from '../libvirt/guest-load.js'
import { runOf } from '../libvirt/guest-run.js'
import type { Host } from '../libvirt/host.js'
import type { GuestVcpus } from '../libvirt/records.js'
import { type AskedGuest, agentOptions, judgeAnswers, surveyAgents, unansweredText } from '../plugin/agent-answers.js'
import { defineCheck } from '../plugin/check.js'
import { type Growth, growthSince } from '../plugin/counters.js'
import { guestLimitsOption } from '../plugin/limits.js'
import type { OptionTable, OptionValues } from '../plugin/options.js'
import { Verdict } from '../plugin/outcome.js'
import { partOf } from '../plugin/state.js'
import { formatQuantity } from '../plugin/text.js'

const name = 'check-kvm-guest-vcpus'
/** Numbers of vCPUs that are named in a message. */
const mostNamed = 8

/** What one guest's agent tells of its vCPUs. */
export interface VcpuAnswer extends GuestVcpus {
  /** Load average of the last minute; absent when nobody tells. */
  readonly load1m?: number | undefined
  readonly cpuTimes?: GuestCpuTimes | undefined
}

/** One guest and its vCPUs as its own system sees them. */
export interface InnerVcpus extends AskedGuest<VcpuAnswer> {
  /** How many vCPUs libvirt gives it; absent when libvirt does not say. */
  readonly given?: number | undefined
  /** CPU times since the last run. */
  readonly growth?: Growth | undefined
}

const options = {
  warning: {
    type: 'range',
    alias: 'w',
    default: '10',
    summary: 'Warn outside this range (run queue above the vCPUs online).',
  },
  critical: {
    type: 'range',
    alias: 'c',
    default: '20',
    summary: 'Critical outside this range (run queue above the vCPUs).',
  },
  offlineWarning: { type: 'range', default: '0', summary: 'Warn outside this range (vCPUs not online in the guest).' },
  offlineCritical: { type: 'range', summary: 'Critical outside this range (vCPUs not online in the guest).' },
  passthrough: {
    type: 'flag',
    summary:
      'Ask for CPU times, and with libvirt before 11.2 for the load, by commands that mark the guests as tainted.',
  },
  ...agentOptions,
  ...guestLimitsOption,
} as const satisfies OptionTable
type Options = OptionValues<typeof options>

export default defineCheck({
  name,
  summary:
    'vCPUs that are not online inside the guests, and how many processes wait for one (guest-get-vcpus, guest-get-load).',
  description: `A vCPU that libvirt gives to a guest and that its system has not brought online, or does not see at all, is offline: such as one that was added while it ran.

The run queue is the guest's load average of the last minute (which on Linux counts processes that wait for a disk, too); judged is by how much it is above the vCPUs online. An agent that does not tell the load (before
qemu-ga 10, or of another system than Linux) is no alert. libvirt asks for it from 11.2 on. Older ones have no call for it, nor has any for CPU times: with \`--passthrough\` the check sends agents the commands
guest-get-load and guest-get-cpustats itself, which makes libvirt mark the guests as tainted (\`custom-ga-command\`) and changes nothing else. CPU times (in use, iowait, steal) are printed and not judged.

${unansweredText}

Two libvirt calls for any number of guests, one for each running one (its agent's; one more where the load is asked for and one for CPU times), and one more for each whose agent does not answer.`,
  guests: true,
  readWrite: true,
  options,
  async collect(host: Host, { grace, guestLimits, passthrough }, context): Promise<readonly InnerVcpus[]> {
    const { signal, stage, state } = context
    stage('listing guests')
    const listing = await host.domainStats({ groups: ['state', 'vcpu'], signal })
    const hasLoad = await hasGuestLoad(host, { signal })
    const guests = await surveyAgents(listing, grace, context, {
      ask: running =>
        askAgents(
          host,
          running,
          async (ask, guest, limits): Promise<VcpuAnswer> => {
            const vcpus = await host.domainGuestVcpus(guest, limits)
            const load1m = hasLoad
              ? await readGuestLoad(host, guest, limits)
              : passthrough
                ? await askGuestLoad(ask)
                : undefined
            return { ...vcpus, load1m, cpuTimes: passthrough ? await askGuestCpuTimes(ask) : undefined }
          },
          context,
        ),
      limits: guestLimits ? running => readGuestLimits(host, running, name, signal) : undefined,
    })
    const growth = passthrough
      ? await growthSince(partOf(state, 'cpu'), listing.takenAtMs, cpuTimesOf(guests))
      : new Map<string, Growth>()
    const given = new Map(listing.guests.map(({ domain, currentVcpus }) => [domain.uuid, currentVcpus]))
    return guests.map(guest => ({ ...guest, given: given.get(guest.uuid), growth: growth.get(runOf(guest)) }))
  },
  evaluate(guests, asked) {
    const verdict = new Verdict()
    let online = 0
    let withLoad = 0
    const others = judgeAnswers(verdict, guests, asked, (guest, answer, limits) => {
      judgeOffline(verdict, guest, answer, limits)
      judgeLoad(verdict, guest.name, answer, limits)
      measureTimes(verdict, guest.name, guest.growth)
      online += answer.online.length
      if (answer.load1m !== undefined) withLoad += 1
    })
    verdict.summary = [
      `${online} ${online === 1 ? 'vCPU' : 'vCPUs'} online in guests`,
      ...(withLoad === 0 ? [] : [`run queue known of ${withLoad}`]),
      ...others,
    ].join('; ')
    return verdict
  },
})

function cpuTimesOf(guests: readonly AskedGuest<VcpuAnswer>[]): Map<string, Readonly<Record<string, number>>> {
  return new Map(
    guests.flatMap(guest => {
      const cpuTimes = guest.answer.kind === 'answered' ? guest.answer.value.cpuTimes : undefined
      return cpuTimes === undefined ? [] : [[runOf(guest), { ...cpuTimes }] as const]
    }),
  )
}

function judgeOffline(
  verdict: Verdict,
  { name: guest, given = 0 }: InnerVcpus,
  answer: VcpuAnswer,
  limits: Options,
): void {
  const { present, online } = answer
  const isOnline = new Set(online)
  const offline = present.filter(number => !isOnline.has(number))
  const unseen = Math.max(0, given - present.length)
  const numbers = offline.slice(0, mostNamed).join(', ') + (offline.length > mostNamed ? ', …' : '')
  const words = [
    ...(offline.length > 0
      ? [`number ${numbers}: write 1 to /sys/devices/system/cpu/cpu${offline[0]}/online in it`]
      : []),
    ...(unseen > 0 ? [`${unseen} unknown to its system: see its kernel log`] : []),
  ]
  verdict.judge({
    guest,
    what: 'vCPUs offline inside:',
    name: 'offline',
    value: offline.length + unseen,
    note: `of ${Math.max(given, present.length)}${words.length === 0 ? '' : ` (${words.join('; ')})`}`,
    warning: limits.offlineWarning,
    critical: limits.offlineCritical,
    min: 0,
  })
}

function judgeLoad(verdict: Verdict, guest: string, { online, load1m }: VcpuAnswer, limits: Options): void {
  if (load1m === undefined) return
  const { warning, critical } = limits
  verdict.judge({
    guest,
    what: 'run queue above its vCPUs',
    name: 'excess_load',
    value: Math.max(0, load1m - online.length),
    note: `(load ${formatQuantity(load1m)}, ${online.length} online)`,
    warning,
    critical,
    min: 0,
  })
  verdict.measure({ name: 'load', labels: { guest }, value: load1m, min: 0 })
}

/** The shares of the CPU times since the last run. */
function measureTimes(verdict: Verdict, guest: string, growth: Growth | undefined): void {
  const grown = Object.entries(growth?.grown ?? {})
  const total = grown.reduce((sum, [, value]) => sum + value, 0)
  if (total === 0) return
  for (const [time, value] of grown) {
    if (time === 'idleMs') continue
    const metric = `cpu_${time.replace(/Ms$/, '')}_percent`
    verdict.measure({ name: metric, labels: { guest }, value: (value / total) * 100, unit: '%' })
  }
}

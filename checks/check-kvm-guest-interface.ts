import { askAgents } from '../libvirt/guest-agents.js'
import { readGuestLimits } from '../libvirt/guest-configs.js'
import { askInterfaceCounters, type InnerCounters } from '../libvirt/guest-interfaces.js'
import { runOf } from '../libvirt/guest-run.js'
import type { Host } from '../libvirt/host.js'
import type { GuestInterface } from '../libvirt/records.js'
import { type Network, parseNetwork } from '../plugin/addresses.js'
import { type AskedGuest, agentOptions, judgeAnswers, surveyAgents, unansweredText } from '../plugin/agent-answers.js'
import { defineCheck } from '../plugin/check.js'
import { type Growth, growthSince } from '../plugin/counters.js'
import { splitExpectation } from '../plugin/expectations.js'
import { guestLimitsOption } from '../plugin/limits.js'
import type { OptionTable, OptionValues } from '../plugin/options.js'
import { Verdict } from '../plugin/outcome.js'
import { partOf } from '../plugin/state.js'
import { statusChoices, statusOfChoice } from '../plugin/status.js'
import { formatQuantity } from '../plugin/text.js'

const name = 'check-kvm-guest-interface'
/** Addresses of one guest that are looked at, and that are named in a message. */
const mostAddresses = 1000
const mostNamed = 6
/** Addresses that a system gives itself when nobody else does. */
const selfMade = ['127.0.0.0/8', '::1', '169.254.0.0/16', 'fe80::/10', '0.0.0.0', '::'].map(parseNetwork)

/** What one guest's agent tells of its network. */
export interface Interfaces {
  readonly interfaces: readonly GuestInterface[]
  /** Errors and drops by interface, or in words why they are not known; absent when they were not asked for. */
  readonly counters?: ReadonlyMap<string, InnerCounters> | string | undefined
}

/** One guest and its interfaces as its own system sees them. */
export interface InnerNetwork extends AskedGuest<Interfaces> {
  /** How many interfaces libvirt gives it; absent when libvirt does not say. */
  readonly given?: number | undefined
  /** Errors and drops since the last run, by interface. */
  readonly growth: ReadonlyMap<string, Growth>
}

/** The guests, and those of `--expect` that are not there. */
export interface NetworkSample {
  readonly uri: string
  readonly guests: readonly InnerNetwork[]
  readonly missing: readonly string[]
}

const options = {
  expect: {
    type: 'strings',
    summary:
      'Critical unless GUEST=ADDRESS, or with ADDRESS alone unless each guest has it (repeatable); 10.0.0.0/24 is any of these.',
  },
  unaddressed: {
    type: 'choice',
    choices: statusChoices,
    default: 'critical',
    summary: 'State of a guest without an address but such as it gives itself.',
  },
  excludeInterface: {
    type: 'regex',
    default: '^(lo\\d*|Loopback.*|docker\\d+|br-.+|veth.+|virbr\\d+|cni.+|flannel.+|cali.+)$',
    summary: 'Leave out interfaces whose name in the guest matches.',
  },
  passthrough: { type: 'flag', summary: 'Judge errors inside, too, by a command that marks the guests as tainted.' },
  warning: { type: 'range', alias: 'w', default: '0', summary: 'Warn outside this range (errors per second).' },
  critical: { type: 'range', alias: 'c', default: '10', summary: 'Critical outside this range (errors per second).' },
  dropsWarning: { type: 'range', summary: 'Warn outside this range (drops per second).' },
  dropsCritical: { type: 'range', summary: 'Critical outside this range (drops per second).' },
  ...agentOptions,
  ...guestLimitsOption,
} as const satisfies OptionTable
type Options = OptionValues<typeof options>

export default defineCheck({
  name,
  summary:
    "Addresses of the guests' interfaces, and errors on them, as the guests themselves see them (guest-network-get-interfaces).",
  description: `A guest to which libvirt gives an interface and that has no address, or only loopback and link-local ones (\`127.0.0.0/8\`, \`169.254.0.0/16\`, \`fe80::/10\`), is CRITICAL: as when DHCP failed. One without an interface has
nothing to look at. Interfaces that containers and bridges make inside are left out (\`--exclude-interface\`). \`--expect web1=10.0.0.5\` wants that address on one of the interfaces, whatever others there are.

libvirt's own call tells addresses and no errors. With \`--passthrough\` the check sends agents the command guest-network-get-interfaces itself, which makes libvirt mark the guests as tainted (\`custom-ga-command\`) and
changes nothing else. Rates are those since the last run, so the first one only collects. Drops are not judged unless \`--drops-…\` says so: systems count frames there that were just not meant for them.

${unansweredText}

One libvirt call for any number of guests, one for each running one (its agent's; one more with \`--passthrough\`), and one more for each whose agent does not answer.`,
  guests: true,
  readWrite: true,
  options,
  async collect(host: Host, { grace, guestLimits, passthrough, expect }, context): Promise<NetworkSample> {
    const { signal, stage, state, uri } = context
    const { byGuest } = parseExpected(expect)
    stage('listing guests')
    const listing = await host.domainStats({ groups: ['state', 'interface'], raw: true, signal })
    const guests = await surveyAgents(listing, grace, context, {
      ask: running =>
        askAgents(
          host,
          running,
          async (ask, guest, limits): Promise<Interfaces> => ({
            interfaces: await host.domainGuestAddresses(guest, limits),
            counters: passthrough ? await askInterfaceCounters(ask) : undefined,
          }),
          context,
        ),
      limits: guestLimits ? running => readGuestLimits(host, running, name, signal) : undefined,
    })
    const growth = passthrough
      ? await growthSince(
          partOf(state, 'counters'),
          listing.takenAtMs,
          new Map(guests.flatMap(countersOf).map(([, key, counters]) => [key, { ...counters }])),
        )
      : new Map<string, Growth>()
    const given = new Map(
      listing.guests.map(({ domain, raw }) => [domain.uuid, Number(raw?.get('net.count') ?? Number.NaN)]),
    )
    const known = new Set(listing.guests.flatMap(({ domain }) => [domain.name, domain.uuid]))
    return {
      uri,
      missing: [...byGuest.keys()].filter(guest => !known.has(guest)),
      guests: guests.map(guest => ({ ...guest, given: given.get(guest.uuid), growth: growthOf(guest, growth) })),
    }
  },
  evaluate({ uri, guests, missing }, asked) {
    const verdict = new Verdict()
    const { byGuest, ofAll } = parseExpected(asked.expect)
    for (const guest of missing)
      verdict.add({ status: 'UNKNOWN', guest, message: `no such guest on ${uri}: correct --expect` })
    let addressed = 0
    let judged = 0
    const others = judgeAnswers(verdict, guests, asked, (guest, { interfaces, counters }, limits) => {
      const expected = [...ofAll, ...(byGuest.get(guest.name) ?? byGuest.get(guest.uuid) ?? [])]
      judged += 1
      if (judgeAddresses(verdict, guest, addressesOf(interfaces, asked), expected, asked)) addressed += 1
      judgeErrors(verdict, guest, counters, limits)
    })
    const isCollecting =
      asked.passthrough && guests.some(({ answer, growth }) => answer.kind === 'answered' && growth.size === 0)
    verdict.summary = [
      judged === 0
        ? 'no guest to look at'
        : `${addressed} of ${judged} ${judged === 1 ? 'guest has an address' : 'guests have addresses'}`,
      ...(isCollecting ? ['errors: collecting, known from the next run on'] : []),
      ...others,
    ].join('; ')
    return verdict
  },
})

/** What `--expect` wants, by guest and of all. Throws on what is no address. */
function parseExpected(texts: readonly string[]): { byGuest: Map<string, Network[]>; ofAll: Network[] } {
  const byGuest = new Map<string, Network[]>()
  const ofAll: Network[] = []
  for (const text of texts) {
    const { name: guest, value } = splitExpectation(text)
    const network = readExpected(text, value)
    if (guest === undefined) ofAll.push(network)
    else byGuest.set(guest, [...(byGuest.get(guest) ?? []), network])
  }
  return { byGuest, ofAll }
}

function readExpected(text: string, value: string): Network {
  try {
    return parseNetwork(value)
  } catch (error) {
    throw new Error(`--expect ${text}: ${error instanceof Error ? error.message : String(error)}`)
  }
}

/** The counters of a guest's interfaces by what names each in this run of the guest. */
function countersOf(
  guest: AskedGuest<Interfaces>,
): (readonly [device: string, key: string, counters: InnerCounters])[] {
  const counters = guest.answer.kind === 'answered' ? guest.answer.value.counters : undefined
  if (counters === undefined || typeof counters === 'string') return []
  return [...counters].map(([device, counted]) => [device, `${runOf(guest)} ${device}`, counted] as const)
}

function growthOf(guest: AskedGuest<Interfaces>, growth: ReadonlyMap<string, Growth>): Map<string, Growth> {
  return new Map(
    countersOf(guest).flatMap(([device, key]) => {
      const grown = growth.get(key)
      return grown === undefined ? [] : [[device, grown] as const]
    }),
  )
}

function addressesOf(interfaces: readonly GuestInterface[], { excludeInterface }: Options): string[] {
  const shown = interfaces.filter(each => !excludeInterface.test(each.name))
  return shown.flatMap(({ addresses }) => addresses.map(({ address }) => address)).slice(0, mostAddresses)
}

/** Whether the guest has an address that it was given. */
function judgeAddresses(
  verdict: Verdict,
  { name: guest, given }: InnerNetwork,
  addresses: readonly string[],
  expected: readonly Network[],
  { unaddressed }: Options,
): boolean {
  const usable = addresses.filter(address => !selfMade.some(network => network.has(address)))
  const has = usable.length > 0
  verdict.measure({ name: 'addresses', labels: { guest }, value: usable.length, min: 0 })
  for (const network of expected) {
    if (addresses.some(network.has)) continue
    verdict.add({
      status: 'CRITICAL',
      guest,
      message: `expected address ${network.text} is missing, it has ${listOf(addresses)}`,
    })
  }
  if (has) verdict.add({ status: 'OK', guest, message: listOf(usable) })
  else if (given === 0) verdict.add({ status: 'OK', guest, message: 'no network interface' })
  else {
    const message = `no address but such as it gives itself (${listOf(addresses)}): see its network configuration and the DHCP server`
    verdict.add({ status: statusOfChoice[unaddressed], guest, message })
  }
  return has
}

function listOf(addresses: readonly string[]): string {
  if (addresses.length === 0) return 'none'
  return addresses.slice(0, mostNamed).join(', ') + (addresses.length > mostNamed ? ', …' : '')
}

function judgeErrors(
  verdict: Verdict,
  { name: guest, growth }: InnerNetwork,
  counters: Interfaces['counters'],
  limits: Options,
): void {
  if (typeof counters === 'string') {
    verdict.add({
      status: 'UNKNOWN',
      guest,
      message: `its agent refuses to tell errors of its interfaces: ${counters}`,
    })
    return
  }
  for (const [device, { grown, seconds }] of growth) {
    if (limits.excludeInterface.test(device)) continue
    const subject = { guest, device, deviceLabel: 'interface', note: `per second over ${formatQuantity(seconds, 's')}` }
    const rate = (counter: keyof InnerCounters) => (grown[counter] ?? 0) / seconds
    const { warning, critical, dropsWarning, dropsCritical } = limits
    verdict.judge({ ...subject, what: 'errors', name: 'error_rate', value: rate('errors'), warning, critical })
    const dropLimits = { warning: dropsWarning, critical: dropsCritical }
    verdict.judge({ ...subject, what: 'drops', name: 'drop_rate', value: rate('drops'), ...dropLimits })
  }
}

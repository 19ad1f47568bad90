import { askMonitors, type MonitorAnswer, type MonitorCommand, readMonitorCommand } from '../libvirt/guest-monitors.js'
import type { Host } from '../libvirt/host.js'
import type { ControlInfo, Domain, DomainStats } from '../libvirt/records.js'
import { type Context, defineCheck } from '../plugin/check.js'
import { type Place, parsePath, placesAt } from '../plugin/json-path.js'
import type { OptionTable, OptionValues } from '../plugin/options.js'
import { Verdict } from '../plugin/outcome.js'
import { formatQuantity, printable } from '../plugin/text.js'

/** libvirt itself waits 30 s for a guest's lock before it says who holds it. */
const holderMs = 31_000
/** Guests whose lock's holder is asked for: each costs the daemon a worker for that time. */
const mostHolders = 3

/** One running guest and its monitor. */
export interface GuestMonitor extends Domain {
  /** What came of the query, or without one whether libvirt's own questions are answered. */
  readonly answer: MonitorAnswer | { readonly kind: 'busy'; readonly seconds: number }
  /** What else libvirt says of its line to QEMU. */
  readonly control?: ControlInfo | undefined
}

const options = {
  query: {
    type: 'string',
    summary: 'A read-only command for QEMU: query-… (QMP) or info … (human monitor). Taints the guests it is put to.',
  },
  arguments: { type: 'string', summary: 'Arguments of a query-… command, as a JSON object.' },
  path: { type: 'string', summary: 'Where the value is in the answer to query-…: [0].inserted.image.actual-size.' },
  pattern: { type: 'regex', summary: 'What finds the value in the answer: its first group, else what it matches.' },
  expect: { type: 'string', summary: 'Critical unless the value is this text, number, true or false.' },
  warning: { type: 'range', alias: 'w', summary: 'Warn outside this range (the value found by --path or --pattern).' },
  critical: { type: 'range', alias: 'c', summary: 'Critical outside this range (the value).' },
  unit: { type: 'choice', choices: ['B', 's', '%', 'c'], summary: 'Unit of the value.' },
  taint: { type: 'flag', summary: 'Put --query to guests although none is named with --guest or --match.' },
  silentWarning: { type: 'range', default: '1', summary: 'Warn outside this range (seconds without an answer).' },
  silentCritical: { type: 'range', default: '10', summary: 'Critical outside this range (seconds without an answer).' },
  wait: { type: 'duration', default: '5s', summary: 'How long a monitor may take to answer --query.' },
  holder: {
    type: 'flag',
    summary: 'Find out who holds the lock of guests that do not answer: takes 31 s, so needs --timeout 40s or more.',
  },
} as const satisfies OptionTable
type Options = OptionValues<typeof options>

export default defineCheck({
  name: 'check-kvm-monitor',
  summary:
    "Whether QEMU's monitors answer, for how long they do not and who holds the lock; any value that QEMU tells.",
  description: `Without \`--query\` nothing is changed in any guest, on libvirt's read-only socket: libvirt itself asks each running guest's QEMU for statistics, in one call
for any number of guests, and tells of those that do not answer since when (virsh domcontrol). A guest that another job keeps busy is not judged. libvirt counts from the first question that
was not answered, whoever put it; a QEMU that hangs without being asked anything has been silent for no time at all when this check meets it, about one second.

\`--query\` puts a command of your own to QEMU. **libvirt marks a guest that is asked so as tainted** (\`custom-monitor\`, a line in its log and in \`virsh dominfo\`) until it is started again,
which says that its state may not be what libvirt thinks; distributors may refuse support for it. So the guests must be named with \`--guest\` or \`--match\`, or \`--taint\` given. Only
commands that read are accepted: \`query-…\` and \`info …\`. It needs libvirt's read-write socket. What there is: \`virsh qemu-monitor-command GUEST --hmp info\`.

\`--path\` leads into a QMP answer: names after dots, positions in brackets, \`[*]\` for every item, each judged by itself. \`--pattern\` finds the value in text. A number is judged by
\`--warning\` and \`--critical\`, \`true\` counts as 1 and \`false\` as 0; \`--expect\` compares as text. A guest whose answer has no such value is UNKNOWN.

\`\`\`sh
check-kvm-monitor
check-kvm-monitor --guest web1 --query query-status --path status --expect running
check-kvm-monitor --match '^db' --query query-block --path '[*].inserted.image.actual-size' --unit B -w 50000000000
check-kvm-monitor --guest web1 --query query-blockstats --path '[*].stats.failed_wr_operations' -c 0
check-kvm-monitor --guest web1 --query 'info balloon' --pattern 'actual=([0-9]+)' -w 512:
\`\`\`

With \`--holder\`, libvirt is made to wait for the locks of the first three guests that do not answer; after 30 s it gives up and names the call that holds it, such as
\`remoteDispatchDomainSave\`.`,
  guests: true,
  readWrite: 'sometimes',
  options,
  async collect(host: Host, asked, context): Promise<readonly GuestMonitor[]> {
    const command = commandOf(asked)
    const named = asked.guest.length > 0 || asked.match !== undefined
    if (command !== undefined && !named && !asked.taint) {
      throw new Error('--query taints every guest it is put to: name them with --guest or --match, or add --taint')
    }
    context.stage("asking QEMU's monitors")
    const { signal } = context
    // With a query QEMU is asked by that; without, statistics that libvirt must ask QEMU for: of the balloon, else of I/O threads.
    const groups = command === undefined ? (['state', 'balloon', 'iothread'] as const) : (['state'] as const)
    const { guests: all } = await host.domainStats({ groups, signal })
    const active = context
      .selectGuests(all.map(stats => ({ ...stats.domain, stats })))
      .filter(({ id }) => id !== undefined)
    const monitors =
      command === undefined
        ? await statisticsAnswers(host, active, signal)
        : await queryAnswers(host, active, command, asked.wait, context)
    return asked.holder ? withHolders(host, monitors, context) : monitors
  },
  evaluate(guests, asked) {
    const verdict = new Verdict()
    const values: string[] = []
    for (const guest of guests) values.push(...judge(verdict, guest, asked))
    const answering = guests.filter(({ answer }) => answer.kind === 'answered').length
    const number = `${answering} ${answering === 1 ? 'monitor answers' : 'monitors answer'}`
    const value = values.length === 1 ? ` (${values[0]})` : ''
    verdict.summary =
      guests.length === 0 ? 'no running guest' : `${number}${asked.query ? ` ${asked.query}` : ''}${value}`
    return verdict
  },
})

/** The command to send; undefined for none. Throws when it is not one that only reads. */
function commandOf({
  query,
  arguments: text,
  path,
  pattern,
  expect,
  warning,
  critical,
}: Options): MonitorCommand | undefined {
  const judged = [expect, warning, critical].some(option => option !== undefined)
  if (query === undefined) {
    const others = [text, path, pattern].some(option => option !== undefined)
    if (judged || others) throw new Error('--query is missing: the other options are about its answer')
    return undefined
  }
  if (judged && path === undefined && pattern === undefined) {
    throw new Error('no value to judge: say where it is in the answer with --path or --pattern')
  }
  parsePath(path ?? '')
  const command = readMonitorCommand(query.trim(), text)
  if (command.kind === 'human' && path !== undefined) {
    throw new Error(`--path is for query-… commands, ${query} answers in text: use --pattern`)
  }
  return command
}

type Active = Domain & { readonly stats: DomainStats }

/** Whether libvirt's own questions were answered, of a bulk call that asked them. */
function statisticsAnswers(host: Host, guests: readonly Active[], signal: AbortSignal): Promise<GuestMonitor[]> {
  return Promise.all(
    guests.map(async ({ stats, ...domain }): Promise<GuestMonitor> => {
      const { monitor, balloon } = stats
      if (monitor?.kind === 'not answering') {
        // Asked again for its reason; libvirt answers that without QEMU.
        const control = await host.domainControlInfo(domain, { signal }).catch(() => undefined)
        return { ...domain, answer: { kind: 'silent', seconds: monitor.forMs / 1000 }, control }
      }
      if (balloon === undefined) return { ...domain, answer: noMonitor }
      // The resident size comes with QEMU's help only.
      if (balloon.rssBytes !== undefined) return { ...domain, answer: { kind: 'answered', value: undefined } }
      return { ...domain, answer: { kind: 'busy', seconds: (monitor?.forMs ?? 0) / 1000 } }
    }),
  )
}

const noMonitor = { kind: 'not asked', text: "not known: libvirt's driver asks no monitor" } as const

async function queryAnswers(
  host: Host,
  guests: readonly Active[],
  command: MonitorCommand,
  waitSeconds: number,
  { signal, timeLeftMs }: Context,
): Promise<GuestMonitor[]> {
  const domains = guests.map(({ stats: _, ...domain }) => domain)
  const answers = await askMonitors(host, domains, command, { signal, timeLeftMs, waitMs: waitSeconds * 1000 })
  return domains.flatMap(domain => {
    const answer = answers.get(domain.uuid)
    return answer === undefined || answer.kind === 'not running' ? [] : [{ ...domain, answer }]
  })
}

/** Those that do not answer, with who holds their lock, as far as there is time to find out. */
async function withHolders(host: Host, guests: readonly GuestMonitor[], context: Context): Promise<GuestMonitor[]> {
  context.stage('waiting for the locks of guests that do not answer, to find out who holds them')
  const silent = guests.filter(({ answer }) => answer.kind === 'silent' && answer.holder === undefined)
  if (silent.length > 0 && context.timeLeftMs() < holderMs + 1000) {
    throw new Error(`--holder takes ${holderMs / 1000} s: allow more with --timeout`)
  }
  const holders = new Map<string, string>()
  await Promise.all(
    silent.slice(0, mostHolders).map(async guest => {
      const holder = await host
        .domainLockHolder(guest, { timeoutMs: holderMs, signal: context.signal })
        .catch(() => undefined)
      if (holder !== undefined) holders.set(guest.uuid, holder)
    }),
  )
  return guests.map(guest => {
    const holder = holders.get(guest.uuid)
    return guest.answer.kind === 'silent' && holder !== undefined
      ? { ...guest, answer: { ...guest.answer, holder } }
      : guest
  })
}

/** Judges one guest; returns its values in words. */
function judge(verdict: Verdict, { name: guest, answer, control }: GuestMonitor, asked: Options): string[] {
  if (answer.kind === 'answered') {
    verdict.measure({ name: 'silent_time', labels: { guest }, value: 0, unit: 's' })
    if (asked.query !== undefined) return judgeAnswer(verdict, guest, answer.value, asked)
    verdict.add({ status: 'OK', guest, message: 'its QEMU answers' })
    return []
  }
  if (answer.kind === 'silent') judgeSilence(verdict, guest, answer, control, asked)
  else if (answer.kind === 'busy') {
    const message = `another job of libvirt has held it for ${formatQuantity(answer.seconds, 's')}, so it was not asked`
    verdict.add({ status: 'OK', guest, message })
  } else if (answer.kind !== 'not running') verdict.add({ status: 'UNKNOWN', guest, message: answer.text })
  return []
}

function judgeSilence(
  verdict: Verdict,
  guest: string,
  { seconds, holder }: Extract<MonitorAnswer, { kind: 'silent' }>,
  control: ControlInfo | undefined,
  { silentWarning: warning, silentCritical: critical }: Options,
): void {
  const held =
    holder === undefined ? undefined : `with its lock held by ${holder === '' ? 'a call it does not name' : holder}`
  const silent = { guest, name: 'silent_time', value: seconds, unit: 's', warning, critical } as const
  verdict.judge({ ...silent, what: 'its QEMU has not answered for', note: held })
  if (control?.state === 'error') {
    const message = `libvirt has lost its QEMU's monitor (${control.errorReason}): see libvirt's and QEMU's logs`
    verdict.add({ status: 'CRITICAL', guest, message })
  }
}

/** The values that path or pattern find in an answer, judged; in words. */
function judgeAnswer(verdict: Verdict, guest: string, document: unknown, asked: Options): string[] {
  const { query, path, pattern } = asked
  if (path === undefined && pattern === undefined) {
    verdict.add({ status: 'OK', guest, message: `${query} is ${shortText(document)}` })
    return [shortText(document)]
  }
  const places = placesAt(document, parsePath(path ?? '')).flatMap(place => found(place, pattern))
  if (places.length === 0) {
    const what = [path, pattern && `match for ${pattern.source}`].filter(Boolean).join(' with a ')
    verdict.add({ status: 'UNKNOWN', guest, message: `no ${what} in its answer to ${query}: ${shortText(document)}` })
  }
  for (const place of places) judgeValue(verdict, guest, place, places.length > 1, asked)
  return places.map(({ value }) => shortText(value))
}

/** What a pattern finds in a text: its first group, else all it matches. */
function found({ path, value }: Place, pattern: RegExp | undefined): Place[] {
  if (pattern === undefined) return [{ path, value }]
  const match = typeof value === 'string' ? pattern.exec(value) : null
  return match === null ? [] : [{ path, value: match[1] ?? match[0] }]
}

function judgeValue(verdict: Verdict, guest: string, { path, value }: Place, several: boolean, asked: Options): void {
  const { expect, warning, critical, unit } = asked
  const device = several ? path : undefined
  const number = numberOf(value)
  if (number !== undefined) {
    const what = asked.query ?? ''
    verdict.judge({
      guest,
      device,
      deviceLabel: 'path',
      what,
      name: metricName(asked),
      value: number,
      unit,
      warning,
      critical,
    })
  } else if (warning !== undefined || critical !== undefined) {
    verdict.add({ status: 'UNKNOWN', guest, device, message: `${shortText(value)} is not a number` })
  }
  if (expect !== undefined && shortText(value) !== expect) {
    verdict.add({
      status: 'CRITICAL',
      guest,
      device,
      message: `${asked.query} is ${shortText(value)}, but expected ${expect}`,
    })
  }
}

function numberOf(value: unknown): number | undefined {
  if (typeof value === 'boolean') return value ? 1 : 0
  const text = typeof value === 'number' ? String(value) : typeof value === 'string' ? value.trim() : ''
  return text !== '' && Number.isFinite(Number(text)) ? Number(text) : undefined
}

/** `block_actual_size` of query-block and a path that ends in `actual-size`. */
function metricName({ query = '', path = '' }: Options): string {
  const last = path.match(/[^.[\]*]+/g)?.findLast(part => !/^\d+$/.test(part)) ?? ''
  const words = `${query.replace(/^(query-|info )/, '')}_${last}`.toLowerCase()
  return words
    .replaceAll(/[^a-z0-9]+/g, '_')
    .replaceAll(/^_|_$/g, '')
    .slice(0, 64)
}

function shortText(value: unknown): string {
  return printable(typeof value === 'string' ? value : (JSON.stringify(value) ?? 'nothing'), 100)
}

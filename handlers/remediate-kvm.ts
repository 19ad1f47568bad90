import { join } from 'node:path'
import { LibvirtConnectionError, LibvirtError } from '../libvirt/errors.js'
import { Host } from '../libvirt/host.js'
import type { Domain } from '../libvirt/records.js'
import { parseUri } from '../libvirt/uri.js'
import { fillTokens, sampleOf, timeText } from '../plugin/event-text.js'
import { tryLock } from '../plugin/file-lock.js'
import { FileState, stateDirectory } from '../plugin/file-state.js'
import { defineHandler, type HandlerContext } from '../plugin/handler.js'
import { directoryRule, isHost } from '../plugin/setting-rules.js'
import type { SettingTable, SettingValues } from '../plugin/settings-table.js'
import { type Status, statusChoices, statusOfChoice } from '../plugin/status.js'
import { noteAttempt } from './remediate/attempts.js'
import { type Decision, decide, needsDisks, permissions, stateText } from './remediate/decide.js'
import { readFaultyDisks } from './remediate/disk-space.js'
import { findGuest, isHostOf, isListed, isNamed, type Subject, subjectOf } from './remediate/subject.js'

const mebibyte = 1024 * 1024
/** Kept for saying how it ended. */
const reserveMs = 500

const settings = {
  act: {
    type: 'boolean',
    default: false,
    summary: 'Whether anything is done at all; otherwise the handler says what it would do.',
  },
  uri: {
    type: 'text',
    default: 'qemu:///system',
    rule: uriRule,
    summary:
      'The libvirt that the guests are in, with tokens when there are several: `qemu+ssh://sensu@:::check.origin:::/system`. Changes need its read-write socket (root, or group libvirt).',
  },
  clients: {
    type: 'texts',
    summary:
      'Clients (`*` stands for any characters) whose guests are in that libvirt: events of others are left alone. Default: the one that is named as the host libvirt runs on. Required when `uri` has tokens.',
  },
  allow: {
    type: 'texts',
    summary: 'Only these guests, by name (`*` stands for any characters) or UUID. Default: all.',
  },
  deny: { type: 'texts', summary: 'Never these guests, by name or UUID; wins over `allow`.' },
  should_run: {
    type: 'texts',
    summary: 'Guests that should run, besides those that start with the host, by name or UUID.',
  },
  severities: {
    type: 'texts',
    choices: ['warning', 'critical', 'unknown'],
    summary: 'States of the check at which something is done. Default: critical.',
  },
  attempts: {
    type: 'integer',
    default: 3,
    minimum: 1,
    maximum: 60,
    summary: 'Attempts for each guest within an hour, starts and resumptions together.',
  },
  min_free_mib: {
    type: 'integer',
    default: 1024,
    minimum: 1,
    maximum: 1_000_000_000,
    summary: 'MiB that must be free where the disk is before a guest that had no space goes on.',
  },
  state_dir: {
    type: 'text',
    rule: directoryRule,
    summary:
      'Directory where attempts are kept. Default: SENSU_KVM_STATE_DIR, XDG_STATE_HOME/sensu-kvm, /var/lib/sensu-kvm if it belongs to this user, else one below TMPDIR.',
  },
} as const satisfies SettingTable
type Settings = SettingValues<typeof settings>

export default defineHandler({
  name: 'remediate-kvm',
  summary:
    'Starts guests that should run and crashed, and resumes those paused by a full disk once there is room; says only what it would do unless told to act.',
  description: `An event only says which guest to look at. What is done goes by what libvirt says of that guest at that moment, which is read again right before anything is done. The event must be a problem (no resolution, not
flapping), not silenced, of one of the \`severities\`, and name a guest: by its own client with the hypervisor's as origin, as results of \`--per-guest\` do, or by an attribute \`guest\` in the check's definition. An attribute \`guest_uuid\` of check or client
is compared as well.

What each state permits, by libvirt's state and reason:

| State | Permitted | Because |
|---|---|---|
${permissionRows()}

A guest that may be started is started only if it should run: because it starts with the host (\`virsh autostart\`), or because \`should_run\` names it. libvirt keeps the reason for which a guest ended until it or libvirt itself is started again, so that
after a restart of libvirt nothing is started. A guest whose QEMU somebody killed by hand looks like one that crashed.

A guest paused by an I/O error is resumed when every disk that QEMU names lacked space, and \`min_free_mib\` are free where it is: on this machine by its file systems, else in the storage pool it is in (which is refreshed first). After any other error of a disk nothing tells when
it is over, and nothing is done. QEMU does not forget the error until the guest is resumed, so the event has to come again after somebody made room: no filter must keep repeated events from this handler.

Attempts are noted on disk before they are made, and limited for each guest (\`attempts\` within an hour). When they are used up the handler fails and says so, which Sensu logs as an error. Of several processes at the same guest one acts.`,
  settings,
  timeoutSeconds: 60,
  sample: { act: false, should_run: ['web*'], deny: ['build*'], attempts: 3, min_free_mib: 4096 },
  sampleHandler: { severities: ['critical'], timeout: 70 },
  relations: [
    // Whoever may send results may write anything there.
    ({ uri }, isGiven) =>
      uri.includes(':::') && !isGiven('clients')
        ? ['clients is missing: with tokens in uri an event could name any machine']
        : [],
  ],
  async handle(event, asked, context) {
    const subject = subjectOf(event, severitiesOf(asked))
    if ('nothing' in subject) return subject
    const uri = fillTokens(asked.uri, event, encodeURIComponent)
    context.stage(`asking libvirt at ${uri} for ${subject.name}`)
    await using host = Host.open(uri, { readOnly: !asked.act })
    const { domain, decision } = await look(host, subject, asked, context.signal)
    if (domain === undefined || decision.act === 'nothing') return { nothing: `${subject.name}: ${decision.why}` }
    const plan = `${decision.act} ${domain.name} at ${uri}: ${decision.why}`
    if (!asked.act) {
      const preview = `${plan}\nnot done: the setting act is false`
      return { preview, run: async () => `would ${plan}; nothing was done, the setting act is false` }
    }
    return { preview: plan, run: () => remedy(uri, domain, subject, asked, context) }
  },
})

function permissionRows(): string {
  const states = Object.keys(permissions)
  const label = (state: string) => {
    if (state.includes('(')) return state
    return `${state} (any${states.some(other => other.startsWith(`${state} (`)) ? ' other' : ''} reason)`
  }
  const rows = Object.entries(permissions).map(([state, [permits, why]]) => {
    return `| ${label(state)} | ${permits === 'nothing' ? permits : `**${permits}**`} | ${why} |`
  })
  return rows.join('\n')
}

/** Those of libvirt's daemons. */
const drivers = ['qemu', 'test', 'lxc', 'xen', 'ch', 'vbox', 'bhyve', 'openvz', 'vz']

/** What tokens stand for may be a word or a number. */
function uriRule(uri: string): string | undefined {
  return ['x', '1'].some(value => isUri(sampleOf(uri, value)))
    ? undefined
    : 'must be one that libvirt knows, without a password, such as qemu:///system'
}

function isUri(uri: string): boolean {
  try {
    const { driver, carrier, host, port, user } = parseUri(uri)
    const isReachable = carrier === 'unix' || isHost(host) || /^\d+$/.test(host)
    return drivers.includes(driver) && isReachable && port !== 0 && !user?.startsWith('-')
  } catch {
    return false
  }
}

function severitiesOf({ severities }: Settings): Status[] {
  return severities.length === 0
    ? ['CRITICAL']
    : statusChoices.flatMap(word => (severities.includes(word) ? statusOfChoice[word] : []))
}

interface Found {
  /** Undefined when there is nothing to do. */
  readonly domain?: Domain
  readonly decision: Decision
}

/** What libvirt says of the guest now, and what that permits. */
async function look(host: Host, subject: Subject, asked: Settings, signal: AbortSignal): Promise<Found> {
  const nothing = (why: string): Found => ({ decision: { act: 'nothing', why } })
  const elsewhere = await whyElsewhere(host, subject, asked, signal)
  if (elsewhere !== undefined) return nothing(elsewhere)
  const domain = findGuest(await host.domains({}, { signal }), subject)
  if (domain === undefined) {
    const uuid = subject.uuid === undefined ? '' : ` with UUID ${subject.uuid}`
    return nothing(`no such guest${uuid} at ${host.uri}: it is undefined or was migrated away`)
  }
  if (isListed(asked.deny, domain)) return nothing('deny names it')
  if (asked.allow.length > 0 && !isListed(asked.allow, domain)) return nothing('allow does not name it')
  const [state, autostart] = await Promise.all([
    host.domainState(domain, { signal }),
    host.domainAutostart(domain, { signal }).catch(() => false), // a transient guest has none
  ])
  const disks = needsDisks(state) ? await readFaultyDisks(host, domain, { signal, refresh: asked.act }) : undefined
  const wish = { autostart, expected: isListed(asked.should_run, domain) }
  return { domain, decision: decide(state, wish, disks, asked.min_free_mib * mebibyte) }
}

/** Why the guest is not in this libvirt as far as is known: one of the same name may be. */
async function whyElsewhere(
  host: Host,
  { host: client }: Subject,
  { clients }: Settings,
  signal: AbortSignal,
): Promise<string | undefined> {
  if (clients.length > 0)
    return isNamed(clients, client) ? undefined : `the event came from ${client}, which clients does not name`
  const hostname = await host.hostname({ signal })
  if (isHostOf(client, hostname)) return undefined
  return `the event came from ${client}, but ${host.uri} is ${hostname}: name ${client} in clients if that is the same machine`
}

/** Does what libvirt's present state permits, under the guest's lock. Returns what was done; throws when it failed or must not be tried again now. */
async function remedy(
  uri: string,
  { name, uuid }: Domain,
  subject: Subject,
  asked: Settings,
  context: HandlerContext,
): Promise<string> {
  const unlock = tryLock(
    join(stateDirectory(context.variables, asked.state_dir, 'state_dir'), `remediate-kvm-${uuid}.lock`),
  )
  if (unlock === undefined) return `left alone: another process is about to help ${name}`
  try {
    await using host = Host.open(uri)
    context.stage(`looking at ${name} again`)
    // The event may be old, and who had the lock before may have helped.
    const { domain, decision } = await look(host, subject, asked, context.signal)
    if (domain === undefined || decision.act === 'nothing') return `left alone: ${decision.why}`
    return await attempt(host, domain, decision, asked, context)
  } finally {
    unlock()
  }
}

async function attempt(
  host: Host,
  domain: Domain,
  { act, why }: Decision & { act: 'start' | 'resume' },
  { attempts, state_dir: directory }: Settings,
  { signal, variables, now, stage, timeLeftMs }: HandlerContext,
): Promise<string> {
  const { name, uuid } = domain
  const store = new FileState(variables, 'state_dir').open({
    check: 'remediate-kvm',
    uri: '',
    options: { uuid },
    directory,
  })
  const before = await store.read()
  const noted = await noteAttempt(store, now(), attempts)
  if ('exhausted' in noted) {
    const times = attempts === 1 ? 'once' : `${attempts} times`
    throw new Error(
      `${name} was helped ${times} within an hour and is ${why}: somebody has to look at it; no attempt before ${timeText(noted.nextMs / 1000)}`,
    )
  }
  stage(`${act === 'start' ? 'starting' : 'resuming'} ${name}`)
  try {
    const options = { signal, timeoutMs: Math.max(1, timeLeftMs() - reserveMs) }
    await (act === 'start' ? host.startDomain(domain, options) : host.resumeDomain(domain, options))
  } catch (error) {
    if (wasNotTried(error)) await store.write(before ?? [])
    if (!(error instanceof LibvirtError && error.operationInvalid)) throw error
    const state = stateText(await host.domainState(domain, { signal }))
    throw new Error(`cannot ${act} ${name}, which is ${state} now: ${error.message}`)
  }
  return `${act === 'start' ? 'started' : 'resumed'} ${name}, which was ${why}; attempt ${noted.number} of ${attempts} within an hour`
}

/** What did not reach libvirt, or was refused, does not count as an attempt. */
function wasNotTried(error: unknown): boolean {
  return error instanceof LibvirtError
    ? error.denied
    : error instanceof LibvirtConnectionError && error.kind !== 'closed'
}

import type { Domain } from '../../libvirt/records.js'
import type { SensuEvent } from '../../plugin/event.js'
import type { Status } from '../../plugin/status.js'
import { safeName } from '../../plugin/text.js'

/** The guest that an event is about. */
export interface Subject {
  /** Its name, or the name that its client has. */
  readonly name: string
  readonly uuid: string | undefined
  /** The client that looked: the agent on the hypervisor. */
  readonly host: string
}

/**
 * The guest that an event is about, or why nothing is to be done about it. A guest is named by its own client, with the hypervisor's as origin
 * (`--per-guest`), or by the check's attribute `guest` in an event of the hypervisor's client; `guest_uuid` of either says which one of that name.
 */
export function subjectOf(event: SensuEvent, severities: readonly Status[]): Subject | { nothing: string } {
  if (event.action !== 'create')
    return { nothing: `the event is ${event.action === 'resolve' ? 'resolved' : event.action}` }
  if (event.silenced) return { nothing: 'the event is silenced' }
  if (!severities.includes(event.status))
    return { nothing: `the event is ${event.status}, which severities does not name` }
  const [client, check] = [members(event.raw['client']), members(event.raw['check'])]
  const guest = text(check['guest'])
  const uuid = (text(check['guest_uuid']) ?? text(client['guest_uuid']))?.toLowerCase()
  if (guest !== undefined) return { name: guest, uuid, host: event.origin ?? event.client }
  if (event.origin !== undefined) return { name: event.client, uuid, host: event.origin }
  return { nothing: 'the event names no guest: run the check with --per-guest, or give it an attribute guest' }
}

/** The guest among those of a hypervisor. A UUID decides; a guest of that name with another one is somebody else. */
export function findGuest(domains: readonly Domain[], { name, uuid }: Subject): Domain | undefined {
  if (uuid !== undefined) return domains.find(domain => domain.uuid === uuid)
  return domains.find(domain => domain.name === name) ?? domains.find(domain => safeName(domain.name) === name)
}

/** Whether a guest is one of a list of names or UUIDs. */
export function isListed(list: readonly string[], { name, uuid }: Domain): boolean {
  return isNamed(list, name) || list.some(entry => entry.toLowerCase() === uuid)
}

/** Whether a name is one of a list, in which `*` stands for any characters. */
export function isNamed(list: readonly string[], name: string): boolean {
  return list.some(entry => matches(entry, name))
}

/** By hand: a regular expression of many `.*` can take forever. */
function matches(pattern: string, name: string): boolean {
  const [first = '', ...parts] = pattern.split('*')
  const last = parts.pop()
  if (last === undefined) return name === pattern
  if (!name.startsWith(first) || !name.endsWith(last)) return false
  let at = first.length
  for (const part of parts) {
    const found = name.indexOf(part, at)
    if (found < 0) return false
    at = found + part.length
  }
  return at + last.length <= name.length
}

/** Whether a client may be the agent of the machine with this host name: the same name, or the same up to the first dot when one has no domain. */
export function isHostOf(client: string, hostname: string): boolean {
  const [one, other] = [client.toLowerCase(), hostname.toLowerCase()]
  const short = (name: string) => name.split('.', 1)[0]
  return one === other || (short(one) === short(other) && !(one.includes('.') && other.includes('.')))
}

function members(value: unknown): Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null ? { ...value } : {}
}

function text(value: unknown): string | undefined {
  return typeof value === 'string' && value !== '' ? value : undefined
}

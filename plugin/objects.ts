import type { Finding } from './outcome.js'
import type { Status } from './status.js'

/** What selection needs to know of a guest, a pool or a network. */
export interface Selectable {
  readonly name: string
  readonly uuid?: string
}

/** What selects objects of one kind. */
export interface ObjectSelection {
  readonly names: readonly string[]
  readonly match: RegExp | undefined
  readonly exclude: RegExp | undefined
}

/** The objects that are asked for, in their order (all when nothing is), and the names that none of them has. Pure. */
export function selectObjects<T extends Selectable>(
  objects: readonly T[],
  { names, match, exclude }: ObjectSelection,
): { selected: T[]; missing: string[] } {
  const everything = names.length === 0 && match === undefined
  const wanted = new Set(names)
  const selected = objects.filter(object => {
    if (exclude?.test(object.name)) return false
    return everything || wanted.has(object.name) || wanted.has(object.uuid ?? '') || match?.test(object.name) === true
  })
  const missing = new Set(wanted)
  for (const { name, uuid = '' } of wanted.size > 0 ? objects : []) {
    missing.delete(name)
    missing.delete(uuid)
  }
  return { selected, missing: [...missing] }
}

/** Findings for objects of a kind (`pool`, `network`) that a selection asked for and did not find; those named are looked at for being there, too. */
export function absenceFindings(
  kind: string,
  selection: { selected: readonly Selectable[]; missing: readonly string[] },
  { names, match }: Omit<ObjectSelection, 'exclude'>,
  uri: string,
): Finding[] {
  const missing = selection.missing.map((device): Finding => {
    return {
      status: 'CRITICAL',
      device,
      message: `no such ${kind} on ${uri}: undefined, or wrongly named by --${kind}`,
    }
  })
  const empty = selection.selected.length === 0 && match !== undefined && names.length === 0
  const message = `no ${kind} on ${uri} matches --match ${match?.source}: correct it`
  return empty ? [{ status: 'UNKNOWN', message }] : missing
}

/** The option of checks of what may start with the host, besides guests. */
export const autostartOption = {
  autostart: {
    type: 'choice',
    choices: ['critical', 'warning', 'ignore'],
    default: 'critical',
    summary: 'What it is when one that is to start with the host is not active.',
  },
} as const

const severities = { critical: 'CRITICAL', warning: 'WARNING', ignore: 'OK' } as const

/** What it is when an object is not active: wrong when it is named, or is to start with the host; `remedy` starts it. */
export function inactiveFinding(
  { name, named, autostart }: { name: string; named: boolean; autostart?: boolean | undefined },
  asked: keyof typeof severities,
  remedy: string,
): Finding {
  const wanted = named ? 'though it is asked for by name' : 'though it is to start with the host'
  const status: Status = named ? 'CRITICAL' : autostart === true ? severities[asked] : 'OK'
  return { status, device: name, message: status === 'OK' ? 'inactive' : `inactive, ${wanted}: ${remedy}` }
}

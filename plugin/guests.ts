import type { OptionValues } from './options.js'
import type { Finding } from './outcome.js'

/** The options of every check that looks at guests. */
export const guestOptions = {
  guest: { type: 'strings', summary: 'Look only at these guests, by name or UUID (repeatable).' },
  match: { type: 'regex', summary: 'Look only at guests whose name matches, besides those of --guest.' },
  exclude: { type: 'regex', summary: 'Leave out guests whose name matches; wins over --guest and --match.' },
  all: { type: 'flag', summary: 'Look at all guests (the default when neither --guest nor --match is given).' },
  perGuest: {
    type: 'flag',
    summary:
      'Give each guest its own result, with its name as source; what Sensu does not allow in names becomes _xHH, byte by byte.',
  },
  gone: {
    type: 'choice',
    choices: ['resolve', 'critical', 'ignore'],
    default: 'resolve',
    summary:
      'With --per-guest, what to report of a guest that earlier runs knew and that is not there any more: a last OK, or CRITICAL until it is back.',
  },
} as const

export type GuestOptionValues = OptionValues<typeof guestOptions>

/** What guest selection needs to know of a guest. */
export interface Selectable {
  readonly name: string
  readonly uuid?: string
}

/**
 * Splits guest selection from the rest: the guests that the options ask for, in their order, and the names given by `--guest` that
 * none of them has. Pure; a check whose subject is the guest's absence uses it directly, others use `context.selectGuests`.
 */
export function selectGuests<T extends Selectable>(
  guests: readonly T[],
  { guest: names, match, exclude }: GuestOptionValues,
): { selected: T[]; missing: string[] } {
  return selectObjects(guests, { names, match, exclude })
}

/** What selects objects of another kind than guests: pools, networks. */
export interface ObjectSelection {
  readonly names: readonly string[]
  readonly match: RegExp | undefined
  readonly exclude: RegExp | undefined
}

/** Selects objects by their names or UUIDs, as {@link selectGuests} does guests. */
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
  const known = new Set(objects.flatMap(object => [object.name, object.uuid]))
  return { selected, missing: [...wanted].filter(name => !known.has(name)) }
}

/** UNKNOWN findings for what a selection asked for and did not find; a pattern that matches nothing is more often a typing error than a wish. */
export function selectionFindings(
  selection: { selected: readonly Selectable[]; missing: readonly string[] },
  options: GuestOptionValues,
  uri: string,
): Finding[] {
  const missing = selection.missing.map(
    (guest): Finding => ({ status: 'UNKNOWN', guest, message: `no such guest on ${uri}: correct --guest` }),
  )
  const empty = selection.selected.length === 0 && options.match !== undefined && options.guest.length === 0
  return empty
    ? [{ status: 'UNKNOWN', message: `no guest on ${uri} matches --match ${options.match?.source}: correct it` }]
    : missing
}

/** Findings for objects (`pool`, `network`) that a selection asked for and did not find; to be there is what those named are looked at for. */
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

import { type Selectable, selectObjects } from './objects.js'
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

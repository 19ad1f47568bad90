import { kebabCase, rangeNames } from './options.js'
import { parseRange, type Range } from './range.js'

/** The option of checks whose limits a guest's metadata may set. */
export const guestLimitsOption = {
  guestLimits: {
    type: 'flag',
    summary: "Let the guests' own metadata set limits (reads the XML of every guest, one more call each).",
  },
} as const

/**
 * The options with every range replaced that `limits` names (in kebab case or camel case), and one line for each limit that is no range or
 * that these options do not have; such a limit changes nothing.
 */
export function overrideLimits<T extends object>(
  options: T,
  limits: Readonly<Record<string, string>>,
): { options: T; problems: string[] } {
  const overridden = new Map<string, Range>()
  const problems: string[] = []
  const ranges = rangeNames(options)
  for (const [key, text] of Object.entries(limits)) {
    const name = ranges.find(own => own === key || kebabCase(own) === key)
    if (name === undefined) {
      const known = ranges.map(kebabCase).join(', ')
      problems.push(`its metadata sets limit "${key}", which this check does not have: use ${known || 'none'}`)
      continue
    }
    try {
      overridden.set(name, parseRange(text))
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error)
      problems.push(`its metadata sets ${kebabCase(name)} to "${text}", ${reason}`)
    }
  }
  return { options: { ...options, ...Object.fromEntries(overridden) }, problems }
}

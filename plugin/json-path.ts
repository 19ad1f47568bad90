/** One place in a JSON document that a path leads to. */
export interface Place {
  /** The path with every `[*]` replaced by the position it stands for. */
  readonly path: string
  readonly value: unknown
}

/** One step: a member's name, a position, or all positions. */
type Step = string | number | '*'

/** Places that one path may lead to. */
const mostPlaces = 1000
const steps = /\.?([^.[\]]+)|\[(\d{1,9}|\*)\]/y

/**
 * Reads a path such as `[0].inserted.image.actual-size` or `[*].io-status`: names after dots, positions in brackets, `[*]` for all. Throws with what
 * to write.
 */
export function parsePath(text: string): readonly Step[] {
  const found: Step[] = []
  steps.lastIndex = 0
  for (let end = 0; end < text.length; end = steps.lastIndex) {
    const [, name, position] = steps.exec(text) ?? []
    if (name === undefined && position === undefined) {
      throw new Error(
        `not a path at "${text.slice(end, end + 20)}": write names and positions, as in [0].inserted.size`,
      )
    }
    found.push(name ?? (position === '*' ? '*' : Number(position)))
  }
  return found
}

/** The places that a path leads to in a document, at most 1,000; none when there is nothing there. */
export function placesAt(document: unknown, path: readonly Step[]): Place[] {
  let places: Place[] = [{ path: '', value: document }]
  for (const step of path) places = places.flatMap(place => next(place, step)).slice(0, mostPlaces)
  return places
}

function next({ path, value }: Place, step: Step): Place[] {
  if (Array.isArray(value)) {
    const items: unknown[] = value
    if (typeof step === 'number') return step < items.length ? [{ path: `${path}[${step}]`, value: items[step] }] : []
    return step === '*' ? items.map((item, index) => ({ path: `${path}[${index}]`, value: item })) : []
  }
  if (typeof step !== 'string' || typeof value !== 'object' || value === null || !Object.hasOwn(value, step)) return []
  return [{ path: path === '' ? step : `${path}.${step}`, value: (value as Record<string, unknown>)[step] }]
}

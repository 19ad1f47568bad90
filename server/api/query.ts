import { isObject, member } from '../../sensu/json-value.js'
import { plainText } from '../../sensu/text-forms.js'
import type { Json, JsonObject } from '../../sensu/types.js'
import type { Page } from '../../store/listing.js'
import { parsedObject } from '../../store/stored-text.js'

/** A query string as far as the API understands it. */
export interface Query {
  /** By name; of a repeated name the last. A name without `=` has the empty value. */
  values: ReadonlyMap<string, string>
  /** Undefined without a valid `limit`: then nothing is paged. */
  page: Page | undefined
  /** From `filter.a.b=value`. */
  filters: readonly Filter[]
}

/** An attribute, at a path of names, whose text form must be the given one. */
interface Filter {
  path: string[]
  text: string
}

/** Reads a query string. Unlike in Sensu 1.9 values are percent-decoded; what follows a second `=` or `?` is ignored as there. */
export function parseQuery(text: string): Query {
  const values = new Map<string, string>()
  for (const pair of text.split('&')) {
    const [name = '', value = ''] = pair.split('=')
    if (name !== '') values.set(percentDecoded(name) ?? name, percentDecoded(value) ?? value)
  }
  const limit = wholeNumber(values.get('limit'))
  const page = limit === undefined ? undefined : { limit, offset: wholeNumber(values.get('offset')) ?? 0 }
  const filters = [...values]
    .filter(([name]) => name.startsWith(filterPrefix))
    .map(([name, value]) => ({ path: name.slice(filterPrefix.length).split('.'), text: value }))
  return { values, page, filters }
}

const filterPrefix = 'filter.'

/** A parameter that is a number; undefined for anything but decimal digits. */
export function wholeNumber(text: string | undefined): number | undefined {
  if (text === undefined || !/^\d+$/.test(text)) return undefined
  return Math.min(Number(text), Number.MAX_SAFE_INTEGER)
}

/** Undefined when the text has a `%` that begins no character. */
export function percentDecoded(text: string): string | undefined {
  if (!text.includes('%')) return text
  try {
    return decodeURIComponent(text)
  } catch {
    return undefined
  }
}

/** Whether the JSON text of an object passes all filters. */
export function passes(text: string, filters: readonly Filter[]): boolean {
  const object = parsedObject(text)
  return object !== undefined && filters.every(filter => textAt(object, filter.path) === filter.text)
}

/** What is missing in an object is as good as an empty text; below anything else there is nothing. */
function textAt(object: JsonObject, path: string[]): string | undefined {
  let found: Json = object
  for (const name of path) {
    if (!isObject(found)) return undefined
    found = member(found, name) ?? null
  }
  return plainText(found)
}

import { type Listing, type Page, pageOf } from '../../store/listing.js'
import type { Answer } from './answer.js'
import { passes, type Query } from './query.js'

/** A list whose items are JSON texts, which pass the filters and have been paged by whoever read them. */
export function listAnswer(query: Query, { total, slices }: Listing<string>): Answer {
  return { status: 200, body: jsonArray(slices, query), ...(query.page && { headers: pagination(query.page, total) }) }
}

/** A list whose items are all there: its page, as JSON texts. */
export function pagedAnswer<T>(query: Query, items: T[], text: (item: T) => string): Answer {
  const page = pageOf(items, query.page)
  return listAnswer(query, { total: items.length, slices: oneSlice(page.map(text)) })
}

/** A list that is never paged: only the filters count. */
export function wholeAnswer(query: Query, texts: string[]): Answer {
  return { status: 200, body: jsonArray(oneSlice(texts), query) }
}

/** The same list with its items as JSON texts. */
export function asTexts<T>({ slices, ...listing }: Listing<T>, text: (item: T) => string): Listing<string> {
  return { ...listing, slices: mapped(slices, text) }
}

function pagination({ limit, offset }: Page, total: number | undefined): Record<string, string> {
  return { 'X-Pagination': JSON.stringify({ limit, offset, total: total ?? 0 }) }
}

async function* jsonArray(slices: AsyncIterable<string[]>, { filters }: Query): AsyncGenerator<string> {
  let before = '['
  for await (const slice of slices) {
    const items = filters.length === 0 ? slice : slice.filter(text => passes(text, filters))
    if (items.length === 0) continue
    yield before + items.join(',')
    before = ','
  }
  yield before === '[' ? '[]' : ']'
}

async function* mapped<T>(slices: AsyncIterable<T[]>, text: (item: T) => string): AsyncGenerator<string[]> {
  for await (const slice of slices) yield slice.map(text)
}

async function* oneSlice(texts: string[]): AsyncGenerator<string[]> {
  yield texts
}

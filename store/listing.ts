import type { Redis } from 'ioredis'

/** Which part of a list is wanted. */
export interface Page {
  limit: number
  offset: number
}

/** A list whose items are read when they are asked for, in slices. */
export interface Listing<T> {
  /** Length of the whole list that this is a page of; undefined without a page. */
  total?: number
  slices: AsyncIterable<T[]>
}

/** Names are read this many at a time: Redis answers in 2 ms for clients with 20 results each, and nobody holds more than a few slices. */
const SLICE_SIZE = 20

/** Slices that are on their way while one is being used: Redis may have much else to do before it answers. */
const SLICES_AHEAD = 4

/** How the items of some names are counted and read. Both answer for each name, in order. */
export interface ListReader<T> {
  count(names: string[]): Promise<number[]>
  read(names: string[]): Promise<T[][]>
}

/** The items of all names, or a page of them: then they are counted first, and only those names are read that the page has items of. */
export async function listItems<T>(
  names: string[],
  page: Page | undefined,
  reader: ListReader<T>,
): Promise<Listing<T>> {
  const read = async (slice: string[]) => (await reader.read(slice)).flat()
  if (page === undefined) return { slices: readAhead(slicesOf(names), read) }
  let total = 0
  let skipped = 0
  const wanted: string[] = []
  let at = 0
  for await (const counts of readAhead(slicesOf(names), slice => reader.count(slice))) {
    for (const count of counts) {
      const name = names[at++]
      const begin = Math.max(total, page.offset)
      const end = Math.min(total + count, page.offset + page.limit)
      if (name !== undefined && begin < end) {
        if (wanted.length === 0) skipped = begin - total
        wanted.push(name)
      }
      total += count
    }
  }
  return { total, slices: cut(readAhead(slicesOf(wanted), read), skipped, page.limit) }
}

/** A part of names that are known. */
export function pageOf<T>(items: T[], page: Page | undefined): T[] {
  return page ? items.slice(page.offset, page.offset + page.limit) : items
}

/** Names in pieces of a size that Redis answers at once. */
export function* slicesOf(names: string[]): Generator<string[]> {
  for (let at = 0; at < names.length; at += SLICE_SIZE) yield names.slice(at, at + SLICE_SIZE)
}

/** Reads slices in order, a few of them ahead. */
export async function* readAhead<T>(
  slices: Iterable<string[]>,
  read: (slice: string[]) => Promise<T>,
): AsyncGenerator<T> {
  const underWay: Promise<T>[] = []
  for (const slice of slices) {
    const reading = read(slice)
    // one that fails while another is being used is told when its turn comes, if it ever does
    reading.catch(() => {})
    underWay.push(reading)
    const first = underWay.length > SLICES_AHEAD ? underWay.shift() : undefined
    if (first) yield await first
  }
  for (const reading of underWay) yield await reading
}

async function* cut<T>(slices: AsyncIterable<T[]>, skip: number, limit: number): AsyncGenerator<T[]> {
  let at = -skip
  for await (const slice of slices) {
    const part = slice.slice(Math.max(0, -at), limit - at)
    at += slice.length
    if (part.length > 0) yield part
    if (at >= limit) return
  }
}

/** Asks a script that answers with one row for each name. */
export async function rows(redis: Redis, script: string, names: string[]): Promise<unknown[]> {
  const reply = await redis.eval(script, 0, ...names)
  return Array.isArray(reply) ? reply : []
}

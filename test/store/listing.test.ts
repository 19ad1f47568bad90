import t from 'tap'
import { listItems, type Page } from '../../store/listing.js'

// 100 names, of which the n-th has n % 3 items
const names = Array.from({ length: 100 }, (_, at) => String(at))
const itemsOf = (name: string) => Array.from({ length: Number(name) % 3 }, (_, at) => `${name}.${at}`)
const all = names.flatMap(itemsOf)

async function items(page?: Page): Promise<{ total: number | undefined; items: string[]; read: string[] }> {
  const read: string[] = []
  const { total, slices } = await listItems(names, page, {
    count: async slice => slice.map(name => itemsOf(name).length),
    read: async slice => {
      read.push(...slice)
      return slice.map(itemsOf)
    },
  })
  const found: string[] = []
  for await (const slice of slices) found.push(...slice)
  return { total, items: found, read }
}

t.test('without a page all items come, in the order of their names', async t => {
  t.strictSame(await items(), { total: undefined, items: all, read: names })
})

t.test('a page has the items at its place, wherever it begins and ends', async t => {
  for (const offset of [0, 1, 2, 3, 29, 30, 97, 98, 99, 100, 1e15]) {
    for (const limit of [0, 1, 2, 3, 31, 99, 1e15]) {
      const page = await items({ offset, limit })
      t.strictSame([page.total, page.items], [all.length, all.slice(offset, offset + limit)], `${offset}, ${limit}`)
      t.ok(page.read.every(name => itemsOf(name).length > 0 && page.items.some(item => itemsOf(name).includes(item))))
    }
  }
})

t.test('a slice that cannot be read ends the list with its error', async t => {
  const { slices } = await listItems(names, undefined, {
    count: async () => [],
    read: async slice => {
      if (slice.includes('50')) throw new Error('Redis is away')
      return slice.map(itemsOf)
    },
  })
  const found: string[] = []
  const reading = async () => {
    for await (const slice of slices) found.push(...slice)
  }
  await t.rejects(reading(), { message: 'Redis is away' })
  t.strictSame(found, all.slice(0, found.length))
  t.ok(found.length > 0)
})

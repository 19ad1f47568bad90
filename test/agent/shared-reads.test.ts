import t from 'tap'
import { SharedReads } from '../../agent/shared-reads.js'

/** A read that ends when told to; counts how often it was started. */
function slowRead() {
  const ends: { resolve(value: string): void; reject(error: Error): void }[] = []
  const read = () => new Promise<string>((resolve, reject) => ends.push({ resolve, reject }))
  return { read, ends }
}

t.test(
  'who asks during a read shares the next one with all who did, and gets nothing older than his question',
  async t => {
    const reads = new SharedReads()
    const { read, ends } = slowRead()
    const first = reads.ask('state', read)
    const second = reads.ask('state', read)
    const third = reads.ask('state', read)
    t.equal(ends.length, 1, 'one question is under way')
    ends[0]?.resolve('before')
    t.equal(await first, 'before')
    t.equal(ends.length, 2, 'the others share one more')
    ends[1]?.resolve('after')
    t.same(await Promise.all([second, third]), ['after', 'after'])
    void reads.ask('state', read)
    t.equal(ends.length, 3, 'afterwards nothing is remembered')
  },
)

t.test('different questions do not wait for each other', async t => {
  const reads = new SharedReads()
  const { read, ends } = slowRead()
  void reads.ask('one', read)
  const other = reads.ask('other', read)
  ends[1]?.resolve('answer')
  t.equal(await other, 'answer')
})

t.test('a read that fails fails for those who asked for it only', async t => {
  const reads = new SharedReads()
  const { read, ends } = slowRead()
  const first = reads.ask('state', read)
  const second = reads.ask('state', read)
  ends[0]?.reject(new Error('gone'))
  await t.rejects(first, { message: 'gone' })
  ends[1]?.resolve('back')
  t.equal(await second, 'back')
})

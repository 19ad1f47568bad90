import t from 'tap'
import { PendingReads } from '../../plugin/pending-reads.js'

/** A read that ends when told to. */
function held() {
  let begun = 0
  let end: (value: string) => void = () => undefined
  const read = () => {
    begun++
    return new Promise<string>(resolve => {
      end = resolve
    })
  }
  return { read, begun: () => begun, end: (value: string) => end(value) }
}

t.test('a read that hangs is begun once, and its answer is for all who asked', async t => {
  const pending = new PendingReads()
  const hung = held()
  const asked = [pending.join('/mnt', hung.read), pending.join('/mnt', hung.read)]
  t.equal(hung.begun(), 1)
  hung.end('there')
  t.same(await Promise.all(asked), ['there', 'there'])
  const again = pending.join('/mnt', hung.read)
  t.equal(hung.begun(), 2, 'what has ended is read anew')
  hung.end('again')
  t.equal(await again, 'again')
})

t.test('two reads that hang let no third begin; it has its turn when one ends, even by failing', async t => {
  const pending = new PendingReads()
  const [first, second, third] = [held(), held(), held()]
  const one = pending.join('/1', first.read)
  const two = pending.join('/2', () => second.read().then(() => Promise.reject(new Error('stale file handle'))))
  const three = pending.join('/3', third.read)
  await new Promise(setImmediate)
  t.equal(third.begun(), 0)
  second.end('')
  await t.rejects(two, { message: 'stale file handle' })
  await new Promise(setImmediate)
  t.equal(third.begun(), 1)
  third.end('three')
  first.end('one')
  t.same(await Promise.all([one, three]), ['one', 'three'])
})

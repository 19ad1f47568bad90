import t from 'tap'
import { LibvirtConnectionError } from '../../libvirt/errors.js'
import { maximumStringBytes, NameCache, XdrReader, XdrWriter } from '../../libvirt/xdr.js'

const readerOf = (write: (writer: XdrWriter) => unknown) => {
  const writer = new XdrWriter()
  write(writer)
  return new XdrReader(writer.finish(), 'TEST')
}
const uuid = '01234567-89ab-cdef-0123-456789abcdef'

t.test('every type comes back as it was written', async t => {
  const cases: [string, (w: XdrWriter) => unknown, (r: XdrReader) => unknown, unknown][] = [
    ['negative int', w => w.i32(-2), r => r.i32(), -2],
    ['largest unsigned', w => w.u32(0xffff_ffff), r => r.u32(), 0xffff_ffff],
    ['bool', w => w.bool(true), r => r.bool(), true],
    ['double', w => w.f64(-0.5), r => r.f64(), -0.5],
    ['largest safe', w => w.u64(Number.MAX_SAFE_INTEGER), r => r.u64Exact(), Number.MAX_SAFE_INTEGER],
    ['first unsafe', w => w.u64(2n ** 53n), r => r.u64Exact(), 2n ** 53n],
    ['largest', w => w.u64(2n ** 64n - 1n), r => r.u64Exact(), 2n ** 64n - 1n],
    ['largest, rounded', w => w.u64(2n ** 64n - 1n), r => r.u64(), 2 ** 64],
    ['minus one', w => w.i64(-1), r => r.i64Exact(), -1],
    ['minus one, rounded', w => w.i64(-1), r => r.i64(), -1],
    ['smallest safe', w => w.i64(Number.MIN_SAFE_INTEGER), r => Number(r.i64Exact()), Number.MIN_SAFE_INTEGER],
    ['smallest', w => w.i64(-(2n ** 63n)), r => r.i64Exact(), -(2n ** 63n)],
    ['empty text', w => w.string(''), r => r.string(), ''],
    ['padded text', w => w.string('äö€'), r => r.string(), 'äö€'],
    ['text present', w => w.optionalString('x'), r => r.optionalString(), 'x'],
    ['text absent', w => w.optionalString(undefined), r => r.optionalString(), undefined],
    ['uuid', w => w.uuid(uuid.toUpperCase()), r => r.uuid(), uuid],
    ['bytes', w => w.opaque(Buffer.from([1, 2, 3])), r => [...r.opaque(3)], [1, 2, 3]],
    ['array', w => w.array([1, 2], (to, n) => to.i32(n)), r => r.array(2, 4, from => from.i32()), [1, 2]],
  ]
  for (const [name, write, read, expected] of cases) {
    const reader = readerOf(write)
    t.same(read(reader), expected, name)
    reader.finish()
  }
})

t.test('padding is zero and a multiple of four', async t => {
  const writer = new XdrWriter()
  writer.string('abcde')
  t.equal(writer.finish().toString('hex'), '000000056162636465000000')
})

t.test('a writer grows beyond its first buffer and keeps what was reserved', async t => {
  const writer = new XdrWriter(28)
  const text = 'x'.repeat(100_000)
  writer.string(text)
  t.equal(new XdrReader(writer.finish(), 'TEST', 28).string(), text)
})

t.test('malformed content is refused before anything is allocated for it', async t => {
  const bytes = (...words: number[]) => {
    const buffer = Buffer.alloc(words.length * 4)
    for (const [index, word] of words.entries()) buffer.writeUInt32BE(word, index * 4)
    return new XdrReader(buffer, 'TEST')
  }
  const cases: [string, (r: XdrReader) => unknown, number[], RegExp][] = [
    ['nothing left', r => r.i32(), [], /TEST is malformed: 4 bytes expected, 0 left/],
    ['half a 64-bit number', r => r.u64(), [1], /8 bytes expected, 4 left/],
    ['text longer than the message', r => r.string(), [100, 0], /100 bytes expected, 4 left/],
    ['text longer than allowed', r => r.string(), [0xffff_ffff], /at most 4194304/],
    ['more elements than fit', r => r.array(1000, 4, x => x.i32()), [3, 1, 2], /3 elements announced, at most 2/],
    ['more elements than allowed', r => r.array(1, 4, x => x.i32()), [2, 1, 2], /2 elements announced, at most 1/],
    ['a count of four billion', r => r.array(16384, 24, x => x.uuid()), [0xffff_ffff], /4294967295 elements/],
    ['opaque beyond its limit', r => r.opaque(2), [3, 0], /at most 2/],
    ['bytes left over', r => r.finish(), [1], /4 bytes left over/],
  ]
  for (const [name, read, words, message] of cases) {
    t.throws(() => read(bytes(...words)), { name: 'LibvirtConnectionError', kind: 'protocol', message }, name)
  }
  t.ok(bytes(1).malformed('x') instanceof LibvirtConnectionError)
})

t.test('a writer refuses what the protocol cannot carry', async t => {
  t.throws(() => new XdrWriter().string('x'.repeat(maximumStringBytes + 1)), RangeError)
  t.throws(() => new XdrWriter().uuid('not-a-uuid'), /is not a UUID/)
})

t.test('a name cache makes each name once, keeps names apart and does not grow without bound', async t => {
  const made: string[] = []
  const cache = new NameCache(name => {
    made.push(name)
    return name.toUpperCase()
  }, 2)
  const names = ['aa', 'bb', 'aa', 'bb', 'aaa', 'aaa']
  const reader = readerOf(writer => {
    for (const name of names) writer.string(name)
  })
  t.same(
    names.map(() => reader.cached(cache)),
    ['AA', 'BB', 'AA', 'BB', 'AAA', 'AAA'],
  )
  t.same(made, ['aa', 'bb', 'aaa', 'aaa'], 'the third name is beyond the limit and made anew')
  reader.finish()
})

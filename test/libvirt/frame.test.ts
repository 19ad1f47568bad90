import t from 'tap'
import { type Frame, FrameSplitter, FrameType, headerBytes, sealFrame } from '../../libvirt/frame.js'
import { Program } from '../../libvirt/procedures.js'

const message = (payload: string, serial = 1) =>
  sealFrame(Buffer.concat([Buffer.alloc(headerBytes), Buffer.from(payload)]), {
    program: Program.remote,
    procedure: 212,
    type: FrameType.reply,
    serial,
  })

const split = (chunks: Buffer[]) => {
  const splitter = new FrameSplitter()
  const frames: Frame[] = []
  for (const chunk of chunks) splitter.push(chunk, frame => frames.push(frame))
  return frames.map(({ serial, payload, procedure, program }) => ({
    serial,
    procedure,
    program,
    payload: payload.toString(),
  }))
}

const expected = (serial: number, payload: string) => ({ serial, procedure: 212, program: Program.remote, payload })

t.test('frames come out whole, however they were cut', async t => {
  const stream = Buffer.concat([message('one!', 1), message('', 2), message('three of them', 3)])
  const wanted = [expected(1, 'one!'), expected(2, ''), expected(3, 'three of them')]
  for (const size of [1, 3, 4, 27, 28, 29, 33, 64, stream.length]) {
    const chunks: Buffer[] = []
    for (let start = 0; start < stream.length; start += size) chunks.push(stream.subarray(start, start + size))
    t.same(split(chunks), wanted, `in chunks of ${size}`)
  }
})

t.test('a frame that never ends yields nothing', async t => {
  t.same(split([message('abcd').subarray(0, 30)]), [])
})

t.test('a length outside 28 to 33,554,436 is refused from its four bytes alone', async t => {
  for (const length of [0, 27, 33_554_437, 0x4854_5450, 0xffff_ffff]) {
    const bytes = Buffer.alloc(4)
    bytes.writeUInt32BE(length)
    t.throws(() => split([bytes]), { kind: 'protocol', message: new RegExp(`a frame of ${length} bytes`) }, `${length}`)
  }
  const longest = Buffer.alloc(4)
  longest.writeUInt32BE(33_554_436)
  t.same(split([longest]), [], 'the longest possible is waited for')
})

t.test('another protocol version is refused', async t => {
  const bytes = message('')
  bytes.writeUInt32BE(2, 8)
  t.throws(() => split([bytes]), { kind: 'protocol', message: /version 2/ })
})

t.test('a large frame in many small chunks takes linear time', async t => {
  const large = message('x'.repeat(8_000_000))
  const chunks: Buffer[] = []
  for (let start = 0; start < large.length; start += 1000) chunks.push(large.subarray(start, start + 1000))
  const startedMs = performance.now()
  t.equal(split(chunks)[0]?.payload.length, 8_000_000)
  t.ok(performance.now() - startedMs < 1000, '8,000 chunks; quadratic copying would move 32 GB')
})

import { LibvirtConnectionError } from './errors.js'

/** Longest string the protocol allows (REMOTE_STRING_MAX), in bytes. */
export const maximumStringBytes = 4 * 1024 * 1024
/** Longest frame the protocol allows, in bytes, its own length word included. */
export const maximumFrameBytes = 33_554_436

const twoTo32 = 4_294_967_296
/** High words from here on (as unsigned) make a 64-bit integer larger than Number.MAX_SAFE_INTEGER. */
const unsafeHighWord = 0x200000

/**
 * Reads XDR (big-endian, everything padded to 4 bytes) from part of a buffer. Nothing is allocated from a length or
 * count before it is known to fit in what is left; anything else throws a LibvirtConnectionError of kind `protocol`
 * that names `what` was being read.
 */
export class XdrReader {
  readonly what: string
  #buffer: Buffer
  #offset: number
  readonly #end: number

  constructor(buffer: Buffer, what: string, offset = 0, end = buffer.length) {
    this.#buffer = buffer
    this.what = what
    this.#offset = offset
    this.#end = end
  }

  get remainingBytes(): number {
    return this.#end - this.#offset
  }

  /** The error to throw for content that cannot be right. */
  malformed(why: string): LibvirtConnectionError {
    return new LibvirtConnectionError('protocol', `libvirt's message ${this.what} is malformed: ${why}`)
  }

  /** Claims `size` bytes and returns where they start. */
  #take(size: number): number {
    const start = this.#offset
    if (size > this.#end - start) {
      throw this.malformed(`${size} bytes expected, ${this.#end - start} left`)
    }
    this.#offset = start + size
    return start
  }

  i32(): number {
    return this.#buffer.readInt32BE(this.#take(4))
  }

  u32(): number {
    return this.#buffer.readUInt32BE(this.#take(4))
  }

  /** Any non-zero value is true, as in libvirt. */
  bool(): boolean {
    return this.i32() !== 0
  }

  /** Signed 64 bits, rounded to the nearest double beyond 2^53. */
  i64(): number {
    const start = this.#take(8)
    return this.#buffer.readInt32BE(start) * twoTo32 + this.#buffer.readUInt32BE(start + 4)
  }

  /** Unsigned 64 bits, rounded to the nearest double beyond 2^53. */
  u64(): number {
    const start = this.#take(8)
    return this.#buffer.readUInt32BE(start) * twoTo32 + this.#buffer.readUInt32BE(start + 4)
  }

  /** Signed 64 bits: a number when it is a safe integer, a bigint otherwise. */
  i64Exact(): number | bigint {
    const start = this.#take(8)
    const high = this.#buffer.readInt32BE(start)
    return high < unsafeHighWord && high >= -unsafeHighWord + 1
      ? high * twoTo32 + this.#buffer.readUInt32BE(start + 4)
      : this.#buffer.readBigInt64BE(start)
  }

  /** Unsigned 64 bits: a number when it is a safe integer, a bigint otherwise. */
  u64Exact(): number | bigint {
    const start = this.#take(8)
    const high = this.#buffer.readUInt32BE(start)
    return high < unsafeHighWord
      ? high * twoTo32 + this.#buffer.readUInt32BE(start + 4)
      : this.#buffer.readBigUInt64BE(start)
  }

  f64(): number {
    return this.#buffer.readDoubleBE(this.#take(8))
  }

  /** Variable-length bytes, copied out so that they do not keep the frame alive. */
  opaque(maximumBytes: number): Buffer {
    const size = this.#length(maximumBytes)
    const start = this.#take(size + padding(size))
    return Buffer.from(this.#buffer.subarray(start, start + size))
  }

  string(): string {
    const size = this.#length(maximumStringBytes)
    const start = this.#take(size + padding(size))
    return this.#buffer.toString('utf8', start, start + size)
  }

  optionalString(): string | undefined {
    return this.bool() ? this.string() : undefined
  }

  /** 16 bytes as lower-case text with dashes. */
  uuid(): string {
    const start = this.#take(16)
    const hex = this.#buffer.toString('hex', start, start + 16)
    return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20)}`
  }

  /**
   * An array's element count, refused when it is above `maximum` or when so many elements of at least `minimumBytes`
   * each cannot fit in what is left.
   */
  count(maximum: number, minimumBytes: number): number {
    const count = this.u32()
    if (count > maximum || count * minimumBytes > this.remainingBytes) {
      throw this.malformed(
        `${count} elements announced, at most ${Math.min(maximum, Math.floor(this.remainingBytes / minimumBytes))} possible`,
      )
    }
    return count
  }

  array<T>(maximum: number, minimumBytes: number, read: (reader: this) => T): T[] {
    const count = this.count(maximum, minimumBytes)
    const items: T[] = []
    for (let index = 0; index < count; index += 1) items.push(read(this))
    return items
  }

  /** Refuses bytes nobody has read: a sign that the message was understood wrongly. */
  finish(): void {
    if (this.remainingBytes > 0) throw this.malformed(`${this.remainingBytes} bytes left over`)
  }

  /**
   * Reads a string through a cache that maps its bytes to a ready value, so that names which repeat thousands of times
   * in one message are decoded once.
   */
  cached<T>(cache: NameCache<T>): T {
    const size = this.#length(maximumStringBytes)
    const start = this.#take(size + padding(size))
    return cache.lookup(this.#buffer, start, size)
  }

  #length(maximumBytes: number): number {
    const size = this.u32()
    if (size > maximumBytes) throw this.malformed(`a string of ${size} bytes, at most ${maximumBytes} are allowed`)
    return size
  }
}

/** Bytes after a value of `size` bytes up to the next multiple of four. */
function padding(size: number): number {
  return (4 - (size & 3)) & 3
}

interface CachedName<T> {
  bytes: Buffer
  value: T
}

/** Maps a name's bytes to a value made once per distinct name. Holds at most `limit` names; later ones are made anew. */
export class NameCache<T> {
  readonly #entries = new Map<number, CachedName<T>[]>()
  readonly #make: (name: string) => T
  readonly #limit: number
  #size = 0

  constructor(make: (name: string) => T, limit = 4096) {
    this.#make = make
    this.#limit = limit
  }

  lookup(buffer: Buffer, start: number, size: number): T {
    const end = start + size
    let hash = size
    for (let index = start; index < end; index += 1) hash = (Math.imul(hash, 31) + (buffer[index] ?? 0)) | 0
    const bucket = this.#entries.get(hash)
    if (bucket !== undefined) {
      for (const entry of bucket) if (sameBytes(entry.bytes, buffer, start, size)) return entry.value
    }
    const value = this.#make(buffer.toString('utf8', start, end))
    if (this.#size < this.#limit) {
      this.#size += 1
      const entry = { bytes: Buffer.from(buffer.subarray(start, end)), value }
      if (bucket === undefined) this.#entries.set(hash, [entry])
      else bucket.push(entry)
    }
    return value
  }
}

function sameBytes(bytes: Buffer, buffer: Buffer, start: number, size: number): boolean {
  if (bytes.length !== size) return false
  for (let index = 0; index < size; index += 1) if (bytes[index] !== buffer[start + index]) return false
  return true
}

/** Builds one XDR message in a growing buffer. `reserve` leaves room at the front for a header. */
export class XdrWriter {
  #buffer = Buffer.allocUnsafe(256)
  #offset: number

  constructor(reserve = 0) {
    this.#offset = reserve
  }

  get length(): number {
    return this.#offset
  }

  #grow(size: number): number {
    const start = this.#offset
    const needed = start + size
    if (needed > maximumFrameBytes) {
      throw new RangeError(`a libvirt message of more than ${maximumFrameBytes} bytes cannot be sent`)
    }
    if (needed > this.#buffer.length) {
      const larger = Buffer.allocUnsafe(Math.max(needed, this.#buffer.length * 2))
      this.#buffer.copy(larger, 0, 0, start)
      this.#buffer = larger
    }
    this.#offset = needed
    return start
  }

  i32(value: number): this {
    const start = this.#grow(4)
    this.#buffer.writeInt32BE(value, start)
    return this
  }

  u32(value: number): this {
    const start = this.#grow(4)
    this.#buffer.writeUInt32BE(value, start)
    return this
  }

  bool(value: boolean): this {
    return this.u32(value ? 1 : 0)
  }

  /** Takes a safe integer or a bigint. */
  u64(value: number | bigint): this {
    const start = this.#grow(8)
    this.#buffer.writeBigUInt64BE(BigInt(value), start)
    return this
  }

  i64(value: number | bigint): this {
    const start = this.#grow(8)
    this.#buffer.writeBigInt64BE(BigInt(value), start)
    return this
  }

  f64(value: number): this {
    const start = this.#grow(8)
    this.#buffer.writeDoubleBE(value, start)
    return this
  }

  string(text: string): this {
    const size = Buffer.byteLength(text)
    if (size > maximumStringBytes) {
      throw new RangeError(
        `a text of ${size} bytes cannot be sent to libvirt, at most ${maximumStringBytes} are allowed`,
      )
    }
    this.u32(size)
    const start = this.#grow(size + padding(size))
    this.#buffer.write(text, start)
    this.#buffer.fill(0, start + size, this.#offset)
    return this
  }

  optionalString(text: string | undefined): this {
    this.bool(text !== undefined)
    return text === undefined ? this : this.string(text)
  }

  opaque(bytes: Uint8Array): this {
    this.u32(bytes.length)
    const start = this.#grow(bytes.length + padding(bytes.length))
    this.#buffer.set(bytes, start)
    this.#buffer.fill(0, start + bytes.length, this.#offset)
    return this
  }

  /** Takes a UUID with or without dashes. */
  uuid(text: string): this {
    const hex = text.replaceAll('-', '')
    if (!/^[0-9a-fA-F]{32}$/.test(hex)) throw new RangeError(`"${text}" is not a UUID`)
    const start = this.#grow(16)
    this.#buffer.write(hex, start, 'hex')
    return this
  }

  array<T>(items: readonly T[], write: (writer: this, item: T) => void): this {
    this.u32(items.length)
    for (const item of items) write(this, item)
    return this
  }

  /** What has been written. Shares memory with the writer, which must not be used afterwards. */
  finish(): Buffer {
    return this.#buffer.subarray(0, this.#offset)
  }
}

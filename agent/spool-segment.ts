import type { FileHandle } from 'node:fs/promises'

/** First bytes of every segment file: name and version of the format. */
export const segmentHeader = Buffer.from('sensu-kvm-spool1')

/** Longer records are neither written nor believed when read. */
export const maximumRecordBytes = 32 * 1024 * 1024

const frameBytes = 8
const chunkBytes = 256 * 1024
const crcTable = Uint32Array.from({ length: 256 }, (_, index) => {
  let value = index
  for (let bit = 0; bit < 8; bit++) value = value & 1 ? (value >>> 1) ^ 0xedb88320 : value >>> 1
  return value
})

/** A record as it was found in a file. */
export interface FoundRecord {
  payload: Buffer
  /** Offset of the first byte behind it. */
  end: number
}

/** A record as it stands in a segment: length and CRC-32 of the payload (32 bits each, little-endian), payload. */
export function encodeRecord(payload: Buffer): Buffer {
  const record = Buffer.allocUnsafe(frameBytes + payload.length)
  record.writeUInt32LE(payload.length, 0)
  record.writeUInt32LE(crc32(payload), 4)
  payload.copy(record, frameBytes)
  return record
}

/**
 * The next records from an offset, about 256 KiB or one of them, never beyond `until`. None at the end, and none when what follows is torn or
 * damaged: then `damaged` says so. Memory: what is returned, at most one chunk and one record.
 */
export async function readRecords(
  file: FileHandle,
  from: number,
  until: number,
): Promise<{ records: FoundRecord[]; damaged: boolean }> {
  const chunk = await readBytes(file, from, Math.min(chunkBytes, until - from))
  const records = recordsIn(chunk, from)
  if (records.length > 0) return { records, damaged: false }
  if (chunk.length === 0) return { records, damaged: from < until }
  if (chunk.length < frameBytes) return { records, damaged: true }
  const wanted = frameBytes + chunk.readUInt32LE(0)
  const believable = wanted > chunk.length && wanted <= maximumRecordBytes + frameBytes && from + wanted <= until
  const large = believable ? recordsIn(await readBytes(file, from, wanted), from) : []
  return { records: large, damaged: large.length === 0 }
}

/** Whether a file begins as a segment does. */
export async function hasSegmentHeader(file: FileHandle): Promise<boolean> {
  return (await readBytes(file, 0, segmentHeader.length)).equals(segmentHeader)
}

/** CRC-32 as in zip and Ethernet. */
export function crc32(data: Buffer): number {
  let crc = 0xffffffff
  for (const byte of data) crc = (crc >>> 8) ^ (crcTable[(crc ^ byte) & 0xff] ?? 0)
  return (crc ^ 0xffffffff) >>> 0
}

/** The whole, valid records at the beginning of a chunk; copies, so that the chunk can go. */
function recordsIn(chunk: Buffer, offset: number): FoundRecord[] {
  const records: FoundRecord[] = []
  let at = 0
  while (at + frameBytes <= chunk.length) {
    const end = at + frameBytes + chunk.readUInt32LE(at)
    if (end > chunk.length) break
    const payload = chunk.subarray(at + frameBytes, end)
    if (crc32(payload) !== chunk.readUInt32LE(at + 4)) break
    records.push({ payload: Buffer.from(payload), end: offset + end })
    at = end
  }
  return records
}

async function readBytes(file: FileHandle, from: number, length: number): Promise<Buffer> {
  const buffer = Buffer.allocUnsafe(Math.max(0, length))
  let filled = 0
  while (filled < buffer.length) {
    const { bytesRead } = await file.read(buffer, filled, buffer.length - filled, from + filled)
    if (bytesRead === 0) break
    filled += bytesRead
  }
  return buffer.subarray(0, filled)
}

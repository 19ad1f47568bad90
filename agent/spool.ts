import { constants, lstatSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { type FileHandle, open, rm, truncate } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { ownerFile, prepareDirectory, SpoolError, takeOwnership, tidyOwnership } from './spool-owner.js'
import {
  crc32,
  encodeRecord,
  hasSegmentHeader,
  maximumRecordBytes,
  readRecords,
  segmentHeader,
} from './spool-segment.js'

export interface SpoolOptions {
  /** Made when it is missing. Belongs to this spool alone. */
  directory: string
  /** Bound of the files together. Default: 64 MiB. */
  maxBytes?: number
  /** Bound of what waits in memory to be written; more than a moment's worth only when the disk refuses it. Default: 16 MiB. */
  maxMemoryBytes?: number
  /** A record that is not acknowledged by then is written. Default: 100 ms. */
  flushDelayMs?: number
  /** Written data is forced to the disk this often. Default: 1000 ms. */
  syncIntervalMs?: number
  /** The oldest records are gone, because a bound was reached or they were too large. */
  onDropped?: (records: number) => void
  /** The disk does not take or give records; told once until it does again. Writing is tried again every second. */
  onDiskTrouble?: (error: unknown) => void
}

/** What was found when a spool was opened. */
export interface SpoolReport {
  /** Records waiting from before. */
  recovered: number
  /** Files with a torn or damaged end, such as a killed writer leaves; the records before it are kept. */
  damaged: number
  /** Entries of the directory that are not the spool's; they are left alone. */
  foreign: number
}

/** A record that was taken for delivery. */
export interface SpooledRecord {
  readonly payload: Buffer
}

interface Entry extends SpooledRecord {
  acknowledged: boolean
  taken: boolean
  /** Where it is on disk, once it is. */
  segment?: Segment
  end?: number
}

interface Segment {
  readonly id: number
  readonly path: string
  /** Behind the last good record. */
  end: number
  records: number
  taken: number
  /** Everything before this offset is acknowledged. */
  acknowledgedEnd: number
}

const segmentName = /^0\d{11}\.segment$/
const positionFile = 'position'
const positionText = /^(\d{12}) (\d{15}) ([0-9a-f]{8})\n/
const retryDelayMs = 1000
/** So much is written without delay. */
const promptBytes = 1024 * 1024

/**
 * A queue of records on disk, for one process at a time: append, take in order, acknowledge. What is acknowledged is removed; what is not comes
 * again, in order, when the spool is opened anew.
 *
 * A record is in memory first, and is written when it is not acknowledged within 100 ms: while deliveries succeed, the disk is not touched. So a
 * process killed with SIGKILL loses at most what it took over in its last 100 ms (and flush() leaves nothing), and may send again what was
 * acknowledged in its last 100 ms. The system's crash can cost a second more: data is forced to disk (fdatasync) once a second, at the end of
 * each file and on closing.
 *
 * Files: `NNNNNNNNNNNN.segment` (a sixteenth of the bound each, never appended to by a later process), `position` (where the acknowledged end),
 * `owner`. Beyond the bound the oldest file goes as a whole, with all records in it. Memory: what waits to be written, one chunk that was
 * read ahead, and what is taken and not acknowledged.
 */
export class Spool {
  readonly report: SpoolReport = { recovered: 0, damaged: 0, foreign: 0 }
  readonly #options: Required<SpoolOptions>
  readonly #segmentBytes: number
  readonly #segments: Segment[] = []
  #giveUpOwnership: () => void = () => {}
  #nextId = 1
  /** The newest segment while it is written to. */
  #active: { segment: Segment; file: FileHandle } | undefined
  /** Not on disk yet; newer than everything that is. The first `#pendingTaken` are taken. */
  #pending: Entry[] = []
  #pendingTaken = 0
  #pendingBytes = 0
  /** Taken and, but for gaps, not acknowledged; in order. */
  #taken: Entry[] = []
  #readAhead: Entry[] = []
  /** Where reading goes on; undefined when everything on disk was read. */
  #cursor: { segment: Segment; offset: number } | undefined
  #reading: { segment: Segment; file: FileHandle } | undefined
  #positionDirty = false
  /** How many of the oldest pending records are being written. */
  #writing = 0
  #flushQueued = false
  #flushTimer: NodeJS.Timeout | undefined
  #syncTimer: NodeJS.Timeout | undefined
  #syncing: Promise<void> | undefined
  #trouble = false
  #closed = false
  /** Everything that touches files happens one after the other. */
  #chain: Promise<unknown> = Promise.resolve()

  /** Throws SpoolError when the directory cannot be used, or another process uses it. */
  static async open(options: SpoolOptions): Promise<Spool> {
    const spool = new Spool(options)
    prepareDirectory(options.directory)
    try {
      spool.#giveUpOwnership = takeOwnership(options.directory)
      await spool.#recover()
      return spool
    } catch (cause) {
      spool.#giveUpOwnership()
      if (cause instanceof SpoolError) throw cause
      throw new SpoolError('unusable', `spool directory ${options.directory} cannot be used: ${String(cause)}`, {
        cause,
      })
    }
  }

  private constructor(options: SpoolOptions) {
    this.#options = {
      maxBytes: 64 * 1024 * 1024,
      maxMemoryBytes: 16 * 1024 * 1024,
      flushDelayMs: 100,
      syncIntervalMs: 1000,
      onDropped: () => {},
      onDiskTrouble: () => {},
      ...options,
    }
    this.#segmentBytes = Math.max(4096, Math.floor(this.#options.maxBytes / 16))
  }

  /** Records that nobody has taken yet. */
  get waiting(): number {
    const onDisk = this.#segments.reduce((sum, segment) => sum + segment.records - segment.taken, 0)
    return onDisk + this.#pending.length - this.#pendingTaken
  }

  /** Size of the files, in bytes. */
  get diskBytes(): number {
    return this.#segments.reduce((sum, segment) => sum + segment.end, 0)
  }

  /** Takes a record over; never throws. */
  append(payload: Buffer): void {
    const largest = Math.min(maximumRecordBytes, this.#options.maxBytes - 2 * segmentHeader.length)
    if (this.#closed || payload.length > largest) {
      this.#options.onDropped(1)
      return
    }
    this.#pending.push({ payload, acknowledged: false, taken: false })
    this.#pendingBytes += payload.length
    this.#boundMemory()
    if (this.#trouble) this.#scheduleFlush(retryDelayMs)
    else if (this.#pendingBytes < promptBytes) this.#scheduleFlush(this.#options.flushDelayMs)
    else if (!this.#flushQueued) void this.flush()
  }

  /**
   * The oldest records not taken yet, at most so many and about so many bytes, but one at least; none when nothing waits. Each is to be
   * acknowledged when it is safe elsewhere. Never rejects.
   */
  take(count: number, bytes = Number.POSITIVE_INFINITY): Promise<readonly SpooledRecord[]> {
    return this.#serially(async () => {
      if (this.#closed) return []
      if (this.#readAhead.length === 0 && this.#cursor) await this.#readOn()
      const entries = this.#readAhead.splice(0, fitting(this.#readAhead, count, bytes))
      for (const { segment } of entries) if (segment) segment.taken++
      if (entries.length === 0 && !this.#cursor) {
        const untaken = this.#pending.slice(this.#pendingTaken, this.#pendingTaken + count)
        entries.push(...untaken.slice(0, fitting(untaken, count, bytes)))
        this.#pendingTaken += entries.length
      }
      for (const entry of entries) entry.taken = true
      this.#taken.push(...entries)
      return entries
    })
  }

  /** The record is safe elsewhere and is removed. In any order. False when that was known already. */
  acknowledge(record: SpooledRecord): boolean {
    const entry = this.#taken.find(taken => taken === record)
    if (!entry || entry.acknowledged) return false
    entry.acknowledged = true
    let done = 0
    while (this.#taken[done]?.acknowledged) done++
    for (const gone of this.#taken.splice(0, done)) this.#passed(gone)
    this.#scheduleFlush(this.#options.flushDelayMs)
    return true
  }

  /** The entry and all before it are acknowledged. */
  #passed({ segment, end }: Entry): void {
    if (!segment || end === undefined) return
    segment.acknowledgedEnd = end
    this.#positionDirty = true
  }

  /** Writes what waits in memory. Afterwards everything is in files, unless the disk refuses. */
  flush(): Promise<void> {
    this.#flushQueued = true
    return this.#serially(() => this.#write())
  }

  /** Writes everything, forces it to the disk and gives up the ownership. Returns how many records are lost because the disk refuses them. */
  async close(): Promise<number> {
    if (this.#closed) return 0
    this.#closed = true
    clearTimeout(this.#flushTimer)
    clearTimeout(this.#syncTimer)
    await this.flush()
    await this.#serially(async () => {
      await this.#closeActive().catch(this.#options.onDiskTrouble)
      await this.#stopReading()
      this.#giveUpOwnership()
    })
    return this.#pending.length
  }

  #serially<T>(action: () => Promise<T>): Promise<T> {
    const result = this.#chain.then(action)
    this.#chain = result.catch(() => {})
    return result
  }

  #scheduleFlush(delayMs: number): void {
    if (this.#flushTimer || this.#closed) return
    this.#flushTimer = setTimeout(() => {
      this.#flushTimer = undefined
      void this.flush()
    }, delayMs)
    this.#flushTimer.unref()
  }

  /** Without this a disk that refuses would let memory grow. */
  #boundMemory(): void {
    let dropped = 0
    const first = Math.max(this.#pendingTaken, this.#writing)
    while (this.#pendingBytes > this.#options.maxMemoryBytes && this.#pending.length > first + 1) {
      const [oldest] = this.#pending.splice(first, 1)
      this.#pendingBytes -= oldest?.payload.length ?? 0
      dropped++
    }
    if (dropped > 0) this.#options.onDropped(dropped)
  }

  async #write(): Promise<void> {
    this.#flushQueued = false
    this.#setPending(this.#pending.filter(entry => !entry.acknowledged))
    try {
      await this.#removeAcknowledged()
      while (this.#pending.length > 0) await this.#writeBatch()
      await this.#writePosition()
      this.#trouble = false
    } catch (error) {
      this.#tellTrouble(error)
      this.#scheduleFlush(retryDelayMs)
    }
  }

  #tellTrouble(error: unknown): void {
    if (!this.#trouble) this.#options.onDiskTrouble(error)
    this.#trouble = true
  }

  #setPending(entries: Entry[]): void {
    this.#pending = entries
    this.#pendingTaken = entries.filter(entry => entry.taken).length
    this.#pendingBytes = entries.reduce((sum, entry) => sum + entry.payload.length, 0)
  }

  /** Writes so many of the oldest pending records as fit into one segment, with one call. */
  async #writeBatch(): Promise<void> {
    const encoded: Buffer[] = []
    let bytes = 0
    for (const { payload } of this.#pending) {
      if (encoded.length > 0 && bytes + payload.length > this.#segmentBytes) break
      const record = encodeRecord(payload)
      encoded.push(record)
      bytes += record.length
    }
    this.#writing = encoded.length
    try {
      this.#placed(await this.#writeRecords(Buffer.concat(encoded)), encoded)
    } finally {
      this.#writing = 0
    }
    this.#scheduleSync()
  }

  async #writeRecords(data: Buffer): Promise<Segment> {
    if (this.#active && this.#active.segment.end + data.length > this.#segmentBytes) await this.#closeActive()
    await this.#makeRoom(data.length)
    const { segment, file } = this.#active ?? (await this.#openSegment())
    try {
      await writeFully(file, data, segment.end)
    } catch (error) {
      await file.truncate(segment.end).catch(() => {})
      throw error
    }
    return segment
  }

  /** The oldest pending records are now in the segment. */
  #placed(segment: Segment, encoded: readonly Buffer[]): void {
    const entries = this.#pending.slice(0, encoded.length)
    this.#setPending(this.#pending.slice(encoded.length))
    for (const [index, entry] of entries.entries()) {
      const start = segment.end
      segment.end += encoded[index]?.length ?? 0
      segment.records++
      entry.segment = segment
      entry.end = segment.end
      if (entry.taken) segment.taken++
      else this.#cursor ??= { segment, offset: start }
      // acknowledged while it was being written
      if (entry.acknowledged && !this.#taken.includes(entry)) this.#passed(entry)
    }
  }

  async #openSegment(): Promise<{ segment: Segment; file: FileHandle }> {
    const id = this.#nextId++
    const path = join(this.#options.directory, `${String(id).padStart(12, '0')}.segment`)
    const { O_WRONLY, O_CREAT, O_EXCL, O_NOFOLLOW } = constants
    const file = await open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0o600)
    try {
      await writeFully(file, segmentHeader, 0)
      await this.#syncDirectory()
    } catch (error) {
      await file.close()
      await rm(path, { force: true })
      throw error
    }
    const end = segmentHeader.length
    const segment: Segment = { id, path, end, records: 0, taken: 0, acknowledgedEnd: end }
    this.#segments.push(segment)
    this.#active = { segment, file }
    return this.#active
  }

  async #syncDirectory(): Promise<void> {
    const directory = await open(this.#options.directory, constants.O_RDONLY | constants.O_DIRECTORY)
    await directory.sync().finally(() => directory.close())
  }

  async #closeActive(): Promise<void> {
    const { file } = this.#active ?? {}
    this.#active = undefined
    if (!file) return
    await this.#syncing
    await file.datasync().finally(() => file.close())
  }

  /** Beside the other work: it can take long, and nobody waits for it. */
  #scheduleSync(): void {
    if (this.#syncTimer || this.#closed) return
    this.#syncTimer = setTimeout(() => {
      this.#syncTimer = undefined
      const { file } = this.#active ?? {}
      this.#syncing = (this.#syncing ?? Promise.resolve())
        .then(() => file?.datasync())
        .catch(error => this.#tellTrouble(error))
    }, this.#options.syncIntervalMs)
    this.#syncTimer.unref()
  }

  async #makeRoom(bytes: number): Promise<void> {
    let dropped = 0
    while (this.#segments[0] && this.diskBytes + bytes + segmentHeader.length > this.#options.maxBytes) {
      const [oldest] = this.#segments
      dropped += oldest.records - oldest.taken
      await this.#remove(oldest)
    }
    if (dropped > 0) this.#options.onDropped(dropped)
  }

  async #remove(segment: Segment): Promise<void> {
    if (this.#active?.segment === segment) await this.#closeActive()
    await this.#stopReading(segment)
    this.#readAhead = this.#readAhead.filter(entry => entry.segment !== segment)
    const next = this.#segments[this.#segments.indexOf(segment) + 1]
    if (this.#cursor?.segment === segment) this.#cursor = next && { segment: next, offset: segmentHeader.length }
    await rm(segment.path, { force: true })
    this.#segments.splice(this.#segments.indexOf(segment), 1)
  }

  async #removeAcknowledged(): Promise<void> {
    for (;;) {
      const [oldest] = this.#segments
      if (!oldest || oldest.acknowledgedEnd < oldest.end) return
      await this.#remove(oldest)
    }
  }

  /** Notes how far the oldest file is acknowledged. */
  async #writePosition(): Promise<void> {
    if (!this.#positionDirty) return
    this.#positionDirty = false
    const [oldest] = this.#segments
    const path = join(this.#options.directory, positionFile)
    if (!oldest) return rm(path, { force: true })
    const { O_WRONLY, O_CREAT, O_NOFOLLOW } = constants
    const file = await open(path, O_WRONLY | O_CREAT | O_NOFOLLOW, 0o600)
    // one small write in place: a kill cannot tear it, and what a crash of the system tears is not believed
    await writeFully(file, encodePosition(oldest), 0).finally(() => file.close())
  }

  /** Reads the next chunk of the oldest segment that is not read yet; nothing when the disk does not let us at the moment. */
  async #readOn(): Promise<void> {
    while (this.#cursor && this.#readAhead.length === 0) {
      const { segment, offset } = this.#cursor
      const found = await this.#read(segment, offset)
      if (!found) return
      for (const { payload, end } of found.records) {
        this.#readAhead.push({ payload, acknowledged: false, taken: false, segment, end })
      }
      const end = found.records.at(-1)?.end ?? offset
      if (found.damaged) this.#giveUpRest(segment, offset)
      if (end < segment.end) this.#cursor = { segment, offset: end }
      else await this.#nextSegment(segment)
    }
  }

  async #read(segment: Segment, offset: number): Promise<Awaited<ReturnType<typeof readRecords>> | undefined> {
    try {
      if (this.#reading?.segment !== segment) {
        await this.#stopReading()
        this.#reading = { segment, file: await openForReading(segment.path) }
      }
      return await readRecords(this.#reading.file, offset, segment.end)
    } catch (error) {
      this.#tellTrouble(error)
      const gone = error instanceof Error && 'code' in error && /^(ENOENT|ELOOP|EIO)$/.test(String(error.code))
      return gone ? { records: [], damaged: true } : undefined
    }
  }

  async #nextSegment(segment: Segment): Promise<void> {
    const next = this.#segments[this.#segments.indexOf(segment) + 1]
    await this.#stopReading()
    this.#cursor = next && { segment: next, offset: segmentHeader.length }
  }

  async #stopReading(segment = this.#reading?.segment): Promise<void> {
    if (!this.#reading || this.#reading.segment !== segment) return
    const { file } = this.#reading
    this.#reading = undefined
    await file.close()
  }

  /** What was good when it was written or recovered cannot be read any more. */
  #giveUpRest(segment: Segment, offset: number): void {
    const lost = segment.records - segment.taken
    segment.records = segment.taken
    segment.end = offset
    if (lost > 0) this.#options.onDropped(lost)
  }

  /** Without promises as far as nothing was left behind: those of `fs` take half a MiB, which an agent is spared whose results all arrive. */
  async #recover(): Promise<void> {
    const { directory } = this.#options
    const positionPath = join(directory, positionFile)
    const position = readPosition(positionPath)
    if (position.id === 0) rmSync(positionPath, { force: true })
    // also when that file is gone: later ones must not pass for acknowledged
    this.#nextId = position.id + 1
    for (const name of readdirSync(directory).sort()) {
      const path = join(directory, name)
      if (segmentName.test(name) && isOwnFile(path)) await this.#recoverSegment(path, position)
      else if (name !== positionFile && name !== ownerFile && !tidyOwnership(path)) this.report.foreign++
    }
    this.report.recovered = this.waiting
    await this.#makeRoom(0)
  }

  async #recoverSegment(path: string, position: { id: number; end: number }): Promise<void> {
    const id = Number.parseInt(basename(path), 10)
    this.#nextId = Math.max(this.#nextId, id + 1)
    const start = segmentHeader.length
    const segment: Segment = { id, path, end: start, records: 0, taken: 0, acknowledgedEnd: start }
    if (id >= position.id) {
      const state = await scan(segment, id === position.id ? position.end : start)
      if (state === 'foreign') {
        this.report.foreign++
        return
      }
      if (state === 'damaged') {
        this.report.damaged++
        await truncate(path, segment.end)
      }
    }
    if (segment.acknowledgedEnd >= segment.end) return rm(path, { force: true })
    this.#segments.push(segment)
    this.#cursor ??= { segment, offset: segment.acknowledgedEnd }
  }
}

/** How many of the first entries are at most so many and so many bytes; one at least. */
function fitting(entries: readonly Entry[], count: number, bytes: number): number {
  let sum = 0
  const beyond = entries.findIndex(({ payload }, index) => {
    sum += payload.length
    return index > 0 && (index >= count || sum > bytes)
  })
  return beyond === -1 ? entries.length : beyond
}

/** Counts the records of a file that was left behind. `damaged`: it does not end with a whole one. */
async function scan(segment: Segment, acknowledgedEnd: number): Promise<'whole' | 'damaged' | 'foreign'> {
  const file = await openForReading(segment.path)
  try {
    const { size } = await file.stat()
    if (size < segmentHeader.length) return 'damaged'
    if (!(await hasSegmentHeader(file))) return 'foreign'
    for (;;) {
      const { records, damaged } = await readRecords(file, segment.end, size)
      for (const { end } of records) {
        segment.records++
        segment.end = end
        if (end > acknowledgedEnd) continue
        segment.taken++
        segment.acknowledgedEnd = end
      }
      if (records.length === 0) return damaged ? 'damaged' : 'whole'
    }
  } finally {
    await file.close()
  }
}

function isOwnFile(path: string): boolean {
  const status = lstatSync(path)
  return status.isFile() && status.uid === process.getuid?.() && status.nlink === 1
}

function openForReading(path: string): Promise<FileHandle> {
  return open(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK)
}

async function writeFully(file: FileHandle, data: Buffer, position: number): Promise<void> {
  let written = 0
  while (written < data.length) {
    const { bytesWritten } = await file.write(data, written, data.length - written, position + written)
    written += bytesWritten
  }
}

function encodePosition({ id, acknowledgedEnd }: Segment): Buffer {
  const text = `${String(id).padStart(12, '0')} ${String(acknowledgedEnd).padStart(15, '0')}`
  return Buffer.from(`${text} ${crc32(Buffer.from(text)).toString(16).padStart(8, '0')}\n`)
}

/** Where the acknowledged records end. Without a believable answer: before everything, so that records come twice rather than never. */
function readPosition(path: string): { id: number; end: number } {
  const nowhere = { id: 0, end: 0 }
  try {
    if (!isOwnFile(path)) return nowhere
    const [, id = '', end = '', sum = ''] = positionText.exec(readFileSync(path, 'latin1')) ?? []
    const intact = Number.parseInt(sum, 16) === crc32(Buffer.from(`${id} ${end}`))
    return intact ? { id: Number(id), end: Number(end) } : nowhere
  } catch {
    return nowhere
  }
}

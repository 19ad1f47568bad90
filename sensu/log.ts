import { closeSync, openSync, writeSync } from 'node:fs'
import type { Writable } from 'node:stream'
import { stringifyJson } from './json.js'
import { LogRedaction } from './redact.js'
import type { JsonObject, LogEntry, LogLevel } from './types.js'

/** All levels in rising order. */
export const logLevels: readonly LogLevel[] = ['debug', 'info', 'warn', 'error', 'fatal']

/** Lines waiting for a slow reader of the stream; beyond this many bytes lines are dropped and counted. */
const maxWaitingBytes = 8 * 1024 * 1024

export type LoggerOptions = {
  /** lowest level that is written, default info */
  level?: LogLevel
  /** file to append to; without one the lines go to the stream */
  file?: string | undefined
  /** default standard output */
  stream?: Writable
}

/**
 * Writes the log lines of Sensu 1.9: one JSON object a line with `timestamp` (local time, microseconds, numeric zone),
 * `level`, `message`, then the data, whose keys may overwrite the first three. A log file that cannot be opened gives
 * one error line, and logging goes on to the stream. Failing to write (a full disk) is ignored.
 */
export class Logger {
  #level: LogLevel
  #levelBeforeDebug: LogLevel = 'info'
  readonly #file: string | undefined
  readonly #stream: Writable
  readonly #clock = new MicrosecondClock()
  #redaction = new LogRedaction()
  #fd: number | undefined
  #dropped = 0

  constructor(options: LoggerOptions = {}) {
    this.#level = options.level ?? 'info'
    this.#file = options.file
    this.#stream = options.stream ?? process.stdout
    // Without a listener a vanished reader (EPIPE) would end the process.
    this.#stream.on('error', () => {})
    this.#open()
  }

  get level(): LogLevel {
    return this.#level
  }

  /** How many lines were dropped because the stream's reader was too slow. */
  get dropped(): number {
    return this.#dropped
  }

  debug(message: string, data?: JsonObject): void {
    this.#write('debug', message, data)
  }

  info(message: string, data?: JsonObject): void {
    this.#write('info', message, data)
  }

  warn(message: string, data?: JsonObject): void {
    this.#write('warn', message, data)
  }

  error(message: string, data?: JsonObject): void {
    this.#write('error', message, data)
  }

  fatal(message: string, data?: JsonObject): void {
    this.#write('fatal', message, data)
  }

  /** Writes an entry made elsewhere, such as the notices of the settings loader. */
  log(entry: LogEntry): void {
    this.#write(entry.level, entry.message, entry.data)
  }

  /** Hides members of these names in the data of every line, besides the default ones, which are always hidden. */
  hide(names: readonly string[]): void {
    this.#redaction = new LogRedaction(names)
  }

  /** Whether lines of this level are written: ask before building expensive data. */
  enabled(level: LogLevel): boolean {
    return logLevels.indexOf(level) >= logLevels.indexOf(this.#level)
  }

  /** Debug on and off (signal TRAP): back to the level before, or to info when debug was the first one. */
  toggleDebug(): void {
    if (this.#level === 'debug') {
      this.#level = this.#levelBeforeDebug
    } else {
      this.#levelBeforeDebug = this.#level
      this.#level = 'debug'
    }
  }

  /** Opens the log file anew after rotation (signal USR2). When that fails the old file stays in use. */
  reopen(): void {
    const old = this.#fd
    if (this.#open() && old !== undefined) closeSync(old)
  }

  /** Closes the log file; later lines go to the stream. */
  close(): void {
    if (this.#fd !== undefined) closeSync(this.#fd)
    this.#fd = undefined
  }

  #open(): boolean {
    if (this.#file === undefined) return false
    try {
      this.#fd = openSync(this.#file, 'a')
      return true
    } catch {
      this.error('log file is not writable', { log_file: this.#file })
      return false
    }
  }

  #write(level: LogLevel, message: string, data: JsonObject = {}): void {
    if (!this.enabled(level)) return
    const timestamp = formatTimestamp(this.#clock.now())
    const line = `${stringifyJson({ timestamp, level, message, ...this.#redaction.apply(data) })}\n`
    if (this.#fd !== undefined) {
      appendIgnoringErrors(this.#fd, line)
    } else if (this.#stream.writableLength < maxWaitingBytes) {
      this.#stream.write(line)
    } else {
      this.#dropped++
    }
  }
}

/** Synchronous: cheaper than a task per line, in order, and nothing is lost when the process dies. */
function appendIgnoringErrors(fd: number, line: string): void {
  const bytes = Buffer.from(line)
  try {
    for (let written = 0; written < bytes.length; ) written += writeSync(fd, bytes, written)
  } catch {
    // A full disk must not stop the monitoring, and there is nowhere to tell.
  }
}

/** `2026-11-22T03:04:25.378836+0000` in local time, from microseconds since the epoch. */
export function formatTimestamp(microseconds: number): string {
  const date = new Date(Math.floor(microseconds / 1000))
  const offset = -date.getTimezoneOffset()
  const local = dateAndTime(new Date(date.getTime() + offset * 60_000))
  const fraction = String(Math.floor(microseconds) % 1_000_000).padStart(6, '0')
  const minutes = Math.abs(offset)
  const zone = `${twoDigits(Math.floor(minutes / 60))}${twoDigits(minutes % 60)}`
  return `${local}.${fraction}${offset < 0 ? '-' : '+'}${zone}`
}

/** In UTC. Without toISOString: its first use takes 0.4 MiB for good. */
function dateAndTime(date: Date): string {
  const day = [date.getUTCFullYear(), date.getUTCMonth() + 1, date.getUTCDate()].map(twoDigits).join('-')
  const time = [date.getUTCHours(), date.getUTCMinutes(), date.getUTCSeconds()].map(twoDigits).join(':')
  return `${day}T${time}`
}

function twoDigits(value: number): string {
  return String(value).padStart(2, '0')
}

/** Microseconds since the epoch: the monotonic clock, set again whenever the system's clock moves away from it. */
class MicrosecondClock {
  #offset = Date.now() - performance.now()

  now(): number {
    const wall = Date.now()
    // Date.now() cuts off less than 1 ms.
    const ahead = wall - (performance.now() + this.#offset)
    if (ahead > 1 || ahead < -2) this.#offset += ahead
    return Math.round((performance.now() + this.#offset) * 1000)
  }
}

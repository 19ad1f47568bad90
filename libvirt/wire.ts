import type { Duplex, Readable, Writable } from 'node:stream'

/** The two directions to a daemon, whatever carries them. */
export interface Wire {
  readable: Readable
  writable: Writable
  /** Ends it at once; nothing more is delivered. */
  destroy(): void
  /** Keeps the process alive while something is expected. */
  ref(): void
  /** Lets the process end although the wire is open. */
  unref(): void
  /** What the carrier itself had to say about its end (ssh's error output). */
  explain?(): string | undefined
}

function callIfPresent(target: object, method: 'ref' | 'unref'): void {
  const callable: unknown = Reflect.get(target, method)
  if (typeof callable === 'function') callable.call(target)
}

/** A socket (or any duplex stream) as a wire. */
export function wireOf(stream: Duplex): Wire {
  return {
    readable: stream,
    writable: stream,
    destroy: () => stream.destroy(),
    ref: () => callIfPresent(stream, 'ref'),
    unref: () => callIfPresent(stream, 'unref'),
  }
}

import type { Socket } from 'node:net'

/** A peer that does not close its side gets so long to read the answer. */
const LINGER_MS = 1000

/**
 * Sends the last bytes and ends the connection. What the peer still sends is read and dropped meanwhile: closing at
 * once with unread input would discard the answer.
 */
export function endSoon(stream: Socket, text: string | Buffer): void {
  if (!stream.writable) {
    stream.destroy()
    return
  }
  const timer = setTimeout(() => stream.destroy(), LINGER_MS)
  stream.once('close', () => clearTimeout(timer))
  stream.end(text)
}

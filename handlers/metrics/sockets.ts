import { createSocket } from 'node:dgram'
import { connect } from 'node:net'

/** A port that takes lines. */
export interface Port {
  /** An IP address: a name would be looked up by a thread that may hang. */
  readonly host: string
  readonly port: number
}

/** What a store may say about lines it refuses; more is not kept. */
const longestReply = 64 * 1024
/** Long enough for a store to say that it refuses something, after it has got everything. */
const farewellMs = 2000

/**
 * Writes text to a TCP port, ends, and resolves with what the other end said until it ended as well: a store of metrics confirms nothing and
 * complains at most. One that keeps its end open is waited for two seconds. Rejects when the connection fails or the signal is aborted.
 */
export function sendTcp({ host, port }: Port, texts: readonly string[], signal: AbortSignal): Promise<string> {
  return new Promise((resolve, reject) => {
    signal.throwIfAborted()
    const socket = connect({ host, port })
    let reply = ''
    let farewell: NodeJS.Timeout | undefined
    const settle = (action: () => void) => {
      clearTimeout(farewell)
      signal.removeEventListener('abort', abort)
      socket.destroy()
      action()
    }
    const abort = () => settle(() => reject(signal.reason))
    signal.addEventListener('abort', abort, { once: true })
    socket.setEncoding('utf8')
    socket.on('data', (text: string) => {
      if (reply.length < longestReply) reply += text
    })
    socket.on('error', error => settle(() => reject(error)))
    socket.on('close', () => settle(() => resolve(reply)))
    for (const text of texts) socket.write(text)
    socket.end(() => {
      farewell = setTimeout(() => settle(() => resolve(reply)), farewellMs)
    })
  })
}

/** Sends datagrams one after the other. Rejects when one cannot be sent, or the machine it went to says that nobody listens there. */
export async function sendUdp({ host, port }: Port, texts: readonly string[], signal: AbortSignal): Promise<void> {
  signal.throwIfAborted()
  const socket = createSocket(host.includes(':') ? 'udp6' : 'udp4')
  let failed: (error: Error) => void = () => undefined
  const failure = new Promise<never>((_, reject) => {
    failed = reject
  })
  failure.catch(() => undefined) // it counts only while something is waited for
  const abort = () => failed(signal.reason)
  signal.addEventListener('abort', abort, { once: true })
  socket.on('error', error => failed(error))
  const done = (start: (end: (error?: Error | null) => void) => void) => {
    const work = new Promise<void>((resolve, reject) => start(error => (error ? reject(error) : resolve())))
    return Promise.race([work, failure])
  }
  try {
    // Connected: then the kernel tells of refusals.
    await done(end => socket.once('connect', () => end()).connect(port, host))
    for (const text of texts) await done(end => socket.send(text, end))
    // What the kernel knows of the last one is told in the loop's next round.
    await done(end => setImmediate(() => setImmediate(end)))
  } finally {
    signal.removeEventListener('abort', abort)
    socket.close()
  }
}

import { isUtf8 } from 'node:buffer'
import { createSocket, type Socket as DatagramSocket } from 'node:dgram'
import { createServer, type Server, type Socket as StreamSocket } from 'node:net'
import { JsonSyntaxError, parseJson } from '../sensu/json.js'
import type { Logger } from '../sensu/log.js'
import type { LocalSocket } from './agent.js'
import type { Results } from './results.js'
import { endSoon } from './stream-end.js'
import { publishSubmitted } from './submitted-results.js'

/** A sender that is silent for so long with an incomplete document is sent away. */
const WATCHDOG_MS = 500
/** The reference has no limit; a local program must not be able to exhaust the agent. */
const MAX_DOCUMENT_BYTES = 32 * 1024 * 1024
const MAX_CONNECTIONS = 1000

export interface SocketOptions {
  bind: string
  port: number
  log: Logger
  results: Results
}

/** `client.socket`: takes check results as JSON on TCP (answered with `ok`, `invalid` or `pong`) and UDP (not answered). */
export class Socket implements LocalSocket {
  readonly #options: SocketOptions
  #server: Server | undefined
  #datagrams: DatagramSocket | undefined
  readonly #senders = new Set<Sender>()

  constructor(options: SocketOptions) {
    this.#options = options
  }

  /** Rejects when the port is in use. */
  async open(): Promise<void> {
    const { bind, port, log } = this.#options
    log.debug('binding client tcp and udp sockets', { options: { bind, port } })
    this.#server = await listen(port, bind, stream => this.#accept(stream))
    this.#datagrams = await bindDatagrams(port, bind, message => this.#receive(message))
  }

  async close(): Promise<void> {
    for (const sender of this.#senders) sender.end()
    this.#datagrams?.close()
    await new Promise<void>(resolve => (this.#server ? this.#server.close(() => resolve()) : resolve()))
  }

  #accept(stream: StreamSocket): void {
    const sender: Sender = new Sender(stream, this.#options, () => this.#senders.delete(sender))
    this.#senders.add(sender)
  }

  #receive(message: Buffer): void {
    const { log, results } = this.#options
    if (isPing(message)) {
      log.debug('socket received ping')
      return
    }
    logData(log, message)
    try {
      publishSubmitted(parseJson(withoutEnd(message)), results)
    } catch (error) {
      log.error('failed to process check result from socket', { data: message, error: textOf(error) })
    }
  }
}

/** One TCP connection: collects chunks until they are a document, answers, and ends. */
class Sender {
  readonly #stream: StreamSocket
  readonly #options: SocketOptions
  readonly #chunks: Buffer[] = []
  #bytes = 0
  #answered = false
  #watchdog: NodeJS.Timeout | undefined

  constructor(stream: StreamSocket, options: SocketOptions, onClose: () => void) {
    this.#stream = stream
    this.#options = options
    stream.on('data', chunk => this.#receive(chunk))
    // a sender that says goodbye too early gets no answer, but the watchdog still reports what it left
    stream.on('end', () => stream.end())
    stream.on('error', () => stream.destroy())
    stream.on('close', onClose)
  }

  /** Ends the connection without an answer. */
  end(): void {
    clearTimeout(this.#watchdog)
    this.#stream.destroy()
  }

  #receive(chunk: Buffer): void {
    if (this.#answered) return
    this.#chunks.push(chunk)
    this.#bytes += chunk.length
    clearTimeout(this.#watchdog)
    if (this.#bytes > MAX_DOCUMENT_BYTES) this.#discard(`the document is larger than ${MAX_DOCUMENT_BYTES} bytes`)
    else this.#process(this.#data())
  }

  #process(data: Buffer): void {
    const { log, results } = this.#options
    if (isPing(data)) {
      log.debug('socket received ping')
      this.#answer('pong')
      return
    }
    logData(log, data)
    try {
      const document = withoutEnd(data)
      if (!mayBeComplete(document)) throw new JsonSyntaxError('the document is incomplete')
      publishSubmitted(parseJson(document), results)
      this.#answer('ok')
    } catch (error) {
      if (error instanceof JsonSyntaxError) {
        this.#watchdog = setTimeout(() => this.#discard(error.message), WATCHDOG_MS)
      } else {
        log.error('failed to process check result from socket', { data, error: textOf(error) })
        this.#answer('invalid')
      }
    }
  }

  #discard(reason: string): void {
    const data = this.#data()
    const { log } = this.#options
    log.warn('discarding data buffer for sender and closing connection', { data, parse_error: reason })
    this.#answer('invalid')
  }

  #answer(word: string): void {
    this.#answered = true
    this.#chunks.length = 0
    endSoon(this.#stream, word)
  }

  #data(): Buffer {
    const [first, ...others] = this.#chunks
    if (!first) return Buffer.alloc(0)
    if (others.length === 0) return first
    const data = Buffer.concat(this.#chunks)
    this.#chunks.splice(0, this.#chunks.length, data)
    return data
  }
}

/** Cheap and never wrong with no: a hash or an array must end as it began. Saves parsing a large document at every chunk. */
function mayBeComplete(data: Buffer): boolean {
  const first = data[0]
  let end = data.length
  while (end > 0 && isBlank(data[end - 1])) end--
  const last = data[end - 1]
  if (first === 0x7b) return last === 0x7d
  if (first === 0x5b) return last === 0x5d
  return true
}

function isBlank(byte: number | undefined): boolean {
  return byte === 0x20 || byte === 0x0a || byte === 0x0d || byte === 0x09
}

function isPing(data: Buffer): boolean {
  return data.length < 64 && withoutEnd(data).toString().trim() === 'ping'
}

/** Programs in C send the null byte at the end of their text, too. */
function withoutEnd(data: Buffer): Buffer {
  let end = data.length
  while (data[end - 1] === 0) end--
  return data.subarray(0, end)
}

function logData(log: Logger, data: Buffer): void {
  log.debug('socket received data', { data })
  if (!isUtf8(data)) log.warn('data from socket is not a valid UTF-8 sequence, processing it anyways', { data })
}

function textOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}

function listen(port: number, bind: string, onConnection: (stream: StreamSocket) => void): Promise<Server> {
  return new Promise((resolve, reject) => {
    const server = createServer({ allowHalfOpen: true, noDelay: true }, onConnection)
    server.maxConnections = MAX_CONNECTIONS
    server.once('error', reject)
    server.listen(port, bind, () => resolve(server))
  })
}

function bindDatagrams(port: number, bind: string, onMessage: (message: Buffer) => void): Promise<DatagramSocket> {
  return new Promise((resolve, reject) => {
    const socket = createSocket(bind.includes(':') ? 'udp6' : 'udp4')
    socket.on('message', onMessage)
    socket.once('error', reject)
    socket.bind(port, bind, () => resolve(socket))
  })
}

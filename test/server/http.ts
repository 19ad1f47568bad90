import { connect } from 'node:net'

/** As long as an answer may take. */
const PATIENCE_MS = 20_000

/** An answer as it came over the wire. */
export interface HttpAnswer {
  status_line: string
  /** As sent, in the order sent. */
  headers: string[]
  body: string
}

export interface HttpRequestOptions {
  headers?: Readonly<Record<string, string>>
  body?: string
}

/** Makes one request and reads until the connection is closed. */
export async function ask(
  port: number,
  method: string,
  target: string,
  { headers = {}, body }: HttpRequestOptions = {},
): Promise<HttpAnswer> {
  const lines = Object.entries({ Host: `127.0.0.1:${port}`, ...headers }).map(([name, value]) => `${name}: ${value}`)
  if (body !== undefined) lines.push(`Content-Length: ${Buffer.byteLength(body)}`)
  return parseAnswer(await exchange(port, `${method} ${target} HTTP/1.1\r\n${lines.join('\r\n')}\r\n\r\n${body ?? ''}`))
}

export function parseAnswer(text: string): HttpAnswer {
  const end = text.indexOf('\r\n\r\n')
  const [status_line = '', ...headers] = text.slice(0, end).split('\r\n')
  return { status_line, headers, body: text.slice(end + 4) }
}

/** Sends bytes and returns all that comes back until the other side closes. Rejects when it does not. */
export function exchange(port: number, text: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = []
    const socket = connect(port, '127.0.0.1', () => socket.write(text))
    socket.setTimeout(PATIENCE_MS, () => socket.destroy(new Error(`no end of the answer after ${PATIENCE_MS} ms`)))
    socket.on('data', chunk => chunks.push(chunk))
    socket.on('end', () => socket.end())
    socket.on('error', reject)
    socket.on('close', () => resolve(Buffer.concat(chunks).toString()))
  })
}

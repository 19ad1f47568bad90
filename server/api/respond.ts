import { type ServerResponse, STATUS_CODES } from 'node:http'
import type { Socket } from 'node:net'
import { finished, pipeline } from 'node:stream/promises'
import type { Answer } from './answer.js'
import type { ApiRequest } from './request.js'

/** Lists up to this many characters go out whole, with their length; longer ones in chunks, as they are read. */
const WHOLE_CHARACTERS = 256 * 1024

/** Headers as Sensu 1.9 sends them: sorted, and all but the connection's own known. */
type HeaderLines = [name: string, value: string][]

/** The connection ended before the answer did. */
export class ClientGone extends Error {
  override name = 'ClientGone'
}

/**
 * Sends an answer; resolves with the length of the body in bytes when it is out. Rejects with ClientGone, or with what kept a piece of the body
 * from being made: then the answer is cut off, or has not begun.
 */
export async function respond(
  response: ServerResponse,
  request: ApiRequest,
  answer: Answer,
  cors: HeaderLines,
): Promise<number> {
  const { whole, rest } = request.method === 'HEAD' ? { whole: '' } : await beginning(answer.body)
  const length = rest ? undefined : Buffer.byteLength(whole)
  response.sendDate = false
  response.writeHead(answer.status, headersOf(request, answer, cors, length).flat())
  if (rest) return sendPieces(response, continued(whole, rest))
  response.end(whole)
  await finished(response).catch(error => {
    throw new ClientGone(String(error))
  })
  return length ?? 0
}

async function sendPieces(response: ServerResponse, pieces: AsyncIterable<string>): Promise<number> {
  let bytes = 0
  let fault: unknown
  const chunks = async function* () {
    try {
      for await (const piece of pieces) {
        const chunk = Buffer.from(piece)
        bytes += chunk.length
        yield chunk
      }
    } catch (error) {
      fault = error
      throw error
    }
  }
  try {
    await pipeline(chunks, response)
  } catch (error) {
    throw fault ?? new ClientGone(String(error))
  }
  return bytes
}

/** Sends an answer that has a short body, or none, to somebody whose request Node's parser does not understand. */
export function respondRaw(socket: Socket, request: ApiRequest, answer: Answer, cors: HeaderLines): void {
  const body = request.method === 'HEAD' || typeof answer.body !== 'string' ? '' : answer.body
  const headers = headersOf(request, answer, cors, Buffer.byteLength(body)).map(([name, value]) => `${name}: ${value}`)
  socket.end([`HTTP/1.1 ${answer.status} ${STATUS_CODES[answer.status]}`, ...headers, '', body].join('\r\n'))
}

function headersOf({ id }: ApiRequest, answer: Answer, cors: HeaderLines, length: number | undefined): HeaderLines {
  const headers: HeaderLines = [
    ...cors,
    ...Object.entries(answer.headers ?? {}),
    ['Connection', 'close'],
    ['X-Request-ID', id],
  ]
  if (length !== undefined) headers.push(['Content-length', String(length)])
  if (length !== 0) headers.push(['Content-type', answer.contentType ?? 'application/json'])
  return headers.sort(([left], [right]) => (left < right ? -1 : 1))
}

interface Beginning {
  whole: string
  /** What is left of a body that is too long to be held. */
  rest?: AsyncIterator<string>
}

async function beginning(body: Answer['body']): Promise<Beginning> {
  if (body === undefined || typeof body === 'string') return { whole: body ?? '' }
  const iterator = body[Symbol.asyncIterator]()
  let whole = ''
  for (let next = await iterator.next(); !next.done; next = await iterator.next()) {
    whole += next.value
    if (whole.length > WHOLE_CHARACTERS) return { whole, rest: iterator }
  }
  return { whole }
}

async function* continued(begun: string, rest: AsyncIterator<string>): AsyncGenerator<string> {
  try {
    yield begun
    for (let next = await rest.next(); !next.done; next = await rest.next()) yield next.value
  } finally {
    await rest.return?.()
  }
}

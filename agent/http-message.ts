/** A request as far as the client's HTTP socket needs it. */
export interface HttpRequest {
  /** In upper case. */
  method: string
  methodAsSent: string
  /** Without the query string, as Sensu logs it. */
  path: string
  query: string
  /** By name in lower case; of a repeated header the last. */
  headers: ReadonlyMap<string, string>
  body: Buffer
  /** Something follows the request, which nobody will read: chunks, or a second request. */
  hasMore: boolean
}

const MAX_HEADER_BYTES = 64 * 1024
/** That of the reference. */
const MAX_BODY_BYTES = 32 * 1024 * 1024

/**
 * Reads one request from the start of what was received. The dialect is the reference's, more lenient than Node's
 * parser: bare line feeds, empty lines before the request, methods in lower case, bodies by Content-Length only.
 */
export function parseHttpRequest(bytes: Buffer): HttpRequest | 'incomplete' | 'malformed' {
  const received = withoutLeadingLines(bytes)
  const [headBytes, bodyStart] = splitHead(received)
  const firstLine = received.subarray(0, 4096).toString('latin1').split(/\r?\n/, 1)[0] ?? ''
  const hasLine = received.includes(0x0a) || received.length > 4096
  const [, method = '', uri = ''] = /^([A-Za-z]+) (\S+) HTTP\/\d\.\d$/.exec(firstLine) ?? []
  if (hasLine && method === '') return 'malformed'
  if (headBytes === undefined) return bytes.length > MAX_HEADER_BYTES ? 'malformed' : 'incomplete'
  const headers = parseHeaders(headBytes.toString('latin1').split(/\r?\n/).slice(1))
  const length = headers.get('content-length') ?? '0'
  if (!/^\d{1,15}$/.test(length) || Number(length) > MAX_BODY_BYTES) return 'malformed'
  const bodyEnd = bodyStart + Number(length)
  if (received.length < bodyEnd) return 'incomplete'
  const [path = '', query = ''] = splitOnce(uri, '?')
  const body = received.subarray(bodyStart, bodyEnd)
  const hasMore = received.length > bodyEnd
  return { method: method.toUpperCase(), methodAsSent: method, path, query, headers, body, hasMore }
}

/** Empty lines before a request are ignored, as RFC 9112 asks. */
function withoutLeadingLines(bytes: Buffer): Buffer {
  const start = bytes.findIndex(byte => byte !== 0x0d && byte !== 0x0a)
  return bytes.subarray(start < 0 ? bytes.length : start)
}

/** Everything before the empty line, and where the body begins. */
function splitHead(received: Buffer): [head: Buffer | undefined, bodyStart: number] {
  const text = received.subarray(0, MAX_HEADER_BYTES).toString('latin1')
  const end = /\r?\n\r?\n/.exec(text)
  return end ? [received.subarray(0, end.index), end.index + end[0].length] : [undefined, 0]
}

function parseHeaders(lines: string[]): Map<string, string> {
  return new Map(
    lines.map(line => {
      const [name = '', value = ''] = splitOnce(line, ':')
      return [name.trim().toLowerCase(), value.trim()]
    }),
  )
}

function splitOnce(text: string, separator: string): [string, string?] {
  const index = text.indexOf(separator)
  return index < 0 ? [text] : [text.slice(0, index), text.slice(index + 1)]
}

import type { RequestHead } from './request.js'

/** What Node's HTTP parser says of what it could not read. */
export interface UnreadableRequest extends Error {
  code?: string
  rawPacket?: Buffer
}

/**
 * The head of a request that is well formed but for a method that Node does not know (methods are case-sensitive: `get` is one of them).
 * Undefined for anything else.
 */
export function unreadableRequest(
  { code, rawPacket }: UnreadableRequest,
  remoteAddress: string,
): RequestHead | undefined {
  if (code !== 'HPE_INVALID_METHOD' || rawPacket === undefined) return undefined
  const [firstLine = '', ...lines] = rawPacket.toString('latin1').split('\r\n\r\n', 1)[0]?.split('\r\n') ?? []
  const [, method, url] = /^([\w-]{1,32}) (\S+) HTTP\/1\.\d$/.exec(firstLine) ?? []
  if (method === undefined || url === undefined) return undefined
  const headers = lines.map(line => {
    const colon = line.indexOf(':')
    return [line.slice(0, colon).trim().toLowerCase(), line.slice(colon + 1).trim()] as const
  })
  return { method, url, headers: Object.fromEntries(headers), remoteAddress }
}

/** The whole answer to what is no request at all; for malformed ones Sensu 1.9's. */
export function malformedRequest({ code }: UnreadableRequest): string {
  const [status, reason] =
    code === 'HPE_HEADER_OVERFLOW'
      ? [431, 'Request Header Fields Too Large']
      : code === 'ERR_HTTP_REQUEST_TIMEOUT'
        ? [408, 'Request Timeout']
        : [400, 'Bad request']
  return `HTTP/1.1 ${status} ${reason}\r\nConnection: close\r\nContent-type: text/plain\r\n\r\nDetected error: HTTP code ${status}`
}

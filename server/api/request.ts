import { randomUUID } from 'node:crypto'
import type { IncomingHttpHeaders, IncomingMessage } from 'node:http'
import { parseJson } from '../../sensu/json.js'
import { isObject } from '../../sensu/json-value.js'
import type { JsonObject } from '../../sensu/types.js'
import { parseQuery, type Query } from './query.js'

/** The first line and the headers of a request. */
export interface RequestHead {
  method: string
  /** As it was sent, with the query string. */
  url: string
  headers: IncomingHttpHeaders
  remoteAddress: string
}

/** A request to the API. */
export interface ApiRequest {
  /** The client's `X-Request-ID`, else a new one. */
  id: string
  remoteAddress: string
  /** As it was sent: methods are case-sensitive. */
  method: string
  /** Without the query string; not decoded. */
  path: string
  queryString: string | undefined
  query: Query
  headers: IncomingHttpHeaders
  body: string
  /** Parts of the path by the names that the route gives them. */
  parameters: Readonly<Record<string, string>>
}

export function apiRequest({ method, url, headers, remoteAddress }: RequestHead, body: string): ApiRequest {
  const [path = '', queryString] = url.split('?')
  const given = headers['x-request-id']
  return {
    id: typeof given === 'string' && /^[ -~]{1,256}$/.test(given) ? given : randomUUID(),
    // what a socket that takes both families says of IPv4
    remoteAddress: remoteAddress.replace(/^::ffff:/, ''),
    method,
    path,
    queryString,
    query: parseQuery(queryString ?? ''),
    headers,
    body,
    parameters: {},
  }
}

/** The body when it is a JSON object. */
export function objectIn({ body }: ApiRequest): JsonObject | undefined {
  try {
    const value = parseJson(body)
    return isObject(value) ? value : undefined
  } catch {
    return undefined
  }
}

/**
 * Reads the body. Like Sensu 1.9 it takes only bodies with a `Content-Length`: anything else is none. Undefined when it is longer than
 * `maximumBytes`; then nothing was read. Rejects when the client goes away.
 */
export async function readBody(message: IncomingMessage, maximumBytes: number): Promise<string | undefined> {
  const length = Number(message.headers['content-length'] ?? 0)
  if (length > maximumBytes) return undefined
  if (length === 0) return ''
  const chunks: Buffer[] = []
  for await (const chunk of message) chunks.push(chunk)
  return Buffer.concat(chunks).toString()
}
